//! A token bucket in whole numbers: thousandths of a token, so that each millisecond adds exactly `per_second` of them
//! and nothing is lost to rounding, however often it is asked.

use std::time::Duration;

use crate::model::Moment;

/// A token, in the units that are counted.
const TOKEN: u64 = 1000;

/// How fast a bucket fills and how much it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    per_second: u32,
    burst: u32,
}

impl Rate {
    /// `per_second` tokens a second; at most `burst` at once, and at least one. A rate of zero never fills again.
    pub const fn new(per_second: u32, burst: u32) -> Self {
        let burst = if burst == 0 { 1 } else { burst };
        Self { per_second, burst }
    }

    const fn capacity(self) -> u64 {
        self.burst as u64 * TOKEN
    }
}

/// The state of one bucket, 16 bytes. It is made full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenBucket {
    /// Thousandths of a token that are left.
    level: u64,
    filled: Moment,
}

impl TokenBucket {
    /// A full bucket.
    pub const fn full(rate: Rate, now: Moment) -> Self {
        Self {
            level: rate.capacity(),
            filled: now,
        }
    }

    /// Takes `tokens`, or takes nothing. A moment before the last one counts as the last one.
    ///
    /// # Errors
    /// How long to wait until there are enough, when nothing else takes any; [`Duration::MAX`] when there never will
    /// be: more than the burst, or a rate of zero.
    pub fn take(&mut self, now: Moment, tokens: u32, rate: Rate) -> Result<(), Duration> {
        self.fill(now, rate);
        let wanted = u64::from(tokens) * TOKEN;
        match self.level.checked_sub(wanted) {
            Some(left) => {
                self.level = left;
                Ok(())
            }
            None if wanted > rate.capacity() || rate.per_second == 0 => Err(Duration::MAX),
            None => Err(Duration::from_millis(
                (wanted - self.level).div_ceil(u64::from(rate.per_second)),
            )),
        }
    }

    fn fill(&mut self, now: Moment, rate: Rate) {
        let elapsed = now.as_millis().saturating_sub(self.filled.as_millis());
        let added = elapsed.saturating_mul(u64::from(rate.per_second));
        self.level = self.level.saturating_add(added).min(rate.capacity());
        self.filled = self.filled.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn at(millis: u64) -> Moment {
        Moment::from_millis(millis)
    }

    fn taken(bucket: &mut TokenBucket, now: Moment, rate: Rate) -> u32 {
        std::iter::repeat_with(|| bucket.take(now, 1, rate))
            .take_while(Result::is_ok)
            .fold(0, |taken, _| taken + 1)
    }

    #[test]
    fn is_made_full_and_gives_its_burst_at_once() {
        let rate = Rate::new(10, 5);
        let mut bucket = TokenBucket::full(rate, at(0));
        assert_eq!(taken(&mut bucket, at(0), rate), 5);
    }

    #[test]
    fn fills_at_its_rate_and_not_over_its_burst() {
        let rate = Rate::new(10, 5);
        let mut bucket = TokenBucket::full(rate, at(0));
        taken(&mut bucket, at(0), rate);
        assert_eq!(taken(&mut bucket, at(99), rate), 0);
        assert_eq!(taken(&mut bucket, at(100), rate), 1);
        assert_eq!(taken(&mut bucket, at(10_000), rate), 5);
    }

    #[test]
    fn loses_nothing_to_rounding_when_it_is_asked_every_millisecond() {
        let rate = Rate::new(3, 1);
        let mut bucket = TokenBucket::full(rate, at(0));
        let taken: u32 = (0..=10_000)
            .map(|now| taken(&mut bucket, at(now), rate))
            .sum();
        // The burst, and then three a second but for the third of a second that each needs at least.
        assert_eq!(taken, 1 + 29);
    }

    #[test]
    fn says_how_long_to_wait_and_takes_nothing_meanwhile() {
        let rate = Rate::new(3, 2);
        let mut bucket = TokenBucket::full(rate, at(0));
        assert_eq!(bucket.take(at(0), 2, rate), Ok(()));
        assert_eq!(bucket.take(at(0), 1, rate), Err(Duration::from_millis(334)));
        assert_eq!(bucket.take(at(333), 1, rate), Err(Duration::from_millis(1)));
        assert_eq!(bucket.take(at(334), 1, rate), Ok(()));
    }

    #[test]
    fn says_when_there_will_never_be_enough() {
        let rate = Rate::new(3, 2);
        let mut bucket = TokenBucket::full(rate, at(0));
        assert_eq!(bucket.take(at(0), 3, rate), Err(Duration::MAX));
        let once = Rate::new(0, 1);
        let mut bucket = TokenBucket::full(once, at(0));
        assert_eq!(bucket.take(at(0), 1, once), Ok(()));
        assert_eq!(bucket.take(at(u64::MAX), 1, once), Err(Duration::MAX));
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing_twice() {
        let rate = Rate::new(10, 1);
        let mut bucket = TokenBucket::full(rate, at(1000));
        assert_eq!(bucket.take(at(1000), 1, rate), Ok(()));
        assert!(bucket.take(at(500), 1, rate).is_err());
        assert!(bucket.take(at(1000), 1, rate).is_err());
    }

    #[test]
    fn is_16_bytes() {
        assert_eq!(size_of::<TokenBucket>(), 16);
    }

    proptest! {
        #[test]
        fn never_gives_more_than_burst_and_rate_allow(
            per_second in 0u32..2000,
            burst in 0u32..50,
            steps in prop::collection::vec((0u64..300, 0u32..5), 1..200),
        ) {
            let rate = Rate::new(per_second, burst);
            let mut bucket = TokenBucket::full(rate, at(0));
            let (mut now, mut given) = (0, 0);
            for (pause, tokens) in steps {
                now += pause;
                if bucket.take(at(now), tokens, rate).is_ok() {
                    given += u64::from(tokens);
                }
                prop_assert!(
                    given * TOKEN <= u64::from(burst.max(1)) * TOKEN + now * u64::from(per_second)
                );
            }
        }

        #[test]
        fn who_waits_as_long_as_told_is_served_and_not_a_millisecond_earlier(
            per_second in 1u32..2000,
            burst in 1u32..50,
            tokens in 1u32..50,
            start in 0u64..1000,
        ) {
            let rate = Rate::new(per_second, burst);
            let mut bucket = TokenBucket::full(rate, at(start));
            taken(&mut bucket, at(start), rate);
            match bucket.take(at(start), tokens, rate) {
                Err(Duration::MAX) => prop_assert!(tokens > burst),
                Err(wait) => {
                    let then = at(start) + wait;
                    let before = at(then.as_millis() - 1);
                    prop_assert!(bucket.clone().take(before, tokens, rate).is_err());
                    prop_assert_eq!(bucket.take(then, tokens, rate), Ok(()));
                }
                Ok(()) => prop_assert!(false, "the bucket was empty"),
            }
        }

        #[test]
        fn no_input_panics(
            per_second: u32, burst: u32, tokens: u32, made: u64, asked: u64,
        ) {
            let rate = Rate::new(per_second, burst);
            let _ = TokenBucket::full(rate, at(made)).take(at(asked), tokens, rate);
        }
    }
}
