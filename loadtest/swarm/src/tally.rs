//! The books of a run: deliveries, latency from the intended send time, time to the last subscriber of each
//! publication, duplicates and disorder. One per reader thread, merged at the end; nothing in it is shared.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use hdrhistogram::Histogram;

use crate::payload::Stamp;

/// Longest latency that is told apart: a minute. What is slower counts as a minute.
const LATENCY_MAX: u64 = 60_000_000_000;

/// How many bits of the past a connection remembers to tell a duplicate from a latecomer.
const WINDOW: u64 = 64;

/// A histogram of nanoseconds, with three digits.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1_000, LATENCY_MAX, 3)
        .expect("the bounds are constants and in order")
}

/// Which stamps count: those sent in `[from, to)`. What comes before is warm-up, what comes after is the tail. It is
/// shared, because it is set only when all subscribers have joined; until then nothing counts.
#[derive(Clone, Debug)]
pub(crate) struct Window(Arc<[AtomicU64; 2]>);

impl Window {
    /// Still closed.
    pub(crate) fn closed() -> Self {
        Window(Arc::new([AtomicU64::new(u64::MAX), AtomicU64::new(0)]))
    }

    /// Everything with a stamp other than 0.
    pub(crate) fn all() -> Self {
        let window = Window::closed();
        window.set(1, u64::MAX);
        window
    }

    /// Opens it for what is sent in `[from, to)`.
    pub(crate) fn set(&self, from: u64, to: u64) {
        self.0[0].store(from, Relaxed);
        self.0[1].store(to, Relaxed);
    }

    fn holds(&self, at: u64) -> bool {
        (self.0[0].load(Relaxed)..self.0[1].load(Relaxed)).contains(&at)
    }
}

/// When a publication's latest copy arrived, and how many have.
#[derive(Clone, Copy, Default)]
struct Arrival {
    sent: u64,
    last: u64,
    copies: u32,
}

/// What one connection has seen of its channel: the highest number and a bitmap of those just below.
#[derive(Clone, Copy, Default)]
struct Seen {
    /// Highest number seen plus one; 0 means none yet.
    next: u64,
    below: u64,
}

/// How one publication stands to those before it on the same connection.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Order {
    Next,
    Late,
    Duplicate,
}

impl Seen {
    fn note(&mut self, number: u64) -> Order {
        if number >= self.next {
            let ahead = number + 1 - self.next;
            self.below = if ahead >= WINDOW {
                0
            } else {
                self.below << ahead
            };
            self.below |= 1;
            self.next = number + 1;
            return Order::Next;
        }
        let age = self.next - 1 - number;
        // Older than the bitmap: nobody can tell, and a latecomer by 64 publications is less likely than a copy.
        if age >= WINDOW || self.below & (1 << age) != 0 {
            return Order::Duplicate;
        }
        self.below |= 1 << age;
        Order::Late
    }
}

/// How much is booked. Everything in paced runs; a sample where millions arrive a second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Depth {
    /// Every how many publications one's stamp is read.
    pub(crate) sample_every: u32,
    /// How many publications have a row for their last arrival; 0 for none.
    pub(crate) publications: usize,
    /// Connections whose order is checked; 0 for none.
    pub(crate) connections: usize,
    /// Channels among which publications go round: the numbers on one channel differ by this.
    pub(crate) channels: u64,
}

/// The books of one reader thread.
pub(crate) struct Tally {
    depth: Depth,
    until_sample: u32,
    arrivals: Vec<Arrival>,
    seen: Vec<Seen>,
    /// Latency of each booked delivery.
    pub(crate) latency: Histogram<u64>,
    /// Publications received.
    pub(crate) deliveries: u64,
    /// The same publication again on one connection.
    pub(crate) duplicates: u64,
    /// A publication after a later one on one connection.
    pub(crate) late: u64,
    /// `gap` messages: the server said that something was left out.
    pub(crate) gaps: u64,
    /// `error` messages.
    pub(crate) errors: u64,
    /// Ends of connections by close code; 0 where the socket just ended.
    pub(crate) closes: BTreeMap<u16, u64>,
    /// The text of the first thing that went wrong.
    pub(crate) first_trouble: Option<String>,
}

impl Tally {
    /// Empty books of the given depth.
    pub(crate) fn new(depth: Depth) -> Self {
        Tally {
            depth,
            until_sample: 1,
            arrivals: vec![Arrival::default(); depth.publications],
            seen: vec![Seen::default(); depth.connections],
            latency: histogram(),
            deliveries: 0,
            duplicates: 0,
            late: 0,
            gaps: 0,
            errors: 0,
            closes: BTreeMap::new(),
            first_trouble: None,
        }
    }

    /// Counts a delivery; true when its stamp is to be read and handed to [`Tally::arrived`].
    #[inline]
    pub(crate) fn delivered(&mut self) -> bool {
        self.deliveries += 1;
        self.until_sample -= 1;
        if self.until_sample == 0 {
            self.until_sample = self.depth.sample_every;
            return true;
        }
        false
    }

