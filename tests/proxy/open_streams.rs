//! How many streams somebody may have open at once.

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::support::hub::SECRET;
use crate::support::raw::{self, read_head};
use crate::support::token::token_of;
use crate::support::{Hub, eventually, hub_with};
use crate::ticker::Ticker;
use crate::upstream::Upstream;
use crate::websocket::Sockets;

const LIMITED: &str =
    r#"{"statusCode":429,"error":"Too Many Requests","message":"Too many streams are open"}"#;

/// A request, and the head of the answer.
async fn ask(node: &Hub, request: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(node.address()).await.expect("the node");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let head = read_head(&mut stream).await;
    (stream, head)
}

/// An event stream at a path, with these lines.
async fn listen(node: &Hub, path: &str, lines: &str) -> (TcpStream, String) {
    ask(
        node,
        &format!("GET {path} HTTP/1.1\r\nhost: x\r\n{lines}\r\n"),
    )
    .await
}

#[track_caller]
fn has_status(answer: &(TcpStream, String), status: &str) {
    let (_, head) = answer;
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
}

/// Two event streams and a WebSocket, or more once one has ended.
#[tokio::test]
async fn an_address_has_no_more_streams_of_a_service_open_than_that_says() {
    let (upstream, sockets) = (Upstream::start().await, Sockets::start().await);
    let lines = "streams_max = { sse = 2, ws = 1 }";
    let file = format!(
        "[services.events]\nupstreams = [{:?}]\n{lines}\n[services.free]\nupstreams = [{:?}]\n\
         [services.sockets]\nupstreams = [{:?}]\n{lines}\n",
        upstream.url(),
        upstream.url(),
        sockets.url
    );
    let node = hub_with(&file, &[("RATE_LIMIT_MAX", "0")]).await;
    let path = "/sse/events/events";
    let open = [listen(&node, path, "").await, listen(&node, path, "").await];
    open.iter().for_each(|one| has_status(one, "200"));
    let answer = node.get(path).await;
    assert_eq!((answer.status, &*answer.text), (429, LIMITED));
    assert_eq!(answer.header("retry-after"), Some("10"));
    assert_eq!(node.get("/api/events/").await.status, 200, "no stream");
    has_status(&listen(&node, "/sse/free/events", "").await, "200");
    // What was counted is counted on after a reload.
    node.rewrite(&file.replace("sse = 2", "sse = 1"));
    node.hang_up();
    eventually("the configuration is read again", async || {
        let metrics = node.get("/metrics").await.text;
        let done = "fanfare_reloads_total{outcome=\"done\"} 1";
        metrics.contains(done).then_some(())
    })
    .await;
    let [one, other] = open;
    drop(one);
    eventually("it is gone", async || {
        let stats = node.get("/admin/stats").await.json();
        let inflight = &stats["services"]["events"]["upstreamDetails"][0]["inflight"];
        (inflight["sse"] == 1).then_some(())
    })
    .await;
    assert_eq!(node.get(path).await.status, 429);
    drop(other);
    eventually("there is room again", async || {
        let answer = listen(&node, path, "").await;
        answer.1.starts_with("HTTP/1.1 200 ").then_some(())
    })
    .await;

    let handshake = raw::handshake(&node, "/ws/sockets");
    let bridged = ask(&node, &handshake).await;
    has_status(&bridged, "101");
    has_status(&ask(&node, &handshake).await, "429");
    drop(bridged);
    eventually("there is room for another", async || {
        let answer = ask(&node, &handshake).await;
        answer.1.starts_with("HTTP/1.1 101 ").then_some(())
    })
    .await;
}

#[tokio::test]
async fn streams_that_many_share_are_counted_as_others_and_by_user_where_it_is_known() {
    let ticker = Ticker::start().await;
    let file = format!(
        "[services.example]\nupstreams = [{:?}]\nshare = \"all\"\nstreams_max = {{ sse = 1, by = \"user\" }}",
        ticker.url()
    );
    let node = hub_with(&file, &[("RATE_LIMIT_MAX", "0"), ("JWT_SECRET", SECRET)]).await;
    let of = |user: Option<&str>| match user {
        Some(user) => format!("/sse/example/ticks?token={}", token_of(user)),
        None => "/sse/example/ticks".to_owned(),
    };
    let mut open = Vec::new();
    for user in [None, Some("ann"), Some("bob")] {
        let path = of(user);
        let stream = listen(&node, &path, "").await;
        has_status(&stream, "200");
        has_status(&listen(&node, &path, "").await, "429");
        open.push((path, stream));
    }
    // They share one connection all the same, whose end is not waited for.
    assert_eq!(ticker.listeners(), 1);
    for (path, stream) in open {
        drop(stream);
        eventually("there is room again", async || {
            let answer = listen(&node, &path, "").await;
            answer.1.starts_with("HTTP/1.1 200 ").then_some(())
        })
        .await;
    }
}
