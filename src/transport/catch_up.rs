//! From a position to the present: what a subscriber missed, page by page, then what comes.
//!
//! Pages follow the room in the queue. Live publications are not kept for a client that catches up: it reads on until it
//! stands where the hub's other subscribers stand, and receives with them from there. What a page brings beyond that is
//! left out, because it will come. What is to be done is decided in `relay::follow`.

use std::sync::Arc;
use std::time::Duration;

use crate::broker::{BrokerError, Page, ReadLimit, Recovery};
use crate::hub::{ChannelIndex, ConnectionIndex, Contents};
use crate::model::{ChannelKey, Encode as _, Position, Publication, WireFormat};
use crate::relay::follow::{self, Step};

use super::questions::Done;
use super::shard::Shard;
use super::socket::{CatchUp, ConnectionRef};

/// The most bytes and publications of one page: small enough that others get their turn.
const PAGE_BYTES: usize = 256 * 1024;
const PAGE_PUBLICATIONS: usize = 512;

/// How long a subscriber waits for a broker that is away.
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// How long a subscriber that is ahead of its hub waits for it: the rest is in the inbox, or on its way.
const AHEAD_AFTER: Duration = Duration::from_millis(2);

/// A page is asked for while at most this part of the queue is pending. Not only while nothing is: a busy channel of the same
/// connection may leave something in each turn, and what was missed would never come.
const PENDING_PART: usize = 4;

/// How many subscribers go on catching up in one turn.
const STEPS_A_TURN: usize = 64;

/// Whether a page may be asked for: with so many bytes and messages pending, where these are the most. `needs_all`: what
/// comes next fits an empty queue only.
fn may_read(pending: (usize, usize), most: (usize, usize), needs_all: bool) -> bool {
    let is_part = pending.0 <= most.0 / PENDING_PART && pending.1 <= most.1 / PENDING_PART;
    pending.1 == 0 || (is_part && !needs_all)
}

impl Shard {
    /// How much the connection's queue has room for: half of what is free.
    pub(super) fn page_limit(&mut self, connection: ConnectionIndex) -> ReadLimit {
        let config = &self.context.config;
        let (bytes_max, messages_max) = (config.pending_bytes_max, config.pending_messages_max);
        let queue = self.hub.queue(connection);
        let (bytes, messages) = queue.map_or((0, 0), |queue| {
            (queue.pending_bytes(), queue.pending_messages())
        });
        let (bytes, messages) = (
            bytes_max.saturating_sub(bytes) / 4,
            messages_max.saturating_sub(messages) / 2,
        );
        ReadLimit {
            publications: messages.clamp(1, PAGE_PUBLICATIONS),
            bytes: bytes.min(PAGE_BYTES),
        }
    }

    /// Lets a subscriber receive: at once, or after what it missed.
    pub(super) fn receive(
        &mut self,
        connection: ConnectionRef,
        channel: &ChannelKey,
        position: Option<Position>,
        missed: Option<Page>,
    ) {
        let Some(index) = self.hub.find_channel(channel) else {
            return;
        };
        self.hub.move_cursor(connection.index, index, position);
        let top = self.hub.channel(index).and_then(|slot| slot.position());
        let Some(course) = follow::CatchUp::begin(position, missed.is_some(), top) else {
            return self.hub.go_live(connection.index, index);
        };
        let Some(socket) = self.sockets.find(connection) else {
            return;
        };
        let catch_up = CatchUp {
            channel: channel.clone(),
            course,
            needs_all: false,
        };
        socket.catch_ups.push(catch_up);
        match missed {
            Some(page) => self.send_page(connection, channel, &page),
            None => self.waiting.catching_up.join((connection, channel.clone())),
        }
    }

    /// A further page came.
    pub(super) fn caught_up(
        &mut self,
        connection: ConnectionRef,
        channel: &ChannelKey,
        from: Position,
        recovery: Result<Recovery, BrokerError>,
    ) {
        let catch_up = self.catch_up(connection, channel);
        if !catch_up.is_some_and(|catch_up| catch_up.course.handle_page(from)) {
            return;
        }
        match recovery {
            Ok(Recovery::Recovered(page)) => self.send_page(connection, channel, &page),
            Ok(Recovery::Lost { .. }) => self.give_up(connection, channel),
            Err(_) => self.ask_again_later(connection, channel, RETRY_AFTER),
        }
    }

    fn catch_up(
        &mut self,
        connection: ConnectionRef,
        channel: &ChannelKey,
    ) -> Option<&mut CatchUp> {
        let socket = self.sockets.find(connection)?;
        socket
            .catch_ups
            .iter_mut()
            .find(|catch_up| catch_up.channel == *channel)
    }

