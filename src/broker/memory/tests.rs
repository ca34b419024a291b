//! What is the memory broker's own: its bounds and what it forgets. What every broker does is in the conformance suite
//! (`tests/broker_conformance`).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::model::{Namespace, Payload, UserId};

const ALL: ReadLimit = ReadLimit {
    publications: usize::MAX,
    bytes: usize::MAX,
};

/// More calls than a round of the sweep over the few channels of a test takes.
const ROUND: usize = 64;

struct Fixture {
    broker: MemoryBroker,
    millis: Arc<AtomicU64>,
}

impl Fixture {
    fn new(config: &Config) -> Self {
        Self::with_default(config, Namespace::default_for(true))
    }

    fn with_default(config: &Config, default: Namespace) -> Self {
        let mut none = default.clone();
        none.history.size = 0;
        let named = BTreeMap::from([("none".to_owned(), none)]);
        let millis = Arc::new(AtomicU64::new(0));
        let clock = Arc::clone(&millis);
        Self {
            broker: MemoryBroker::new(
                config,
                Arc::new(Namespaces::new(default, named)),
                move || Moment::from_millis(clock.load(Ordering::Relaxed)),
            ),
            millis,
        }
    }

    fn advance(&self, seconds: u64) {
        self.millis.fetch_add(seconds * 1000, Ordering::Relaxed);
    }

    fn sweep_all(&self) {
        (0..ROUND).for_each(|_| self.broker.sweep());
    }

    fn publish(&self, name: &str, bytes: usize) -> Result<Published, BrokerError> {
        self.publish_with_key(name, bytes, None)
    }

    fn publish_with_key(
        &self,
        name: &str,
        bytes: usize,
        key: Option<&str>,
    ) -> Result<Published, BrokerError> {
        let publish = Publish {
            channel: channel(name),
            data: Payload::from_plain_json("1".repeat(bytes)),
            origin: None,
            key: None,
            idempotency_key: key.map(Arc::from),
        };
        self.broker.publish_one(publish, self.broker.now())
    }

    fn kept(&self, name: &str) -> Vec<u64> {
        let page = self.broker.read(&channel(name), |stream, policy, now| {
            stream.history(None, ALL, policy, now)
        });
        let publications = page.expect("a channel with history").publications;
        publications.iter().map(|kept| kept.offset).collect()
    }

    fn top(&self, name: &str) -> Position {
        self.broker
            .read(&channel(name), |stream, _, _| stream.position())
            .expect("a channel with history")
    }

    fn channels(&self) -> usize {
        self.broker.usage().channels
    }
}

fn roomy() -> Config {
    Config {
        history_bytes_max: 1 << 30,
        channels_max: 1000,
        idempotency_keys_max: 1000,
    }
}

fn channel(name: &str) -> ChannelKey {
    ChannelKey::new(name).expect("a channel name")
}

fn member(client: u128) -> Arc<Member> {
    Arc::new(Member {
        client: ClientId::from_bits(client),
        user: UserId::from("ann"),
        info: None,
    })
}

/// What one kept publication of so many bytes costs.
fn cost_of(bytes: usize) -> usize {
    let fixture = Fixture::new(&roomy());
    fixture.publish("probe", bytes).expect("room");
    fixture.broker.usage().history_bytes
}

#[test]
fn the_channel_published_to_the_longest_ago_gives_up_its_oldest_first() {
    let fixture = Fixture::new(&Config {
        history_bytes_max: 5 * cost_of(100),
        ..roomy()
    });
    for name in ["a", "b", "a", "b", "a"] {
        fixture.advance(1);
        fixture.publish(name, 100).expect("room");
    }
    fixture.advance(1);
    fixture.publish("c", 100).expect("room");
    assert_eq!(
        (fixture.kept("a"), fixture.kept("b")),
        (vec![1, 2, 3], vec![2])
    );
    fixture.publish("c", 100).expect("room");
    fixture.publish("c", 100).expect("room");
    assert_eq!((fixture.kept("a"), fixture.kept("b")), (vec![2, 3], vec![]));
    assert_eq!(fixture.broker.usage().evictions, 3);
}

