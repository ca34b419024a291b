//! Requests that two servers could read differently, as bytes: RFC 9110, RFC 9112, and what brought down other proxies
//! (CVE-2025-4366, CVE-2026-2833, -2835, -2836). None reaches the upstream, and nothing behind it is read as a request.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::node;
use crate::support::{Hub, within};
use crate::upstream::Upstream;

const GET: &str = "GET /api/example/ HTTP/1.1\r\nhost: a\r\n\r\n";

/// Everything that is answered until the connection ends, which it has to by itself.
async fn answers(node: &Hub, bytes: &str) -> String {
    let mut client = TcpStream::connect(node.address()).await.expect("the node");
    client.write_all(bytes.as_bytes()).await.expect("sent");
    let mut text = Vec::new();
    let read = within("the end of the connection", client.read_to_end(&mut text)).await;
    read.expect("an orderly end");
    String::from_utf8_lossy(&text).into_owned()
}

/// Request line and fields, what follows the head, and the status.
const REFUSED: &[(&str, &str, u16)] = &[
    // Framing (RFC 9112 section 6).
    (
        "POST / HTTP/1.1|host: a|content-length: 4|transfer-encoding: chunked",
        "0\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.1|host: a|transfer-encoding: chunked|content-length: 4",
        "0\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.1|host: a|content-length: 4|content-length: 5",
        "abcd",
        400,
    ),
    (
        "POST / HTTP/1.1|host: a|content-length: 4|content-length: 4",
        "abcd",
        400,
    ),
    ("POST / HTTP/1.1|host: a|content-length: 4, 4", "abcd", 400),
    ("POST / HTTP/1.1|host: a|content-length: +4", "abcd", 400),
    ("POST / HTTP/1.1|host: a|content-length: 0x4", "abcd", 400),
    ("POST / HTTP/1.1|host: a|content-length: -1", "", 400),
    ("POST / HTTP/1.1|host: a|content-length: 4 4", "abcd", 400),
    ("POST / HTTP/1.1|host: a|content-length:", "", 400),
    (
        "POST / HTTP/1.1|host: a|content-length: 18446744073709551616",
        "",
        400,
    ),
    (
        "POST / HTTP/1.1|host: a|transfer-encoding: xchunked",
        "0\r\n\r\n",
        501,
    ),
    (
        "POST / HTTP/1.1|host: a|transfer-encoding: chunked, identity",
        "0\r\n\r\n",
        501,
    ),
    (
        "POST / HTTP/1.1|host: a|transfer-encoding: identity",
        "0\r\n\r\n",
        501,
    ),
    (
        "POST / HTTP/1.1|host: a|transfer-encoding: gzip, chunked",
        "0\r\n\r\n",
        501,
    ),
    (
        "POST / HTTP/1.1|host: a|transfer-encoding: chunked|transfer-encoding: identity",
        "0\r\n\r\n",
        501,
    ),
    (
        "POST / HTTP/1.1|host: a|transfer-encoding: \"chunked\"",
        "0\r\n\r\n",
        501,
    ),
    (
        "POST / HTTP/1.1|host: a|transfer-encoding : chunked",
        "0\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.1|host: a|transfer-encoding\t: chunked",
        "0\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.1|host: a|transfer-encoding: \u{b}chunked",
        "0\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.0|host: a|transfer-encoding: chunked",
        "0\r\n\r\n",
        400,
    ),
    // Hosts (section 3.2).
    ("GET / HTTP/1.1|x: y", "", 400),
    ("GET / HTTP/1.1|host: a|host: a", "", 400),
    ("GET / HTTP/1.1|host: a|Host: b", "", 400),
    ("GET / HTTP/1.1|host: a, b", "", 400),
    ("GET / HTTP/1.1|host: a b", "", 400),
    ("GET / HTTP/1.1|host: a/b", "", 400),
    ("GET / HTTP/1.1|host: u@a", "", 400),
    ("GET / HTTP/1.1|host:", "", 400),
    ("GET http://b/ HTTP/1.1|host: a", "", 400),
    ("GET http://u@a/ HTTP/1.1|host: a", "", 400),
    // Lines, names and values (sections 2.2 and 5).
    ("GET / HTTP/1.1\nhost: a", "", 400),
    ("GET / HTTP/1.1|host: a\nx: y", "", 400),
    ("GET / HTTP/1.1|host: a|x: y\n", "", 400),
    ("GET / HTTP/1.1|host: a|x: y\rz", "", 400),
    ("GET / HTTP/1.1|host: a|x: y| z: folded", "", 400),
    ("GET / HTTP/1.1| host: a|host: a", "", 400),
    ("GET / HTTP/1.1|host: a|x y: z", "", 400),
    ("GET / HTTP/1.1|host: a|: z", "", 400),
    ("GET / HTTP/1.1|host: a|no colon", "", 400),
    ("GET / HTTP/1.1|host: a|x: \0", "", 400),
    ("GET / HTTP/1.1|host: a|x\0: y", "", 400),
    ("GET / HTTP/1.1|host: a|x: \u{7f}", "", 400),
    // Request lines (section 3).
    ("GET  / HTTP/1.1|host: a", "", 400),
    ("GET /\tHTTP/1.1|host: a", "", 400),
    ("GET / HTTP/1.1 |host: a", "", 400),
    (" GET / HTTP/1.1|host: a", "", 400),
    ("GET / http/1.1|host: a", "", 400),
    ("GET / HTTP/1.2|host: a", "", 505),
    ("GET / HTTP/2.0|host: a", "", 505),
    ("GET / HTTP/1.1x|host: a", "", 400),
    ("GET /|host: a", "", 400),
    ("GET /a b HTTP/1.1|host: a", "", 400),
    ("GET /#x HTTP/1.1|host: a", "", 400),
    ("G@T / HTTP/1.1|host: a", "", 400),
    ("CONNECT a:80 HTTP/1.1|host: a:80", "", 405),
    ("CONNECT / HTTP/1.1|host: a", "", 405),
    ("TRACE / HTTP/1.1|host: a", "", 501),
];

