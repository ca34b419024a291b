//! WebSockets to upstreams, with both ends as bytes.

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::support::hub::SECRET;
use crate::support::raw::{self, BINARY, CLOSE, FIN, PING, PONG, Raw, TEXT};
use crate::support::token::token_of;
use crate::support::{Hub, eventually, hub, hub_with, within};

/// An upstream that accepts handshakes and hands the sockets to the test.
pub(crate) struct Sockets {
    pub(crate) url: String,
    accepted: mpsc::UnboundedReceiver<(String, TcpStream)>,
}

impl Sockets {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let (hand, accepted) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let head = raw::read_head(&mut socket).await;
                let answer = answer(&head);
                if socket.write_all(answer.as_bytes()).await.is_ok() {
                    // A test that has ended takes no more.
                    let _ = hand.send((head, socket));
                }
            }
        });
        Self { url, accepted }
    }

    /// Address and port.
    pub(crate) fn host(&self) -> String {
        self.url.replace("http://", "")
    }

    /// The next one's request and socket.
    pub(crate) async fn next(&mut self) -> (String, Raw) {
        let accepted = within("a handshake", self.accepted.recv()).await;
        let (head, stream) = accepted.expect("the listener lives");
        (head, Raw { stream })
    }
}

fn answer(head: &str) -> String {
    let field = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(": "));
        lines
            .find(|(one, _)| one.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    };
    let path = head.split(' ').nth(1).unwrap_or_default();
    if path == "/refuse" {
        return "HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno".to_owned();
    }
    let accept = match path {
        "/bad-accept" => "x".to_owned(),
        _ => derive_accept_key(field("sec-websocket-key").unwrap_or_default().as_bytes()),
    };
    let offered = field("sec-websocket-protocol").and_then(|list| list.split(", ").next());
    let protocol = offered.map_or(String::new(), |name| {
        format!("Sec-WebSocket-Protocol: {name}\r\n")
    });
    let eager = if path == "/eager" {
        "\u{2}\u{5}eager"
    } else {
        ""
    };
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\
         {protocol}\r\n{eager}"
    )
}

pub(crate) async fn node(sockets: &Sockets, variables: &[(&str, &str)]) -> Hub {
    let services = serde_json::json!({ "example": [sockets.url] }).to_string();
    let mut all = vec![
        ("UPSTREAMS", &*services),
        ("RATE_LIMIT_MAX", "0"),
        ("LOG_LEVEL", "debug"),
    ];
    all.extend(variables);
    hub(&all).await
}

/// A bridged pair: client, upstream.
async fn pair(node: &Hub, sockets: &mut Sockets) -> (Raw, Raw) {
    let client = Raw::open(node, "/ws/example?path=/p").await;
    let (_, upstream) = sockets.next().await;
    (client, upstream)
}

/// So many bytes.
async fn read(raw: &mut Raw, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    within("bytes", raw.stream.read_exact(&mut bytes))
        .await
        .expect("all of them");
    bytes
}

/// A masked frame with its mask taken off: what a server reads.
pub(crate) async fn next_masked(raw: &mut Raw) -> (u8, Vec<u8>) {
    let head = read(raw, 2).await;
    assert_eq!(head[1] & 0x80, 0x80, "a client masks everything");
    let mask = read(raw, 4).await;
    let payload = read(raw, usize::from(head[1] & 0x7f)).await;
    let plain = payload
        .iter()
        .zip(mask.iter().cycle())
        .map(|(byte, mask)| byte ^ mask);
    (head[0], plain.collect())
}

async fn ends(raw: &mut Raw) {
    let rest = within("the end", raw.stream.read(&mut [0; 16])).await;
    assert!(
        matches!(rest, Ok(0) | Err(_)),
        "{rest:?} instead of the end"
    );
}

#[tokio::test]
async fn everything_passes_as_it_came() {
    let mut sockets = Sockets::start().await;
    let node = node(&sockets, &[]).await;
    let (mut client, mut upstream) = pair(&node, &mut sockets).await;
    // Fragments, a ping between them, a reserved bit of an extension, an opcode that nobody knows.
    let up = [
        raw::frame(TEXT, b"one "),
        raw::frame(FIN | PING, b"now"),
        raw::frame(FIN, b"message"),
        raw::frame(FIN | 0x40 | BINARY, &[7; 300]),
        raw::frame(FIN | 0x3, b"?"),
        raw::frame(FIN | BINARY, &vec![9; 1 << 20]),
    ]
    .concat();
    let (sent, received) =
        tokio::join!(client.stream.write_all(&up), read(&mut upstream, up.len()));
    sent.expect("sent");
    assert!(received == up);
    let down = [
        [raw::header(FIN | 0x40 | TEXT, 0, 200), vec![1; 200]].concat(),
        [raw::header(FIN | PONG, 0, 0)].concat(),
        [raw::header(FIN | BINARY, 0, 1 << 20), vec![2; 1 << 20]].concat(),
    ]
    .concat();
    let (sent, received) = tokio::join!(
        upstream.stream.write_all(&down),
        read(&mut client, down.len())
    );
    sent.expect("sent");
    assert!(received == down);
}