    fn end_catch_up(&mut self, connection: ConnectionRef, channel: &ChannelKey) {
        let Some(socket) = self.sockets.find(connection) else {
            return;
        };
        socket
            .catch_ups
            .retain(|catch_up| catch_up.channel != *channel);
        if socket.catch_ups.is_empty() {
            socket.catch_ups = Vec::new();
        }
        if let Some(index) = self.hub.find_channel(channel) {
            self.hub.go_live(connection.index, index);
        }
    }

    /// What it missed is no longer kept: says so, and goes on with what comes.
    fn give_up(&mut self, connection: ConnectionRef, channel: &ChannelKey) {
        let Some(catch_up) = self.catch_up(connection, channel) else {
            return;
        };
        let from = catch_up.course.position();
        let Some(index) = self.hub.find_channel(channel) else {
            return;
        };
        let top = self
            .hub
            .channel(index)
            .and_then(|channel| channel.position());
        let gap = follow::give_up(from, top);
        self.tell_gap(connection.index, channel, gap.dropped, gap.position);
        self.end_catch_up(connection, channel);
    }

    /// Tells one client that it missed something.
    pub(super) fn tell_gap(
        &mut self,
        connection: ConnectionIndex,
        channel: &ChannelKey,
        dropped: Option<u64>,
        position: Option<Position>,
    ) {
        let Some(format) = self.hub.format(connection) else {
            return;
        };
        if let Some(index) = self.hub.find_channel(channel) {
            self.hub.move_cursor(connection, index, position);
        }
        self.tools.scratch.clear();
        if let Some((positions, hash)) = self.hub.cursor(connection) {
            self.encoder
                .event_id(positions, hash, &mut self.tools.scratch);
        }
        self.encoder
            .gap(format, channel, dropped, position, &mut self.tools.scratch);
        self.hub.send(connection, &self.tools.scratch);
        self.counts.gaps += 1;
    }

    /// Sends what of a page lies before the present, and goes on from there.
    fn send_page(&mut self, connection: ConnectionRef, channel: &ChannelKey, page: &Page) {
        let Some(index) = self.hub.find_channel(channel) else {
            return;
        };
        let Some(top) = self
            .hub
            .channel(index)
            .and_then(|channel| channel.position())
        else {
            return;
        };
        let publications = follow::presentable(page, top);
        let reached = self.send_publications(connection, channel, publications, top);
        if let Some(catch_up) = self.catch_up(connection, channel) {
            catch_up.needs_all = reached.is_none() && !publications.is_empty();
            if let Some(offset) = reached {
                catch_up.course.advance(Position::new(top.epoch, offset));
            }
        }
        self.waiting.catching_up.join((connection, channel.clone()));
    }

    /// Sends publications to one client, as the others got them: as many as fit half of the room that is left now. Other
    /// channels' pages may have come since this one was asked for, and a page is counted without its frames. Answers the
    /// last offset that was sent.
    fn send_publications(
        &mut self,
        connection: ConnectionRef,
        channel: &ChannelKey,
        publications: &[Arc<Publication>],
        top: Position,
    ) -> Option<u64> {
        let format = self.hub.format(connection.index)?;
        let index = self.hub.find_channel(channel)?;
        let is_new_epoch = self
            .catch_up(connection, channel)
            .is_some_and(|catch_up| catch_up.course.is_new_epoch(top));
        let connection = connection.index;
        let config = &self.context.config;
        let queue = self.hub.queue(connection)?;
        let is_empty = queue.is_empty();
        let room = config
            .pending_bytes_max
            .saturating_sub(queue.pending_bytes())
            / 2;
        let count = config
            .pending_messages_max
            .saturating_sub(queue.pending_messages())
            / 2;
        self.tools.scratch.clear();
        let mut sent = 0_usize;
        for publication in publications.iter().take(count.max(usize::from(is_empty))) {
            let end = self.tools.scratch.len();
            let first = is_new_epoch && sent == 0;
            self.encode_missed((connection, index, format), publication, top, first);
            // The first may take all that is free, and alone in an empty queue any publication fits.
            let fits = is_empty || self.tools.scratch.len() / 2 <= room;
            if self.tools.scratch.len() > room && !(fits && sent == 0) {
                self.tools.scratch.truncate(end);
                break;
            }
            sent += 1;
        }
        let last = publications.get(sent.checked_sub(1)?)?.offset;
        self.hub
            .move_cursor(connection, index, Some(Position::new(top.epoch, last)));
        let contents = Contents {
            publications: u32::try_from(sent).unwrap_or(u32::MAX),
            ..Contents::default()
        };
        self.hub
            .send_contents(connection, &self.tools.scratch, contents);
        self.counts.deliveries += sent as u64;
        Some(last)
    }

