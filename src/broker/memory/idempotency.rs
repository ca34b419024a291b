//! Which publishes were answered already: the first result for each idempotency key of each channel. Sans-IO.
//!
//! Results stand in the order in which they came, so the oldest are at the front, whether they leave because five
//! minutes have passed or because there is no room. A retry comes soon after the first attempt: the oldest key is the
//! one least worth keeping.

use std::collections::VecDeque;
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::broker::Published;
use crate::model::{ChannelKey, Moment, Position};

/// How long a result is remembered.
const REMEMBERED: Duration = Duration::from_secs(300);

/// How many expired results go when one is added: more than one, so that they do go.
const EXPIRED_PER_ADDITION: usize = 4;

/// A publish that was answered.
#[derive(Debug)]
struct Answered {
    channel: ChannelKey,
    key: Arc<str>,
    position: Option<Position>,
    at: Moment,
}

/// The results in the order in which they came, each with a number that stays while others leave.
#[derive(Debug, Default)]
struct Queue {
    answered: VecDeque<Answered>,
    /// The number of the result at the front; each one's number is one more than that before it.
    front: u64,
}

impl Queue {
    fn get(&self, number: u64) -> Option<&Answered> {
        let index = usize::try_from(number.checked_sub(self.front)?).ok()?;
        self.answered.get(index)
    }

    fn is(&self, number: u64, channel: &ChannelKey, key: &str) -> bool {
        self.get(number)
            .is_some_and(|answered| *answered.key == *key && answered.channel == *channel)
    }

    /// Of a number that is not in the queue, which the table never holds, the hash is zero.
    fn hash(&self, number: u64, hasher: &DefaultHashBuilder) -> u64 {
        self.get(number)
            .map_or(0, |answered| hash(hasher, &answered.channel, &answered.key))
    }

    fn push_back(&mut self, answered: Answered) -> u64 {
        self.answered.push_back(answered);
        self.front + self.answered.len() as u64 - 1
    }

    fn pop_front(&mut self) -> Option<Answered> {
        let oldest = self.answered.pop_front()?;
        self.front += 1;
        Some(oldest)
    }
}

fn hash(hasher: &DefaultHashBuilder, channel: &ChannelKey, key: &str) -> u64 {
    hasher.hash_one((channel, key))
}

/// The remembered results of all channels, at most as many as it was made for.
#[derive(Debug)]
pub(super) struct Idempotency {
    queue: Queue,
    /// The numbers of the results, by channel and key.
    numbers: HashTable<u64>,
    hasher: DefaultHashBuilder,
    keys_max: usize,
    /// How many were forgotten before their five minutes had passed.
    displaced: u64,
}

impl Idempotency {
    /// Remembers at most `keys_max` results.
    pub(super) fn new(keys_max: usize) -> Self {
        Self {
            queue: Queue::default(),
            numbers: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            keys_max,
            displaced: 0,
        }
    }

    /// How many results are remembered.
    pub(super) fn len(&self) -> usize {
        self.queue.answered.len()
    }

    /// How many results were forgotten early, for want of room.
    pub(super) const fn displaced(&self) -> u64 {
        self.displaced
    }

    /// The first result for this key on this channel, marked as a duplicate.
    pub(super) fn find(&self, channel: &ChannelKey, key: &str, now: Moment) -> Option<Published> {
        let hash = hash(&self.hasher, channel, key);
        let is_same = |number: &u64| self.queue.is(*number, channel, key);
        let answered = self.queue.get(*self.numbers.find(hash, is_same)?)?;
        (now.since(answered.at) < REMEMBERED).then_some(Published {
            position: answered.position,
            duplicate: true,
        })
    }

    /// Remembers a result. The oldest one goes when there is no room.
    pub(super) fn add(
        &mut self,
        channel: ChannelKey,
        key: Arc<str>,
        position: Option<Position>,
        now: Moment,
    ) {
        self.expire(now, EXPIRED_PER_ADDITION);
        let hash = hash(&self.hasher, &channel, &key);
        // An expired result of the same key may still be queued. It leaves in its turn, but is found no longer.
        let queue = &self.queue;
        let is_same = |number: &u64| queue.is(*number, &channel, &key);
        if let Ok(entry) = self.numbers.find_entry(hash, is_same) {
            entry.remove();
        }
        let number = self.queue.push_back(Answered {
            channel,
            key,
            position,
            at: now,
        });
        self.numbers.insert_unique(hash, number, |number| {
            self.queue.hash(*number, &self.hasher)
        });
        while self.len() > self.keys_max {
            self.pop_front();
            self.displaced += 1;
        }
    }

