//! HTTP for users (`/sessions`) and about them (`/admin/users`, `/admin/system`), in the bodies, statuses and error envelope of the FastAPI gateway.
//!
//! Register, log in, and work with sessions. A token that was minted here ends with its login session, so each call
//! with one asks the store; what another issuer's token says is taken as it is until it expires.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::{any, get, post};

use crate::auth::Verifier;
use crate::session::{Sessions, StoreError};
use crate::telemetry::http::{Route, Stopwatch};

mod accounts;
mod administration;
mod caller;
mod error;
mod fields;
mod records;

use error::SessionError;

/// Where a request came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The client's address, behind the proxies that are trusted.
    pub ip: IpAddr,
    /// Whether the client itself speaks TLS.
    pub is_secure: bool,
    /// The host that the client asked, perhaps with its port, where a proxy that is trusted says so.
    pub authority: Option<String>,
}

/// Tells where requests come from.
pub type OriginOf = Arc<dyn Fn(&Request) -> Origin + Send + Sync>;

/// Counts something over all nodes.
pub type CountOfFleet =
    Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<u64, StoreError>> + Send>> + Send + Sync>;

/// What a node says of its process.
#[derive(Debug, Clone, Copy)]
pub struct Process {
    /// The memory that it holds, in bytes.
    pub resident_bytes: u64,
    /// Since its start.
    pub uptime: Duration,
    /// Worker threads.
    pub workers: usize,
}

/// What the calls stand on.
#[derive(Clone)]
pub struct SessionState {
    /// Accounts and sessions.
    pub sessions: Arc<Sessions>,
    /// Verifies and mints tokens.
    pub verifier: Arc<Verifier>,
    /// How long a token lasts, in seconds.
    pub token_seconds: u64,
    /// Where requests come from.
    pub origin_of: OriginOf,
    /// The most bytes of a request's body.
    pub body_bytes_max: usize,
    /// How many clients are connected to all nodes.
    pub connections: CountOfFleet,
    /// This process.
    pub process: Arc<dyn Fn() -> Process + Send + Sync>,
}

/// What operators do with users: a few paths under `/admin`.
pub fn administration_router(state: SessionState) -> Router {
    Router::new()
        .route("/admin/users", get(users))
        .route("/admin/users/promote", post(promote))
        .route("/admin/users/demote", post(demote))
        .route("/admin/users/{user}/role", post(set_role))
        .route("/admin/users/stats", get(user_stats))
        .route("/admin/system/stats", get(system_stats))
        .route("/admin/system/redis-info", get(redis_info))
        .route("/admin/system/cleanup-sessions", post(clean_up))
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(Arc::new(state))
}

/// Every path under `/sessions`. Unknown ones are answered here too, in the same envelope.
pub fn session_router(state: SessionState) -> Router {
    Router::new()
        .route("/sessions/register", post(register))
        .route("/sessions/login", post(login))
        .route("/sessions/logout", post(logout))
        .route("/sessions/delete_account", post(delete_account))
        .route("/sessions/create", post(create))
        .route("/sessions/update/{id}", post(update))
        .route("/sessions/{id}", get(session))
        .route("/sessions/users/{user}/sessions", get(sessions))
        .route("/sessions/users/{user}/connection", get(connection))
        .method_not_allowed_fallback(method_not_allowed)
        .route("/sessions", any(not_found))
        .route("/sessions/", any(not_found))
        // Below `{id}`, for a name and a catch-all cannot share a place.
        .route("/sessions/{id}/{*path}", any(not_found))
        .with_state(Arc::new(state))
}

/// Declares the handlers: each is measured and answered in the same way.
macro_rules! handlers {
    ($($name:ident: $route:ident => $call:path;)+) => {$(
        async fn $name(State(state): State<Arc<SessionState>>, request: Request) -> Response {
            let watch = Stopwatch::start(Route::$route);
            let path = request.uri().path().to_owned();
            let response = match $call(&state, request).await {
                Ok(json) => super::json::response(json),
                Err(error) => error.response(&path),
            };
            watch.stop(response.status().as_u16());
            response
        }
    )+};
}

handlers! {
    register: Register => accounts::register;
    login: Login => accounts::login;
    logout: Logout => accounts::logout;
    delete_account: DeleteAccount => accounts::delete_account;
    create: CreateSession => records::create;
    update: UpdateSession => records::update;
    session: Session => records::session;
    sessions: UserSessions => records::sessions;
    connection: UserConnection => records::connection;
    users: Users => administration::users;
    promote: Promote => administration::promote;
    demote: Demote => administration::demote;
    set_role: SetRole => administration::set_role;
    user_stats: UserStats => administration::user_stats;
    system_stats: SystemStats => administration::system_stats;
    redis_info: RedisInfo => administration::redis_info;
    clean_up: CleanUp => administration::clean_up;
    not_found: Unmatched => error::not_found;
    method_not_allowed: Unmatched => error::method_not_allowed;
}

/// An answer's bytes.
fn written(body: &impl serde::Serialize) -> Result<Vec<u8>, SessionError> {
    // Strings, numbers and JSON that was read before cannot fail to be written.
    serde_json::to_vec(body).map_err(|_| SessionError::internal())
}