#[test]
fn kept_bytes_never_pass_their_bound() {
    let bound = 10_000;
    let fixture = Fixture::new(&Config {
        history_bytes_max: bound,
        ..roomy()
    });
    for number in 0..2000u64 {
        let name = format!("channel-{}", number * 7919 % 97);
        fixture
            .publish(&name, 1 + number as usize % 500)
            .expect("room");
        assert!(fixture.broker.usage().history_bytes <= bound);
    }
    assert!(fixture.broker.usage().history_bytes > bound / 2);
}

#[test]
fn a_publication_over_the_whole_bound_is_numbered_and_not_kept() {
    let fixture = Fixture::new(&Config {
        history_bytes_max: 1000,
        ..roomy()
    });
    let published = fixture
        .publish("a", 2000)
        .expect("it is delivered all the same");
    assert_eq!(published.position, Some(fixture.top("a")));
    assert_eq!((fixture.top("a").offset, fixture.kept("a")), (1, vec![]));
    assert_eq!(fixture.broker.usage().history_bytes, 0);
}

#[test]
fn numbering_survives_an_eviction() {
    let fixture = Fixture::new(&Config {
        history_bytes_max: cost_of(100),
        ..roomy()
    });
    for _ in 0..3 {
        fixture.publish("a", 100).expect("room");
    }
    assert_eq!((fixture.top("a").offset, fixture.kept("a")), (3, vec![3]));
}

#[test]
fn the_sweep_gives_the_bytes_of_expired_publications_back() {
    let fixture = Fixture::new(&roomy());
    for number in 0..100 {
        fixture
            .publish(&format!("channel-{number}"), 10)
            .expect("room");
    }
    fixture.advance(299);
    fixture.sweep_all();
    assert_eq!(fixture.broker.usage().history_bytes, 100 * cost_of(10));
    fixture.advance(1);
    fixture.sweep_all();
    assert_eq!(fixture.broker.usage().history_bytes, 0);
    assert_eq!(fixture.channels(), 100);
}

#[test]
fn the_sweep_lets_a_long_history_go_in_bounded_steps() {
    let mut namespace = Namespace::default_for(true);
    namespace.history.size = 10_000;
    let fixture = Fixture::with_default(&roomy(), namespace);
    for _ in 0..10_000 {
        fixture.publish("a", 1).expect("room");
    }
    fixture.advance(300);
    let each = cost_of(1);
    for left in [10_000 - 4096, 10_000 - 2 * 4096, 0] {
        fixture.broker.sweep();
        assert_eq!(fixture.broker.usage().history_bytes, left * each);
    }
}

#[test]
fn an_idle_channel_is_forgotten_after_its_time_and_comes_back_with_a_new_epoch() {
    let fixture = Fixture::new(&roomy());
    fixture.publish("a", 10).expect("room");
    let before = fixture.top("a");
    fixture.advance(599);
    fixture.sweep_all();
    assert_eq!(fixture.top("a"), before);
    // Asking was a use: the time begins again.
    fixture.advance(599);
    fixture.sweep_all();
    assert_eq!(fixture.channels(), 1);
    fixture.advance(1);
    fixture.sweep_all();
    assert_eq!(fixture.channels(), 0);
    let after = fixture.top("a");
    assert_ne!(after.epoch, before.epoch);
    assert_eq!(after.offset, 0);
}

#[test]
fn a_channel_with_interest_or_members_is_never_forgotten() {
    let fixture = Fixture::new(&roomy());
    let (broker, wanted, visited) = (&fixture.broker, channel("wanted"), channel("visited"));
    broker.start_interest(&wanted).expect("room");
    broker.add_member(&visited, member(1)).expect("room");
    fixture.advance(100_000);
    fixture.sweep_all();
    assert_eq!(fixture.channels(), 2);
    broker.end_interest(&wanted);
    broker.remove_member(&visited, member(1).client);
    fixture.sweep_all();
    assert_eq!(fixture.channels(), 2);
    fixture.advance(600);
    fixture.sweep_all();
    assert_eq!(fixture.channels(), 0);
}

