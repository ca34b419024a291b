//! HTTP, event streams and WebSockets to upstream services: `ANY /api/{service}/*`, `GET|HEAD /sse/{service}/*` and
//! `GET /ws/{service}?path=/p`.
//!
//! A wing of its own beside the hub, of which it knows nothing. A [`Proxy`] holds a table of routes as one value that is
//! swapped whole; a request that is under way keeps what it was matched to. It takes requests over from the server before
//! the router sees them and answers them byte by byte: bodies pass as they come, never buffered whole and never
//! rewritten. Clients that speak HTTP/2 look like others from here.

mod access;
mod address;
mod admitting;
mod answering;
mod asking;
mod attempt;
mod breaker;
mod budget;
mod cache;
mod caching;
mod call;
mod cause;
mod choosing;
mod config;
mod counter;
mod counting;
mod course;
mod dialling;
mod download;
mod endpoint;
mod error;
mod events;
mod fields;
mod fleet;
mod forward;
mod gone;
mod hash;
mod health;
mod hearing;
mod ids;
mod introduction;
mod kinds;
mod lease;
mod leaving;
mod line;
mod multiplexed;
mod open_streams;
mod pages;
mod path;
mod policy;
mod rate;
mod removed;
mod reply;
mod resolve;
mod shared;
mod stats;
mod strain;
mod table;
mod tally;
mod tokens;
mod trying;
mod upload;
mod websocket;
mod wire;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::{ArcSwap, ArcSwapOption};
use http::HeaderMap;
use tokio::time::Instant;

pub use address::{Arrival, Origin};
pub use config::{Address, CacheConfig, Config, RESERVED_NAMES};
pub use fleet::Fleet;
pub use open_streams::StreamPermit;
pub use pages::{Pages, Told};
pub use policy::{
    Balance, BreakerPolicy, CachePolicy, HashKey, HealthPolicy, IdentityRule, Policy, RateKey,
    RatePolicy, RetryPolicy, ServiceConfig, Share, StreamsPolicy, UpstreamConfig,
};
pub use shared::{Admitted, Refused, SharedStreams, Soon, Top};
pub use stats::{LastError, ServiceStats, UpstreamStats};
pub use strain::Strain;
pub use table::Changes;

use crate::auth::Verifier;
use crate::http1::Field;
use crate::model::Moment;
use crate::tls::Connector;
use cache::Cache;
use rate::Limits;
use removed::Removed;
use shared::Shared;
use table::{Route, Table};
use tokens::Tokens;
use websocket::TunnelConfig;

/// The proxy of a node, shared by its workers.
pub struct Proxy {
    table: ArcSwap<Table>,
    tokens: Tokens,
    /// Who may ask for what is no service.
    identity: IdentityRule,
    body_timeout: Duration,
    body_bytes_max: u64,
    trusted: Vec<(IpAddr, u8)>,
    /// Whether upstreams get `Forwarded` beside `X-Forwarded-*`.
    tells_forwarded: bool,
    /// Fields of answers that go no further.
    removed: Removed,
    /// Which part of the requests is logged, in percent; 0: none, not even failures.
    access_percent: u32,
    origins: Option<Arc<[String]>>,
    /// What pages of other origins are told.
    pages: Pages,
    /// Of services that have no limit of their own.
    limits: Option<Arc<Limits>>,
    /// Who counts for all nodes; none for a node that is alone.
    fleet: Option<Fleet>,
    tunnel: TunnelConfig,
    /// What begins TLS with upstreams.
    connector: ArcSwapOption<Connector>,
    /// Where answers are kept.
    cache: Arc<Cache>,
    shared: Shared,
    strain: Box<dyn Fn() -> Strain + Send + Sync>,
    /// Requests that are under way.
    inflight: Arc<AtomicUsize>,
    /// More than so many are too many.
    inflight_max: usize,
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
    /// The proxy that this says. `fleet` counts requests for all nodes, where there are several. `pages` is what the server
    /// tells browsers. `strain` tells how much the node has to do; it is asked for each request, so it has to be cheap.
    pub fn new(
        config: &Config,
        verifier: Arc<Verifier>,
        fleet: Option<Fleet>,
        pages: Pages,
        strain: impl Fn() -> Strain + Send + Sync + 'static,
    ) -> Self {
        let proxy = Self {
            table: ArcSwap::from_pointee(Table::new(&config.services)),
            identity: IdentityRule {
                required: verifier.config().required,
                roles: Vec::new(),
            },
            tokens: Tokens::new(verifier),
            body_timeout: config.body_timeout,
            body_bytes_max: config.body_bytes_max,
            origins: config.origins.clone(),
            pages,
            tunnel: TunnelConfig {
                ping_interval: config.ping_interval,
                pong_timeout: config.pong_timeout,
                idle_timeout: None,
                message_bytes_max: None,
            },
            connector: ArcSwapOption::new(config.connector.clone().map(Arc::new)),
            cache: Arc::new(Cache::new(config.cache)),
            shared: Shared::default(),
            strain: Box::new(strain),
            inflight: Arc::default(),
            inflight_max: config.inflight_max,
            trusted: config.trusted.clone(),
            tells_forwarded: config.tells_forwarded,
            removed: Removed::new(&config.removed),
            access_percent: config.access_percent,
            limits: Limits::of(config.rate),
            fleet,
            started: Instant::now(),
        };
        proxy.connect_fleet();
        proxy
    }

    /// Connects to what the nodes of the fleet share, where a service needs it.
    fn connect_fleet(&self) {
        let Some(fleet) = &self.fleet else { return };
        let table = self.table.load();
        let is_limited = |route: &Route| match route.policy.rate {
            Some(_) => route.limits.is_some(),
            None => self.limits.is_some(),
        };
        if table
            .services()
            .any(|route| route.policy.share.is_some() || is_limited(route))
        {
            fleet.connect();
        }
    }

    /// What the nodes of the fleet share, where a service needs it.
    fn connected_fleet(&self) -> Option<&Fleet> {
        self.fleet.as_ref().filter(|fleet| fleet.is_in_use())
    }

    /// Swaps the services for those of this configuration, and whom to believe behind us. What is under way keeps what it was matched to: nothing is cut. To be called from
    /// one thread at a time.
    pub fn reload(&self, config: &Config) -> Changes {
        let connector = config.connector.clone().map(Arc::new);
        self.connector.store(connector);
        let (table, changes) = self.table.load().changed(&config.services, self.now());
        self.table.store(Arc::new(table));
        self.connect_fleet();
        changes
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

    /// Whose request this is that came from `peer`, to us or, as they say, to the proxies that are trusted.
    pub fn origin(&self, peer: IpAddr, is_encrypted: bool, headers: &HeaderMap) -> Origin {
        let fields: Vec<Field<'_>> = headers
            .iter()
            .map(|(name, value)| Field {
                name: name.as_str(),
                value: value.as_bytes(),
            })
            .collect();
        let client = address::client(peer, is_encrypted, &fields, &self.trusted);
        Origin {
            ip: client.ip,
            is_secure: client.is_secure(&fields),
            authority: client.authority(&fields),
        }
    }

    /// Forgets what the cache has of a service, as far as its paths begin with this; tells how many answers went. None
    /// where there is no cache.
    pub fn purge(&self, service: &str, prefix: &str) -> Option<usize> {
        let table = self.table.load();
        let is_used = table.services().any(|route| route.policy.cache.is_some());
        is_used.then(|| self.cache.purge(service, prefix))
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
