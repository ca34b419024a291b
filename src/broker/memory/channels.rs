//! All channels of the process, spread over shards with a lock each, and the bounds that hold over all of them.
//!
//! No function here holds two shards' locks, and none is held across an await. What is freed for one channel's sake in
//! another shard is freed while neither is locked.

use std::hash::BuildHasher as _;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::DefaultHashBuilder;

use super::channel::Channel;
use super::recency::Slot;
use super::shard::Shard;
use crate::broker::{BrokerError, Config};
use crate::model::{ChannelKey, Epoch, Moment, Namespace, Namespaces};

/// How many locks. With as many publishers as a large machine has cores, two of them rarely want the same.
const SHARDS: usize = 64;

/// A round of the sweep over all channels takes so many calls.
const SWEEPS_PER_ROUND: usize = 32;

/// The least places of each shard that a call of the sweep visits, and the size of the sample from which the channel
/// to be forgotten for want of room is taken.
const VISITS_MIN: usize = 16;

/// What `Totals::oldest` holds for a shard that keeps no publication.
const NOTHING_KEPT: u64 = u64::MAX;

/// What is known of all shards together, read without their locks.
#[derive(Debug)]
struct Totals {
    history_bytes: AtomicUsize,
    channels: AtomicUsize,
    /// For each shard, when the channel that gives up publications first was last published to, in milliseconds.
    oldest: [AtomicU64; SHARDS],
    /// How often publications were let go before their time for want of room.
    evictions: AtomicU64,
    /// The shard from which the next channel is forgotten for want of room.
    hand: AtomicUsize,
}

/// The channels.
#[derive(Debug)]
pub(super) struct Channels {
    shards: Box<[Mutex<Shard>]>,
    totals: Totals,
    hasher: DefaultHashBuilder,
    namespaces: Arc<Namespaces>,
    history_bytes_max: usize,
    channels_max: usize,
}

/// A shard under its lock. What it keeps is added to the sums when it is let go.
#[derive(Debug)]
pub(super) struct Locked<'a> {
    shard: MutexGuard<'a, Shard>,
    totals: &'a Totals,
    index: usize,
    bytes_before: usize,
}

impl Deref for Locked<'_> {
    type Target = Shard;

    fn deref(&self) -> &Shard {
        &self.shard
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut Shard {
        &mut self.shard
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        let bytes = self.shard.bytes();
        if bytes == self.bytes_before && bytes == 0 {
            return;
        }
        // Wraps when it shrank, which adds up all the same.
        let added = bytes.wrapping_sub(self.bytes_before);
        if added != 0 {
            self.totals.history_bytes.fetch_add(added, Relaxed);
        }
        let oldest = self
            .shard
            .oldest_publication()
            .map_or(NOTHING_KEPT, Moment::as_millis);
        self.totals.oldest[self.index].store(oldest, Relaxed);
    }
}

impl Channels {
    /// No channels yet, in these namespaces and with these bounds.
    pub(super) fn new(config: &Config, namespaces: Arc<Namespaces>) -> Self {
        let hasher = DefaultHashBuilder::default();
        Self {
            shards: (0..SHARDS)
                .map(|_| Mutex::new(Shard::new(hasher.clone())))
                .collect(),
            totals: Totals {
                history_bytes: AtomicUsize::new(0),
                channels: AtomicUsize::new(0),
                oldest: std::array::from_fn(|_| AtomicU64::new(NOTHING_KEPT)),
                evictions: AtomicU64::new(0),
                hand: AtomicUsize::new(0),
            },
            hasher,
            namespaces,
            history_bytes_max: config.history_bytes_max,
            channels_max: config.channels_max.min(Slot::MAX as usize / 2),
        }
    }

    /// The rules of a channel.
    pub(super) fn namespace(&self, key: &ChannelKey) -> &Namespace {
        self.namespaces.of(key)
    }

    /// How many channels are remembered.
    pub(super) fn len(&self) -> usize {
        self.totals.channels.load(Relaxed)
    }

    /// What the kept publications cost, in bytes.
    pub(super) fn history_bytes(&self) -> usize {
        self.totals.history_bytes.load(Relaxed)
    }

    /// How often publications were let go before their time for want of room.
    pub(super) fn evictions(&self) -> u64 {
        self.totals.evictions.load(Relaxed)
    }

    /// The shard of a channel, and the channel's record if it is remembered.
    pub(super) fn find(&self, key: &ChannelKey) -> (Locked<'_>, Option<Slot>) {
        let hash = self.hasher.hash_one(key);
        let shard = self.lock(shard_of(hash));
        let slot = shard.find(hash, key);
        (shard, slot)
    }