    /// Appends one publication's frame to the scratch, with the `id:` line where that is the connection's own. `first`: it is the first of its
    /// epoch that the client sees.
    fn encode_missed(
        &mut self,
        (connection, channel, format): (ConnectionIndex, ChannelIndex, WireFormat),
        publication: &Publication,
        top: Position,
        first: bool,
    ) {
        let scratch = &mut self.tools.scratch;
        if format == WireFormat::SseMany {
            let at = Position::new(top.epoch, publication.offset);
            self.hub.move_cursor(connection, channel, Some(at));
            if let Some((positions, hash)) = self.hub.cursor(connection) {
                self.encoder.event_id(positions, hash, scratch);
            }
        }
        if let Some(slot) = self.hub.channel(channel) {
            self.encoder.publication(
                format,
                slot.key(),
                publication,
                Some(top.epoch),
                first,
                scratch,
            );
        }
    }

    /// Goes on with some of those who catch up.
    pub(super) fn go_on_catching_up(&mut self) {
        for _ in 0..self.waiting.catching_up.len().min(STEPS_A_TURN) {
            if let Some((connection, channel)) = self.waiting.catching_up.next() {
                self.step(connection, &channel);
            }
        }
    }

    /// One step: receive with the others, read the next page, or wait for room.
    fn step(&mut self, connection: ConnectionRef, channel: &ChannelKey) {
        let Some(index) = self.hub.find_channel(channel) else {
            return;
        };
        let Some((position, stage)) = self
            .hub
            .channel(index)
            .map(|slot| (slot.position(), slot.stage()))
        else {
            return;
        };
        let queue = self.hub.queue(connection.index);
        let Some(pending) = queue.map(|queue| (queue.pending_bytes(), queue.pending_messages()))
        else {
            return;
        };
        let config = &self.context.config;
        let most = (config.pending_bytes_max, config.pending_messages_max);
        let Some(catch_up) = self.catch_up(connection, channel) else {
            return;
        };
        let has_room = may_read(pending, most, catch_up.needs_all);
        match catch_up.course.step(position, stage, has_room) {
            Step::GoLive => self.end_catch_up(connection, channel),
            Step::Wait => self.ask_again_later(connection, channel, AHEAD_AFTER),
            Step::Read(from) => self.read_page(connection, channel, from),
            // Without room it goes on when its queue is written.
            Step::Rest => {}
        }
    }

    fn ask_again_later(
        &mut self,
        connection: ConnectionRef,
        channel: &ChannelKey,
        after: Duration,
    ) {
        let (front, channel) = (self.front.clone(), channel.clone());
        if !self
            .waiting
            .catching_up
            .hold_back((connection, channel.clone()))
        {
            return;
        }
        tokio::task::spawn_local(async move {
            tokio::time::sleep(after).await;
            front.finish(Done::Retry(connection, channel));
        });
    }

    /// A subscriber that had to wait may go on.
    pub(super) fn retry(&mut self, connection: ConnectionRef, channel: ChannelKey) {
        self.waiting.catching_up.let_in((connection, channel));
    }

    fn read_page(&mut self, connection: ConnectionRef, channel: &ChannelKey, from: Position) {
        let limit = self.page_limit(connection.index);
        let (relay, channel) = (self.context.relay.clone(), channel.clone());
        self.when_done(async move {
            let recovery = relay.broker().recover(&channel, from, limit).await;
            Done::CaughtUp(connection, channel, from, recovery)
        });
    }

    /// The connection's queue was written: whoever catches up goes on.
    pub(super) fn has_room(&mut self, connection: ConnectionIndex) {
        let Some(socket) = self.sockets.get_mut(connection) else {
            return;
        };
        let connection = ConnectionRef {
            index: connection,
            generation: socket.generation,
        };
        for catch_up in &socket.catch_ups {
            self.waiting
                .catching_up
                .join((connection, catch_up.channel.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_channel_leaves_pending_in_each_turn_does_not_keep_pages_out() {
        let most = (1000, 100);
        assert!(may_read((0, 0), most, true));
        assert!(may_read((250, 25), most, false));
        assert!(!may_read((251, 1), most, false), "too many bytes");
        assert!(!may_read((1, 26), most, false), "too many messages");
        assert!(!may_read((1, 1), most, true), "it fits an empty queue only");
    }
}
