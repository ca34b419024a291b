//! One upstream of a service: where it is, how it does, and how much is under way to it.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::HeaderValue;

use super::breaker::Breaker;
use super::cause::{Cause, LastFailure};
use super::counter::Recent;
use super::resolve::Resolver;
use super::{Address, BreakerPolicy};
use crate::model::Moment;
use crate::telemetry::proxy::Carried;

/// The latency of an upstream that has not answered yet.
const LATENCY_ASSUMED: f64 = 30.0;
/// In which time a latency loses all but a third of its weight, in milliseconds.
const DECAY: f64 = 10_000.0;
/// How long an upstream that asks for rest (503 with `Retry-After`) is left alone at most.
const REST_MAX: Duration = Duration::from_secs(60);
/// The part of its requests with which a slow start begins.
const SLOW_START_LEAST: f64 = 0.1;

/// One upstream. Shared by all workers; everything in it is an atomic but the breaker's detail, its
/// addresses and its last failure.
#[derive(Debug)]
pub(super) struct Endpoint {
    /// Unique in the process: the place in each worker's pool.
    pub(super) id: usize,
    pub(super) address: Address,
    /// What `Host` says to it.
    pub(super) authority: HeaderValue,
    /// A number that follows from its URL alone: the same on every node, and after every start.
    pub(super) token: u64,
    pub(super) resolver: Resolver,
    /// The last connection to it spoke HTTP/2.
    pub(super) shares: AtomicBool,
    pub(super) breaker: Breaker,
    /// Health checks found it ill.
    is_ill: AtomicBool,
    /// It asked to be left alone until then.
    rests_until: AtomicU64,
    /// Since when it is well, for its slow start; 0 for "always".
    well_since: AtomicU64,
    inflight: [AtomicUsize; Carried::COUNT],
    requests: AtomicU64,
    errors: AtomicU64,
    recent: Recent,
    recent_errors: Recent,
    /// The peak EWMA in milliseconds, as the bits of an `f64`; 0 for none.
    latency: AtomicU64,
    latency_at: AtomicU64,
    last_latency: AtomicU64,
    last_failure: Mutex<LastFailure>,
}

impl Endpoint {
    /// The upstream at this address, or nothing when it cannot stand in `Host`.
    pub(super) fn new(address: Address, breaker: BreakerPolicy) -> Option<Self> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let host = if address.host.contains(':') {
            format!("[{}]", address.host)
        } else {
            address.host.clone()
        };
        let authority = match address.port {
            port if port == address.default_port() => host,
            port => format!("{host}:{port}"),
        };
        Some(Self {
            id: NEXT.fetch_add(1, Relaxed),
            authority: HeaderValue::try_from(authority).ok()?,
            token: super::hash::of(address.url.as_bytes()),
            resolver: Resolver::new(&address.host, address.port),
            // Until one has shown otherwise: so that the first requests do not all dial.
            shares: AtomicBool::new(address.is_encrypted),
            address,
            breaker: Breaker::new(breaker),
            is_ill: AtomicBool::new(false),
            rests_until: AtomicU64::new(0),
            well_since: AtomicU64::new(0),
            inflight: Default::default(),
            requests: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            recent: Recent::default(),
            recent_errors: Recent::default(),
            latency: AtomicU64::new(0),
            latency_at: AtomicU64::new(0),
            last_latency: AtomicU64::new(0),
            last_failure: Mutex::default(),
        })
    }

    /// For how long a connection to it may be used: one to a name, so that a changed address is found even by those who
    /// never let go of theirs.
    pub(super) fn connection_age_max(&self) -> Option<Duration> {
        self.resolver.age_max()
    }

    // Whether it may be asked.

    /// Whether nothing speaks against asking it.
    pub(super) fn is_free(&self, now: Moment) -> bool {
        self.breaker.is_closed()
            && !self.is_ill.load(Relaxed)
            && self.rests_until.load(Relaxed) <= now.as_millis()
    }

    /// Whether as many requests are under way to it as may be.
    pub(super) fn is_full(&self, most: usize) -> bool {
        most != usize::MAX && self.total_inflight() >= most
    }

    /// Whether health checks take it to be well.
    pub(super) fn is_healthy(&self) -> bool {
        !self.is_ill.load(Relaxed)
    }

    /// What a health check found out; tells whether that is news.
    pub(super) fn found(&self, healthy: bool, now: Moment) -> bool {
        let is_news = self.is_ill.swap(!healthy, Relaxed) == healthy;
        if is_news && healthy {
            self.begin_slowly(now);
        }
        is_news
    }

    /// From now on it comes to its whole part slowly, where its service says so.
    pub(super) fn begin_slowly(&self, now: Moment) {
        self.well_since.store(now.as_millis().max(1), Relaxed);
    }

    /// The part of its requests that it gets: 1, or less during its slow start.
    pub(super) fn warmth(&self, now: Moment, slow_start: Duration) -> f64 {
        if slow_start.is_zero() {
            return 1.0;
        }
        match self.well_since.load(Relaxed) {
            0 => 1.0,
            since => {
                let elapsed = now.since(Moment::from_millis(since)).as_secs_f64();
                (elapsed / slow_start.as_secs_f64()).clamp(SLOW_START_LEAST, 1.0)
            }
        }
    }

    /// It answered that it wants to be left alone for so long.
    pub(super) fn rest(&self, time: Duration, now: Moment) {
        let until = now + time.min(REST_MAX);
        self.rests_until.store(until.as_millis(), Relaxed);
    }

    // How it does.

    /// What it costs to ask it: latency times what is under way. A latency that nobody has measured lately fades, so
    /// that an upstream with one slow answer is tried again.
    pub(super) fn cost(&self, now: Moment) -> f64 {
        let latency = f64::from_bits(self.latency.load(Relaxed));
        let latency = if latency == 0.0 {
            LATENCY_ASSUMED
        } else {
            latency * fade(now.since(Moment::from_millis(self.latency_at.load(Relaxed))))
        };
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52 requests")]
        let load = (self.total_inflight() + 1) as f64;
        (latency + 0.01) * load
    }

    /// What is under way, by what carries it.
    pub(super) fn inflight(&self, carried: Carried) -> usize {
        self.inflight[carried.index()].load(Relaxed)
    }

    fn total_inflight(&self) -> usize {
        self.inflight.iter().map(|count| count.load(Relaxed)).sum()
    }

    /// A request is on its way to it.
    pub(super) fn enter(&self, carried: Carried, now: Moment) {
        self.inflight[carried.index()].fetch_add(1, Relaxed);
        self.requests.fetch_add(1, Relaxed);
        self.recent.add(now);
    }

    /// One that is over.
    pub(super) fn leave(&self, carried: Carried) {
        self.inflight[carried.index()].fetch_sub(1, Relaxed);
    }

    /// One has failed.
    pub(super) fn note_failure(&self, cause: &Cause<'_>, now: Moment) {
        self.errors.fetch_add(1, Relaxed);
        self.recent_errors.add(now);
        self.note_cause(cause, now);
    }

    /// Why it failed last, be it a health check.
    pub(super) fn note_cause(&self, cause: &Cause<'_>, now: Moment) {
        let last = self.last_failure.lock();
        last.unwrap_or_else(PoisonError::into_inner)
            .note(cause, now);
    }

    /// Why it failed last, and when; none where it never has.
    pub(super) fn last_failure(&self) -> LastFailure {
        let last = self.last_failure.lock();
        last.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// An answer's head came after this time: a slower one counts at once, a faster one bit by bit.
    pub(super) fn measured(&self, elapsed: Duration, now: Moment) {
        let millis = elapsed.as_secs_f64() * 1000.0;
        let before = f64::from_bits(self.latency.load(Relaxed));
        let at = self.latency_at.swap(now.as_millis(), Relaxed);
        let kept = fade(now.since(Moment::from_millis(at)) + elapsed);
        let latency = if millis > before {
            millis
        } else {
            before * kept + millis * (1.0 - kept)
        };
        self.latency.store(latency.to_bits(), Relaxed);
        self.last_latency.store(millis.to_bits(), Relaxed);
    }

    /// How much of what it was asked in the last ten seconds failed.
    pub(super) fn failed_percent(&self, now: Moment) -> u32 {
        let (all, failed) = (self.recent.count(now), self.recent_errors.count(now));
        u32::try_from(failed * 100 / all.max(1)).unwrap_or(100)
    }

    /// What a dashboard shows.
    pub(super) fn levels(&self, now: Moment) -> Levels {
        let known = |bits: &AtomicU64| {
            Some(f64::from_bits(bits.load(Relaxed))).filter(|millis| *millis > 0.0)
        };
        Levels {
            requests: self.requests.load(Relaxed),
            errors: self.errors.load(Relaxed),
            recent: self.recent.count(now),
            recent_errors: self.recent_errors.count(now),
            latency: known(&self.latency),
            last_latency: known(&self.last_latency),
        }
    }
}

