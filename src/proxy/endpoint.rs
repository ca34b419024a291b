//! One upstream of a service: where it is, how it does, and what is under way to it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use http::HeaderValue;
use tokio::net::TcpStream;

use super::Address;
use super::breaker::{Breaker, Pass};
use super::counter::Recent;
use crate::model::Moment;
use crate::telemetry::proxy::{self as counts, Carried};
use crate::tls::{Connector, Stream};

/// The latency of an upstream that has not answered yet.
const LATENCY_ASSUMED: f64 = 30.0;
/// In which time a latency loses all but a third of its weight, in milliseconds.
const DECAY: f64 = 10_000.0;

/// One upstream. Shared by all workers; everything in it is an atomic but the breaker's detail.
#[derive(Debug)]
pub(super) struct Endpoint {
    /// Unique in the process: the place in each worker's pool.
    pub(super) id: usize,
    pub(super) address: Address,
    /// What `Host` says to it.
    pub(super) authority: HeaderValue,
    /// Known without asking anybody, when the host is an address.
    literal: Option<SocketAddr>,
    pub(super) breaker: Breaker,
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
    pub(super) fn new(address: Address) -> Option<Self> {
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
        let literal: Option<IpAddr> = address.host.parse().ok();
        Some(Self {
            id: NEXT.fetch_add(1, Relaxed),
            authority: HeaderValue::try_from(authority).ok()?,
            literal: literal.map(|ip| SocketAddr::new(ip, address.port)),
            address,
            breaker: Breaker::default(),
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

    /// A new connection, encrypted where the address says so. A name is looked up each time, so that a changed address is found.
    pub(super) async fn dial(&self, connector: Option<&Connector>) -> io::Result<Stream> {
        counts::dialled();
        let socket = match self.literal {
            Some(address) => TcpStream::connect(address).await?,
            None => TcpStream::connect((&*self.address.host, self.address.port)).await?,
        };
        socket.set_nodelay(true)?;
        match connector.filter(|_| self.address.is_encrypted) {
            Some(connector) => connector.connect(&self.address.host, socket).await,
            // `config` gives a connector where any address is https: never in clear instead.
            None if self.address.is_encrypted => Err(io::ErrorKind::Unsupported.into()),
            None => Ok(socket.into()),
        }
    }

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
    pub(super) fn answered(&mut self, status: u16, elapsed: Duration, now: Moment) {
        self.endpoint.measured(elapsed, now);
        if status >= 500 {
            self.failed(now);
        } else {
            self.is_judged = true;
            self.endpoint.breaker.succeeded(self.pass);
        }
    }

    /// It could not be reached, or did not answer in time, or badly.
    pub(super) fn failed(&mut self, now: Moment) {
        self.is_judged = true;
        self.endpoint.errors.fetch_add(1, Relaxed);
        self.endpoint.recent_errors.add(now);
        if self.endpoint.breaker.failed(self.pass, now) {
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

    fn endpoint() -> Arc<Endpoint> {
        let address = Address::parse("http://[::1]:81/base").expect("a URL");
        Arc::new(Endpoint::new(address).expect("an endpoint"))
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
            endpoint.breaker.failed(Pass::Free, now);
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
}
