//! Keys of issuers that have changed: asked for before `/hub` and `/admin` refuse a token for want of one. The doors themselves
//! judge at once, by the keys that are here.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::unix_seconds;
use crate::admin::pass_of;
use crate::auth::{AuthError, Verifier, bearer};

/// The same routes, before which the issuer of a token is asked that names a key which is not here; for some seconds at most,
/// and some times a minute.
pub(super) fn with_fresh_keys(router: Router, verifier: &Arc<Verifier>) -> Router {
    match verifier.has_issuers() {
        true => router.route_layer(from_fn_with_state(verifier.clone(), ask)),
        // Keys that stand in the configuration do not change.
        false => router,
    }
}

async fn ask(State(verifier): State<Arc<Verifier>>, request: Request, next: Next) -> Response {
    let now = unix_seconds();
    let lacks_key = |token: &&str| {
        let identified = verifier.identify(Some(token), now);
        matches!(
            identified,
            Err(AuthError::UnknownKey | AuthError::KeysUnavailable)
        )
    };
    let unknown = tokens(request.headers()).filter(lacks_key);
    let unknown: Vec<String> = unknown.map(str::to_owned).collect();
    for token in &unknown {
        // What comes of it the door says.
        let _ = verifier.identify_or_ask(Some(token), now).await;
    }
    next.run(request).await
}

/// What a request shows that may be a token.
fn tokens(fields: &HeaderMap) -> impl Iterator<Item = &str> {
    let authorization = fields.get(AUTHORIZATION);
    let authorization = authorization.and_then(|value| value.to_str().ok());
    let shown = [authorization.and_then(bearer), pass_of(fields)];
    shown.into_iter().flatten()
}
