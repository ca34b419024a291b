//! A limiter for each key, in bounded memory.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};
use std::time::Duration;

use super::{Decision, Gcra, Quota};
use crate::model::Moment;

/// How long to wait before looking again for limiters that can be forgotten: a look goes over all of them.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// One [`Gcra`] for each key, at most so many. Keys are known by a hash of 64 bits with a secret of this value's, so
/// that nobody can choose whom to share a limiter with. When all are in use, newcomers share one: it never falls open.
#[derive(Debug)]
pub struct Keyed<S> {
    quota: Quota,
    keys_max: usize,
    hasher: S,
    limiters: HashMap<u64, Gcra, S>,
    newcomers: Gcra,
    full_until: Moment,
}

impl<S: BuildHasher + Clone> Keyed<S> {
    /// `quota` for each key, at most `keys_max` of them.
    pub fn new(quota: Quota, keys_max: usize, hasher: S) -> Self {
        Self {
            quota,
            keys_max,
            limiters: HashMap::with_hasher(hasher.clone()),
            hasher,
            newcomers: Gcra::default(),
            full_until: Moment::default(),
        }
    }

    /// Counts one for a key.
    pub fn check(&mut self, key: &(impl Hash + ?Sized), now: Moment) -> Decision {
        let key = self.hasher.hash_one(key);
        let quota = self.quota;
        self.limiter(key, now).check(now, 1, &quota)
    }

    fn limiter(&mut self, key: u64, now: Moment) -> &mut Gcra {
        if self.limiters.len() >= self.keys_max && !self.limiters.contains_key(&key) {
            if now >= self.full_until {
                self.limiters.retain(|_, limiter| !limiter.is_idle(now));
                self.full_until = now + LOOK_INTERVAL;
            }
            if self.limiters.len() >= self.keys_max {
                return &mut self.newcomers;
            }
        }
        self.limiters.entry(key).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::RandomState;

    fn keyed(keys_max: usize) -> Keyed<RandomState> {
        let quota = Quota::new(2, Duration::from_secs(60));
        Keyed::new(quota, keys_max, RandomState::new())
    }

    #[test]
    fn each_key_has_its_own_limit() {
        let (mut keyed, now) = (keyed(10), Moment::from_millis(1));
        for key in ["ann", "bob"] {
            let passed = (0..5).filter(|_| keyed.check(key, now).is_allowed);
            assert_eq!(passed.count(), 2, "{key}");
        }
        let later = now + Duration::from_secs(30);
        assert!(keyed.check("ann", later).is_allowed);
    }

    #[test]
    fn newcomers_share_one_limit_until_there_is_room() {
        let (mut keyed, now) = (keyed(100), Moment::from_millis(1));
        let passed = (0..1000_u32).filter(|key| keyed.check(key, now).is_allowed);
        assert_eq!(passed.count(), 102);
        assert!(keyed.limiters.len() <= 100);
        let later = now + Duration::from_secs(61);
        assert!(keyed.check(&5000, later).is_allowed);
        assert_eq!(keyed.limiters.len(), 1);
    }
}
