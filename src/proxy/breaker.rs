//! One upstream's circuit breaker: five failures within ten seconds open it for fifteen; then one request at a time is
//! let through as a probe, and its outcome closes or opens it again.
//!
//! The time is an argument. While closed, a request costs one load.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::model::Moment;

/// So many failures...
const FAILURES: usize = 5;
/// ...within this time...
const WINDOW: Duration = Duration::from_secs(10);
/// ...open it for this long.
const OPEN: Duration = Duration::from_secs(15);

const CLOSED: u8 = 0;
const OPENED: u8 = 1;

/// Whether an upstream may be asked.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    state: AtomicU8,
    detail: Mutex<Detail>,
}

#[derive(Debug, Default)]
struct Detail {
    /// When the last failures were, as a ring.
    failures: [Option<Moment>; FAILURES],
    next: usize,
    until: Moment,
    probing: bool,
}

/// How a request is let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    /// As any other.
    Free,
    /// As the one that finds out whether the upstream is well again.
    Probe,
}

impl Breaker {
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
        (now >= detail.until && !detail.probing).then(|| {
            detail.probing = true;
            Pass::Probe
        })
    }

    /// When it may be asked again; none while closed.
    pub(super) fn open_until(&self) -> Option<Moment> {
        (!self.is_closed()).then(|| self.lock().until)
    }

    /// The upstream answered.
    pub(super) fn succeeded(&self, pass: Pass) {
        if pass == Pass::Probe {
            *self.lock() = Detail::default();
            self.state.store(CLOSED, Relaxed);
        }
    }

    /// The upstream failed; tells whether that opened the breaker.
    pub(super) fn failed(&self, pass: Pass, now: Moment) -> bool {
        let mut detail = self.lock();
        let next = detail.next;
        detail.failures[next] = Some(now);
        detail.next = (next + 1) % FAILURES;
        let oldest = detail.failures[detail.next];
        let many = oldest.is_some_and(|oldest| now.since(oldest) <= WINDOW);
        if pass == Pass::Probe {
            detail.probing = false;
        } else if !many || !self.is_closed() {
            return false;
        }
        detail.until = now + OPEN;
        self.state.store(OPENED, Relaxed);
        true
    }

    /// Nobody waited for the outcome.
    pub(super) fn abandoned(&self, pass: Pass) {
        if pass == Pass::Probe {
            self.lock().probing = false;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Detail> {
        self.detail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::from_millis(seconds * 1000)
    }

    fn opened() -> Breaker {
        let breaker = Breaker::default();
        let opens: Vec<bool> = (0..5).map(|n| breaker.failed(Pass::Free, at(n))).collect();
        assert_eq!(opens, [false, false, false, false, true]);
        breaker
    }

    #[test]
    fn five_failures_in_ten_seconds_open_it_for_fifteen() {
        let breaker = opened();
        assert_eq!(breaker.open_until(), Some(at(19)));
        assert_eq!(breaker.admit(at(18)), None);
        assert_eq!(breaker.admit(at(19)), Some(Pass::Probe));
        assert_eq!(breaker.admit(at(19)), None, "one probe at a time");
    }

    #[test]
    fn failures_that_are_far_between_do_not() {
        let breaker = Breaker::default();
        assert!((0..20).all(|n| !breaker.failed(Pass::Free, at(n * 3))));
        assert!(breaker.is_closed());
    }

    #[test]
    fn a_probe_decides() {
        let breaker = opened();
        assert_eq!(breaker.admit(at(20)), Some(Pass::Probe));
        assert!(breaker.failed(Pass::Probe, at(21)));
        assert_eq!(breaker.admit(at(35)), None);
        assert_eq!(breaker.admit(at(36)), Some(Pass::Probe));
        breaker.abandoned(Pass::Probe);
        assert_eq!(breaker.admit(at(36)), Some(Pass::Probe));
        breaker.succeeded(Pass::Probe);
        assert_eq!(breaker.admit(at(36)), Some(Pass::Free));
        assert!(
            !breaker.failed(Pass::Free, at(37)),
            "counts from nothing again"
        );
    }

    #[test]
    fn what_was_under_way_when_it_opened_does_not_keep_it_open() {
        let breaker = opened();
        assert!(!breaker.failed(Pass::Free, at(18)));
        assert_eq!(breaker.open_until(), Some(at(19)));
    }
}
