//! HTTP and event streams to upstream services: `ANY /api/{service}/*` and `GET|HEAD /sse/{service}/*`.
//!
//! A wing of its own beside the hub, of which it knows nothing. A [`Proxy`] holds a table of routes as one value that is
//! swapped whole; a request that is under way keeps what it was matched to. Bodies stream both ways as they come, never
//! buffered whole and never rewritten.
//!
//! Not here: TLS and HTTP/2, a cache, WebSockets to upstreams.

mod address;
mod breaker;
mod config;
mod counter;
mod endpoint;
mod error;
mod exchange;
mod forward;
mod headers;
mod path;
mod rate;
mod stats;
mod table;
mod wire;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use axum::extract::Request;

pub use config::{Address, Balance, Config};
pub use stats::{ServiceStats, UpstreamStats};

use crate::auth::Verifier;
use crate::model::{Moment, PeerAddr};
use rate::AddressLimits;
use table::Table;

/// The proxy of a node, shared by its workers.
#[derive(Debug)]
pub struct Proxy {
    table: ArcSwap<Table>,
    verifier: Arc<Verifier>,
    timeout: Duration,
    trusted: Vec<(IpAddr, u8)>,
    limits: Option<AddressLimits>,
    started: Instant,
}

impl Proxy {
    /// The proxy that this says.
    pub fn new(config: &Config, verifier: Arc<Verifier>) -> Self {
        Self {
            table: ArcSwap::from_pointee(Table::new(&config.services, config.balance)),
            verifier,
            timeout: config.timeout,
            trusted: config.trusted.clone(),
            limits: (config.rate_max > 0)
                .then(|| AddressLimits::new(config.rate_max, config.rate_window)),
            started: Instant::now(),
        }
    }

    /// Whether a path is the proxy's to answer.
    pub fn takes(path: &str) -> bool {
        path.starts_with("/api/") || path.starts_with("/sse/")
    }

    /// Whose request this is: the client's address behind the proxies that are trusted, and whether it came by TLS, as
    /// they say.
    pub fn origin(&self, request: &Request) -> (IpAddr, bool) {
        let peer = request.extensions().get::<PeerAddr>();
        let peer = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0.ip());
        let client = address::client(peer, request.headers(), &self.trusted);
        let scheme = request.headers().get("x-forwarded-proto");
        let is_https = scheme.is_some_and(|scheme| scheme == "https");
        (client.ip, client.is_behind_trusted && is_https)
    }

    /// How many services there are.
    pub fn service_count(&self) -> usize {
        self.table.load().services().len()
    }

    fn now(&self) -> Moment {
        let millis = self.started.elapsed().as_millis();
        Moment::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
    }

    fn unix_seconds(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.unwrap_or_default().as_secs()
    }
}
