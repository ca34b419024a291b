//! The hub: one worker's connections and channels, and fan-out. SANS-IO: it writes to no socket, reads no clock and
//! asks no broker; it says what is to be written ([`Hub::next_slice`]) and returns counts.
//!
//! The transport calls, in this order: [`Hub::connect`]; [`Hub::subscribe`], and [`Hub::start`] when the broker has
//! said where the stream stands; [`Hub::go_live`]; then [`Hub::deliver`] for each envelope and [`Hub::send`] for each
//! answer; it writes the queues of [`Hub::next_slice`], closes whom [`Hub::take_overflowed`] names, and at last calls
//! [`Hub::disconnect`].
//!
//! Bounded: each queue in bytes and messages, all queues of the worker in bytes ([`Limits`]). Nothing is lost silently:
//! what a policy drops is told in a `gap`; a connection that cannot be told is closed.

mod channel;
mod connection;
mod fan_out;
mod frame;
mod pending;
mod room;
mod send_queue;
mod sending;
mod stream;

use hashbrown::HashMap;
use slab::Slab;

pub use channel::{Channel, Stage};
use connection::{Connection, Cursor, PAUSED, Subscription};
pub use fan_out::Delivered;
pub use frame::{Contents, Frame, Ledger};
use pending::Pending;
use send_queue::NO_CHANNEL;
pub use send_queue::SendQueue;
pub use stream::Verdict;

use crate::model::{ChannelKey, OverflowPolicy, Position, WireFormat};

/// Names a connection of one hub; used again after [`Hub::disconnect`].
pub type ConnectionIndex = u32;

/// Names a channel of one hub; used again after its last subscriber left.
pub type ChannelIndex = u32;

/// The bounds of a hub.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The most pending bytes of one connection; a shared frame counts in full.
    pub pending_bytes_max: usize,
    /// The most pending messages of one connection; a frame of several publications counts each.
    pub pending_messages_max: usize,
    /// The most pending bytes of the hub; a shared frame counts once.
    pub total_pending_bytes_max: usize,
}

/// Places for connections, and for channels, that are kept though nobody is there.
const PLACES_KEPT: usize = 1024;

/// One worker's connections and channels.
#[derive(Debug)]
pub struct Hub {
    limits: Limits,
    ledger: Ledger,
    connections: Slab<Connection>,
    channels: Slab<Channel>,
    by_key: HashMap<ChannelKey, ChannelIndex>,
    pending: Pending,
    /// Connections that could not take what was meant for them; the transport closes them.
    overflowed: Vec<ConnectionIndex>,
    /// Reused for encoding.
    scratch: Vec<u8>,
}

/// What became of a subscribe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subscribed {
    /// The first subscriber of this hub: ask the broker where the stream stands, then call [`Hub::start`].
    First(ChannelIndex),
    /// There are others.
    Joined(ChannelIndex),
    /// This connection was subscribed already; nothing changed.
    Already,
}

impl Hub {
    /// An empty hub.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            ledger: Ledger::default(),
            connections: Slab::new(),
            channels: Slab::new(),
            by_key: HashMap::new(),
            pending: Pending::default(),
            overflowed: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// Takes in a connection that speaks `format`.
    pub fn connect(&mut self, format: WireFormat) -> ConnectionIndex {
        index(self.connections.insert(Connection::new(format)))
    }

    /// Lets go of a connection and whatever was pending for it. The channels that lost their last subscriber are
    /// appended to `vacated`.
    pub fn disconnect(&mut self, connection: ConnectionIndex, vacated: &mut Vec<ChannelKey>) {
        self.unsubscribe_all(connection, vacated);
        if self.connections.contains(connection as usize) {
            self.connections.remove(connection as usize);
            // The next connection of this index did not overflow.
            self.overflowed
                .retain(|overflowed| *overflowed != connection);
            if self.connections.is_empty() && self.connections.capacity() > PLACES_KEPT {
                self.connections = Slab::new();
            }
        }
    }

    /// Ends all subscriptions of a connection and appends nothing to it any more, but for what
    /// [`Hub::send_last`] brings.
    pub fn begin_close(&mut self, connection: ConnectionIndex, vacated: &mut Vec<ChannelKey>) {
        self.unsubscribe_all(connection, vacated);
        if let Some(entry) = self.connections.get_mut(connection as usize) {
            entry.is_closing = true;
        }
    }