#[tokio::test]
async fn the_handshake_is_the_upstreams_own() {
    let mut sockets = Sockets::start().await;
    let node = node(&sockets, &[]).await;
    let mut stream = TcpStream::connect(node.address()).await.expect("the node");
    let extra = "Sec-WebSocket-Protocol: chat, other\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\
                 Origin: http://page\r\nCookie: a=b\r\nX-User-Id: mallory\r\n";
    let request = raw::handshake(&node, "/ws/example?path=%2Fa%3Fb=1&token=x");
    let request = request.replacen("\r\n\r\n", &format!("\r\n{extra}\r\n"), 1);
    // What the client sends before its 101 waits for it.
    let early = raw::text("early");
    stream
        .write_all(&[request.as_bytes(), &early].concat())
        .await
        .expect("sent");
    let (head, mut upstream) = sockets.next().await;
    assert!(head.starts_with("GET /a?b=1 HTTP/1.1\r\n"), "{head}");
    for line in [
        "sec-websocket-protocol: chat, other",
        "sec-websocket-extensions: permessage-deflate",
        "sec-websocket-version: 13",
        "origin: http://page",
        "cookie: a=b",
        "upgrade: websocket",
        "connection: upgrade",
        "x-forwarded-for: 127.0.0.1",
    ] {
        assert_eq!(
            head.to_ascii_lowercase()
                .matches(&format!("{line}\r\n"))
                .count(),
            1,
            "{line}: {head}"
        );
    }
    assert!(!head.contains("mallory"), "{head}");
    let answer = raw::read_head(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    assert!(
        answer.contains("Sec-WebSocket-Protocol: chat\r\n"),
        "{answer}"
    );
    assert!(answer.contains("x-request-id: "), "{answer}");
    assert_eq!(read(&mut upstream, early.len()).await, early);
}

#[tokio::test]
async fn frames_that_come_with_the_upstreams_101_arrive() {
    let sockets = Sockets::start().await;
    let node = node(&sockets, &[]).await;
    let mut client = Raw::open(&node, "/ws/example?path=/eager").await;
    assert_eq!(read(&mut client, 7).await, b"\x02\x05eager");
}

#[tokio::test]
async fn who_is_refused_gets_a_plain_answer() {
    let sockets = Sockets::start().await;
    let node = node(&sockets, &[("ALLOW_ORIGINS", "http://good")]).await;
    let ask = async |path: &str, extra: &str| {
        let request =
            raw::handshake(&node, path).replacen("\r\n\r\n", &format!("\r\n{extra}\r\n"), 1);
        let request = request.replace("connection: upgrade", "connection: upgrade, close");
        let answer = node.exchange(request.as_bytes()).await;
        String::from_utf8_lossy(&answer).into_owned()
    };
    for (path, extra, status, words) in [
        ("/ws/example?path=/refuse", "", "403", "\r\n\r\nno"),
        (
            "/ws/example?path=/bad-accept",
            "",
            "502",
            "upstream_unavailable",
        ),
        ("/ws/nobody", "", "404", "unknown_service"),
        (
            "/ws/example/x",
            "",
            "404",
            "Route GET:/ws/example/x not found",
        ),
        ("/ws/example?path=//../..", "", "400", "FST_ERR_BAD_URL"),
        ("/ws/example?path=http://x", "", "400", "FST_ERR_BAD_URL"),
        ("/ws/example", "Origin: http://evil\r\n", "403", "origin"),
    ] {
        let answer = ask(path, extra).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{path}: {answer}"
        );
        assert!(answer.contains(words), "{path}: {answer}");
    }
    let plain = node.get("/ws/example").await;
    assert_eq!(plain.status, 426);
    assert_eq!(plain.header("sec-websocket-version"), Some("13"));
    assert_eq!(
        node.request("POST", "/ws/example", &[], "").await.status,
        404
    );
}

