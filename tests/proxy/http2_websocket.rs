//! WebSockets over HTTP/2 (RFC 8441): the hub's own, and those of upstreams.

use futures_util::{SinkExt as _, StreamExt as _};
use h2::Reason;
use h2::client::Builder;
use h2::ext::Protocol;
use http::{Method, Request};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::http2::{Answer, Session, finish, next};
use crate::support::raw::{self, BINARY, CLOSE, FIN, TEXT};
use crate::support::{Hub, eventually, hub, within};
use crate::upstream::Upstream;
use crate::websocket::{self, Sockets};

type Socket = WebSocketStream<DuplexStream>;

fn connect(path: &str, protocol: &'static str, fields: &[(&str, &str)]) -> Request<()> {
    let uri = format!("http://node.test{path}");
    let mut request = Request::builder()
        .method(Method::CONNECT)
        .uri(uri)
        .extension(Protocol::from_static(protocol));
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).expect("a request")
}

const VERSION: (&str, &str) = ("sec-websocket-version", "13");

/// A session that knows that the node takes `:protocol`.
async fn session(node: &Hub) -> Session {
    let session = Session::open_with(node, &Builder::new()).await;
    assert_eq!(session.get("/healthz").await.status, 200);
    assert!(session.send.is_extended_connect_protocol_enabled());
    session
}

/// Opens a WebSocket; the subprotocol that was chosen.
async fn open(session: &Session, path: &str, fields: &[(&str, &str)]) -> (Socket, Option<String>) {
    let request = connect(path, "websocket", fields);
    let (response, mut up) = session.send_request(request, false).await;
    let response = within("an answer", response).await.expect("an answer");
    assert_eq!(response.status(), 200);
    for name in ["connection", "upgrade", "sec-websocket-accept"] {
        assert!(!response.headers().contains_key(name), "{name}");
    }
    let chosen = response.headers().get("sec-websocket-protocol");
    let chosen = chosen.map(|name| name.to_str().expect("text").to_owned());
    let mut down = response.into_body();
    let (near, far) = duplex(1 << 20);
    let (mut read, mut write) = tokio::io::split(far);
    tokio::spawn(async move {
        while let Ok(Some(bytes)) = next(&mut down).await {
            write.write_all(&bytes).await.ok()?;
        }
        write.shutdown().await.ok()
    });
    tokio::spawn(async move {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            // The tests' messages stay within the window.
            let count = read.read(&mut buffer).await.ok()?;
            let bytes = bytes::Bytes::copy_from_slice(&buffer[..count]);
            up.send_data(bytes, count == 0).ok()?;
            if count == 0 {
                return Some(());
            }
        }
    });
    let socket = WebSocketStream::from_raw_socket(near, Role::Client, None).await;
    (socket, chosen)
}

async fn message(socket: &mut Socket) -> Message {
    let message = within("a message", socket.next()).await;
    message.expect("no end").expect("a frame")
}

async fn next_json(socket: &mut Socket) -> Value {
    loop {
        if let Message::Text(text) = message(socket).await {
            return serde_json::from_str(&text).expect("JSON");
        }
    }
}

async fn refused(session: &Session, request: Request<()>) -> Answer {
    let (response, _up) = session.send_request(request, false).await;
    finish(response).await.expect("an answer")
}

