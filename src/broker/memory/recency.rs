//! The channels of a shard that keep publications, in the order of their last publication: which gives up its oldest
//! ones first when the memory for history is spent. A doubly linked list whose links stand in the channels' own
//! records, so that publishing moves a channel to the end in constant time and allocates nothing.

use slab::Slab;

use super::channel::Channel;

/// Where a channel's record stands in its shard.
pub(super) type Slot = u32;

/// No record: the end of the list. A shard never has so many.
const END: Slot = Slot::MAX;

/// A channel's neighbours in the list.
#[derive(Debug, Clone, Copy)]
pub(super) struct Links {
    older: Slot,
    newer: Slot,
}

/// The ends of the list.
#[derive(Debug)]
pub(super) struct Recency {
    oldest: Slot,
    newest: Slot,
}

impl Recency {
    /// The empty list.
    pub(super) const fn new() -> Self {
        Self {
            oldest: END,
            newest: END,
        }
    }

    /// The channel whose last publication is the longest ago.
    pub(super) const fn oldest(&self) -> Option<Slot> {
        match self.oldest {
            END => None,
            slot => Some(slot),
        }
    }

    /// Makes a channel the newest, whether it is in the list or not.
    pub(super) fn touch(&mut self, channels: &mut Slab<Channel>, slot: Slot) {
        if self.newest == slot {
            return;
        }
        self.remove(channels, slot);
        let older = self.newest;
        set(channels, slot, Some(Links { older, newer: END }));
        match older {
            END => self.oldest = slot,
            _ => update(channels, older, |links| links.newer = slot),
        }
        self.newest = slot;
    }

    /// Takes a channel out, if it is in the list.
    pub(super) fn remove(&mut self, channels: &mut Slab<Channel>, slot: Slot) {
        let Some(Links { older, newer }) = channels[slot as usize].links else {
            return;
        };
        set(channels, slot, None);
        match older {
            END => self.oldest = newer,
            _ => update(channels, older, |links| links.newer = newer),
        }
        match newer {
            END => self.newest = older,
            _ => update(channels, newer, |links| links.older = older),
        }
    }
}

// The list names only records that are there: a record is taken out of the list before it is removed.

fn set(channels: &mut Slab<Channel>, slot: Slot, links: Option<Links>) {
    channels[slot as usize].links = links;
}

fn update(channels: &mut Slab<Channel>, slot: Slot, change: impl FnOnce(&mut Links)) {
    if let Some(links) = &mut channels[slot as usize].links {
        change(links);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ChannelKey, Moment};

    /// Touches (positive) and removes (negative, one's complement) and returns the slots from the oldest on.
    fn order_after(steps: &[i32]) -> Vec<Slot> {
        let mut channels = Slab::new();
        for name in ["a", "b", "c", "d"] {
            let key = ChannelKey::new(name).expect("a channel name");
            channels.insert(Channel::new(key, None, Moment::default()));
        }
        let mut recency = Recency::new();
        for step in steps {
            match Slot::try_from(*step) {
                Ok(slot) => recency.touch(&mut channels, slot),
                Err(_) => recency.remove(&mut channels, !*step as Slot),
            }
        }
        let mut order = Vec::new();
        while let Some(slot) = recency.oldest() {
            order.push(slot);
            recency.remove(&mut channels, slot);
        }
        assert_eq!(recency.newest, END);
        order
    }

    #[test]
    fn the_first_touched_is_the_oldest() {
        assert_eq!(order_after(&[2, 0, 1]), [2, 0, 1]);
    }

    #[test]
    fn a_touch_makes_the_newest_from_any_place() {
        assert_eq!(order_after(&[0, 1, 2, 0]), [1, 2, 0]);
        assert_eq!(order_after(&[0, 1, 2, 1]), [0, 2, 1]);
        assert_eq!(order_after(&[0, 1, 2, 2]), [0, 1, 2]);
    }

    #[test]
    fn one_that_is_removed_is_gone_from_any_place() {
        assert_eq!(order_after(&[0, 1, 2, !0]), [1, 2]);
        assert_eq!(order_after(&[0, 1, 2, !1]), [0, 2]);
        assert_eq!(order_after(&[0, 1, 2, !2]), [0, 1]);
        assert_eq!(order_after(&[0, !0]), [0; 0]);
        assert_eq!(order_after(&[0, !3, !3]), [0]);
    }
}