    fn unsubscribe_all(&mut self, connection: ConnectionIndex, vacated: &mut Vec<ChannelKey>) {
        let Some(entry) = self.connections.get_mut(connection as usize) else {
            return;
        };
        for subscription in std::mem::take(&mut entry.subscriptions) {
            self.detach(connection, subscription);
            vacated.extend(self.remove_if_vacant(subscription.channel));
        }
    }

    /// What a connection speaks.
    pub fn format(&self, connection: ConnectionIndex) -> Option<WireFormat> {
        self.connections
            .get(connection as usize)
            .map(|entry| entry.format)
    }

    /// How many connections.
    pub fn connection_count(&self) -> usize {
        self.connections.len()
    }

    /// How many channels have a subscriber here.
    pub fn channel_count(&self) -> usize {
        self.channels.len()
    }

    /// The bytes that all queues hold, shared frames counted once.
    pub fn held_bytes(&self) -> usize {
        self.ledger.held()
    }

    /// A channel that has a subscriber here.
    pub fn channel(&self, channel: ChannelIndex) -> Option<&Channel> {
        self.channels.get(channel as usize)
    }

    /// The channel of this name, when it has a subscriber here.
    pub fn find_channel(&self, key: &ChannelKey) -> Option<ChannelIndex> {
        self.by_key.get(key).copied()
    }

    /// All channels that have a subscriber here.
    pub fn channels(&self) -> impl Iterator<Item = (ChannelIndex, &Channel)> {
        self.channels
            .iter()
            .map(|(at, channel)| (index(at), channel))
    }

    /// Whether the connection is subscribed to the channel, receiving or not.
    pub fn is_subscribed(&self, connection: ConnectionIndex, key: &ChannelKey) -> bool {
        let channel = self.find_channel(key);
        let entry = self.connections.get(connection as usize);
        channel
            .zip(entry)
            .is_some_and(|(channel, entry)| entry.find(channel).is_ok())
    }

    /// How many channels the connection is subscribed to.
    pub fn subscription_count(&self, connection: ConnectionIndex) -> usize {
        self.connections
            .get(connection as usize)
            .map_or(0, |entry| entry.subscriptions.len())
    }

    /// The channels that the connection is subscribed to.
    pub fn subscriptions(&self, connection: ConnectionIndex) -> impl Iterator<Item = &ChannelKey> {
        let entry = self.connections.get(connection as usize);
        let subscriptions = entry.into_iter().flat_map(|entry| &entry.subscriptions);
        subscriptions
            .filter_map(|subscription| self.channel(subscription.channel))
            .map(Channel::key)
    }

    /// Subscribes without receiving yet.
    pub fn subscribe(
        &mut self,
        connection: ConnectionIndex,
        key: &ChannelKey,
        overflow: OverflowPolicy,
        watches: bool,
    ) -> Subscribed {
        if !self.connections.contains(connection as usize) {
            return Subscribed::Already;
        }
        let (channel, is_first) = self.channel_of(key, overflow);
        let entry = &mut self.connections[connection as usize];
        match entry.find(channel) {
            Ok(_) => return Subscribed::Already,
            Err(at) => {
                let (index, subscriptions) = (PAUSED, &mut entry.subscriptions);
                // Most connections have one subscription: no more is taken than that needs.
                subscriptions.reserve_exact(usize::from(subscriptions.is_empty()));
                subscriptions.insert(
                    at,
                    Subscription {
                        channel,
                        index,
                        watches,
                    },
                );
            }
        }
        let slot = &mut self.channels[channel as usize];
        slot.paused += 1;
        if watches {
            slot.watchers.push(connection);
        }
        if is_first {
            Subscribed::First(channel)
        } else {
            Subscribed::Joined(channel)
        }
    }

    fn channel_of(&mut self, key: &ChannelKey, overflow: OverflowPolicy) -> (ChannelIndex, bool) {
        if let Some(channel) = self.by_key.get(key) {
            return (*channel, false);
        }
        let channel = index(self.channels.insert(Channel::new(key.clone(), overflow)));
        self.by_key.insert(key.clone(), channel);
        (channel, true)
    }

    /// The broker said where the stream stands: publications after `position` are delivered. Answers whether the stream
    /// must be read again from here, because one of them came already and was passed over.
    ///
    /// Interest that ended and began again brings two answers. The second does not move a stream that goes on: what
    /// stands between the two may have been delivered, may be on its way, or was missed, and only reading tells.
    pub fn start(&mut self, channel: ChannelIndex, position: Option<Position>) -> bool {
        let Some(slot) = self.channels.get_mut(channel as usize) else {
            return false;
        };
        if slot.stage != Stage::Starting {
            return position
                .zip(slot.position)
                .is_some_and(|(new, own)| new.epoch != own.epoch || new.offset > own.offset);
        }
        slot.position = position;
        slot.stage = Stage::Live;
        position.is_some_and(|position| slot.seen_early > position.offset)
    }

