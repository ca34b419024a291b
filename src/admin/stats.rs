//! `GET /admin/stats`: connections and upstreams in the JSON that the Fastify gateway gave its dashboard.
//!
//! Whoever may look is [`gate`](super::gate)'s matter.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::Request;
use axum::response::Response;
use http::StatusCode;
use http::header::{HeaderValue, WWW_AUTHENTICATE};
use serde::Serialize;

use super::health::json_response;
use super::{AdminState, Snapshot, gate};

/// One upstream, as `app` knows it.
#[derive(Debug, Clone, Default)]
pub struct Upstream {
    /// Its service.
    pub service: String,
    /// As configured.
    pub url: String,
    /// Whether health checks, where there are any, take it to be well.
    pub is_healthy: bool,
    /// Until its circuit breaker lets a request through again; none while it is closed.
    pub open_for: Option<Duration>,
    /// Requests that are under way.
    pub http: u64,
    /// Streams of events that are under way.
    pub sse: u64,
    /// WebSockets that are bridged.
    pub ws: u64,
    /// Requests since the start.
    pub requests: u64,
    /// Of them, those that failed.
    pub errors: u64,
    /// Requests a second, over the last ten.
    pub rate: f64,
    /// Failed requests a second, over the last ten.
    pub error_rate: f64,
    /// Peak EWMA of its latency, in milliseconds.
    pub latency: Option<f64>,
    /// The last latency, in milliseconds.
    pub last_latency: Option<f64>,
    /// What failed last, and how long ago; none where nothing has.
    pub last_error: Option<(String, Duration)>,
}

impl Upstream {
    /// Whether it is asked as any other.
    fn is_well(&self) -> bool {
        self.is_healthy && self.open_for.is_none()
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Stats<'a> {
    now_ms: u64,
    uptime_seconds: u64,
    node_version: &'static str,
    env: &'static str,
    services: BTreeMap<&'a str, Service<'a>>,
    connections: ByTransport,
}

#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
struct Service<'a> {
    upstreams: usize,
    healthy: usize,
    avg_latency_ms: Option<f64>,
    rps: f64,
    error_rate: f64,
    upstream_details: Vec<Detail<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Detail<'a> {
    url: &'a str,
    healthy: bool,
    circuit_open_until_ms: Option<u64>,
    inflight: ByTransport,
    requests_total: u64,
    errors_total: u64,
    rps: f64,
    latency: Latency,
    /// That gateway has no such thing, so it stands there only when there is something to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<LastError<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LastError<'a> {
    message: &'a str,
    at_ms: u64,
}

#[derive(Serialize, Default, Clone, Copy)]
struct ByTransport {
    http: u64,
    sse: u64,
    ws: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Latency {
    ewma_ms: Option<f64>,
    last_ms: Option<f64>,
}

/// As the Fastify gateway writes it.
#[derive(Serialize)]
struct Unauthorized {
    #[serde(rename = "statusCode")]
    status_code: u16,
    error: &'static str,
    message: &'static str,
}

/// The statistics, for who may see them.
pub(super) fn stats(state: &AdminState, request: &Request) -> Response {
    if !gate::may_look(state, request.headers()) {
        return refused();
    }
    let node = state.source.snapshot();
    let upstreams = state.source.upstreams();
    json_response(StatusCode::OK, &body(state, &node, &upstreams))
}

/// 401, as that gateway says it.
pub(super) fn refused() -> Response {
    let body = Unauthorized {
        status_code: 401,
        error: "Unauthorized",
        message: "Invalid or missing token",
    };
    let mut response = json_response(StatusCode::UNAUTHORIZED, &body);
    let scheme = HeaderValue::from_static("Bearer");
    response.headers_mut().insert(WWW_AUTHENTICATE, scheme);
    response
}

/// The body of `/admin/stats`.
pub(super) fn body<'a>(
    state: &AdminState,
    node: &Snapshot,
    upstreams: &'a [Upstream],
) -> Stats<'a> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now_ms = millis(now.unwrap_or_default());
    let mut connections = ByTransport {
        http: 0,
        sse: node.event_streams,
        ws: node.web_sockets,
    };
    for upstream in upstreams {
        connections.http += upstream.http;
        connections.sse += upstream.sse;
        connections.ws += upstream.ws;
    }
    Stats {
        now_ms,
        uptime_seconds: node.uptime.as_secs(),
        node_version: concat!("rust ", env!("CARGO_PKG_RUST_VERSION")),
        env: state.config.stage,
        services: services(upstreams, now_ms),
        connections,
    }
}

fn services(upstreams: &[Upstream], now_ms: u64) -> BTreeMap<&str, Service<'_>> {
    let mut services: BTreeMap<&str, Service<'_>> = BTreeMap::new();
    for upstream in upstreams {
        let service = services.entry(&upstream.service).or_default();
        service.upstreams += 1;
        service.healthy += usize::from(upstream.is_well());
        service.rps += upstream.rate;
        // A sum for now.
        service.error_rate += upstream.error_rate;
        service.upstream_details.push(detail(upstream, now_ms));
    }
    for service in services.values_mut() {
        service.error_rate = match service.rps {
            0.0 => 0.0,
            rps => service.error_rate / rps,
        };
        let known: Vec<f64> = service
            .upstream_details
            .iter()
            .filter_map(|detail| detail.latency.ewma_ms)
            .collect();
        #[expect(clippy::cast_precision_loss, reason = "a handful of upstreams")]
        let count = known.len() as f64;
        service.avg_latency_ms = (count > 0.0).then(|| known.iter().sum::<f64>() / count);
    }
    services
}

fn detail(upstream: &Upstream, now_ms: u64) -> Detail<'_> {
    let last_error = upstream.last_error.as_ref();
    Detail {
        url: &upstream.url,
        healthy: upstream.is_well(),
        circuit_open_until_ms: upstream.open_for.map(|left| now_ms + millis(left)),
        inflight: ByTransport {
            http: upstream.http,
            sse: upstream.sse,
            ws: upstream.ws,
        },
        requests_total: upstream.requests,
        errors_total: upstream.errors,
        rps: upstream.rate,
        latency: Latency {
            ewma_ms: upstream.latency,
            last_ms: upstream.last_latency,
        },
        last_error: last_error.map(|(message, ago)| LastError {
            message,
            at_ms: now_ms.saturating_sub(millis(*ago)),
        }),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
