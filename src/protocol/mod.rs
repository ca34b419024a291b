//! The wire protocols: sans-IO codecs between bytes and the messages of a client's conversation.
//!
//! [`Command`] is what a client says, [`Reply`] and [`Push`] what it is told. `plain` is the hub's own protocol in
//! JSON and MessagePack, `sse` its server-sent events, `payload` the door that makes published data plain,
//! `websocket` the frames of RFC 6455.

pub mod encoder;
mod fit;
mod json_text;
mod packed;
pub mod payload;
pub mod plain;
pub mod sse;
pub mod websocket;

use std::sync::Arc;

use crate::model::{
    ChannelKey, ClientId, ErrorCode, Member, Payload, Position, Publication, UserId,
};

/// What a client calls its command by, given back in the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandId {
    /// An integer.
    Integer(i64),
    /// A string.
    Text(Box<str>),
}

/// One message of a client: the command and what the client calls it by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Given back in the answer.
    pub id: Option<CommandId>,
    /// What is asked.
    pub command: Command,
}

/// Where a client says that it stands. The epoch is whatever text it sent: one that is no epoch is an unknown one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimedPosition {
    /// The epoch, when it can be one.
    pub epoch: Option<crate::model::Epoch>,
    /// The offset.
    pub offset: u64,
}

/// What a client can ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Receive a channel.
    Subscribe {
        /// Which.
        channel: ChannelKey,
        /// Where to go on from.
        recover: Option<ClaimedPosition>,
        /// Whether to send join and leave too.
        presence: bool,
    },
    /// Receive it no longer.
    Unsubscribe {
        /// Which.
        channel: ChannelKey,
    },
    /// Publish.
    Publish {
        /// Where.
        channel: ChannelKey,
        /// What.
        data: Payload,
        /// What `latest` keeps one of.
        key: Option<Arc<str>>,
    },
    /// Read what is kept.
    History {
        /// Of which channel.
        channel: ChannelKey,
        /// The most publications.
        limit: Option<u32>,
        /// After this position.
        since: Option<ClaimedPosition>,
    },
    /// Ask who is there.
    Presence {
        /// In which channel.
        channel: ChannelKey,
    },
    /// Ask for a sign of life.
    Ping,
    /// Answer a server's JSON ping.
    Pong,
    /// Put a new token in place of the one that expires.
    Refresh {
        /// The token.
        token: Box<str>,
    },
    /// A message of the session API: store the user's key for an upstream API in the session.
    UpdateApiKey {
        /// The key.
        key: Box<str>,
    },
    /// A known type that nobody here may send (`chat_message` of the session API), or one that nobody knows.
    Unknown {
        /// The type, cut at 64 bytes.
        kind: Box<str>,
    },
}

/// Why a client's message could not be read. The client is told with an `error`; the connection goes on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct DecodeError {
    /// The command's id, where it could be read.
    pub id: Option<CommandId>,
    /// Which code the answer has.
    pub code: ErrorCode,
    /// What was wrong, and where.
    pub message: String,
}

/// The answer to a command.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// To `subscribe`.
    Subscribed {
        /// Which channel.
        channel: ChannelKey,
        /// Where the client stands; `None` in a channel without history.
        position: Option<Position>,
        /// Whether recovery worked; `None` when it was not asked for.
        recovered: Option<bool>,
    },
    /// To `unsubscribe`.
    Unsubscribed {
        /// Which channel.
        channel: ChannelKey,
    },
    /// To `publish`.
    Published {
        /// Which channel.
        channel: ChannelKey,
        /// Where it stands in the stream.
        position: Option<Position>,
    },
    /// To `history`.
    History {
        /// Of which channel.
        channel: ChannelKey,
        /// Oldest first.
        publications: Vec<Arc<Publication>>,
        /// Where the stream stands.
        position: Position,
        /// Whether there is more than fits the answer.
        more: bool,
    },
    /// To `presence`.
    Presence {
        /// Of which channel.
        channel: ChannelKey,
        /// The members that fit.
        members: Vec<Arc<Member>>,
        /// How many connections.
        clients: usize,
        /// How many users.
        users: usize,
        /// Whether there are more members than fit the answer.
        more: bool,
    },
    /// To `ping`.
    Pong {
        /// Unix time in seconds.
        timestamp: f64,
    },
    /// To `refresh`.
    Refreshed {
        /// Seconds; `None` for a token without an end.
        expires_in: Option<u64>,
    },
    /// To `update_api_key`.
    ApiKeyUpdated {
        /// As it was sent.
        api_key: Box<str>,
        /// The session, when there is one.
        session_id: Option<Arc<str>>,
        /// This node.
        gateway_id: Arc<str>,
    },
    /// It was not done.
    Error {
        /// The code.
        code: ErrorCode,
        /// What was wrong.
        message: String,
    },
}

/// What a client is told without having asked.
#[derive(Debug, Clone, PartialEq)]
pub enum Push {
    /// The first message of every connection.
    Connected(Box<Connected>),
    /// You missed something here.
    Gap {
        /// Where.
        channel: ChannelKey,
        /// How many, where somebody could count.
        dropped: Option<u64>,
        /// Where the stream stands now.
        position: Option<Position>,
    },
    /// The server ended a subscription.
    Unsubscribed {
        /// Which.
        channel: ChannelKey,
        /// A number that programs can compare: 2500 by the API, 2501 no longer permitted.
        code: u16,
        /// In words.
        reason: &'static str,
    },
    /// A publication for this client alone, on its way to catch up.
    Publication {
        /// Where.
        channel: ChannelKey,
        /// What.
        publication: Arc<Publication>,
    },
    /// A JSON ping (`WEBSOCKETS_JSON_PING`).
    Ping,
}

/// What a client is told first.
#[derive(Debug, Clone, PartialEq)]
pub struct Connected {
    /// The connection's id.
    pub client_id: ClientId,
    /// Its user; empty for nobody.
    pub user_id: UserId,
    /// The session, when the client named one.
    pub session_id: Option<Arc<str>>,
    /// This node.
    pub gateway_id: Arc<str>,
    /// Seconds between protocol pings.
    pub ping_interval: u64,
    /// Seconds without a sign of life after which the connection is closed.
    pub inactivity_timeout: u64,
    /// Seconds until the token expires, when it does.
    pub expires_in: Option<u64>,
    /// The channels that the token subscribed this client to, and where each stands.
    pub channels: Vec<(ChannelKey, Option<Position>)>,
}

#[cfg(test)]
mod docs_tests;
