//! HTTP for back ends: `/hub`.
//!
//! [`router`] is all that the rest of the process sees. A call reads its body, asks the broker (or what this node knows
//! of itself) and writes JSON bytes; every error is the one envelope `{"error","message"}` of [`ApiError`].
//!
//! Publishing is the hot path: the body is parsed once and borrowed, the payload is copied once into bytes of its own,
//! the answer is written as bytes, and no span, layer or formatted string is in between.
//!
//! Not here: who may call (the [`Guard`] that `app` hands in) and what happens to a publication after the broker.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::{any, get, post};
use http::HeaderMap;

use crate::auth::HubCaller;
use crate::broker::{ActiveChannel, Broker, NodeInfo};
use crate::events::Consent;
use crate::model::{ChannelKey, Namespaces};
use crate::relay::Relay;
use crate::telemetry::http::{Route, Stopwatch};

mod body;
mod channels;
mod config;
mod consent;
mod control;
mod direct;
mod error;
mod item;
mod json;
mod openapi;
mod publish;
mod sessions;

pub use config::Config;
pub use error::ApiError;
pub use openapi::openapi_router;
pub use sessions::{
    CountOfFleet, Origin, OriginOf, Process, SessionState, administration_router, session_router,
};

/// Who uses `/hub` with a request, if it may. Asked once for each call, before its body is read.
pub type Guard = Arc<dyn Fn(&HeaderMap) -> Result<HubCaller, ApiError> + Send + Sync>;

/// What this node says of itself at this moment.
pub type NodeSource = Arc<dyn Fn() -> NodeInfo + Send + Sync>;

/// The channels of this node. [`Relay`] is it; tests have one of their own.
pub trait LocalChannels: Send + Sync {
    /// The channels with subscribers whose name begins with `prefix`, after `cursor` in the order of their names, at
    /// most `limit`.
    fn channels(&self, prefix: &str, cursor: Option<&str>, limit: usize) -> Vec<ActiveChannel>;

    /// How many subscribers a channel has.
    fn subscribers(&self, channel: &ChannelKey) -> u64;
}

impl LocalChannels for Relay {
    fn channels(&self, prefix: &str, cursor: Option<&str>, limit: usize) -> Vec<ActiveChannel> {
        self.channels(prefix, cursor, limit)
    }

    fn subscribers(&self, channel: &ChannelKey) -> u64 {
        self.subscribers(channel)
    }
}

/// What the calls stand on.
#[derive(Clone)]
pub struct ApiState {
    /// Where publications, history, presence and orders go.
    pub broker: Arc<dyn Broker>,
    /// Which channels have subscribers.
    pub local: Arc<dyn LocalChannels>,
    /// The rules of channels.
    pub namespaces: Arc<Namespaces>,
    /// Who may call.
    pub guard: Guard,
    /// Who is asked about what callers publish that are no back end.
    pub consent: Arc<Consent>,
    /// This node, for `/hub/nodes`.
    pub node: NodeSource,
    /// Limits.
    pub config: Config,
}

impl ApiState {
    /// The calls on a relay and its broker.
    pub fn new(
        relay: Arc<Relay>,
        namespaces: Arc<Namespaces>,
        guard: Guard,
        consent: Arc<Consent>,
        node: NodeSource,
        config: Config,
    ) -> Self {
        Self {
            broker: Arc::clone(relay.broker()),
            local: relay,
            namespaces,
            guard,
            consent,
            node,
            config,
        }
    }
}

/// Every path under `/hub`. Unknown ones are answered here too, in the same envelope, so the router can be merged with
/// others and needs no fallback of its own.
pub fn router(state: Arc<ApiState>) -> Router {
    Router::new()
        .route("/hub/publish", post(publish))
        .route("/hub/broadcast", post(broadcast))
        .route("/hub/batch", post(batch))
        .route("/hub/channels", get(list))
        .route(
            "/hub/channels/{channel}/history",
            get(history).delete(clear_history),
        )
        .route("/hub/channels/{channel}/presence", get(presence))
        .route("/hub/channels/{channel}/stats", get(stats))
        .route("/hub/subscribe", post(subscribe))
        .route("/hub/unsubscribe", post(unsubscribe))
        .route("/hub/disconnect", post(disconnect))
        .route("/hub/nodes", get(nodes))
        .method_not_allowed_fallback(method_not_allowed)
        .route("/hub", any(not_found))
        .route("/hub/", any(not_found))
        .route("/hub/{*path}", any(not_found))
        .with_state(state)
}

/// Declares the handlers: each is measured, guarded and answered in the same way, so none can forget it.
macro_rules! handlers {
    ($($name:ident: $route:ident => $call:path;)+) => {$(
        async fn $name(State(state): State<Arc<ApiState>>, mut request: Request) -> Response {
            let watch = Stopwatch::start(Route::$route);
            let is_problem = error::wants_problem(request.headers());
            let result = match (state.guard)(request.headers()) {
                Ok(caller) => {
                    consent::introduce(&state, caller, &mut request);
                    $call(&state, request).await
                }
                Err(refused) => Err(refused),
            };
            let response = match result {
                Ok(json) => json::response(json),
                Err(error) => error.response(is_problem),
            };
            watch.stop(response.status().as_u16());
            response
        }
    )+};
}

handlers! {
    publish: Publish => publish::publish;
    broadcast: Broadcast => publish::broadcast;
    batch: Batch => publish::batch;
    list: Channels => channels::list;
    history: History => channels::history;
    clear_history: History => channels::clear_history;
    presence: Presence => channels::presence;
    stats: Stats => channels::stats;
    subscribe: Subscribe => control::subscribe;
    unsubscribe: Unsubscribe => control::unsubscribe;
    disconnect: Disconnect => control::disconnect;
    nodes: Nodes => control::nodes;
    not_found: Unmatched => error::not_found;
    method_not_allowed: Unmatched => error::method_not_allowed;
}
