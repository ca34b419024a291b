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
        replica.follow(master);
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
