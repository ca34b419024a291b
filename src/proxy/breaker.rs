//! One upstream's circuit breaker: so many failures within a window, or too few good answers, open it for a while; then a few
//! requests at a time are let through as probes, and their outcomes close it or open it again, for twice as long.
//!
//! It knows one upstream: how others do is nothing to it. The time is an argument. While closed, a request costs one load, and two
//! counters more where good answers are counted.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::BreakerPolicy;
use super::counter::Recent;
use crate::model::Moment;

const CLOSED: u8 = 0;
const OPENED: u8 = 1;

/// Whether an upstream may be asked.
#[derive(Debug)]
pub(super) struct Breaker {
    policy: BreakerPolicy,
    state: AtomicU8,
    detail: Mutex<Detail>,
    /// Where the part of good answers is looked at.
    outcomes: Option<Outcomes>,
}

/// What came of the requests of the last ten seconds.
#[derive(Debug, Default)]
struct Outcomes {
    all: Recent,
    bad: Recent,
}

#[derive(Debug)]
struct Detail {
    /// When the last failures were, as a ring; as long as failures are needed.
    failures: Box<[Option<Moment>]>,
    next: usize,
    until: Moment,
    /// For how long it was opened last.
    open: Duration,
    /// Probes that are under way.
    probing: u32,
    /// Probes that succeeded since it was opened last.
    passed: u32,
}

impl Detail {
    fn new(policy: &BreakerPolicy) -> Self {
        Self {
            failures: vec![None; policy.failures.max(1) as usize].into(),
            next: 0,
            until: Moment::default(),
            open: Duration::ZERO,
            probing: 0,
            passed: 0,
        }
    }

    /// Notes a failure; tells whether there are enough of them.
    fn note(&mut self, now: Moment, window: Duration) -> bool {
        self.failures[self.next] = Some(now);
        self.next = (self.next + 1) % self.failures.len();
        let oldest = self.failures[self.next];
        oldest.is_some_and(|oldest| now.since(oldest) <= window)
    }
}

/// How a request is let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    /// As any other.
    Free,
    /// As one of those that find out whether the upstream is well again.
    Probe,
}

impl Breaker {
    /// A closed one.
    pub(super) fn new(policy: BreakerPolicy) -> Self {
        Self {
            policy,
            state: AtomicU8::new(CLOSED),
            detail: Mutex::new(Detail::new(&policy)),
            outcomes: (policy.success_percent > 0).then(Outcomes::default),
        }
    }

    /// When it opens.
    pub(super) const fn policy(&self) -> &BreakerPolicy {
        &self.policy
    }

    /// Whether it is closed: the upstream is taken to be well.
    pub(super) fn is_closed(&self) -> bool {
        self.state.load(Relaxed) == CLOSED
    }

    /// Lets a request through, or not. A probe must be told about: [`Breaker::succeeded`], [`Breaker::failed`] or
    /// [`Breaker::abandoned`].
    pub(super) fn admit(&self, now: Moment) -> Option<Pass> {
        if self.is_closed() {
            return Some(Pass::Free);
        }
        let mut detail = self.lock();
        let has_room = detail.probing + detail.passed < self.policy.probes.max(1);
        (now >= detail.until && has_room).then(|| {
            detail.probing += 1;
            Pass::Probe
        })
    }

    /// When it may be asked again; none while closed.
    pub(super) fn open_until(&self) -> Option<Moment> {
        (!self.is_closed()).then(|| self.lock().until)
    }

    /// The upstream answered well; tells whether that closed the breaker.
    pub(super) fn succeeded(&self, pass: Pass, now: Moment) -> bool {
        if pass == Pass::Free {
            self.count(true, now);
            return false;
        }
        let mut detail = self.lock();
        detail.probing = detail.probing.saturating_sub(1);
        detail.passed += 1;
        let is_well = detail.passed >= self.policy.probes && !self.is_closed();
        if is_well {
            *detail = Detail::new(&self.policy);
            if let Some(Outcomes { all, bad }) = &self.outcomes {
                // Or what opened it would open it again.
                all.clear();
                bad.clear();
            }
            self.state.store(CLOSED, Relaxed);
        }
        is_well
    }

