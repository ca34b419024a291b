//! A connection as the hub knows it: its queue and its subscriptions.

use crate::model::{Position, WireFormat};

use super::send_queue::SendQueue;

/// One subscription of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subscription {
    /// The channel's slot.
    pub(super) channel: u32,
    /// Where the connection stands in the channel's list of its format; `PAUSED` when it does not receive.
    pub(super) index: u32,
    /// Whether join and leave are wanted.
    pub(super) watches: bool,
}

/// The `index` of a subscription that does not receive.
pub(super) const PAUSED: u32 = u32::MAX;

/// What an event stream of several channels must remember to write its `id:` lines.
#[derive(Debug)]
pub(super) struct Cursor {
    /// The channels' slots, in the order of the request.
    pub(super) channels: Vec<u32>,
    /// Where each stands for this connection.
    pub(super) positions: Vec<Option<Position>>,
    /// A hash of the list of channels, so that an id is not read for another list.
    pub(super) hash: u64,
}

/// One connection of a hub.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) queue: SendQueue,
    /// Sorted by channel.
    pub(super) subscriptions: Vec<Subscription>,
    pub(super) cursor: Option<Box<Cursor>>,
    pub(super) format: WireFormat,
    /// Whether it stands in a fan-out's list of connections to be written.
    pub(super) is_dirty: bool,
    /// Whether it stands in the list of those who are written first: an answer does not wait for a large fan-out.
    pub(super) is_prompt: bool,
    /// Whether its socket would not take more: it is written when the socket says so.
    pub(super) is_blocked: bool,
    /// Whether it is on its way out: nothing more is appended.
    pub(super) is_closing: bool,
}

impl Connection {
    pub(super) fn new(format: WireFormat) -> Self {
        Self {
            queue: SendQueue::default(),
            subscriptions: Vec::new(),
            cursor: None,
            format,
            is_dirty: false,
            is_prompt: false,
            is_blocked: false,
            is_closing: false,
        }
    }

    pub(super) fn find(&self, channel: u32) -> Result<usize, usize> {
        self.subscriptions
            .binary_search_by_key(&channel, |subscription| subscription.channel)
    }
}
