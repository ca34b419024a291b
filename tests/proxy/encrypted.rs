//! TLS before the node and behind it.

use std::process::Command;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::shims::{Pair, client_side, rude_side, server_side, text};
use crate::support::http::Answer;
use crate::support::raw::{self, BINARY, FIN, Raw};
use crate::support::sse::EventStream;
use crate::support::ws::{Socket, handshake};
use crate::support::{Hub, eventually, hub, hub_with, within};
use crate::ticker::Ticker;
use crate::upstream::Upstream;
use crate::websocket::Sockets;

/// Whether this path is answered 200; a connection that is refused answers nothing.
async fn is_answered(door: &Hub, path: &str) -> Option<()> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    let bytes = door.exchange(request.as_bytes()).await;
    bytes.starts_with(b"HTTP/1.1 200 ").then_some(())
}

/// A node that speaks TLS, with this upstream, and a plain way to it.
pub(crate) async fn encrypted(pair: &Pair, upstream: &Upstream) -> (Hub, Hub) {
    let services = json!({ "example": [upstream.url()] }).to_string();
    let mut variables = vec![
        ("UPSTREAMS", &*services),
        ("RATE_LIMIT_MAX", "0"),
        ("LOAD_BALANCING", "sticky"),
        ("FORWARDED", "true"),
    ];
    variables.extend(pair.variables());
    let node = Hub::start("", &variables);
    let door = client_side(node.address(), pair).await;
    eventually("the node is ready", async || {
        is_answered(&door, "/readyz").await
    })
    .await;
    (node, door)
}

/// Those who do not even begin to encrypt have no right to the few places behind `MAX_CONNECTIONS`.
#[tokio::test]
async fn a_full_node_says_how_it_is_whoever_stays_silent() {
    let pair = Pair::make();
    let limits = [("MAX_CONNECTIONS", "2"), ("MAX_HANDSHAKES", "2")];
    let mut variables = vec![("WORKERS", "1")];
    variables.extend(limits);
    variables.extend(pair.variables());
    let node = Hub::start("", &variables);
    let door = client_side(node.address(), &pair).await;
    eventually("the node is ready", async || {
        is_answered(&door, "/readyz").await
    })
    .await;
    let mut sockets = Vec::new();
    eventually("it is full", async || {
        if let Ok((socket, _)) = handshake(&door, "/ws/connect", &[]).await {
            sockets.push(socket);
        }
        (sockets.len() == 2).then_some(())
    })
    .await;
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(TcpStream::connect(node.address()).await.expect("a socket"));
    }
    for _ in 0..3 {
        assert_eq!(is_answered(&door, "/healthz").await, Some(()));
    }
    let mut rest = Vec::new();
    let read = silent[0].read_to_end(&mut rest);
    assert_eq!(within("the first is ended", read).await.ok(), Some(0));
    drop((silent, sockets));
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
        format!(
            "forwarded: for=127.0.0.1;host=\"{}\";proto=https",
            door.host()
        ),
    ] {
        assert!(
            answer.text.lines().any(|one| one == line),
            "{}",
            answer.text
        );
    }
    let cookie = answer.header("set-cookie").expect("a sticky cookie");
    assert!(cookie.ends_with("; Secure"), "{cookie}");
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

#[tokio::test]
async fn the_commands_publish_and_follow_over_tls() {
    let (pair, upstream) = (Pair::make(), Upstream::start().await);
    let (node, door) = encrypted(&pair, &upstream).await;
    let url = format!("https://localhost:{}", node.address().port());
    let run = |arguments: &[&str], pair: &Pair| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fanfare"));
        command.env_clear().env("NODE_ENV", "test").args(arguments);
        command.args(["--url", &url, "--ca", text(&pair.certificate)]);
        let run = tokio::task::spawn_blocking(move || command.output());
        async { run.await.expect("it ends").expect("the binary starts") }
    };
    let follows = run(&["sub", "news", "--count", "1", "--once"], &pair);
    let publishes = async {
        eventually("it follows", async || {
            let channels = door.get("/hub/channels").await;
            channels.text.contains("news").then_some(())
        })
        .await;
        run(&["pub", "news", "{\"n\": 1}"], &pair).await
    };
    let (followed, published) = tokio::join!(follows, publishes);
    assert!(published.status.success(), "{published:?}");
    assert!(followed.status.success(), "{followed:?}");
    let line = String::from_utf8_lossy(&followed.stdout).into_owned();
    assert_eq!(line, "news 1 {\"n\":1}\n");
    let healthy = run(&["health"], &pair).await;
    assert_eq!(healthy.stdout, b"{\"ok\":true}\n", "{healthy:?}");
    // Whom nobody vouches for is told nothing.
    let other = Pair::make();
    for arguments in [&["pub", "news", "1"][..], &["sub", "news", "--once"]] {
        let refused = run(arguments, &other).await;
        assert!(!refused.status.success(), "{refused:?}");
        let why = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(
            why.contains("cannot reach") && why.contains("certificate"),
            "{why}"
        );
    }
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
    let stats = node.get("/admin/stats").await.text;
    let cause = "\"no connection: invalid peer certificate: ";
    assert!(stats.contains(cause), "{stats}");
    // Nor is one that does not speak TLS asked in clear instead.
    let services = json!({ "example": [upstream.url().replace("http:", "https:")] }).to_string();
    let certificate = text(&pair.certificate);
    let node = hub(&[("UPSTREAMS", &*services), ("UPSTREAM_CA", certificate)]).await;
    let answer: Answer = node.get("/api/example/secret").await;
    assert!(answer.status == 502 || answer.status == 504, "{answer:?}");
    assert_eq!(upstream.requests(), 0);
}

