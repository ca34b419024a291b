//! What a swarm of subscribers is to be: how many, of which kind, towards what, and what each does. Plain values,
//! made by the subcommands and read by the reader threads; and the bytes that a subscriber sends.

use std::net::SocketAddrV4;
use std::sync::Arc;

use crate::frame;
use crate::tally::Window;

/// What carries the publications.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Protocol {
    /// WebSocket at `/ws/connect`.
    Ws,
    /// Server-sent events at `/sse/connect`.
    Sse,
    /// An upstream's stream at `/sse/swarm/events`, which the hub shares among all who ask for it.
    #[value(skip)]
    Shared,
    /// WebSocket frames without handshake: what the floor's writer sends.
    #[value(skip)]
    Raw,
}

/// What a connection does once it is live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behaviour {
    /// Reads all it gets and answers pings.
    Listen,
    /// Never reads again.
    Stall,
    /// Keeps that many commands unanswered, without end.
    Command(CommandKind, usize),
}

/// Which command is sent without end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum CommandKind {
    /// `{"type":"ping","id":…}`
    Ping,
    /// `{"type":"publish","channel":…,"data":…}` to channels without subscribers.
    Publish,
    /// `{"type":"update_api_key","key":…}` with a new key each time, and a ping behind each: what clients of sessions send.
    ApiKey,
}

/// Whose connection it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) token: String,
    pub(crate) id: String,
}

/// A swarm, before it exists.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) target: SocketAddrV4,
    pub(crate) token: Option<String>,
    /// Connection i comes with session i modulo their number; without any it names none.
    pub(crate) sessions: Arc<[Session]>,
    pub(crate) protocol: Protocol,
    pub(crate) connections: usize,
    /// Connection i subscribes to channel i modulo their number; without channels it only connects.
    pub(crate) channels: Arc<[String]>,
    pub(crate) threads: usize,
    /// Connections begun a second; 0 for as many as fit in flight.
    pub(crate) connect_rate: u64,
    pub(crate) in_flight_max: usize,
    pub(crate) addresses: u32,
    pub(crate) receive_bytes: Option<usize>,
    pub(crate) behaviour: Behaviour,
    pub(crate) window: Window,
    pub(crate) sample_every: u32,
    /// Rows for the last arrival of each publication; 0 where nobody asks for it. Order is checked only with rows.
    pub(crate) publications: usize,
}

impl Plan {
    /// The channel of the connection with that index.
    pub(crate) fn channel(&self, connection: usize) -> Option<&str> {
        let index = connection.checked_rem(self.channels.len())?;
        Some(&self.channels[index])
    }

    /// The HTTP request that opens a connection; empty where there is no handshake.
    pub(crate) fn request(&self, connection: usize) -> Vec<u8> {
        let path = match self.protocol {
            Protocol::Raw => return Vec::new(),
            Protocol::Ws => match connection.checked_rem(self.sessions.len()) {
                None => "/ws/connect".to_owned(),
                Some(index) => {
                    let Session { token, id } = &self.sessions[index];
                    format!("/ws/connect?session_id={id}&token={token}")
                }
            },
            Protocol::Shared => "/sse/swarm/events".to_owned(),
            Protocol::Sse => format!(
                "/sse/connect?channel={}",
                encode(self.channel(connection).unwrap_or("swarm"))
            ),
        };
        let upgrade = match self.protocol {
            Protocol::Ws => UPGRADE,
            _ => "Accept: text/event-stream\r\n",
        };
        let token = bearer(self.token.as_deref());
        format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\n{token}{upgrade}\r\n",
            self.target
        )
        .into_bytes()
    }

    /// The frame that subscribes a connection to its channel.
    pub(crate) fn subscribe(&self, connection: usize) -> Option<Vec<u8>> {
        let channel = self.channel(connection)?;
        let command = format!(r#"{{"type":"subscribe","channel":"{channel}","id":1}}"#);
        Some(frame::masked(frame::TEXT, command.as_bytes()))
    }
}

/// The handshake with the example key of RFC 6455: a constant key has a constant answer, see [`ACCEPT`].
pub(crate) const UPGRADE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// What `Sec-WebSocket-Accept` must say to [`UPGRADE`] (RFC 6455 section 1.3).
pub(crate) const ACCEPT: &[u8] = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The header line for a bearer token or key; empty without one.
pub(crate) fn bearer(token: Option<&str>) -> String {
    token.map_or(String::new(), |token| {
        format!("Authorization: Bearer {token}\r\n")
    })
}

/// Percent-encodes a channel's name for a query.
fn encode(name: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    name.bytes()
        .map(|byte| {
            if keep(byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

/// Names for `count` channels.
pub(crate) fn channels(prefix: &str, count: usize) -> Arc<[String]> {
    (0..count).map(|index| format!("{prefix}{index}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channel_names_survive_a_query() {
        assert_eq!(encode("swarm-1"), "swarm-1");
        assert_eq!(encode("a:b#c"), "a%3Ab%23c");
    }
}
