//! Delivery: publications into the queues of all who receive them, and what happens when a queue is full.

use std::sync::Arc;

use crate::model::{
    ChannelKey, Encode, Epoch, Event, Member, OverflowPolicy, Position, Publication, WireFormat,
};

use super::channel::Stage;
use super::connection::{Connection, Cursor};
use super::frame::{Contents, Frame};
use super::send_queue::SendQueue;
use super::{ChannelIndex, ConnectionIndex, Hub};

/// The most bytes of publications that are joined into one frame. Joining halves the cost of a burst; the bound keeps
/// a queue's steps small against its capacity.
const JOINED_BYTES_MAX: usize = 32 * 1024;

/// A joined frame is at most this part of what may be pending: it must never be the frame itself that does not fit.
const JOINED_PART: usize = 8;

/// The most bytes of a frame's header (RFC 6455 section 5.2, without mask).
const FRAME_HEADER_BYTES_MAX: usize = 10;

/// What a delivery did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Delivered {
    /// Publications times the queues that took them.
    pub deliveries: u64,
    /// Bytes appended to queues.
    pub bytes: u64,
    /// Publications that a policy dropped from queues.
    pub dropped: u64,
    /// `gap`s that were put into queues.
    pub gaps: u64,
}

/// What an envelope's offset says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The next one: deliver it.
    Next {
        /// Whether it is the first that subscribers see of its epoch.
        first_of_epoch: bool,
    },
    /// Seen already, or part of what is being read again: pass over it.
    PassOver,
    /// Something before it is missing: read the stream again from the channel's position.
    Hole,
    /// Nobody here wants it.
    Unwanted,
}

impl Hub {
    /// Says what a publication that came from the broker is to this hub, and takes note of it.
    pub fn judge(&mut self, channel: ChannelIndex, epoch: Option<Epoch>, offset: u64) -> Verdict {
        let Some(slot) = self.channels.get_mut(channel as usize) else {
            return Verdict::Unwanted;
        };
        match slot.stage {
            Stage::Starting => {
                slot.seen_early = slot.seen_early.max(offset);
                return Verdict::PassOver;
            }
            Stage::Repairing { seen } => {
                slot.stage = Stage::Repairing {
                    seen: seen.max(offset),
                };
                return Verdict::PassOver;
            }
            Stage::Live => {}
        }
        let (Some(position), Some(epoch)) = (slot.position, epoch) else {
            return Verdict::Next {
                first_of_epoch: false,
            };
        };
        if epoch != position.epoch {
            return Verdict::Hole;
        }
        if offset <= position.offset {
            return Verdict::PassOver;
        }
        if offset > position.offset + 1 {
            return Verdict::Hole;
        }
        slot.position = Some(Position::new(epoch, offset));
        Verdict::Next {
            first_of_epoch: false,
        }
    }

    /// Publications of a channel may be missing, up to `seen`, or up to nobody knows where when that is 0: pass over
    /// what comes until [`Hub::resume`]. Answers the position to read from.
    ///
    /// `None` when the channel keeps no history or has nobody here; or when its stream is being read already, or its
    /// position asked for: then [`Hub::resume`] or [`Hub::start`] will say that it must be read again, because that
    /// answer may be older than what is missing.
    pub fn begin_repair(&mut self, channel: ChannelIndex, seen: u64) -> Option<Position> {
        let slot = self.channels.get_mut(channel as usize)?;
        let missing = if seen == 0 { u64::MAX } else { seen };
        match slot.stage {
            Stage::Live => {
                let position = slot.position?;
                slot.stage = Stage::Repairing { seen };
                Some(position)
            }
            Stage::Starting => {
                slot.seen_early = slot.seen_early.max(missing);
                None
            }
            Stage::Repairing { seen } => {
                let seen = seen.max(missing);
                slot.stage = Stage::Repairing { seen };
                None
            }
        }
    }

    /// The stream was read up to `position`. Answers whether more came meanwhile, so that it must be read again.
    pub fn resume(&mut self, channel: ChannelIndex, position: Position, is_whole: bool) -> bool {
        let Some(slot) = self.channels.get_mut(channel as usize) else {
            return false;
        };
        let Stage::Repairing { seen } = slot.stage else {
            return false;
        };
        slot.is_epoch_untold |= slot.position.is_some_and(|old| old.epoch != position.epoch);
        slot.position = Some(position);
        let again = !is_whole || seen > position.offset;
        // What was seen so far came before the next read is asked, which therefore covers it, or it is of an epoch that
        // was left and no read will ever reach its offset.
        slot.stage = match again {
            true => Stage::Repairing { seen: 0 },
            false => Stage::Live,
        };
        again
    }

