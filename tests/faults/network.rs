//! The network between a node and Redis.

use std::time::Duration;

use crate::harness::proxy::Traffic;
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::harness::proxy::Proxy;
use crate::harness::{Fleet, Loss, address};
use crate::redis_server::RedisServer;
use crate::support::ws::Socket;
use crate::support::{hub, within};

/// Lets a fault last. What ends it is not something that one could wait for.
async fn for_seconds(seconds: f64) {
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_connection_loses_nothing() {
    let mut fleet = Fleet::start("5: the connection of a node to Redis is cut").await;
    fleet.proxies[0].set(Traffic::Cut);
    fleet
        .until("publishers are told", |fleet| {
            fleet.told(|told| &told.refused) > 10
        })
        .await;
    fleet.proxies[0].set(Traffic::Passing);
    fleet.back_to_normal().await;
    fleet.compare(Loss::None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_connections_cut_lose_nothing() {
    let mut fleet = Fleet::start("5: all connections to Redis are cut").await;
    for proxy in &fleet.proxies {
        proxy.set(Traffic::Cut);
    }
    fleet
        .until("publishers are told", |fleet| {
            fleet.told(|told| &told.refused) > 10
        })
        .await;
    let (connected, acknowledged) = (fleet.connected(), fleet.acknowledged());
    for_seconds(1.0).await;
    assert_eq!(fleet.connected(), connected, "clients stay connected");
    assert_eq!(fleet.acknowledged(), acknowledged, "nothing is pretended");
    for proxy in &fleet.proxies {
        proxy.set(Traffic::Passing);
    }
    fleet.back_to_normal().await;
    fleet.compare(Loss::None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_black_hole_loses_nothing() {
    let mut fleet = Fleet::start("5: the connection of a node to Redis is a black hole").await;
    fleet.proxies[0].set(Traffic::Swallowed);
    fleet
        .until("publishers are told", |fleet| {
            fleet.told(|told| &told.unknown) > 10
        })
        .await;
    // Longer than any time-out of the node's: it gives the connections up and makes new ones, which are black holes too.
    for_seconds(8.0).await;
    fleet.proxies[0].set(Traffic::Passing);
    fleet.back_to_normal().await;
    fleet.compare(Loss::None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_black_hole_loses_nothing() {
    let mut fleet = Fleet::start("5: connections to Redis stand still for a moment").await;
    for proxy in &fleet.proxies[..2] {
        proxy.set(Traffic::Swallowed);
    }
    fleet
        .until("publishers are told", |fleet| {
            fleet.told(|told| &told.unknown) > 10
        })
        .await;
    // What stood still goes on: what was asked long ago is carried out now.
    for proxy in &fleet.proxies {
        proxy.set(Traffic::Passing);
    }
    fleet.back_to_normal().await;
    fleet.compare(Loss::None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_never_come_lose_nothing() {
    let mut fleet = Fleet::start("5: Redis hears a node and is not heard").await;
    fleet.proxies[0].set(Traffic::Mute);
    fleet
        .until("publishers are told", |fleet| {
            fleet.told(|told| &told.unknown) > 10
        })
        .await;
    for_seconds(4.0).await;
    fleet.proxies[0].set(Traffic::Passing);
    fleet.back_to_normal().await;
    fleet.compare(Loss::None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_connection_loses_nothing() {
    let mut fleet = Fleet::start("5: the connection of a node to Redis is slow").await;
    fleet.proxies[0].set(Traffic::Slow(Duration::from_millis(150)));
    fleet.advance(10).await;
    // Slower than any time-out: nothing of it is answered in time.
    fleet.proxies[0].set(Traffic::Slow(Duration::from_millis(1500)));
    fleet
        .until("publishers are told", |fleet| {
            fleet.told(|told| &told.unknown) > 10
        })
        .await;
    fleet.proxies[0].set(Traffic::Passing);
    fleet.back_to_normal().await;
    fleet.compare(Loss::None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_publications_are_read_again() {
    let mut fleet = Fleet::start("6: publications are dropped between Redis and the nodes").await;
    for proxy in &fleet.proxies {
        proxy.set(Traffic::Lossy(40));
    }
    // Whoever waits here waits for the next publication after the one that was dropped.
    fleet.advance(20).await;
    for proxy in &fleet.proxies {
        proxy.set(Traffic::Passing);
    }
    let dropped: u64 = fleet.proxies.iter().map(|proxy| proxy.dropped()).sum();
    assert!(dropped > 100, "only {dropped} were dropped");
    fleet.back_to_normal().await;
    fleet.compare(Loss::Unkept).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_brings_nothing_is_found_out() {
    let mut fleet = Fleet::start("6: a node hears no publication at all").await;
    let before = fleet.proxies[0].dropped();
    fleet.proxies[0].set(Traffic::Deaf);
    let now = fleet.numbers();
    // The proxy stays as it is: that its connection brings nothing the node must find out by itself.
    fleet
        .until("the node reads what it does not hear", |fleet| {
            fleet.have(&now, 5)
        })
        .await;
    assert!(fleet.proxies[0].dropped() > before, "nothing was dropped");
    fleet.proxies[0].set(Traffic::Passing);
    fleet.back_to_normal().await;
    fleet.compare(Loss::Unkept).await;
}

/// Of the channels of one event stream, one is known to the node and the other is not, so that the stream begins only when
/// Redis has answered. What comes in the first one meanwhile was lost: its position had been taken already.
#[tokio::test]
async fn what_comes_while_another_channel_is_opened_is_not_lost() {
    let redis = RedisServer::start_kept();
    let proxy = Proxy::start(address(&redis)).await;
    let (slow, fast) = (proxy.url(), redis.url());
    let node = hub(&[("REDIS_URL", &slow), ("WORKERS", "1"), ("NODE_ID", "slow")]).await;
    let other = hub(&[("REDIS_URL", &fast), ("NODE_ID", "fast")]).await;
    let mut known = Socket::open(&node).await;
    known.subscribe("known").await;
    other.publish("known", &json!(1)).await;
    known.numbers(0, 1).await;

    proxy.set(Traffic::Slow(Duration::from_millis(100)));
    let stream = TcpStream::connect(node.address()).await.expect("the node");
    let mut stream = BufReader::new(stream);
    let request = "GET /sse/connect?channel=known&channel=new HTTP/1.1\r\nhost: node\r\n\r\n";
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut lines = stream.lines();
    let mut until = async |end: &str| {
        let mut read = Vec::new();
        within(end, async {
            while read.last().is_none_or(|line: &String| !line.contains(end)) {
                read.push(lines.next_line().await.expect("a line").expect("no end"));
            }
        })
        .await;
        read
    };
    until("text/event-stream").await;
    // The first channel's position is taken. This reaches the node before the second one is opened.
    other.publish("known", &json!(2)).await;
    assert_eq!(known.numbers(1, 1).await, [2]);
    until("\"type\":\"connected\"").await;
    other.publish("known", &json!(3)).await;
    let events = until("\"offset\":3}").await;
    let data = events.iter().filter(|line| line.starts_with("data:"));
    assert_eq!(data.count(), 2, "{events:#?}");
}
