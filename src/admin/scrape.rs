//! `GET /metrics`: Prometheus' text format.

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::header::{CONTENT_TYPE, HeaderValue};

use super::AdminState;
use super::not_found::answer;
use crate::telemetry::metrics::{NodeGauges, set_node};

/// The text with the node's gauges as they are now; 404 when metrics are off.
pub(super) fn metrics(state: &AdminState, request: &Request) -> Response {
    let node = state.source.snapshot();
    set_node(NodeGauges {
        channels: node.channels,
        broker_ready: node.broker_ready,
        draining: node.draining,
        uptime: node.uptime,
    });
    let Some(text) = state.exporter.render() else {
        return answer(request);
    };
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
    );
    response
}
