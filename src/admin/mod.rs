//! What an operator, a load balancer and a curious developer look at: health, `/metrics`, the dashboard and the demo
//! page.
//!
//! Everything is answered from one [`Snapshot`] that a [`Source`] takes; this room knows no part of the node itself.
//! Only what stands under `/admin` needs credentials ([`Gate`]), and nothing here changes anything but the cache.
//!
//! Not here: counting (`telemetry`) and deciding when the node drains (`server`).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::{delete, get, post};

use crate::telemetry::http::{Route, Stopwatch};
use crate::telemetry::setup::Exporter;

mod cache;
mod config;
mod dashboard;
mod gate;
mod health;
mod live;
mod not_found;
mod page;
mod scrape;
mod stats;

#[cfg(test)]
mod tests;

pub use config::Config;
pub use gate::{Gate, Pass, Shown, pass_of};
pub use live::{Live, NodeRow};
pub use not_found::not_found;
pub use stats::Upstream;

/// Where the numbers come from: `app` joins the parts of the node.
pub trait Source: Send + Sync {
    /// The node as it is now. Called for each look at it, from any worker: it must not wait.
    fn snapshot(&self) -> Snapshot;

    /// The upstreams of all services, in the order of their names and of the configuration.
    fn upstreams(&self) -> Vec<Upstream>;

    /// The replicas alive, this one among them; none when the broker does not tell.
    fn nodes(&self) -> Nodes<'_>;
}

/// What [`Source::nodes`] gives.
pub type Nodes<'a> = Pin<Box<dyn Future<Output = Option<Vec<NodeRow>>> + Send + 'a>>;

/// The node at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The node's id, as clients see it in `gateway_id`.
    pub id: String,
    /// Open WebSockets.
    pub web_sockets: u64,
    /// Open streams of server-sent events.
    pub event_streams: u64,
    /// Channels with a subscriber on this node.
    pub channels: u64,
    /// What the broker stands on: `memory` or `redis`.
    pub broker: &'static str,
    /// Whether the broker can be reached.
    pub broker_ready: bool,
    /// Whether users can be found.
    pub has_users: bool,
    /// Whether the node drains.
    pub draining: bool,
    /// The version of Fanfare.
    pub version: &'static str,
    /// Since the process started.
    pub uptime: Duration,
    /// Services that have upstreams.
    pub upstream_services: usize,
    /// Whether more requests to upstreams are under way than may be.
    pub is_full: bool,
    /// The longest that a worker's loop was late lately.
    pub loop_delay: Duration,
    /// What clients are told about signs of life.
    pub liveness: Liveness,
}

/// The intervals by which connections prove that they are alive.
#[derive(Debug, Clone, Copy)]
pub struct Liveness {
    /// Between two protocol pings.
    pub ping_interval: Duration,
    /// Until a pong must have come.
    pub pong_timeout: Duration,
    /// Without any sign of life.
    pub inactivity_timeout: Duration,
}

/// What was forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Purged {
    /// How many answers, on this node.
    pub here: usize,
    /// Whether every other node of the fleet was told, too.
    pub is_told: bool,
}

/// What forgets.
pub type Purge = Arc<dyn Fn(String, String) -> PurgeAnswer + Send + Sync>;

/// What comes of that; none without a cache.
pub type PurgeAnswer = Pin<Box<dyn Future<Output = Option<Purged>> + Send>>;

/// What the answers stand on.
#[derive(Clone)]
pub struct AdminState {
    /// The node.
    pub source: Arc<dyn Source>,
    /// `/metrics`.
    pub exporter: Exporter,
    /// Limits, and whether there is a page.
    pub config: Config,
    /// Who may look.
    pub gate: Arc<dyn Gate>,
    /// Forgets what the caches have of a service under a prefix of its paths.
    pub purge: Purge,
    /// What viewers of the dashboard share.
    pub live: Arc<Live>,
}

/// The paths by which operators' tools judge the node. They are answered when it is full, too.
pub const VITAL: [&str; 7] = [
    "/healthz",
    "/health",
    "/readyz",
    "/ready",
    "/ws/health",
    "/_pressure",
    "/metrics",
];

/// Health, metrics and the page. The router has no fallback: `app` sets [`not_found`] for the whole process.
pub fn router(state: AdminState) -> Router {
    let mut router = Router::new()
        .route("/healthz", get(healthz))
        .route("/health", get(health))
        .route("/readyz", get(readyz))
        .route("/ready", get(ready))
        .route("/ws/health", get(web_socket_health))
        .route("/_pressure", get(pressure))
        .route("/metrics", get(metrics))
        .route("/admin/stats", get(statistics))
        .route("/admin/events", get(events))
        .route("/admin", get(dashboard).post(login))
        .route("/admin/logout", post(logout))
        .route("/admin/cache", delete(purge))
        .route("/fanfare.js", get(module))
        .route("/fanfare.d.ts", get(types));
    if state.config.page {
        router = router.route("/", get(demo));
    }
    router
        .method_not_allowed_fallback(not_found::method_not_allowed)
        .with_state(Arc::new(state))
}

/// The page, which may be a login as well.
async fn dashboard(State(state): State<Arc<AdminState>>, request: Request) -> Response {
    let watch = Stopwatch::start(Route::Dashboard);
    let response = dashboard::page(&state, request).await;
    watch.stop(response.status().as_u16());
    response
}

/// The form of the login; its body is all that is read here.
async fn login(State(state): State<Arc<AdminState>>, request: Request) -> Response {
    let watch = Stopwatch::start(Route::Dashboard);
    let response = dashboard::login(&state, request).await;
    watch.stop(response.status().as_u16());
    response
}

/// The stream has no end of its own; its time is that of its head.
async fn events(State(state): State<Arc<AdminState>>, request: Request) -> Response {
    let watch = Stopwatch::start(Route::Dashboard);
    let response = live::events(&state, &request);
    watch.stop(response.status().as_u16());
    response
}

/// Waits for the broker.
async fn purge(State(state): State<Arc<AdminState>>, request: Request) -> Response {
    let watch = Stopwatch::start(Route::Purge);
    let response = cache::purge(&state, &request).await;
    watch.stop(response.status().as_u16());
    response
}

/// Declares the handlers, each measured in the same way.
macro_rules! handlers {
    ($($name:ident: $route:ident => $answer:path;)+) => {$(
        async fn $name(State(state): State<Arc<AdminState>>, request: Request) -> Response {
            let watch = Stopwatch::start(Route::$route);
            let response = $answer(&state, &request);
            watch.stop(response.status().as_u16());
            response
        }
    )+};
}

handlers! {
    healthz: Health => health::alive;
    health: Health => health::health;
    readyz: Health => health::readyz;
    ready: Health => health::ready;
    web_socket_health: Health => health::web_sockets;
    pressure: Health => health::pressure;
    metrics: Metrics => scrape::metrics;
    statistics: Statistics => stats::stats;
    logout: Dashboard => dashboard::logout;
    demo: Page => page::demo;
    module: Page => page::module;
    types: Page => page::types;
}