    /// Puts publications of one channel, in order, into the queues of all who receive it: encoded once for each
    /// format, and joined into one frame where the policy allows.
    pub fn deliver(
        &mut self,
        channel: ChannelIndex,
        publications: &[Arc<Publication>],
        first_of_epoch: bool,
        encode: &mut dyn Encode,
    ) -> Delivered {
        let mut delivered = Delivered::default();
        let first_of_epoch = self.takes_note_of_epoch(channel, publications) || first_of_epoch;
        for format in WireFormat::ALL {
            let Some(slot) = self.channels.get(channel as usize) else {
                break;
            };
            if slot.live[format.index()].is_empty() {
                continue;
            }
            let joins =
                slot.overflow == OverflowPolicy::Disconnect && format != WireFormat::SseMany;
            let mut rest = publications;
            let mut first = first_of_epoch;
            while !rest.is_empty() {
                let (frame, taken) = self.encode_some(channel, format, rest, joins, first, encode);
                self.append_to_all(channel, format, &frame, encode, &mut delivered);
                rest = &rest[taken..];
                first = false;
            }
        }
        delivered
    }

    /// Whether these are the first publications of an epoch that began without one.
    fn takes_note_of_epoch(
        &mut self,
        channel: ChannelIndex,
        publications: &[Arc<Publication>],
    ) -> bool {
        let slot = self.channels.get_mut(channel as usize);
        slot.filter(|_| !publications.is_empty())
            .is_some_and(|slot| std::mem::take(&mut slot.is_epoch_untold))
    }

    /// One frame of as many publications as are to be joined.
    fn encode_some(
        &mut self,
        channel: ChannelIndex,
        format: WireFormat,
        publications: &[Arc<Publication>],
        joins: bool,
        first: bool,
        encode: &mut dyn Encode,
    ) -> (Frame, usize) {
        let slot = &self.channels[channel as usize];
        let epoch = slot.position.map(|position| position.epoch);
        let bytes_max = JOINED_BYTES_MAX.min(self.limits.pending_bytes_max / JOINED_PART);
        let joined_max = match joins {
            true => (self.limits.pending_messages_max / JOINED_PART).max(1),
            false => 1,
        };
        self.scratch.clear();
        let mut taken = 0;
        for publication in publications.iter().take(joined_max) {
            let end = self.scratch.len();
            let first = first && taken == 0;
            let out = &mut self.scratch;
            encode.publication(format, &slot.key, publication, epoch, first, out);
            if taken > 0 && self.scratch.len() > bytes_max {
                self.scratch.truncate(end);
                break;
            }
            taken += 1;
        }
        let last = &publications[taken - 1];
        let contents = Contents {
            publications: super::index(taken),
            last: epoch.map(|epoch| Position::new(epoch, last.offset)),
            key: last.key.clone(),
        };
        (Frame::new(&self.scratch, contents, &self.ledger), taken)
    }

    /// Appends one frame to the queue of each connection of a format.
    fn append_to_all(
        &mut self,
        channel: ChannelIndex,
        format: WireFormat,
        frame: &Frame,
        encode: &mut dyn Encode,
        delivered: &mut Delivered,
    ) {
        let Self {
            channels,
            connections,
            limits,
            pending,
            overflowed,
            ledger,
            scratch,
            ..
        } = self;
        let Some(slot) = channels.get(channel as usize) else {
            return;
        };
        let key = &slot.key;
        let mut dirty = Vec::new();
        for subscriber in &slot.live[format.index()] {
            let Some(entry) = connections.get_mut(*subscriber as usize) else {
                continue;
            };
            if entry.is_closing {
                continue;
            }
            let event_id = entry
                .cursor
                .as_mut()
                .map(|cursor| event_id(cursor, channel, frame, encode, ledger, scratch));
            let room = Room {
                limits,
                ledger,
                key,
                policy: slot.overflow,
                channel,
                bytes: frame.len() + event_id.as_ref().map_or(0, Frame::len),
                messages: frame.contents().publications as usize,
            };
            if !room.make(entry, frame, encode, scratch, delivered) {
                entry.is_closing = true;
                overflowed.push(*subscriber);
                continue;
            }
            if let Some(event_id) = event_id {
                entry.queue.push_publications(event_id, channel);
            }
            entry.queue.push_publications(frame.clone(), channel);
            delivered.deliveries += u64::from(frame.contents().publications);
            delivered.bytes += frame.len() as u64;
            if !entry.is_dirty && !entry.is_prompt && !entry.is_blocked {
                entry.is_dirty = true;
                dirty.push(*subscriber);
            }
        }
        pending.add_fan_out(dirty);
    }

