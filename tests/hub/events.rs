//! What back ends hear of: as signed requests, and as a stream in Redis.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support::hub::SECRET;
use crate::support::raw::read_head;
use crate::support::sse::EventStream;
use crate::support::token::token_of;
use crate::support::ws::Socket;
use crate::support::{Hub, eventually, hub};

pub(crate) const WEBHOOK_SECRET: &str = "a-webhook-secret-of-at-least-32-bytes";

/// One request.
#[derive(Debug, Clone)]
struct Posted {
    status: u16,
    signature: String,
    body: String,
}

/// Takes webhooks, as it is told to.
#[derive(Clone)]
pub(crate) struct Receiver {
    port: u16,
    posted: Arc<Mutex<Vec<Posted>>>,
    /// What the next ones are answered; 200 after that.
    answers: Arc<Mutex<VecDeque<u16>>>,
}

impl Receiver {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let receiver = Self {
            port: listener.local_addr().expect("an address").port(),
            posted: Arc::default(),
            answers: Arc::default(),
        };
        let taker = receiver.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(taker.clone().take(stream));
            }
        });
        receiver
    }

    async fn take(self, mut stream: TcpStream) {
        let head = read_head(&mut stream).await;
        let field = |name: &str| {
            let mut lines = head.lines();
            let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            value.unwrap_or_default().to_owned()
        };
        let length = field("content-length").parse().expect("a length");
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.expect("the body");
        let answer = self.answers.lock().expect("a lock").pop_front();
        let status = answer.unwrap_or(200);
        let signature = field("x-fanfare-signature");
        self.posted.lock().expect("a lock").push(Posted {
            status,
            signature,
            body: String::from_utf8(body).expect("text"),
        });
        let answer =
            format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        let _ = stream.write_all(answer.as_bytes()).await;
    }

    pub(crate) async fn hub(&self, variables: &[(&str, &str)]) -> Hub {
        let url = format!("http://127.0.0.1:{}/hook?key=1", self.port);
        let mut all = vec![
            ("WEBHOOK_URL", url.as_str()),
            ("WEBHOOK_SECRET", WEBHOOK_SECRET),
            ("JWT_SECRET", SECRET),
        ];
        all.extend_from_slice(variables);
        hub(&all).await
    }

    pub(crate) fn answer(&self, statuses: &[u16]) {
        self.answers.lock().expect("a lock").extend(statuses);
    }

    fn posted(&self) -> Vec<Posted> {
        self.posted.lock().expect("a lock").clone()
    }

    /// The events of requests that were answered with this status.
    pub(crate) fn events(&self, status: u16) -> Vec<Value> {
        let posted = self.posted().into_iter();
        posted
            .filter(|one| one.status == status)
            .flat_map(|one| events_of(&one.body))
            .collect()
    }

    /// The words of what was taken, once the last of them is this one.
    async fn until(&self, last: &str) -> Vec<Value> {
        eventually(last, async || {
            let events = self.events(200);
            let is_there = events.last().is_some_and(|event| event["event"] == last);
            is_there.then_some(events)
        })
        .await
    }
}

fn events_of(body: &str) -> Vec<Value> {
    let body: Value = serde_json::from_str(body).expect("JSON");
    body["events"].as_array().expect("a list").clone()
}

fn words(events: &[Value]) -> Vec<&str> {
    let words = events.iter().map(|event| event["event"].as_str());
    words.map(|word| word.expect("a word")).collect()
}

/// Somebody who comes, listens and goes.
async fn visit(hub: &Hub) -> String {
    let mut ann = Socket::open_as(hub, &token_of("ann")).await;
    ann.subscribe("news").await;
    let client = ann.client();
    let unsubscribe = json!({"type": "unsubscribe", "channel": "news"});
    assert_eq!(ann.ask(&unsubscribe).await["type"], "unsubscribed");
    ann.close().await;
    client
}

const VISIT: [&str; 6] = [
    "connect",
    "subscribe",
    "channel_occupied",
    "unsubscribe",
    "channel_vacated",
    "disconnect",
];

