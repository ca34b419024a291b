//! Into one connection's queue, whose queue is written next, and who goes when there is too much for all.

use super::frame::{Contents, Frame};
use super::send_queue::SendQueue;
use super::{ChannelIndex, ConnectionIndex, Hub};

/// The most bytes of a frame's header (RFC 6455 section 5.2, without mask).
const FRAME_HEADER_BYTES_MAX: usize = 10;

impl Hub {
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

    pub(super) fn send_gap(
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

    /// Whether so many bytes and messages more would fit the connection's queue.
    pub fn has_room_for(&self, connection: ConnectionIndex, bytes: usize, messages: usize) -> bool {
        let entry = self.connections.get(connection as usize);
        entry.is_some_and(|entry| {
            entry.queue.pending_bytes() + bytes <= self.limits.pending_bytes_max
                && entry.queue.pending_messages() + messages <= self.limits.pending_messages_max
        })
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
