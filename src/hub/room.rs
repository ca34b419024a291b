//! Room in a queue for one more frame, and what a policy does to make it.

use crate::model::{ChannelKey, Encode, OverflowPolicy};

use super::ChannelIndex;
use super::connection::Connection;
use super::fan_out::Delivered;
use super::frame::{Contents, Frame};
use super::send_queue::SendQueue;

/// What it takes to make room in one queue for a frame of one channel.
pub(super) struct Room<'a> {
    pub(super) limits: &'a super::Limits,
    pub(super) ledger: &'a super::Ledger,
    pub(super) key: &'a ChannelKey,
    pub(super) policy: OverflowPolicy,
    pub(super) channel: ChannelIndex,
    /// How much is to be appended.
    pub(super) bytes: usize,
    pub(super) messages: usize,
}

/// Bytes to keep free for the `gap` that a policy puts into the queue.
const GAP_BYTES: usize = 512;

/// What keeping the latest of each key frees, at least: this part of a bound.
const LATEST_FREES_A: usize = 64;

impl Room<'_> {
    /// Whether the frame fits, after the policy did what it could.
    pub(super) fn make(
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