#[tokio::test]
async fn what_could_be_read_in_two_ways_is_read_in_none() {
    let upstream = Upstream::start().await;
    let node = node(&[&upstream], &[("HEADER_TIMEOUT_MS", "2000")]).await;
    for (head, body, status) in REFUSED {
        let head = head
            .replacen(" / ", " /api/example/ ", 1)
            .replace('|', "\r\n");
        let answer = answers(&node, &format!("{head}\r\n\r\n{body}{GET}")).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{head:?}: {answer:?}"
        );
        assert_eq!(
            answer.matches("HTTP/1.1 ").count(),
            1,
            "{head:?}: {answer:?}"
        );
    }
    assert_eq!(upstream.requests(), 0);
}

/// A body whose framing breaks has reached the upstream in part: its connection is not used again, nor the client's.
#[tokio::test]
async fn a_body_that_breaks_its_framing_takes_both_connections_along() {
    let upstream = Upstream::start().await;
    let node = node(&[&upstream], &[("WORKERS", "1")]).await;
    let post = "POST /api/example/ HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    for bad in [
        "+1\r\nx\r\n0\r\n\r\n",
        " 1\r\nx\r\n0\r\n\r\n",
        "0x1\r\nx\r\n0\r\n\r\n",
        "1\nx\r\n0\r\n\r\n",
        "1\r\nx\n0\r\n\r\n",
        "1\r\nxy\r\n0\r\n\r\n",
        "1;\nx\r\n0\r\n\r\n",
        "10000000000000001\r\nx\r\n0\r\n\r\n",
        "1\r\nx\r\n0\r\n\n",
        "1\r\nx\r\n0\r\n bad: fold\r\n\r\n",
    ] {
        let answer = answers(&node, &format!("{post}{bad}{GET}")).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{bad:?}: {answer:?}");
        assert_eq!(
            answer.matches("HTTP/1.1 ").count(),
            1,
            "{bad:?}: {answer:?}"
        );
    }
    assert_eq!(node.get("/api/example/").await.status, 200);
    assert_eq!(upstream.requests(), 1, "of the broken ones none came whole");
}

/// CVE-2025-4366: an answer that did not need the body left it on the connection, to be read as the next request.
#[tokio::test]
async fn an_early_answer_leaves_nothing_behind() {
    let upstream = Upstream::start().await;
    let node = node(&[&upstream], &[]).await;
    let body = GET.replace("/api/example/", "/api/example/smuggled");
    for path in ["/api/nobody/", "/api/example/%2f", "/api/example"] {
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{body}{GET}",
            body.len()
        );
        let answer = answers(&node, &request).await;
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{path}: {answer:?}");
    }
    assert_eq!(upstream.requests(), 0);
}

/// CVE-2026-2833: bytes behind an `Upgrade` passed through before the upstream had agreed to anything.
#[tokio::test]
async fn an_upgrade_that_is_none_is_a_request_as_any_other() {
    let upstream = Upstream::start().await;
    let node = node(&[&upstream], &[]).await;
    for upgrade in ["h2c", "anything"] {
        let request = format!(
            "GET /api/example/ HTTP/1.1\r\nhost: a\r\nconnection: upgrade, http2-settings\r\nupgrade: {upgrade}\r\n\
             http2-settings: x\r\n\r\n{}",
            GET.replace("host: a", "host: a\r\nconnection: close")
        );
        let answer = answers(&node, &request).await;
        assert_eq!(answer.matches("HTTP/1.1 200 ").count(), 2, "{answer:?}");
        assert!(!answer.contains("upgrade"), "{answer:?}");
    }
}

