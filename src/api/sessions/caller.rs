//! Who calls.

use std::sync::Arc;

use axum::RequestExt as _;
use axum::extract::{Path, Request};
use http::header::AUTHORIZATION;
use http::{HeaderMap, StatusCode};

use super::{SessionError, SessionState};
use crate::auth::{AuthError, Identity, bearer};
use crate::model::SessionId;
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
        match identity.login_session {
            Some(login) if !state.sessions.is_alive(&identity.user, login).await? => Err(
                SessionError::unauthorized("the session of the token has ended"),
            ),
            _ => Ok(Self(identity)),
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
        &*self.0.role == "admin"
    }

    /// Whether a name that was written in a request is the caller's.
    pub(super) fn is(&self, name: &str) -> bool {
        let (Ok(own), Ok(other)) = (UserName::new(&self.0.user), UserName::new(name)) else {
            return *self.0.user == *name;
        };
        own == other
    }
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
