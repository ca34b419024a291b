//! A part of the channels behind one lock: their records, found by name. Everything that changes what a stream keeps
//! goes through [`Shard::change_stream`], so that the sum of bytes and the order for eviction are always right.

use std::hash::BuildHasher as _;
use std::time::Duration;

use hashbrown::{DefaultHashBuilder, HashTable};
use slab::Slab;

use super::channel::Channel;
use super::recency::{Recency, Slot};
use super::stream::Stream;
use crate::model::{ChannelKey, Moment, Namespaces};

/// The most expired publications that one call lets go: about half a millisecond under the lock.
const EXPIRED_PER_CALL: usize = 4096;

/// Places that a shard keeps though they are empty: about 200 KB.
const PLACES_KEPT: usize = 1024;

/// The records of some channels. A [`Slot`] is valid under the lock under which it was found.
#[derive(Debug)]
pub(super) struct Shard {
    /// The slots of the records, by their channel's name.
    slots: HashTable<Slot>,
    channels: Slab<Channel>,
    recency: Recency,
    /// What the kept publications cost.
    bytes: usize,
    /// Where the sweep goes on.
    hand: usize,
    hasher: DefaultHashBuilder,
}

impl Shard {
    /// No channels. All shards hash alike.
    pub(super) const fn new(hasher: DefaultHashBuilder) -> Self {
        Self {
            slots: HashTable::new(),
            channels: Slab::new(),
            recency: Recency::new(),
            bytes: 0,
            hand: 0,
            hasher,
        }
    }

    /// What the kept publications cost, in bytes.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many records there is a place for; a round of the sweep visits so many.
    pub(super) fn places(&self) -> usize {
        self.channels.capacity()
    }

    /// The record of a channel, whose hash is `hash`.
    pub(super) fn find(&self, hash: u64, key: &ChannelKey) -> Option<Slot> {
        self.slots
            .find(hash, |slot| self.channels[*slot as usize].key == *key)
            .copied()
    }

    /// Remembers a channel that is not there yet.
    pub(super) fn insert(&mut self, hash: u64, channel: Channel) -> Slot {
        // `channels_max` keeps the slab far below `Slot::MAX` records: it is at most 2^31.
        let slot = self.channels.insert(channel) as Slot;
        let (channels, hasher) = (&self.channels, &self.hasher);
        self.slots.insert_unique(hash, slot, |slot| {
            hasher.hash_one(&channels[*slot as usize].key)
        });
        slot
    }

    /// A channel's record. Not its stream: that is changed by [`Shard::change_stream`].
    pub(super) fn channel(&self, slot: Slot) -> &Channel {
        &self.channels[slot as usize]
    }

    /// A channel's record, to change anything but what its stream keeps.
    pub(super) fn channel_mut(&mut self, slot: Slot) -> &mut Channel {
        &mut self.channels[slot as usize]
    }

    /// Changes what a stream keeps; `None` when the channel has none. `is_publication` says that the channel is now
    /// the one published to last.
    pub(super) fn change_stream<T>(
        &mut self,
        slot: Slot,
        is_publication: bool,
        change: impl FnOnce(&mut Stream) -> T,
    ) -> Option<T> {
        let stream = self.channels[slot as usize].stream.as_mut()?;
        let before = stream.bytes();
        let result = change(stream);
        self.bytes = self.bytes - before + stream.bytes();
        if stream.is_empty() {
            self.recency.remove(&mut self.channels, slot);
        } else if is_publication {
            self.recency.touch(&mut self.channels, slot);
        }
        Some(result)
    }

    /// When the channel that gives up publications first was last published to.
    pub(super) fn oldest_publication(&self) -> Option<Moment> {
        let slot = self.recency.oldest()?;
        self.channel(slot).stream.as_ref()?.published()
    }

    /// Frees about `bytes` from the channel that was published to the longest ago; its oldest publications go.
    pub(super) fn evict(&mut self, bytes: usize) {
        if let Some(slot) = self.recency.oldest() {
            self.change_stream(slot, false, |stream| stream.trim(bytes));
        }
    }

    /// Forgets a channel.
    pub(super) fn remove(&mut self, slot: Slot) {
        self.change_stream(slot, false, Stream::clear);
        let channel = self.channels.remove(slot as usize);
        let hash = self.hasher.hash_one(&channel.key);
        if let Ok(entry) = self.slots.find_entry(hash, |found| *found == slot) {
            entry.remove();
        }
    }

