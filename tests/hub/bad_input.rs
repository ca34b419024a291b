//! What should not come, each with its clear answer; nobody else notices.

use std::time::Instant;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::Message;

use crate::support::http::Answer;
use crate::support::hub::SECRET;
use crate::support::raw::{self, BINARY, CLOSE, FIN, PING, PONG, Raw, TEXT};
use crate::support::token::token_of;
use crate::support::ws::Socket;
use crate::support::{Hub, eventually, hub, within};

/// Sends a text and expects an error with this code whose message has these words; the connection goes on.
async fn refuses(socket: &mut Socket, text: &str, code: &str, words: &str) {
    socket.send_message(Message::text(text)).await;
    let answer = socket.next().await;
    assert_eq!(answer["type"], "error", "{text}: {answer}");
    assert_eq!(answer["code"], code, "{text}: {answer}");
    let message = answer["message"].as_str().expect("a text");
    assert!(message.contains(words), "{text}: {message}");
}

/// Messages that are no command, and what the answer says.
const NO_COMMANDS: &[(&str, &str)] = &[
    ("", "Invalid JSON"),
    ("nonsense", "Invalid JSON"),
    (r#"{"type":"ping""#, "Invalid JSON"),
    (r#"{"type":"ping"} {}"#, "Invalid JSON"),
    ("[]", ""),
    ("5", ""),
    ("null", ""),
    ("\"ping\"", ""),
    ("{}", "Missing message type"),
    (r#"{"id":1}"#, "Missing message type"),
    (r#"{"type":null}"#, "Missing message type"),
    (r#"{"type":7}"#, "type"),
    (r#"{"type":"fly"}"#, "Unknown message type: fly"),
    (r#"{"type":""}"#, "Unknown message type: "),
    (r#"{"type":"subscribe"}"#, "channel is missing"),
    (r#"{"type":"subscribe","channel":7}"#, "channel"),
    (r#"{"type":"subscribe","channel":""}"#, ""),
    (r#"{"type":"subscribe","channel":"a b"}"#, ""),
    (r#"{"type":"subscribe","channel":"ä"}"#, ""),
    (r#"{"type":"subscribe","channel":"a\u0000"}"#, ""),
    (r#"{"type":"subscribe","channel":"~own"}"#, "~"),
    (r#"{"type":"publish","channel":"~own","data":1}"#, "~"),
    (
        r#"{"type":"subscribe","channel":"a","presence":"yes"}"#,
        "presence",
    ),
    (
        r#"{"type":"subscribe","channel":"a","recover":7}"#,
        "recover",
    ),
    (
        r#"{"type":"subscribe","channel":"a","recover":{}}"#,
        "recover",
    ),
    (
        r#"{"type":"subscribe","channel":"a","recover":{"epoch":"e","offset":-1}}"#,
        "recover.offset",
    ),
    (
        r#"{"type":"subscribe","channel":"a","recover":{"epoch":"e","offset":1.5}}"#,
        "recover.offset",
    ),
    (
        r#"{"type":"subscribe","channel":"a","recover":{"epoch":"e","offset":18446744073709551616}}"#,
        "recover.offset",
    ),
    (
        r#"{"type":"subscribe","channel":"a","recover":{"epoch":5,"offset":1}}"#,
        "recover.epoch",
    ),
    (r#"{"type":"history","channel":"a","limit":-1}"#, "limit"),
    (
        r#"{"type":"history","channel":"a","limit":4294967296}"#,
        "limit",
    ),
    (r#"{"type":"history","channel":"a","limit":1e99}"#, "limit"),
    (r#"{"type":"publish","channel":"a"}"#, "data is missing"),
    (
        r#"{"type":"publish","channel":"a","data":1,"key":1}"#,
        "key",
    ),
    (r#"{"type":"ping","id":1.5}"#, "id"),
    (r#"{"type":"ping","id":9223372036854775808}"#, "id"),
    (r#"{"type":"ping","id":[1]}"#, "id"),
    (r#"{"type":"refresh"}"#, "token"),
    (r#"{"type":"update_api_key"}"#, "key"),
];

#[tokio::test]
async fn what_is_no_command_is_an_error_and_never_a_disconnect() {
    let hub = hub(&[]).await;
    let mut socket = Socket::open(&hub).await;
    for (text, words) in NO_COMMANDS {
        refuses(&mut socket, text, "bad_request", words).await;
    }
    let long = "x".repeat(256);
    for text in [
        json!({"type": "subscribe", "channel": long}),
        json!({"type": "publish", "channel": "a", "data": 1, "key": long}),
        json!({"type": "ping", "id": "x".repeat(65)}),
    ] {
        refuses(&mut socket, &text.to_string(), "bad_request", "").await;
    }
    let deep = format!(
        r#"{{"type":"publish","channel":"a","data":{}{}}}"#,
        "[".repeat(10_000),
        "]".repeat(10_000)
    );
    refuses(&mut socket, &deep, "bad_request", "").await;
    let kind = "x".repeat(10_000);
    refuses(
        &mut socket,
        &json!({"type": kind}).to_string(),
        "bad_request",
        "Unknown message type: xxx",
    )
    .await;
    // 255 bytes are good, and so is an id with a wrong field beside it.
    socket.subscribe(&"x".repeat(255)).await;
    let wrong = socket
        .ask(&json!({"type": "history", "id": "h", "channel": 7}))
        .await;
    assert_eq!(
        [&wrong["type"], &wrong["id"]],
        [&json!("error"), &json!("h")]
    );
    socket.expect_alive().await;
}

#[tokio::test]
async fn messagepack_that_lies_is_an_error() {
    let hub = hub(&[]).await;
    let mut socket = Socket::open_packed(&hub).await;
    let publish = |data: &[u8]| {
        let mut message = b"\x83\xa4type\xa7publish\xa7channel\xa1a\xa4data".to_vec();
        message.extend_from_slice(data);
        message
    };
    let nested = [vec![0x91; 10_000], vec![0xc0]].concat();
    let huge_array = b"\xdd\xff\xff\xff\xff".to_vec();
    for message in [
        vec![],
        b"\xc1".to_vec(),
        b"\x81\xa4type".to_vec(),
        b"\x81\xa4type\xd9\xffping".to_vec(),
        b"\xdf\xff\xff\xff\xff\xa4type".to_vec(),
        b"\x81\xa4type\xdb\xff\xff\xff\xffping".to_vec(),
        b"\x81\xa4type\xa4\xff\xfe\xfd\xfc".to_vec(),
        b"\x93\x01\x02\x03".to_vec(),
        nested.clone(),
        huge_array.clone(),
        publish(&nested),
        publish(&huge_array),
        publish(b"\xc6\xff\xff\xff\xff"),
        publish(b"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00"),
        publish(b"\xc7\x01\x05x"),
        publish(b"\x81\x01\x02"),
        publish(b"\x01\x02"),
    ] {
        let shown = message[..message.len().min(30)].escape_ascii().to_string();
        socket.send_message(Message::binary(message)).await;
        let answer = socket.next().await;
        assert_eq!(answer["type"], "error", "{shown}: {answer}");
        assert_eq!(answer["code"], "bad_request", "{shown}: {answer}");
    }
    socket.expect_alive().await;
}

/// Sends these bytes on a fresh connection and expects this close code.
async fn closes(hub: &Hub, what: &str, bytes: &[u8], code: u16) {
    let mut raw = Raw::connect(hub).await;
    raw.send(bytes).await;
    assert_eq!(raw.close_code().await, code, "{what}");
}

#[tokio::test]
async fn frames_that_the_rfc_forbids_close_with_their_code() {
    let hub = hub(&[("WS_MAX_MESSAGE_BYTES", "1000")]).await;
    let mut bystander = Socket::open(&hub).await;
    bystander.subscribe("calm").await;
    let ping = br#"{"type":"ping"}"#;
    let endless = |length: u64| [raw::header(FIN | TEXT, 0x80, length), vec![0; 4]].concat();
    let with_code = |code: u16| raw::frame(FIN | CLOSE, &code.to_be_bytes());
    let unmasked = [raw::header(FIN | TEXT, 0, ping.len() as u64), ping.to_vec()].concat();
    let split =
        |first: &[u8], second: &[u8]| [raw::frame(TEXT, first), raw::frame(FIN, second)].concat();
    for (what, bytes, code) in [
        ("unmasked", unmasked, 1002),
        ("reserved bit 1", raw::frame(FIN | 0x40 | TEXT, ping), 1002),
        ("reserved bit 2", raw::frame(FIN | 0x20 | TEXT, ping), 1002),
        ("reserved bit 3", raw::frame(FIN | 0x10 | TEXT, ping), 1002),
        ("reserved opcode", raw::frame(FIN | 0x3, ping), 1002),
        ("reserved control opcode", raw::frame(FIN | 0xb, b""), 1002),
        (
            "a control frame of 126 bytes",
            raw::frame(FIN | PING, &[0; 126]),
            1002,
        ),
        ("a fragmented control frame", raw::frame(PING, b""), 1002),
        ("a continuation of nothing", raw::frame(FIN, ping), 1002),
        (
            "a message within a message",
            [raw::frame(TEXT, b"{"), raw::text("{}")].concat(),
            1002,
        ),
        ("a close of one byte", raw::frame(FIN | CLOSE, &[3]), 1002),
        ("a close of 1005", with_code(1005), 1002),
        ("a close of 999", with_code(999), 1002),
        (
            "a close with bad text",
            raw::frame(FIN | CLOSE, b"\x03\xe8\xff\xfe"),
            1007,
        ),
        (
            "invalid UTF-8",
            raw::frame(FIN | TEXT, b"{\"type\":\"\xff\"}"),
            1007,
        ),
        (
            "a split character that goes wrong",
            split(b"\xc3", b"\x28"),
            1007,
        ),
        ("a surrogate", raw::frame(FIN | TEXT, b"\xed\xa0\x80"), 1007),
        ("binary on JSON", raw::frame(FIN | BINARY, ping), 1003),
        (
            "too long at once",
            raw::frame(FIN | TEXT, &[b' '; 1001]),
            1009,
        ),
        ("too long by its header", endless(1 << 40), 1009),
        (
            "too long in fragments",
            split(&[b' '; 600], &[b' '; 401]),
            1009,
        ),
        ("a length beyond 63 bits", endless(u64::MAX), 1002),
    ] {
        closes(&hub, what, &bytes, code).await;
        hub.publish("calm", &json!(what)).await;
        assert_eq!(bystander.next().await["data"], what);
    }
}

#[tokio::test]
async fn the_format_that_was_agreed_on_and_the_bound_are_kept() {
    let hub = hub(&[("WS_MAX_MESSAGE_BYTES", "1000")]).await;
    let mut packed = Socket::open_packed(&hub).await;
    packed.send_message(Message::text("{}")).await;
    assert_eq!(packed.closed().await, (1003, "unsupported data".to_owned()));
    // What is just within the bound is taken.
    let mut socket = Socket::open(&hub).await;
    let ping = r#"{"type":"ping"}"#;
    let fill = " ".repeat(1000 - ping.len());
    socket
        .send_message(Message::text(format!("{ping}{fill}")))
        .await;
    assert_eq!(socket.next().await["type"], "pong");
}

#[tokio::test]
async fn a_handshake_that_is_none_is_refused() {
    let hub = hub(&[]).await;
    let good = raw::handshake(&hub, "/ws/connect");
    for (from, to, status) in [
        ("sec-websocket-version: 13", "sec-websocket-version: 8", 426),
        ("upgrade: websocket\r\n", "", 426),
        ("HTTP/1.1", "HTTP/1.0", 426),
        ("connection: upgrade\r\n", "connection: close\r\n", 426),
        ("dGhlIHNhbXBsZSBub25jZQ==", "short", 400),
        ("dGhlIHNhbXBsZSBub25jZQ==", "no-letters-of-base64!!==", 400),
        ("sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "", 400),
        (
            "\r\n\r\n",
            "\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            400,
        ),
        (
            "\r\n\r\n",
            "\r\nsec-websocket-protocol: graphql-ws\r\n\r\n",
            400,
        ),
    ] {
        let request = good
            .replacen(from, to, 1)
            .replacen("\r\n\r\n", "\r\nx-close: 1\r\n\r\n", 1);
        let mut stream = TcpStream::connect(hub.address()).await.expect("the hub");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let head = raw::read_head(&mut stream).await;
        let answer = Answer::parse(head.as_bytes());
        assert_eq!(answer.status, status, "{to}: {head}");
        if status == 426 {
            assert_eq!(answer.header("sec-websocket-version"), Some("13"), "{head}");
            assert_eq!(answer.header("upgrade"), Some("websocket"), "{head}");
            let connection = answer.header("connection").expect("one");
            assert!(connection.contains("upgrade"), "{head}");
        }
    }
}

#[tokio::test]
async fn every_final_answer_tells_its_date() {
    let hub = hub(&[]).await;
    for request in [
        "GET /healthz HTTP/1.1\r\nhost: a",
        "GET /nowhere HTTP/1.1\r\nhost: a",
        "GET /api/nobody/x HTTP/1.1\r\nhost: a",
        "GET /ws/connect HTTP/1.1\r\nhost: a",
        "GET /sse/connect?channel=a HTTP/1.1\r\nhost: a",
        "GET /two words HTTP/1.1\r\nhost: a",
        "TRACE / HTTP/1.1\r\nhost: a",
    ] {
        let mut stream = TcpStream::connect(hub.address()).await.expect("the hub");
        let bytes = format!("{request}\r\n\r\n");
        stream.write_all(bytes.as_bytes()).await.expect("sent");
        let head = raw::read_head(&mut stream).await;
        let date = Answer::parse(head.as_bytes()).header("date").map(str::len);
        assert_eq!(date, Some("Sun, 06 Nov 1994 08:49:37 GMT".len()), "{head}");
    }
}

#[tokio::test]
async fn frames_sent_with_the_handshake_are_served() {
    let hub = hub(&[]).await;
    let mut stream = TcpStream::connect(hub.address()).await.expect("the hub");
    let mut bytes = raw::handshake(&hub, "/ws/connect").into_bytes();
    bytes.extend(raw::text(r#"{"type":"ping","id":1}"#));
    bytes.extend(raw::frame(FIN | PING, b"early"));
    stream.write_all(&bytes).await.expect("sent");
    raw::read_head(&mut stream).await;
    let mut raw = Raw { stream };
    let mut got = Vec::new();
    for _ in 0..3 {
        got.push(raw.next().await.expect("a frame"));
    }
    assert!(
        got[1].1.starts_with(br#"{"type":"pong","id":1,"#),
        "{got:?}"
    );
    assert_eq!(got[2], (FIN | PONG, b"early".to_vec()));
}

#[tokio::test]
async fn a_frame_that_comes_byte_by_byte_is_a_frame() {
    let hub = hub(&[]).await;
    let mut raw = Raw::connect(&hub).await;
    raw.stream.set_nodelay(true).expect("a socket");
    for byte in raw::text(r#"{"type":"ping","id":"slow"}"#) {
        raw.send(&[byte]).await;
        tokio::task::yield_now().await;
    }
    let (_, answer) = raw.next().await.expect("an answer");
    assert!(answer.starts_with(br#"{"type":"pong","id":"slow""#));
}

#[tokio::test]
async fn who_may_not_publish_is_told() {
    let hub = hub(&[("JWT_SECRET", SECRET), ("AUTH_REQUIRED", "true")]).await;
    let mut socket = Socket::open_as(&hub, &token_of("ann")).await;
    let answer = socket
        .ask(&json!({"type": "publish", "id": 1, "channel": "a", "data": 1}))
        .await;
    assert_eq!(
        [&answer["id"], &answer["code"]],
        [&json!(1), &json!("forbidden")]
    );
    socket.expect_alive().await;
}

#[tokio::test]
async fn a_payload_over_the_limit_is_refused_and_the_next_is_taken() {
    let hub = hub(&[("WS_MAX_MESSAGE_BYTES", "200000")]).await;
    let mut socket = Socket::open(&hub).await;
    let large = "x".repeat(65_535);
    let answer = socket
        .ask(&json!({"type": "publish", "channel": "a", "data": large}))
        .await;
    assert_eq!(answer["code"], "too_large", "{answer}");
    let fits = "x".repeat(65_534);
    let answer = socket
        .ask(&json!({"type": "publish", "channel": "a", "data": fits}))
        .await;
    assert_eq!(answer["type"], "published", "{answer}");
}

#[tokio::test]
async fn a_second_subscription_and_one_too_many_are_refused() {
    let hub = hub(&[("WS_COMMAND_RATE", "0")]).await;
    let mut socket = Socket::open(&hub).await;
    socket.subscribe("a").await;
    for recover in [Value::Null, json!({"epoch": "", "offset": 0})] {
        let twice = socket
            .ask(&json!({"type": "subscribe", "channel": "a", "recover": recover}))
            .await;
        assert_eq!(twice["code"], "already_subscribed", "{twice}");
    }
    let never = socket
        .ask(&json!({"type": "unsubscribe", "channel": "b"}))
        .await;
    assert_eq!(never["code"], "not_subscribed", "{never}");
    let many: Vec<Value> = (1..10_000)
        .map(|n| json!({"type": "subscribe", "id": n, "channel": format!("c{n}")}))
        .collect();
    let mut refused = 0;
    for some in many.chunks(500) {
        socket.send_all(some).await;
        for command in some {
            let answer = socket.next().await;
            assert_eq!(answer["id"], command["id"]);
            if answer["type"] == "error" {
                assert_eq!(answer["code"], "too_many_channels", "{answer}");
                refused += 1;
            }
        }
    }
    assert_eq!(refused, 9_000, "the limit is 1,000");
    let stats = hub.get("/hub/channels/a/stats").await.json();
    assert_eq!(stats["subscribers"], 1);
    // One that goes makes room for one.
    socket
        .ask(&json!({"type": "unsubscribe", "channel": "a"}))
        .await;
    socket.subscribe("one-more").await;
}

#[tokio::test]
async fn commands_over_the_rate_are_answered_so() {
    let hub = hub(&[("WS_COMMAND_RATE", "10")]).await;
    let mut socket = Socket::open(&hub).await;
    let pings: Vec<Value> = (0..30)
        .map(|id| json!({"type": "ping", "id": id}))
        .collect();
    socket.send_all(&pings).await;
    let mut refused = 0;
    for id in 0..30 {
        let answer = socket.next().await;
        assert_eq!(answer["id"], id, "{answer}");
        if answer["code"] == "rate_limited" {
            refused += 1;
        }
    }
    assert!((15..=20).contains(&refused), "{refused}");
    // What cannot be read costs as much.
    socket.send_message(Message::text("nonsense")).await;
    assert_eq!(socket.next().await["code"], "rate_limited");
    // It comes back with time.
    eventually("a command passes", async || {
        let answer = socket.ask(&json!({"type": "ping"})).await;
        (answer["type"] == "pong").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_slow_head_and_an_endless_body_are_cut() {
    let hub = hub(&[
        ("HEADER_TIMEOUT_MS", "300"),
        ("BODY_TIMEOUT_MS", "300"),
        ("MAX_BODY_BYTES", "100000"),
    ])
    .await;
    let mut slow = TcpStream::connect(hub.address()).await.expect("the hub");
    slow.write_all(b"GET /ws/connect HTTP/1.1\r\nhost: a\r\nx: ")
        .await
        .expect("sent");
    let mut answer = Vec::new();
    // A reset says the same as an end.
    let _ = within("the end of a slow head", slow.read_to_end(&mut answer)).await;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 408"));

    let head = "POST /hub/publish HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n";
    let stalled = format!("{head}content-length: 50\r\n\r\n{{\"channel\":");
    let answer = Answer::parse(&hub.exchange(stalled.as_bytes()).await);
    answer.expect_error(408, "request_timeout");
    // A body without an end, sent as fast as it is taken.
    let mut stream = TcpStream::connect(hub.address()).await.expect("the hub");
    stream
        .write_all(format!("{head}transfer-encoding: chunked\r\n\r\n").as_bytes())
        .await
        .expect("sent");
    let (reader, mut writer) = stream.split();
    let mut reader = tokio::io::BufReader::new(reader);
    let chunk = [b"1000\r\n".to_vec(), vec![b' '; 0x1000], b"\r\n".to_vec()].concat();
    let write = async {
        while writer.write_all(&chunk).await.is_ok() {}
        std::future::pending::<()>().await;
    };
    let mut head = String::new();
    let read = async {
        while !head.ends_with("\r\n\r\n") {
            reader.read_line(&mut head).await.expect("an answer");
        }
    };
    tokio::select! {
        () = write => {}
        () = within("an answer to an endless body", read) => {}
    }
    let answer = Answer::parse(head.as_bytes());
    assert_eq!(answer.status, 413);
    assert_eq!(answer.header("connection"), Some("close"), "{head}");
    Socket::open(&hub).await.expect_alive().await;
}

#[tokio::test]
async fn a_half_open_connection_is_closed() {
    let hub = hub(&[
        ("WS_PING_INTERVAL_MS", "100"),
        ("WEBSOCKETS_PONG_TIMEOUT", "1"),
        ("WEBSOCKETS_INACTIVITY_TIMEOUT", "60"),
    ])
    .await;
    // One answers pings, as every library does; one never does, but talks.
    let mut good = Socket::open(&hub).await;
    let mut raw = Raw::connect(&hub).await;
    let began = Instant::now();
    let code = async {
        raw.send(&raw::text(r#"{"type":"ping"}"#)).await;
        raw.close_code().await
    };
    let stay = async {
        // Reading answers the pings.
        let quiet =
            tokio::time::timeout(std::time::Duration::from_millis(2500), good.next_or_close());
        assert!(quiet.await.is_err(), "the good one was closed");
        good.expect_alive().await;
    };
    let (code, ()) = tokio::join!(code, stay);
    assert_eq!(code, 4004);
    assert!(began.elapsed().as_millis() >= 1000);
}

#[tokio::test]
async fn a_silent_connection_is_closed() {
    let hub = hub(&[
        ("WS_PING_INTERVAL_MS", "900"),
        ("WEBSOCKETS_PONG_TIMEOUT", "60"),
        ("WEBSOCKETS_INACTIVITY_TIMEOUT", "1"),
    ])
    .await;
    let mut raw = Raw::connect(&hub).await;
    assert_eq!(raw.close_code().await, 4004);
}

#[tokio::test]
async fn a_thousand_that_never_read_cost_their_bound_and_disturb_nobody() {
    const STALLED: usize = 1000;
    let hub = hub(&[
        ("WS_MAX_BUFFERED_BYTES", "100000"),
        ("WS_TOTAL_BUFFERED_BYTES", "8000000"),
    ])
    .await;
    let before = hub.resident_bytes();
    let mut stalled = Vec::new();
    for _ in 0..STALLED {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a small window");
        let mut stream = socket.connect(hub.address()).await.expect("the hub");
        let mut bytes = raw::handshake(&hub, "/ws/connect").into_bytes();
        bytes.extend(raw::text(r#"{"type":"subscribe","channel":"flood"}"#));
        stream.write_all(&bytes).await.expect("sent");
        stalled.push(stream);
    }
    eventually("all are subscribed", async || {
        let stats = hub.get("/hub/channels/flood/stats").await.json();
        (stats["subscribers"] == STALLED).then_some(())
    })
    .await;
    let mut reader = Socket::open(&hub).await;
    reader.subscribe("flood").await;
    let mut other = Socket::open(&hub).await;
    other.subscribe("calm").await;
    let data = "x".repeat(30_000);
    let mut largest = 0;
    for n in 0..120_u64 {
        let offset = hub.publish("flood", &json!(data)).await;
        assert_eq!(
            reader.next().await["offset"],
            offset,
            "who reads misses nothing"
        );
        let began = Instant::now();
        hub.publish("calm", &json!(n)).await;
        assert_eq!(other.next().await["data"], n);
        assert!(began.elapsed().as_secs() < 2, "another channel waited");
        largest = largest.max(hub.resident_bytes());
    }
    let grown = largest.saturating_sub(before);
    // The bound over all, what each idle connection takes, and history of 100 x 30 KB; not 1,000 x 100 KB.
    assert!(grown < 60_000_000, "grew by {grown} bytes");
    // Those that never read were closed, as far as the kernel could not take it for them.
    eventually("the slow are gone", async || {
        let stats = hub.get("/hub/channels/flood/stats").await.json();
        (stats["subscribers"].as_u64() < Some(10)).then_some(())
    })
    .await;
    drop(stalled);
    reader.expect_alive().await;
}
