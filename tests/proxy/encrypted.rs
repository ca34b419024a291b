//! TLS before the node and behind it.

use std::process::Command;

use serde_json::json;

use crate::shims::{Pair, client_side, server_side, text};
use crate::support::http::Answer;
use crate::support::sse::EventStream;
use crate::support::ws::Socket;
use crate::support::{Hub, eventually, hub};
use crate::upstream::Upstream;

/// Whether this path is answered 200; a connection that is refused answers nothing.
async fn is_answered(door: &Hub, path: &str) -> Option<()> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    let bytes = door.exchange(request.as_bytes()).await;
    bytes.starts_with(b"HTTP/1.1 200 ").then_some(())
}

/// A node that speaks TLS, with this upstream, and a plain way to it.
async fn encrypted(pair: &Pair, upstream: &Upstream) -> (Hub, Hub) {
    let services = json!({ "example": [upstream.url()] }).to_string();
    let mut variables = vec![("UPSTREAMS", &*services), ("RATE_LIMIT_MAX", "0")];
    variables.extend(pair.variables());
    let node = Hub::start("", &variables);
    let door = client_side(node.address(), pair).await;
    eventually("the node is ready", async || {
        is_answered(&door, "/readyz").await
    })
    .await;
    (node, door)
}

#[tokio::test]
async fn every_door_is_behind_the_same_certificate() {
    let (pair, upstream) = (Pair::make(), Upstream::start().await);
    let (_node, door) = encrypted(&pair, &upstream).await;
    let mut socket = Socket::open(&door).await;
    socket.subscribe("news").await;
    let mut stream = EventStream::open(&door, "channel=news", &[]).await;
    // Larger than a record, than a read, and than what a session holds.
    let data = json!("x".repeat(60_000));
    for _ in 0..6 {
        door.publish("news", &data).await;
    }
    for offset in 1..=6 {
        let publication = socket.next_of("publication").await;
        assert_eq!(publication["offset"], offset);
        assert!(publication["data"] == data, "{offset} is not whole");
        let event = stream.event().await.data.expect("data");
        assert!(event.contains(&format!("\"offset\":{offset}")), "{offset}");
    }
    socket.close().await;
    let answer = door.get("/api/example/a?b=c").await;
    assert_eq!(answer.status, 200);
    let port = door.host().rsplit_once(':').expect("a port").1.to_owned();
    for line in [
        "GET /a?b=c HTTP/1.1".to_owned(),
        "x-forwarded-proto: https".to_owned(),
        format!("x-forwarded-port: {port}"),
    ] {
        assert!(
            answer.text.lines().any(|one| one == line),
            "{}",
            answer.text
        );
    }
}

#[tokio::test]
async fn large_bodies_pass_both_ways_unchanged() {
    let (pair, upstream) = (Pair::make(), Upstream::start().await);
    let (_node, door) = encrypted(&pair, &upstream).await;
    let body: String = (0..700_000).map(|n| format!("{n:06}")).collect();
    let answer = door.request("POST", "/api/example/echo", &[], &body).await;
    assert_eq!(answer.status, 200);
    assert!(answer.text.ends_with(&body), "{} bytes", answer.text.len());
}

#[tokio::test]
async fn many_messages_in_one_write_are_all_answered() {
    let (pair, upstream) = (Pair::make(), Upstream::start().await);
    let (_node, door) = encrypted(&pair, &upstream).await;
    let mut socket = Socket::open(&door).await;
    // More than one read brings: the session holds decrypted bytes of which the socket tells nothing.
    let messages: Vec<_> = (0..3000)
        .map(|id| json!({"type": "ping", "id": id, "pad": "x".repeat(40)}))
        .collect();
    socket.send_all(&messages).await;
    for id in 0..3000 {
        assert_eq!(socket.next_of("pong").await["id"], id);
    }
}

