//! A client that listens through nginx as a good one does: it comes back when it is sent away or cut off, by position, and
//! remembers everything it was told. What it was told must be each number once, in order.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::publisher::END;
use crate::support::sse::EventStream;
use crate::support::ws::{Socket, handshake};
use crate::support::{DEADLINE, Hub};

/// Over what it listens.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Over {
    WebSocket,
    EventStream,
}

/// A listener at work.
pub(crate) struct Listener {
    over: Over,
    task: JoinHandle<Heard>,
}

/// What it was told.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(crate) numbers: Vec<u64>,
    /// The gateways on which it was.
    pub(crate) gateways: BTreeSet<String>,
    /// How often it came back.
    pub(crate) returns: u64,
    /// What its WebSockets were closed with.
    pub(crate) closes: Vec<u16>,
    /// It has heard the end.
    is_done: bool,
    /// Of the WebSocket protocol.
    position: Value,
    /// Of the event stream.
    last_id: Option<String>,
    /// Tells that it listens; taken when told.
    ready: Option<oneshot::Sender<()>>,
}

impl Listener {
    /// Listens on `channel` through `door` until it hears the end. It listens when this returns.
    pub(crate) async fn start(door: Hub, channel: &'static str, over: Over) -> Self {
        let (ready, is_ready) = oneshot::channel();
        let mut heard = Heard {
            ready: Some(ready),
            ..Heard::default()
        };
        let task = tokio::spawn(async move {
            loop {
                match over {
                    Over::WebSocket => heard.listen_on_socket(&door, channel).await,
                    Over::EventStream => heard.listen_on_stream(&door, channel).await,
                }
                if heard.is_done {
                    return heard;
                }
                heard.returns += 1;
                // As a browser waits before it comes back, but shorter.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        is_ready.await.expect("it listens");
        Self { over, task }
    }

    /// What it was told, when it has heard the end.
    pub(crate) async fn heard(self) -> (Over, Heard) {
        let heard = tokio::time::timeout(DEADLINE, self.task).await;
        let heard = heard.expect("the end, in time").expect("it listens");
        (self.over, heard)
    }
}

impl Heard {
    /// Until the end, or until the connection is over.
    async fn listen_on_socket(&mut self, door: &Hub, channel: &str) {
        let Some(mut socket) = open(door).await else {
            return;
        };
        self.note_gateway(&socket.connected);
        let mut command = json!({"type": "subscribe", "channel": channel});
        if !self.position.is_null() {
            command["recover"] = self.position.clone();
        }
        socket.send(&command).await;
        while !self.is_done {
            match socket.next_or_close().await {
                Ok(message) => self.note_message(&message),
                Err((code, _)) => {
                    self.closes.push(code);
                    return;
                }
            }
        }
    }

    fn note_message(&mut self, message: &Value) {
        match message["type"].as_str() {
            Some("subscribed") => {
                assert_ne!(message["recovered"], false, "{message}");
                self.position = json!({"epoch": message["epoch"], "offset": message["offset"]});
                self.note_ready();
            }
            Some("publication") => {
                self.position["offset"] = message["offset"].clone();
                self.note_data(&message["data"]);
            }
            _ => panic!("{message}"),
        }
    }

    async fn listen_on_stream(&mut self, door: &Hub, channel: &str) {
        let query = format!("channel={channel}");
        let mut stream = match &self.last_id {
            Some(id) => EventStream::resume(door, &query, id).await,
            None => EventStream::open(door, &query, &[]).await,
        };
        self.note_gateway(&stream.connected.json());
        self.note_ready();
        while !self.is_done {
            // The first event has a position too, so that nothing is missed before the first publication.
            self.last_id = stream.last_id.clone().or(self.last_id.take());
            let Some(block) = stream.block().await else {
                return;
            };
            match (&block.event, &block.data) {
                (None, Some(_)) => self.note_data(&block.json()["data"]),
                (Some(_), _) => panic!("{block:?}"),
                (None, None) => {}
            }
        }
    }

    fn note_data(&mut self, data: &Value) {
        match data.as_u64() {
            Some(number) => self.numbers.push(number),
            None => {
                assert_eq!(data, END);
                self.is_done = true;
            }
        }
    }

    fn note_ready(&mut self) {
        if let Some(ready) = self.ready.take() {
            // Nobody may wait any more.
            let _ = ready.send(());
        }
    }

    fn note_gateway(&mut self, connected: &Value) {
        let gateway = connected["gateway_id"].as_str();
        self.gateways.insert(gateway.expect("a gateway").to_owned());
    }

    /// Each number from 0 to before `count`, once and in order.
    #[track_caller]
    pub(crate) fn expect_all(&self, count: u64) {
        let wanted: Vec<u64> = (0..count).collect();
        if self.numbers == wanted {
            return;
        }
        let heard = &self.numbers;
        let wrong = heard.iter().zip(&wanted).position(|(a, b)| a != b);
        let at = wrong.unwrap_or(heard.len().min(wanted.len()));
        let around = &heard[at.saturating_sub(3)..(at + 5).min(heard.len())];
        let len = heard.len();
        panic!(
            "{len} of {count} numbers, wrong from {at}: {around:?}; {:?}",
            self.closes
        );
    }
}

/// A socket through nginx; nothing when its gateway ended before the first message.
async fn open(door: &Hub) -> Option<Socket> {
    let began = Instant::now();
    loop {
        match handshake(door, "/ws/connect", &[]).await {
            Ok((stream, protocol)) => return Socket::begin(stream, protocol.as_deref()).await.ok(),
            Err(refused) => {
                let is_passing = [502, 503, 504].contains(&refused.status);
                assert!(is_passing && began.elapsed() < DEADLINE, "{refused:?}");
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
