//! What operators do with users: `/admin/users` and `/admin/system`, in the bodies of the FastAPI gateway.
//!
//! Whoever calls shows `ADMIN_API_KEY` as `X-Admin-Key`, or a token with the role `admin` whose session lives.

use axum::extract::Request;
use http::{HeaderMap, StatusCode};
use serde::Serialize;

use super::caller::{Caller, named};
use super::fields::Fields;
use super::{SessionError, SessionState, written};
use crate::api::body;
use crate::auth::{AdminAccess, guard_admin};
use crate::model::Role;
use crate::session::{Answer, Connection, NAME_BYTES_MAX, SessionHead, UnixTime, User, UserName};

/// The most bytes of a body: one name, every byte of which may be escaped in six.
const BODY_BYTES_MAX: usize = 16 * 1024;
/// The most users of one answer, and how many it has when the query does not say.
const USERS_MAX: usize = 1000;
/// For how many users the store is asked at once.
const ASKED_AT_ONCE: usize = 100;

/// Who calls: an admin, or whoever has the key (`None`).
async fn operator(
    state: &SessionState,
    headers: &HeaderMap,
) -> Result<Option<Caller>, SessionError> {
    let text = |name| {
        let value = headers.get(name);
        value.and_then(|value: &http::HeaderValue| value.to_str().ok())
    };
    let now = UnixTime::now().as_secs();
    let (key, authorization) = (text("x-admin-key"), text("authorization"));
    if key.is_some() && guard_admin(&state.verifier, key, None, AdminAccess::Write, now).is_ok() {
        return Ok(None);
    }
    if key.is_some() && authorization.is_none() {
        let error = SessionError::new(StatusCode::UNAUTHORIZED, "Invalid admin API key");
        return Err(error);
    }
    let caller = Caller::of(state, headers).await?;
    match caller.is_admin() {
        true => Ok(Some(caller)),
        false => {
            let error = "Access denied. Required roles: admin";
            Err(SessionError::new(StatusCode::FORBIDDEN, error))
        }
    }
}

#[derive(Serialize)]
struct Listed<'a> {
    username: &'a str,
    email: &'a str,
    role: &'a str,
    last_login: f64,
    created_at: f64,
    session_count: usize,
    is_online: bool,
}

/// `?cursor=&limit=`: users in the order of their names, after `cursor` (the last name of the page before).
pub(super) async fn users(state: &SessionState, request: Request) -> Result<Vec<u8>, SessionError> {
    operator(state, request.headers()).await?;
    let query = request.uri().query().unwrap_or_default();
    let parameters: Vec<_> = form_urlencoded::parse(query.as_bytes()).collect();
    let parameter = |name: &str| parameters.iter().find(|(key, _)| key == name);
    let limit = match parameter("limit") {
        None => USERS_MAX,
        Some((_, limit)) => match limit.parse() {
            Ok(limit) if (1..=USERS_MAX).contains(&limit) => limit,
            _ => {
                let detail = format!("limit must be a number from 1 to {USERS_MAX}");
                let error = SessionError::new(StatusCode::BAD_REQUEST, "Bad Request");
                return Err(error.with_detail(detail));
            }
        },
    };
    // A name that nobody can have stands before all others, as no cursor does.
    let cursor = parameter("cursor").and_then(|(_, name)| UserName::new(name).ok());
    let cursor = cursor.as_ref().map_or("", UserName::key);
    let store = state.sessions.store();
    let users = store.users(cursor, limit).await?;
    let mut listed = Vec::with_capacity(users.len());
    for part in users.chunks(ASKED_AT_ONCE) {
        let now = store.now();
        type Asked<'a> = (Answer<'a, Vec<SessionHead>>, Answer<'a, Vec<Connection>>);
        // Asked for all before the first answer is awaited: it is one journey.
        let asked: Vec<Asked<'_>> = part
            .iter()
            .map(|user| user.name.text())
            .map(|name| (store.sessions(name, now), store.connections(name, now)))
            .collect();
        for (user, (sessions, connections)) in part.iter().zip(asked) {
            let session_count = sessions.await?.len();
            let is_online = !connections.await?.is_empty();
            listed.push(line(user, session_count, is_online));
        }
    }
    written(&listed)
}

fn line(user: &User, session_count: usize, is_online: bool) -> Listed<'_> {
    Listed {
        username: user.name.text(),
        email: &user.email,
        role: &user.role,
        last_login: user.last_login.as_secs_f64(),
        created_at: user.created_at.as_secs_f64(),
        session_count,
        is_online,
    }
}

#[derive(Serialize)]
struct Done {
    message: String,
}

/// `{"username"}`, as it was registered.
async fn named_user(request: Request) -> Result<UserName, SessionError> {
    let body = body::read(request, BODY_BYTES_MAX).await?;
    let mut fields = Fields::parse(&body)?;
    let name = fields.text("username", NAME_BYTES_MAX);
    fields.check()?;
    UserName::new(&name).map_err(|_| no_user())
}

fn no_user() -> SessionError {
    SessionError::new(StatusCode::NOT_FOUND, "User not found")
}

