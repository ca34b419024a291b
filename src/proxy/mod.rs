//! HTTP, event streams and WebSockets to upstream services: `ANY /api/{service}/*`, `GET|HEAD /sse/{service}/*` and
//! `GET /ws/{service}?path=/p`.
//!
//! A wing of its own beside the hub, of which it knows nothing. A [`Proxy`] holds a table of routes as one value that is
//! swapped whole; a request that is under way keeps what it was matched to. It takes requests over from the server before
//! the router sees them and answers them byte by byte: bodies pass as they come, never buffered whole and never
//! rewritten.
//!
//! Not here: HTTP/2, a cache.

mod address;
mod breaker;
mod call;
mod config;
mod counter;
mod download;
mod endpoint;
mod error;
mod fields;
mod forward;
mod path;
mod rate;
mod reply;
mod stats;
mod table;
mod tokens;
mod upload;
mod websocket;
mod wire;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use http::HeaderMap;
use tokio::time::Instant;

pub use config::{Address, Balance, Config, RESERVED_NAMES};
pub use stats::{ServiceStats, UpstreamStats};

use crate::auth::Verifier;
use crate::http1::Field;
use crate::model::Moment;
use crate::tls::Connector;
use rate::AddressLimits;
use table::Table;
use tokens::Tokens;
use websocket::TunnelConfig;

/// The proxy of a node, shared by its workers.
pub struct Proxy {
    table: ArcSwap<Table>,
    tokens: Tokens,
    timeout: Duration,
    body_timeout: Duration,
    body_bytes_max: u64,
    trusted: Vec<(IpAddr, u8)>,
    origins: Option<Arc<[String]>>,
    limits: Option<AddressLimits>,
    tunnel: TunnelConfig,
    connector: Option<Connector>,
    is_pressed: Box<dyn Fn() -> bool + Send + Sync>,
    started: Instant,
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Proxy")
            .field("table", &self.table)
            .finish_non_exhaustive()
    }
}

impl Proxy {
    /// The proxy that this says. `is_pressed` tells whether the node has too much to do for another stream; it is asked
    /// for each, so it has to be cheap.
    pub fn new(
        config: &Config,
        verifier: Arc<Verifier>,
        is_pressed: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Self {
        Self {
            table: ArcSwap::from_pointee(Table::new(&config.services, config.balance)),
            tokens: Tokens::new(verifier),
            timeout: config.timeout,
            body_timeout: config.body_timeout,
            body_bytes_max: config.body_bytes_max,
            origins: config.origins.clone(),
            tunnel: TunnelConfig {
                ping_interval: config.ping_interval,
                pong_timeout: config.pong_timeout,
            },
            connector: config.connector.clone(),
            is_pressed: Box::new(is_pressed),
            trusted: config.trusted.clone(),
            limits: (config.rate_max > 0)
                .then(|| AddressLimits::new(config.rate_max, config.rate_window)),
            started: Instant::now(),
        }
    }

    /// Whether a path is the proxy's to answer.
    pub fn takes(path: &str) -> bool {
        let is_own = |rest: &str| {
            !RESERVED_NAMES
                .iter()
                .any(|name| rest.split('/').next() == Some(name))
        };
        path.starts_with("/api/")
            || path.strip_prefix("/sse/").is_some_and(is_own)
            || path.strip_prefix("/ws/").is_some_and(is_own)
    }

    /// Whose request this is that came from `peer`: the client's address behind the proxies that are trusted, and whether
    /// it came by TLS, to us or, as they say, to them.
    pub fn origin(&self, peer: IpAddr, is_encrypted: bool, headers: &HeaderMap) -> (IpAddr, bool) {
        let fields: Vec<Field<'_>> = headers
            .iter()
            .map(|(name, value)| Field {
                name: name.as_str(),
                value: value.as_bytes(),
            })
            .collect();
        let client = address::client(peer, is_encrypted, &fields, &self.trusted);
        let scheme = headers.get("x-forwarded-proto");
        let is_https = scheme.is_some_and(|scheme| scheme == "https");
        let is_secure = is_encrypted || (client.is_behind_trusted && is_https);
        (client.ip, is_secure)
    }

    /// How many services there are.
    pub fn service_count(&self) -> usize {
        self.table.load().services().len()
    }

    fn now(&self) -> Moment {
        self.at(Instant::now())
    }

    fn at(&self, instant: Instant) -> Moment {
        let millis = instant.saturating_duration_since(self.started).as_millis();
        Moment::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
    }

    fn unix_seconds(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.unwrap_or_default().as_secs()
    }
}
