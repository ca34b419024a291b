//! One upstream of a service: where it is, how it does, and what is under way to it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use http::HeaderValue;
use tokio::time::Instant;

use super::breaker::{Breaker, Pass};
use super::counter::Recent;
use super::multiplexed::{self, Place};
use super::resolve::Resolver;
use super::{Address, BreakerPolicy};
use crate::http2;
use crate::model::Moment;
use crate::telemetry::proxy::{self as counts, Carried};
use crate::tls::{Connector, Stream};

/// The latency of an upstream that has not answered yet.
const LATENCY_ASSUMED: f64 = 30.0;
/// In which time a latency loses all but a third of its weight, in milliseconds.
const DECAY: f64 = 10_000.0;
/// How long an upstream that asks for rest (503 with `Retry-After`) is left alone at most.
const REST_MAX: Duration = Duration::from_secs(60);
/// The part of its requests with which a slow start begins.
const SLOW_START_LEAST: f64 = 0.1;

/// What connection a request wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Any.
    Any,
    /// A new one: the one that others use was no good.
    Fresh,
    /// One of its own, which speaks HTTP/1: it becomes a WebSocket.
    Own,
}

/// What a request is written to.
#[derive(Debug)]
pub(super) struct Dialled {
    pub(super) socket: Stream,
    /// It stands on a connection that has carried others.
    pub(super) is_reused: bool,
}

/// One upstream. Shared by all workers; everything in it is an atomic but the breaker's detail and its addresses.
#[derive(Debug)]
pub(super) struct Endpoint {
    /// Unique in the process: the place in each worker's pool.
    pub(super) id: usize,
    pub(super) address: Address,
    /// What `Host` says to it.
    pub(super) authority: HeaderValue,
    /// A number that follows from its URL alone: the same on every node, and after every start.
    pub(super) token: u64,
    resolver: Resolver,
    /// The last connection to it spoke HTTP/2.
    shares: AtomicBool,
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
        })
    }

    /// A connection for a request: a new one, or a place on one that several share. Encrypted where the address says so.
    pub(super) async fn dial(
        &self,
        connector: Option<&Connector>,
        way: Way,
    ) -> io::Result<Dialled> {
        let mut dialling = None;
        if way == Way::Any && self.may_share() {
            let mut place = multiplexed::place(self.id, Instant::now());
            if let Place::Soon(dial) = &place {
                dial.done().await;
                place = multiplexed::place(self.id, Instant::now());
            }
            match place {
                Place::Open(socket) => {
                    return Ok(Dialled {
                        socket,
                        is_reused: true,
                    });
                }
                Place::Dial(guard) => dialling = Some(guard),
                // It came to nothing, and is tried again: not for all, one after the other.
                Place::Soon(_) => {}
            }
        }
        let socket = self.connect(connector, way).await?;
        let is_http2 = way != Way::Own && (self.address.is_http2 || socket.is_http2());
        self.shares.store(is_http2, Relaxed);
        if !is_http2 {
            return Ok(Dialled {
                socket,
                is_reused: false,
            });
        }
        let (asker, driving) = http2::begin(socket, self.address.is_encrypted).await?;
        tokio::spawn(driving);
        let socket = asker.open();
        multiplexed::keep(self.id, asker, self.connection_age_max(), Instant::now());
        drop(dialling);
        Ok(Dialled {
            socket,
            is_reused: false,
        })
    }

    /// Whether it speaks HTTP/2, as far as it is known. Of an https upstream the last connection has shown.
    fn may_share(&self) -> bool {
        self.address.is_http2 || self.shares.load(Relaxed)
    }

    async fn connect(&self, connector: Option<&Connector>, way: Way) -> io::Result<Stream> {
        counts::dialled();
        let socket = self.resolver.connect().await?;
        socket.set_nodelay(true)?;
        let host = &self.address.host;
        match connector.filter(|_| self.address.is_encrypted) {
            Some(connector) if way == Way::Own => connector.connect(host, socket).await,
            Some(connector) => connector.connect_any(host, socket).await,
            // `config` gives a connector where any address is https: never in clear instead.
            None if self.address.is_encrypted => Err(io::ErrorKind::Unsupported.into()),
            None => Ok(socket.into()),
        }
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
    fn rest(&self, time: Duration, now: Moment) {
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

    /// An answer's head came after this time: a slower one counts at once, a faster one bit by bit.
    fn measured(&self, elapsed: Duration, now: Moment) {
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
    fn failed_percent(&self, now: Moment) -> u32 {
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
        endpoint.inflight[carried.index()].fetch_add(1, Relaxed);
        endpoint.requests.fetch_add(1, Relaxed);
        endpoint.recent.add(now);
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
            self.failed(now);
        } else {
            self.is_judged = true;
            if self.endpoint.breaker.succeeded(self.pass) {
                self.endpoint.begin_slowly(now);
                tracing::info!(upstream = %self.endpoint.address.url, "the circuit breaker closes: the upstream is well");
            }
        }
        if let (503, Some(time)) = (answer.status, answer.retry_after) {
            self.endpoint.rest(time, now);
        }
    }

    /// It could not be reached, or did not answer in time, or badly.
    pub(super) fn failed(&mut self, now: Moment) {
        self.is_judged = true;
        self.endpoint.errors.fetch_add(1, Relaxed);
        self.endpoint.recent_errors.add(now);
        let endpoint = &self.endpoint;
        if endpoint
            .breaker
            .failed(self.pass, now, || endpoint.failed_percent(now))
        {
            counts::opened();
            tracing::warn!(upstream = %self.endpoint.address.url, "the circuit breaker opens: too many failures");
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.endpoint.inflight[self.carried.index()].fetch_sub(1, Relaxed);
        if !self.is_judged {
            self.endpoint.breaker.abandoned(self.pass);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::policy::tests::POLICY;

    fn endpoint() -> Arc<Endpoint> {
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
    fn the_host_of_an_upstream_is_written_as_it_should() {
        assert_eq!(endpoint().authority, "[::1]:81");
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
