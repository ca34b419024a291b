//! The error envelope of `/sessions`: `{"error","detail","status_code","timestamp","path"}`, with `errors` for fields
//! that break their rules (422) and `retry_after` for too many attempts (429).

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use serde::Serialize;

use super::SessionState;
use super::fields::FieldError;
use crate::api::ApiError;
use crate::auth::AuthError;
use crate::model::rfc3339;
use crate::session::{AccountError, PasswordError, StoreError};

/// The most bytes of the path that are repeated.
const PATH_BYTES_MAX: usize = 256;

/// A failed call.
#[derive(Debug)]
pub(super) struct SessionError {
    status: StatusCode,
    error: Cow<'static, str>,
    detail: Option<Cow<'static, str>>,
    errors: Vec<FieldError>,
    retry_after: Option<u64>,
}

#[derive(Serialize)]
struct Envelope<'a> {
    error: &'a str,
    detail: Option<&'a str>,
    status_code: u16,
    timestamp: String,
    path: &'a str,
    #[serde(skip_serializing_if = "<[FieldError]>::is_empty")]
    errors: &'a [FieldError],
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
}

impl SessionError {
    pub(super) fn new(status: StatusCode, error: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            error: error.into(),
            detail: None,
            errors: Vec::new(),
            retry_after: None,
        }
    }

    pub(super) fn with_detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    fn retry_after(mut self, wait: Duration) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        self.retry_after = Some(seconds.max(1));
        self
    }

    /// Fields that break their rules.
    pub(super) fn invalid(errors: Vec<FieldError>) -> Self {
        Self {
            errors,
            ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Validation Error")
                .with_detail("One or more fields failed validation")
        }
    }

    /// A token that is worth nothing any more.
    pub(super) fn unauthorized(detail: &'static str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Invalid token").with_detail(detail)
    }

    /// A bug of ours.
    pub(super) fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error")
    }

    pub(super) fn response(&self, path: &str) -> Response {
        let envelope = Envelope {
            error: &self.error,
            detail: self.detail.as_deref(),
            status_code: self.status.as_u16(),
            timestamp: rfc3339(SystemTime::now()),
            path: &path[..path.floor_char_boundary(PATH_BYTES_MAX)],
            errors: &self.errors,
            retry_after: self.retry_after,
        };
        // Strings and numbers cannot fail to be written.
        let body = serde_json::to_vec(&envelope).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<AuthError> for SessionError {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::KeysUnavailable | AuthError::SecretUnavailable | AuthError::NoKey => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable")
                    .with_detail(error.to_string())
                    .retry_after(Duration::from_secs(1))
            }
            AuthError::Missing => Self::new(StatusCode::UNAUTHORIZED, "Not authenticated"),
            AuthError::Expired => Self::new(StatusCode::UNAUTHORIZED, "Token expired")
                .with_detail("Log in again: the token has expired"),
            other => {
                Self::new(StatusCode::UNAUTHORIZED, "Invalid token").with_detail(other.to_string())
            }
        }
    }
}

impl From<StoreError> for SessionError {
    fn from(error: StoreError) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable")
            .with_detail(error.to_string())
            .retry_after(Duration::from_secs(1))
    }
}

impl From<AccountError> for SessionError {
    fn from(error: AccountError) -> Self {
        match error {
            AccountError::Taken => Self::new(StatusCode::BAD_REQUEST, "Username already exists"),
            AccountError::Refused => {
                Self::new(StatusCode::UNAUTHORIZED, "Invalid username or password")
            }
            AccountError::TooMany(wait) => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "Rate Limit Exceeded")
                    .with_detail("Too many requests. Please try again later.")
                    .retry_after(wait)
            }
            AccountError::Password(PasswordError::Busy) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable")
                    .with_detail("too many logins at once")
                    .retry_after(Duration::from_secs(1))
            }
            AccountError::Password(PasswordError::Failed) => Self::internal(),
            AccountError::Store(error) => error.into(),
        }
    }
}

/// What a body's reader refuses: too large, of another type, or never complete.
impl From<ApiError> for SessionError {
    fn from(error: ApiError) -> Self {
        let status = StatusCode::from_u16(error.code().status());
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self::new(status, status.canonical_reason().unwrap_or_default())
            .with_detail(error.message().to_owned())
    }
}

/// A path under `/sessions` that is none.
pub(super) async fn not_found(_: &SessionState, request: Request) -> Result<Vec<u8>, SessionError> {
    let path = request.uri().path();
    let path = &path[..path.floor_char_boundary(PATH_BYTES_MAX)];
    let detail = format!("The requested URL {path} was not found on this server.");
    Err(SessionError::new(StatusCode::NOT_FOUND, "Not Found").with_detail(detail))
}

/// A path that exists, with another method.
pub(super) async fn method_not_allowed(
    _: &SessionState,
    request: Request,
) -> Result<Vec<u8>, SessionError> {
    let (method, path) = (request.method(), request.uri().path());
    let path = &path[..path.floor_char_boundary(PATH_BYTES_MAX)];
    let detail = format!("The method {method} is not allowed for the URL {path}.");
    Err(SessionError::new(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed").with_detail(detail))
}