    /// Tells all who asked for it that a member joined or left.
    pub fn announce(&mut self, channel: ChannelIndex, event: &Event, encode: &mut dyn Encode) {
        let Some(slot) = self.channels.get(channel as usize) else {
            return;
        };
        let (Event::Join(member) | Event::Leave(member)) = event else {
            return;
        };
        if slot.watchers.is_empty() {
            return;
        }
        let (key, watchers) = (slot.key.clone(), slot.watchers.clone());
        let is_join = matches!(event, Event::Join(_));
        let frames = WireFormat::ALL
            .map(|format| self.encode_presence(format, &key, member, is_join, encode));
        for watcher in watchers {
            let Some(entry) = self.connections.get(watcher as usize) else {
                continue;
            };
            let is_live = entry
                .find(channel)
                .is_ok_and(|at| entry.subscriptions[at].index != super::PAUSED);
            let frame = &frames[entry.format.index()];
            if is_live && !frame.is_empty() {
                self.send_frame(watcher, frame.clone());
            }
        }
    }

    fn encode_presence(
        &mut self,
        format: WireFormat,
        key: &ChannelKey,
        member: &Member,
        is_join: bool,
        encode: &mut dyn Encode,
    ) -> Frame {
        self.scratch.clear();
        if is_join {
            encode.join(format, key, member, &mut self.scratch);
        } else {
            encode.leave(format, key, member, &mut self.scratch);
        }
        Frame::new(&self.scratch, Contents::default(), &self.ledger)
    }

    /// Tells all who receive the channel that they missed something, and where the stream stands now.
    pub fn tell_gap(
        &mut self,
        channel: ChannelIndex,
        dropped: Option<u64>,
        position: Option<Position>,
        encode: &mut dyn Encode,
    ) -> u64 {
        let Some(slot) = self.channels.get_mut(channel as usize) else {
            return 0;
        };
        slot.position = position;
        // The `gap` names it.
        slot.is_epoch_untold = false;
        let (key, live) = (slot.key.clone(), slot.live.clone());
        let mut told = 0;
        for (format, subscribers) in WireFormat::ALL.into_iter().zip(&live) {
            self.scratch.clear();
            encode.gap(format, &key, dropped, position, &mut self.scratch);
            let contents = Contents {
                last: position,
                ..Contents::default()
            };
            let frame = Frame::new(&self.scratch, contents, &self.ledger);
            for subscriber in subscribers {
                let frame = self.with_event_id(*subscriber, channel, position, &frame, encode);
                self.send_gap(*subscriber, frame, channel, dropped);
                told += 1;
            }
        }
        told
    }

    /// The frame, behind an `id:` line where the connection is a stream of several channels.
    fn with_event_id(
        &mut self,
        connection: ConnectionIndex,
        channel: ChannelIndex,
        position: Option<Position>,
        frame: &Frame,
        encode: &mut dyn Encode,
    ) -> Frame {
        let entry = self.connections.get_mut(connection as usize);
        let Some(cursor) = entry.and_then(|entry| entry.cursor.as_mut()) else {
            return frame.clone();
        };
        cursor.move_to(channel, position);
        self.scratch.clear();
        encode.event_id(&cursor.positions, cursor.hash, &mut self.scratch);
        self.scratch.extend_from_slice(frame.bytes());
        Frame::new(&self.scratch, frame.contents().clone(), &self.ledger)
    }

    /// Appends bytes for one connection: an answer, a push, a control frame. A queue that has no room for it
    /// overflows, and the connection is closed.
    pub fn send(&mut self, connection: ConnectionIndex, bytes: &[u8]) {
        let frame = Frame::new(bytes, Contents::default(), &self.ledger);
        self.send_frame(connection, frame);
    }

    /// Appends bytes for one connection that carry publications: what it catches up with. No policy drops them.
    pub fn send_contents(&mut self, connection: ConnectionIndex, bytes: &[u8], contents: Contents) {
        let frame = Frame::new(bytes, contents, &self.ledger);
        self.send_frame(connection, frame);
    }

