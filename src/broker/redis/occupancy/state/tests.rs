//! What a node says of its channels, without Redis: when, under which name, and what it makes of the answer.

use super::*;

fn news() -> ChannelKey {
    ChannelKey::new("news").expect("a name")
}

/// A node's state, and a clock that is moved by hand.
struct Node {
    state: State,
    now: Instant,
}

impl Node {
    fn new() -> Self {
        Self {
            state: State::default(),
            now: Instant::now(),
        }
    }

    fn subscribe(&mut self) {
        self.state.occupy(&news());
    }

    fn leave(&mut self) {
        self.state.vacate(&news(), self.now);
    }

    fn linger(&mut self) {
        self.now += LINGER;
    }

    /// The only word that is said now, by a node of this name.
    fn word(&mut self, name: &str) -> Word {
        let mut words = self.state.batch(name, self.now);
        assert_eq!(words.len(), 1, "{words:?}");
        words.remove(0)
    }

    #[track_caller]
    fn expect_silence(&mut self) {
        assert_eq!(self.state.batch("n1", self.now), []);
    }

    fn answer(&mut self, word: &Word, life: &str) {
        let answer = Answer {
            life: life.to_owned(),
            is_occupied: None,
        };
        self.state.said(word, Some(&answer));
    }

    /// One that Redis knows to be there.
    fn settled() -> Self {
        let mut node = Self::new();
        node.subscribe();
        let word = node.word("n1");
        node.answer(&word, "life");
        node
    }
}

#[test]
fn a_channel_is_entered_once_and_left_after_a_while() {
    let mut node = Node::new();
    node.subscribe();
    let entering = node.word("n1");
    assert!(entering.is_entering);
    assert_eq!(
        (&*entering.name, &*entering.former, &*entering.life),
        ("n1", "", "")
    );
    node.answer(&entering, "life");
    node.subscribe();
    node.expect_silence();
    node.leave();
    node.expect_silence();
    node.linger();
    let leaving = node.word("n1");
    assert!(!leaving.is_entering);
    assert_eq!((&*leaving.name, &*leaving.life), ("n1", "life"));
    node.answer(&leaving, "life");
    node.expect_silence();
    assert!(node.state.channels.is_empty(), "nothing is left behind");
}

#[test]
fn who_comes_back_in_time_has_not_left() {
    let mut node = Node::settled();
    for _ in 0..3 {
        node.leave();
        node.subscribe();
    }
    node.linger();
    node.expect_silence();
    assert!(node.state.idle.is_empty());
}

#[test]
fn who_leaves_before_its_turn_was_never_there() {
    let mut node = Node::new();
    node.subscribe();
    node.leave();
    node.linger();
    node.expect_silence();
    assert!(node.state.channels.is_empty());
}

#[test]
fn what_was_not_answered_is_said_again_as_it_was() {
    let mut node = Node::new();
    node.subscribe();
    let entering = node.word("n1");
    node.state.said(&entering, None);
    assert_eq!(node.word("n1"), entering);
    node.answer(&entering, "life");
    node.leave();
    node.linger();
    let leaving = node.word("n1");
    node.state.said(&leaving, None);
    assert_eq!(node.word("n1"), leaving);
}

#[test]
fn who_comes_back_while_it_is_leaving_enters_again() {
    let mut node = Node::settled();
    node.leave();
    node.linger();
    let leaving = node.word("n1");
    node.subscribe();
    node.answer(&leaving, "life");
    let entering = node.word("n1");
    // The end was told: what begins now is another life.
    assert!(entering.is_entering && entering.life.is_empty());
}

#[test]
fn a_node_that_redis_forgot_says_everything_again_with_the_life_that_it_knows() {
    let mut node = Node::settled();
    node.state.say_again(false);
    let word = node.word("n2");
    assert!(word.is_entering);
    assert_eq!(
        (&*word.name, &*word.former, &*word.life),
        ("n2", "n1", "life")
    );
    node.answer(&word, "life");
    node.expect_silence();
}

#[test]
fn a_node_that_was_given_up_does_not_know_whether_the_life_goes_on() {
    let mut node = Node::settled();
    node.state.say_again(true);
    assert_eq!(node.word("n2").life, "");
}

#[test]
fn an_answer_from_before_settles_nothing() {
    let mut node = Node::new();
    node.subscribe();
    let early = node.word("n1");
    node.state.say_again(false);
    node.answer(&early, "life");
    let again = node.word("n2");
    assert_eq!((&*again.name, &*again.former), ("n2", "n1"));
}

#[test]
fn a_batch_is_bounded() {
    let mut state = State::default();
    for number in 0..BATCH_MAX + 1 {
        let channel = ChannelKey::new(&format!("c{number}")).expect("a name");
        state.occupy(&channel);
    }
    let now = Instant::now();
    let sizes = [(); 3].map(|()| state.batch("n1", now).len());
    assert_eq!(sizes, [BATCH_MAX, 1, 0]);
}
