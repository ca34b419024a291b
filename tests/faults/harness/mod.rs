//! A fleet of real processes under load, with every message counted.
//!
//! Three nodes (the built binary) over one redis-server, each through a proxy of its own. Back ends publish numbers and try
//! again until they are acknowledged; subscribers over both doors come back to any node with the positions that they have.
//! A test does something bad to one of the processes or connections, says when that is over ([`Fleet::back_to_normal`]),
//! and has everything compared ([`Fleet::compare`]).

pub(crate) mod client;
mod event_stream;
pub(crate) mod ledger;
mod load;
pub(crate) mod proxy;
pub(crate) mod publisher;
mod resp;
pub(crate) mod standby;
mod verdict;
mod websocket;

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::redis_server::RedisServer;
use crate::redis_server::cluster::Cluster;
use crate::support::{Hub, hub_with};
use client::{Client, Door, Gateways};
use load::{NAMESPACES, channels, clients};
use proxy::Proxy;
use publisher::{Publisher, Told};
use standby::Standby;
pub(crate) use verdict::Loss;

/// How many nodes a fleet has.
pub(crate) const NODES: usize = 3;

/// How long after the end of a fault a new publication may take to reach everybody: the promise is ten seconds, with five
/// more for a busy machine. What it took is reported.
const BACK_WITHIN: Duration = Duration::from_secs(15);

/// Members of a dead node are gone after fifteen seconds; with some more for a busy machine.
const PRESENT_WITHIN: Duration = Duration::from_secs(25);

/// Longer than anything else here should take.
const DEADLINE: Duration = Duration::from_secs(30);

/// What a fleet is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) clients: usize,
    /// Variables of all nodes.
    pub(crate) variables: &'static [(&'static str, &'static str)],
    /// Variables of the first node alone.
    pub(crate) first: &'static [(&'static str, &'static str)],
    /// Whether there is a replica, and a Sentinel that nodes ask for the master; then there are no proxies between.
    pub(crate) has_sentinel: bool,
    /// Whether there is a Cluster instead of one server; then there are no proxies between either.
    pub(crate) has_cluster: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            clients: 240,
            variables: &[],
            first: &[],
            has_sentinel: false,
            has_cluster: false,
        }
    }
}

/// A running fleet with its load.
pub(crate) struct Fleet {
    name: &'static str,
    setup: Setup,
    pub(crate) redis: RedisServer,
    pub(crate) standby: Option<Standby>,
    pub(crate) cluster: Option<Cluster>,
    pub(crate) proxies: Vec<Proxy>,
    pub(crate) nodes: Vec<Option<Hub>>,
    gateways: Arc<Gateways>,
    pub(crate) clients: Vec<Arc<Client>>,
    pub(crate) publishers: Vec<Arc<Publisher>>,
    publishing: JoinSet<()>,
    subscribing: JoinSet<()>,
    /// How long it took until everybody had what was published after the fault.
    back_after: Option<Duration>,
}

impl Fleet {
    /// Starts everything and waits until every client has received something.
    pub(crate) async fn start(name: &'static str) -> Self {
        Self::with(name, Setup::default()).await
    }

    pub(crate) async fn with(name: &'static str, setup: Setup) -> Self {
        allow_open_files();
        let redis = RedisServer::start_kept();
        let mut fleet = Self {
            name,
            setup,
            standby: match setup.has_sentinel {
                true => Some(Standby::start(&redis).await),
                false => None,
            },
            cluster: setup.has_cluster.then(|| Cluster::start(true, false)),
            redis,
            proxies: Vec::new(),
            nodes: Vec::new(),
            gateways: Arc::default(),
            clients: clients(setup.clients),
            publishers: Vec::new(),
            publishing: JoinSet::new(),
            subscribing: JoinSet::new(),
            back_after: None,
        };
        for index in 0..NODES {
            fleet
                .proxies
                .push(Proxy::start(address(&fleet.redis)).await);
            let node = fleet.node(index).await;
            fleet.nodes.push(Some(node));
        }
        fleet.tell_gateways();
        for (index, client) in fleet.clients.iter().enumerate() {
            let live = client.clone().live(fleet.gateways.clone(), index);
            fleet.subscribing.spawn(live);
        }
        fleet
            .until("everybody is connected", |fleet| {
                fleet.connected() == fleet.clients.len()
            })
            .await;
        fleet.publishers = channels()
            .map(|name| Arc::new(Publisher::new(name)))
            .collect();
        for publisher in &fleet.publishers {
            fleet
                .publishing
                .spawn(publisher.clone().live(fleet.gateways.clone()));
        }
        fleet.advance(3).await;
        fleet
    }

