//! The conformance suite of the brokers, run against each of them. The cases are in `suite.rs` and know no broker; what
//! a broker needs to be tested stands here, as a [`Harness`](suite::Harness).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use fanfare::broker::memory::MemoryBroker;
use fanfare::broker::redis::RedisBroker;
use fanfare::broker::{Broker, Config};
use fanfare::model::{ClientId, Moment, Namespaces};
use fanfare::redis::{Address, Config as RedisConfig};
use redis_server::RedisServer;
use redis_server::cluster::Cluster;

mod occupancy;
mod recording;
#[path = "../redis_server/mod.rs"]
mod redis_server;
mod suite;

/// The memory broker on a clock of the test's.
struct Memory {
    millis: Arc<AtomicU64>,
}

impl Memory {
    fn new() -> Self {
        Self {
            millis: Arc::new(AtomicU64::new(0)),
        }
    }
}

impl suite::Harness for Memory {
    const KIND: &str = "memory";

    async fn broker(&self, namespaces: Namespaces) -> Arc<dyn Broker> {
        let config = Config {
            history_bytes_max: 64 << 20,
            channels_max: 10_000,
            idempotency_keys_max: 10_000,
        };
        let millis = Arc::clone(&self.millis);
        let clock = move || Moment::from_millis(millis.load(Ordering::Relaxed));
        Arc::new(MemoryBroker::new(&config, Arc::new(namespaces), clock))
    }

    async fn advance(&self, by: Duration) {
        let millis = u64::try_from(by.as_millis()).expect("a test's time is short");
        self.millis.fetch_add(millis, Ordering::Relaxed);
    }
}

broker_conformance!(memory, Memory::new());

/// The Redis broker.
struct OverRedis {
    url: String,
    /// Each case has its own, or all share one that ends with the process.
    _server: Option<RedisServer>,
}

impl OverRedis {
    fn single() -> Self {
        let server = RedisServer::start();
        Self {
            url: server.url(),
            _server: Some(server),
        }
    }

    /// A master with a replica, which a Sentinel knows.
    fn sentinel() -> Self {
        static SERVERS: OnceLock<[RedisServer; 3]> = OnceLock::new();
        let [_, _, sentinel] = SERVERS.get_or_init(|| {
            let [master, replica] = [(); 2].map(|()| RedisServer::start_shared(&["--save", ""]));
            replica.ask(&["REPLICAOF", "127.0.0.1", &master.port().to_string()]);
            let sentinel = RedisServer::start_sentinel(&master);
            [master, replica, sentinel]
        });
        let port = sentinel.port();
        Self {
            url: format!("redis-sentinel://127.0.0.1:{port}?sentinelServiceName=hub"),
            _server: None,
        }
    }

    /// A Cluster of three masters.
    fn cluster() -> Self {
        static CLUSTER: OnceLock<Cluster> = OnceLock::new();
        Self {
            url: CLUSTER.get_or_init(|| Cluster::start(false, true)).url(),
            _server: None,
        }
    }
}

impl OverRedis {
    /// The broker of a node of the fleet with this prefix.
    async fn node(&self, prefix: String, namespaces: Namespaces) -> RedisBroker {
        let config = RedisConfig {
            address: Address::parse(&self.url).expect("an address"),
            prefix,
            ready_grace: Duration::ZERO,
            wait_replicas: 0,
            ca_file: None,
        };
        let broker = RedisBroker::start(&config, Arc::new(namespaces)).expect("threads");
        let began = std::time::Instant::now();
        while !broker.is_ready() {
            assert!(
                began.elapsed() < Duration::from_secs(10),
                "it does not connect"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        broker
    }
}

impl suite::Harness for OverRedis {
    const KIND: &str = "redis";

    async fn broker(&self, namespaces: Namespaces) -> Arc<dyn Broker> {
        let prefix = format!("test-{}", ClientId::random());
        Arc::new(self.node(prefix, namespaces).await)
    }

    async fn advance(&self, by: Duration) {
        tokio::time::sleep(by).await;
    }
}

broker_conformance!(redis, OverRedis::single());
broker_conformance!(redis_sentinel, OverRedis::sentinel());
broker_conformance!(redis_cluster, OverRedis::cluster());

/// More than are looked at in one step, in one channel, beside those of another node.
async fn check_withdrawal(harness: &OverRedis) {
    let prefix = format!("test-{}", ClientId::random());
    let node = || harness.node(prefix.clone(), suite::namespaces());
    let (one, other) = (node().await, node().await);
    let channel = suite::channel("default");
    let join = async |broker: &RedisBroker, clients: std::ops::Range<u128>, user: &str| {
        let members = clients.map(|bits| suite::member(ClientId::from_bits(bits), user));
        let joins = members.map(|member| broker.join(&channel, member));
        let joined = futures_util::future::join_all(joins).await;
        assert!(joined.iter().all(Result::is_ok));
    };
    join(&one, 0..3000, "ann").await;
    join(&other, 3000..4000, "bob").await;
    one.withdraw().await.expect("done");
    let presence = other.presence(&channel, 2000).await.expect("an answer");
    assert_eq!((presence.clients, presence.users), (1000, 1));
    let is_bob = |member: &Arc<fanfare::model::Member>| *member.user == *"bob";
    assert_eq!(presence.members.len(), 1000);
    assert!(presence.members.iter().all(is_bob));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn all_members_of_a_node_that_goes_leave_and_no_others() {
    check_withdrawal(&OverRedis::single()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn all_members_of_a_node_that_goes_leave_a_cluster_and_no_others() {
    check_withdrawal(&OverRedis::cluster()).await;
}
