//! A back end that publishes numbers to one channel, one after the other, and tries each again with the same idempotency
//! key until it is acknowledged.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::client::{Gateways, PATIENCE};
use super::ledger::Position;

/// Between two publications of one channel.
const INTERVAL: Duration = Duration::from_millis(80);

/// Between two attempts.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// What a back end was told of one attempt.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It is done.
    Acknowledged(Option<Position>),
    /// Redis is away, and nothing was done.
    Refused,
    /// There is no room, and nothing was done.
    Full,
    /// It may have been done.
    Unknown,
    /// The node was not there, or ended in the middle.
    Broken,
    /// The node was there and said nothing.
    Unanswered,
    /// Something else: no back end should see it.
    Odd(String),
}

/// What a publisher was told so far.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) refused: AtomicU64,
    pub(crate) full: AtomicU64,
    pub(crate) unknown: AtomicU64,
    pub(crate) broken: AtomicU64,
    pub(crate) unanswered: AtomicU64,
    /// The longest that an answer took, in milliseconds.
    pub(crate) slowest: AtomicU64,
}

#[derive(Debug)]
pub(crate) struct Publisher {
    pub(crate) channel: String,
    /// Numbers and where they stand, in the order of the numbers.
    acknowledged: Mutex<Vec<(u64, Option<Position>)>>,
    /// The last number that is being published.
    pub(crate) number: AtomicU64,
    pub(crate) told: Told,
    pub(crate) odd: Mutex<Vec<String>>,
    /// How many numbers it publishes at once.
    pub(crate) batch: AtomicU64,
    is_over: AtomicBool,
}

impl Publisher {
    pub(crate) fn new(channel: String) -> Self {
        Self {
            channel,
            acknowledged: Mutex::default(),
            number: AtomicU64::new(0),
            told: Told::default(),
            odd: Mutex::default(),
            batch: AtomicU64::new(1),
            is_over: AtomicBool::new(false),
        }
    }

    /// Ends when it was told so and what it published last is acknowledged.
    pub(crate) async fn live(self: Arc<Self>, gateways: Arc<Gateways>) {
        while !self.is_over.load(Ordering::Relaxed) {
            let count = self.batch.load(Ordering::Relaxed);
            let first = self.number.fetch_add(count, Ordering::Relaxed) + 1;
            while !self
                .publish(gateways.any(), first..=first + count - 1)
                .await
            {
                tokio::time::sleep(AGAIN_AFTER).await;
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    pub(crate) fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// How many are acknowledged.
    pub(crate) fn count(&self) -> usize {
        self.acknowledged.lock().expect("no panic").len()
    }

    pub(crate) fn acknowledged(&self) -> Vec<(u64, Option<Position>)> {
        self.acknowledged.lock().expect("no panic").clone()
    }

    /// The first acknowledged number after this one.
    pub(crate) fn first_after(&self, number: u64) -> Option<u64> {
        let acknowledged = self.acknowledged.lock().expect("no panic");
        let at = acknowledged.partition_point(|(other, _)| *other <= number);
        acknowledged.get(at).map(|(number, _)| *number)
    }

    /// Publishes these numbers, and answers whether all are acknowledged.
    async fn publish(&self, gateway: SocketAddr, numbers: RangeInclusive<u64>) -> bool {
        let channel = &self.channel;
        let one = |number: u64| {
            let key = format!("{channel}-{number}");
            json!({"channel": channel, "data": number, "idempotency_key": key})
        };
        let began = Instant::now();
        let (outcomes, is_answered) = match numbers.start() == numbers.end() {
            true => publish(gateway, &one(*numbers.start())).await,
            false => publish_batch(gateway, numbers.clone().map(one).collect()).await,
        };
        if is_answered {
            let millis = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.told.slowest.fetch_max(millis, Ordering::Relaxed);
        }
        let is_done = outcomes
            .iter()
            .all(|outcome| matches!(outcome, Outcome::Acknowledged(_)));
        for (number, outcome) in numbers.zip(outcomes) {
            let counter = match outcome {
                // Of a batch that is tried again, what is acknowledged then counts.
                Outcome::Acknowledged(position) if is_done => {
                    self.acknowledged
                        .lock()
                        .expect("no panic")
                        .push((number, position));
                    continue;
                }
                Outcome::Acknowledged(_) => continue,
                Outcome::Refused => &self.told.refused,
                Outcome::Full => &self.told.full,
                Outcome::Unknown => &self.told.unknown,
                Outcome::Broken => &self.told.broken,
                Outcome::Unanswered => &self.told.unanswered,
                Outcome::Odd(what) => {
                    self.odd.lock().expect("no panic").push(what);
                    continue;
                }
            };
            counter.fetch_add(1, Ordering::Relaxed);
        }
        is_done
    }
}

/// One attempt, and whether there was an answer.
async fn publish(gateway: SocketAddr, body: &Value) -> (Vec<Outcome>, bool) {
    match tokio::time::timeout(PATIENCE, post(gateway, "/hub/publish", body)).await {
        Err(_) => (vec![Outcome::Unanswered], false),
        Ok(None) => (vec![Outcome::Broken], false),
        Ok(Some((200, answer))) => (vec![Outcome::of(&answer)], true),
        Ok(Some((503, answer))) => (vec![Outcome::of(&answer)], true),
        Ok(Some((status, answer))) => (vec![Outcome::Odd(format!("{status} {answer}"))], true),
    }
}

/// The same with several at once: an outcome for each, or one for all when none was begun or nobody knows.
async fn publish_batch(gateway: SocketAddr, all: Vec<Value>) -> (Vec<Outcome>, bool) {
    let body = json!({"publications": all});
    match tokio::time::timeout(PATIENCE, post(gateway, "/hub/batch", &body)).await {
        Err(_) => (vec![Outcome::Unanswered], false),
        Ok(None) => (vec![Outcome::Broken], false),
        Ok(Some((status, answer))) => match answer["results"].as_array() {
            Some(results) => (results.iter().map(Outcome::of).collect(), true),
            None if status == 503 => (vec![Outcome::of(&answer)], true),
            None => (vec![Outcome::Odd(format!("{status} {answer}"))], true),
        },
    }
}

impl Outcome {
    /// What an answer says, or one of those to a batch.
    fn of(answer: &Value) -> Self {
        match (answer["error"].as_str(), answer["outcome"].as_str()) {
            (None, None) => Self::Acknowledged(super::client::position(answer)),
            (Some("broker_unavailable"), Some("unknown")) => Self::Unknown,
            (Some("broker_unavailable"), None) => Self::Refused,
            (Some("unavailable"), None) => Self::Full,
            _ => Self::Odd(answer.to_string()),
        }
    }
}

/// One request on a connection of its own; nothing when the connection broke before the answer was whole.
pub(crate) async fn post(gateway: SocketAddr, path: &str, body: &Value) -> Option<(u16, Value)> {
    let body = body.to_string();
    let mut stream = TcpStream::connect(gateway).await.ok()?;
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    // A reset behind a whole answer changes nothing in it.
    let _ = stream.read_to_end(&mut answer).await;
    let text = String::from_utf8(answer).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.get(9..12)?.parse().ok()?;
    Some((status, serde_json::from_str(body).ok()?))
}
