//! What one node is asked to forget, all forget.

use serde_json::json;

use crate::redis_server::RedisServer;
use crate::support::{Hub, eventually};
use crate::upstream::Upstream;

const KEY: &str = "the admin key of these tests";

async fn node(redis: &RedisServer, index: usize, upstream: &Upstream) -> Hub {
    let services = json!({"example": [upstream.url()]}).to_string();
    let variables = [
        ("UPSTREAMS", services.as_str()),
        ("ADMIN_API_KEY", KEY),
        ("CACHE_ENABLED", "true"),
        ("CACHE_DEFAULT_TTL_MS", "3600000"),
    ];
    crate::node(redis, index, "", &variables).await
}

#[tokio::test]
async fn a_purge_reaches_the_caches_of_all_nodes() {
    let (mut redis, upstream) = (RedisServer::start(), Upstream::start().await);
    let nodes = [
        node(&redis, 0, &upstream).await,
        node(&redis, 1, &upstream).await,
    ];
    let get = async |node: &Hub| node.get("/api/example/a").await.status;
    for node in &nodes {
        assert_eq!((get(node).await, get(node).await), (200, 200));
    }
    assert_eq!(upstream.requests(), 2, "each node keeps it");
    let purge = async || {
        let path = "/admin/cache?service=example&prefix=/a";
        nodes[0]
            .request("DELETE", path, &[("x-admin-key", KEY)], "")
            .await
    };
    assert_eq!(purge().await.json(), json!({"purged": 1}));
    get(&nodes[0]).await;
    assert_eq!(upstream.requests(), 3);
    eventually("the other node asks again", async || {
        get(&nodes[1]).await;
        (upstream.requests() == 4).then_some(())
    })
    .await;
    redis.kill();
    let answer = purge().await;
    answer.expect_error(503, "broker_unavailable");
    assert_eq!(answer.json()["purged"], 1, "here it is done");
}
