//! The end: not ready, clients sent away in turn with what was pending, and exit code 0.

use std::time::Instant;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::raw::{self, FIN, Raw, TEXT};
use crate::support::sse::EventStream;
use crate::support::ws::Socket;
use crate::support::{eventually, hub, hub_with};

#[tokio::test]
async fn clients_are_sent_away_over_the_window_and_the_exit_is_clean() {
    let mut hub = hub(&[("DRAIN_SECONDS", "2"), ("DRAIN_DELAY_MS", "300")]).await;
    let mut sockets = Vec::new();
    for _ in 0..30 {
        let mut socket = Socket::open(&hub).await;
        socket.subscribe("news").await;
        sockets.push(socket);
    }
    let mut stream = EventStream::open(&hub, "channel=news", &[]).await;
    hub.terminate();
    eventually("it is not ready", async || {
        let ready = hub.get("/readyz").await;
        (ready.status == 503).then(|| assert_eq!(ready.json()["reason"], "draining"))
    })
    .await;
    assert_eq!(hub.get("/healthz").await.status, 200, "alive all the same");
    // Served until it closes: what is published now arrives.
    hub.publish("news", &json!("late")).await;
    let began = Instant::now();
    let mut times = Vec::new();
    let closing = sockets.iter_mut().map(async |socket| {
        assert_eq!(socket.next().await["data"], "late");
        let closed = socket.next_or_close().await.expect_err("a close");
        assert_eq!(closed, (1012, "draining, reconnect".to_owned()));
        began.elapsed()
    });
    times.extend(futures_util::future::join_all(closing).await);
    times.sort();
    let spread = times[times.len() - 1] - times[0];
    assert!(spread.as_millis() > 700, "all at once: {times:?}");
    assert!(times[times.len() - 1].as_millis() < 3500, "{times:?}");
    let mut retry = None;
    while let Some(block) = stream.block().await {
        retry = block.retry.or(retry);
    }
    assert!(retry.is_some(), "an event stream hears when to come back");
    assert_eq!(hub.exit_code().await, Some(0));
}

/// A balancer keeps connections and sends the next request on one. When the hub closes them under its hands, a publish is
/// lost to it: it may not send that again.
#[tokio::test]
async fn kept_connections_end_with_an_answer_that_says_so_before_the_listeners_close() {
    let mut hub = hub(&[("DRAIN_DELAY_MS", "1500"), ("DRAIN_SECONDS", "1")]).await;
    let mut kept = TcpStream::connect(hub.address()).await.expect("the hub");
    let body = r#"{"channel":"news","data":1}"#;
    let request = format!(
        "POST /hub/publish HTTP/1.1\r\nhost: {}\r\ncontent-length: {}\r\n\r\n{body}",
        hub.host(),
        body.len()
    );
    kept.write_all(request.as_bytes()).await.expect("sent");
    let head = raw::read_head(&mut kept).await.to_ascii_lowercase();
    assert!(!head.contains("\r\nconnection: close\r\n"), "{head}");
    let length = head.split("content-length: ").nth(1).expect("a length");
    let length: usize = length
        .split('\r')
        .next()
        .unwrap_or("")
        .parse()
        .expect("a number");
    kept.read_exact(&mut vec![0; length])
        .await
        .expect("the answer");
    hub.terminate();
    eventually("it is not ready", async || {
        (hub.get("/readyz").await.status == 503).then_some(())
    })
    .await;
    kept.write_all(request.as_bytes()).await.expect("sent");
    let mut rest = Vec::new();
    kept.read_to_end(&mut rest)
        .await
        .expect("an answer and the end");
    let answer = String::from_utf8(rest).expect("text").to_ascii_lowercase();
    assert!(answer.starts_with("http/1.1 200 "), "{answer}");
    assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    // Others are still served, each on a connection of its own.
    assert_eq!(hub.get("/healthz").await.status, 200);
    assert_eq!(hub.exit_code().await, Some(0));
}

#[tokio::test]
async fn nobody_there_means_no_waiting() {
    let mut hub = hub(&[("DRAIN_SECONDS", "60")]).await;
    let began = Instant::now();
    hub.terminate();
    assert_eq!(hub.exit_code().await, Some(0));
    assert!(began.elapsed().as_secs() < 5);
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let mut hub = hub(&[("DRAIN_SECONDS", "3600")]).await;
    let mut socket = Socket::open(&hub).await;
    hub.terminate();
    eventually("it drains", async || {
        let log = hub.log();
        log.contains("draining").then_some(())
    })
    .await;
    hub.terminate();
    // Nobody answers the close, and nobody is waited for.
    assert_eq!(hub.exit_code().await, Some(130));
    assert_eq!(socket.closed().await, (1001, "going away".to_owned()));
}

#[tokio::test]
async fn what_is_pending_goes_out_before_the_close() {
    let mut hub = hub_with(
        "[namespaces.default]\nhistory = { size = 500, ttl = \"5m\" }\n",
        &[
            ("DRAIN_SECONDS", "1"),
            ("WS_MAX_BUFFERED_BYTES", "20000000"),
        ],
    )
    .await;
    let mut slow = Raw::connect(&hub).await;
    slow.send(&raw::text(r#"{"type":"subscribe","channel":"news"}"#))
        .await;
    slow.next().await.expect("subscribed");
    // More than the kernel takes, so that some of it is pending at the drain.
    let data = "x".repeat(60_000);
    for _ in 0..200 {
        hub.publish("news", &json!(data)).await;
    }
    hub.terminate();
    eventually("it drains", async || {
        hub.log().contains("draining").then_some(())
    })
    .await;
    let mut count = 0;
    loop {
        let (head, payload) = slow.next().await.expect("a close frame before the end");
        if head != FIN | TEXT {
            assert_eq!(payload[..2], 1012_u16.to_be_bytes());
            break;
        }
        count += 1;
    }
    assert_eq!(count, 200, "all that was pending");
    slow.send(&raw::frame(FIN | raw::CLOSE, &1012_u16.to_be_bytes()))
        .await;
    assert_eq!(slow.next().await, None);
    assert_eq!(hub.exit_code().await, Some(0));
}
