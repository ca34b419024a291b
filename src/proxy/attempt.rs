//! One request that is under way to an upstream, and what it shows of that.

use std::sync::Arc;
use std::time::Duration;

use super::breaker::Pass;
use super::cause::Cause;
use super::endpoint::Endpoint;
use crate::model::Moment;
use crate::telemetry::proxy::{self as counts, Carried};

/// What an answer's head says of its upstream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answered {
    pub(super) status: u16,
    /// `Retry-After` in seconds; its other form, a date, is not looked at.
    pub(super) retry_after: Option<Duration>,
}

/// One request that is under way to an upstream; dropping it ends that. Exactly one outcome reaches the breaker.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) endpoint: Arc<Endpoint>,
    pass: Pass,
    carried: Carried,
    is_judged: bool,
}

impl Attempt {
    /// Counts it in.
    pub(super) fn begin(
        endpoint: Arc<Endpoint>,
        pass: Pass,
        carried: Carried,
        now: Moment,
    ) -> Self {
        endpoint.enter(carried, now);
        Self {
            endpoint,
            pass,
            carried,
            is_judged: false,
        }
    }

    /// The head of an answer came.
    pub(super) fn answered(&mut self, answer: &Answered, elapsed: Duration, now: Moment) {
        self.endpoint.measured(elapsed, now);
        if answer.status >= 500 {
            self.failed(&Cause::Status(answer.status), now);
        } else if answer.status == 429 && self.endpoint.breaker.counts_good() {
            self.limited(answer, now);
        } else {
            self.is_judged = true;
            if self.endpoint.breaker.succeeded(self.pass, now) {
                self.endpoint.begin_slowly(now);
                tracing::info!(upstream = %self.endpoint.address.url, "the circuit breaker closes: the upstream is well");
            }
        }
        if let (503, Some(time)) = (answer.status, answer.retry_after) {
            self.endpoint.rest(time, now);
        }
    }

    /// It is asked too much. One client may be, so it is left alone only when that opens its breaker, and then for as long as
    /// it wants.
    fn limited(&mut self, answer: &Answered, now: Moment) {
        self.is_judged = true;
        if self.endpoint.breaker.limited(self.pass, now) {
            self.opened(&Cause::Status(answer.status));
            if let Some(time) = answer.retry_after {
                self.endpoint.rest(time, now);
            }
        }
    }

    /// It could not be reached, or did not answer in time, or badly.
    pub(super) fn failed(&mut self, cause: &Cause<'_>, now: Moment) {
        self.is_judged = true;
        let endpoint = &self.endpoint;
        endpoint.note_failure(cause, now);
        let upstream = &endpoint.address.url;
        tracing::debug!(%upstream, %cause, "an upstream failed");
        if endpoint
            .breaker
            .failed(self.pass, now, || endpoint.failed_percent(now))
        {
            self.opened(cause);
        }
    }

    fn opened(&self, cause: &Cause<'_>) {
        counts::opened();
        let upstream = &self.endpoint.address.url;
        tracing::warn!(%upstream, %cause, "the circuit breaker opens");
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.endpoint.leave(self.carried);
        if !self.is_judged {
            self.endpoint.breaker.abandoned(self.pass);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::endpoint::tests::endpoint;

    #[test]
    fn what_is_under_way_costs_until_it_ends() {
        let endpoint = endpoint();
        let now = Moment::from_millis(0);
        let idle = endpoint.cost(now);
        let attempt = Attempt::begin(endpoint.clone(), Pass::Free, Carried::Http, now);
        assert!(endpoint.cost(now) > idle * 1.9);
        assert_eq!(endpoint.inflight(Carried::Http), 1);
        drop(attempt);
        assert_eq!(endpoint.inflight(Carried::Http), 0);
    }

    #[test]
    fn an_abandoned_probe_lets_the_next_one_through() {
        let endpoint = endpoint();
        let now = Moment::from_millis(0);
        (0..5).for_each(|_| {
            endpoint.breaker.failed(Pass::Free, now, || 100);
        });
        let later = Moment::from_millis(20_000);
        let pass = endpoint.breaker.admit(later).expect("a probe");
        drop(Attempt::begin(endpoint.clone(), pass, Carried::Http, later));
        assert_eq!(endpoint.breaker.admit(later), Some(Pass::Probe));
    }

    #[test]
    fn one_that_is_well_again_begins_slowly() {
        let endpoint = endpoint();
        let at = Moment::from_millis;
        (0..5).for_each(|_| {
            endpoint.breaker.failed(Pass::Free, at(0), || 100);
        });
        let pass = endpoint.breaker.admit(at(20_000)).expect("a probe");
        let slow_start = Duration::from_secs(10);
        let before = endpoint.warmth(at(20_000), slow_start);
        assert!((before - 1.0).abs() < 1e-9, "nothing was said of it yet");
        let well = Answered {
            status: 200,
            retry_after: None,
        };
        let mut attempt = Attempt::begin(endpoint.clone(), pass, Carried::Http, at(20_000));
        attempt.answered(&well, Duration::ZERO, at(20_000));
        assert!(endpoint.warmth(at(20_000), slow_start) < 0.2);
    }

    #[test]
    fn one_that_asks_for_rest_gets_it() {
        let endpoint = endpoint();
        let at = Moment::from_millis;
        let busy = Answered {
            status: 503,
            retry_after: Some(Duration::from_secs(1000)),
        };
        let mut attempt = Attempt::begin(endpoint.clone(), Pass::Free, Carried::Http, at(0));
        attempt.answered(&busy, Duration::ZERO, at(0));
        assert!(!endpoint.is_free(at(59_999)));
        assert!(endpoint.is_free(at(60_000)), "but not for ever");
    }
}