    /// The shard of a channel and the channel's record, which is made when it is not remembered: with a fresh epoch
    /// where the namespace keeps history. The channel counts as used.
    ///
    /// # Errors
    /// [`BrokerError::Full`] when it is not remembered and there is neither room nor an idle channel to forget.
    pub(super) fn open(
        &self,
        key: &ChannelKey,
        now: Moment,
    ) -> Result<(Locked<'_>, Slot), BrokerError> {
        let hash = self.hasher.hash_one(key);
        loop {
            let mut shard = self.lock(shard_of(hash));
            if let Some(slot) = shard.find(hash, key) {
                shard.channel_mut(slot).used = now;
                return Ok((shard, slot));
            }
            if self.reserve_one() {
                let slot = shard.insert(hash, Channel::new(key.clone(), self.epoch(key), now));
                return Ok((shard, slot));
            }
            // Unlocked first: the channel to forget may be in any shard. Another thread may take the room that is
            // made here; then this one makes room again, as long as there is something idle.
            drop(shard);
            if !self.forget_one(now) {
                return Err(BrokerError::Full);
            }
        }
    }

    /// Forgets a channel, without waiting for its namespace's time.
    pub(super) fn forget(&self, shard: &mut Locked<'_>, slot: Slot) {
        shard.remove(slot);
        self.totals.channels.fetch_sub(1, Relaxed);
    }

    /// Lets publications go until what is kept is within its bound: the oldest ones of the channel that was published
    /// to the longest ago, then of the next. No shard may be locked by the caller. Between a publication and this call
    /// the bound may be passed, by one publication for each thread that publishes.
    pub(super) fn relieve(&self) {
        while self.history_bytes() > self.history_bytes_max {
            let Some(index) = self.totals.index_of_oldest() else {
                return;
            };
            let mut shard = self.lock(index);
            // Asked again under the lock: another thread may have made the room while this one waited.
            let excess = self.history_bytes().saturating_sub(self.history_bytes_max);
            if excess > 0 {
                shard.evict(excess);
                self.totals.evictions.fetch_add(1, Relaxed);
            }
        }
    }

    /// Lets expired publications go and forgets channels whose time has passed. Looks at a part of the channels, so
    /// that each is looked at about every [`SWEEPS_PER_ROUND`] calls, and holds each lock for a part of that.
    pub(super) fn sweep(&self, now: Moment) {
        for index in 0..SHARDS {
            let mut shard = self.lock(index);
            let visits = (shard.places() / SWEEPS_PER_ROUND).max(VISITS_MIN);
            let forgotten = shard.sweep(visits, &self.namespaces, now);
            self.totals.channels.fetch_sub(forgotten, Relaxed);
        }
    }

    fn lock(&self, index: usize) -> Locked<'_> {
        // A panic under the lock can only be the sink's, which is called when the record is whole again.
        let shard = self.shards[index]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Locked {
            bytes_before: shard.bytes(),
            shard,
            totals: &self.totals,
            index,
        }
    }

    fn epoch(&self, key: &ChannelKey) -> Option<Epoch> {
        let keeps_history = self.namespace(key).history.is_on();
        keeps_history.then(|| Epoch::from_bits(rand::random()))
    }

    fn reserve_one(&self) -> bool {
        self.totals
            .channels
            .fetch_update(Relaxed, Relaxed, |channels| {
                (channels < self.channels_max).then_some(channels + 1)
            })
            .is_ok()
    }

    /// Makes room for one channel. Takes the longest unused of a sample, not of all: exact order would cost every use
    /// of every channel, and this is wanted only when the table is full.
    fn forget_one(&self, now: Moment) -> bool {
        let first = self.totals.hand.fetch_add(1, Relaxed);
        let forgot = (0..SHARDS).any(|step| {
            self.lock(first.wrapping_add(step) % SHARDS).forget_one(
                VISITS_MIN,
                &self.namespaces,
                now,
            )
        });
        if forgot {
            self.totals.channels.fetch_sub(1, Relaxed);
        }
        forgot
    }
}

impl Totals {
    fn index_of_oldest(&self) -> Option<usize> {
        let oldest = self.oldest.iter().map(|oldest| oldest.load(Relaxed));
        oldest
            .enumerate()
            .filter(|(_, oldest)| *oldest != NOTHING_KEPT)
            .min_by_key(|(_, oldest)| *oldest)
            .map(|(index, _)| index)
    }
}

/// Bits from the middle: the table within the shard finds its places by the lowest and its tags by the highest.
const fn shard_of(hash: u64) -> usize {
    (hash >> 32) as usize % SHARDS
}
