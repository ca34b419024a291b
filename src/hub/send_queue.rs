//! What one connection has yet to be sent. Everything a client receives passes here, replies and control frames too,
//! so order is a property of the queue. An idle connection's queue owns no memory.

use std::collections::{HashSet, VecDeque};
use std::io::IoSlice;

use super::frame::Frame;
use crate::model::Position;

/// Names the channel of an entry within one hub.
pub(super) type Slot = u32;

/// The slot of entries that belong to no channel: replies, pushes for one client, control frames. No policy drops them.
pub(super) const NO_CHANNEL: Slot = Slot::MAX;

/// One frame in a queue. What is not a publication of its channel and no `gap` either is the `id:` line of the one
/// that follows: the two are pushed, and leave, together.
#[derive(Debug, Clone)]
struct Entry {
    frame: Frame,
    channel: Slot,
    /// In a `gap`: how many publications it stands for, or [`UNCOUNTED`]. 0 in every other entry.
    dropped: u32,
}

/// What a `gap` stands for when nobody could count.
const UNCOUNTED: u32 = u32::MAX;

impl Entry {
    fn is_gap(&self) -> bool {
        self.dropped > 0
    }

    fn is_event_id(&self) -> bool {
        self.channel != NO_CHANNEL && !self.is_gap() && self.frame.contents().publications == 0
    }

    /// What it counts against the bound of messages: an `id:` line counts with its publication.
    fn weight(&self) -> u32 {
        if self.is_event_id() {
            0
        } else {
            self.frame.contents().publications.max(1)
        }
    }
}

/// Most connections have nothing pending or one frame: neither allocates.
#[allow(
    clippy::box_collection,
    reason = "the box halves what every idle connection holds"
)]
#[derive(Debug, Default)]
enum Entries {
    #[default]
    Empty,
    One(Entry),
    Many(Box<VecDeque<Entry>>),
}

/// The pending frames of one connection, oldest first.
#[derive(Debug, Default)]
pub struct SendQueue {
    entries: Entries,
    /// Bytes not yet written; a shared frame counts in full.
    pending_bytes: usize,
    /// Frames and publications not yet written: a frame of several publications counts each.
    pending_messages: u32,
    /// Bytes of the first entry that were written already.
    written: u32,
}

/// What a policy took out of a queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Dropped {
    /// Publications, with those that an earlier `gap` in the queue stood for.
    pub(super) publications: u32,
    /// How many of them this call took out.
    pub(super) fresh: u32,
    /// Whether an earlier `gap` was among what was taken.
    pub(super) had_gap: bool,
    /// Whether one of those `gap`s could not say how many.
    pub(super) is_uncounted: bool,
    /// Where the stream stands at the place of the `gap`: what follows it in the queue comes after this.
    pub(super) position: Option<Position>,
    /// Where in the queue the `gap` belongs: where the first of them stood. Not later, because what is kept between
    /// two of them would tell the client that it stands behind the first, and it would come back from there.
    at: Option<usize>,
    /// Whether a publication of the channel that stays was passed since.
    is_passed: bool,
}

impl Dropped {
    /// Whether there is something to be told.
    pub(super) fn is_some(&self) -> bool {
        self.publications > 0 || self.is_uncounted
    }

    fn note(&mut self, entry: &Entry, at: usize) {
        if entry.is_gap() {
            self.had_gap = true;
            match entry.dropped {
                UNCOUNTED => self.is_uncounted = true,
                dropped => self.publications = self.publications.saturating_add(dropped),
            }
        } else {
            let publications = entry.frame.contents().publications;
            self.publications += publications;
            self.fresh += publications;
        }
        if !self.is_passed {
            self.position = entry.frame.contents().last;
        }
        self.at.get_or_insert(at);
    }
}

impl SendQueue {
    /// Whether nothing is pending.
    pub fn is_empty(&self) -> bool {
        matches!(self.entries, Entries::Empty)
    }

    /// Whether it holds no memory beside itself.
    #[cfg(test)]
    pub(super) fn owns_nothing(&self) -> bool {
        matches!(self.entries, Entries::Empty)
    }

    /// Bytes not yet written.
    pub fn pending_bytes(&self) -> usize {
        self.pending_bytes
    }

    /// Frames and publications not yet written.
    pub fn pending_messages(&self) -> usize {
        self.pending_messages as usize
    }

