//! Nobody is told `recovered` over something missing: random schedules of publishing, rolling Redis back to older data,
//! losing keys, and readers that come back, against the real scripts in a real server.
//!
//! The model's server (`model::store`) is asked beside the real one and must answer and publish the same.
//!
//! What holds in every schedule: a reader that is told `recovered` has, from where it began up to the top, exactly the
//! publications that the stream has had; one that is told of a fork has them up to there; and one whose stream was never
//! rolled back below it, and within what is kept, *is* told `recovered`. `FANFARE_SEED=<n>` repeats a schedule,
//! `FANFARE_SCHEDULES=<n>` says how many are run.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fanfare::broker::redis::RedisBroker;
use fanfare::broker::{Broker, Publish, ReadLimit, Recovery};
use fanfare::model::{
    ChannelKey, ClientId, Epoch, HistoryPolicy, Namespace, Namespaces, Payload, Position,
};
use fanfare::redis::{Address, Config};

use crate::model::tasks::lock;
use crate::random::Random;
use crate::redis_server::RedisServer;
use crate::server::Server;
use crate::tee::{Beside, Tee};

/// The publications of a stream, kept or not: offset to content.
type Stream = BTreeMap<u64, u64>;

const PREFIX: &str = "forks";

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
    beside: Option<Arc<Mutex<Beside>>>,
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
            86..90 => self.change_id(),
            90..93 => self.lose_stream(),
            93..95 => self.lose_meta(),
            95..97 => {
                let position = self.key("position");
                self.lose(&position);
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
                idempotency_key: self.random.chance(10).then(|| {
                    let key = self.random.below(5);
                    Arc::from(key.to_string())
                }),
            };
            let mut published = self.broker.publish(vec![publish]).await;
            let published = published.remove(0).expect("published");
            if published.duplicate {
                continue;
            }
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

    // What is done to the server is done to the model beside it.

    fn copy(&mut self, from: &str, to: &str) {
        self.server.ask(&["DEL", to]);
        self.server.ask(&["COPY", from, to]);
        if let Some(beside) = &self.beside {
            lock(beside).data.copy(from, to);
        }
    }

    fn lose(&mut self, key: &str) {
        let (_, what) = key.rsplit_once(':').expect("a key of a channel");
        self.copy(&format!("nothing:{what}"), key);
    }

    fn change_id(&mut self) {
        let id = self.server.change_id();
        if let Some(beside) = &self.beside {
            lock(beside).replid = id;
        }
    }

    const KEYS: [&str; 3] = ["meta", "stream", "position"];

    fn take_snapshot(&mut self) {
        let name = format!("snapshot-{}", self.random.below(4));
        for what in Self::KEYS {
            let (from, to) = (self.key(what), format!("{name}:{what}"));
            self.copy(&from, &to);
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
            let (from, to) = (format!("{}:{what}", snapshot.name), self.key(what));
            self.copy(&from, &to);
        }
        self.change_id();
        self.stream = snapshot.stream;
        self.kept_after = snapshot.kept_after;
        self.epochs = snapshot.epochs;
    }

    fn lose_stream(&mut self) {
        let stream = self.key("stream");
        self.lose(&stream);
        self.kept_after = self.top();
    }

    fn lose_meta(&mut self) {
        let meta = self.key("meta");
        self.lose(&meta);
        self.epochs.clear();
        self.stream.clear();
        self.kept_after = 0;
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

async fn connected(
    server: &RedisServer,
    prefix: &str,
    beside: Option<Arc<Mutex<Beside>>>,
) -> Arc<RedisBroker> {
    let config = Config {
        address: Address::parse(&server.url()).expect("an address"),
        prefix: prefix.to_owned(),
        ready_grace: Duration::ZERO,
        wait_replicas: 0,
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
    let redis = RedisBroker::connections(&config).expect("threads");
    let redis = Arc::new(Tee::new(redis, beside));
    let broker = RedisBroker::over(redis, &config, namespaces);
    until("it connects", || broker.is_ready()).await;
    Arc::new(broker)
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let began = std::time::Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(10), "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn run(
    server: &RedisServer,
    broker: &Arc<RedisBroker>,
    beside: Option<Arc<Mutex<Beside>>>,
    seed: u64,
) {
    let mut world = World {
        server: Server::connect(server),
        beside,
        broker: broker.clone(),
        channel: ChannelKey::new(&ClientId::random().to_string()).expect("a name"),
        prefix: PREFIX.to_owned(),
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
    let (channel, beside) = (world.channel.clone(), world.beside.clone());
    if beside.is_some() {
        broker.add_interest(&channel).await.expect("interest");
    }
    for _ in 0..80 {
        world.step().await;
    }
    if let Some(beside) = beside {
        until("all comes", || lock(&beside).has_heard_all()).await;
        broker.remove_interest(&channel).await.expect("no interest");
    }
}

fn seeds() -> impl Iterator<Item = u64> {
    let first = number("FANFARE_SEED").unwrap_or(1);
    let schedules = number("FANFARE_SCHEDULES").unwrap_or(100);
    (0..schedules).map(move |number| first.wrapping_add(number))
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_told_recovered_over_something_missing() {
    let server = RedisServer::start_with(&["--save", ""]);
    let broker = connected(&server, PREFIX, None).await;
    for seed in seeds() {
        run(&server, &broker, None, seed).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_model_of_a_server_does_what_a_server_does() {
    // The model trims to the size, which a server does where each node of a stream has one entry.
    let options = ["--save", "", "--stream-node-max-entries", "1"];
    let server = RedisServer::start_with(&options);
    let beside = Arc::new(Mutex::new(Beside::default()));
    let broker = connected(&server, PREFIX, Some(beside.clone())).await;
    for seed in seeds() {
        let mut plain = Server::connect(&server);
        lock(&beside).replid = plain.change_id();
        lock(&beside).begin();
        run(&server, &broker, Some(beside.clone()), seed).await;
        assert_eq!(lock(&beside).difference, None);
    }
    let compared = lock(&beside).compared;
    eprintln!("{compared} answers were the same");
    assert!(compared > 1000, "{compared}");
}
