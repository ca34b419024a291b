//! A channel that goes from one server to another: whoever waits goes on waiting, and what may be missing is a hole.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::sync::oneshot::error::TryRecvError;

use crate::broker::{BrokerError, Control, Sink, Start};
use crate::model::{ChannelKey, Envelope, Epoch, Position};

use super::entry::Check;
use super::interest::{Ears, Interest};
use super::lock;

#[derive(Default)]
struct Holes(Mutex<Vec<String>>);

impl Sink for Holes {
    fn deliver(&self, _: &Envelope) {}

    fn hole(&self, channel: Option<&ChannelKey>) {
        let name = channel.map_or("all", ChannelKey::name).to_owned();
        lock(&self.0).push(name);
    }

    fn changed(&self) {}

    fn control(&self, _: &Control) {}
}

/// Two servers that are connected, and what was missed.
fn servers() -> ([Interest; 2], Arc<Holes>) {
    let (ears, holes) = (Arc::new(Ears::default()), Arc::new(Holes::default()));
    let _ = ears.sink.set(holes.clone());
    let servers = [(); 2].map(|()| {
        let server = Interest::new(ears.clone());
        server.connected();
        server
    });
    (servers, holes)
}

fn start() -> Start {
    Some(Position::new(Epoch::from_bits(1), 5))
}

/// Sends the next change and lets its mark come back. Answers what was added and what was removed.
fn change(server: &Interest) -> Option<(Vec<String>, Vec<String>)> {
    let change = server.next_change(Instant::now())?;
    for one in server.passed(change.mark, Instant::now()) {
        server.read(&one.name, one.life, Ok(start()));
    }
    Some((change.added, change.removed))
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

fn move_all(from: &Interest, to: &Interest) {
    for (name, entry) in from.depart(|_| true) {
        to.arrive(name, entry);
    }
}

#[test]
fn a_live_channel_that_moves_has_a_hole() {
    let ([one, other], holes) = servers();
    let news = ChannelKey::new("news").expect("a name");
    let mut told = one
        .add("news".to_owned(), &news, true, Instant::now())
        .expect("a wait");
    assert_eq!(change(&one), Some((names(&["news"]), Vec::new())));
    assert_eq!(told.try_recv(), Ok(Ok(start())));
    move_all(&one, &other);
    assert!(lock(&holes.0).is_empty(), "not before it is subscribed to");
    assert_eq!(change(&one), Some((Vec::new(), names(&["news"]))));
    assert_eq!(change(&other), Some((names(&["news"]), Vec::new())));
    assert_eq!(*lock(&holes.0), ["news"]);
}

#[test]
fn whoever_waits_for_a_channel_that_moves_is_answered_there() {
    let ([one, other], holes) = servers();
    let news = ChannelKey::new("news").expect("a name");
    let mut told = one
        .add("news".to_owned(), &news, true, Instant::now())
        .expect("a wait");
    move_all(&one, &other);
    assert_eq!(told.try_recv(), Err(TryRecvError::Empty));
    assert_eq!(change(&other), Some((names(&["news"]), Vec::new())));
    assert_eq!(told.try_recv(), Ok(Ok(start())));
    assert!(lock(&holes.0).is_empty(), "nothing was to be heard before");
}

#[test]
fn a_channel_that_nobody_wants_any_more_does_not_move() {
    let ([one, other], _) = servers();
    let news = ChannelKey::new("news").expect("a name");
    let _told = one.add("news".to_owned(), &news, false, Instant::now());
    change(&one);
    let mut ended = one.remove("news").expect("a wait");
    move_all(&one, &other);
    assert_eq!(ended.try_recv(), Err(TryRecvError::Closed), "it has ended");
    assert_eq!(change(&other), None);
}

#[test]
fn a_position_that_was_asked_for_before_the_connection_was_lost_is_not_taken() {
    let ([server, _], holes) = servers();
    let news = ChannelKey::new("news").expect("a name");
    let name = "news".to_owned();
    let mut told = server
        .add(name, &news, true, Instant::now())
        .expect("a wait");
    let asked = server.next_change(Instant::now()).expect("a change");
    let [one] = &server.passed(asked.mark, Instant::now())[..] else {
        panic!("one channel is to be read");
    };
    server.lost();
    server.connected();
    server.read(&one.name, one.life, Ok(start()));
    assert_eq!(told.try_recv(), Err(TryRecvError::Empty));
    assert!(lock(&holes.0).is_empty(), "it is not subscribed to yet");
    assert_eq!(change(&server), Some((names(&["news"]), Vec::new())));
    assert_eq!(told.try_recv(), Ok(Ok(start())));
    assert_eq!(*lock(&holes.0), ["news"]);
}

/// What a look at the position of a live channel finds, and whether it is a hole.
#[test]
fn a_position_that_is_not_where_the_node_is_is_a_hole() {
    let at = |epoch, offset| Position::new(Epoch::from_bits(epoch), offset);
    for (found, is_hole) in [
        (Some(at(1, 5)), false),
        (Some(at(1, 6)), true),
        (Some(at(1, 4)), true),
        (Some(at(2, 5)), true),
        (None, true),
    ] {
        let ([server, _], holes) = servers();
        let news = ChannelKey::new("news").expect("a name");
        let _told = server.add("news".to_owned(), &news, true, Instant::now());
        change(&server);
        let check = Check {
            name: "news".to_owned(),
            seen: at(1, 5),
            found,
        };
        server.check(vec![check]);
        change(&server);
        assert_eq!(lock(&holes.0).len(), usize::from(is_hole), "{found:?}");
    }
}

#[test]
fn what_is_asked_for_and_given_up_without_a_connection_leaves_nothing() {
    let ([server, _], _) = servers();
    let [news, kept] = ["news", "kept"].map(|name| ChannelKey::new(name).expect("a name"));
    let add = |name: &str, channel| server.add(name.to_owned(), channel, true, Instant::now());
    let _told = add("kept", &kept);
    change(&server);
    server.lost();
    let mut told = add("news", &news).expect("an answer");
    assert_eq!(told.try_recv(), Ok(Err(BrokerError::Unavailable)));
    assert!(server.remove("news").is_none());
    assert!(server.remove("kept").is_none());
    server.connected();
    assert_eq!(
        server
            .next_change(Instant::now())
            .map(|change| change.added),
        None
    );
}

#[test]
fn the_position_of_a_channel_that_was_given_up_is_not_asked_for() {
    let ([server, _], _) = servers();
    let news = ChannelKey::new("news").expect("a name");
    let _told = server.add("news".to_owned(), &news, true, Instant::now());
    let asked = server.next_change(Instant::now()).expect("a change");
    assert!(server.remove("news").is_none());
    assert!(server.passed(asked.mark, Instant::now()).is_empty());
}
