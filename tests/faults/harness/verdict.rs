//! The comparison at the end: what was acknowledged, what Redis holds, and what every client was told.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::ledger::{Position, Segment};
use super::load::ROOMS;
use super::resp::Frame;
use super::{DEADLINE, Fleet, PRESENT_WITHIN};

/// What a fault may take away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// Nothing: nobody may be told of a loss.
    None,
    /// Publications of channels without history, unnoticed.
    Unkept,
    /// What Redis itself lost: whoever had it, and nobody else, must be told.
    InRedis,
    /// What was not acknowledged: whoever had it must be told.
    Unacknowledged,
    /// Any of these, or none.
    Any,
}

/// What Redis holds of a channel.
struct Stream {
    epoch: String,
    top: u64,
    /// Epochs that were left, and up to where each is part of the present.
    forks: Vec<(String, u64)>,
    numbers: BTreeMap<u64, u64>,
}

impl Stream {
    fn key(channel: &str) -> String {
        format!("fanfare:{{|{channel}}}")
    }

    fn read(redis: SocketAddr, channel: &str) -> Self {
        let key = Self::key(channel);
        let bytes = ask(redis, &["XRANGE", &format!("{key}:stream"), "-", "+"]);
        let (entries, _) = Frame::read(&bytes).expect("an answer");
        let numbers = entries.list().iter().map(|entry| {
            let [id, fields] = entry.list() else {
                panic!("no entry: {entry:?}");
            };
            let (offset, _) = id.text().and_then(|id| id.split_once('-')).expect("an id");
            let data = fields
                .list()
                .get(1)
                .and_then(Frame::text)
                .expect("the data");
            (
                offset.parse().expect("an offset"),
                data.parse().expect("a number"),
            )
        });
        let numbers = numbers.collect();
        let bytes = ask(redis, &["HMGET", &format!("{key}:meta"), "e", "t", "f"]);
        let (meta, _) = Frame::read(&bytes).expect("an answer");
        let field = |at: usize| meta.list()[at].text().unwrap_or_default();
        let forks = field(2).split(',').filter_map(|fork| {
            let (epoch, at) = fork.rsplit_once(':')?;
            Some((epoch.to_owned(), at.parse().ok()?))
        });
        Self {
            epoch: field(0).to_owned(),
            top: field(1).parse().expect("a top"),
            forks: forks.collect(),
            numbers,
        }
    }

    /// Whether a position is part of what is there now.
    fn has(&self, at: &Position) -> bool {
        let end = match *self.epoch == *at.epoch {
            true => Some(self.top),
            false => {
                let fork = self.forks.iter().find(|(epoch, _)| **epoch == *at.epoch);
                fork.map(|(_, end)| *end)
            }
        };
        end.is_some_and(|end| at.offset <= end)
    }

    /// Whether somebody who was told of a loss behind this segment had anything that is not there any more.
    fn has_lost_some_of(&self, segment: &Segment) -> bool {
        let is_lost = |offset: u64, number: u64| self.numbers.get(&offset) != Some(&number);
        !self.has(&segment.start)
            || segment.received.iter().any(|received| {
                is_lost(received.at.offset, received.number) || !self.has(&received.at)
            })
    }
}

/// What came out, in numbers.
#[derive(Debug, Default)]
struct Verdict {
    acknowledged: usize,
    lost_by_redis: usize,
    received: usize,
    lost: u64,
    duplicated: usize,
    lied: usize,
    told: usize,
    told_wrongly: usize,
    recovered: u64,
    silent: u64,
    repeated: u64,
    faults: Vec<String>,
}