    /// Books the arrival of a stamped publication on `connection` at `now`.
    #[inline]
    pub(crate) fn arrived(&mut self, connection: usize, stamp: Stamp, now: u64, window: &Window) {
        if let Some(seen) = self.seen.get_mut(connection) {
            match seen.note(stamp.number / self.depth.channels) {
                Order::Next => {}
                Order::Late => self.late += 1,
                Order::Duplicate => {
                    self.duplicates += 1;
                    return;
                }
            }
        }
        if !window.holds(stamp.at) {
            return;
        }
        self.latency.saturating_record(now.saturating_sub(stamp.at));
        if let Some(row) = self.arrivals.get_mut(stamp.number as usize) {
            *row = Arrival {
                sent: stamp.at,
                last: row.last.max(now),
                copies: row.copies + 1,
            };
        }
    }

    /// Remembers the first trouble only: the later ones are mostly its consequences.
    pub(crate) fn trouble(&mut self, text: impl FnOnce() -> String) {
        if self.first_trouble.is_none() {
            self.first_trouble = Some(text());
        }
    }

    /// Adds another thread's books.
    pub(crate) fn merge(&mut self, other: Tally) {
        for (mine, theirs) in self.arrivals.iter_mut().zip(other.arrivals) {
            mine.sent = mine.sent.max(theirs.sent);
            mine.last = mine.last.max(theirs.last);
            mine.copies += theirs.copies;
        }
        self.latency
            .add(other.latency)
            .expect("all latency histograms have the same bounds");
        self.deliveries += other.deliveries;
        self.duplicates += other.duplicates;
        self.late += other.late;
        self.gaps += other.gaps;
        self.errors += other.errors;
        other
            .closes
            .into_iter()
            .for_each(|(code, count)| *self.closes.entry(code).or_default() += count);
        self.first_trouble = self.first_trouble.take().or(other.first_trouble);
    }

    /// For each publication in turn: its intended send time, its latest arrival (both 0 when none came) and its copies.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (u64, u64, u32)> {
        self.arrivals
            .iter()
            .map(|row| (row.sent, row.last, row.copies))
    }

    /// From the intended send time to the arrival at the last subscriber, one entry a publication of the window.
    pub(crate) fn to_the_last(&self) -> Histogram<u64> {
        let mut spread = histogram();
        for row in self.arrivals.iter().filter(|row| row.copies > 0) {
            spread.saturating_record(row.last.saturating_sub(row.sent));
        }
        spread
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(channels: u64) -> Tally {
        Tally::new(Depth {
            sample_every: 1,
            publications: 100,
            connections: 3,
            channels,
        })
    }

    #[test]
    fn tells_copies_from_latecomers() {
        let mut seen = Seen::default();
        let order: Vec<Order> = [0, 1, 3, 2, 2, 3, 200, 199, 100]
            .map(|n| seen.note(n))
            .into();
        use Order::{Duplicate as D, Late as L, Next as I};
        assert_eq!(order, [I, I, I, L, D, D, I, L, D]);
    }

    #[test]
    fn numbers_of_one_channel_among_many_are_in_order() {
        let mut tally = tally(10);
        for number in [4, 14, 24, 24] {
            tally.arrived(0, Stamp { at: 5, number }, 9, &Window::all());
        }
        assert_eq!(
            (tally.late, tally.duplicates, tally.latency.len()),
            (0, 1, 3)
        );
    }

    #[test]
    fn books_only_what_was_sent_in_the_window() {
        let mut tally = tally(1);
        let window = Window::closed();
        window.set(20, 30);
        for (number, at) in [(0, 10), (1, 20), (2, 30)] {
            tally.arrived(0, Stamp { at, number }, 1_000_000, &window);
        }
        assert_eq!(tally.latency.len(), 1);
        assert_eq!(tally.to_the_last().len(), 1);
    }

    #[test]
    fn the_last_arrival_counts_over_all_threads() {
        let (mut first, mut second) = (tally(1), tally(1));
        first.arrived(
            0,
            Stamp {
                at: 1_000_000,
                number: 7,
            },
            3_000_000,
            &Window::all(),
        );
        second.arrived(
            1,
            Stamp {
                at: 1_000_000,
                number: 7,
            },
            9_000_000,
            &Window::all(),
        );
        first.merge(second);
        assert_eq!(first.latency.len(), 2);
        let last = first.to_the_last();
        assert_eq!(last.len(), 1);
        assert!(last.equivalent(last.max(), 8_000_000));
    }

    #[test]
    fn samples_one_in_n_and_counts_all() {
        let mut tally = Tally::new(Depth {
            sample_every: 4,
            publications: 0,
            connections: 0,
            channels: 1,
        });
        let sampled = (0..100).filter(|_| tally.delivered()).count();
        assert_eq!((sampled, tally.deliveries), (25, 100));
    }

    #[test]
    fn what_is_slower_than_the_longest_is_kept_as_the_longest() {
        let mut tally = tally(1);
        tally.arrived(
            0,
            Stamp { at: 1, number: 0 },
            10 * LATENCY_MAX,
            &Window::all(),
        );
        assert_eq!(tally.latency.len(), 1);
    }
}
