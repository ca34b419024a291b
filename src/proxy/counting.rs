//! Which limiter a request falls under, and who counts it: this node, or the fleet.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::time::Instant;

use super::Proxy;
use super::address::Arrival;
use super::call::{Call, State};
use super::course::{Asked, Course};
use super::error::ProxyError;
use super::fleet::Pending;
use super::gone::poll_gone;
use super::rate::{Limits, Whose};
use super::table::Route;
use crate::http1::{After, Framing, Peer, RequestHead};
use crate::limits::Decision;
use crate::model::Moment;
use crate::telemetry::proxy as counts;

/// The limiter of one request.
#[derive(Debug)]
pub(super) struct Limiter {
    pub(super) limits: Arc<Limits>,
    /// Whose requests it counts.
    pub(super) whose: Whose,
    /// Of which service; empty for all that have no limit of their own.
    service: String,
    /// Whether it was counted against this node's part.
    is_alone: bool,
}

/// A request that waits until the fleet has counted it.
pub(super) struct Counting {
    pending: Pending,
    limiter: Limiter,
}

impl Proxy {
    /// The limiter of a request from somebody, where there is a limit.
    pub(super) fn limiter(&self, route: Option<&Arc<Route>>, whose: Whose) -> Option<Limiter> {
        let own = route.filter(|route| route.policy.rate.is_some());
        let limits = match own {
            Some(route) => route.limits.as_ref(),
            None => self.limits.as_ref(),
        };
        Some(Limiter {
            limits: limits?.clone(),
            whose,
            service: own.map(|route| route.name.clone()).unwrap_or_default(),
            is_alone: false,
        })
    }

    /// Counts a request on this node, and finds out where it goes: by address before anything else, since a token costs
    /// more to verify than a request to refuse; by user as soon as that is known.
    pub(super) fn count_around(
        &self,
        limiter: Option<Limiter>,
        now: Moment,
        course: impl FnOnce() -> Result<Course, ProxyError>,
    ) -> (Result<Course, ProxyError>, Option<(Limiter, Decision)>) {
        let Some(mut limiter) = limiter else {
            return (course(), None);
        };
        if !limiter.limits.is_by_user() {
            let decision = self.count_here(&mut limiter, now);
            let course = match decision.is_allowed {
                true => course(),
                false => Err(ProxyError::TooMany(decision)),
            };
            return (course, Some((limiter, decision)));
        }
        let course = course();
        if let Ok(Course {
            identity: Some(identity),
            ..
        }) = &course
        {
            limiter.whose = Whose::User(identity.user.clone());
        }
        let decision = self.count_here(&mut limiter, now);
        let course = match decision.is_allowed {
            true => course,
            false => Err(ProxyError::TooMany(decision)),
        };
        (course, Some((limiter, decision)))
    }

    /// Counts a request on this node: against the whole limit, or against this node's part while the fleet cannot be
    /// asked.
    fn count_here(&self, limiter: &mut Limiter, now: Moment) -> Decision {
        let fleet = self.connected_fleet();
        limiter.is_alone = fleet.is_some_and(|fleet| !fleet.is_there(now));
        match limiter.is_alone {
            true => self.count_alone(limiter, now),
            false => limiter.limits.check(&limiter.whose, now),
        }
    }

    /// Counts a request that the fleet has not counted against this node's part.
    fn count_alone(&self, limiter: &Limiter, now: Moment) -> Decision {
        let limits = &limiter.limits;
        let Some(fleet) = self.connected_fleet() else {
            return limits.check(&limiter.whose, now);
        };
        counts::limited_alone();
        let part = fleet.part_of(limits.quota(), limits.rate().window);
        limits.check_part(&limiter.whose, &part, now)
    }

    /// Asks the fleet, where there is one and the request was not counted alone. A client that is over the limit on this
    /// node alone never gets so far.
    fn count_in_fleet(&self, limiter: &Limiter, now: Moment) -> Option<Pending> {
        let fleet = self.connected_fleet().filter(|_| !limiter.is_alone)?;
        if !fleet.is_there(now) {
            // It went away after the request was counted here, against the whole limit: that lets through too many.
            return Some(Box::pin(std::future::ready(None)));
        }
        let (limits, whose) = (&limiter.limits, limiter.whose.text());
        let of = (&*limiter.service, &*whose);
        Some(fleet.count(of, limits.quota(), limits.rate().window, now))
    }
}

impl Proxy {
    /// What becomes of a request that no connection of its own carries on: let in, counted, or refused.
    pub(super) async fn judge(
        &self,
        head: &RequestHead<'_>,
        arrival: Arrival,
        started: Instant,
    ) -> (Result<Course, ProxyError>, Asked) {
        let (mut course, counted, mut asked) = self.weigh(head, arrival, started);
        let Some((limiter, mut decision)) = counted else {
            return (course, asked);
        };
        let pending = course.as_ref().ok();
        let pending = pending.and_then(|_| self.count_in_fleet(&limiter, self.at(started)));
        if let Some(pending) = pending {
            let counted = pending.await;
            decision = counted.unwrap_or_else(|| self.count_alone(&limiter, self.now()));
            if !decision.is_allowed {
                course = Err(ProxyError::TooMany(decision));
            }
        }
        limiter.limits.tell(&mut asked.lines, &decision);
        (course, asked)
    }
}

impl Call {
    /// Asks an upstream, once a request that this node would let through is let through by the fleet, too.
    pub(super) fn counted(
        proxy: Arc<Proxy>,
        mut asked: Asked,
        course: Course,
        body: Framing,
        (limiter, decision): (Limiter, Decision),
    ) -> Self {
        let Some(pending) = proxy.count_in_fleet(&limiter, proxy.at(asked.started)) else {
            limiter.limits.tell(&mut asked.lines, &decision);
            return Self::new(proxy, asked, course, body);
        };
        let mut call = Self::with_course(proxy, asked, course, body);
        call.state = State::Counting(Box::new(Counting { pending, limiter }));
        call
    }

    /// Ready when the request has been counted.
    pub(super) fn poll_count(
        &mut self,
        cx: &mut Context<'_>,
        peer: &mut Peer<'_>,
    ) -> Poll<Option<After>> {
        let State::Counting(counting) = &mut self.state else {
            return Poll::Ready(None);
        };
        let Poll::Ready(decision) = Pin::new(&mut counting.pending).poll(cx) else {
            ready!(poll_gone(cx, peer));
            return Poll::Ready(Some(After::Cut));
        };
        let Counting { limiter, .. } = &**counting;
        self.moved = Instant::now();
        // Redis is away since a moment: this node's part it is.
        let decision =
            decision.unwrap_or_else(|| self.proxy.count_alone(limiter, self.proxy.at(self.moved)));
        limiter.limits.tell(&mut self.asked.lines, &decision);
        match decision.is_allowed {
            true => self.begin(),
            false => self.tell(&ProxyError::TooMany(decision)),
        }
        Poll::Ready(None)
    }
}