impl Fleet {
    /// Ends the load, waits until everything has arrived, and compares. Panics with everything that is wrong.
    pub(crate) async fn compare(&mut self, loss: Loss) {
        for publisher in &self.publishers {
            publisher.end();
        }
        let all = async { while self.publishing.join_next().await.is_some() {} };
        let ended = tokio::time::timeout(DEADLINE, all).await;
        assert!(
            ended.is_ok(),
            "{}: publications are not acknowledged",
            self.name
        );
        let streams: HashMap<String, Stream> = self
            .publishers
            .iter()
            .filter(|publisher| !publisher.channel.starts_with("live:"))
            .map(|publisher| {
                let name = &publisher.channel;
                let owner = self.owner_of(&format!("{}:position", Stream::key(name)));
                (name.clone(), Stream::read(owner, name))
            })
            .collect();
        // Whoever does not get there in time is found below.
        let began = Instant::now();
        while !self.stands_at(&streams) && began.elapsed() < DEADLINE {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.compare_presence().await;
        self.subscribing.shutdown().await;
        let mut verdict = Verdict::default();
        self.look_at_streams(&streams, &mut verdict);
        self.look_at_clients(&streams, &mut verdict);
        self.report(&verdict);
        self.judge(&verdict, loss);
    }

    fn stands_at(&self, streams: &HashMap<String, Stream>) -> bool {
        self.connected() == self.clients.len()
            && streams.iter().all(|(name, stream)| {
                self.subscribers(name).all(|(client, channel)| {
                    let ledger = client.ledger(channel);
                    ledger
                        .cursor
                        .as_ref()
                        .is_some_and(|cursor| cursor.offset == stream.top)
                })
            })
    }

    /// Every node says of every room that exactly those are present who are.
    async fn compare_presence(&self) {
        for room in (0..ROOMS).map(|room| format!("room:{room}")) {
            let count = self.subscribers(&room).count() as u64;
            for node in self.alive() {
                let began = Instant::now();
                loop {
                    let answer = node.get(&format!("/hub/channels/{room}/presence")).await;
                    if answer.status == 200 && answer.json()["count"] == count {
                        break;
                    }
                    assert!(
                        began.elapsed() < PRESENT_WITHIN,
                        "{}: {count} should be present in {room}: {answer:?}",
                        self.name
                    );
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn look_at_streams(&self, streams: &HashMap<String, Stream>, verdict: &mut Verdict) {
        for publisher in &self.publishers {
            let name = &publisher.channel;
            let acknowledged = publisher.acknowledged();
            verdict.acknowledged += acknowledged.len();
            verdict
                .faults
                .extend(publisher.odd.lock().expect("no panic").drain(..));
            let Some(stream) = streams.get(name) else {
                continue;
            };
            for (number, at) in &acknowledged {
                let offset = at.as_ref().map_or(0, |at| at.offset);
                verdict.lost_by_redis += usize::from(stream.numbers.get(&offset) != Some(number));
            }
            let different: BTreeSet<u64> = stream.numbers.values().copied().collect();
            verdict.duplicated += stream.numbers.len() - different.len();
            if !stream.numbers.values().is_sorted() {
                verdict.faults.push(format!("{name}: numbers out of order"));
            }
        }
    }

    fn look_at_clients(&self, streams: &HashMap<String, Stream>, verdict: &mut Verdict) {
        for (index, client) in self.clients.iter().enumerate() {
            for (channel, name) in client.channels.iter().enumerate() {
                let ledger = client.ledger(channel);
                let who = format!("client {index} ({:?}), {name}", client.door);
                let faults = ledger.faults.iter().map(|fault| format!("{who}: {fault}"));
                verdict.faults.extend(faults);
                verdict.silent += ledger.silent;
                verdict.repeated += ledger.repeated;
                verdict.recovered += ledger.recovered;
                let Some((stream, cursor)) = streams.get(name).zip(ledger.cursor.as_ref()) else {
                    continue;
                };
                if *cursor.epoch != *stream.epoch {
                    let what = format!("{who}: stands at {cursor:?}, not in {}", stream.epoch);
                    verdict.faults.push(what);
                }
                verdict.lost += stream.top.saturating_sub(cursor.offset);
                verdict.told += ledger.told();
                let Some((last, told)) = ledger.segments.split_last() else {
                    continue;
                };
                for segment in told
                    .iter()
                    .filter(|segment| !stream.has_lost_some_of(segment))
                {
                    verdict.told_wrongly += 1;
                    let end = segment.received.last().map(|received| &received.at);
                    let what = format!("{who}: told of a loss behind {:?}..{end:?}", segment.start);
                    verdict.faults.push(what);
                }
                let lies = last.received.iter().filter(|received| {
                    stream.numbers.get(&received.at.offset) != Some(&received.number)
                });
                verdict.lied += lies.count() + usize::from(!stream.has(&last.start));
                let segments = ledger.segments.iter();
                verdict.received += segments
                    .map(|segment| segment.received.len())
                    .sum::<usize>();
            }
        }
    }

    fn report(&self, verdict: &Verdict) {
        eprintln!(
            "fault {}: {} clients, {} connections, {} acknowledged, {} received; lost {}, duplicated {}, told \"recovered\" \
             wrongly {}; recovered {}, told of a loss {}; lost by Redis itself {}; publishers told: refused {}, full {}, unknown \
             {}, broken {}, slowest answer {} ms; back to normal after {:?}",
            self.name,
            self.clients.len(),
            self.sessions(),
            verdict.acknowledged,
            verdict.received,
            verdict.lost,
            verdict.duplicated,
            verdict.lied,
            verdict.recovered,
            verdict.told,
            verdict.lost_by_redis,
            self.told(|told| &told.refused),
            self.told(|told| &told.full),
            self.told(|told| &told.unknown),
            self.told(|told| &told.broken),
            self.publishers
                .iter()
                .map(|publisher| publisher.told.slowest.load(Ordering::Relaxed))
                .max()
                .unwrap_or_default(),
            self.back_after.unwrap_or_default(),
        );
    }

    fn left_twice(&self) -> u64 {
        let clients = self.clients.iter();
        clients
            .map(|client| client.left_twice.lock().expect("no panic").len() as u64)
            .sum()
    }

    fn judge(&self, verdict: &Verdict, loss: Loss) {
        let mut wrong: Vec<String> = verdict.faults.iter().take(20).cloned().collect();
        let mut must_be = |what: &str, found: u64, is_fine: bool| {
            if !is_fine {
                wrong.push(format!("{what}: {found}"));
            }
        };
        let (lost_by_redis, told) = (verdict.lost_by_redis as u64, verdict.told as u64);
        must_be("lost", verdict.lost, verdict.lost == 0);
        must_be(
            "duplicated",
            verdict.duplicated as u64,
            verdict.duplicated == 0,
        );
        must_be(
            "told recovered wrongly",
            verdict.lied as u64,
            verdict.lied == 0,
        );
        must_be(
            "told of a loss wrongly",
            verdict.told_wrongly as u64,
            verdict.told_wrongly == 0,
        );
        let unanswered = self.told(|told| &told.unanswered);
        must_be("publishers without an answer", unanswered, unanswered == 0);
        if loss == Loss::InRedis {
            must_be(
                "lost by Redis (the fault did not happen)",
                lost_by_redis,
                lost_by_redis > 0,
            );
            must_be("told of a loss (somebody should be)", told, told > 0);
        } else if loss != Loss::Any {
            let repeated = verdict.repeated;
            must_be("repeated without history", repeated, repeated == 0);
            must_be("lost by Redis", lost_by_redis, lost_by_redis == 0);
            // Of what Redis forgot it is told again.
            let left_twice = self.left_twice();
            must_be("leaves told twice", left_twice, left_twice == 0);
        }
        if loss == Loss::Unacknowledged {
            must_be("told of a loss (somebody should be)", told, told > 0);
        }
        if loss == Loss::None {
            let silent = verdict.silent;
            must_be("lost silently without history", silent, silent == 0);
        }
        assert!(wrong.is_empty(), "{}:\n  {}", self.name, wrong.join("\n  "));
    }
}

/// What a command answers, as bytes.
fn ask(redis: SocketAddr, words: &[&str]) -> Vec<u8> {
    let mut stream = TcpStream::connect(redis).expect("Redis");
    let mut command = format!("*{}\r\n", words.len());
    for word in words {
        command.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    stream.write_all(command.as_bytes()).expect("sent");
    let (mut answer, mut part) = (Vec::new(), [0; 65_536]);
    while Frame::read(&answer).is_none() {
        match stream.read(&mut part) {
            Ok(length @ 1..) => answer.extend_from_slice(&part[..length]),
            other => panic!("no answer to {words:?}: {other:?}"),
        }
    }
    answer
}