    /// Appends a frame that is for several connections.
    pub fn send_frame(&mut self, connection: ConnectionIndex, frame: Frame) {
        if let Some(queue) = self.room_for(connection, &frame) {
            queue.push(frame);
            self.mark(connection);
        }
    }

    fn send_gap(
        &mut self,
        connection: ConnectionIndex,
        frame: Frame,
        channel: ChannelIndex,
        dropped: Option<u64>,
    ) {
        if let Some(queue) = self.room_for(connection, &frame) {
            queue.push_gap(frame, channel, dropped);
            self.mark(connection);
        }
    }

    /// The queue of a connection that has room for the frame. One that has none overflows.
    fn room_for(&mut self, connection: ConnectionIndex, frame: &Frame) -> Option<&mut SendQueue> {
        let entry = self.connections.get_mut(connection as usize)?;
        if entry.is_closing {
            return None;
        }
        // Small answers cost more than their bytes: the count is bounded for them too.
        let messages = frame.contents().publications.max(1) as usize;
        // The largest message that may be sent back fits an empty queue, its frame's header beside it.
        let header = if entry.queue.is_empty() {
            FRAME_HEADER_BYTES_MAX
        } else {
            0
        };
        if entry.queue.pending_bytes() + frame.len() > self.limits.pending_bytes_max + header
            || entry.queue.pending_messages() + messages > self.limits.pending_messages_max
        {
            entry.is_closing = true;
            self.overflowed.push(connection);
            return None;
        }
        Some(&mut entry.queue)
    }

    /// The last bytes of a connection that is being closed. `at_once` drops whatever else is pending, but for the rest
    /// of a frame that was begun.
    pub fn send_last(&mut self, connection: ConnectionIndex, bytes: &[u8], at_once: bool) {
        let Some(entry) = self.connections.get_mut(connection as usize) else {
            return;
        };
        if at_once {
            entry.queue.clear_unwritten();
        }
        entry
            .queue
            .push(Frame::new(bytes, Contents::default(), &self.ledger));
        self.mark(connection);
    }

    fn mark(&mut self, connection: ConnectionIndex) {
        let Some(entry) = self.connections.get_mut(connection as usize) else {
            return;
        };
        if !entry.is_prompt && !entry.is_blocked {
            entry.is_prompt = true;
            self.pending.add(connection);
        }
    }

    /// The connections to be written next; call it again until it brings none.
    pub fn next_slice(&mut self, into: &mut Vec<ConnectionIndex>) {
        let from = into.len();
        self.pending.next_slice(into);
        for connection in &into[from..] {
            if let Some(entry) = self.connections.get_mut(*connection as usize) {
                entry.is_dirty = false;
                entry.is_prompt = false;
            }
        }
    }

    /// Whether any queue waits to be written.
    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The queue of a connection.
    pub fn queue(&mut self, connection: ConnectionIndex) -> Option<&mut SendQueue> {
        self.connections
            .get_mut(connection as usize)
            .map(|entry| &mut entry.queue)
    }

    /// The socket took nothing more, or takes again.
    pub fn set_blocked(&mut self, connection: ConnectionIndex, is_blocked: bool) {
        if let Some(entry) = self.connections.get_mut(connection as usize) {
            entry.is_blocked = is_blocked;
        }
    }

    /// Connections that could not take what was meant for them: the transport closes each as a slow consumer.
    pub fn take_overflowed(&mut self) -> Vec<ConnectionIndex> {
        std::mem::take(&mut self.overflowed)
    }

    /// When all queues together hold more than they may: the connections with the most pending bytes go, the blocked
    /// ones first, so that it is the slowest. They are overflowed from now on.
    pub fn shed(&mut self) {
        let most = self.limits.total_pending_bytes_max;
        if self.ledger.held() <= most {
            return;
        }
        // Down to nine tenths, so that the next frame does not look for victims again.
        self.shed_down_to(most / 10 * 9, true);
        // Whoever else is behind has not been asked yet whether it takes anything: no more of them than must be.
        self.shed_down_to(most, false);
    }