    /// The upstream failed; tells whether that opened the breaker. `failed_percent` is asked how much of what the
    /// upstream was asked lately failed.
    pub(super) fn failed(
        &self,
        pass: Pass,
        now: Moment,
        failed_percent: impl FnOnce() -> u32,
    ) -> bool {
        self.count(false, now);
        let mut detail = self.lock();
        let many = detail.note(now, self.policy.window);
        let is_due = || (many && failed_percent() >= self.policy.percent) || self.is_poor(now);
        self.open(&mut detail, pass, now, is_due)
    }

    /// The upstream answered that it is asked too much (429): no failure, but no good answer either, where those are counted; tells
    /// whether that opened the breaker. Where they are not, it is an answer as any other.
    pub(super) fn limited(&self, pass: Pass, now: Moment) -> bool {
        self.count(false, now);
        self.open(&mut self.lock(), pass, now, || self.is_poor(now))
    }

    /// Whether good answers are counted.
    pub(super) const fn counts_good(&self) -> bool {
        self.outcomes.is_some()
    }

    fn count(&self, is_good: bool, now: Moment) {
        let Some(Outcomes { all, bad }) = &self.outcomes else {
            return;
        };
        all.add(now);
        if !is_good {
            bad.add(now);
        }
    }

    /// Whether too few of the last answers were good.
    fn is_poor(&self, now: Moment) -> bool {
        self.outcomes.as_ref().is_some_and(|outcomes| {
            let (all, bad) = (outcomes.all.count(now), outcomes.bad.count(now));
            let good = all.saturating_sub(bad);
            all >= u64::from(self.policy.requests_min)
                && good * 100 < all * u64::from(self.policy.success_percent)
        })
    }

    /// Opens after a bad outcome: of a probe always, of others when it is due.
    fn open(
        &self,
        detail: &mut Detail,
        pass: Pass,
        now: Moment,
        is_due: impl FnOnce() -> bool,
    ) -> bool {
        if pass == Pass::Probe {
            detail.probing = detail.probing.saturating_sub(1);
            if self.is_closed() {
                return false;
            }
        } else if !self.is_closed() || !is_due() {
            return false;
        }
        let open = (detail.open * 2).min(self.policy.open_max);
        detail.open = open.max(self.policy.open);
        detail.until = now + detail.open;
        detail.passed = 0;
        self.state.store(OPENED, Relaxed);
        true
    }

