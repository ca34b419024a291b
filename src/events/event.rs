//! One event, and how it is written.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::model::{ChannelKey, ClientId, NodeId, SessionId, UserId};

/// What may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A client connected.
    Connect,
    /// It went away.
    Disconnect,
    /// A client subscribed to a channel.
    Subscribe,
    /// That ended.
    Unsubscribe,
    /// A channel got its first subscriber: in the fleet, or on a node that is alone.
    ChannelOccupied,
    /// It lost its last one.
    ChannelVacated,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 6] = [
        Self::Connect,
        Self::Disconnect,
        Self::Subscribe,
        Self::Unsubscribe,
        Self::ChannelOccupied,
        Self::ChannelVacated,
    ];

    /// Its word on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Disconnect => "disconnect",
            Self::Subscribe => "subscribe",
            Self::Unsubscribe => "unsubscribe",
            Self::ChannelOccupied => "channel_occupied",
            Self::ChannelVacated => "channel_vacated",
        }
    }
}

/// Something that happened on this node.
#[derive(Debug, Clone)]
pub struct Event {
    /// The same however often it is told.
    id: String,
    /// What.
    kind: Kind,
    /// Milliseconds since 1970.
    at: u64,
    node: NodeId,
    /// The connection.
    pub client: Option<ClientId>,
    /// Its user; empty for nobody in particular.
    pub user: UserId,
    /// The session that it was opened with.
    pub session: Option<SessionId>,
    /// The channel.
    pub channel: Option<ChannelKey>,
    /// How it is connected: `ws` or `sse`.
    pub transport: Option<&'static str>,
    /// Why it went away: a label of `docs/PROTOCOL.md`.
    pub reason: Option<&'static str>,
}

#[derive(Serialize)]
struct Written<'a> {
    id: &'a str,
    event: &'static str,
    at: u64,
    node: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    transport: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

impl Event {
    /// An event of now.
    pub(super) fn new(id: String, kind: Kind, node: NodeId) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let millis = now.unwrap_or_default().as_millis();
        Self {
            id,
            kind,
            at: u64::try_from(millis).unwrap_or(u64::MAX),
            node,
            client: None,
            user: Arc::from(""),
            session: None,
            channel: None,
            transport: None,
            reason: None,
        }
    }

    /// What happened.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// As JSON, on one line.
    pub(super) fn write(&self) -> String {
        let written = Written {
            id: &self.id,
            event: self.kind.name(),
            at: self.at,
            node: self.node.as_str(),
            client: self.client.map(|client| client.to_string()),
            user: self.client.map(|_| &*self.user),
            session: self.session.map(|session| session.to_string()),
            channel: self.channel.as_ref().map(ChannelKey::name),
            transport: self.transport,
            reason: self.reason,
        };
        // Texts and a number cannot fail to be written.
        serde_json::to_string(&written).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_says_what_belongs_to_it_and_no_more() {
        let mut event = Event::new("id-1".to_owned(), Kind::Subscribe, NodeId::new("node-1"));
        let client = ClientId::random();
        event.client = Some(client);
        event.channel = ChannelKey::new("news").ok();
        event.at = 7;
        assert_eq!(
            event.write(),
            format!(
                r#"{{"id":"id-1","event":"subscribe","at":7,"node":"node-1","client":"{client}","user":"","channel":"news"}}"#
            )
        );
    }
}
