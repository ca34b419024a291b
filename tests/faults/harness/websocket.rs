//! One connection of a subscriber over WebSocket.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::client::{Client, Ended, PATIENCE, position};
use super::ledger::Position;

/// How long a client waits with a subscription that was refused because Redis is away.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// Subscribes to everything and writes down what comes, until the connection ends.
pub(super) async fn session(client: &Client, stream: TcpStream) -> Ended {
    let shake = tokio_tungstenite::client_async("ws://gateway/ws/connect", stream);
    let Ok(Ok((stream, _))) = tokio::time::timeout(PATIENCE, shake).await else {
        return None;
    };
    let mut session = Session {
        client,
        stream,
        asked: vec![None; client.channels.len()],
        missing: client.channels.len(),
    };
    for channel in 0..client.channels.len() {
        session.subscribe(channel).await?;
    }
    loop {
        match session.stream.next().await {
            Some(Ok(Message::Text(text))) => {
                let message = serde_json::from_str(&text).expect("JSON");
                session.take(&message).await?;
            }
            Some(Ok(Message::Close(frame))) => return frame.map(|frame| frame.code.into()),
            Some(Ok(_)) => {}
            None | Some(Err(_)) => return None,
        }
    }
}

struct Session<'c> {
    client: &'c Client,
    stream: WebSocketStream<TcpStream>,
    /// What each subscription asked to go on from.
    asked: Vec<Option<Position>>,
    /// How many subscriptions are not answered yet.
    missing: usize,
}

impl Session<'_> {
    async fn subscribe(&mut self, channel: usize) -> Option<()> {
        let (name, cursor) = (&self.client.channels[channel], self.client.cursor(channel));
        let mut command = json!({"type": "subscribe", "id": channel, "channel": name});
        if let Some(cursor) = &cursor {
            command["recover"] = json!({"epoch": &*cursor.epoch, "offset": cursor.offset});
        }
        if self.client.watches {
            command["presence"] = json!(true);
        }
        self.asked[channel] = cursor;
        let message = Message::text(command.to_string());
        self.stream.send(message).await.ok()
    }

    /// Answers nothing when the connection is over.
    async fn take(&mut self, message: &Value) -> Option<()> {
        let client = self.client;
        match message["type"].as_str() {
            Some("publication") => client.publication(message, message["epoch"].as_str()),
            Some("subscribed") => self.subscribed(message),
            Some("gap") => {
                if let Some(channel) = client.find(&message["channel"]) {
                    client.ledger(channel).missed(position(message));
                }
            }
            Some("leave") => client.leave(message),
            Some("error") => {
                let code = message["code"].as_str();
                let channel = message["id"]
                    .as_u64()
                    .and_then(|id| usize::try_from(id).ok());
                let channel = channel.unwrap_or_default();
                if !matches!(code, Some("broker_unavailable" | "unavailable")) {
                    let what = format!("answered {message}");
                    client.ledger(channel).faults.push(what);
                }
                tokio::time::sleep(AGAIN_AFTER).await;
                self.subscribe(channel).await?;
            }
            Some("connected" | "join" | "presence") => {}
            other => client
                .ledger(0)
                .faults
                .push(format!("{other:?}: {message}")),
        }
        Some(())
    }

    fn subscribed(&mut self, message: &Value) {
        let channel = self.client.find(&message["channel"]).expect("a channel");
        let mut ledger = self.client.ledger(channel);
        match (self.asked[channel].take(), message["recovered"].as_bool()) {
            (None, None) => ledger.started(position(message)),
            (Some(_), Some(true)) => match position(message) {
                Some(at) => ledger.recovered(at),
                None => ledger.faults.push(format!("no position: {message}")),
            },
            (Some(_), Some(false)) => ledger.missed(position(message)),
            (asked, _) => ledger.faults.push(format!("asked {asked:?}, {message}")),
        }
        self.missing = self.missing.saturating_sub(1);
        if self.missing == 0 {
            drop(ledger);
            self.client.connected();
        }
    }
}
