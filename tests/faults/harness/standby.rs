//! A replica, and a Sentinel that promotes it.

use crate::redis_server::RedisServer;
use crate::support::eventually;

use super::address;

/// Who takes over when the master dies.
pub(crate) struct Standby {
    pub(crate) replica: RedisServer,
    sentinel: RedisServer,
}

impl Standby {
    pub(super) async fn start(master: &RedisServer) -> Self {
        let replica = RedisServer::start_kept();
        follow(&replica, master).await;
        let sentinel = RedisServer::start_sentinel(master);
        let port = address(&replica).port().to_string();
        eventually("the Sentinel knows the replica", async || {
            let known = sentinel.ask(&["SENTINEL", "REPLICAS", "hub"]);
            known.contains(&port).then_some(())
        })
        .await;
        Self { replica, sentinel }
    }

    pub(super) fn url(&self) -> String {
        let sentinel = address(&self.sentinel);
        format!("redis-sentinel://{sentinel}?sentinelServiceName=hub")
    }
}

/// Makes a server the replica of another, and waits until it has everything.
pub(crate) async fn follow(replica: &RedisServer, master: &RedisServer) {
    let address = address(master);
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    replica.ask(&["REPLICAOF", &host, &port]);
    eventually("the replica follows", async || {
        let info = replica.ask(&["INFO", "replication"]);
        info.contains("master_link_status:up").then_some(())
    })
    .await;
}
