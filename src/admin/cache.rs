//! `DELETE /admin/cache`: forgets what the proxy's cache has of a service, or of a part of it, on every node of the fleet:
//! each has a cache of its own.

use axum::extract::Request;
use axum::response::Response;
use http::StatusCode;
use serde_json::json;

use super::health::json_response;
use super::{AdminState, Purged, gate, stats};

/// `?service=users`, perhaps with `&prefix=/photos/`: which service, and which of its paths.
fn wish(request: &Request) -> Option<(String, String)> {
    let query = request.uri().query().unwrap_or_default();
    let parameter = |name: &str| {
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        pairs
            .find(|(found, _)| found == name)
            .map(|(_, value)| value.into_owned())
    };
    let service = parameter("service")?;
    Some((service, parameter("prefix").unwrap_or_default()))
}

/// Answers `{"purged":n}`, of this node; 503 when the others could not be told.
pub(super) fn purge(
    state: &AdminState,
    request: &Request,
) -> impl Future<Output = Response> + use<> {
    let may = gate::may_change(state, request.headers());
    let (wish, purge) = (wish(request), state.purge.clone());
    async move {
        if !may {
            return stats::refused();
        }
        let Some((service, prefix)) = wish else {
            let message = "service: which one is needed, as ?service=users";
            let body = json!({"error": "bad_request", "message": message});
            return json_response(StatusCode::BAD_REQUEST, &body);
        };
        answer(purge(service, prefix).await)
    }
}

fn answer(purged: Option<Purged>) -> Response {
    match purged {
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
