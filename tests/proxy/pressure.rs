//! Who is turned away when the node has too much to do: streams first, then requests, health never.

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::node;
use crate::support::{Hub, eventually};
use crate::upstream::Upstream;

const PRESSED: &str = r#"{"statusCode":503,"code":"FST_UNDER_PRESSURE","error":"Service Unavailable","message":"Service Unavailable"}"#;

async fn refuses(node: &Hub, path: &str) {
    let answer = node.get(path).await;
    assert_eq!((answer.status, &*answer.text), (503, PRESSED), "{path}");
    assert_eq!(answer.header("retry-after"), Some("10"), "{path}");
}

#[tokio::test]
async fn too_much_memory_turns_away_streams_and_far_too_much_everything_but_health() {
    let upstream = Upstream::start().await;
    for name in [
        "UNDER_PRESSURE_MAX_RSS_BYTES",
        "UNDER_PRESSURE_MAX_HEAP_USED_BYTES",
    ] {
        let node = node(&[&upstream], &[(name, "1")]).await;
        eventually("the memory is looked at", async || {
            (node.get("/api/example/").await.status == 503).then_some(())
        })
        .await;
        for path in ["/api/example/", "/sse/example/events", "/_pressure"] {
            refuses(&node, path).await;
        }
        for path in ["/healthz", "/readyz", "/metrics"] {
            assert_eq!(node.get(path).await.status, 200, "{path}");
        }
    }
}

#[tokio::test]
async fn no_more_requests_are_under_way_than_may_be() {
    let upstream = Upstream::start().await;
    let node = node(&[&upstream], &[("UNDER_PRESSURE_MAX_IN_FLIGHT", "1")]).await;
    assert_eq!(node.get("/api/example/").await.status, 200);
    let mut client = TcpStream::connect(node.address()).await.expect("the node");
    let request = "GET /api/example/never HTTP/1.1\r\nhost: x\r\n\r\n";
    client.write_all(request.as_bytes()).await.expect("sent");
    eventually("it is under way", async || {
        (upstream.requests() == 2).then_some(())
    })
    .await;
    for path in ["/api/example/", "/_pressure"] {
        refuses(&node, path).await;
    }
    assert_eq!(node.get("/healthz").await.status, 200);
    drop(client);
    eventually("it is over", async || {
        (node.get("/api/example/").await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_stands_in_the_cache_is_answered_all_the_same() {
    let upstream = Upstream::start().await;
    let variables = [
        ("UNDER_PRESSURE_MAX_IN_FLIGHT", "1"),
        ("CACHE_ENABLED", "true"),
        ("CACHE_DEFAULT_TTL_MS", "3600000"),
    ];
    let node = node(&[&upstream], &variables).await;
    assert_eq!(node.get("/api/example/kept").await.status, 200);
    let mut client = TcpStream::connect(node.address()).await.expect("the node");
    let request = "POST /api/example/never HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n";
    client.write_all(request.as_bytes()).await.expect("sent");
    eventually("it is under way", async || {
        (upstream.requests() == 2).then_some(())
    })
    .await;
    refuses(&node, "/api/example/other").await;
    assert_eq!(node.get("/api/example/kept").await.status, 200);
    assert_eq!(upstream.requests(), 2, "nobody was asked for it");
}