#[tokio::test]
async fn tokens_are_demanded_in_any_of_their_places_and_stay_here() {
    let mut sockets = Sockets::start().await;
    let node = node(
        &sockets,
        &[("AUTH_REQUIRED", "true"), ("JWT_SECRET", SECRET)],
    )
    .await;
    let request = raw::handshake(&node, "/ws/example")
        .replace("connection: upgrade", "connection: upgrade, close");
    let refused = node.exchange(request.as_bytes()).await;
    assert!(refused.starts_with(b"HTTP/1.1 401 "));
    let token = token_of("alice");
    for (path, extra) in [
        (format!("/ws/example?token={token}"), String::new()),
        (
            "/ws/example".to_owned(),
            format!("sec-websocket-protocol: chat, bearer.{token}\r\n"),
        ),
    ] {
        let mut stream = TcpStream::connect(node.address()).await.expect("the node");
        let request =
            raw::handshake(&node, &path).replacen("\r\n\r\n", &format!("\r\n{extra}\r\n"), 1);
        stream.write_all(request.as_bytes()).await.expect("sent");
        let (head, _upstream) = sockets.next().await;
        assert!(head.contains("x-user-id: alice\r\n"), "{head}");
        assert!(!head.contains(&token), "{head}");
        let answer = raw::read_head(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    }
}

#[tokio::test]
async fn a_close_is_the_other_ends_own() {
    let mut sockets = Sockets::start().await;
    let node = node(&sockets, &[]).await;
    let (mut client, mut upstream) = pair(&node, &mut sockets).await;
    let close = [&[FIN | CLOSE, 5, 0x0f, 0xa1][..], b"bye"].concat();
    upstream.send(&close).await;
    let (_, payload) = client.next().await.expect("a close frame");
    assert_eq!(payload, close[2..]);
    client.send(&raw::frame(FIN | CLOSE, &payload)).await;
    assert_eq!(next_masked(&mut upstream).await, (FIN | CLOSE, payload));
    drop(upstream);
    ends(&mut client).await;

    let (mut client, mut upstream) = pair(&node, &mut sockets).await;
    client.send(&raw::frame(FIN | CLOSE, b"\x0f\xa2")).await;
    assert_eq!(
        next_masked(&mut upstream).await,
        (FIN | CLOSE, b"\x0f\xa2".to_vec())
    );
}

#[tokio::test]
async fn an_end_that_goes_without_a_close_is_told_to_the_other() {
    let mut sockets = Sockets::start().await;
    let node = node(&sockets, &[]).await;
    let (mut client, upstream) = pair(&node, &mut sockets).await;
    drop(upstream);
    let (head, payload) = client.next().await.expect("a close frame");
    assert_eq!(
        (head, &*payload),
        (FIN | CLOSE, &b"\x03\xf3upstream_error"[..])
    );
    ends(&mut client).await;

    let (client, mut upstream) = pair(&node, &mut sockets).await;
    drop(client);
    let close = next_masked(&mut upstream).await;
    assert_eq!(close, (FIN | CLOSE, b"\x03\xe9client_closed".to_vec()));
    ends(&mut upstream).await;
}

const TOO_BIG: &[u8] = b"\x03\xf1message too big";

/// A node whose messages have at most 125 bytes.
async fn bounded(sockets: &Sockets) -> Hub {
    let url = &sockets.url;
    let file = format!("[services.example]\nupstreams = [{url:?}]\nmessage_bytes_max = 125\n");
    hub_with(&file, &[("RATE_LIMIT_MAX", "0")]).await
}

#[tokio::test]
async fn a_message_of_a_clients_that_is_too_big_closes_both_ends_and_does_not_pass() {
    let mut sockets = Sockets::start().await;
    let node = bounded(&sockets).await;
    let (mut client, mut upstream) = pair(&node, &mut sockets).await;
    let whole = [b'x'; 125];
    client.send(&raw::frame(FIN | TEXT, &whole)).await;
    assert_eq!(
        next_masked(&mut upstream).await,
        (FIN | TEXT, whole.to_vec())
    );
    // In two frames with a ping between, the second of which is one byte too many, behind a message that still passes.
    let pieces = [
        raw::frame(FIN | BINARY, b"passes"),
        raw::frame(TEXT, &whole),
        raw::frame(FIN | PING, b"p"),
        raw::frame(FIN, b"y"),
        raw::text("lost"),
    ];
    client.send(&pieces.concat()).await;
    for (head, payload) in [
        (FIN | BINARY, &b"passes"[..]),
        (TEXT, &whole),
        (FIN | PING, b"p"),
        (FIN | CLOSE, TOO_BIG),
    ] {
        assert_eq!(next_masked(&mut upstream).await, (head, payload.to_vec()));
    }
    let (head, payload) = client.next().await.expect("a close frame");
    assert_eq!((head, &*payload), (FIN | CLOSE, TOO_BIG));
    client.send(&raw::frame(FIN | CLOSE, &payload)).await;
    upstream.send(&[FIN | CLOSE, 0]).await;
    ends(&mut upstream).await;
    ends(&mut client).await;
}

/// Pings are sent and answered meanwhile.
#[tokio::test]
async fn a_socket_on_which_nobody_says_anything_is_closed_where_the_service_says_so() {
    let mut sockets = Sockets::start().await;
    let url = &sockets.url;
    let file = format!("[services.example]\nupstreams = [{url:?}]\nidle_timeout = \"2s\"\n");
    let node = hub_with(&file, &[("WS_PING_INTERVAL_MS", "100")]).await;
    let (mut client, mut upstream) = pair(&node, &mut sockets).await;
    let (mut pings, mut said) = (0, 0);
    let close = within("a close", async {
        loop {
            let (head, payload) = client.next().await.expect("a frame");
            match head {
                head if head == FIN | CLOSE => break payload,
                head if head == FIN | PING => {
                    pings += 1;
                    client.send(&raw::frame(FIN | PONG, &payload)).await;
                    // As long as there are messages it stays, whoever sends them.
                    if pings < 10 {
                        upstream.send(&[FIN | TEXT, 1, b'x']).await;
                    }
                }
                _ => said += 1,
            }
        }
    })
    .await;
    assert_eq!(close, b"\x0f\xa4inactive");
    assert!(said == 9 && pings > 10, "{said} {pings}");
    client.send(&raw::frame(FIN | CLOSE, &close)).await;
    // Behind the pongs.
    let close = within("a close", async {
        loop {
            let (head, payload) = next_masked(&mut upstream).await;
            if head == FIN | CLOSE {
                break payload;
            }
        }
    })
    .await;
    assert_eq!(close, b"\x03\xe9client_closed");
}

#[tokio::test]
async fn one_of_an_upstreams_does_so_too_however_its_header_comes() {
    let mut sockets = Sockets::start().await;
    let node = bounded(&sockets).await;
    let header = raw::header(FIN | BINARY, 0, 1 << 40);
    // Whole, and in two pieces, of which the first has gone to the client when the second comes: then nothing can follow.
    for pieces in [&[&header[..]][..], &[&header[..1], &header[1..]]] {
        let (mut client, mut upstream) = pair(&node, &mut sockets).await;
        for (index, piece) in pieces.iter().enumerate() {
            if index > 0 {
                assert_eq!(read(&mut client, 1).await, header[..1]);
            }
            upstream.send(piece).await;
        }
        assert_eq!(
            next_masked(&mut upstream).await,
            (FIN | CLOSE, TOO_BIG.to_vec())
        );
        upstream.send(&[FIN | CLOSE, 0]).await;
        if pieces.len() == 1 {
            let (head, payload) = client.next().await.expect("a close frame");
            assert_eq!((head, &*payload), (FIN | CLOSE, TOO_BIG));
            client.send(&raw::frame(FIN | CLOSE, &payload)).await;
        }
        ends(&mut client).await;
    }
}

#[tokio::test]
async fn an_end_in_the_middle_of_a_frame_is_no_place_for_a_close() {
    let mut sockets = Sockets::start().await;
    let node = node(&sockets, &[]).await;
    let (mut client, mut upstream) = pair(&node, &mut sockets).await;
    upstream
        .send(&[raw::header(FIN | TEXT, 0, 10), b"half".to_vec()].concat())
        .await;
    drop(upstream);
    assert_eq!(read(&mut client, 6).await, b"\x81\x0ahalf");
    ends(&mut client).await;
}

#[tokio::test]
async fn a_drain_closes_both_ends_between_two_frames() {
    let mut sockets = Sockets::start().await;
    let mut node = node(&sockets, &[("DRAIN_SECONDS", "1")]).await;
    let (mut client, mut upstream) = pair(&node, &mut sockets).await;
    // The upstream is in the middle of a frame when the drain begins.
    upstream
        .send(&[raw::header(FIN | TEXT, 0, 10), b"first".to_vec()].concat())
        .await;
    assert_eq!(read(&mut client, 7).await, b"\x81\x0afirst");
    node.terminate();
    let (head, _) = next_masked(&mut upstream).await;
    assert_eq!(head, FIN | CLOSE);
    upstream.send(b"other").await;
    assert_eq!(read(&mut client, 5).await, b"other");
    let (head, payload) = client.next().await.expect("a close frame");
    assert_eq!(
        (head, &payload[..2]),
        (FIN | CLOSE, &1012u16.to_be_bytes()[..])
    );
    client.send(&raw::frame(FIN | CLOSE, &payload)).await;
    upstream.send(&[FIN | CLOSE, 0]).await;
    assert_eq!(node.exit_code().await, Some(0));
}

#[tokio::test]
async fn a_handshake_that_a_drain_overtakes_becomes_a_socket_that_is_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let services = serde_json::json!({ "example": [url] }).to_string();
    let variables = [("UPSTREAMS", &*services), ("DRAIN_SECONDS", "1")];
    let mut node = hub(&variables).await;
    let mut client = TcpStream::connect(node.address()).await.expect("the hub");
    let request = raw::handshake(&node, "/ws/example?path=/p");
    client.write_all(request.as_bytes()).await.expect("sent");
    let (mut upstream, _) = within("the handshake", listener.accept())
        .await
        .expect("a connection");
    let head = raw::read_head(&mut upstream).await;
    node.terminate();
    eventually("the node accepts nobody any more", async || {
        TcpStream::connect(node.address())
            .await
            .is_err()
            .then_some(())
    })
    .await;
    let late = answer(&head);
    upstream.write_all(late.as_bytes()).await.expect("the node");
    let head = raw::read_head(&mut client).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let mut client = Raw { stream: client };
    assert_eq!(client.close_code().await, 1012);
    let mut upstream = Raw { stream: upstream };
    assert_eq!(next_masked(&mut upstream).await.0, FIN | CLOSE);
    upstream.send(&[FIN | CLOSE, 0]).await;
    assert_eq!(node.exit_code().await, Some(0));
}