    /// The node of this number, begun now.
    async fn node(&self, index: usize) -> Hub {
        let url = match (&self.standby, &self.cluster) {
            (Some(standby), _) => standby.url(),
            (None, Some(cluster)) => cluster.url(),
            (None, None) => self.proxies[index].url(),
        };
        let id = format!("node-{index}");
        let mut variables = vec![
            ("REDIS_URL", url.as_str()),
            ("NODE_ID", id.as_str()),
            ("READY_REDIS_GRACE_MS", "300"),
            ("WORKERS", "2"),
            ("LOG_LEVEL", "info"),
        ];
        variables.extend(self.setup.variables);
        if index == 0 {
            variables.extend(self.setup.first);
        }
        hub_with(NAMESPACES, &variables).await
    }

    /// Ends a node as a power cut does. It stays in the list of those where clients look.
    pub(crate) fn kill(&mut self, index: usize) {
        // The end of the value is a SIGKILL.
        self.nodes[index] = None;
    }

    /// Starts a node in the place of one that ended.
    pub(crate) async fn start_again(&mut self, index: usize) {
        let node = self.node(index).await;
        self.nodes[index] = Some(node);
        self.tell_gateways();
    }

    fn tell_gateways(&self) {
        self.gateways.set(self.alive().map(Hub::address).collect());
    }

    /// A node that was not ended.
    pub(crate) fn node_at(&self, index: usize) -> &Hub {
        self.nodes[index].as_ref().expect("it lives")
    }

    /// The nodes that were not ended.
    pub(crate) fn alive(&self) -> impl Iterator<Item = &Hub> {
        self.nodes.iter().flatten()
    }

    /// How many clients are connected and have all their subscriptions.
    pub(crate) fn connected(&self) -> usize {
        let connected = |client: &&Arc<Client>| client.is_connected.load(Ordering::Relaxed);
        self.clients.iter().filter(connected).count()
    }

    /// Sends these clients away, or brings them back.
    pub(crate) fn send_away(&self, clients: Range<usize>, is_away: bool) {
        for client in &self.clients[clients] {
            client.go_away(is_away);
        }
    }

    /// How often these clients came back and were told that nothing is missing, and how often that something is.
    pub(crate) fn told_to(&self, clients: Range<usize>) -> (u64, usize) {
        let ledgers = self.clients[clients]
            .iter()
            .flat_map(|client| (0..client.channels.len()).map(|channel| client.ledger(channel)));
        ledgers.fold((0, 0), |(recovered, told), ledger| {
            (recovered + ledger.recovered, told + ledger.told())
        })
    }

    /// How many connections were begun in all.
    pub(crate) fn sessions(&self) -> u64 {
        let sessions = self.clients.iter().map(|client| &client.sessions);
        sessions
            .map(|sessions| sessions.load(Ordering::Relaxed))
            .sum()
    }

    /// What publishers were told so often, all together.
    pub(crate) fn told(&self, what: impl Fn(&Told) -> &AtomicU64) -> u64 {
        let told = self.publishers.iter().map(|publisher| &publisher.told);
        told.map(|told| what(told).load(Ordering::Relaxed)).sum()
    }

    /// How often it was acknowledged.
    pub(crate) fn acknowledged(&self) -> usize {
        self.publishers
            .iter()
            .map(|publisher| publisher.count())
            .sum()
    }

