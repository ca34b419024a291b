//! A fleet from outside: several hubs, the built binaries, over one redis-server of the test's own.

#[allow(
    dead_code,
    unused_imports,
    reason = "the hub's suite uses all of it, this one a part"
)]
#[path = "../hub/support/mod.rs"]
mod support;

#[path = "../redis_server/mod.rs"]
mod redis_server;

#[allow(
    dead_code,
    reason = "the proxy's suite uses all of it, this one a part"
)]
#[path = "../proxy/upstream.rs"]
mod upstream;

#[allow(
    dead_code,
    reason = "the proxy's suite uses all of it, this one a part"
)]
#[path = "../proxy/ticker.rs"]
mod ticker;

mod access;
mod channels;
mod limits;
mod members;
mod nodes;
mod orders;
mod outage;
mod purge;
mod replicas;
mod shared;
mod subscriptions;

use redis_server::RedisServer;
use support::{Hub, hub_with};

/// Several nodes over one server.
struct Fleet {
    redis: RedisServer,
    nodes: Vec<Hub>,
}

impl Fleet {
    /// So many nodes, each with the name `node-<index>`.
    async fn start(count: usize) -> Self {
        Self::start_on(RedisServer::start(), count).await
    }

    /// The same over this server.
    async fn start_on(redis: RedisServer, count: usize) -> Self {
        let mut nodes = Vec::new();
        for index in 0..count {
            nodes.push(node(&redis, index, "", &[]).await);
        }
        Self { redis, nodes }
    }
}

/// One more node.
async fn node(
    redis: &RedisServer,
    index: usize,
    namespaces: &str,
    variables: &[(&str, &str)],
) -> Hub {
    let (url, id) = (redis.url(), format!("node-{index}"));
    let mut all = vec![
        ("REDIS_URL", url.as_str()),
        ("NODE_ID", id.as_str()),
        ("READY_REDIS_GRACE_MS", "300"),
    ];
    all.extend(variables);
    hub_with(namespaces, &all).await
}