/// Makes a user an admin, from the next login on.
pub(super) async fn promote(
    state: &SessionState,
    request: Request,
) -> Result<Vec<u8>, SessionError> {
    operator(state, request.headers()).await?;
    let name = named_user(request).await?;
    if !state.sessions.store().set_role(&name, Role::ADMIN).await? {
        return Err(no_user());
    }
    let name = name.text();
    tracing::info!(user = %name, "a user is an admin now");
    written(&Done {
        message: format!("User {name} promoted to admin"),
    })
}

/// Makes an admin a user like any other, at once: sessions end, and with them tokens that say more.
pub(super) async fn demote(
    state: &SessionState,
    request: Request,
) -> Result<Vec<u8>, SessionError> {
    let operator = operator(state, request.headers()).await?;
    let name = named_user(request).await?;
    if operator.is_some_and(|operator| operator.is(name.text())) {
        let error = "Cannot demote yourself";
        return Err(SessionError::new(StatusCode::BAD_REQUEST, error));
    }
    if !state.sessions.demote(&name).await? {
        return Err(no_user());
    }
    let name = name.text();
    tracing::info!(user = %name, "a user is no admin any more");
    written(&Done {
        message: format!("User {name} demoted to user"),
    })
}

#[derive(Serialize)]
struct RoleSet<'a> {
    message: String,
    username: &'a str,
    role: &'a str,
}

/// `{"role"}`: gives the user whom the path names another role, at once: sessions end, and with them tokens that say
/// something else.
pub(super) async fn set_role(
    state: &SessionState,
    mut request: Request,
) -> Result<Vec<u8>, SessionError> {
    let operator = operator(state, request.headers()).await?;
    let name = UserName::new(&named(&mut request).await?).map_err(|_| no_user())?;
    let body = body::read(request, BODY_BYTES_MAX).await?;
    let mut fields = Fields::parse(&body)?;
    let role: Option<Role> = fields.parsed("role");
    fields.check()?;
    let role = role.ok_or_else(SessionError::internal)?;
    let username = name.text();
    if operator.is_some_and(|operator| operator.is(username)) {
        let error = "Cannot change your own role";
        return Err(SessionError::new(StatusCode::BAD_REQUEST, error));
    }
    if !state.sessions.set_role(&name, role.as_str()).await? {
        return Err(no_user());
    }
    tracing::info!(user = %username, %role, "a user has another role now");
    written(&RoleSet {
        message: format!("User {username} has the role {role} now"),
        username,
        role: role.as_str(),
    })
}

#[derive(Serialize)]
struct UserStats {
    total_users: u64,
    active_sessions: u64,
    ws_connections: u64,
    memory_usage: MemoryUsage,
}

#[derive(Serialize)]
struct MemoryUsage {
    process_kb: u64,
}

/// How many there are, over all nodes.
pub(super) async fn user_stats(
    state: &SessionState,
    request: Request,
) -> Result<Vec<u8>, SessionError> {
    operator(state, request.headers()).await?;
    let store = state.sessions.store();
    let counts = store.counts(store.now()).await?;
    let ws_connections = (state.connections)().await?;
    written(&UserStats {
        total_users: counts.users,
        active_sessions: counts.sessions,
        ws_connections,
        memory_usage: MemoryUsage {
            process_kb: (state.process)().resident_bytes / 1024,
        },
    })
}

#[derive(Serialize)]
struct SystemStats {
    redis_connections: u64,
    memory_usage_mb: f64,
    uptime_seconds: f64,
    active_workers: usize,
}

/// This node's process. `redis_connections` is Redis's own count of all its clients; 0 without Redis.
pub(super) async fn system_stats(
    state: &SessionState,
    request: Request,
) -> Result<Vec<u8>, SessionError> {
    operator(state, request.headers()).await?;
    let server = state.sessions.store().server().await?;
    let process = (state.process)();
    written(&SystemStats {
        redis_connections: server.map_or(0, |server| server.connected_clients),
        memory_usage_mb: hundredths(process.resident_bytes * 100 / (1 << 20)),
        uptime_seconds: hundredths(process.uptime.as_millis() as u64 / 10),
        active_workers: process.workers,
    })
}

/// So many hundredths.
fn hundredths(count: u64) -> f64 {
    count as f64 / 100.0
}

/// What Redis says of itself.
pub(super) async fn redis_info(
    state: &SessionState,
    request: Request,
) -> Result<Vec<u8>, SessionError> {
    operator(state, request.headers()).await?;
    match state.sessions.store().server().await? {
        Some(server) => written(&server),
        None => {
            let error = SessionError::new(StatusCode::NOT_FOUND, "No Redis");
            Err(error.with_detail("this node keeps users and sessions in a file of its own"))
        }
    }
}

#[derive(Serialize)]
struct CleanedUp {
    message: &'static str,
    sessions: u64,
    users: usize,
}

/// Throws away what has expired, now.
pub(super) async fn clean_up(
    state: &SessionState,
    request: Request,
) -> Result<Vec<u8>, SessionError> {
    operator(state, request.headers()).await?;
    let swept = state.sessions.sweep().await?;
    written(&CleanedUp {
        message: "Session cleanup completed successfully",
        sessions: swept.sessions,
        users: swept.users.len(),
    })
}