    /// From now on the connection receives what is delivered in the channel.
    pub fn go_live(&mut self, connection: ConnectionIndex, channel: ChannelIndex) {
        let Some(entry) = self.connections.get_mut(connection as usize) else {
            return;
        };
        let Ok(at) = entry.find(channel) else { return };
        let subscription = &mut entry.subscriptions[at];
        let Some(slot) = self.channels.get_mut(channel as usize) else {
            return;
        };
        if subscription.index != PAUSED {
            return;
        }
        let live = &mut slot.live[entry.format.index()];
        subscription.index = index(live.len());
        live.push(connection);
        slot.paused -= 1;
    }

    /// Ends a subscription. `None` when there was none; otherwise whether the channel has no subscriber left here.
    pub fn unsubscribe(&mut self, connection: ConnectionIndex, key: &ChannelKey) -> Option<bool> {
        let channel = self.find_channel(key)?;
        let entry = self.connections.get_mut(connection as usize)?;
        let at = entry.find(channel).ok()?;
        let subscription = entry.subscriptions.remove(at);
        entry.queue.release(channel);
        self.detach(connection, subscription);
        Some(self.remove_if_vacant(channel).is_some())
    }

    /// Takes the connection out of the channel's lists.
    fn detach(&mut self, connection: ConnectionIndex, subscription: Subscription) {
        let Some(slot) = self.channels.get_mut(subscription.channel as usize) else {
            return;
        };
        if subscription.watches {
            slot.watchers.retain(|watcher| *watcher != connection);
        }
        if subscription.index == PAUSED {
            slot.paused -= 1;
            return;
        }
        let format = self.connections[connection as usize].format;
        let live = &mut slot.live[format.index()];
        live.swap_remove(subscription.index as usize);
        // Who stood last stands here now: their subscription must know.
        if let Some(moved) = live.get(subscription.index as usize).copied() {
            let entry = &mut self.connections[moved as usize];
            if let Ok(at) = entry.find(subscription.channel) {
                entry.subscriptions[at].index = subscription.index;
            }
        }
    }

    fn remove_if_vacant(&mut self, channel: ChannelIndex) -> Option<ChannelKey> {
        if !self.channels.get(channel as usize)?.is_vacant() {
            return None;
        }
        let slot = self.channels.remove(channel as usize);
        self.by_key.remove(&slot.key);
        if self.channels.is_empty() && self.channels.capacity() > PLACES_KEPT {
            self.channels = Slab::new();
            self.by_key = HashMap::new();
        }
        Some(slot.key)
    }

    /// Makes the connection an event stream of several channels: each event gets an `id:` line of its own, with the
    /// positions in the order of `channels`.
    pub fn set_cursor(&mut self, connection: ConnectionIndex, channels: &[ChannelKey], hash: u64) {
        // A channel that is not subscribed to keeps its place: the id counts places.
        let slots: Vec<u32> = channels
            .iter()
            .map(|key| self.find_channel(key).unwrap_or(NO_CHANNEL))
            .collect();
        if let Some(entry) = self.connections.get_mut(connection as usize) {
            let positions = vec![None; slots.len()];
            entry.cursor = Some(Box::new(Cursor {
                channels: slots,
                positions,
                hash,
            }));
        }
    }

    /// Says where an event stream of several channels stands in one of them.
    pub fn move_cursor(
        &mut self,
        connection: ConnectionIndex,
        channel: ChannelIndex,
        position: Option<Position>,
    ) {
        let entry = self.connections.get_mut(connection as usize);
        if let Some(cursor) = entry.and_then(|entry| entry.cursor.as_mut()) {
            cursor.move_to(channel, position);
        }
    }

    /// Where an event stream of several channels stands, and the hash of its list.
    pub fn cursor(&self, connection: ConnectionIndex) -> Option<(&[Option<Position>], u64)> {
        let cursor = self.connections.get(connection as usize)?.cursor.as_ref()?;
        Some((&cursor.positions, cursor.hash))
    }
}

impl Cursor {
    fn move_to(&mut self, channel: ChannelIndex, position: Option<Position>) {
        for (slot, at) in self.channels.iter().zip(&mut self.positions) {
            if *slot == channel {
                *at = position;
            }
        }
    }
}

/// A slab's key as an index of four bytes: neither connections nor channels of one worker come near 2^32.
fn index(key: usize) -> u32 {
    u32::try_from(key).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
