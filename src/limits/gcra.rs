//! The generic cell rate algorithm in its form as virtual scheduling (ITU-T I.371, annex A; ATM Forum TM 4.1, 4.4.2):
//! a leaky bucket whose whole state is one number, the theoretical arrival time of the next request of a client that
//! keeps exactly to the rate. A request conforms when it is not earlier than that by more than the tolerance.
//!
//! Of `limit` requests in `window`, all may come at once; after that one is let through each `window / limit`, rounded
//! up to a nanosecond. In any span of length `d` that is at most `limit + d * limit / window` requests.

use std::time::Duration;

use crate::model::Moment;

/// How many requests in which time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    limit: u32,
    /// Nanoseconds between two requests of a client that keeps to the rate.
    interval: u64,
}

impl Quota {
    /// `limit` requests, at least one, in each `window`, at least a nanosecond a request.
    pub fn new(limit: u32, window: Duration) -> Self {
        let limit = limit.max(1);
        Self {
            limit,
            interval: nanos(window).div_ceil(u64::from(limit)).max(1),
        }
    }

    /// The most requests at once.
    pub const fn limit(&self) -> u32 {
        self.limit
    }

    /// Nanoseconds in which the whole limit comes back.
    const fn whole(&self) -> u64 {
        self.interval.saturating_mul(self.limit as u64)
    }
}

/// What a client is told of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// Whether the request may pass.
    pub is_allowed: bool,
    /// How many more may pass at once.
    pub remaining: u32,
    /// When the whole limit will be there again, if nothing else comes.
    pub reset_after: Duration,
    /// How long to wait with this request; zero when it may pass. [`Duration::MAX`] when it asks for more than the
    /// limit and never will.
    pub retry_after: Duration,
}

/// The state of one limiter, 8 bytes. The default one has seen no request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gcra {
    /// The theoretical arrival time, in nanoseconds on the scale of [`Moment`]; past 584 years it stands still.
    arrival: u64,
}

impl Gcra {
    /// Lets a request that counts as `cost` pass, or not; one that does not pass costs nothing.
    pub fn check(&mut self, now: Moment, cost: u32, quota: &Quota) -> Decision {
        let now = now.as_millis().saturating_mul(1_000_000);
        let arrival = self.arrival.max(now);
        let next = arrival.saturating_add(quota.interval.saturating_mul(u64::from(cost)));
        let is_allowed = cost <= quota.limit && next - now <= quota.whole();
        if is_allowed {
            self.arrival = next;
        }
        let ahead = if is_allowed { next } else { arrival } - now;
        Decision {
            is_allowed,
            remaining: remaining(quota, ahead),
            reset_after: Duration::from_nanos(ahead),
            retry_after: if is_allowed {
                Duration::ZERO
            } else if cost > quota.limit {
                Duration::MAX
            } else {
                Duration::from_nanos(next - now - quota.whole())
            },
        }
    }

    /// Whether it has forgotten every request, so that its state can be dropped.
    pub fn is_idle(&self, now: Moment) -> bool {
        self.arrival <= now.as_millis().saturating_mul(1_000_000)
    }
}

