//! Delivery: publications, joins and gaps into the queues of all who receive them.

use std::sync::Arc;

use crate::model::{
    ChannelKey, Encode, Event, Member, OverflowPolicy, Position, Publication, WireFormat,
};

use super::connection::Cursor;
use super::frame::{Contents, Frame};
use super::room::Room;
use super::{ChannelIndex, ConnectionIndex, Hub};

/// The most bytes of publications that are joined into one frame. Joining halves the cost of a burst; the bound keeps
/// a queue's steps small against its capacity.
const JOINED_BYTES_MAX: usize = 32 * 1024;

/// A joined frame is at most this part of what may be pending: it must never be the frame itself that does not fit.
const JOINED_PART: usize = 8;

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

impl Hub {
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

    /// Tells all who asked for it that members joined or left.
    pub fn announce(&mut self, channel: ChannelIndex, event: &Event, encode: &mut dyn Encode) {
        let Some(slot) = self.channels.get(channel as usize) else {
            return;
        };
        let (Event::Join(members) | Event::Leave(members)) = event else {
            return;
        };
        if slot.watchers.is_empty() {
            return;
        }
        let (key, watchers) = (slot.key.clone(), slot.watchers.clone());
        let is_join = matches!(event, Event::Join(_));
        for member in members.iter() {
            let frames = WireFormat::ALL
                .map(|format| self.encode_presence(format, &key, member, is_join, encode));
            self.tell_watchers(channel, &watchers, &frames);
        }
    }

    /// Tells all who asked for join and leave who is there, as `write` says it in each format; nothing where it writes nothing.
    pub fn tell_presence(
        &mut self,
        channel: ChannelIndex,
        write: impl Fn(WireFormat, &mut Vec<u8>),
    ) {
        let Some(slot) = self.channels.get(channel as usize) else {
            return;
        };
        let watchers = slot.watchers.clone();
        let frames = WireFormat::ALL.map(|format| {
            self.scratch.clear();
            write(format, &mut self.scratch);
            Frame::new(&self.scratch, Contents::default(), &self.ledger)
        });
        self.tell_watchers(channel, &watchers, &frames);
    }

    fn tell_watchers(
        &mut self,
        channel: ChannelIndex,
        watchers: &[ConnectionIndex],
        frames: &[Frame],
    ) {
        for watcher in watchers {
            let Some(entry) = self.connections.get(*watcher as usize) else {
                continue;
            };
            let is_live = entry
                .find(channel)
                .is_ok_and(|at| entry.subscriptions[at].index != super::PAUSED);
            let frame = &frames[entry.format.index()];
            if is_live && !frame.is_empty() {
                self.send_frame(*watcher, frame.clone());
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