#[tokio::test]
async fn a_client_subscribes_and_publishes_over_a_stream() {
    let node = hub(&[]).await;
    let session = session(&node).await;
    let offered = ("sec-websocket-protocol", "fanfare.json");
    let (mut socket, chosen) = open(&session, "/ws/connect", &[VERSION, offered]).await;
    assert_eq!(chosen.as_deref(), Some("fanfare.json"));
    assert_eq!(next_json(&mut socket).await["type"], "connected");
    let (mut other, _) = open(&session, "/ws/connect", &[VERSION]).await;
    assert_eq!(next_json(&mut other).await["type"], "connected");
    let subscribe = json!({"type": "subscribe", "channel": "news"}).to_string();
    socket.send(Message::text(subscribe)).await.expect("sent");
    assert_eq!(next_json(&mut socket).await["type"], "subscribed");
    // Within the window that a client's library has from the beginning, and beyond what a pair of sockets holds.
    for n in 0..40 {
        let data = json!({"n": n, "text": "x".repeat(20_000)});
        node.publish("news", &data).await;
        assert_eq!(next_json(&mut socket).await["data"]["n"], n);
    }
    let publish =
        json!({"type": "publish", "channel": "news", "data": "from a socket"}).to_string();
    other.send(Message::text(publish)).await.expect("sent");
    assert_eq!(next_json(&mut other).await["type"], "published");
    assert_eq!(next_json(&mut socket).await["data"], "from a socket");
    socket.close(None).await.expect("sent");
    assert!(matches!(message(&mut socket).await, Message::Close(_)));
    assert!(
        within("the end", socket.next())
            .await
            .is_none_or(|end| end.is_err())
    );
    assert_eq!(session.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn an_upstreams_socket_passes_both_ways() {
    let mut sockets = Sockets::start().await;
    let node = websocket::node(&sockets, &[]).await;
    let session = session(&node).await;
    let fields = [
        VERSION,
        ("sec-websocket-protocol", "chat"),
        ("origin", "http://node.test"),
    ];
    let (mut client, chosen) = open(&session, "/ws/example?path=/p", &fields).await;
    assert_eq!(chosen.as_deref(), Some("chat"));
    let (head, mut upstream) = sockets.next().await;
    assert!(head.starts_with("GET /p HTTP/1.1\r\n"), "{head}");
    client.send(Message::text("to you")).await.expect("sent");
    let received = websocket::next_masked(&mut upstream).await;
    assert_eq!(received, (FIN | TEXT, b"to you".to_vec()));
    let back = [raw::header(FIN | BINARY, 0, 4), b"back".to_vec()].concat();
    upstream.send(&back).await;
    assert_eq!(message(&mut client).await, Message::binary(&b"back"[..]));
    let close = [raw::header(FIN | CLOSE, 0, 3), vec![0x0f, 0xa1, b'x']].concat();
    upstream.send(&close).await;
    let Message::Close(Some(frame)) = message(&mut client).await else {
        panic!("no close");
    };
    assert_eq!((u16::from(frame.code), &*frame.reason), (4001, "x"));
}

#[tokio::test]
async fn a_client_that_resets_its_stream_has_left() {
    let mut sockets = Sockets::start().await;
    let node = websocket::node(&sockets, &[]).await;
    let session = session(&node).await;
    let request = connect("/ws/example", "websocket", &[VERSION]);
    let (response, mut up) = session.send_request(request, false).await;
    let response = within("an answer", response).await.expect("an answer");
    assert_eq!(response.status(), 200);
    let (_, mut upstream) = sockets.next().await;
    up.send_reset(Reason::CANCEL);
    drop((response, up));
    let (head, text) = websocket::next_masked(&mut upstream).await;
    assert_eq!((head, &text[..2]), (FIN | CLOSE, &[0x03, 0xe9][..]), "1001");

    let request = connect("/ws/connect", "websocket", &[VERSION]);
    let (response, mut up) = session.send_request(request, false).await;
    let response = within("an answer", response).await.expect("an answer");
    let connections = async || {
        let stats = node.get("/ws/health").await.json();
        stats["active_connections"].as_u64()
    };
    eventually("it is counted", async || {
        (connections().await == Some(1)).then_some(())
    })
    .await;
    up.send_reset(Reason::CANCEL);
    drop((response, up));
    eventually("it is gone", async || {
        (connections().await == Some(0)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn refusals_are_plain_answers() {
    let upstream = Upstream::start().await;
    let node = crate::node(&[&upstream], &[("ALLOW_ORIGINS", "https://good.test")]).await;
    let session = session(&node).await;
    for (request, status) in [
        (connect("/ws/connect", "websocket", &[]), 426),
        (
            connect(
                "/ws/connect",
                "websocket",
                &[VERSION, ("origin", "https://bad.test")],
            ),
            403,
        ),
        (connect("/ws/nobody", "websocket", &[VERSION]), 404),
        (connect("/nowhere", "websocket", &[VERSION]), 404),
        (connect("/ws/connect", "connect-udp", &[VERSION]), 501),
    ] {
        let uri = request.uri().clone();
        let answer = refused(&session, request).await;
        assert_eq!(answer.status, status, "{uri}: {}", answer.text());
    }
    // Without the handshake of either version there is nothing to upgrade.
    assert_eq!(session.get("/ws/example").await.status, 426);
}

/// RFC 8441 section 5: to a client 2xx says that from here on the stream is its WebSocket.
#[tokio::test]
async fn a_handshake_at_what_is_no_websocket_is_not_accepted() {
    let upstream = Upstream::start().await;
    let node = crate::node(&[&upstream], &[]).await;
    let session = session(&node).await;
    for path in [
        "/api/example/p",
        "/sse/example/events",
        "/healthz",
        "/hub/channels",
        "/sse/connect?channels=news",
    ] {
        for fields in [&[VERSION][..], &[]] {
            let answer = refused(&session, connect(path, "websocket", fields)).await;
            assert_eq!(answer.status, 400, "{path}: {}", answer.text());
        }
    }
    assert_eq!(upstream.requests(), 0);
    // What the upstream says instead of opening one is no acceptance either.
    let request = connect("/ws/example?path=/range", "websocket", &[VERSION]);
    let answer = refused(&session, request).await;
    assert_eq!((answer.status, answer.text().as_str()), (400, ""));
    assert_eq!(answer.field("content-range"), None);
    assert_eq!(session.get("/api/example/range").await.status, 206);
}
