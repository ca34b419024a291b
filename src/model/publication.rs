//! What is published, who published it, and what travels between nodes.

use std::sync::Arc;

use bytes::Bytes;

use super::{ChannelKey, ClientId, Epoch, UserId};

/// A publication's data: one JSON value on one line (no CR, no LF), nested at most 64 deep. Only the door makes one
/// (`protocol::payload`); behind it nobody parses it again. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload(Bytes);

impl Payload {
    /// Takes bytes that hold what a payload must hold; the caller has checked it.
    pub fn from_plain_json(json: impl Into<Bytes>) -> Self {
        Self(json.into())
    }

    /// The JSON text.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// How many bytes the JSON text has.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Never true for a payload from the door: the shortest JSON value is one byte.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The client that published; absent for publications by HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The connection.
    pub client: ClientId,
    /// Its user.
    pub user: UserId,
}

/// One publication of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// The place in the stream, from 1; 0 in a channel without history.
    pub offset: u64,
    /// The data.
    pub data: Payload,
    /// Who published, when it was a client.
    pub origin: Option<Origin>,
    /// What `latest` keeps one of; without it the channel is the key.
    pub key: Option<Arc<str>>,
}

/// A connection that is present in a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The connection.
    pub client: ClientId,
    /// Its user.
    pub user: UserId,
    /// What the token says of the user: any JSON.
    pub info: Option<Payload>,
}

/// What happened in a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Something was published.
    Publication(Arc<Publication>),
    /// Connections became present.
    Join(Arc<[Arc<Member>]>),
    /// Connections are no longer present.
    Leave(Arc<[Arc<Member>]>),
}

/// What the broker hands to a node that has interest in a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Where it happened.
    pub channel: ChannelKey,
    /// The stream's epoch; `None` in a channel without history.
    pub epoch: Option<Epoch>,
    /// What happened.
    pub event: Event,
}
