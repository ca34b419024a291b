//! Orders to clients while no connection brings them: each is executed once, as soon as one does again.

use serde_json::{Value, json};

use crate::Fleet;
use crate::redis_server::RedisServer;
use crate::redis_server::cluster::Cluster;
use crate::support::ws::Socket;
use crate::support::{Hub, eventually, hub};

/// A connection asks for that before it brings anything.
fn allow(fleet: &Fleet, rule: &str) {
    let answer = fleet.redis.ask(&["ACL", "SETUSER", "default", rule]);
    assert_eq!(answer, "OK");
}

/// Ends what brings messages to the nodes, and lets nothing take its place.
pub(crate) async fn cut(fleet: &Fleet) {
    allow(fleet, "-info");
    fleet.redis.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    for node in &fleet.nodes {
        eventually("not ready", async || (!is_ready(node).await).then_some(())).await;
    }
}

pub(crate) async fn mend(fleet: &Fleet) {
    allow(fleet, "+info");
    for node in &fleet.nodes {
        eventually("ready", async || is_ready(node).await.then_some(())).await;
    }
}

async fn is_ready(node: &Hub) -> bool {
    node.get("/readyz").await.status == 200
}

/// Tells the first node to do this to a client, wherever it is.
async fn order(fleet: &Fleet, what: &str, client: &str, channel: &str) {
    let order = json!({"client": client, "channel": channel});
    let path = format!("/hub/{what}");
    let answer = fleet.nodes[0].post(&path, &order).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

async fn disconnect(fleet: &Fleet, socket: &Socket) {
    let order = json!({"client": socket.client()});
    let answer = fleet.nodes[0].post("/hub/disconnect", &order).await;
    assert_eq!(answer.json(), json!({"ok": true}));
}

/// What the next orders did: of each, what it was and in which channel.
async fn done(socket: &mut Socket, count: usize) -> Vec<[Value; 2]> {
    let mut done = Vec::new();
    while done.len() < count {
        let message = socket.next().await;
        if message["type"] == "subscribed" || message["type"] == "unsubscribed" {
            done.push([message["type"].clone(), message["channel"].clone()]);
        }
    }
    done
}

fn subscribed(channel: &str) -> [Value; 2] {
    [json!("subscribed"), json!(channel)]
}

fn unsubscribed(channel: &str) -> [Value; 2] {
    [json!("unsubscribed"), json!(channel)]
}

#[tokio::test]
async fn a_client_is_disconnected_though_no_connection_brought_the_order() {
    let fleet = Fleet::start(2).await;
    let mut socket = Socket::open(&fleet.nodes[1]).await;
    cut(&fleet).await;
    disconnect(&fleet, &socket).await;
    socket.expect_alive().await;
    mend(&fleet).await;
    assert_eq!(socket.closed().await.0, 4002);
}

/// As short as it can be: the connections are made anew at once.
#[tokio::test]
async fn an_order_right_after_a_cut_is_executed() {
    let fleet = Fleet::start(2).await;
    for node in &fleet.nodes {
        let mut socket = Socket::open(node).await;
        fleet.redis.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        disconnect(&fleet, &socket).await;
        assert_eq!(socket.closed().await.0, 4002);
    }
}

#[tokio::test]
async fn orders_are_executed_once_and_as_they_were_given_over_any_number_of_cuts() {
    let fleet = Fleet::start(2).await;
    let mut socket = Socket::open(&fleet.nodes[1]).await;
    let client = socket.client();
    socket.subscribe("own").await;
    order(&fleet, "subscribe", &client, "first").await;
    assert_eq!(done(&mut socket, 1).await, [subscribed("first")]);
    let leave = json!({"type": "unsubscribe", "channel": "first"});
    socket.send(&leave).await;
    let channel = leave["channel"].as_str().expect("a name");
    assert_eq!(done(&mut socket, 1).await, [unsubscribed(channel)]);
    cut(&fleet).await;
    order(&fleet, "unsubscribe", &client, "own").await;
    order(&fleet, "subscribe", &client, "own").await;
    order(&fleet, "subscribe", &client, "third").await;
    mend(&fleet).await;
    let expected = [unsubscribed("own"), subscribed("own"), subscribed("third")];
    assert_eq!(done(&mut socket, 3).await, expected);
    let leave = json!({"type": "unsubscribe", "channel": "third"});
    socket.send(&leave).await;
    let channel = leave["channel"].as_str().expect("a name");
    assert_eq!(done(&mut socket, 1).await, [unsubscribed(channel)]);
    for last in ["fourth", "fifth"] {
        cut(&fleet).await;
        mend(&fleet).await;
        order(&fleet, "subscribe", &client, last).await;
        assert_eq!(done(&mut socket, 1).await, [subscribed(last)]);
    }
}

/// Nothing that a node did is known to the data then, and what it is told now is younger.
#[tokio::test]
async fn orders_go_on_when_redis_lost_its_data() {
    let fleet = Fleet::start(2).await;
    let mut socket = Socket::open(&fleet.nodes[1]).await;
    let client = socket.client();
    order(&fleet, "subscribe", &client, "before").await;
    assert_eq!(done(&mut socket, 1).await, [subscribed("before")]);
    cut(&fleet).await;
    assert_eq!(fleet.redis.ask(&["FLUSHALL"]), "OK");
    order(&fleet, "subscribe", &client, "after").await;
    mend(&fleet).await;
    order(&fleet, "subscribe", &client, "later").await;
    let expected = [subscribed("after"), subscribed("later")];
    assert_eq!(done(&mut socket, 2).await, expected);
}

#[tokio::test]
async fn a_node_that_begins_executes_no_order_from_before() {
    let mut fleet = Fleet::start(1).await;
    let secret = [("JWT_SECRET", hub::SECRET)];
    let ann = |channel: &str| json!({"user": "ann", "channel": channel});
    let subscribe = async |fleet: &Fleet, channel: &str| {
        let answer = fleet.nodes[0].post("/hub/subscribe", &ann(channel)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    };
    subscribe(&fleet, "before").await;
    let new = crate::node(&fleet.redis, 1, "", &secret).await;
    fleet.nodes.push(new);
    let token = crate::support::token::token_of("ann");
    let mut socket = Socket::open_as(&fleet.nodes[1], &token).await;
    cut(&fleet).await;
    mend(&fleet).await;
    subscribe(&fleet, "after").await;
    assert_eq!(done(&mut socket, 1).await, [subscribed("after")]);
}

/// A server without memory keeps no order. Whoever hears it executes it all the same.
#[tokio::test]
async fn an_order_is_told_when_redis_has_no_memory_left() {
    let fleet = Fleet::start_on(RedisServer::start(), 2).await;
    let mut socket = Socket::open(&fleet.nodes[1]).await;
    let set = |bytes: &str| fleet.redis.ask(&["CONFIG", "SET", "maxmemory", bytes]);
    assert_eq!(set("1"), "OK");
    disconnect(&fleet, &socket).await;
    assert_eq!(socket.closed().await.0, 4002);
    assert_eq!(set("0"), "OK");
}

/// In a Cluster one master has the orders. When another one does, nothing that comes between is missed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_that_come_while_their_slot_moves_are_executed_once() {
    const ORDERS: usize = 60;
    let cluster = Cluster::start(false, false);
    let url = cluster.url();
    let variables = [("REDIS_URL", url.as_str())];
    let nodes = [hub(&variables).await, hub(&variables).await];
    let mut socket = Socket::open(&nodes[1]).await;
    let names: Vec<String> = (0..ORDERS).map(|number| format!("c{number}")).collect();
    let client = socket.client();
    let ordering = async {
        for name in &names {
            let order = json!({"client": client, "channel": name});
            eventually("taken", async || {
                let answer = nodes[0].post("/hub/subscribe", &order).await;
                (answer.status == 200).then_some(())
            })
            .await;
        }
    };
    let moving = async {
        for _ in 0..3 {
            let key = "fanfare:{fleet}:leases";
            tokio::task::block_in_place(|| cluster.move_slot_of(key));
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(ordering, moving);
    // Which of them begins first is up to the masters of the channels.
    let begun = done(&mut socket, ORDERS).await;
    for name in &names {
        let times = begun.iter().filter(|begun| **begun == subscribed(name));
        assert_eq!(times.count(), 1, "{name}");
    }
}
