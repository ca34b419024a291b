//! How many times something happened lately, in a few words of memory and without a lock.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::model::Moment;

/// Seconds that are remembered, the present one included.
const SECONDS: u64 = 10;

/// Counts of the last ten seconds. A slot holds its second in the upper half and the count in the lower. Two threads
/// that begin a second together may lose each other's count: it is for ratios and dashboards.
#[derive(Debug, Default)]
pub(super) struct Recent([AtomicU64; SECONDS as usize]);

impl Recent {
    /// It happened.
    pub(super) fn add(&self, now: Moment) {
        let second = now.as_millis() / 1000;
        let slot = &self.0[usize::try_from(second % SECONDS).unwrap_or(0)];
        if slot.load(Relaxed) >> 32 == second {
            slot.fetch_add(1, Relaxed);
        } else {
            slot.store(second << 32 | 1, Relaxed);
        }
    }

    /// It is as if it had never happened.
    pub(super) fn clear(&self) {
        self.0.iter().for_each(|slot| slot.store(0, Relaxed));
    }

    /// How many times within the last ten seconds.
    pub(super) fn count(&self, now: Moment) -> u64 {
        let second = now.as_millis() / 1000;
        self.0
            .iter()
            .map(|slot| slot.load(Relaxed))
            .filter(|slot| (slot >> 32) + SECONDS > second)
            .map(|slot| slot & u64::from(u32::MAX))
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgets_after_ten_seconds() {
        let recent = Recent::default();
        let at = Moment::from_millis;
        recent.add(at(20_000));
        recent.add(at(20_999));
        recent.add(at(25_000));
        assert_eq!(recent.count(at(25_000)), 3);
        assert_eq!(recent.count(at(29_999)), 3);
        assert_eq!(recent.count(at(30_000)), 1);
        recent.add(at(30_000));
        assert_eq!(recent.count(at(34_999)), 2);
        assert_eq!(recent.count(at(35_000)), 1);
    }
}
