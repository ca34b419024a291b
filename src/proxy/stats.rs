//! How the upstreams do, for dashboards.

use std::time::Duration;

use super::Proxy;
use super::endpoint::Endpoint;
use crate::model::Moment;
use crate::telemetry::proxy::Carried;

/// Seconds over which rates are taken.
const SECONDS: f64 = 10.0;

/// One service.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceStats {
    /// Its name.
    pub name: String,
    /// Its upstreams, in the order of the configuration.
    pub upstreams: Vec<UpstreamStats>,
}

/// One upstream.
#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamStats {
    /// As configured.
    pub url: String,
    /// Whether health checks, where there are any, take it to be well.
    pub is_healthy: bool,
    /// Milliseconds until its breaker lets a request through again; none while it is closed.
    pub open_for_millis: Option<u64>,
    /// Under way: requests, event streams.
    pub inflight: [usize; Carried::COUNT],
    /// Since the start.
    pub requests: u64,
    /// Of them, those that failed or were answered 5xx.
    pub errors: u64,
    /// Requests a second, over the last ten.
    pub rate: f64,
    /// Failed requests a second, over the last ten.
    pub error_rate: f64,
    /// Peak EWMA of the time to the head of an answer, in milliseconds.
    pub latency: Option<f64>,
    /// The last such time.
    pub last_latency: Option<f64>,
    /// What failed last; none where nothing has.
    pub last_error: Option<LastError>,
}

/// The last failure of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastError {
    /// Why, in at most 256 bytes.
    pub text: String,
    /// How many milliseconds ago.
    pub millis_ago: u64,
}

impl Proxy {
    /// All services, by name.
    pub fn stats(&self) -> Vec<ServiceStats> {
        let now = self.now();
        let table = self.table.load();
        let mut services: Vec<ServiceStats> = table
            .services()
            .map(|route| ServiceStats {
                name: route.name.clone(),
                upstreams: route
                    .members
                    .iter()
                    .map(|member| upstream(&member.endpoint, now))
                    .collect(),
            })
            .collect();
        services.sort_by(|one, other| one.name.cmp(&other.name));
        services
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "far below 2^52 requests in ten seconds"
)]
fn upstream(endpoint: &Endpoint, now: Moment) -> UpstreamStats {
    let levels = endpoint.levels(now);
    let open_for = endpoint.breaker.open_until().map(|until| until.since(now));
    UpstreamStats {
        url: endpoint.address.url.clone(),
        is_healthy: endpoint.is_healthy(),
        open_for_millis: open_for.map(millis),
        inflight: Carried::ALL
            .iter()
            .map(|carried| endpoint.inflight(*carried))
            .collect::<Vec<_>>()
            .try_into()
            .unwrap_or_default(),
        requests: levels.requests,
        errors: levels.errors,
        rate: levels.recent as f64 / SECONDS,
        error_rate: levels.recent_errors as f64 / SECONDS,
        latency: levels.latency,
        last_latency: levels.last_latency,
        last_error: endpoint.last_failure().told().map(|(text, at)| LastError {
            text: text.to_owned(),
            millis_ago: millis(now.since(at)),
        }),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
