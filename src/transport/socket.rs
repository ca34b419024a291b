//! A connection as its worker holds it, and where a worker holds them.

use crate::client::{Client, Question, Ticket};
use crate::hub::ConnectionIndex;
use crate::model::{ChannelKey, ConnectionPermit, Moment, Position};
use crate::protocol::websocket::Partial;
use crate::protocol::{ClaimedPosition, CommandId};
use crate::relay::follow;

use super::carried::Stream;
use super::consent::Before;
use super::intake::Held;
use super::timer_wheel::{Link, Links};

/// Names a connection for as long as it lives: an index is used again, a generation is not (not for 2^32 connections).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ConnectionRef {
    pub(super) index: ConnectionIndex,
    pub(super) generation: u32,
}

/// What carries the conversation.
#[derive(Debug)]
pub(super) enum Carrier {
    /// Frames of RFC 6455; the part of a message that came without its end.
    WebSocket(Option<Box<Partial>>),
    /// The same, every message sent back.
    Echo(Option<Box<Partial>>),
    /// Server-sent events: nothing is read. What lives as long as the connection: boxed twice, for few have it and a
    /// connection is no larger for it so.
    Events { _held: Option<Box<Held>> },
}

/// How far the conversation is.
#[derive(Debug)]
pub(super) enum Phase {
    /// The first message waits for the channels that come with the connection.
    Opening(Box<Opening>),
    /// Commands and publications.
    Open,
    /// On its way out.
    Closing(Closing),
}

/// A connection whose first message waits for the positions of its channels.
#[derive(Debug, Default)]
pub(super) struct Opening {
    /// The channels, in order, and what became of each: `None` while it is asked for.
    pub(super) channels: Vec<(ChannelKey, Option<Opened>)>,
}

/// A channel that came with the connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Opened {
    /// Where the client stands.
    pub(super) position: Option<Position>,
    /// It asked to go on from a position that is lost.
    pub(super) is_lost: bool,
    /// What it missed, when it goes on from a position.
    pub(super) missed: Option<crate::broker::Page>,
    /// A back end ended the subscription before the first message.
    pub(super) has_ended: bool,
}

/// A connection that is being closed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Closing {
    /// Nothing more is read but to see the end.
    pub(super) is_deaf: bool,
    /// The peer's close came: the socket may end when everything is written.
    pub(super) peer_has_closed: bool,
    /// Our side of the socket is shut.
    pub(super) is_shut: bool,
}

/// Input that waits: for earlier commands to be answered, or for what is pending to be written.
#[derive(Debug, Default)]
pub(super) struct Deferred {
    /// The command that waits for earlier ones; `None` when all of it waits for room.
    pub(super) command: Option<(Option<CommandId>, Question)>,
    /// Bytes that were read and not yet decoded.
    pub(super) input: Vec<u8>,
}

/// A subscription on its way from a position to the present.
#[derive(Debug)]
pub(super) struct CatchUp {
    pub(super) channel: ChannelKey,
    pub(super) course: follow::CatchUp,
    /// What comes next did not fit beside what was pending: it waits for an empty queue.
    pub(super) needs_all: bool,
}

/// A subscription that waits for the broker.
#[derive(Debug)]
pub(super) struct Joining {
    pub(super) connection: ConnectionRef,
    pub(super) channel: ChannelKey,
    pub(super) recover: Option<ClaimedPosition>,
    pub(super) cause: Cause,
}

/// Who asked for a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// The client, with a command.
    Command(Ticket),
    /// It came with the connection, at this place of the list.
    Opening(usize),
    /// A back end.
    Server,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) stream: Stream,
    pub(super) carrier: Carrier,
    pub(super) client: Client,
    pub(super) phase: Phase,
    pub(super) generation: u32,
    pub(super) link: Link,
    pub(super) deferred: Option<Box<Deferred>>,
    pub(super) catch_ups: Vec<CatchUp>,
    /// The end of its last publication, where a back end is asked about them.
    pub(super) last_publish: Option<Before>,
    /// When it is closed because the node drains; the far future until then.
    pub(super) drain_at: Moment,
    /// Back ends heard that it came, so they hear that it goes.
    pub(super) is_told: bool,
    /// Whether the poll watches for writability.
    pub(super) watches_writable: bool,
    /// Whether reading stopped because too much is pending.
    pub(super) is_paused: bool,
    /// Makes room for another connection when this one is gone.
    pub(super) _permit: ConnectionPermit,
}

/// A worker's connections, at the indices that its hub gave them.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    entries: Vec<Option<Socket>>,
    generation: u32,
}

impl Sockets {
    /// The generation of the next connection.
    pub(super) fn next_generation(&mut self) -> u32 {
        self.generation = self.generation.wrapping_add(1);
        self.generation
    }

    pub(super) fn insert(&mut self, index: ConnectionIndex, socket: Socket) {
        let at = index as usize;
        if self.entries.len() <= at {
            self.entries.resize_with(at + 1, || None);
        }
        self.entries[at] = Some(socket);
    }

    pub(super) fn remove(&mut self, index: ConnectionIndex) -> Option<Socket> {
        let socket = self.entries.get_mut(index as usize)?.take();
        while let Some(None) = self.entries.last() {
            self.entries.pop();
        }
        if self.entries.len() < self.entries.capacity() / 4 {
            // Twice as many: a number that swings must not move the others each time.
            self.entries.shrink_to(self.entries.len() * 2);
        }
        socket
    }

    pub(super) fn get_mut(&mut self, index: ConnectionIndex) -> Option<&mut Socket> {
        self.entries.get_mut(index as usize)?.as_mut()
    }

    /// The connection that is meant, unless it is gone.
    pub(super) fn find(&mut self, connection: ConnectionRef) -> Option<&mut Socket> {
        self.get_mut(connection.index)
            .filter(|socket| socket.generation == connection.generation)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (ConnectionIndex, &Socket)> {
        let indexed = self.entries.iter().enumerate();
        indexed.filter_map(|(at, entry)| Some((u32::try_from(at).ok()?, entry.as_ref()?)))
    }
}

impl Links for Sockets {
    fn link(&mut self, index: u32) -> Option<&mut Link> {
        self.get_mut(index).map(|socket| &mut socket.link)
    }
}

impl Socket {
    /// Whether it is on its way out.
    pub(super) fn is_closing(&self) -> bool {
        matches!(self.phase, Phase::Closing(_))
    }

    /// Whether what it says is not read because a command of its own waits for somebody else.
    pub(super) fn is_unheard(&self) -> bool {
        self.deferred.is_some() && !self.client.can_take(true)
    }

    /// Whether nothing waits until its queue is written.
    pub(super) fn wants_nothing(&self) -> bool {
        !self.watches_writable && !self.is_paused && self.catch_ups.is_empty() && !self.is_closing()
    }

    /// Whether it only sends back what comes.
    pub(super) fn is_echo(&self) -> bool {
        matches!(self.carrier, Carrier::Echo(_))
    }

    /// Whether it speaks WebSocket.
    pub(super) fn is_websocket(&self) -> bool {
        !matches!(self.carrier, Carrier::Events { .. })
    }
}
