//! How many connections a node makes to an upstream that speaks HTTP/2, and what becomes of requests beyond what those take.

use futures_util::future::join_all;
use h2::server::Builder;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::http2::Session;
use crate::http2_upstreams::{Server, is_well, node};
use crate::support::raw::read_head;
use crate::support::{Hub, eventually, hub_with};

/// An upstream that takes so many requests at once on a connection.
async fn narrow(streams_max: u32) -> Server {
    Server::start_with(Builder::new().max_concurrent_streams(streams_max).clone()).await
}

/// A node of one worker that makes two connections to this upstream, no more.
async fn of_two(server: &Server, connect_timeout: &str) -> Hub {
    let text = format!(
        "[services.example]\nupstreams = [\"{}\"]\nhttp2_connections_max = 2\nconnect_timeout = \"{connect_timeout}\"\n",
        server.url()
    );
    hub_with(&text, &[("RATE_LIMIT_MAX", "0"), ("WORKERS", "1")]).await
}

async fn ask(node: &Hub, path: &str) -> TcpStream {
    let mut client = TcpStream::connect(node.address()).await.expect("the node");
    let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
    client.write_all(request.as_bytes()).await.expect("sent");
    client
}

async fn arrive(server: &Server, count: usize) {
    eventually("they arrive", async || {
        (server.requests() == count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_full_connection_is_passed_over() {
    let server = Server::start_with(Builder::new().max_concurrent_streams(2).clone()).await;
    let node = node(&[server.url()], &[]).await;
    // So that its settings are known.
    assert_eq!(node.get("/api/example/a").await.status, 200);
    let session = Session::open(&node).await;
    let mut open = Vec::new();
    for n in 0..5 {
        open.push(session.begin("GET", "/api/example/never", &[], false).await);
        eventually("it has arrived", async || {
            (server.requests() == n + 2).then_some(())
        })
        .await;
    }
    assert_eq!(server.connections(), 3, "two on each");
    drop(open);
    eventually("all are given up", async || {
        (server.gone() == 5).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_burst_makes_no_more_connections_than_it_needs() {
    let server = Server::start_with(Builder::new().max_concurrent_streams(50).clone()).await;
    let node = node(&[server.url()], &[]).await;
    let asked = (0..200).map(async |_| {
        let mut client = TcpStream::connect(node.address()).await.expect("the node");
        let request = "GET /api/example/never HTTP/1.1\r\nhost: a\r\n\r\n";
        client.write_all(request.as_bytes()).await.expect("sent");
        client
    });
    let clients = join_all(asked).await;
    eventually("all are asked", async || {
        (server.requests() == 200).then_some(())
    })
    .await;
    assert_eq!(server.connections(), 4);
    is_well(&node).await;
    drop(clients);
}

#[tokio::test]
async fn requests_beyond_what_the_connections_take_wait_for_their_turn() {
    let server = narrow(1).await;
    let node = of_two(&server, "30s").await;
    let asked = (0..300).map(|n| {
        let node = &node;
        async move { node.get(&format!("/api/example/{n}")).await.status }
    });
    let statuses = join_all(asked).await;
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    assert_eq!((server.requests(), server.connections()), (300, 2));
    is_well(&node).await;
}

#[tokio::test]
async fn who_waits_gets_the_place_of_who_goes() {
    let server = narrow(1).await;
    let node = of_two(&server, "30s").await;
    let first = ask(&node, "/api/example/never").await;
    let second = ask(&node, "/api/example/never").await;
    arrive(&server, 2).await;
    let mut waits = ask(&node, "/api/example/hints").await;
    let never = ask(&node, "/api/example/never").await;
    // One place becomes free, and the one that came first has it.
    drop(first);
    assert!(read_head(&mut waits).await.starts_with("HTTP/1.1 103 "));
    arrive(&server, 4).await;
    assert_eq!(server.connections(), 2);
    drop((second, never));
    is_well(&node).await;
}

#[tokio::test]
async fn who_waits_for_too_long_is_told_that_the_upstream_has_enough_to_do() {
    let server = narrow(1).await;
    let node = of_two(&server, "300ms").await;
    let held = [
        ask(&node, "/api/example/never").await,
        ask(&node, "/api/example/never").await,
    ];
    arrive(&server, 2).await;
    for _ in 0..6 {
        let answer = node.get("/api/example/a").await;
        assert_eq!(answer.status, 503, "{answer:?}");
        assert_eq!(answer.json()["error"], "upstream_overloaded", "{answer:?}");
    }
    is_well(&node).await;
    drop(held);
    eventually("a place", async || {
        (node.get("/api/example/a").await.status == 200).then_some(())
    })
    .await;
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn what_one_upstream_has_no_room_for_another_one_gets() {
    let (full, free) = (narrow(1).await, narrow(100).await);
    let text = format!(
        "[services.example]\nupstreams = [\"{}\", \"{}\"]\nbalance = \"round-robin\"\nhttp2_connections_max = 1\n\
         connect_timeout = \"300ms\"\n",
        full.url(),
        free.url()
    );
    let node = hub_with(&text, &[("RATE_LIMIT_MAX", "0"), ("WORKERS", "1")]).await;
    let held = [
        ask(&node, "/api/example/never").await,
        ask(&node, "/api/example/never").await,
    ];
    eventually("one each", async || {
        (full.requests() == 1 && free.requests() == 1).then_some(())
    })
    .await;
    for _ in 0..4 {
        let answer = node.request("POST", "/api/example/a", &[], "body").await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    assert_eq!((full.requests(), full.connections()), (1, 1));
    is_well(&node).await;
    drop(held);
}