    fn shed_down_to(&mut self, target: usize, is_blocked: bool) {
        if self.ledger.held() <= target {
            return;
        }
        let mut slow: Vec<(usize, ConnectionIndex)> = self
            .connections
            .iter()
            .filter(|(_, entry)| entry.is_blocked == is_blocked && !entry.is_closing)
            .map(|(at, entry)| (entry.queue.pending_bytes(), super::index(at)))
            .filter(|(pending, _)| *pending > 0)
            .collect();
        slow.sort_unstable_by(|a, b| b.cmp(a));
        for (_, connection) in slow {
            if self.ledger.held() <= target {
                break;
            }
            if let Some(entry) = self.connections.get_mut(connection as usize) {
                entry.is_closing = true;
                entry.queue.clear_unwritten();
                self.overflowed.push(connection);
            }
        }
    }
}

/// What it takes to make room in one queue for a frame of one channel.
struct Room<'a> {
    limits: &'a super::Limits,
    ledger: &'a super::Ledger,
    key: &'a ChannelKey,
    policy: OverflowPolicy,
    channel: ChannelIndex,
    /// How much is to be appended.
    bytes: usize,
    messages: usize,
}

/// Bytes to keep free for the `gap` that a policy puts into the queue.
const GAP_BYTES: usize = 512;

/// What keeping the latest of each key frees, at least: this part of a bound.
const LATEST_FREES_A: usize = 64;

impl Room<'_> {
    /// Whether the frame fits, after the policy did what it could.
    fn make(
        &self,
        entry: &mut Connection,
        frame: &Frame,
        encode: &mut dyn Encode,
        scratch: &mut Vec<u8>,
        delivered: &mut Delivered,
    ) -> bool {
        if self.fits(&entry.queue) {
            return true;
        }
        let (bytes, messages) = self.lacking(&entry.queue);
        let dropped = match self.policy {
            OverflowPolicy::Disconnect => return false,
            OverflowPolicy::DropOldest => entry.queue.drop_oldest(self.channel, bytes, messages),
            OverflowPolicy::Latest => {
                let (bytes, messages) =
                    (entry.queue.pending_bytes(), entry.queue.pending_messages());
                let dropped = entry.queue.keep_latest(self.channel, frame);
                let freed = (
                    bytes.saturating_sub(entry.queue.pending_bytes()),
                    messages.saturating_sub(entry.queue.pending_messages()),
                );
                if !self.is_worth(freed) {
                    return false;
                }
                dropped
            }
        };
        if dropped.is_some() {
            let position = dropped.position;
            scratch.clear();
            encode.gap(
                entry.format,
                self.key,
                (!dropped.is_uncounted).then_some(u64::from(dropped.publications)),
                position,
                scratch,
            );
            let contents = Contents {
                last: position,
                ..Contents::default()
            };
            entry.queue.insert_gap(
                self.channel,
                Frame::new(scratch, contents, self.ledger),
                dropped,
            );
            delivered.dropped += u64::from(dropped.fresh);
            delivered.gaps += u64::from(!dropped.had_gap);
        }
        self.fits(&entry.queue)
    }

    /// Whether going through a whole queue freed enough to do it again when that is used up. A reader whose queue is
    /// full of the latest of each key would otherwise cost its length with every publication, and slow the others.
    fn is_worth(&self, (bytes, messages): (usize, usize)) -> bool {
        bytes * LATEST_FREES_A >= self.limits.pending_bytes_max
            || messages * LATEST_FREES_A >= self.limits.pending_messages_max
    }

    fn fits(&self, queue: &SendQueue) -> bool {
        queue.pending_bytes() + self.bytes <= self.limits.pending_bytes_max
            && queue.pending_messages() + self.messages <= self.limits.pending_messages_max
    }

    /// How many bytes and messages must go, room for a `gap` among them.
    fn lacking(&self, queue: &SendQueue) -> (usize, usize) {
        let bytes = queue.pending_bytes() + self.bytes + GAP_BYTES;
        let messages = queue.pending_messages() + self.messages + 1;
        (
            bytes.saturating_sub(self.limits.pending_bytes_max),
            messages.saturating_sub(self.limits.pending_messages_max),
        )
    }
}

/// The `id:` line before an event of a stream of several channels.
fn event_id(
    cursor: &mut Cursor,
    channel: ChannelIndex,
    frame: &Frame,
    encode: &mut dyn Encode,
    ledger: &super::Ledger,
    scratch: &mut Vec<u8>,
) -> Frame {
    cursor.move_to(channel, frame.contents().last);
    scratch.clear();
    encode.event_id(&cursor.positions, cursor.hash, scratch);
    Frame::new(scratch, Contents::default(), ledger)
}