/// RFC 9112 section 9.8: without a farewell anybody may have cut it off.
#[tokio::test]
async fn an_answer_that_the_connection_ends_is_whole_only_when_the_upstream_says_so() {
    let (pair, upstream) = (Pair::make(), Upstream::start().await);
    let polite = server_side(upstream.host(), &pair).await;
    let rude = rude_side("HTTP/1.1 200 OK\r\n\r\nabc", &pair).await;
    let request = b"GET /api/example/until-close HTTP/1.1\r\nhost: a\r\n\r\n";
    for (url, is_whole) in [(polite, true), (rude, false)] {
        let services = json!({ "example": [url] }).to_string();
        let trust = ("UPSTREAM_CA", text(&pair.certificate));
        let node = hub(&[("UPSTREAMS", &*services), trust]).await;
        let mut client = TcpStream::connect(node.address()).await.expect("the node");
        client.write_all(request).await.expect("sent");
        let mut text = String::new();
        within("an answer", async {
            while !text.contains("abc\r\n0\r\n\r\n") {
                match client.read_u8().await {
                    Ok(byte) => text.push(char::from(byte)),
                    Err(_) => break,
                }
            }
        })
        .await;
        assert!(text.contains("abc\r\n"), "{text}");
        assert_eq!(text.ends_with("\r\n0\r\n\r\n"), is_whole, "{text}");
    }
}

#[tokio::test]
async fn health_checks_websockets_and_shared_streams_reach_upstreams_over_tls() {
    let (pair, mut sockets) = (Pair::make(), Sockets::start().await);
    let (upstream, ticker) = (Upstream::start().await, Ticker::start().await);
    let mut file = String::new();
    for (name, host, rest) in [
        ("sockets", sockets.host(), ""),
        ("ticks", ticker.host(), "share = \"all\""),
        (
            "checked",
            upstream.host(),
            "health = { path = \"/up\", interval = \"50ms\", timeout = \"1s\", healthy = 1, unhealthy = 1 }",
        ),
    ] {
        let url = server_side(host, &pair).await;
        file += &format!("[services.{name}]\nupstreams = [{url:?}]\n{rest}\n");
    }
    let certificate = text(&pair.certificate);
    let variables = [("UPSTREAM_CA", certificate), ("RATE_LIMIT_MAX", "0")];
    let node = hub_with(&file, &variables).await;

    let mut client = Raw::open(&node, "/ws/sockets?path=/p").await;
    let (head, mut far) = sockets.next().await;
    assert!(head.starts_with("GET /p HTTP/1.1\r\n"), "{head}");
    // More than a record holds, both ways.
    let payload = vec![b'x'; 40_000];
    let up = raw::frame(FIN | BINARY, &payload);
    let mut received = vec![0; up.len()];
    let reading = within("a frame", far.stream.read_exact(&mut received));
    let ((), read) = tokio::join!(client.send(&up), reading);
    read.expect("all of it");
    assert!(received == up, "it came otherwise");
    let head = raw::header(FIN | BINARY, 0, payload.len() as u64);
    far.send(&[head, payload.clone()].concat()).await;
    let (_, received) = client.next().await.expect("a frame");
    assert!(received == payload, "{} bytes came", received.len());

    let mut stream = EventStream::open_at(&node, "/sse/ticks/a", &[]).await;
    assert_eq!(stream.event().await.data.as_deref(), Some("hello"));

    let healthy = async |count: u64| {
        eventually("health checks find it out", async || {
            let stats = node.get("/admin/stats").await.json();
            (stats["services"]["checked"]["healthy"] == count).then_some(())
        })
        .await;
    };
    eventually("it is looked at", async || {
        (upstream.requests() > 0).then_some(())
    })
    .await;
    healthy(1).await;
    upstream.set_ill(true);
    healthy(0).await;
    upstream.set_ill(false);
    healthy(1).await;
}
