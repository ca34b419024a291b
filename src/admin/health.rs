//! Whether the node lives, is ready and keeps up, in the bodies that the gateways gave which it takes the place of.
//!
//! Alive (`/healthz`, `/health`) is always 200: a node that answers is alive, and killing it because Redis is away
//! would only cost its connections. Ready (`/readyz`, `/ready`) is 503 while draining or while the broker or the users' database is away, so
//! that load balancers turn away.

use std::time::SystemTime;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use serde::Serialize;
use serde_json::json;

use super::{AdminState, Snapshot};
use crate::model::rfc3339;
use crate::telemetry::process::ProcessStats;

/// `{"ok":true}`.
pub(super) fn alive(_: &AdminState, _: &Request) -> Response {
    json_response(StatusCode::OK, &json!({"ok": true}))
}

/// How the node is, for people and scripts; not a verdict.
pub(super) fn health(state: &AdminState, _: &Request) -> Response {
    let node = state.source.snapshot();
    let body = json!({
        "status": "ok",
        "timestamp": rfc3339(SystemTime::now()),
        "redis_connected": node.broker == "redis" && node.broker_ready,
        "active_connections": node.web_sockets + node.event_streams,
        "version": node.version,
        "uptime_seconds": node.uptime.as_secs(),
        "broker": node.broker,
        "channels": node.channels,
    });
    json_response(StatusCode::OK, &body)
}

/// Readiness with the broker and the mode that follows from it.
pub(super) fn readyz(state: &AdminState, _: &Request) -> Response {
    let node = state.source.snapshot();
    let unready = unready(&node);
    let mut body = json!({
        "ok": unready.is_none(),
        "upstreamServices": node.upstream_services,
        "broker": node.broker,
        "mode": if node.broker == "memory" { "single-node" } else { "fleet" },
    });
    if let Some(reason) = unready {
        body["reason"] = json!(reason);
    }
    json_response(status(unready), &body)
}

/// `{"status":"ready","timestamp"}`.
pub(super) fn ready(state: &AdminState, _: &Request) -> Response {
    let unready = unready(&state.source.snapshot());
    let body = json!({
        "status": unready.unwrap_or("ready"),
        "timestamp": rfc3339(SystemTime::now()),
    });
    json_response(status(unready), &body)
}

/// The body that dashboards of the FastAPI gateway read. Its caches do not exist here; their sizes stay.
pub(super) fn web_sockets(state: &AdminState, _: &Request) -> Response {
    let node = state.source.snapshot();
    let body = json!({
        "status": "healthy",
        "active_connections": node.web_sockets,
        "connection_states": node.web_sockets,
        "cache_users": 0,
        "cache_sessions": 0,
        "cache_messages": 0,
        "config": {
            "ping_interval": node.liveness.ping_interval.as_secs_f64(),
            "pong_timeout": node.liveness.pong_timeout.as_secs_f64(),
            "inactivity_timeout": node.liveness.inactivity_timeout.as_secs_f64(),
            "cache_ttl": 0,
        },
    });
    json_response(StatusCode::OK, &body)
}

/// What a node under pressure answers, field by field as the Node gateway's under-pressure plug-in wrote it.
#[derive(Serialize)]
struct UnderPressure {
    #[serde(rename = "statusCode")]
    status_code: u16,
    code: &'static str,
    error: &'static str,
    message: &'static str,
}

/// Whether the node keeps up: 200 `{"status":"ok"}`, or 503 when its loop is late, its memory over the limit, or too much under
/// way to upstreams.
pub(super) fn pressure(state: &AdminState, _: &Request) -> Response {
    if !is_under_pressure(state) {
        return json_response(StatusCode::OK, &json!({"status": "ok"}));
    }
    let body = UnderPressure {
        status_code: 503,
        code: "FST_UNDER_PRESSURE",
        error: "Service Unavailable",
        message: "Service Unavailable",
    };
    let mut response = json_response(StatusCode::SERVICE_UNAVAILABLE, &body);
    response
        .headers_mut()
        .insert(RETRY_AFTER, HeaderValue::from_static("10"));
    response
}

fn is_under_pressure(state: &AdminState) -> bool {
    let node = state.source.snapshot();
    let process = ProcessStats::read();
    node.is_full || state.config.is_exceeded(node.loop_delay, &process)
}

/// Why the node should get no new clients.
fn unready(node: &Snapshot) -> Option<&'static str> {
    match node {
        _ if node.draining => Some("draining"),
        _ if !node.broker_ready => Some("broker_unavailable"),
        _ if !node.has_users => Some("database_unavailable"),
        _ => None,
    }
}

fn status(unready: Option<&str>) -> StatusCode {
    match unready {
        None => StatusCode::OK,
        Some(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// JSON that no cache may keep: health is of this moment.
pub(super) fn json_response<T: Serialize>(status: StatusCode, body: &T) -> Response {
    // Plain structs and values cannot fail to serialise.
    let body = serde_json::to_vec(body).unwrap_or_default();
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
