//! The fleet as a whole: who is there, and how many subscribers a channel has.

use serde_json::{Value, json};

use crate::redis_server::RedisServer;
use crate::support::ws::Socket;
use crate::support::{Hub, eventually};
use crate::{Fleet, node};

async fn ids(hub: &Hub) -> Vec<String> {
    let answer = hub.get("/hub/nodes").await.json();
    let nodes = answer["nodes"].as_array().expect("nodes").iter();
    nodes
        .map(|node| node["id"].as_str().expect("an id").to_owned())
        .collect()
}

#[tokio::test]
async fn every_node_knows_all_and_a_drained_one_is_gone_at_once() {
    let mut fleet = Fleet::start(3).await;
    for hub in &fleet.nodes {
        eventually("all nodes", async || {
            (ids(hub).await == ["node-0", "node-1", "node-2"]).then_some(())
        })
        .await;
    }
    let answer = fleet.nodes[0].get("/hub/nodes").await.json();
    assert_eq!(answer["broker"], "redis");
    let mut gone = fleet.nodes.pop().expect("a node");
    gone.terminate();
    assert_eq!(gone.exit_code().await, Some(0));
    assert_eq!(ids(&fleet.nodes[0]).await, ["node-0", "node-1"]);
}

#[tokio::test]
async fn subscribers_are_counted_over_the_fleet() {
    let fleet = Fleet::start(2).await;
    let mut sockets = Vec::new();
    for (node, channel) in [(0, "a"), (1, "a"), (1, "a"), (1, "b"), (0, "c")] {
        let mut socket = Socket::open(&fleet.nodes[node]).await;
        socket.subscribe(channel).await;
        sockets.push(socket);
    }
    let counts = |answer: Value| -> Vec<(String, u64)> {
        let channels = answer["channels"].as_array().expect("channels").iter();
        channels
            .map(|one| {
                let name = one["channel"].as_str().expect("a name").to_owned();
                (name, one["subscribers"].as_u64().expect("a count"))
            })
            .collect()
    };
    let expected = [("a", 3), ("b", 1), ("c", 1)].map(|(name, count)| (name.to_owned(), count));
    for hub in &fleet.nodes {
        eventually("the counts", async || {
            (counts(hub.get("/hub/channels").await.json()) == expected).then_some(())
        })
        .await;
        let page = hub.get("/hub/channels?limit=1&cursor=a").await.json();
        assert_eq!(counts(page.clone()), [("b".to_owned(), 1)]);
        assert_eq!(page["cursor"], "b");
        let stats = hub.get("/hub/channels/a/stats").await.json();
        assert_eq!(stats["subscribers"], json!(3));
    }
    sockets.clear();
    eventually("nobody", async || {
        counts(fleet.nodes[0].get("/hub/channels").await.json())
            .is_empty()
            .then_some(())
    })
    .await;
}

/// Each of them is another one then, of which the former is not gone yet.
#[tokio::test]
async fn nobody_counts_twice_when_redis_comes_back() {
    let mut fleet = Fleet::start_on(RedisServer::start_kept(), 2).await;
    let mut sockets = Vec::new();
    for hub in &fleet.nodes {
        let mut socket = Socket::open(hub).await;
        socket.subscribe("a").await;
        sockets.push(socket);
    }
    let subscribers = async |hub: &Hub| {
        let stats = hub.get("/hub/channels/a/stats").await;
        (stats.status == 200).then(|| stats.json()["subscribers"].clone())
    };
    eventually("both are counted", async || {
        (subscribers(&fleet.nodes[0]).await? == 2).then_some(())
    })
    .await;
    fleet.redis.kill();
    fleet.redis.start_again();
    let asked = |words: &[&str]| fleet.redis.ask(words);
    let leases = "fanfare:{fleet}:leases";
    eventually("the former are there beside them", async || {
        (asked(&["ZCARD", leases]) == "4").then_some(())
    })
    .await;
    // They stay as long as this takes.
    for name in asked(&["ZRANGE", leases, "0", "-1"]).lines() {
        asked(&["ZADD", leases, "XX", "9000000000000", name]);
    }
    eventually("the former have no more than their leases", async || {
        (asked(&["HLEN", "fanfare:{fleet}:infos"]) == "2").then_some(())
    })
    .await;
    for hub in &fleet.nodes {
        eventually("each is counted once", async || {
            (subscribers(hub).await? == 2).then_some(())
        })
        .await;
        assert_eq!(ids(hub).await, ["node-0", "node-1"]);
    }
    assert_eq!(asked(&["ZCARD", leases]), "4");
}

/// What a node says of the others: in what their settings are not its own.
async fn differing(hub: &Hub) -> Value {
    let answer = hub.get("/hub/nodes").await.json();
    let nodes = answer["nodes"].as_array().expect("nodes").iter();
    let differing = nodes.map(|node| json!([node["id"], node["differs"]]));
    differing.collect()
}

#[tokio::test]
async fn a_node_with_other_settings_is_told_in_the_log_the_nodes_and_the_metrics() {
    let redis = RedisServer::start();
    let one = node(&redis, 0, "", &[("WEBHOOK_EVENTS", "connect")]).await;
    let same = node(
        &redis,
        1,
        "",
        &[("WEBHOOK_EVENTS", "connect"), ("WORKERS", "1")],
    )
    .await;
    let namespaces = "[namespaces.default]\nhistory.size = 7";
    let secret = "not to be told to anybody, not even as a hash";
    let other = node(&redis, 2, namespaces, &[("JWT_SECRET", secret)]).await;
    let found = json!(["channels", "events", "tokens"]);
    let seen_by_one = json!([["node-0", []], ["node-1", []], ["node-2", found]]);
    let seen_by_other = json!([["node-0", found], ["node-1", found], ["node-2", []]]);
    for (hub, expected) in [
        (&one, &seen_by_one),
        (&same, &seen_by_one),
        (&other, &seen_by_other),
    ] {
        eventually("what differs", async || {
            (differing(hub).await == *expected).then_some(())
        })
        .await;
    }
    let told = "has other settings than this one";
    for (hub, nodes) in [(&one, 1), (&other, 2)] {
        let counts = ["channels", "events", "keys", "sessions", "tokens"].map(|group| {
            let differs = found.as_array().expect("groups").contains(&json!(group));
            let count = if differs { nodes } else { 0 };
            format!("fanfare_settings_differ{{group=\"{group}\"}} {count}\n")
        });
        eventually("the metric", async || {
            let metrics = hub.get("/metrics").await.text;
            counts
                .iter()
                .all(|count| metrics.contains(count))
                .then_some(())
        })
        .await;
        eventually("the log", async || {
            (hub.log().matches(told).count() == nodes).then_some(())
        })
        .await;
        assert!(hub.log().contains("channels, events, tokens"));
        assert!(!hub.log().contains(secret));
    }
    assert!(
        !redis
            .ask(&["HGETALL", "fanfare:{fleet}:infos"])
            .contains(secret)
    );
}