#[test]
fn a_channel_without_history_is_remembered_only_while_somebody_is_there() {
    let fixture = Fixture::new(&roomy());
    let (broker, none) = (&fixture.broker, channel("none:a"));
    fixture.publish("none:a", 1).expect("nothing is needed");
    assert_eq!(fixture.channels(), 0);
    broker.start_interest(&none).expect("room");
    broker.add_member(&none, member(1)).expect("room");
    broker.end_interest(&none);
    assert_eq!(fixture.channels(), 1);
    broker.remove_member(&none, member(1).client);
    assert_eq!(fixture.channels(), 0);
}

#[test]
fn refuses_a_new_channel_when_no_idle_one_can_be_forgotten() {
    let fixture = Fixture::new(&Config {
        channels_max: 2,
        ..roomy()
    });
    let wanted = channel("wanted");
    fixture.broker.start_interest(&wanted).expect("room");
    fixture.publish("kept", 1).expect("room");
    assert_eq!(fixture.publish("new", 1), Err(BrokerError::Full));
    assert_eq!(
        fixture.broker.start_interest(&channel("new")),
        Err(BrokerError::Full)
    );
    // Those that are there go on, and so do channels that need no record.
    assert!(fixture.publish("wanted", 1).is_ok());
    assert!(fixture.publish("none:a", 1).is_ok());
    assert_eq!(fixture.channels(), 2);
}

#[test]
fn forgets_an_idle_channel_before_its_time_when_the_room_is_wanted() {
    let fixture = Fixture::new(&Config {
        channels_max: 2,
        ..roomy()
    });
    fixture
        .broker
        .start_interest(&channel("wanted"))
        .expect("room");
    fixture.publish("kept", 1).expect("room");
    fixture.advance(300);
    assert!(fixture.publish("new", 1).is_ok());
    assert_eq!(fixture.channels(), 2);
    assert_eq!(fixture.kept("new"), [1]);
}

#[test]
fn many_new_channels_pass_through_a_small_table() {
    let fixture = Fixture::new(&Config {
        channels_max: 50,
        ..roomy()
    });
    for number in 0..5000 {
        fixture.top(&format!("channel-{number}"));
        assert!(fixture.channels() <= 50);
    }
}

#[test]
fn idempotency_keys_are_bounded_and_swept() {
    let fixture = Fixture::new(&Config {
        idempotency_keys_max: 2,
        ..roomy()
    });
    for key in ["1", "2", "3"] {
        fixture.publish_with_key("a", 1, Some(key)).expect("room");
    }
    let usage = fixture.broker.usage();
    assert_eq!((usage.idempotency_keys, usage.displaced_keys), (2, 1));
    let again = |key| {
        fixture
            .publish_with_key("a", 1, Some(key))
            .map(|it| it.duplicate)
    };
    assert_eq!(again("3"), Ok(true));
    assert_eq!(again("1"), Ok(false));
    fixture.advance(300);
    fixture.broker.sweep();
    assert_eq!(fixture.broker.usage().idempotency_keys, 0);
}

#[test]
fn many_threads_leave_the_sums_right() {
    let bound = 200_000;
    let fixture = Fixture::new(&Config {
        history_bytes_max: bound,
        channels_max: 40,
        ..roomy()
    });
    std::thread::scope(|scope| {
        for thread in 0..4usize {
            let fixture = &fixture;
            scope.spawn(move || {
                for number in 0..2000 {
                    let name = format!("channel-{}", (number * 31 + thread) % 60);
                    // Full is an answer here as well: sixty channels want forty places.
                    let _ = fixture.publish(&name, number % 300 + 1);
                    if number % 100 == thread {
                        fixture.advance(20);
                        fixture.broker.sweep();
                    }
                }
            });
        }
    });
    let usage = fixture.broker.usage();
    assert!(usage.history_bytes <= bound && usage.channels <= 40);
    fixture.advance(100_000);
    fixture.sweep_all();
    let usage = fixture.broker.usage();
    assert_eq!((usage.history_bytes, usage.channels), (0, 0));
}
