//! One try after the other: an upstream is chosen and asked; when it fails before the client got a byte, another one is,
//! as far as the request may be repeated and the service's budget goes.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::attempt::Attempt;
use super::call::{Call, State};
use super::cause::Cause;
use super::choosing::Wish;
use super::dialling::{Dialled, Way};
use super::endpoint::Endpoint;
use super::error::ProxyError;
use super::multiplexed::{Bounds, DialError};
use super::reply;
use super::wire::{self, Wire};
use crate::http1::{After, HeadScan};
use crate::telemetry::proxy::Carried;

/// How long after a request the end of a kept connection is taken for one that had begun before it: some round trips.
const RACE_TIME_MAX: Duration = Duration::from_secs(1);

impl Call {
    /// Asks an upstream that was not asked yet, where there is one.
    pub(super) fn try_next(&mut self) {
        let Some(course) = &self.course else { return };
        self.tries_left = self.tries_left.saturating_sub(1);
        let now = self.proxy.at(self.moved);
        let wish = Wish {
            now,
            tried: &self.tried,
            key: course.key,
        };
        let Some((endpoint, pass)) = course.route.choose(&wish) else {
            return self.tell(&ProxyError::Overloaded);
        };
        self.tried.push(endpoint.id);
        if let Some(entry) = &mut self.asked.entry {
            entry.upstream = Some(endpoint.clone());
        }
        self.upload
            .begin(course.head_for(&endpoint, &self.asked.verb));
        // A WebSocket keeps its connection to itself, so it brings a new one.
        let may_reuse = self.asked.carried != Carried::Ws;
        let pooled = may_reuse
            .then(|| wire::take(endpoint.id, self.moved))
            .flatten();
        self.attempt = Some(Attempt::begin(
            endpoint.clone(),
            pass,
            self.asked.carried,
            now,
        ));
        if let Some(wire) = pooled {
            return self.ask(wire);
        }
        match may_reuse.then(|| endpoint.share(self.moved)).flatten() {
            Some(socket) => self.ask_on(Dialled {
                socket,
                is_reused: true,
            }),
            None if may_reuse => self.dial(endpoint, Way::Any),
            None => self.dial(endpoint, Way::Own),
        }
    }

    fn dial(&mut self, endpoint: Arc<Endpoint>, way: Way) {
        let Some(course) = &self.course else { return };
        let bounds = Bounds::of(&course.route.policy);
        let connector = self.proxy.connector.load_full();
        self.state = State::Dialling(Box::pin(async move {
            endpoint.dial(connector.as_deref(), way, bounds).await
        }));
    }

    /// A connection was made, or has room.
    pub(super) fn ask_on(&mut self, Dialled { socket, is_reused }: Dialled) {
        self.began = Instant::now();
        self.moved = self.began;
        let endpoint = self.attempt.as_ref().map(|attempt| &attempt.endpoint);
        let age_max = endpoint.and_then(|endpoint| endpoint.connection_age_max());
        let mut wire = Wire::new(socket, age_max, self.began);
        wire.is_reused = is_reused;
        self.ask(wire);
    }

    /// There is no connection.
    pub(super) fn is_undialled(&mut self, error: &DialError) {
        match error {
            // It has enough to do, and nobody has failed.
            DialError::Full => self.fail_with(&ProxyError::Overloaded, None),
            DialError::TimedOut => self.fail(&ProxyError::TimedOut, &Cause::NoConnectionInTime),
            DialError::Failed(error) => {
                self.fail(&ProxyError::Unavailable, &Cause::NoConnection(error));
            }
        }
    }

    /// Sends the request on this connection.
    pub(super) fn ask(&mut self, wire: Wire) {
        self.wire = Some(wire);
        self.scan = HeadScan::default();
        self.state = State::Asking;
    }

    /// This try failed before the client got anything.
    pub(super) fn fail(&mut self, error: &ProxyError, cause: &Cause<'_>) {
        self.fail_with(error, Some(cause));
    }

    /// The upstream says that it has not looked at the request: any may be made again, as long as its body is here. That is
    /// no failure: an upstream may wind a connection down, and have more than enough to do.
    pub(super) fn refused(&mut self) {
        self.fail_with(&ProxyError::Unavailable, None);
    }