    /// Publishes on: waits until every channel has so many more acknowledged publications, and everybody has them.
    pub(crate) async fn advance(&self, count: u64) {
        let now = self.numbers();
        self.until("publications go on", |fleet| fleet.have(&now, count))
            .await;
    }

    pub(crate) fn numbers(&self) -> Vec<u64> {
        let publishers = self.publishers.iter();
        publishers
            .map(|publisher| publisher.number.load(Ordering::Relaxed))
            .collect()
    }

    /// Whether every client that is not away has a number that its publisher began after these, and `count - 1` more.
    pub(crate) fn have(&self, numbers: &[u64], count: u64) -> bool {
        self.publishers
            .iter()
            .zip(numbers)
            .all(|(publisher, number)| {
                let wanted = publisher.first_after(number + count - 1);
                wanted.is_some_and(|wanted| {
                    self.subscribers(&publisher.channel)
                        .filter(|(client, _)| !client.is_away())
                        .all(|(client, channel)| client.ledger(channel).number >= wanted)
                })
            })
    }

    fn subscribers(&self, name: &str) -> impl Iterator<Item = (&Arc<Client>, usize)> {
        self.clients.iter().filter_map(move |client| {
            let channel = client.channels.iter().position(|channel| channel == name)?;
            Some((client, channel))
        })
    }

    /// The fault is over: from now on a publication must reach everybody within ten seconds.
    pub(crate) async fn back_to_normal(&mut self) {
        let (began, now) = (Instant::now(), self.numbers());
        while !self.have(&now, 1) && began.elapsed() < BACK_WITHIN {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if !self.have(&now, 1) {
            panic!(
                "{}: not back to normal: {}",
                self.name,
                self.stragglers(&now)
            );
        }
        let back_after = began.elapsed();
        self.back_after = Some(self.back_after.unwrap_or_default().max(back_after));
    }

    fn stragglers(&self, numbers: &[u64]) -> String {
        let mut text = format!("{} of {} connected", self.connected(), self.clients.len());
        for (publisher, number) in self.publishers.iter().zip(numbers) {
            let (name, wanted) = (&publisher.channel, publisher.first_after(*number));
            let late = self.subscribers(name).filter(|(client, channel)| {
                client.ledger(*channel).number < wanted.unwrap_or(u64::MAX)
            });
            let doors: Vec<_> = late.map(|(client, _)| client.door).collect();
            if !doors.is_empty() {
                let sockets = doors
                    .iter()
                    .filter(|door| **door == Door::WebSocket)
                    .count();
                text.push_str(&format!(
                    "\n  {name}: {wanted:?} has not reached {} clients ({sockets} over WebSocket); told {:?}",
                    doors.len(),
                    publisher.told
                ));
            }
        }
        text
    }

    /// Waits for something that must come.
    pub(crate) async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !is_so(self) {
            if began.elapsed() > DEADLINE {
                panic!(
                    "{}: never: {what}; {}",
                    self.name,
                    self.stragglers(&self.numbers())
                );
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// A counter of all nodes that live, as `/metrics` says it.
    pub(crate) async fn counter(&self, name: &str) -> u64 {
        let mut sum = 0;
        for node in self.alive() {
            let text = node.get("/metrics").await.text;
            let lines = text.lines().filter(|line| line.starts_with(name));
            let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
            sum += values.sum::<f64>() as u64;
        }
        sum
    }

    /// Who has a key.
    fn owner_of(&self, key: &str) -> SocketAddr {
        let Some(cluster) = &self.cluster else {
            return address(&self.redis);
        };
        let members: Vec<_> = cluster.members().collect();
        let has = |server: &&&RedisServer| !server.ask(&["GET", key]).contains("MOVED");
        address(members.iter().find(has).expect("somebody has it"))
    }
}

/// Where a server is.
pub(crate) fn address(redis: &RedisServer) -> SocketAddr {
    let url = redis.url();
    let (_, port) = url.rsplit_once(':').expect("a port");
    (Ipv4Addr::LOCALHOST, port.parse().expect("a port")).into()
}

/// Two thousand clients are more than a shell often allows.
fn allow_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("a limit may be raised to its maximum");
}
