//! The fleet as a whole: who is there, and how many subscribers a channel has.

use serde_json::{Value, json};

use crate::Fleet;
use crate::support::ws::Socket;
use crate::support::{Hub, eventually};

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