/// How many requests pass at once when the theoretical arrival time is `ahead` nanoseconds from now.
fn remaining(quota: &Quota, ahead: u64) -> u32 {
    let left = quota.whole().saturating_sub(ahead) / quota.interval;
    u32::try_from(left).unwrap_or(quota.limit)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MINUTE: Duration = Duration::from_secs(60);

    const fn at(millis: u64) -> Moment {
        Moment::from_millis(millis)
    }

    fn after(limiter: &mut Gcra, requests: u32, now: Moment, quota: &Quota) -> Decision {
        (1..requests).for_each(|_| {
            limiter.check(now, 1, quota);
        });
        limiter.check(now, 1, quota)
    }

    /// Asks a copy.
    fn would_pass(mut limiter: Gcra, now: Moment, cost: u32, quota: &Quota) -> bool {
        limiter.check(now, cost, quota).is_allowed
    }

    #[test]
    fn lets_the_whole_limit_pass_at_once_and_then_none() {
        let quota = Quota::new(200, MINUTE);
        let mut limiter = Gcra::default();
        let last = after(&mut limiter, 200, at(0), &quota);
        assert!(last.is_allowed);
        assert_eq!((last.remaining, last.reset_after), (0, MINUTE));
        let refused = limiter.check(at(0), 1, &quota);
        assert!(!refused.is_allowed);
        assert_eq!(refused.retry_after, Duration::from_millis(300));
        assert_eq!(refused.reset_after, MINUTE);
    }

    #[test]
    fn counts_down_what_remains() {
        let quota = Quota::new(3, MINUTE);
        let mut limiter = Gcra::default();
        let remaining: Vec<_> = (0..4)
            .map(|_| limiter.check(at(0), 1, &quota).remaining)
            .collect();
        assert_eq!(remaining, [2, 1, 0, 0]);
    }

    #[test]
    fn gives_one_back_each_interval() {
        let quota = Quota::new(3, MINUTE);
        let mut limiter = Gcra::default();
        after(&mut limiter, 3, at(0), &quota);
        assert!(!limiter.check(at(19_999), 1, &quota).is_allowed);
        assert!(limiter.check(at(20_000), 1, &quota).is_allowed);
        assert!(!limiter.check(at(20_000), 1, &quota).is_allowed);
    }

    #[test]
    fn a_refused_request_costs_nothing() {
        let quota = Quota::new(2, MINUTE);
        let mut limiter = Gcra::default();
        after(&mut limiter, 2, at(0), &quota);
        let before = limiter;
        after(&mut limiter, 100, at(0), &quota);
        assert_eq!(limiter, before);
    }

    #[test]
    fn a_request_over_the_limit_never_passes() {
        let quota = Quota::new(2, MINUTE);
        let refused = Gcra::default().check(at(0), 3, &quota);
        assert_eq!(refused.retry_after, Duration::MAX);
        assert_eq!(refused.remaining, 2);
    }

    #[test]
    fn can_be_dropped_when_the_whole_limit_is_back() {
        let quota = Quota::new(2, MINUTE);
        let mut limiter = Gcra::default();
        let reset_after = limiter.check(at(5), 1, &quota).reset_after;
        assert!(!limiter.is_idle(at(6)));
        assert!(limiter.is_idle(at(5) + reset_after));
    }

    #[test]
    fn a_rate_above_one_a_millisecond_is_kept() {
        let quota = Quota::new(5000, Duration::from_secs(1));
        let mut limiter = Gcra::default();
        after(&mut limiter, 5000, at(0), &quota);
        let passed = (0..10).filter(|_| limiter.check(at(1), 1, &quota).is_allowed);
        assert_eq!(passed.count(), 5);
    }

    proptest! {
        #[test]
        fn never_lets_more_pass_than_the_limit_and_the_rate(
            limit in 1u32..50,
            window in 1u64..5000,
            steps in prop::collection::vec((0u64..400, 0u32..4), 1..200),
        ) {
            let quota = Quota::new(limit, Duration::from_millis(window));
            let mut limiter = Gcra::default();
            let (mut now, mut passed) = (0, 0);
            for (pause, cost) in steps {
                now += pause;
                if limiter.check(at(now), cost, &quota).is_allowed {
                    passed += u64::from(cost);
                }
                prop_assert!(passed <= u64::from(limit) + now * u64::from(limit) / window);
            }
        }

        #[test]
        fn what_it_says_of_the_future_is_true(
            limit in 1u32..50,
            window in 1u64..5000,
            steps in prop::collection::vec((0u64..200, 0u32..60), 1..50),
        ) {
            let quota = Quota::new(limit, Duration::from_millis(window));
            let mut limiter = Gcra::default();
            let mut now = at(0);
            for (pause, cost) in steps {
                now = now + Duration::from_millis(pause);
                let told = limiter.check(now, cost, &quota);
                prop_assert!(would_pass(limiter, now, told.remaining, &quota));
                prop_assert!(!would_pass(limiter, now, told.remaining + 1, &quota));
                let whole = now + told.reset_after + Duration::from_millis(1);
                prop_assert!(would_pass(limiter, whole, limit, &quota));
                if !told.is_allowed && cost <= limit {
                    let then = now + told.retry_after + Duration::from_millis(1);
                    prop_assert!(would_pass(limiter, then, cost, &quota));
                }
            }
        }

        #[test]
        fn no_input_panics(limit: u32, window: u64, cost: u32, first: u64, second: u64) {
            let quota = Quota::new(limit, Duration::from_nanos(window));
            let mut limiter = Gcra::default();
            limiter.check(at(first), cost, &quota);
            limiter.check(at(second), cost, &quota);
        }
    }
}
