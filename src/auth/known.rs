//! Tokens that were verified lately, so that the same one is not verified again: a signature by a public key costs as much
//! as fifty by a secret, and a client shows the same token with every request.
//!
//! A token is known as the whole text that was shown. It is forgotten when keys change, and it is worth nothing outside of
//! its own time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Identity;

/// The most tokens of each half.
const HALF: usize = 8192;
/// A longer token is verified each time, so that the memory has a bound: 32 MB for both halves, usually 8.
const TOKEN_BYTES_MAX: usize = 2048;

/// From when until when, in Unix seconds, a token is worth something: the end not included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) from: u64,
    pub(super) until: u64,
}

impl Span {
    fn contains(self, now: u64) -> bool {
        self.from <= now && now < self.until
    }
}

type Half = HashMap<Box<str>, (Arc<Identity>, Span)>;

/// Two halves: tokens come into the young one; when that is full it becomes the old one, and what was old is forgotten.
/// So what is shown again and again stays, for the price of two look-ups.
#[derive(Debug, Default)]
pub(super) struct Known(Mutex<Halves>);

#[derive(Debug, Default)]
struct Halves {
    young: Half,
    old: Half,
    /// Counts how often everything was forgotten.
    generation: u64,
}

impl Known {
    /// Who shows the token, or else the present generation, to be handed to [`Known::add`].
    pub(super) fn find(&self, token: &str, now: u64) -> Result<Arc<Identity>, u64> {
        let mut halves = self.lock();
        if let Some((identity, span)) = halves.young.get(token) {
            return match span.contains(now) {
                true => Ok(identity.clone()),
                false => Err(halves.generation),
            };
        }
        let Some((token, (identity, span))) = halves.old.remove_entry(token) else {
            return Err(halves.generation);
        };
        if !span.contains(now) {
            return Err(halves.generation);
        }
        let found = identity.clone();
        halves.put(token, identity, span);
        Ok(found)
    }

    /// Remembers a token, unless everything was forgotten since that generation: a key that verified it may be gone.
    pub(super) fn add(&self, token: &str, identity: &Arc<Identity>, span: Span, generation: u64) {
        if token.len() > TOKEN_BYTES_MAX {
            return;
        }
        let mut halves = self.lock();
        if halves.generation == generation {
            halves.put(token.into(), identity.clone(), span);
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        let mut halves = self.lock();
        *halves = Halves {
            generation: halves.generation + 1,
            ..Halves::default()
        };
    }

    fn lock(&self) -> MutexGuard<'_, Halves> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Halves {
    fn put(&mut self, token: Box<str>, identity: Arc<Identity>, span: Span) {
        if self.young.len() >= HALF {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(token, (identity, span));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALWAYS: Span = Span {
        from: 0,
        until: u64::MAX,
    };

    fn found(known: &Known, token: &str, now: u64) -> bool {
        known.find(token, now).is_ok()
    }

    #[test]
    fn a_token_is_known_within_its_time_only() {
        let (known, nobody) = (Known::default(), Identity::nobody());
        let span = Span { from: 5, until: 9 };
        known.add("token", &nobody, span, 0);
        for (now, expected) in [(4, false), (5, true), (8, true), (9, false)] {
            assert_eq!(found(&known, "token", now), expected, "{now}");
        }
        assert!(!found(&known, "toke", 5) && !found(&known, "token2", 5));
    }

    #[test]
    fn what_is_in_use_stays_and_the_rest_is_bounded() {
        let (known, nobody) = (Known::default(), Identity::nobody());
        known.add("in use", &nobody, ALWAYS, 0);
        for number in 0..HALF * 5 {
            known.add(&number.to_string(), &nobody, ALWAYS, 0);
            assert!(found(&known, "in use", 1), "after {number}");
        }
        assert!(!found(&known, "0", 1));
        let halves = known.lock();
        assert!(halves.young.len() <= HALF && halves.old.len() <= HALF);
    }

    #[test]
    fn what_was_verified_by_a_key_that_is_gone_does_not_come_back() {
        let (known, nobody) = (Known::default(), Identity::nobody());
        known.add("token", &nobody, ALWAYS, 0);
        let before = known.find("late", 1).expect_err("unknown");
        known.clear();
        assert!(!found(&known, "token", 1));
        known.add("late", &nobody, ALWAYS, before);
        assert!(!found(&known, "late", 1));
        known.add("long", &nobody, ALWAYS, before + 1);
        assert!(found(&known, "long", 1));
        let long = "x".repeat(TOKEN_BYTES_MAX + 1);
        known.add(&long, &nobody, ALWAYS, before + 1);
        assert!(!found(&known, &long, 1));
    }
}
