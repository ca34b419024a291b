//! Nobody is told `recovered` over something missing: random schedules of publishing, rolling Redis back to older data,
//! losing keys, and readers that come back, against the real scripts in a real server.
//!
//! What holds in every schedule: a reader that is told `recovered` has, from where it began up to the top, exactly the
//! publications that the stream has had; one that is told of a fork has them up to there; and one whose stream was never
//! rolled back below it, and within what is kept, *is* told `recovered`. `FANFARE_SEED=<n>` repeats a schedule,
//! `FANFARE_SCHEDULES=<n>` says how many are run.

mod model;
#[path = "../fleet/random.rs"]
mod random;
#[path = "../redis_server/mod.rs"]
mod redis_server;
mod server;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fanfare::broker::redis::RedisBroker;
use fanfare::broker::{Broker, Publish, ReadLimit, Recovery};
use fanfare::model::{
    ChannelKey, ClientId, Epoch, HistoryPolicy, Namespace, Namespaces, Payload, Position,
};
use fanfare::redis::{Address, Config};

use random::Random;
use server::Server;

/// The publications of a stream, kept or not: offset to content.
type Stream = BTreeMap<u64, u64>;

/// Small, so that readers often come too late.
const SIZE: u32 = 12;

/// The most forks that are remembered.
const FORKS_MAX: usize = 16;

/// What the data was at a moment.
#[derive(Clone)]
struct Snapshot {
    name: String,
    stream: Stream,
    kept_after: u64,
    epochs: Vec<Epoch>,
}

struct Reader {
    position: Position,
    /// What it has seen since it began, by offset.
    seen: Stream,
    /// Where it began.
    base: u64,
}

struct World {
    server: Server,
    broker: Arc<RedisBroker>,
    channel: ChannelKey,
    prefix: String,
    random: Random,
    stream: Stream,
    /// Nothing up to here is kept any more, whatever the size.
    kept_after: u64,
    /// The epochs that the data knows of, in their order.
    epochs: Vec<Epoch>,
    published: u64,
    snapshots: Vec<Snapshot>,
    readers: Vec<Reader>,
}

impl World {
    fn key(&self, what: &str) -> String {
        format!("{}:{{|{}}}:{what}", self.prefix, self.channel.name())
    }

    fn top(&self) -> u64 {
        self.stream.keys().next_back().copied().unwrap_or(0)
    }

    async fn step(&mut self) {
        match self.random.below(100) {
            0..30 => self.publish().await,
            30..60 => self.come_back().await,
            60..68 => self.begin().await,
            68..78 => self.take_snapshot(),
            78..86 => self.roll_back(),
            86..90 => self.server.change_id(),
            90..93 => self.lose_stream(),
            93..95 => self.lose_meta(),
            95..97 => {
                let position = self.key("position");
                self.server.ask(&["DEL", &position]);
            }
            _ => {
                let cleared = self.broker.clear_history(&self.channel).await;
                cleared.expect("an answer");
                self.kept_after = self.top();
            }
        }
    }

    async fn publish(&mut self) {
        for _ in 0..=self.random.below(6) {
            self.published += 1;
            let publish = Publish {
                channel: self.channel.clone(),
                data: Payload::from_plain_json(self.published.to_string()),
                origin: None,
                key: None,
                idempotency_key: None,
            };
            let mut published = self.broker.publish(vec![publish]).await;
            let published = published.remove(0).expect("published");
            let position = published.position.expect("a channel with history");
            assert_eq!(position.offset, self.top() + 1, "the numbering has no gap");
            self.stream.insert(position.offset, self.published);
            self.note(position.epoch);
        }
    }

    async fn begin(&mut self) {
        let position = self.broker.position(&self.channel).await;
        let position = position.expect("an answer").expect("history");
        assert_eq!(position.offset, self.top());
        self.note(position.epoch);
        self.readers.push(Reader {
            position,
            seen: Stream::new(),
            base: position.offset,
        });
    }

    fn note(&mut self, epoch: Epoch) {
        if self.epochs.last() != Some(&epoch) {
            self.epochs.push(epoch);
        }
    }

    /// A reader asks for what it missed, to the end or, now and then, for one page only.
    async fn come_back(&mut self) {
        if self.readers.is_empty() {
            return;
        }
        let at = self.random.below(self.readers.len() as u64) as usize;
        let mut reader = self.readers.swap_remove(at);
        loop {
            let must = self.must_recover(&reader);
            let limit = ReadLimit {
                publications: 1 + self.random.below(8) as usize,
                bytes: 1 << 20,
            };
            let recovery = self.broker.recover(&self.channel, reader.position, limit);
            match recovery.await.expect("an answer") {
                Recovery::Recovered(page) => {
                    for publication in &page.publications {
                        let data = std::str::from_utf8(publication.data.as_bytes());
                        let content = data.expect("text").parse().expect("a number");
                        reader.seen.insert(publication.offset, content);
                    }
                    let last = page.publications.last();
                    let reached = last.map_or(reader.position.offset, |last| last.offset);
                    self.assert_complete(&reader, reached, "recovered");
                    reader.position = Position::new(page.top.epoch, reached);
                    if !page.more || self.random.chance(20) {
                        assert!(page.more || reached == self.top(), "it ends at the top");
                        break;
                    }
                }
                Recovery::Lost { top, fork } => {
                    assert!(!must, "it could have recovered from {}", reader.position);
                    assert_eq!(top.offset, self.top());
                    let from = fork.unwrap_or(top);
                    if let Some(fork) = fork {
                        self.assert_complete(&reader, fork.offset, "a fork");
                        assert!(
                            self.is_kept_after(fork.offset),
                            "what follows the fork is kept"
                        );
                    }
                    reader = Reader {
                        position: from,
                        seen: Stream::new(),
                        base: from.offset,
                    };
                    self.note(top.epoch);
                    break;
                }
            }
        }
        self.readers.push(reader);
    }