    /// Nobody waited for the outcome.
    pub(super) fn abandoned(&self, pass: Pass) {
        if pass == Pass::Probe {
            let mut detail = self.lock();
            detail.probing = detail.probing.saturating_sub(1);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Detail> {
        self.detail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
impl Default for Breaker {
    fn default() -> Self {
        Self::new(crate::proxy::policy::tests::POLICY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::policy::tests::POLICY;

    fn at(seconds: u64) -> Moment {
        Moment::from_millis(seconds * 1000)
    }

    fn fails(breaker: &Breaker, pass: Pass, now: Moment) -> bool {
        breaker.failed(pass, now, || 100)
    }

    fn opened(policy: BreakerPolicy) -> Breaker {
        let breaker = Breaker::new(policy);
        let opens: Vec<bool> = (0..5).map(|n| fails(&breaker, Pass::Free, at(n))).collect();
        assert_eq!(opens, [false, false, false, false, true]);
        breaker
    }

    #[test]
    fn five_failures_in_ten_seconds_open_it_for_fifteen() {
        let breaker = opened(POLICY);
        assert_eq!(breaker.open_until(), Some(at(19)));
        assert_eq!(breaker.admit(at(18)), None);
        assert_eq!(breaker.admit(at(19)), Some(Pass::Probe));
        assert_eq!(breaker.admit(at(19)), None, "one probe at a time");
    }

    #[test]
    fn failures_that_are_far_between_do_not() {
        let breaker = Breaker::default();
        assert!((0..20).all(|n| !fails(&breaker, Pass::Free, at(n * 3))));
        assert!(breaker.is_closed());
    }

    #[test]
    fn failures_that_are_few_among_many_requests_do_not() {
        let breaker = Breaker::new(BreakerPolicy {
            percent: 50,
            ..POLICY
        });
        assert!((0..20).all(|_| !breaker.failed(Pass::Free, at(1), || 49)));
        assert!(breaker.failed(Pass::Free, at(1), || 50));
    }

    /// A breaker that never has enough failures.
    fn counting() -> Breaker {
        Breaker::new(BreakerPolicy {
            failures: 1000,
            success_percent: 80,
            requests_min: 10,
            ..POLICY
        })
    }

    fn succeeds(breaker: &Breaker, count: u32) {
        (0..count).for_each(|_| {
            assert!(!breaker.succeeded(Pass::Free, at(1)));
        });
    }

    #[test]
    fn too_few_good_answers_open_it_too() {
        let breaker = counting();
        succeeds(&breaker, 8);
        let opens = (0..3).map(|_| breaker.failed(Pass::Free, at(1), || 0));
        // 8 of 9 are too few to tell, 8 of 10 are enough, 8 of 11 are not.
        assert_eq!(opens.collect::<Vec<_>>(), [false, false, true]);
        assert_eq!(breaker.open_until(), Some(at(16)));
        let later = counting();
        succeeds(&later, 9);
        let mut seconds = (20..100).step_by(2);
        assert!(
            seconds.all(|n| !later.limited(Pass::Free, at(n))),
            "too few in ten seconds"
        );
    }

    #[test]
    fn being_asked_too_much_is_no_good_answer_where_those_are_counted() {
        let breaker = counting();
        succeeds(&breaker, 7);
        let opens: Vec<bool> = (0..3).map(|_| breaker.limited(Pass::Free, at(1))).collect();
        assert_eq!(opens, [false, false, true]);
        assert_eq!(breaker.admit(at(16)), Some(Pass::Probe));
        assert!(breaker.limited(Pass::Probe, at(16)), "for twice as long");
        assert_eq!(breaker.admit(at(46)), Some(Pass::Probe));
        assert!(breaker.succeeded(Pass::Probe, at(46)));
        assert!(
            !breaker.limited(Pass::Free, at(1)),
            "counts from nothing again"
        );
        let other = Breaker::default();
        assert!(!other.counts_good() && (0..99).all(|_| !other.limited(Pass::Free, at(1))));
    }

    #[test]
    fn a_probe_decides() {
        let breaker = opened(POLICY);
        assert_eq!(breaker.admit(at(20)), Some(Pass::Probe));
        assert!(fails(&breaker, Pass::Probe, at(21)));
        assert_eq!(breaker.admit(at(50)), None, "twice as long");
        assert_eq!(breaker.admit(at(51)), Some(Pass::Probe));
        breaker.abandoned(Pass::Probe);
        assert_eq!(breaker.admit(at(51)), Some(Pass::Probe));
        assert!(breaker.succeeded(Pass::Probe, at(50)));
        assert_eq!(breaker.admit(at(51)), Some(Pass::Free));
        assert!(
            !fails(&breaker, Pass::Free, at(52)),
            "counts from nothing again"
        );
    }

    #[test]
    fn it_never_opens_for_longer_than_the_most() {
        let breaker = opened(POLICY);
        let mut now = 100;
        for open in [30, 60, 60] {
            assert_eq!(breaker.admit(at(now)), Some(Pass::Probe));
            assert!(fails(&breaker, Pass::Probe, at(now)));
            assert_eq!(breaker.open_until(), Some(at(now + open)));
            now += 100;
        }
    }

    #[test]
    fn several_probes_must_all_succeed_and_no_more_are_let_through() {
        let breaker = opened(BreakerPolicy {
            probes: 2,
            ..POLICY
        });
        let admitted: Vec<_> = (0..3).map(|_| breaker.admit(at(20))).collect();
        assert_eq!(admitted, [Some(Pass::Probe), Some(Pass::Probe), None]);
        assert!(!breaker.succeeded(Pass::Probe, at(50)));
        assert_eq!(breaker.admit(at(20)), None);
        assert!(fails(&breaker, Pass::Probe, at(20)));
        assert_eq!(breaker.admit(at(50)), Some(Pass::Probe));
        assert!(
            !breaker.succeeded(Pass::Probe, at(50)),
            "from nothing again"
        );
        assert_eq!(breaker.admit(at(50)), Some(Pass::Probe));
        assert!(breaker.succeeded(Pass::Probe, at(50)));
    }

    #[test]
    fn what_was_under_way_when_it_opened_does_not_keep_it_open() {
        let breaker = opened(POLICY);
        assert!(!fails(&breaker, Pass::Free, at(18)));
        assert_eq!(breaker.open_until(), Some(at(19)));
    }
}
