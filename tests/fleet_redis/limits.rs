//! Limits of rate that all nodes count together, and each by itself while Redis is away.

use serde_json::json;

use crate::redis_server::RedisServer;
use crate::support::hub::SECRET;
use crate::support::token::token_of;
use crate::support::{Hub, eventually};
use crate::upstream::Upstream;

/// In a test nothing comes back.
const HOUR: &str = "3600000";

/// Two nodes that know of each other, with this limit before the upstream.
async fn two_nodes(redis: &RedisServer, upstream: &Upstream, limit: &str) -> [Hub; 2] {
    let services = json!({"example": [upstream.url()]}).to_string();
    let variables = [
        ("UPSTREAMS", services.as_str()),
        ("RATE_LIMIT_MAX", limit),
        ("RATE_LIMIT_WINDOW_MS", HOUR),
    ];
    let nodes = [
        crate::node(redis, 0, "", &variables).await,
        crate::node(redis, 1, "", &variables).await,
    ];
    for node in &nodes {
        eventually("both nodes are known", async || {
            let metrics = node.get("/metrics").await.text;
            metrics.contains("fanfare_fleet_nodes 2").then_some(())
        })
        .await;
    }
    nodes
}

/// Asks each node so many times, all at once; how many requests were let through, and how many refused.
async fn ask(nodes: &[Hub; 2], times: usize) -> (usize, usize) {
    let ask = async |node: &Hub| {
        let mut statuses = Vec::new();
        for _ in 0..times {
            statuses.push(node.get("/api/example/").await.status);
        }
        statuses
    };
    let [one, other] = nodes;
    let (mut all, others, more) = tokio::join!(ask(one), ask(other), ask(one));
    all.extend(others);
    all.extend(more);
    let count = |status: u16| all.iter().filter(|one| **one == status).count();
    assert_eq!(count(200) + count(429), 3 * times, "{all:?}");
    (count(200), count(429))
}

/// Whether a node counted by itself: on a machine that is too busy for Redis to answer in time that is right, but not what
/// a test is about.
async fn has_counted_alone(nodes: &[Hub]) -> bool {
    for node in nodes {
        if counted_alone(node).await > 0.0 {
            return true;
        }
    }
    false
}

async fn counted_alone(node: &Hub) -> f64 {
    node.metric("fanfare_requests_limited_alone_total").await
}

/// Does something with nodes of its own, again where one of them has counted alone: then it answers false.
async fn while_redis_answers(mut attempt: impl AsyncFnMut() -> bool) {
    for _ in 0..5 {
        if attempt().await {
            return;
        }
    }
    panic!("redis never answered in time");
}

#[tokio::test]
async fn the_nodes_let_through_together_exactly_what_the_limit_says() {
    while_redis_answers(a_limit_is_shared).await;
}

async fn a_limit_is_shared() -> bool {
    let (redis, upstream) = (RedisServer::start(), Upstream::start().await);
    let nodes = two_nodes(&redis, &upstream, "25").await;
    let first = nodes[0].get("/api/example/").await;
    let second = nodes[1].get("/api/example/").await;
    let counts = ask(&nodes, 20).await;
    let refused = nodes[1].get("/api/example/").await;
    if has_counted_alone(&nodes).await {
        return false;
    }
    assert_eq!(first.header("x-ratelimit-remaining"), Some("24"));
    assert_eq!(second.header("x-ratelimit-remaining"), Some("23"));
    assert_eq!(
        second.header("ratelimit-policy"),
        Some("\"default\";q=25;w=3600")
    );
    assert_eq!(counts, (23, 37));
    assert_eq!(refused.status, 429);
    let wait = refused
        .header("retry-after")
        .and_then(|wait| wait.parse::<u64>().ok());
    assert!(
        wait.is_some_and(|wait| (1..=144).contains(&wait)),
        "{wait:?}"
    );
    assert_eq!(upstream.requests(), 25);
    true
}

#[tokio::test]
async fn while_redis_is_away_each_node_lets_its_own_part_through_and_none_fails() {
    let (mut redis, upstream) = (RedisServer::start(), Upstream::start().await);
    let nodes = two_nodes(&redis, &upstream, "20").await;
    redis.kill();
    assert_eq!(ask(&nodes, 15).await, (20, 25), "ten each");
    assert!(counted_alone(&nodes[0]).await > 0.0, "it is told");
    redis.start_again();
    eventually("the fleet counts again", async || {
        // What the nodes let through by themselves was not counted together.
        (nodes[1].get("/api/example/").await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_service_can_count_users_wherever_they_ask() {
    while_redis_answers(users_are_counted).await;
}

async fn users_are_counted() -> bool {
    let (redis, upstream) = (RedisServer::start(), Upstream::start().await);
    let file = format!(
        "[services.example]\nupstreams = [{:?}]\nrate_limit = {{ max = 1, window = \"1h\", by = \"user\" }}",
        upstream.url()
    );
    let variables = [("JWT_SECRET", SECRET), ("RATE_LIMIT_MAX", "1")];
    let nodes = [
        crate::node(&redis, 0, &file, &variables).await,
        crate::node(&redis, 1, &file, &variables).await,
    ];
    for (user, node, expected) in [
        ("alice", 0, 200),
        ("alice", 1, 429),
        ("bob", 1, 200),
        ("bob", 0, 429),
        ("", 0, 200),
        ("", 1, 429),
    ] {
        let bearer = format!("Bearer {}", token_of(user));
        let fields = [("authorization", &*bearer)];
        let fields = if user.is_empty() { &[] } else { &fields[..] };
        let answer = nodes[node]
            .request("GET", "/api/example/", fields, "")
            .await;
        if has_counted_alone(&nodes).await {
            return false;
        }
        assert_eq!(answer.status, expected, "{user} {answer:?}");
    }
    true
}
