//! Who calls.

use std::sync::Arc;

use axum::RequestExt as _;
use axum::extract::{Path, Request};
use http::header::AUTHORIZATION;
use http::{HeaderMap, StatusCode};

use super::{SessionError, SessionState};
use crate::auth::{AuthError, Identity, bearer};
use crate::model::{Role, SessionId};
use crate::session::{UnixTime, UserName};

/// Who calls: a user with a token that is worth something now.
#[derive(Debug)]
pub(super) struct Caller(Arc<Identity>);

impl Caller {
    /// The caller of a request.
    ///
    /// # Errors
    /// 401 without a token, with one that is not valid, whose session has ended, or that names no user.
    pub(super) async fn of(
        state: &SessionState,
        headers: &HeaderMap,
    ) -> Result<Self, SessionError> {
        let caller = Self::shown(state, headers).await?;
        caller.check(state).await?;
        Ok(caller)
    }

    /// The same of a request about one session, and which that is. Where it is the token's own, the answer about it says
    /// whether it has ended, so that is not asked before: see [`Caller::missing`].
    ///
    /// # Errors
    /// The same, and 404 when the path names no session.
    pub(super) async fn and_session(
        state: &SessionState,
        request: &mut Request,
    ) -> Result<(Self, SessionId), SessionError> {
        let caller = Self::shown(state, request.headers()).await?;
        let named = named(request).await;
        // What is no id is the id of no session.
        let id = named.and_then(|name| name.parse().map_err(|_| missing()));
        if id.as_ref().ok() != caller.login().as_ref() || id.is_err() {
            caller.check(state).await?;
        }
        Ok((caller, id?))
    }

    /// What is to be said of a session that is not there, or not this caller's: of the token's own, that it has ended.
    pub(super) fn missing(&self, id: SessionId) -> SessionError {
        match self.login() == Some(id) {
            true => ended(),
            false => missing(),
        }
    }

    /// Who shows a token, whether or not its session has ended.
    async fn shown(state: &SessionState, headers: &HeaderMap) -> Result<Self, SessionError> {
        let authorization = headers.get(AUTHORIZATION);
        let token = authorization
            .and_then(|value| value.to_str().ok())
            .and_then(bearer)
            .ok_or(AuthError::Missing)?;
        let now = UnixTime::now().as_secs();
        let identity = state.verifier.identify_or_ask(Some(token), now).await?;
        if identity.user.is_empty() {
            return Err(SessionError::unauthorized("the token names no user"));
        }
        Ok(Self(identity))
    }

    /// Whether the token's session lives.
    ///
    /// # Errors
    /// 401 when it has ended.
    pub(super) async fn check(&self, state: &SessionState) -> Result<(), SessionError> {
        match self.login() {
            Some(login) if !state.sessions.is_alive(self.user(), login).await? => Err(ended()),
            _ => Ok(()),
        }
    }

    /// The user.
    pub(super) fn user(&self) -> &crate::model::UserId {
        &self.0.user
    }

    /// The session that the token was minted for.
    pub(super) fn login(&self) -> Option<SessionId> {
        self.0.login_session
    }

    pub(super) fn is_admin(&self) -> bool {
        self.0.has_role(Role::ADMIN)
    }

    /// Whether a name that was written in a request is the caller's.
    pub(super) fn is(&self, name: &str) -> bool {
        let (Ok(own), Ok(other)) = (UserName::new(&self.0.user), UserName::new(name)) else {
            return *self.0.user == *name;
        };
        own == other
    }
}

fn ended() -> SessionError {
    SessionError::unauthorized("the session of the token has ended")
}

fn missing() -> SessionError {
    SessionError::new(StatusCode::NOT_FOUND, "Session not found")
}

/// The last part of a path that names something.
///
/// # Errors
/// 404 when it is no text.
pub(super) async fn named(request: &mut Request) -> Result<String, SessionError> {
    match request.extract_parts::<Path<String>>().await {
        Ok(Path(name)) => Ok(name),
        Err(_) => Err(SessionError::new(StatusCode::NOT_FOUND, "Not Found")),
    }
}
