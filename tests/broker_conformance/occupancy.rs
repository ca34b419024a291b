//! Channels that become occupied and vacant, told once by the brokers of a fleet, on one server and on a Cluster.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fanfare::broker::Broker as _;
use fanfare::broker::redis::{Occupancy, RedisBroker};
use fanfare::model::{ChannelKey, ClientId, Namespace, Namespaces};

use crate::OverRedis;

/// More than one batch, and of every slot of a Cluster some.
const CHANNELS: usize = 1500;

/// Two nodes, and what either of them tells.
struct Fleet {
    nodes: [RedisBroker; 2],
    told: Arc<Mutex<Vec<Occupancy>>>,
}

impl Fleet {
    async fn start(redis: &OverRedis) -> Self {
        let prefix = format!("test-{}", ClientId::random());
        let namespaces = || Namespaces::new(Namespace::default_for(true), BTreeMap::new());
        let told = Arc::<Mutex<Vec<Occupancy>>>::default();
        let nodes = [
            redis.node(prefix.clone(), namespaces()).await,
            redis.node(prefix, namespaces()).await,
        ];
        for node in &nodes {
            let told = told.clone();
            node.watch_occupancy(Box::new(move |one| told.lock().expect("a lock").push(one)));
        }
        Self { nodes, told }
    }

    fn occupy(&self, node: usize, is_occupied: bool) {
        for channel in channels() {
            self.nodes[node].occupy(&channel, is_occupied);
        }
    }

    /// Waits until a node has said everything: what it says last is told.
    async fn until_said(&self, node: usize) {
        let marker = ChannelKey::new(&format!("marker-{}", ClientId::random())).expect("a name");
        self.nodes[node].occupy(&marker, true);
        self.until("the marker", |told| {
            let at = told.iter().position(|one| one.channel == marker)?;
            told.remove(at);
            Some(())
        })
        .await;
    }

    /// The lives of all channels, in the order of their names, once each was told so.
    async fn expect(&self, is_occupied: bool) -> Vec<String> {
        let told = self.until("all channels", |told| {
            (told.len() >= CHANNELS).then(|| std::mem::take(told))
        });
        let told = told.await;
        assert!(told.iter().all(|one| one.is_occupied == is_occupied));
        let lives = told.into_iter().map(|one| (one.channel, one.life));
        let lives: BTreeMap<_, _> = lives.collect();
        assert_eq!(lives.len(), CHANNELS, "none twice");
        lives.into_values().collect()
    }

    async fn until<T>(&self, what: &str, look: impl Fn(&mut Vec<Occupancy>) -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            if let Some(found) = look(&mut self.told.lock().expect("a lock")) {
                return found;
            }
            assert!(began.elapsed() < Duration::from_secs(20), "never: {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn channels() -> impl Iterator<Item = ChannelKey> {
    (0..CHANNELS).map(|number| ChannelKey::new(&format!("c{number}")).expect("a name"))
}

async fn each_change_is_told_once(redis: &OverRedis) {
    let fleet = Fleet::start(redis).await;
    for node in [0, 1] {
        fleet.occupy(node, true);
    }
    fleet.until_said(1).await;
    let begun = fleet.expect(true).await;
    fleet.occupy(0, false);
    // It leaves at once; the other one stays.
    fleet.nodes[0].withdraw().await.expect("it leaves");
    assert_eq!(fleet.told.lock().expect("a lock").len(), 0);
    fleet.occupy(1, false);
    assert_eq!(fleet.expect(false).await, begun);
    fleet.occupy(1, true);
    assert_ne!(fleet.expect(true).await, begun, "another life");
}

#[tokio::test]
async fn each_change_is_told_once_on_one_server() {
    each_change_is_told_once(&OverRedis::single()).await;
}

#[tokio::test]
async fn each_change_is_told_once_on_a_cluster() {
    each_change_is_told_once(&OverRedis::cluster()).await;
}