#[tokio::test]
async fn a_client_that_answers_no_ping_is_given_up() {
    let mut sockets = Sockets::start().await;
    let pings = [
        ("WS_PING_INTERVAL_MS", "50"),
        ("WEBSOCKETS_PONG_TIMEOUT", "1"),
    ];
    let node = node(&sockets, &pings).await;
    let (mut client, mut upstream) = pair(&node, &mut sockets).await;
    // Pings come, and one that is answered goes on.
    for _ in 0..3 {
        assert_eq!(client.next().await, Some((FIN | PING, Vec::new())));
        client.send(&raw::frame(FIN | PONG, b"")).await;
        assert_eq!(next_masked(&mut upstream).await.0, FIN | PONG);
    }
    assert_eq!(client.close_code().await, 4004);
    assert_eq!(next_masked(&mut upstream).await.0, FIN | CLOSE);
}

#[tokio::test]
async fn a_client_that_reads_nothing_costs_little_and_is_closed() {
    let mut sockets = Sockets::start().await;
    let pings = [
        ("WS_PING_INTERVAL_MS", "100"),
        ("WEBSOCKETS_PONG_TIMEOUT", "1"),
    ];
    let node = node(&sockets, &pings).await;
    let before = node.resident_bytes();
    let (_client, mut upstream) = pair(&node, &mut sockets).await;
    let frame = [raw::header(FIN | BINARY, 0, 60_000), vec![7; 60_000]].concat();
    let flood = async { while upstream.stream.write_all(&frame).await.is_ok() {} };
    within("the end of the flood", flood).await;
    let grown = node.resident_bytes().saturating_sub(before);
    assert!(
        grown < 8 << 20,
        "{grown} bytes for a client that reads nothing"
    );
}

#[tokio::test]
async fn bridged_sockets_are_counted_while_they_live() {
    let mut sockets = Sockets::start().await;
    let node = node(&sockets, &[]).await;
    let (client, upstream) = pair(&node, &mut sockets).await;
    let counted = async || {
        let stats = node.get("/admin/stats").await.json();
        let metrics = node.get("/metrics").await.text;
        let is_one = metrics.contains("\ngateway_websocket_connections 1\n");
        let inflight = &stats["services"]["example"]["upstreamDetails"][0]["inflight"]["ws"];
        (inflight == &Value::from(1), is_one)
    };
    assert_eq!(counted().await, (true, true));
    drop((client, upstream));
    eventually("they are counted out", async || {
        (counted().await == (false, false)).then_some(())
    })
    .await;
}
