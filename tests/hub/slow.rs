//! Slow consumers, by policy: who falls behind is closed or told, and everybody else notices nothing.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;

use crate::support::raw::{self, Raw, read_head};
use crate::support::ws::Socket;
use crate::support::{Hub, eventually, hub_with, within};

const BOUND: &str = "200000";
/// What the kernel may hold for a socket beside our bound is some MB; this is far more.
const FLOOD: u64 = 400;
const SIZE: usize = 30_000;

/// A subscriber that has stopped reading, with a small window so that little hides in the kernel.
async fn stalled(hub: &Hub, channel: &str) -> Raw {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small window");
    let mut stream = socket.connect(hub.address()).await.expect("the hub");
    let request = raw::handshake(hub, "/ws/connect");
    stream.write_all(request.as_bytes()).await.expect("sent");
    read_head(&mut stream).await;
    let mut raw = Raw { stream };
    raw.next().await.expect("connected");
    let subscribe = json!({"type": "subscribe", "channel": channel}).to_string();
    raw.send(&raw::text(&subscribe)).await;
    let subscribed = json_of(raw.next().await.expect("subscribed"));
    assert_eq!(subscribed["type"], "subscribed");
    raw
}

fn json_of((head, payload): (u8, Vec<u8>)) -> Value {
    match head & 0x0f {
        raw::TEXT => serde_json::from_slice(&payload).expect("JSON"),
        raw::CLOSE => {
            json!({"type": "close", "code": u16::from_be_bytes([payload[0], payload[1]])})
        }
        other => json!({"type": other}),
    }
}

/// Publishes large things while a reader that keeps up gets every one.
async fn flood(hub: &Hub, channel: &str, keys: u64) {
    let mut reader = Socket::open(hub).await;
    reader.subscribe(channel).await;
    let data = "x".repeat(SIZE);
    for n in 0..FLOOD {
        let body = json!({"channel": channel, "key": format!("k{}", n % keys), "data": [n, data]});
        assert_eq!(hub.post("/hub/publish", &body).await.status, 200);
        let got = reader.next().await;
        assert_eq!(got["data"][0], n, "who keeps up misses nothing");
        assert_eq!(got["type"], "publication");
    }
}

/// The most pending bytes that the hub has told so far.
async fn pending_bytes(hub: &Hub) -> u64 {
    let metrics = hub.get("/metrics").await.text;
    let line = metrics
        .lines()
        .find(|line| line.starts_with("fanfare_pending_bytes"));
    let value = line.and_then(|line| line.rsplit(' ').next());
    value
        .and_then(|value| value.parse::<f64>().ok())
        .expect("a number") as u64
}