    /// Without a cause it is no failure of the upstream's: that has looked at nothing of the request.
    fn fail_with(&mut self, error: &ProxyError, cause: Option<&Cause<'_>>) {
        let is_refused = cause.is_none();
        let waited = self.moved.elapsed();
        self.moved = Instant::now();
        let wire = self.wire.take();
        let was_reused = wire.as_ref().is_some_and(|wire| wire.is_reused);
        let is_untouched = self.upload.is_unsent() || (is_refused && self.upload.is_here());
        let may_repeat =
            !self.has_begun && !self.is_late() && (is_untouched || self.may_repeat(error));
        if was_reused && may_repeat && *error != ProxyError::TimedOut {
            // The upstream had closed a connection that was kept: nobody's failure.
            if let (Some(attempt), Some(course)) = (&self.attempt, &self.course) {
                let endpoint = attempt.endpoint.clone();
                self.upload
                    .begin(course.head_for(&endpoint, &self.asked.verb));
                return self.dial(endpoint, Way::Fresh);
            }
        }
        let now = self.proxy.at(self.moved);
        let cause = cause.filter(|cause| match (cause, &wire) {
            (Cause::Closed | Cause::NoAnswer(_), Some(wire)) => !self.has_lost_race(wire, waited),
            _ => true,
        });
        if let (Some(mut attempt), Some(cause)) = (self.attempt.take(), cause) {
            attempt.failed(cause, now);
        }
        if may_repeat && self.tries_left > 0 && self.is_in_budget() {
            return self.try_next();
        }
        self.tell(error);
    }

    /// Whether a kept connection ended as the request went out on it, before a byte of an answer: its upstream was about
    /// to close it (RFC 9112 section 9.3.1). The client is told all the same when the request may not be repeated, for nobody
    /// knows what became of it. But the breaker hears nothing: that happens whenever an upstream's time-out for idle
    /// connections is shorter than ours, and all the more while it restarts, and five such requests would shut out one
    /// that is well. If it is ill, the next request finds out: this connection is gone, and a new one cannot lose a
    /// race. What ends later than a few round trips after the request was being worked on, so it counts; and so it does on
    /// HTTP/2, where an upstream says which requests it has not looked at (`GOAWAY`).
    fn has_lost_race(&self, wire: &Wire, waited: Duration) -> bool {
        let endpoint = self.attempt.as_ref().map(|attempt| &attempt.endpoint);
        let is_http1 = endpoint.is_some_and(|endpoint| !endpoint.may_share());
        wire.is_reused && wire.read.is_empty() && is_http1 && waited < RACE_TIME_MAX
    }

    /// Whether a request of which something may have arrived can be made again.
    fn may_repeat(&self, error: &ProxyError) -> bool {
        let Some(course) = &self.course else {
            return false;
        };
        let in_time =
            *error != ProxyError::TimedOut || course.route.policy.retries.try_timeout.is_some();
        in_time && course.may_repeat(&self.asked) && self.upload.can_repeat()
    }

    fn is_in_budget(&self) -> bool {
        let now = self.proxy.at(self.moved);
        self.course.as_ref().is_some_and(|course| {
            let percent = course.route.policy.retries.budget_percent;
            course.route.budget.may_retry(percent, now)
        })
    }

    /// Whether an answer of this status is better asked for elsewhere; takes that out of the budget.
    pub(super) fn is_worth_another(&self, status: u16) -> bool {
        let Some(course) = &self.course else {
            return false;
        };
        let wish = Wish {
            now: self.proxy.at(self.moved),
            tried: &self.tried,
            key: course.key,
        };
        self.tries_left > 0
            && !self.is_late()
            && course.route.policy.retries.statuses.contains(&status)
            && course.may_repeat(&self.asked)
            && self.upload.can_repeat()
            && course.route.has_another(&wish)
            && self.is_in_budget()
    }

    /// Answers with an error of our own.
    pub(super) fn tell(&mut self, error: &ProxyError) {
        let is_upstreams = matches!(
            error,
            ProxyError::Unavailable | ProxyError::TimedOut | ProxyError::Overloaded
        );
        if is_upstreams && !self.has_begun && self.stands_in() {
            return;
        }
        let keeps_alive = self.may_keep_client();
        let told = (&self.asked, &self.proxy.pages);
        let (status, bytes) = reply::error(error, told, keeps_alive);
        self.asked.is_answered(status, Instant::now());
        self.attempt = None;
        self.wire = None;
        let after = if keeps_alive {
            After::KeepAlive
        } else {
            After::Close
        };
        self.state = State::Telling {
            bytes,
            sent: 0,
            after,
        };
    }

    /// Whether the client's connection can carry another request after an answer that begins now: what is left of this
    /// one's body would be read as one.
    pub(super) fn may_keep_client(&self) -> bool {
        self.asked.keeps_alive && self.draining.is_none() && self.upload.is_body_read()
    }
}
