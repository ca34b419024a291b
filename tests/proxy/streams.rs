//! Streams of events: at once, and for ever.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::node;
use crate::support::{QUIET, eventually, within};
use crate::upstream::Upstream;

#[tokio::test]
async fn events_pass_at_once_and_outlive_every_time_out() {
    let upstream = Upstream::start().await;
    let node = node(&[&upstream], &[("HTTP_PROXY_TIMEOUT_MS", "50")]).await;
    let mut client = TcpStream::connect(node.address()).await.expect("the node");
    let request = "GET /sse/example/events HTTP/1.1\r\nhost: x\r\n\r\n";
    client.write_all(request.as_bytes()).await.expect("sent");
    let mut text = String::new();
    within("the first event", async {
        while !text.contains("data: 1\n\n") {
            text.push(char::from(client.read_u8().await.expect("more")));
        }
    })
    .await;
    for field in [
        "content-type: text/event-stream",
        "cache-control: no-cache",
        "x-accel-buffering: no",
    ] {
        assert!(text.contains(&format!("{field}\r\n")), "{field} in {text}");
    }
    // What is left of the first chunk, then silence for three time-outs.
    let mut rest = [0; 2];
    within("the rest", client.read_exact(&mut rest))
        .await
        .expect("the chunk's end");
    let silence = tokio::time::timeout(QUIET, client.read_u8()).await;
    assert!(silence.is_err(), "{silence:?}");
    assert_eq!(upstream.gone(), 0);
}

#[tokio::test]
async fn a_silent_stream_gets_comments_between_its_events_and_nowhere_else() {
    let upstream = Upstream::start().await;
    let node = crate::node_with(&[&upstream], "heartbeat = \"50ms\"", &[]).await;
    for (path, version, expected) in [
        (
            "events",
            "1.1",
            "data: 1\n\n\r\n3\r\n:\n\n\r\n3\r\n:\n\n\r\n",
        ),
        (
            "chunked-events",
            "1.1",
            "5\r\n: 1\n\n\r\n3\r\n:\n\n\r\n3\r\n:\n\n\r\n",
        ),
        ("events", "1.0", "data: 1\n\n:\n\n:\n\n"),
    ] {
        let text = stream(&node, path, version, expected).await;
        assert!(text.ends_with(expected), "{path} {text:?}");
    }
    // In the middle of an event, and in what is not plain text, nothing of ours can stand.
    for path in ["half-event", "packed-events"] {
        let text = stream(&node, path, "1.1", "\n:\n").await;
        assert!(
            text.contains("data: 1\n") && !text.contains("\n:\n"),
            "{text:?}"
        );
    }
}

/// Comments of ours are no sign of the upstream's.
#[tokio::test]
async fn a_stream_of_which_nothing_comes_for_too_long_ends_where_the_service_says_so() {
    let upstream = Upstream::start().await;
    let lines = "idle_timeout = \"1s\"\nheartbeat = \"50ms\"";
    let node = crate::node_with(&[&upstream], lines, &[]).await;
    for (path, ends_well) in [("events", true), ("half-event", false)] {
        let mut client = TcpStream::connect(node.address()).await.expect("the node");
        let request = format!("GET /sse/example/{path} HTTP/1.1\r\nhost: x\r\n\r\n");
        client.write_all(request.as_bytes()).await.expect("sent");
        let mut text = Vec::new();
        let _ = within("the end", client.read_to_end(&mut text)).await;
        let text = String::from_utf8_lossy(&text);
        assert!(text.contains("data: 1\n"), "{text:?}");
        assert_eq!(text.contains("\n:\n\n"), ends_well, "comments: {text:?}");
        assert_eq!(text.contains("\nretry: "), ends_well, "{text:?}");
        assert_eq!(text.ends_with("\n\n\r\n0\r\n\r\n"), ends_well, "{text:?}");
    }
    eventually("each is let go of", async || {
        (upstream.gone() == 2).then_some(())
    })
    .await;
    assert_eq!(node.get("/api/example/").await.status, 200);
}

#[tokio::test]
async fn a_drain_ends_streams_between_two_events_and_tells_when_to_come_back() {
    let upstream = Upstream::start().await;
    for path in ["events", "chunked-events", "half-event"] {
        let mut node = node(&[&upstream], &[("DRAIN_SECONDS", "1")]).await;
        let mut client = TcpStream::connect(node.address()).await.expect("the node");
        let request = format!("GET /sse/example/{path} HTTP/1.1\r\nhost: x\r\n\r\n");
        client.write_all(request.as_bytes()).await.expect("sent");
        let (mut text, mut is_asked_to_end) = (String::new(), false);
        within("an event, and the end", async {
            while let Ok(byte) = client.read_u8().await {
                text.push(char::from(byte));
                let has_event = text.ends_with("1\n\r\n") || text.ends_with("1\n\n\r\n");
                // Once: a second time means at once, and a time to come back ends with any digit.
                if has_event && !std::mem::replace(&mut is_asked_to_end, true) {
                    node.terminate();
                }
            }
        })
        .await;
        let ends_well = path != "half-event";
        assert_eq!(text.ends_with("\n\n\r\n0\r\n\r\n"), ends_well, "{text:?}");
        assert_eq!(text.contains("\nretry: "), ends_well, "{text:?}");
        assert_eq!(node.exit_code().await, Some(0));
    }
    // Each was let go of.
    assert_eq!(upstream.gone(), 3);
}

/// What comes of a stream until it ends with this, or is silent.
async fn stream(node: &crate::support::Hub, path: &str, version: &str, until: &str) -> String {
    let mut client = TcpStream::connect(node.address()).await.expect("the node");
    let request = format!("GET /sse/example/{path} HTTP/{version}\r\nhost: x\r\n\r\n");
    client.write_all(request.as_bytes()).await.expect("sent");
    let mut text = String::new();
    let read = async {
        while !text.ends_with(until) {
            text.push(char::from(client.read_u8().await.expect("more")));
        }
    };
    // Three heartbeats' time.
    let _ = tokio::time::timeout(10 * QUIET, read).await;
    text
}
