//! One run: three nodes, publishers, clients, a fault, and the reckoning.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::link::Link;
use crate::publisher::{Publisher, Said, get};
use crate::redis_server::RedisServer;
use crate::subscriber::{Addresses, CHANNEL, Diary, Door, Event, Subscriber};
use crate::support::{Hub, eventually, hub_with};

/// Long enough that no run fills it.
const NAMESPACES: &str = "[namespaces.run]\nhistory = { size = 100000, ttl = \"1h\" }\n";

/// By when everything is as before, after a fault is over.
const NORMAL_WITHIN: Duration = Duration::from_secs(10);

pub(crate) struct Run {
    pub(crate) redis: RedisServer,
    pub(crate) nodes: Vec<Hub>,
    /// Between the first node, or the replica, and Redis.
    pub(crate) link: Link,
    pub(crate) addresses: Addresses,
    publishers: Vec<Publisher>,
    pub(crate) subscribers: Vec<Subscriber>,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) acknowledged: usize,
    /// Acknowledged, and not in the stream any more.
    pub(crate) lost_by_redis: usize,
    pub(crate) refused: u64,
    pub(crate) unknown: u64,
    /// How often clients were told that they missed something.
    pub(crate) told: usize,
    /// How often clients were told that they recovered.
    pub(crate) recovered: usize,
}

impl Run {
    /// Three nodes with publishers and this many clients, in full swing.
    pub(crate) async fn start(clients: usize, variables: &[(&str, &str)]) -> Self {
        let redis = RedisServer::start();
        let link = Link::start(redis.port()).await;
        let urls = [
            format!("redis://{}", link.address),
            redis.url(),
            redis.url(),
        ];
        Self::start_at(redis, link, urls, clients, variables).await
    }

    /// The same with nodes that find Redis at these addresses.
    pub(crate) async fn start_at(
        redis: RedisServer,
        link: Link,
        urls: [String; 3],
        clients: usize,
        variables: &[(&str, &str)],
    ) -> Self {
        let mut nodes = Vec::new();
        for (index, url) in urls.into_iter().enumerate() {
            let id = format!("node-{index}");
            let mut all = vec![
                ("REDIS_URL", url.as_str()),
                ("NODE_ID", id.as_str()),
                ("DRAIN_SECONDS", "1"),
            ];
            all.extend(variables);
            nodes.push(hub_with(NAMESPACES, &all).await);
        }
        let addresses: Vec<SocketAddr> = nodes.iter().map(Hub::address).collect();
        let addresses = Arc::new(Mutex::new(addresses));
        let door = |index: usize| match index % 4 {
            0 => Door::EventStream,
            _ => Door::WebSocket,
        };
        let subscribers: Vec<_> = (0..clients)
            .map(|index| Subscriber::start(index, door(index), &addresses))
            .collect();
        let pause = Duration::from_millis(8);
        let publishers = (0..2)
            .map(|index| Publisher::start(index * 1_000_000, pause, &addresses))
            .collect();
        let run = Self {
            redis,
            nodes,
            link,
            addresses,
            publishers,
            subscribers,
        };
        eventually("everybody has something", async || {
            let has = |one: &Subscriber| one.offset().is_some_and(|offset| offset > 0);
            run.subscribers.iter().all(has).then_some(())
        })
        .await;
        run
    }

    /// A node that is about to go: nobody goes there any more.
    pub(crate) fn take_out(&mut self, index: usize) -> Hub {
        let hub = self.nodes.remove(index);
        let address = hub.address();
        self.addresses
            .lock()
            .expect("whole")
            .retain(|other| *other != address);
        hub
    }

    /// Some clients go away for a while; they come back with [`Run::bring_back`].
    pub(crate) fn send_away(&mut self, count: usize) -> Vec<(Door, Arc<Mutex<Diary>>)> {
        let away = self.subscribers.drain(..count);
        away.map(|one| (one.door, one.diary.clone())).collect()
    }

    pub(crate) fn bring_back(&mut self, away: Vec<(Door, Arc<Mutex<Diary>>)>) {
        for (index, (door, diary)) in away.into_iter().enumerate() {
            let back = Subscriber::go_on(index, door, &self.addresses, diary);
            self.subscribers.push(back);
        }
    }

    /// How many publications have been acknowledged.
    pub(crate) fn acknowledged(&self) -> usize {
        let said = self.publishers.iter();
        said.map(|one| one.said.lock().expect("whole").acknowledged.len())
            .sum()
    }