#[tokio::test]
async fn who_is_too_slow_is_closed_and_comes_back() {
    let hub = hub_with(
        "[namespaces.default]\nhistory = { size = 500, ttl = \"5m\" }\n",
        &[("WS_MAX_BUFFERED_BYTES", BOUND)],
    )
    .await;
    let mut slow = stalled(&hub, "feed").await;
    flood(&hub, "feed", 1).await;
    assert!(pending_bytes(&hub).await <= 200_000);
    // It reads at last: what the kernel held, in order, and why it is closed.
    let mut seen = 0;
    let closed = loop {
        let message = json_of(slow.next().await.expect("a close frame before the end"));
        if message["type"] == "close" {
            break message;
        }
        seen += 1;
        assert_eq!(message["offset"], seen, "in order and whole");
    };
    assert_eq!(closed["code"], 1013);
    assert!(seen < FLOOD, "it was never slow");
    let mut back = Socket::open(&hub).await;
    let stats = hub.get("/hub/channels/feed/stats").await.json();
    let asked = json!({"epoch": stats["epoch"], "offset": seen});
    assert_eq!(back.recover("feed", &asked).await["recovered"], true);
    for offset in seen + 1..=FLOOD {
        assert_eq!(back.next().await["offset"], offset);
    }
    eventually("the close is counted", async || {
        let metrics = hub.get("/metrics").await.text;
        let counted = metrics.contains("fanfare_closes_total{reason=\"slow_consumer\"} 1\n");
        (counted && metrics.contains("fanfare_drops_total{reason=\"disconnect\"} ")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn drop_oldest_keeps_the_newest_and_tells() {
    let hub = hub_with(
        "[namespaces.feed]\noverflow = \"drop_oldest\"\n",
        &[("WS_MAX_BUFFERED_BYTES", BOUND)],
    )
    .await;
    let mut slow = stalled(&hub, "feed:a").await;
    flood(&hub, "feed:a", 1).await;
    // A reply is never dropped, whatever the policy.
    slow.send(&raw::text(r#"{"type":"ping","id":"kept"}"#))
        .await;
    let (mut next, mut dropped, mut ponged) = (1, 0, false);
    let mut gaps = 0;
    while next <= FLOOD || !ponged {
        let message = json_of(slow.next().await.expect("still open"));
        match message["type"].as_str() {
            Some("publication") => {
                assert_eq!(message["offset"], next, "no silent hole");
                next += 1;
            }
            Some("gap") => {
                let count = message["dropped"].as_u64().expect("they are counted");
                gaps += 1;
                dropped += count;
                next += count;
                assert_eq!(
                    message["offset"],
                    next - 1,
                    "where the stream goes on: {message}"
                );
                assert!(message["epoch"].is_string());
            }
            Some("pong") => ponged = true,
            _ => panic!("{message}"),
        }
    }
    assert!(gaps >= 1 && dropped > 0);
    assert_eq!(next, FLOOD + 1, "the newest were kept");
    eventually("the drops are counted", async || {
        let metrics = hub.get("/metrics").await.text;
        let line = format!("fanfare_drops_total{{reason=\"policy\"}} {dropped}\n");
        metrics.contains(&line).then_some(())
    })
    .await;
}

#[tokio::test]
async fn latest_keeps_the_last_of_each_key_and_tells() {
    const KEYS: u64 = 3;
    let hub = hub_with(
        "[namespaces.state]\noverflow = \"latest\"\n",
        &[("WS_MAX_BUFFERED_BYTES", BOUND)],
    )
    .await;
    let mut slow = stalled(&hub, "state:a").await;
    flood(&hub, "state:a", KEYS).await;
    let mut last_of = vec![None; KEYS as usize];
    let (mut last, mut gaps, mut count) = (0, 0, 0);
    while last < FLOOD {
        let message = json_of(slow.next().await.expect("still open"));
        match message["type"].as_str() {
            Some("publication") => {
                let offset = message["offset"].as_u64().expect("an offset");
                assert!(offset > last, "in order");
                last = offset;
                count += 1;
                let n = message["data"][0].as_u64().expect("a number");
                last_of[(n % KEYS) as usize] = Some(n);
            }
            Some("gap") => gaps += 1,
            _ => panic!("{message}"),
        }
    }
    assert!(gaps >= 1 && count < FLOOD, "{gaps} gaps, {count} came");
    let newest: Vec<Option<u64>> = (0..KEYS)
        .map(|key| (0..FLOOD).rev().find(|n| n % KEYS == key))
        .collect();
    assert_eq!(last_of, newest, "the last of each key");
}

#[tokio::test]
async fn a_stalled_event_stream_is_ended_and_resumes() {
    let hub = hub_with(
        "[namespaces.default]\nhistory = { size = 500, ttl = \"5m\" }\n",
        &[("WS_MAX_BUFFERED_BYTES", BOUND)],
    )
    .await;
    let mut stream = crate::support::sse::EventStream::open(&hub, "channel=feed", &[]).await;
    flood(&hub, "feed", 1).await;
    eventually("it is closed", async || {
        let stats = hub.get("/hub/channels/feed/stats").await.json();
        (stats["subscribers"] == 0).then_some(())
    })
    .await;
    let mut seen = 0;
    while let Some(block) = stream.block().await {
        if block.data.is_some() {
            seen += 1;
            assert_eq!(block.json()["offset"], seen);
        }
    }
    let id = stream.id().to_owned();
    let mut stream = crate::support::sse::EventStream::resume(&hub, "channel=feed", &id).await;
    for offset in seen + 1..=FLOOD {
        assert_eq!(stream.event().await.json()["offset"], offset);
    }
}

#[tokio::test]
async fn who_asks_faster_than_it_reads_is_not_read() {
    // Answers pile up until half the bound; then the socket is left alone, and nothing is lost.
    let hub = hub_with(
        "",
        &[("WS_MAX_BUFFERED_BYTES", BOUND), ("WS_COMMAND_RATE", "0")],
    )
    .await;
    hub.publish("big", &json!("x".repeat(20_000))).await;
    const ANSWER: &[u8] = br#""type":"history""#;
    let socket = stalled(&hub, "other").await;
    let command = raw::text(r#"{"type":"history","id":1,"channel":"big"}"#);
    let (mut reader, mut writer) = socket.stream.into_split();
    let write = async {
        for _ in 0..3000 {
            writer.write_all(&command).await.expect("taken in the end");
        }
    };
    let hold = async {
        for _ in 0..30 {
            assert!(pending_bytes(&hub).await <= 200_000);
        }
        let mut answers = 0;
        let mut buffer = vec![0; 1 << 16];
        let mut rest: Vec<u8> = Vec::new();
        while answers < 3000 {
            let count = within("answers", reader.read(&mut buffer)).await;
            let count = count.expect("open");
            assert!(count > 0, "closed after {answers}");
            rest.extend_from_slice(&buffer[..count]);
            let is_answer = |part: &&[u8]| *part == ANSWER;
            answers += rest.windows(ANSWER.len()).filter(is_answer).count();
            // What may be the beginning of the next one.
            rest.drain(..rest.len().saturating_sub(ANSWER.len() - 1));
        }
    };
    tokio::join!(write, hold);
}
