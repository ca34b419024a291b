//! Upstreams that fail, each in its own way.

use crate::http2::{Session, finish};
use crate::node;
use crate::support::{Hub, eventually, within};
use crate::upstream::Upstream;

const UNAVAILABLE: &str =
    r#"{"error":"upstream_unavailable","message":"Failed to reach upstream"}"#;
const TIMED_OUT: &str = r#"{"error":"upstream_timeout","message":"Upstream request timed out"}"#;

#[tokio::test]
async fn one_that_refuses_or_talks_nonsense_is_502() {
    let upstream = Upstream::start().await;
    let node_of_one = node(&[&upstream], &[]).await;
    for path in [
        "cut-head",
        "reset-head",
        "two-lengths",
        "no-http",
        "unasked",
        "big-head",
    ] {
        let answer = node_of_one.get(&format!("/api/example/{path}")).await;
        assert_eq!((answer.status, &*answer.text), (502, UNAVAILABLE), "{path}");
        assert!(answer.header("x-request-id").is_some());
    }
    let refusing = Upstream::refusing().await;
    let answer = node(&[&refusing], &[]).await.get("/api/example/").await;
    assert_eq!((answer.status, &*answer.text), (502, UNAVAILABLE));
}

#[tokio::test]
async fn one_that_is_silent_is_504_and_let_go() {
    let upstream = Upstream::start().await;
    let node = node(&[&upstream], &[("HTTP_PROXY_TIMEOUT_MS", "200")]).await;
    let answer = node.get("/api/example/never").await;
    assert_eq!((answer.status, &*answer.text), (504, TIMED_OUT));
    eventually("the upstream is let go", async || {
        (upstream.gone() == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn one_that_breaks_off_or_pauses_in_its_body_cuts_the_answer() {
    let upstream = Upstream::start().await;
    let node = node(&[&upstream], &[("HTTP_PROXY_TIMEOUT_MS", "200")]).await;
    for path in ["cut-body", "pause"] {
        let answer = node.get(&format!("/api/example/{path}")).await;
        assert_eq!((answer.status, &*answer.text), (200, "abc"), "{path}");
        assert_eq!(answer.header("content-length"), Some("100"), "{path}");
    }
}

#[tokio::test]
async fn one_that_resets_or_breaks_its_chunks_cuts_the_answer() {
    let upstream = Upstream::start().await;
    let node = node(&[&upstream], &[]).await;
    let answer = node.get("/api/example/reset-body").await;
    // A reset may overtake what was sent before it.
    let told = (answer.status, &*answer.text);
    assert!(
        matches!(told, (200, "abc" | "") | (502, UNAVAILABLE)),
        "{answer:?}"
    );
    for path in ["huge-chunk", "bad-chunk"] {
        let answer = node.get(&format!("/api/example/{path}")).await;
        // Where it all came in one piece nothing was passed on; else nothing ends the body.
        let told = (answer.status, answer.text.contains("0\r\n\r\n"));
        assert!(matches!(told, (502, _) | (200, false)), "{path} {answer:?}");
    }
    assert_eq!(node.get("/api/example/").await.status, 200);
}

/// What went wrong last with the only upstream of a node.
async fn last_error(node: &Hub) -> String {
    let stats = node.get("/admin/stats").await.json();
    let last = &stats["services"]["example"]["upstreamDetails"][0]["lastError"];
    if last.is_null() {
        return String::new();
    }
    let (at, now) = (&last["atMs"], &stats["nowMs"]);
    assert!(
        at.as_u64() <= now.as_u64() && at.as_u64() > Some(0),
        "{stats}"
    );
    last["message"].as_str().expect("a text").to_owned()
}

/// It stood in the log of debugging alone.
#[tokio::test]
async fn why_one_failed_stands_in_the_log_when_its_breaker_opens_and_in_the_statistics() {
    let upstream = Upstream::start().await;
    let time = ("HTTP_PROXY_TIMEOUT_MS", "200");
    let node_of_one = node(&[&upstream], &[time]).await;
    node_of_one.get("/api/example/").await;
    assert_eq!(last_error(&node_of_one).await, "", "nothing has failed");
    for (path, expected) in [
        ("cut-head", "no answer: it closed the connection"),
        ("no-http", "no answer: the answer's head is malformed"),
        ("big-head", "no answer: the answer's head is too long"),
        ("two-lengths", "no answer: the answer's head is malformed"),
        ("unasked", "no answer: a 101 that was not asked for"),
        (
            "reset-head",
            "no answer: Connection reset by peer (os error 104)",
        ),
        ("never", "no answer in time"),
    ] {
        node_of_one.get(&format!("/api/example/{path}")).await;
        assert_eq!(last_error(&node_of_one).await, expected, "{path}");
    }
    upstream.set_ill(true);
    node_of_one.get("/api/example/").await;
    assert_eq!(last_error(&node_of_one).await, "it answered 500");
    let refusing = Upstream::refusing().await;
    let node_of_none = node(&[&refusing], &[]).await;
    for _ in 0..5 {
        node_of_none.get("/api/example/").await;
    }
    let cause = "no connection: Connection refused (os error 111)";
    assert_eq!(last_error(&node_of_none).await, cause);
    let line = eventually("the log's writer has it", async || {
        let log = node_of_none.log();
        let mut lines = log.lines().map(str::to_owned);
        lines.find(|line| line.contains("the circuit breaker opens"))
    })
    .await;
    assert!(line.contains(cause), "{line}");
}

/// What a reload, a time-out or a deploy of the upstream's does to kept connections says nothing of how it is.
#[tokio::test]
async fn a_kept_connection_that_ends_under_a_request_is_no_failure() {
    let upstream = Upstream::start().await;
    let node = node(&[&upstream], &[("WORKERS", "1")]).await;
    let errors = async || {
        let stats = node.get("/admin/stats").await.json();
        let only = &stats["services"]["example"]["upstreamDetails"][0];
        assert!(only["circuitOpenUntilMs"].is_null(), "{stats}");
        only["errorsTotal"].as_u64().expect("a number")
    };
    let post = async |path: &str| {
        let answer = node.request("POST", path, &[], "x").await;
        answer.expect_error(502, "upstream_unavailable");
    };
    for _ in 0..8 {
        // Leaves a connection behind.
        assert_eq!(node.get("/api/example/").await.status, 200);
        post("/api/example/drop").await;
    }
    assert_eq!(errors().await, 0);
    assert_eq!(upstream.requests(), 16, "none was made again");
    post("/api/example/drop").await;
    assert_eq!(errors().await, 1, "a new connection is another matter");
    node.get("/api/example/").await;
    post("/api/example/cut-head").await;
    assert_eq!(errors().await, 2, "so is one that had begun to answer");
}

#[tokio::test]
async fn one_that_closes_idle_connections_is_no_failure() {
    let upstream = Upstream::start().await;
    let node = node(&[&upstream], &[("WORKERS", "1")]).await;
    for _ in 0..50 {
        assert_eq!(node.get("/api/example/close-after").await.text, "ok");
        // One that may be repeated: the connection may close as the request is sent, and nobody can know what became of it.
        let put = node.request("PUT", "/api/example/", &[], "x").await;
        assert_eq!(put.status, 200, "{put:?}");
    }
}

#[tokio::test]
async fn a_client_that_goes_away_takes_its_upstream_along() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let upstream = Upstream::start().await;
    let node = node(&[&upstream], &[]).await;
    for (gone, path) in [
        (1, "/api/example/never"),
        (2, "/sse/example/events"),
        (3, "/api/example/endless"),
    ] {
        let mut client = tokio::net::TcpStream::connect(node.address())
            .await
            .expect("the node");
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
        client.write_all(request.as_bytes()).await.expect("sent");
        eventually("the request arrives", async || {
            (upstream.requests() >= gone).then_some(())
        })
        .await;
        if gone > 1 {
            within("an answer", client.read_u8())
                .await
                .expect("an answer");
        }
        drop(client);
        eventually(path, async || (upstream.gone() >= gone).then_some(())).await;
    }
}

#[tokio::test]
async fn a_slow_client_before_a_fast_upstream_costs_little() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let upstream = Upstream::start().await;
    let node = node(&[&upstream], &[]).await;
    let before = node.resident_bytes();
    let mut clients = Vec::new();
    for _ in 0..10 {
        let mut client = tokio::net::TcpStream::connect(node.address())
            .await
            .expect("the node");
        let request = "GET /api/example/endless HTTP/1.1\r\nhost: x\r\n\r\n";
        client.write_all(request.as_bytes()).await.expect("sent");
        within("an answer", client.read_u8())
            .await
            .expect("an answer");
        clients.push(client);
    }
    // The upstream writes as fast as it can; whatever is taken from it and not passed on would show here.
    let mut read = vec![0; 1 << 16];
    for _ in 0..50 {
        for client in &mut clients {
            within("more", client.read_exact(&mut read))
                .await
                .expect("more");
        }
    }
    let grown = node.resident_bytes().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes for ten slow clients");
}

/// What is said behind the body is no way around what may be said before it (RFC 9110 section 6.5.1).
#[tokio::test]
async fn one_that_hides_fields_in_its_trailers_is_found_out() {
    let upstream = Upstream::start().await;
    let node = node(&[&upstream], &[("WORKERS", "1")]).await;
    let session = Session::open(&node).await;
    for path in ["/api/example/secret-trailers", "/api/example/torn-trailers"] {
        let answer = node.get(path).await;
        assert_eq!(answer.text, "2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n", "{path}");
        let answer = session.get(path).await;
        let trailers: Vec<_> = answer.trailers.keys().map(|name| name.as_str()).collect();
        assert_eq!(
            (answer.text().as_str(), trailers),
            ("ok", vec!["x-sum"]),
            "{path}"
        );
    }
    // Nothing of them is left on the upstream's connection.
    assert_eq!(upstream.connections(), 1);
    let answer = node.get("/api/example/bad-trailers").await;
    assert_eq!(answer.text, "2\r\nok\r\n0\r\n");
    let bad = session
        .begin("GET", "/api/example/bad-trailers", &[], false)
        .await;
    finish(bad.0).await.expect_err("a reset");
}
