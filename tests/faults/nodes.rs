//! Nodes that end, and nodes that have more to do than they can.

use std::sync::atomic::Ordering;

use serde_json::json;

use crate::harness::{Fleet, Loss, Setup};
use crate::support::clock::other_clock;
use crate::support::ws::Socket;
use crate::support::{Hub, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_node_loses_nothing() {
    let mut fleet = Fleet::start("1: a node is killed").await;
    let before = fleet.sessions();
    fleet.kill(0);
    fleet.back_to_normal().await;
    assert!(fleet.sessions() > before, "nobody had to come back");
    fleet.compare(Loss::None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_node_loses_nothing() {
    let setup = Setup {
        variables: &[("DRAIN_SECONDS", "2")],
        ..Setup::default()
    };
    let mut fleet = Fleet::with("2: a node is drained", setup).await;
    let mut drained = fleet.nodes[0].take().expect("a node");
    drained.terminate();
    assert_eq!(drained.exit_code().await, Some(0));
    fleet.back_to_normal().await;
    let codes: Vec<u16> = fleet
        .clients
        .iter()
        .flat_map(|client| client.codes())
        .collect();
    assert!(!codes.is_empty(), "nobody was told to come back");
    assert!(codes.iter().all(|code| *code == 1012), "{codes:?}");
    fleet.compare(Loss::None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_inbox_loses_nothing() {
    let setup = Setup {
        first: &[("INBOX_MAX_MESSAGES", "4")],
        ..Setup::default()
    };
    let mut fleet = Fleet::with("7: an inbox is full", setup).await;
    let before = fleet.counter("fanfare_holes_total").await;
    let in_bursts_of = |count: u64| {
        for publisher in &fleet.publishers {
            publisher.batch.store(count, Ordering::Relaxed);
        }
    };
    in_bursts_of(50);
    fleet.advance(300).await;
    in_bursts_of(1);
    fleet.back_to_normal().await;
    let holes = fleet.counter("fanfare_holes_total").await;
    assert!(holes > before, "no inbox was full: {holes}");
    fleet.compare(Loss::None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_clients_come_back_at_once() {
    let setup = Setup {
        clients: 3000,
        ..Setup::default()
    };
    let mut fleet = Fleet::with("11: two thousand clients come back at once", setup).await;
    let before = fleet.sessions();
    // Whom a busy machine let in late is at any of the three: the two that have most have two thirds at least.
    let mut nodes = Vec::new();
    for index in 0..3 {
        nodes.push((connections_of(&fleet, index).await, index));
    }
    nodes.sort_unstable();
    let most = &nodes[1..];
    let lost: u64 = most.iter().map(|(connections, _)| connections).sum();
    assert!(lost >= 2000, "{nodes:?}");
    for (_, index) in most {
        fleet.kill(*index);
    }
    fleet.back_to_normal().await;
    fleet.compare(Loss::None).await;
    let came = fleet.sessions() - before;
    assert!(came >= lost, "{came} of {lost}");
}

/// How many clients a node says that it has.
async fn connections_of(fleet: &Fleet, index: usize) -> u64 {
    let answer = fleet.node_at(index).get("/hub/nodes").await.json();
    let nodes = answer["nodes"].as_array().expect("nodes");
    let id = format!("node-{index}");
    let own = nodes.iter().find(|node| node["id"] == id.as_str());
    own.and_then(|own| own["connections"].as_u64())
        .expect("a count")
}

/// What a node takes for the time, in seconds.
async fn clock(node: &Hub) -> f64 {
    let mut socket = Socket::open(node).await;
    let pong = socket.ask(&json!({"type": "ping"})).await;
    pong["timestamp"].as_f64().expect("a time")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clocks_that_differ_by_an_hour_lose_nothing() {
    let setup = Setup {
        first: Box::leak(Box::new(other_clock("+1h"))),
        ..Setup::default()
    };
    let mut fleet = Fleet::with("10: two nodes' clocks differ by an hour", setup).await;
    let [one, other] = [clock(fleet.node_at(0)).await, clock(fleet.node_at(1)).await];
    assert!((one - other - 3600.0).abs() < 60.0, "{one} {other}");
    // Leases, retention and idempotency go by Redis's clock: nobody counts as dead who is not, and who is dead leaves.
    fleet.kill(1);
    fleet.back_to_normal().await;
    fleet.compare(Loss::None).await;
    eventually("two nodes are known", async || {
        let answer = fleet.node_at(2).get("/hub/nodes").await.json();
        (answer["nodes"].as_array().map(Vec::len) == Some(2)).then_some(())
    })
    .await;
}