/// CVE-2026-2833: who takes its WebSocket to be open sends frames behind the handshake, whatever is answered to that. They
/// are no requests.
#[tokio::test]
async fn a_refused_handshake_ends_the_connection() {
    let upstream = Upstream::start().await;
    let node = node(&[&upstream], &[("ALLOW_ORIGINS", "https://good.test")]).await;
    let bad_origin = "origin: https://bad.test\r\n";
    for (path, field, status) in [
        ("/ws/nobody", "", 404),
        ("/ws/example?path=/redirect", "", 302),
        ("/ws/example?path=/range", "", 206),
        ("/ws/example?path=%2f..", "", 400),
        ("/ws/example", bad_origin, 403),
        ("/ws/example", "transfer-encoding: chunked\r\n", 426),
        ("/api/example/range", "", 206),
        ("/ws/connect", bad_origin, 403),
        ("/healthz", "", 200),
        ("/nowhere", "", 404),
    ] {
        let handshake = crate::support::raw::handshake(&node, path);
        let mut handshake = handshake.replacen("\r\n\r\n", &format!("\r\n{field}\r\n"), 1);
        if status == 426 {
            handshake.push_str("0\r\n\r\n");
        }
        let answer = answers(&node, &format!("{handshake}{GET}")).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{path}: {answer:?}"
        );
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{path}: {answer:?}");
        assert!(
            answer.contains("connection: close\r\n"),
            "{path}: {answer:?}"
        );
    }
    for path in ["/ws/example", "/ws/connect"] {
        let handshake =
            crate::support::raw::handshake(&node, path).replace("version: 13", "version: 8");
        let answer = answers(&node, &format!("{handshake}{GET}")).await;
        assert!(answer.starts_with("HTTP/1.1 426 "), "{path}: {answer:?}");
        let lower = answer.to_ascii_lowercase();
        assert!(lower.contains("connection: upgrade"), "{path}: {answer:?}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{path}: {answer:?}");
    }
}

#[tokio::test]
async fn requests_in_one_piece_are_answered_one_by_one() {
    let upstream = Upstream::start().await;
    let node = node(&[&upstream], &[]).await;
    let post = "POST /api/example/p HTTP/1.1\r\nhost: a\r\n";
    let requests = format!(
        "{GET}\r\n{post}content-length: 2\r\n\r\nxyGET /healthz HTTP/1.1\r\nhost: a\r\n\r\n\
         {post}transfer-encoding: chunked\r\n\r\n2\r\nzz\r\n0\r\n\r\nGET /readyz HTTP/1.1\r\nhost: a\r\n\r\n\
         GET http://a/api/example/absolute HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
    );
    let answer = answers(&node, &requests).await;
    assert_eq!(answer.matches("HTTP/1.1 200 ").count(), 6, "{answer}");
    let mut rest = &*answer;
    for part in [
        "GET / HTTP",
        "POST /p HTTP",
        "\r\n\r\nxy",
        "\"ok\":true",
        "\r\nzz\r\n",
        "upstreamServices",
        "GET /absolute HTTP",
    ] {
        let at = rest
            .find(part)
            .unwrap_or_else(|| panic!("{part:?} is missing in {rest:?}"));
        rest = &rest[at + part.len()..];
    }
}

#[tokio::test]
async fn clients_of_http_1_0_are_served_as_they_can_read() {
    let upstream = Upstream::start().await;
    let node = node(&[&upstream], &[]).await;
    let answer = answers(&node, "GET /api/example/trailers HTTP/1.0\r\n\r\n").await;
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\nok"),
        "{answer:?}"
    );
    assert!(!answer.contains("chunked"), "{answer:?}");
}

#[tokio::test]
async fn an_upstream_that_ends_its_body_with_its_connection_is_framed_anew() {
    let upstream = Upstream::start().await;
    let node = node(&[&upstream], &[]).await;
    for _ in 0..2 {
        let request = GET
            .replace("/ HTTP", "/until-close HTTP")
            .replace("host: a", "host: a\r\nconnection: close");
        let answer = answers(&node, &request).await;
        assert!(
            answer.ends_with("\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
            "{answer:?}"
        );
    }
}

#[tokio::test]
async fn interim_answers_pass() {
    let upstream = Upstream::start().await;
    let node = node(&[&upstream], &[]).await;
    let request = GET
        .replace("/ HTTP", "/hints HTTP")
        .replace("host: a", "host: a\r\nconnection: close");
    let answer = answers(&node, &request).await;
    assert!(
        answer.starts_with("HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 200 OK\r\n"),
        "{answer:?}"
    );
    // A client waits for its 100; an upstream's own is passed on.
    let mut client = TcpStream::connect(node.address()).await.expect("the node");
    let head = "POST /api/example/continue HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n";
    client.write_all(head.as_bytes()).await.expect("sent");
    let interim = crate::support::raw::read_head(&mut client).await;
    assert!(interim.starts_with("HTTP/1.1 100 "), "{interim}");
    client.write_all(b"ok").await.expect("sent");
    let head = crate::support::raw::read_head(&mut client).await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
}
