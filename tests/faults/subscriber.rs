//! A client that never gives up: it notes everything that it is told, and goes on elsewhere when its node goes away.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

/// The channel of all runs.
pub(crate) const CHANNEL: &str = "run:news";

/// How long a client waits for a node's first word before it tries another.
const PATIENCE: Duration = Duration::from_secs(3);

/// Where nodes are; those that are gone are taken out.
pub(crate) type Addresses = Arc<Mutex<Vec<SocketAddr>>>;

/// What a client has been through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// It began, or was told that it missed something: what follows comes after this offset.
    From(u64),
    /// It was told that it goes on where it was.
    Recovered,
    /// A publication: its offset and its number.
    Received(u64, u64),
}

/// What is known of a client while it runs.
#[derive(Debug, Default)]
pub(crate) struct Diary {
    pub(crate) events: Vec<Event>,
    position: Option<(String, u64)>,
}

impl Diary {
    /// The offset where it stands.
    pub(crate) fn offset(&self) -> Option<u64> {
        self.position.as_ref().map(|(_, offset)| *offset)
    }

    fn begin_at(&mut self, message: &Value) {
        if let Some((epoch, offset)) = position(message) {
            self.events.push(Event::From(offset));
            self.position = Some((epoch, offset));
        }
    }

    fn receive(&mut self, message: &Value) {
        let offset = message["offset"].as_u64().expect("an offset");
        let number = message["data"].as_u64().expect("a number");
        self.events.push(Event::Received(offset, number));
        if let Some(position) = &mut self.position {
            position.1 = offset;
            if let Some(epoch) = message["epoch"].as_str() {
                epoch.clone_into(&mut position.0);
            }
        }
    }
}

fn position(message: &Value) -> Option<(String, u64)> {
    Some((
        message["epoch"].as_str()?.to_owned(),
        message["offset"].as_u64()?,
    ))
}

/// A running client.
pub(crate) struct Subscriber {
    pub(crate) name: String,
    pub(crate) door: Door,
    pub(crate) diary: Arc<Mutex<Diary>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Which door a client takes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Door {
    WebSocket,
    EventStream,
}

impl Subscriber {
    pub(crate) fn start(index: usize, door: Door, addresses: &Addresses) -> Self {
        Self::go_on(index, door, addresses, Arc::default())
    }

    /// Goes on with what an earlier life has been through.
    pub(crate) fn go_on(
        index: usize,
        door: Door,
        addresses: &Addresses,
        diary: Arc<Mutex<Diary>>,
    ) -> Self {
        let (mine, addresses) = (diary.clone(), addresses.clone());
        let task = tokio::spawn(async move {
            for attempt in index.. {
                let address = {
                    let addresses = addresses.lock().expect("whole");
                    addresses[attempt % addresses.len()]
                };
                // However it ends, it begins again elsewhere.
                let _ = match door {
                    Door::WebSocket => web_socket(address, &mine).await,
                    Door::EventStream => event_stream(address, &mine).await,
                };
                let pause = 20 + u64::try_from(index % 50).unwrap_or_default();
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
        });
        Self {
            name: format!("{door:?} {index}"),
            door,
            diary,
            task,
        }
    }

    pub(crate) fn offset(&self) -> Option<u64> {
        self.diary.lock().expect("whole").offset()
    }
}

async fn in_time<T>(future: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(PATIENCE, future).await.ok()
}

async fn web_socket(address: SocketAddr, diary: &Mutex<Diary>) -> Option<()> {
    let request = format!("ws://{address}/ws/connect")
        .into_client_request()
        .ok()?;
    let stream = in_time(TcpStream::connect(address)).await?.ok()?;
    let (mut socket, _) = in_time(tokio_tungstenite::client_async(request, stream))
        .await?
        .ok()?;
    let asked = diary.lock().expect("whole").position.clone();
    let mut subscribe = json!({"type": "subscribe", "channel": CHANNEL});
    if let Some((epoch, offset)) = &asked {
        subscribe["recover"] = json!({"epoch": epoch, "offset": offset});
    }
    socket
        .send(Message::text(subscribe.to_string()))
        .await
        .ok()?;
    let mut is_subscribed = false;
    loop {
        let message = match is_subscribed {
            true => socket.next().await?.ok()?,
            false => in_time(socket.next()).await??.ok()?,
        };
        let Message::Text(text) = message else {
            continue;
        };
        let message: Value = serde_json::from_str(&text).expect("JSON");
        let mut diary = diary.lock().expect("whole");
        match message["type"].as_str() {
            Some("subscribed") => {
                is_subscribed = true;
                match message["recovered"].as_bool() {
                    Some(true) => {
                        diary.events.push(Event::Recovered);
                        diary.position = position(&message);
                        assert_eq!(diary.offset(), asked.as_ref().map(|(_, offset)| *offset));
                    }
                    _ => diary.begin_at(&message),
                }
            }
            Some("publication") => diary.receive(&message),
            Some("gap") => diary.begin_at(&message),
            Some("error" | "unsubscribed") => return None,
            _ => {}
        }
    }
}

async fn event_stream(address: SocketAddr, diary: &Mutex<Diary>) -> Option<()> {
    let stream = in_time(TcpStream::connect(address)).await?.ok()?;
    let mut reader = BufReader::new(stream);
    let asked = diary.lock().expect("whole").position.clone();
    let mut request = format!("GET /sse/connect?channel={CHANNEL} HTTP/1.1\r\nhost: {address}\r\n");
    if let Some((epoch, offset)) = &asked {
        request.push_str(&format!("last-event-id: {epoch}:{offset}\r\n"));
    }
    request.push_str("\r\n");
    reader.write_all(request.as_bytes()).await.ok()?;
    let (mut event, mut id, mut is_open) = (String::new(), None, false);
    loop {
        let mut line = String::new();
        let read = match is_open {
            true => reader.read_line(&mut line).await.ok()?,
            false => in_time(reader.read_line(&mut line)).await?.ok()?,
        };
        if read == 0 || line.starts_with("HTTP/1.1 ") && !line.contains(" 200 ") {
            return None;
        }
        match line
            .trim_end()
            .split_once(": ")
            .unwrap_or((line.trim_end(), ""))
        {
            ("event", name) => name.clone_into(&mut event),
            ("id", text) => id = text.rsplit_once(':').map(|(epoch, _)| epoch.to_owned()),
            ("data", text) => {
                let message: Value = serde_json::from_str(text).expect("JSON");
                let mut diary = diary.lock().expect("whole");
                match event.as_str() {
                    "connected" => {
                        is_open = true;
                        let start = &message["channels"][CHANNEL];
                        // Where it stands after its own id: there, unless a `gap` follows.
                        if asked.is_some() && position(start) == asked {
                            diary.events.push(Event::Recovered);
                        } else if asked.is_none() {
                            diary.begin_at(start);
                        } else if position(start).map(|(_, offset)| offset) == diary.offset() {
                            diary.events.push(Event::Recovered);
                            diary.position = position(start);
                        }
                    }
                    "gap" => diary.begin_at(&message),
                    _ => {
                        diary.receive(&message);
                        if let (Some(position), Some(epoch)) = (&mut diary.position, id.take()) {
                            position.0 = epoch;
                        }
                    }
                }
            }
            ("", _) => event.clear(),
            _ => {}
        }
    }
}
