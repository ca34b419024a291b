//! `DELETE /admin/cache`: forgets what the proxy's cache has of a service, or of a part of it. On this node: each has a
//! cache of its own.

use axum::extract::Request;
use axum::response::Response;
use http::StatusCode;
use serde_json::json;

use super::health::json_response;
use super::{AdminState, gate, stats};

/// `?service=users`, perhaps with `&prefix=/photos/`: answers `{"purged":n}`.
pub(super) fn purge(state: &AdminState, request: &Request) -> Response {
    if !gate::may_change(state, request.headers()) {
        return stats::refused();
    }
    let query = request.uri().query().unwrap_or_default();
    let parameter = |name: &str| {
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        pairs
            .find(|(found, _)| found == name)
            .map(|(_, value)| value.into_owned())
    };
    let Some(service) = parameter("service") else {
        let message = "service: which one is needed, as ?service=users";
        let body = json!({"error": "bad_request", "message": message});
        return json_response(StatusCode::BAD_REQUEST, &body);
    };
    let prefix = parameter("prefix").unwrap_or_default();
    match (state.purge)(&service, &prefix) {
        Some(purged) => json_response(StatusCode::OK, &json!({"purged": purged})),
        None => {
            let body = json!({"error": "not_found", "message": "there is no cache: CACHE_ENABLED"});
            json_response(StatusCode::NOT_FOUND, &body)
        }
    }
}
