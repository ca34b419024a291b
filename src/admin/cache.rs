//! `DELETE /admin/cache`: forgets what the proxy's cache has of a service, or of a part of it, on every node of the fleet:
//! each has a cache of its own.

use axum::extract::Request;
use axum::response::Response;
use http::StatusCode;
use serde_json::json;

use super::health::json_response;
use super::{AdminState, Purged, gate, stats};

/// `?service=users`, perhaps with `&prefix=/photos/`: which service, and which of its paths.
///
/// # Errors
/// With the answer to who may not, or names no service.
pub(super) fn wish(state: &AdminState, request: &Request) -> Result<(String, String), Response> {
    if !gate::may_change(state, request.headers()) {
        return Err(stats::refused());
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
        return Err(json_response(StatusCode::BAD_REQUEST, &body));
    };
    Ok((service, parameter("prefix").unwrap_or_default()))
}

/// Answers `{"purged":n}`, of this node; 503 when the others could not be told.
pub(super) async fn purge(state: &AdminState, (service, prefix): (String, String)) -> Response {
    match (state.purge)(service, prefix).await {
        Some(Purged {
            here,
            is_told: true,
        }) => json_response(StatusCode::OK, &json!({"purged": here})),
        Some(Purged { here, .. }) => {
            let message = "forgotten on this node, but the others could not be told: ask again";
            let body = json!({"error": "broker_unavailable", "message": message, "purged": here});
            json_response(StatusCode::SERVICE_UNAVAILABLE, &body)
        }
        None => {
            let body = json!({"error": "not_found", "message": "there is no cache: CACHE_ENABLED"});
            json_response(StatusCode::NOT_FOUND, &body)
        }
    }
}
