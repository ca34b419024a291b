//! Sessions: create, read, update, list; and where the user is connected.

use axum::extract::Request;
use http::StatusCode;
use http::header::HOST;
use serde::Serialize;
use serde_json::value::RawValue;

use super::caller::{Caller, named};
use super::fields::Fields;
use super::{SessionError, SessionState, written};
use crate::api::body;
use crate::auth::bearer;
use crate::model::SessionId;
use crate::session::{NAME_BYTES_MAX, Opened, Session, SessionHead, Updated};

/// The most bytes of a conversation's name.
const CHAT_BYTES_MAX: usize = 255;
/// What a caller may spend on the rest of a body beside the session's data.
const REST_BYTES: usize = 64 * 1024;

#[derive(Serialize)]
struct SessionAnswer<'a> {
    session_id: String,
    user_id: &'a str,
    chat_id: &'a str,
    data: &'a RawValue,
    ws_url: &'a str,
}

fn answer(
    head: &SessionHead,
    chat_id: Option<&str>,
    data: &str,
    ws_url: &str,
) -> Result<Vec<u8>, SessionError> {
    let data: &RawValue = serde_json::from_str(data).map_err(|_| SessionError::internal())?;
    written(&SessionAnswer {
        session_id: head.id.to_string(),
        user_id: &head.user,
        chat_id: chat_id.unwrap_or(&head.chat_id),
        data,
        ws_url,
    })
}

fn denied() -> SessionError {
    SessionError::new(StatusCode::FORBIDDEN, "Session access denied")
}

/// Where a socket for a session is opened: usable as it is, with the token that the request came with.
fn ws_url(state: &SessionState, request: &Request, id: SessionId) -> String {
    let text = |name| {
        let value = request.headers().get(name);
        value.and_then(|value: &http::HeaderValue| value.to_str().ok())
    };
    let origin = (state.origin_of)(request);
    let scheme = if origin.is_secure { "wss" } else { "ws" };
    let told = origin.authority.as_deref();
    let host = told.or_else(|| text(HOST)).unwrap_or("localhost");
    let token = text(http::header::AUTHORIZATION)
        .and_then(bearer)
        .unwrap_or_default();
    format!("{scheme}://{host}/ws/connect?session_id={id}&token={token}")
}

/// `{"chat_id"?,"session_id"?,"user_id"?}`: that session, or the one for the conversation, or a new one.
pub(super) async fn create(
    state: &SessionState,
    request: Request,
) -> Result<Vec<u8>, SessionError> {
    let caller = Caller::of(state, request.headers()).await?;
    // Its id is filled in when it is known.
    let placeholder = SessionId::from_bits(0);
    let url = ws_url(state, &request, placeholder);
    let body = body::read(request, REST_BYTES).await?;
    let mut fields = match body.trim_ascii().is_empty() {
        true => Fields::parse(b"{}")?,
        false => Fields::parse(&body)?,
    };
    let chat_id = fields.optional_text("chat_id", CHAT_BYTES_MAX);
    let id: Option<SessionId> = fields.optional_parsed("session_id");
    let user_id = fields.optional_text("user_id", NAME_BYTES_MAX);
    fields.check()?;
    if user_id.is_some_and(|user_id| !caller.is(&user_id)) {
        return Err(SessionError::new(StatusCode::FORBIDDEN, "Access denied"));
    }
    let opened = state
        .sessions
        .open(caller.user(), chat_id.as_deref(), id, caller.login())
        .await?;
    let Opened::Session(session) = opened else {
        return Err(denied());
    };
    let Session { head, data } = session;
    let url = url.replacen(&placeholder.to_string(), &head.id.to_string(), 1);
    answer(&head, None, &data, &url)
}

/// A session, for its user and for admins.
pub(super) async fn session(
    state: &SessionState,
    mut request: Request,
) -> Result<Vec<u8>, SessionError> {
    let (caller, id) = Caller::and_session(state, &mut request).await?;
    let session = state.sessions.session(id).await?;
    let session = session.ok_or_else(|| caller.missing(id))?;
    let is_own = session.head.user == *caller.user();
    if !is_own && caller.login() == Some(id) {
        return Err(caller.missing(id));
    }
    if !is_own && !caller.is_admin() {
        return Err(denied());
    }
    if is_own {
        state.sessions.saw(id, caller.user());
    }
    answer(&session.head, None, &session.data, "")
}