    /// Visits the next `visits` places: lets expired publications go and forgets channels that have been idle for
    /// their namespace's time. How many channels it forgot.
    pub(super) fn sweep(&mut self, visits: usize, namespaces: &Namespaces, now: Moment) -> usize {
        let before = self.channels.len();
        let mut expire_most = EXPIRED_PER_CALL;
        for _ in 0..visits.min(self.places()) {
            let slot = self.advance_hand();
            let idle_ttl = self.visit(slot, namespaces, now, &mut expire_most);
            if idle_ttl.is_some_and(|ttl| now.since(self.channel(slot).used) >= ttl) {
                self.remove(slot);
            }
            if expire_most == 0 {
                // The next call goes on with this stream, which may have more.
                self.hand = slot as usize;
                break;
            }
        }
        let forgotten = before - self.channels.len();
        // A quarter, as streams do: what swings must not be moved each time. So few are moved that the lock is not held
        // for longer than by the visits.
        if forgotten > 0 && self.places() > PLACES_KEPT && self.channels.len() < self.places() / 4 {
            self.compact();
        }
        forgotten
    }

    /// Moves the records to a table that is no larger than they need. Slots change, which nobody knows outside the lock.
    fn compact(&mut self) {
        let mut sparse = std::mem::take(&mut self.channels);
        let mut recency = std::mem::replace(&mut self.recency, Recency::new());
        self.slots = HashTable::new();
        self.hand = 0;
        while let Some(slot) = recency.oldest() {
            recency.remove(&mut sparse, slot);
            let slot = self.take_in(sparse.remove(slot as usize));
            self.recency.touch(&mut self.channels, slot);
        }
        for channel in sparse.drain() {
            self.take_in(channel);
        }
    }

    fn take_in(&mut self, channel: Channel) -> Slot {
        let hash = self.hasher.hash_one(&channel.key);
        self.insert(hash, channel)
    }

    /// Forgets the longest unused of the idle channels among the next `visits` places, without waiting for its time.
    /// Whether there was one.
    pub(super) fn forget_one(
        &mut self,
        visits: usize,
        namespaces: &Namespaces,
        now: Moment,
    ) -> bool {
        let mut longest_unused: Option<(Moment, Slot)> = None;
        let mut expire_most = EXPIRED_PER_CALL;
        for _ in 0..visits.min(self.places()) {
            let slot = self.advance_hand();
            let idle = self.visit(slot, namespaces, now, &mut expire_most);
            let candidate = idle.map(|_| (self.channel(slot).used, slot));
            longest_unused = longest_unused.into_iter().chain(candidate).min();
        }
        if let Some((_, slot)) = longest_unused {
            self.remove(slot);
        }
        longest_unused.is_some()
    }

    fn advance_hand(&mut self) -> Slot {
        let here = self.hand;
        self.hand = if here + 1 < self.places() {
            here + 1
        } else {
            0
        };
        here as Slot
    }

    /// Lets expired publications go, at most `expire_most`, from which it takes them off. When the place holds an idle
    /// channel: how long its namespace remembers such.
    fn visit(
        &mut self,
        slot: Slot,
        namespaces: &Namespaces,
        now: Moment,
        expire_most: &mut usize,
    ) -> Option<Duration> {
        let channel = self.channels.get(slot as usize)?;
        let namespace = namespaces.of(&channel.key);
        let expired = self.change_stream(slot, false, |stream| {
            stream.expire(&namespace.history, now, *expire_most)
        });
        *expire_most -= expired.unwrap_or_default();
        self.channel(slot).is_idle().then_some(namespace.idle_ttl)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::{Epoch, Namespace, Payload, Publication};

    fn key(number: u32) -> ChannelKey {
        ChannelKey::new(&format!("channel-{number}")).expect("a channel name")
    }

    fn find(shard: &Shard, number: u32) -> Option<Slot> {
        shard.find(shard.hasher.hash_one(key(number)), &key(number))
    }

    fn at(seconds: u64) -> Moment {
        Moment::from_millis(seconds * 1000)
    }

    #[test]
    fn a_table_that_was_large_gives_its_places_back_and_keeps_the_order_of_who_is_left() {
        let namespace = Namespace::default_for(true);
        let mut shard = Shard::new(DefaultHashBuilder::default());
        for number in 0..5000 {
            shard.take_in(Channel::new(key(number), Some(Epoch::from_bits(1)), at(0)));
        }
        for number in [30, 10, 20] {
            let slot = find(&shard, number).expect("remembered");
            shard.channel_mut(slot).used = at(500);
            let publication = Publication {
                offset: 0,
                data: Payload::from_plain_json("1"),
                origin: None,
                key: None,
            };
            shard.change_stream(slot, true, |stream| {
                stream.append(publication, &namespace.history, at(500));
            });
        }
        let namespaces = Namespaces::new(namespace, BTreeMap::new());
        assert_eq!(shard.sweep(10_000, &namespaces, at(600)), 4997);

        assert!(shard.places() <= PLACES_KEPT, "{}", shard.places());
        assert!(shard.slots.capacity() <= PLACES_KEPT);
        assert_eq!(find(&shard, 0), None);
        for number in [30, 10, 20] {
            let oldest = shard.recency.oldest();
            assert_eq!(oldest, find(&shard, number));
            shard.evict(1);
        }
        assert_eq!((shard.recency.oldest(), shard.bytes()), (None, 0));
    }
}
