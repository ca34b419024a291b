//! One channel's stream: its numbering and the publications that are kept. Sans-IO: the time and the policy are
//! handed in, nothing is locked, nothing is delivered.
//!
//! Offsets are dense: publications leave only at the old end, so the kept ones are always `top - kept + 1 ..= top` and
//! a position is turned into an index by subtraction. The numbering never goes back, whatever is expired, trimmed or
//! cleared.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::broker::{Page, ReadLimit, Recovery};
use crate::model::{Epoch, HistoryPolicy, Moment, Position, Publication};

/// How many expired publications an append lets go: more than one, so that a stream that was full of expired ones
/// empties while it is used, and few, so that no publisher pays for all of them.
const EXPIRED_PER_APPEND: usize = 8;

/// What a kept publication costs beside its data: its record with the reference counts, its place in the queue and
/// the allocator's share of the data, in bytes. An estimate, not a measurement of the allocator.
const RECORD_BYTES: usize = 160;

/// A publication and when it came.
#[derive(Debug)]
struct Kept {
    publication: Arc<Publication>,
    published: Moment,
}

/// The history of one channel. Reads take `&self` and pass over what has expired; [`Stream::append`] and
/// [`Stream::expire`] let it go, a bounded number at a time.
#[derive(Debug)]
pub(super) struct Stream {
    epoch: Epoch,
    top: u64,
    kept: VecDeque<Kept>,
    bytes: usize,
}

impl Stream {
    /// A stream without publications.
    pub(super) const fn new(epoch: Epoch) -> Self {
        Self {
            epoch,
            top: 0,
            kept: VecDeque::new(),
            bytes: 0,
        }
    }

    /// Where it stands: its top.
    pub(super) const fn position(&self) -> Position {
        Position::new(self.epoch, self.top)
    }

    /// What the kept publications cost, in bytes; expired ones count until they are let go.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether no publication is kept, not even an expired one.
    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// When the newest kept publication came.
    pub(super) fn published(&self) -> Option<Moment> {
        self.kept.back().map(|kept| kept.published)
    }

    /// Numbers a publication, whose own offset is ignored, and keeps it.
    pub(super) fn append(
        &mut self,
        mut publication: Publication,
        policy: &HistoryPolicy,
        now: Moment,
    ) -> Arc<Publication> {
        self.top += 1;
        publication.offset = self.top;
        let publication = Arc::new(publication);
        self.expire(policy, now, EXPIRED_PER_APPEND);
        while self.kept.len() >= (policy.size as usize).max(1) {
            self.drop_oldest();
        }
        self.bytes += cost(&publication);
        self.kept.push_back(Kept {
            publication: Arc::clone(&publication),
            // Two threads may read the clock in one order and get here in the other; `live_from` searches by halves
            // and needs the moments in order.
            published: self.published().map_or(now, |last| last.max(now)),
        });
        publication
    }

    /// The publications after `since` that are still kept; from the oldest when `since` is absent, of another epoch,
    /// or before what is kept. An offset beyond the top reads as an empty page.
    pub(super) fn history(
        &self,
        since: Option<Position>,
        limit: ReadLimit,
        policy: &HistoryPolicy,
        now: Moment,
    ) -> Page {
        let live = self.live_from(policy, now);
        let start = since
            .filter(|since| since.epoch == self.epoch)
            .map_or(live, |since| {
                self.index_after(since.offset.min(self.top)).max(live)
            });
        self.page(start, limit)
    }

    /// What came after `since`, or that it cannot be said. Recovered if and only if the epoch is this one, the offset
    /// is not from the future, and nothing after it has left.
    pub(super) fn recover(
        &self,
        since: Position,
        limit: ReadLimit,
        policy: &HistoryPolicy,
        now: Moment,
    ) -> Recovery {
        let lost = Recovery::Lost {
            top: self.position(),
            // Memory is not rolled back.
            fork: None,
        };
        if since.epoch != self.epoch || since.offset > self.top {
            return lost;
        }
        // With nothing kept the first live index is that of "after the top", so only `offset == top` passes.
        let before_first = self.before_oldest() + self.live_from(policy, now) as u64;
        if since.offset < before_first {
            return lost;
        }
        Recovery::Recovered(self.page(self.index_after(since.offset), limit))
    }

    /// Lets expired publications go, at most `most` of them; how many went.
    pub(super) fn expire(&mut self, policy: &HistoryPolicy, now: Moment, most: usize) -> usize {
        let before = self.kept.len();
        for _ in 0..most {
            match self.kept.front() {
                Some(oldest) if is_expired(oldest, policy, now) => self.drop_oldest(),
                _ => break,
            }
        }
        // A quarter: an ordinary stream swings between full and half full and must not reallocate for it.
        if self.kept.len() < self.kept.capacity() / 4 {
            self.kept.shrink_to(self.kept.len());
        }
        before - self.kept.len()
    }

    /// Lets the oldest publications go until at least `bytes` are freed or none is left.
    pub(super) fn trim(&mut self, bytes: usize) {
        let goal = self.bytes.saturating_sub(bytes);
        while self.bytes > goal {
            self.drop_oldest();
        }
        if self.kept.is_empty() {
            self.kept = VecDeque::new();
        }
    }

    /// Lets all publications go. The numbering goes on.
    pub(super) fn clear(&mut self) {
        self.kept = VecDeque::new();
        self.bytes = 0;
    }

    /// The offset before the oldest kept publication; the top when none is kept.
    fn before_oldest(&self) -> u64 {
        self.top - self.kept.len() as u64
    }

    /// The index of the first publication after `offset`, which is at most the top.
    fn index_after(&self, offset: u64) -> usize {
        usize::try_from(offset.saturating_sub(self.before_oldest())).unwrap_or(self.kept.len())
    }

    /// The index of the first publication that has not expired.
    fn live_from(&self, policy: &HistoryPolicy, now: Moment) -> usize {
        match self.kept.front() {
            Some(oldest) if is_expired(oldest, policy, now) => self
                .kept
                .partition_point(|kept| is_expired(kept, policy, now)),
            _ => 0,
        }
    }

    fn page(&self, start: usize, limit: ReadLimit) -> Page {
        let start = start.min(self.kept.len());
        let mut bytes = 0usize;
        let publications: Vec<_> = self
            .kept
            .range(start..)
            .take(limit.publications)
            .map(|kept| &kept.publication)
            .enumerate()
            .take_while(|(index, publication)| {
                bytes = bytes.saturating_add(publication.data.len());
                *index == 0 || bytes <= limit.bytes
            })
            .map(|(_, publication)| Arc::clone(publication))
            .collect();
        Page {
            more: start + publications.len() < self.kept.len(),
            publications,
            top: self.position(),
        }
    }

    fn drop_oldest(&mut self) {
        match self.kept.pop_front() {
            Some(oldest) => self.bytes -= cost(&oldest.publication),
            // Nothing kept costs nothing; said again so that `trim` ends whatever the sums say.
            None => self.bytes = 0,
        }
    }
}

fn is_expired(kept: &Kept, policy: &HistoryPolicy, now: Moment) -> bool {
    now.since(kept.published) >= policy.ttl
}

fn cost(publication: &Publication) -> usize {
    RECORD_BYTES + publication.data.len() + publication.key.as_ref().map_or(0, |key| key.len())
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