/// `{"chat_id"?,"data":{…}}`: the fields of `data` replace those of the same name.
pub(super) async fn update(
    state: &SessionState,
    mut request: Request,
) -> Result<Vec<u8>, SessionError> {
    let (caller, id) = Caller::and_session(state, &mut request).await?;
    let url = ws_url(state, &request, id);
    let (chat_id, data) = match wanted(state, request).await {
        Ok(wanted) => wanted,
        Err(error) => {
            // Who is nobody any more hears that, whatever they ask.
            caller.check(state).await?;
            return Err(error);
        }
    };
    let updated = state
        .sessions
        .update(id, caller.user(), chat_id.as_deref(), &data)
        .await?;
    match updated {
        Updated::Done => {}
        Updated::Missing => return Err(caller.missing(id)),
        Updated::NotOwner if caller.login() == Some(id) => return Err(caller.missing(id)),
        Updated::NotOwner => return Err(denied()),
        Updated::TooLarge => {
            let error = "Session data too large";
            return Err(SessionError::new(StatusCode::PAYLOAD_TOO_LARGE, error));
        }
        // The fields were read above, so it is what the session has.
        Updated::Unreadable => {
            let error = "Session data cannot be read";
            return Err(SessionError::new(StatusCode::INTERNAL_SERVER_ERROR, error));
        }
    }
    let data: &RawValue =
        serde_json::from_str("{\"data\":null}").map_err(|_| SessionError::internal())?;
    written(&SessionAnswer {
        session_id: id.to_string(),
        user_id: caller.user(),
        chat_id: chat_id.as_deref().unwrap_or("default"),
        data,
        ws_url: &url,
    })
}

/// What an update wants: the conversation, and a JSON object of fields.
async fn wanted(
    state: &SessionState,
    request: Request,
) -> Result<(Option<String>, String), SessionError> {
    let body = body::read(request, state.body_bytes_max).await?;
    let mut fields = Fields::parse(&body)?;
    let chat_id = fields.optional_text("chat_id", CHAT_BYTES_MAX);
    let data = fields.object("data");
    fields.check()?;
    let data = data.ok_or_else(SessionError::internal)?;
    let data = std::str::from_utf8(data.as_bytes()).map_err(|_| SessionError::internal())?;
    Ok((chat_id, data.to_owned()))
}

#[derive(Serialize)]
struct Listed {
    session_id: String,
    chat_id: Box<str>,
    last_access: f64,
    created_at: f64,
}

#[derive(Serialize)]
struct SessionList {
    count: usize,
    sessions: Vec<Listed>,
}

/// A user's sessions, for the user and for admins: the newest first.
pub(super) async fn sessions(
    state: &SessionState,
    mut request: Request,
) -> Result<Vec<u8>, SessionError> {
    let user = user(state, &mut request).await?;
    let heads = state.sessions.sessions(&user).await?;
    let sessions = heads.into_iter().map(|head| Listed {
        session_id: head.id.to_string(),
        chat_id: head.chat_id,
        last_access: head.last_access.as_secs_f64(),
        created_at: head.created_at.as_secs_f64(),
    });
    let sessions: Vec<Listed> = sessions.collect();
    written(&SessionList {
        count: sessions.len(),
        sessions,
    })
}

#[derive(Serialize)]
struct ConnectionAnswer {
    session_id: String,
    gateway_id: String,
    ws_connected: bool,
    last_seen: f64,
    connections: Vec<OneConnection>,
}

#[derive(Serialize)]
struct OneConnection {
    client_id: String,
    session_id: String,
    gateway_id: String,
    connected_at: f64,
}

/// Where a user is connected, for the user and for admins: the newest socket, and all of them in `connections`; without
/// one the session that was used last.
pub(super) async fn connection(
    state: &SessionState,
    mut request: Request,
) -> Result<Vec<u8>, SessionError> {
    let user = user(state, &mut request).await?;
    let store = state.sessions.store();
    let connections = store.connections(&user, store.now()).await?;
    let heads = state.sessions.sessions(&user).await?;
    let connected = connections.first();
    let head = match connected {
        Some(connection) => heads.iter().find(|head| head.id == connection.session),
        None => heads.iter().max_by_key(|head| head.last_access),
    };
    let last_seen = head
        .map(|head| head.last_access)
        .max(connected.map(|connection| connection.connected_at));
    let session = connected.map_or_else(
        || head.map(|head| (head.id, head.node.to_string())),
        |connection| Some((connection.session, connection.node.to_string())),
    );
    let Some((session_id, gateway_id)) = session else {
        let error = "No active connection";
        return Err(SessionError::new(StatusCode::NOT_FOUND, error));
    };
    written(&ConnectionAnswer {
        session_id: session_id.to_string(),
        gateway_id,
        ws_connected: connected.is_some(),
        last_seen: last_seen.unwrap_or_default().as_secs_f64(),
        connections: connections
            .iter()
            .map(|connection| OneConnection {
                client_id: connection.client.to_string(),
                session_id: connection.session.to_string(),
                gateway_id: connection.node.to_string(),
                connected_at: connection.connected_at.as_secs_f64(),
            })
            .collect(),
    })
}

/// The user whom the path names, when the caller may ask about them.
async fn user(state: &SessionState, request: &mut Request) -> Result<String, SessionError> {
    let caller = Caller::of(state, request.headers()).await?;
    let name = named(request).await?;
    if caller.is(&name) {
        return Ok(caller.user().to_string());
    }
    if caller.is_admin() {
        return Ok(name);
    }
    Err(SessionError::new(StatusCode::FORBIDDEN, "Access denied"))
}