    /// Waits until so many more are acknowledged.
    pub(crate) async fn publish_more(&self, count: usize) {
        let enough = self.acknowledged() + count;
        eventually("more is acknowledged", async || {
            (self.acknowledged() >= enough).then_some(())
        })
        .await;
    }

    /// The fault is over: publishing goes on a little, ends, and everything is compared.
    pub(crate) async fn reckon(mut self) -> Outcome {
        let began = Instant::now();
        self.publish_more(20).await;
        let mut said = Vec::new();
        for publisher in std::mem::take(&mut self.publishers) {
            said.push(publisher.finish().await);
        }
        let stream = self.stream().await;
        let top = stream.keys().next_back().copied().expect("something");
        for subscriber in &self.subscribers {
            let name = format!("{} at the top, {top}", subscriber.name);
            eventually(&name, async || {
                (subscriber.offset() == Some(top)).then_some(())
            })
            .await;
        }
        assert!(
            began.elapsed() < NORMAL_WITHIN,
            "normal after {:?}",
            began.elapsed()
        );
        let outcome = reckon(&said, &stream, &self.subscribers);
        // Shown by `--nocapture`.
        eprintln!("{outcome:?}");
        assert!(outcome.acknowledged >= 20, "{outcome:?}");
        outcome
    }

    /// What Redis has in the end: offset to number.
    async fn stream(&self) -> BTreeMap<u64, u64> {
        let address = self.nodes[0].address();
        let mut stream = BTreeMap::new();
        let mut path = format!("/hub/channels/{CHANNEL}/history?limit=1000");
        loop {
            // The fault may have ended a moment ago.
            let page = eventually("a page of history", async || {
                let (status, page) = get(address, &path).await?;
                (status == 200).then_some(page)
            })
            .await;
            for publication in page["publications"].as_array().expect("publications") {
                let offset = publication["offset"].as_u64().expect("an offset");
                stream.insert(offset, publication["data"].as_u64().expect("a number"));
            }
            let last = stream.keys().next_back().copied().unwrap_or(0);
            if page["more"].as_bool() != Some(true) {
                return stream;
            }
            let epoch = page["epoch"].as_str().expect("an epoch");
            path =
                format!("/hub/channels/{CHANNEL}/history?limit=1000&epoch={epoch}&offset={last}");
        }
    }
}

fn reckon(said: &[Said], stream: &BTreeMap<u64, u64>, subscribers: &[Subscriber]) -> Outcome {
    let acknowledged: Vec<(u64, u64)> = said
        .iter()
        .flat_map(|said| said.acknowledged.iter().copied())
        .collect();
    let stands = |(offset, number): &&(u64, u64)| stream.get(offset) == Some(number);
    let kept = acknowledged.iter().filter(stands).count();
    let (mut told, mut recovered) = (0, 0);
    for subscriber in subscribers {
        let diary = subscriber.diary.lock().expect("whole");
        let counts = check_diary(&subscriber.name, &diary.events, stream);
        told += counts.0;
        recovered += counts.1;
    }
    Outcome {
        acknowledged: acknowledged.len(),
        lost_by_redis: acknowledged.len() - kept,
        refused: said.iter().map(|said| said.refused).sum(),
        unknown: said.iter().map(|said| said.unknown).sum(),
        told,
        recovered,
    }
}

/// Between two times of being told, offsets follow each other. What came after the last time is the stream itself.
/// Answers how often it was told of something, and how often that it recovered.
fn check_diary(name: &str, events: &[Event], stream: &BTreeMap<u64, u64>) -> (usize, usize) {
    let (mut at, mut told, mut recovered) = (None, 0_usize, 0);
    let mut since_told = BTreeMap::new();
    let mut base = 0;
    for event in events {
        match *event {
            Event::From(offset) => {
                told += 1;
                (at, base) = (Some(offset), offset);
                since_told.clear();
            }
            Event::Recovered => recovered += 1,
            Event::Received(offset, number) => {
                let before = at.expect("it began");
                assert_eq!(offset, before + 1, "{name}: the next offset");
                at = Some(offset);
                since_told.insert(offset, number);
            }
        }
    }
    let expected: BTreeMap<u64, u64> = stream
        .range(base + 1..)
        .map(|(offset, number)| (*offset, *number))
        .collect();
    assert!(
        since_told == expected,
        "{name}: it has something else than the stream after {base}"
    );
    // The beginning counts as nothing.
    (told - 1, recovered)
}