#[tokio::test]
async fn what_is_not_tls_is_told_so() {
    let (pair, upstream) = (Pair::make(), Upstream::start().await);
    let (node, door) = encrypted(&pair, &upstream).await;
    let answer = node.get("/healthz").await;
    assert_eq!(answer.status, 400);
    assert!(
        answer.text.contains("this port speaks TLS only"),
        "{answer:?}"
    );
    // A handshake that is none ends the connection, and nothing else.
    let nonsense = [&[22, 3, 1, 0, 5][..], b"nonsense"].concat();
    let bytes = node.exchange(&nonsense).await;
    assert!(!bytes.starts_with(b"HTTP/"), "{bytes:?}");
    assert_eq!(door.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn a_new_certificate_is_served_and_connections_live_on() {
    let (pair, upstream) = (Pair::make(), Upstream::start().await);
    let (node, door) = encrypted(&pair, &upstream).await;
    let mut socket = Socket::open(&door).await;
    let other = Pair::make();
    let with_other = client_side(node.address(), &other).await;
    let is_served = async || is_answered(&with_other, "/healthz").await;
    assert_eq!(is_served().await, None);
    // A key alone is of no use: the old pair is served on.
    std::fs::copy(&other.key, &pair.key).expect("a copy");
    eventually("the failure is logged", async || {
        let log = node.log();
        log.contains("are no pair").then_some(())
    })
    .await;
    socket.expect_alive().await;
    pair.replace_by(&other);
    eventually("the new certificate is served", is_served).await;
    socket.expect_alive().await;
}

#[tokio::test]
async fn health_asks_the_node_of_this_machine_over_tls() {
    let (pair, upstream) = (Pair::make(), Upstream::start().await);
    let (node, _door) = encrypted(&pair, &upstream).await;
    let port = node.address().port().to_string();
    let run = |variables: &[(&str, &str)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fanfare"));
        command.env_clear().arg("health").env("NODE_ENV", "test");
        command.env("PORT", &port).envs(variables.iter().copied());
        command.output().expect("the binary starts")
    };
    let output = run(&pair.variables());
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stdout, b"{\"ok\":true}\n");
    // Another certificate is not that node's.
    let output = run(&Pair::make().variables());
    assert!(!output.status.success(), "{output:?}");
}

#[test]
fn files_that_are_of_no_use_refuse_to_start() {
    let (pair, other) = (Pair::make(), Pair::make());
    let check = |variables: &[(&str, &str)], expected: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fanfare"));
        command.env_clear().arg("check").env("NODE_ENV", "test");
        let output = command.envs(variables.iter().copied()).output();
        let output = output.expect("the binary starts");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{variables:?}");
        for part in expected {
            assert!(text.contains(part), "{part:?} is not in {text}");
        }
    };
    let (certificate, key) = (text(&pair.certificate), text(&pair.key));
    check(
        &[("TLS_CERT", certificate)],
        &["TLS_KEY", "must be set where TLS_CERT is"],
    );
    check(
        &[("TLS_KEY", key)],
        &["TLS_CERT", "must be set where TLS_KEY is"],
    );
    check(
        &[("TLS_CERT", "/nowhere"), ("TLS_KEY", key)],
        &["/nowhere cannot be read"],
    );
    check(
        &[("TLS_CERT", key), ("TLS_KEY", key)],
        &["holds no certificate"],
    );
    check(
        &[("TLS_CERT", certificate), ("TLS_KEY", certificate)],
        &["holds no private key"],
    );
    check(
        &[("TLS_CERT", certificate), ("TLS_KEY", text(&other.key))],
        &["are no pair"],
    );
    check(
        &[("UPSTREAM_CA", key)],
        &["UPSTREAM_CA", "holds no certificate"],
    );
}

/// A node whose service `example` is this upstream behind TLS, believed through the certificate of `trusted`.
async fn before_encrypted(upstream: &Upstream, pair: &Pair, trusted: &Pair) -> Hub {
    let url = server_side(upstream.host(), pair).await;
    let services = json!({ "example": [format!("{url}/base")] }).to_string();
    hub(&[
        ("UPSTREAMS", &*services),
        ("UPSTREAM_CA", text(&trusted.certificate)),
        ("RATE_LIMIT_MAX", "0"),
    ])
    .await
}

#[tokio::test]
async fn https_upstreams_are_asked_over_tls_on_connections_that_are_kept() {
    let (pair, upstream) = (Pair::make(), Upstream::start().await);
    let node = before_encrypted(&upstream, &pair, &pair).await;
    let body = "x".repeat(3_000_000);
    for _ in 0..3 {
        let answer = node.request("POST", "/api/example/echo", &[], &body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(
            answer
                .text
                .starts_with("POST /base/echo HTTP/1.1\r\nhost: localhost:")
        );
        assert!(answer.text.ends_with(&body), "{} bytes", answer.text.len());
    }
    let connections = upstream.connections();
    assert!(
        connections <= 2,
        "{connections} connections: one for each worker"
    );
    let trailers = node.get("/api/example/trailers").await;
    assert_eq!(trailers.status, 200);
}

#[tokio::test]
async fn an_upstream_that_nobody_vouches_for_gets_nothing() {
    let (pair, other, upstream) = (Pair::make(), Pair::make(), Upstream::start().await);
    let node = before_encrypted(&upstream, &pair, &other).await;
    let answer = node.get("/api/example/secret").await;
    answer.expect_error(502, "upstream_unavailable");
    assert_eq!(upstream.requests(), 0);
    // Nor is one that does not speak TLS asked in clear instead.
    let services = json!({ "example": [upstream.url().replace("http:", "https:")] }).to_string();
    let certificate = text(&pair.certificate);
    let node = hub(&[("UPSTREAMS", &*services), ("UPSTREAM_CA", certificate)]).await;
    let answer: Answer = node.get("/api/example/secret").await;
    assert!(answer.status == 502 || answer.status == 504, "{answer:?}");
    assert_eq!(upstream.requests(), 0);
}