fn fade(elapsed: Duration) -> f64 {
    (-elapsed.as_secs_f64() * 1000.0 / DECAY).exp()
}

/// Numbers of an upstream at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Levels {
    pub(super) requests: u64,
    pub(super) errors: u64,
    /// Of the last ten seconds.
    pub(super) recent: u64,
    pub(super) recent_errors: u64,
    /// Milliseconds.
    pub(super) latency: Option<f64>,
    pub(super) last_latency: Option<f64>,
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::sync::Arc;

    use crate::proxy::policy::tests::POLICY;

    pub(in crate::proxy) fn endpoint() -> Arc<Endpoint> {
        let address = Address::parse("http://[::1]:81/base").expect("a URL");
        Arc::new(Endpoint::new(address, POLICY).expect("an endpoint"))
    }

    #[test]
    fn a_slow_answer_counts_at_once_and_fades() {
        let endpoint = endpoint();
        let at = Moment::from_millis;
        endpoint.measured(Duration::from_millis(100), at(0));
        let slow = endpoint.cost(at(0));
        assert!(slow > 99.0, "{slow}");
        endpoint.measured(Duration::from_millis(1), at(10));
        assert!(
            endpoint.cost(at(10)) > 90.0,
            "one fast answer changes little"
        );
        assert!(endpoint.cost(at(60_000)) < 1.0, "it is tried again");
    }

    #[test]
    fn the_host_of_an_upstream_is_written_as_it_should() {
        assert_eq!(endpoint().authority, "[::1]:81");
    }

    #[test]
    fn a_slow_start_begins_with_little_and_ends() {
        let endpoint = endpoint();
        let (at, time) = (Moment::from_millis, Duration::from_secs(10));
        assert!(
            (endpoint.warmth(at(5), time) - 1.0).abs() < 1e-9,
            "always well"
        );
        assert!(endpoint.found(false, at(0)) && !endpoint.is_free(at(0)));
        assert!(!endpoint.found(false, at(0)), "no news");
        assert!(endpoint.found(true, at(1000)) && endpoint.is_free(at(1000)));
        for (now, expected) in [(1000, 0.1), (6000, 0.5), (11_000, 1.0), (60_000, 1.0)] {
            assert!(
                (endpoint.warmth(at(now), time) - expected).abs() < 1e-9,
                "{now}"
            );
        }
        assert!((endpoint.warmth(at(1000), Duration::ZERO) - 1.0).abs() < 1e-9);
    }
}
