//! One worker's timers: one wheel for all its connections, no task and no allocation for each.
//!
//! A hashed wheel with lists through the connections' own entries (Varghese and Lauck, "Hashed and Hierarchical Timing
//! Wheels", 1987, scheme 6): setting and clearing are constant. A deadline beyond the wheel's turn stands in its last
//! slot and is set again when that comes; a timer fires up to one tick late, never early.

use std::time::Duration;

use crate::model::Moment;

/// How fine the wheel is.
pub(super) const TICK: Duration = Duration::from_millis(100);

/// A turn takes 102.4 s: longer than a ping interval, so that most timers are set once.
const SLOTS: usize = 1024;

/// No entry.
const NONE: u32 = u32::MAX;

/// The links of one timer, kept by its owner at the timer's index. 12 bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Link {
    previous: u32,
    next: u32,
    slot: u32,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            previous: NONE,
            next: NONE,
            slot: NONE,
        }
    }
}

/// Where the links are kept: the slab of connections, or a vector in tests.
pub(super) trait Links {
    /// The link of a timer; asked only for timers that were set.
    fn link(&mut self, index: u32) -> Option<&mut Link>;
}

/// The wheel.
#[derive(Debug)]
pub(super) struct TimerWheel {
    heads: Box<[u32]>,
    /// The tick that was fired last.
    tick: u64,
}

impl TimerWheel {
    pub(super) fn new(now: Moment) -> Self {
        Self {
            heads: vec![NONE; SLOTS].into(),
            tick: tick_of(now),
        }
    }

    /// Sets the timer, in place of what was set before.
    pub(super) fn set(&mut self, links: &mut impl Links, index: u32, deadline: Moment) {
        self.clear(links, index);
        // Rounded up, and at least the next tick: never early, never in the slot that is being fired.
        let due = tick_of(deadline)
            .saturating_add(1)
            .clamp(self.tick + 1, self.tick + SLOTS as u64 - 1);
        let slot = (due % SLOTS as u64) as u32;
        let head = self.heads[slot as usize];
        if let Some(first) = links.link(head) {
            first.previous = index;
        }
        if let Some(link) = links.link(index) {
            *link = Link {
                previous: NONE,
                next: head,
                slot,
            };
            self.heads[slot as usize] = index;
        }
    }

    /// Takes the timer out; harmless when it is not set.
    pub(super) fn clear(&mut self, links: &mut impl Links, index: u32) {
        let Some(link) = links.link(index) else {
            return;
        };
        let Link {
            previous,
            next,
            slot,
        } = std::mem::take(link);
        if slot == NONE {
            return;
        }
        match links.link(previous) {
            Some(before) => before.next = next,
            None => self.heads[slot as usize] = next,
        }
        if let Some(after) = links.link(next) {
            after.previous = previous;
        }
    }

    /// Takes out the timers that are due and appends them to `fired`. Each may be early for its own deadline when that
    /// lies beyond the wheel's turn: the owner checks, and sets it again.
    pub(super) fn advance(&mut self, links: &mut impl Links, now: Moment, fired: &mut Vec<u32>) {
        let target = tick_of(now);
        // After a pause of more than a turn every slot is due once.
        let from = self.tick.max(target.saturating_sub(SLOTS as u64));
        for tick in from + 1..=target {
            let slot = (tick % SLOTS as u64) as usize;
            while let Some(index) = Some(self.heads[slot]).filter(|head| *head != NONE) {
                self.clear(links, index);
                fired.push(index);
            }
        }
        self.tick = self.tick.max(target);
    }
}

fn tick_of(moment: Moment) -> u64 {
    moment.as_millis() / TICK.as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Links for Vec<Link> {
        fn link(&mut self, index: u32) -> Option<&mut Link> {
            self.get_mut(index as usize)
        }
    }

    fn at(millis: u64) -> Moment {
        Moment::from_millis(millis)
    }

    fn fired(wheel: &mut TimerWheel, links: &mut Vec<Link>, millis: u64) -> Vec<u32> {
        let mut fired = Vec::new();
        wheel.advance(links, at(millis), &mut fired);
        fired.sort_unstable();
        fired
    }

    #[test]
    fn fires_each_timer_once_never_early_and_at_most_a_tick_late() {
        let mut links = vec![Link::default(); 100];
        let mut wheel = TimerWheel::new(at(0));
        for index in 0..100u32 {
            wheel.set(&mut links, index, at(u64::from(index) * 37));
        }
        let mut seen = Vec::new();
        for now in (0..5000).step_by(50) {
            for index in fired(&mut wheel, &mut links, now) {
                let deadline = u64::from(index) * 37;
                assert!(now >= deadline && now <= deadline + 250, "{index} at {now}");
                seen.push(index);
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn a_timer_that_is_set_again_or_cleared_does_not_fire_where_it_stood() {
        let mut links = vec![Link::default(); 3];
        let mut wheel = TimerWheel::new(at(0));
        for index in 0..3 {
            wheel.set(&mut links, index, at(1000));
        }
        wheel.set(&mut links, 1, at(9000));
        wheel.clear(&mut links, 2);
        assert_eq!(fired(&mut wheel, &mut links, 2000), [0]);
        assert_eq!(fired(&mut wheel, &mut links, 9500), [1]);
    }

    #[test]
    fn survives_a_pause_longer_than_its_turn() {
        let mut links = vec![Link::default(); 2];
        let mut wheel = TimerWheel::new(at(0));
        wheel.set(&mut links, 0, at(500));
        wheel.set(&mut links, 1, at(90_000));
        assert_eq!(fired(&mut wheel, &mut links, 1_000_000), [0, 1]);
    }
}
