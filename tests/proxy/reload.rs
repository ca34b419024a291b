//! The services change while the node runs, and nothing is cut.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Hub, QUIET, eventually, within};
use crate::upstream::Upstream;
use crate::{node_with, service};

/// Waits until the configuration was read again so many times, with this outcome.
async fn reloaded(node: &Hub, outcome: &str, count: f64) {
    let line = format!("fanfare_reloads_total{{outcome=\"{outcome}\"}}");
    eventually("the configuration is read again", async || {
        (node.metric(&line).await == count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_hang_up_swaps_the_upstreams_and_cuts_no_stream() {
    let (before, after) = (Upstream::start().await, Upstream::start().await);
    let node = node_with(&[&before], "", &[]).await;
    let mut stream = TcpStream::connect(node.address()).await.expect("the node");
    let request = "GET /sse/example/events HTTP/1.1\r\nhost: x\r\n\r\n";
    stream.write_all(request.as_bytes()).await.expect("sent");
    within("an answer", stream.read_u8())
        .await
        .expect("an answer");
    node.rewrite(&service(&[&after], ""));
    node.hang_up();
    reloaded(&node, "done", 1.0).await;
    let asked = before.requests();
    for _ in 0..10 {
        assert_eq!(node.get("/api/example/").await.status, 200);
    }
    assert_eq!((before.requests(), after.requests()), (asked, 10));
    // What is left of the first event, then nothing: it is still there.
    let mut rest = vec![0; 4096];
    let quiet = async { while stream.read(&mut rest).await.expect("no cut") > 0 {} };
    let still_open = tokio::time::timeout(QUIET, quiet).await;
    assert!(still_open.is_err(), "the stream has ended");
    assert_eq!(before.gone(), 0);
}

#[tokio::test]
async fn a_file_that_changes_is_read_by_itself() {
    let (one, two) = (Upstream::start().await, Upstream::start().await);
    let node = node_with(&[&one], "", &[]).await;
    let both = service(&[&one], "") + &service(&[&two], "").replace("example", "another");
    node.rewrite(&both);
    eventually("the new service is served", async || {
        (node.get("/api/another/").await.status == 200).then_some(())
    })
    .await;
    assert_eq!(node.get("/api/example/").await.status, 200);
    node.rewrite("");
    eventually("the services are gone", async || {
        (node.get("/api/example/").await.status == 404).then_some(())
    })
    .await;
}

/// The log has it, once its writer has come so far.
async fn told(node: &Hub, text: &str) {
    eventually(text, async || node.log().contains(text).then_some(())).await;
}

#[tokio::test]
async fn a_faulty_file_changes_nothing_and_is_told() {
    let upstream = Upstream::start().await;
    let node = node_with(&[&upstream], "", &[]).await;
    node.rewrite(&service(&[&upstream], "tiemout = \"1s\""));
    node.hang_up();
    reloaded(&node, "failed", 1.0).await;
    assert_eq!(node.get("/api/example/").await.status, 200);
    told(&node, "services.example.tiemout is not known here").await;
    node.rewrite(&service(&[&upstream, &upstream], ""));
    node.hang_up();
    reloaded(&node, "failed", 2.0).await;
    told(&node, "must not have an upstream twice").await;
    node.rewrite(&service(&[&upstream], "timeout = \"100ms\""));
    node.hang_up();
    reloaded(&node, "done", 1.0).await;
    assert_eq!(node.get("/api/example/never").await.status, 504);
}

#[tokio::test]
async fn what_is_known_of_an_upstream_outlives_a_reload() {
    let (well, ill) = (Upstream::start().await, Upstream::start().await);
    ill.set_ill(true);
    let lines = "balance = \"round-robin\"";
    let node = node_with(&[&well, &ill], lines, &[]).await;
    for _ in 0..20 {
        node.get("/api/example/").await;
    }
    assert_eq!(ill.requests(), 5, "its breaker has opened");
    node.hang_up();
    reloaded(&node, "done", 1.0).await;
    for _ in 0..10 {
        assert_eq!(node.get("/api/example/").await.status, 200);
    }
    assert_eq!(ill.requests(), 5, "and still is");
}

/// What is left of the limit after one request more.
async fn left(node: &Hub) -> Option<u32> {
    let answer = node.get("/api/example/").await;
    if answer.status == 429 {
        return None;
    }
    assert_eq!(answer.status, 200, "{answer:?}");
    let left = answer.header("x-ratelimit-remaining").expect("a limit");
    Some(left.parse().expect("a number"))
}

#[tokio::test]
async fn what_was_counted_against_a_limit_outlives_a_reload() {
    let upstream = Upstream::start().await;
    let own = "rate_limit = { max = 4, window = \"1h\" }";
    let of_all = [("RATE_LIMIT_MAX", "4"), ("RATE_LIMIT_WINDOW_MS", "3600000")];
    for (lines, variables) in [(own, &[][..]), ("", &of_all)] {
        let node = node_with(&[&upstream], lines, variables).await;
        assert_eq!(left(&node).await, Some(3));
        assert_eq!(left(&node).await, Some(2));
        // Once as it was, once with another word on something else.
        node.hang_up();
        reloaded(&node, "done", 1.0).await;
        assert_eq!(left(&node).await, Some(1), "{lines}");
        node.rewrite(&service(
            &[&upstream],
            &format!("{lines}\ntimeout = \"9s\""),
        ));
        reloaded(&node, "done", 2.0).await;
        assert_eq!(left(&node).await, Some(0), "{lines}");
        assert_eq!(left(&node).await, None, "{lines}");
    }
}