    /// Up to `reached` it has what the stream has had since it began, and nothing else.
    fn assert_complete(&self, reader: &Reader, reached: u64, told: &str) {
        for offset in reader.base + 1..=reached {
            assert_eq!(
                reader.seen.get(&offset),
                self.stream.get(&offset),
                "told {told} at {} from {}, but offset {offset} is another",
                reader.position,
                reader.base,
            );
        }
    }

    fn is_kept_after(&self, offset: u64) -> bool {
        let floor = self.top().saturating_sub(u64::from(SIZE));
        offset == self.top() || offset >= floor.max(self.kept_after)
    }

    /// Whether nothing was done to the data that would excuse a `recovered: false`.
    fn must_recover(&self, reader: &Reader) -> bool {
        let offset = reader.position.offset;
        let is_same = (reader.base + 1..=offset)
            .all(|offset| reader.seen.get(&offset) == self.stream.get(&offset));
        // Who has seen nothing yet cannot be told from who saw what was rolled back.
        let has_seen = offset > reader.base;
        let mut later = self.epochs.iter().rev().take(FORKS_MAX + 1);
        later.any(|epoch| *epoch == reader.position.epoch)
            && has_seen
            && is_same
            && offset <= self.top()
            && self.is_kept_after(offset)
    }

    const KEYS: [&str; 3] = ["meta", "stream", "position"];

    fn take_snapshot(&mut self) {
        let name = format!("snapshot-{}", self.random.below(4));
        for what in Self::KEYS {
            let (from, to) = (self.key(what), format!("{name}-{what}"));
            self.server.ask(&["DEL", &to]);
            self.server.ask(&["COPY", &from, &to]);
        }
        self.snapshots.retain(|snapshot| snapshot.name != name);
        self.snapshots.push(Snapshot {
            name,
            stream: self.stream.clone(),
            kept_after: self.kept_after,
            epochs: self.epochs.clone(),
        });
    }

    /// The server comes back with older data, or a replica is promoted that had not heard of everything.
    fn roll_back(&mut self) {
        if self.snapshots.is_empty() {
            return;
        }
        let at = self.random.below(self.snapshots.len() as u64) as usize;
        let snapshot = self.snapshots[at].clone();
        for what in Self::KEYS {
            let (from, to) = (format!("{}-{what}", snapshot.name), self.key(what));
            self.server.ask(&["DEL", &to]);
            self.server.ask(&["COPY", &from, &to]);
        }
        self.server.change_id();
        self.stream = snapshot.stream;
        self.kept_after = snapshot.kept_after;
        self.epochs = snapshot.epochs;
    }

    fn lose_stream(&mut self) {
        let stream = self.key("stream");
        self.server.ask(&["DEL", &stream]);
        self.kept_after = self.top();
    }

    fn lose_meta(&mut self) {
        let meta = self.key("meta");
        self.server.ask(&["DEL", &meta]);
        self.epochs.clear();
        self.stream.clear();
        self.kept_after = 0;
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

async fn connected(server: &redis_server::RedisServer, prefix: &str) -> Arc<RedisBroker> {
    let config = Config {
        address: Address::parse(&server.url()).expect("an address"),
        prefix: prefix.to_owned(),
        ready_grace: Duration::ZERO,
        ca_file: None,
    };
    let namespace = Namespace {
        history: HistoryPolicy {
            size: SIZE,
            ttl: Duration::from_secs(3600),
        },
        ..Namespace::default_for(true)
    };
    let namespaces = Arc::new(Namespaces::new(namespace, BTreeMap::new()));
    let broker = RedisBroker::start(&config, namespaces).expect("threads");
    let began = std::time::Instant::now();
    while !broker.is_ready() {
        assert!(began.elapsed() < Duration::from_secs(10), "it connects");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Arc::new(broker)
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_told_recovered_over_something_missing() {
    let server = redis_server::RedisServer::start_with(&["--save", ""]);
    let prefix = "forks".to_owned();
    let broker = connected(&server, &prefix).await;
    let first = number("FANFARE_SEED").unwrap_or_else(rand::random);
    let schedules = number("FANFARE_SCHEDULES").unwrap_or(150);
    for seed in (0..schedules).map(|number| first.wrapping_add(number)) {
        let mut world = World {
            server: Server::connect(&server),
            broker: broker.clone(),
            channel: ChannelKey::new(&ClientId::random().to_string()).expect("a name"),
            prefix: prefix.clone(),
            random: Random::new(seed),
            stream: Stream::new(),
            kept_after: 0,
            epochs: Vec::new(),
            published: 0,
            snapshots: Vec::new(),
            readers: Vec::new(),
        };
        eprintln!("FANFARE_SEED={seed} FANFARE_SCHEDULES=1");
        world.begin().await;
        for _ in 0..80 {
            world.step().await;
        }
    }
}