#[tokio::test]
async fn a_visit_is_told_in_its_order_and_signed() {
    let receiver = Receiver::start().await;
    let hub = receiver.hub(&[("NODE_ID", "node-7")]).await;
    let client = visit(&hub).await;
    let events = receiver.until("disconnect").await;
    assert_eq!(words(&events), VISIT);
    let mut ids: Vec<&str> = events
        .iter()
        .filter_map(|event| event["id"].as_str())
        .collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), events.len(), "each has an id of its own");
    for event in &events {
        assert_eq!(event["node"], "node-7");
        assert!(event["at"].as_u64() > Some(1_700_000_000_000));
        let is_of_client = !event["event"]
            .as_str()
            .expect("a word")
            .starts_with("channel");
        assert_eq!(event["client"] == client.as_str(), is_of_client, "{event}");
        assert_eq!(event["user"] == "ann", is_of_client, "{event}");
    }
    assert_eq!(events[1]["channel"], "news");
    assert_eq!(events[2]["channel"], "news");
    assert_eq!(events[0]["transport"], "ws");
    assert_eq!(events[5]["reason"], "client_closed");

    for posted in receiver.posted() {
        expect_signed(&posted.signature, &posted.body);
    }
}

/// The signature is of its time and this body.
#[track_caller]
pub(crate) fn expect_signed(signature: &str, body: &str) {
    let (time, _) = signature.split_once(",v1=").expect("both parts");
    let time = time.strip_prefix("t=").expect("a time");
    let message = format!("{time}.{body}");
    let key = jsonwebtoken::EncodingKey::from_secret(WEBHOOK_SECRET.as_bytes());
    let algorithm = jsonwebtoken::Algorithm::HS256;
    let signed = jsonwebtoken::crypto::sign(message.as_bytes(), &key, algorithm);
    let expected = format!("t={time},v1={}", signed.expect("a signature"));
    assert_eq!(signature, expected);
}

#[tokio::test]
async fn what_was_not_taken_is_told_again_with_the_same_ids_and_in_order() {
    let receiver = Receiver::start().await;
    receiver.answer(&[503, 429]);
    let hub = receiver.hub(&[]).await;
    visit(&hub).await;
    let events = receiver.until("disconnect").await;
    assert_eq!(words(&events), VISIT);
    let first = receiver.posted()[0].clone();
    assert_eq!(first.status, 503);
    for status in [503, 429] {
        let refused = receiver.events(status);
        assert!(!refused.is_empty());
        assert_eq!(refused, events[..refused.len()], "{status}");
    }
    let repeated = r#"fanfare_events_total{way="webhook",outcome="repeated"}"#;
    assert!(hub.metric(repeated).await > 0.0, "it is told");
}

#[tokio::test]
async fn what_is_refused_again_and_again_makes_way() {
    let receiver = Receiver::start().await;
    receiver.answer(&[400; 5]);
    let hub = receiver.hub(&[("WEBHOOK_EVENTS", "connect")]).await;
    let _refused = Socket::open_as(&hub, &token_of("first")).await;
    eventually("the refusals", async || {
        (receiver.events(400).len() == 5).then_some(())
    })
    .await;
    let _taken = Socket::open_as(&hub, &token_of("second")).await;
    let events = receiver.until("connect").await;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["user"], "second");
    let metrics = hub.get("/metrics").await.text;
    let line = r#"fanfare_events_total{way="webhook",outcome="dropped"} 1"#;
    assert!(metrics.contains(line), "{metrics}");
}

#[tokio::test]
async fn only_what_is_wanted_is_told_and_a_drain_tells_the_rest() {
    let receiver = Receiver::start().await;
    let wanted = ("WEBHOOK_EVENTS", "disconnect");
    let mut hub = receiver.hub(&[wanted, ("DRAIN_SECONDS", "0")]).await;
    let _socket = Socket::open_as(&hub, &token_of("ann")).await;
    let _stream = EventStream::open(&hub, "channel=news", &[]).await;
    // An echo is no client of the hub's, and who is refused after the upgrade never was.
    let refused = "/ws/connect?session_id=x&token=y";
    let handshake = crate::support::ws::handshake(&hub, refused, &[]).await;
    drop(handshake.expect("upgraded"));
    hub.terminate();
    assert_eq!(hub.exit_code().await, Some(0));
    let mut told: Vec<(String, String)> = receiver
        .events(200)
        .iter()
        .map(|event| (event["transport"].to_string(), event["reason"].to_string()))
        .collect();
    told.sort();
    let told: Vec<(&str, &str)> = told.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    assert_eq!(
        told,
        [(r#""sse""#, r#""drain""#), (r#""ws""#, r#""drain""#)]
    );
}