    /// Forgets expired results, at most `most` of them.
    pub(super) fn expire(&mut self, now: Moment, most: usize) {
        for _ in 0..most {
            match self.queue.answered.front() {
                Some(oldest) if now.since(oldest.at) >= REMEMBERED => self.pop_front(),
                _ => break,
            }
        }
        if self.len() < self.queue.answered.capacity() / 4 {
            self.queue.answered.shrink_to_fit();
            self.numbers
                .shrink_to_fit(|number| self.queue.hash(*number, &self.hasher));
        }
    }

    fn pop_front(&mut self) {
        let number = self.queue.front;
        let Some(oldest) = self.queue.pop_front() else {
            return;
        };
        let hash = hash(&self.hasher, &oldest.channel, &oldest.key);
        if let Ok(entry) = self.numbers.find_entry(hash, |found| *found == number) {
            entry.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Epoch;

    fn channel(name: &str) -> ChannelKey {
        ChannelKey::new(name).expect("a channel name")
    }

    fn at(offset: u64) -> Option<Position> {
        Some(Position::new(Epoch::from_bits(1), offset))
    }

    fn second(seconds: u64) -> Moment {
        Moment::from_millis(seconds * 1000)
    }

    fn add(memory: &mut Idempotency, name: &str, key: &str, offset: u64, seconds: u64) {
        memory.add(channel(name), Arc::from(key), at(offset), second(seconds));
    }

    fn find(memory: &Idempotency, name: &str, key: &str, seconds: u64) -> Option<u64> {
        let found = memory.find(&channel(name), key, second(seconds))?;
        assert!(found.duplicate);
        Some(found.position?.offset)
    }

    #[test]
    fn answers_the_first_result_for_five_minutes() {
        let mut memory = Idempotency::new(10);
        add(&mut memory, "a", "k", 7, 0);
        assert_eq!(find(&memory, "a", "k", 299), Some(7));
        assert_eq!(find(&memory, "a", "k", 300), None);
    }

    #[test]
    fn the_same_key_on_another_channel_is_another_key() {
        let mut memory = Idempotency::new(10);
        add(&mut memory, "a", "k", 7, 0);
        assert_eq!(find(&memory, "b", "k", 0), None);
        assert_eq!(find(&memory, "a", "l", 0), None);
    }

    #[test]
    fn forgets_the_oldest_when_full_and_counts_it() {
        let mut memory = Idempotency::new(2);
        for offset in 1..=3 {
            add(&mut memory, "a", &offset.to_string(), offset, 0);
        }
        assert_eq!(memory.len(), 2);
        assert_eq!(find(&memory, "a", "1", 0), None);
        assert_eq!(find(&memory, "a", "2", 0), Some(2));
        assert_eq!(find(&memory, "a", "3", 0), Some(3));
        assert_eq!(memory.displaced(), 1);
    }

    #[test]
    fn a_key_that_is_used_again_after_its_time_answers_the_newer_result() {
        let mut memory = Idempotency::new(100);
        for filler in 0..20 {
            add(&mut memory, "a", &format!("filler-{filler}"), 1, 0);
        }
        add(&mut memory, "a", "k", 2, 0);
        add(&mut memory, "a", "k", 3, 300);
        assert_eq!(find(&memory, "a", "k", 300), Some(3));
        // The older result leaves the queue; the newer must still be found.
        memory.expire(second(301), usize::MAX);
        assert_eq!(memory.len(), 1);
        assert_eq!(find(&memory, "a", "k", 301), Some(3));
    }

    #[test]
    fn expires_a_bounded_number_at_a_time_and_gives_the_room_back() {
        let mut memory = Idempotency::new(10_000);
        for number in 0..1000 {
            add(&mut memory, "a", &number.to_string(), number, 0);
        }
        memory.expire(second(300), 100);
        assert_eq!(memory.len(), 900);
        memory.expire(second(300), usize::MAX);
        assert_eq!(memory.len(), 0);
        assert_eq!(memory.queue.answered.capacity(), 0);
        assert_eq!(memory.numbers.len(), 0);
    }

    #[test]
    fn without_room_for_any_key_nothing_is_remembered() {
        let mut memory = Idempotency::new(0);
        add(&mut memory, "a", "k", 1, 0);
        assert_eq!(find(&memory, "a", "k", 0), None);
    }
}