    /// Appends a frame that no policy may drop.
    pub(super) fn push(&mut self, frame: Frame) {
        self.push_entry(Entry {
            frame,
            channel: NO_CHANNEL,
            dropped: 0,
        });
    }

    /// Appends publications of a channel, or the `id:` line of the publication that is pushed next.
    pub(super) fn push_publications(&mut self, frame: Frame, channel: Slot) {
        self.push_entry(Entry {
            frame,
            channel,
            dropped: 0,
        });
    }

    fn push_entry(&mut self, entry: Entry) {
        self.pending_bytes += entry.frame.len();
        self.pending_messages += entry.weight();
        self.entries = match std::mem::take(&mut self.entries) {
            Entries::Empty => Entries::One(entry),
            Entries::One(first) => Entries::Many(Box::new(VecDeque::from([first, entry]))),
            Entries::Many(mut entries) => {
                entries.push_back(entry);
                Entries::Many(entries)
            }
        };
    }

    /// Appends a `gap` of a channel. A policy that takes publications behind it takes it with them, and everything of
    /// the channel before it: what the client is told must not go back behind it.
    pub(super) fn push_gap(&mut self, frame: Frame, channel: Slot, dropped: Option<u64>) {
        let counted = dropped.and_then(|dropped| u32::try_from(dropped).ok());
        self.push_entry(Entry {
            frame,
            channel,
            dropped: counted.filter(|dropped| *dropped > 0).unwrap_or(UNCOUNTED),
        });
    }

    /// What is pending of a channel stays, whatever happens in it from now on: its subscription is over, and what the
    /// slot names next is another.
    pub(super) fn release(&mut self, channel: Slot) {
        let entries: &mut dyn Iterator<Item = &mut Entry> = match &mut self.entries {
            Entries::Empty => return,
            Entries::One(entry) => &mut std::iter::once(entry),
            Entries::Many(entries) => &mut entries.iter_mut(),
        };
        for entry in entries.filter(|entry| entry.channel == channel) {
            entry.channel = NO_CHANNEL;
            entry.dropped = 0;
        }
        self.recount();
    }

    /// Fills `slices` with what to write next and says how many it filled.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        let mut skip = self.written as usize;
        for (slice, entry) in slices.iter_mut().zip(self.iter()) {
            *slice = IoSlice::new(&entry.frame.bytes()[skip..]);
            skip = 0;
            filled += 1;
        }
        filled
    }

    /// What is to be written when one frame is pending; `None` when there are none or several.
    pub fn only(&self) -> Option<&[u8]> {
        match &self.entries {
            Entries::One(entry) => Some(&entry.frame.bytes()[self.written as usize..]),
            _ => None,
        }
    }

    /// Takes note that so many bytes were written, and lets go of the frames that are done.
    pub fn advance(&mut self, mut bytes: usize) {
        self.pending_bytes = self.pending_bytes.saturating_sub(bytes);
        while let Some((length, weight)) = self.first() {
            let left = length - self.written as usize;
            if bytes < left {
                self.written += u32::try_from(bytes).unwrap_or(u32::MAX);
                return;
            }
            bytes -= left;
            self.written = 0;
            self.pending_messages = self.pending_messages.saturating_sub(weight);
            self.pop_front();
        }
    }

    /// Drops what is pending, but not the rest of a frame that was written in part: the peer's parser needs it.
    pub(super) fn clear_unwritten(&mut self) {
        if self.written == 0 {
            *self = Self::default();
            return;
        }
        if let Entries::Many(entries) = &mut self.entries {
            entries.truncate(1);
        }
        self.recount();
    }

    /// Takes the oldest publications of `channel` until `bytes` and `messages` are free of it, or none are left. Costs
    /// what stands before them and not what stands behind: a slow consumer comes here with every publication.
    pub(super) fn drop_oldest(&mut self, channel: Slot, bytes: usize, messages: usize) -> Dropped {
        let (bytes_before, messages_before) = (self.pending_bytes, self.pending_messages());
        let mut dropped = Dropped::default();
        let mut at = self.first_droppable();
        let mut entries = self.take_many();
        while let Some(entry) = entries.get(at) {
            let is_enough = bytes_before - self.pending_bytes >= bytes
                && messages_before - self.pending_messages() >= messages;
            if is_enough {
                break;
            }
            // The `id:` line of the first stays, for the `gap`.
            if entry.channel != channel || (entry.is_event_id() && dropped.at.is_none()) {
                at += 1;
                continue;
            }
            if !entry.is_event_id() {
                dropped.note(entry, at);
            }
            self.pending_bytes -= entry.frame.len();
            self.pending_messages -= entry.weight();
            entries.remove(at);
        }
        self.put_back(entries);
        dropped
    }

    /// Takes the publications of `channel` that a later pending one of the same key, or `next`, replaces.
    pub(super) fn keep_latest(&mut self, channel: Slot, next: &Frame) -> Dropped {
        let replaced = self.replaced(channel, next);
        let start = self.first_droppable();
        let last_gap = self.iter().enumerate().skip(start);
        let last_gap = last_gap
            .filter(|(_, entry)| entry.channel == channel && entry.dropped == UNCOUNTED)
            .map(|(index, _)| index)
            .last();
        let mut dropped = Dropped::default();
        let mut kept = VecDeque::new();
        let mut event_id = None;
        for (index, entry) in self.take_many().drain(..).enumerate() {
            if index < start || entry.channel != channel {
                kept.push_back(entry);
            } else if entry.is_event_id() {
                event_id = Some(entry);
            } else if entry.is_gap()
                || last_gap.is_some_and(|gap| index < gap)
                || replaced.binary_search_by(|at| index.cmp(at)).is_ok()
            {
                // The `id:` line of the first stays, for the `gap`.
                kept.extend(event_id.take().filter(|_| dropped.at.is_none()));
                dropped.note(&entry, kept.len());
            } else {
                dropped.is_passed = dropped.at.is_some();
                kept.extend(event_id.take());
                kept.push_back(entry);
            }
        }
        self.put_back(Box::new(kept));
        self.recount();
        dropped
    }

    /// Where publications stand that a later one of their key replaces; the last first.
    fn replaced(&self, channel: Slot, next: &Frame) -> Vec<usize> {
        let mut newest = HashSet::from([&next.contents().key]);
        let mut replaced = Vec::new();
        let start = self.first_droppable();
        let entries: Vec<&Entry> = self.iter().collect();
        for (index, entry) in entries.iter().enumerate().skip(start).rev() {
            if entry.channel == channel
                && !entry.is_gap()
                && !entry.is_event_id()
                && !newest.insert(&entry.frame.contents().key)
            {
                replaced.push(index);
            }
        }
        replaced
    }

    /// Puts the `gap` frame where the first of the dropped publications stood.
    pub(super) fn insert_gap(&mut self, channel: Slot, frame: Frame, dropped: Dropped) {
        let entry = Entry {
            frame,
            channel,
            dropped: match dropped.is_uncounted {
                true => UNCOUNTED,
                false => dropped.publications.max(1),
            },
        };
        if self.is_empty() {
            return self.push_entry(entry);
        }
        self.pending_bytes += entry.frame.len();
        self.pending_messages += entry.weight();
        let mut entries = self.take_many();
        let at = dropped.at.unwrap_or(entries.len()).min(entries.len());
        entries.insert(at, entry);
        self.put_back(entries);
    }

    /// The first entry that a policy may take: not one that was written in part.
    fn first_droppable(&self) -> usize {
        usize::from(self.written > 0)
    }

    #[allow(clippy::box_collection, reason = "it goes back as it is")]
    fn take_many(&mut self) -> Box<VecDeque<Entry>> {
        match std::mem::take(&mut self.entries) {
            Entries::Empty => Box::default(),
            Entries::One(entry) => Box::new(VecDeque::from([entry])),
            Entries::Many(entries) => entries,
        }
    }

    #[allow(clippy::box_collection, reason = "it goes back as it was taken")]
    fn put_back(&mut self, entries: Box<VecDeque<Entry>>) {
        self.entries = if entries.is_empty() {
            Entries::Empty
        } else {
            Entries::Many(entries)
        };
    }

    fn recount(&mut self) {
        let bytes: usize = self.iter().map(|entry| entry.frame.len()).sum();
        self.pending_bytes = bytes - (self.written as usize).min(bytes);
        self.pending_messages = self.iter().map(Entry::weight).sum();
    }

    /// The length and the weight of the first entry.
    fn first(&self) -> Option<(usize, u32)> {
        self.iter()
            .next()
            .map(|entry| (entry.frame.len(), entry.weight()))
    }

    fn pop_front(&mut self) {
        self.entries = match std::mem::take(&mut self.entries) {
            Entries::Empty | Entries::One(_) => Entries::Empty,
            Entries::Many(mut entries) => {
                entries.pop_front();
                return self.put_back(entries);
            }
        };
    }

    fn iter(&self) -> impl Iterator<Item = &Entry> {
        let (one, many) = match &self.entries {
            Entries::Empty => (None, None),
            Entries::One(entry) => (Some(entry), None),
            Entries::Many(entries) => (None, Some(entries.iter())),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::frame::{Contents, Ledger};
    use super::*;
    use crate::model::Epoch;

    fn at(offset: u64) -> Position {
        Position::new(Epoch::from_bits(1), offset)
    }

    fn reply(text: &str) -> Frame {
        Frame::new(text.as_bytes(), Contents::default(), &Ledger::default())
    }

    fn publication(text: &str, offset: u64, key: Option<&str>) -> Frame {
        let contents = Contents {
            publications: 1,
            last: Some(at(offset)),
            key: key.map(Arc::from),
        };
        Frame::new(text.as_bytes(), contents, &Ledger::default())
    }

    fn text(queue: &SendQueue) -> String {
        let mut slices = [IoSlice::new(&[]); 64];
        let count = queue.slices(&mut slices);
        slices[..count]
            .iter()
            .map(|slice| String::from_utf8_lossy(slice))
            .collect()
    }

    #[test]
    fn what_was_pushed_comes_out_in_order_however_it_is_cut() {
        for step in 1..12 {
            let mut queue = SendQueue::default();
            for part in ["alpha", "b", "gamma"] {
                queue.push(reply(part));
            }
            let mut out = String::new();
            while !queue.is_empty() {
                let pending = text(&queue);
                assert_eq!(pending.len(), queue.pending_bytes());
                let taken = step.min(pending.len());
                out.push_str(&pending[..taken]);
                queue.advance(taken);
            }
            assert_eq!(out, "alphabgamma");
            assert_eq!((queue.pending_bytes(), queue.pending_messages()), (0, 0));
        }
    }

    #[test]
    fn drop_oldest_spares_replies_other_channels_and_the_partly_written_frame() {
        let mut queue = SendQueue::default();
        queue.push_publications(publication("p1", 1, None), 7);
        queue.push(reply("r"));
        queue.push_publications(publication("p2", 2, None), 7);
        queue.push_publications(publication("o1", 1, None), 8);
        queue.push_publications(publication("p3", 3, None), 7);
        queue.advance(1);
        let dropped = queue.drop_oldest(7, 2, 0);
        assert_eq!((dropped.publications, dropped.position), (1, Some(at(2))));
        queue.insert_gap(7, reply("<gap>"), dropped);
        assert_eq!(text(&queue), "1r<gap>o1p3");
        assert_eq!(queue.pending_bytes(), "1r<gap>o1p3".len());
    }

    #[test]
    fn a_second_drop_merges_the_gap_that_is_still_pending() {
        let mut queue = SendQueue::default();
        for offset in 1..=4 {
            queue.push_publications(publication("p", offset, None), 7);
        }
        let first = queue.drop_oldest(7, 1, 1);
        queue.insert_gap(7, reply("<1>"), first);
        // As much as the new one and the old `gap`: that one leaves too.
        let second = queue.drop_oldest(7, 4, 2);
        assert_eq!(
            (second.publications, second.fresh, second.position),
            (2, 1, Some(at(2)))
        );
        queue.insert_gap(7, reply("<2>"), second);
        assert_eq!(text(&queue), "<2>pp");
    }

    #[test]
    fn latest_keeps_the_newest_of_each_key() {
        let mut queue = SendQueue::default();
        for (offset, name, key) in [
            (1, "a1", "a"),
            (2, "b2", "b"),
            (3, "a3", "a"),
            (4, "c4", "c"),
        ] {
            queue.push_publications(publication(name, offset, Some(key)), 7);
        }
        let dropped = queue.keep_latest(7, &publication("b5", 5, Some("b")));
        assert_eq!((dropped.publications, dropped.position), (2, Some(at(2))));
        queue.insert_gap(7, reply("<gap>"), dropped);
        assert_eq!(text(&queue), "<gap>a3c4");
    }

    #[test]
    fn clearing_keeps_the_rest_of_a_frame_that_was_begun() {
        let mut queue = SendQueue::default();
        queue.push(reply("begun"));
        queue.push(reply("not begun"));
        queue.advance(2);
        queue.clear_unwritten();
        assert_eq!(text(&queue), "gun");
        assert_eq!(queue.pending_bytes(), 3);
        queue.advance(3);
        assert!(queue.is_empty());
    }
}
