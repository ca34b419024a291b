//! Why somebody is not let in, as plain HTTP says it.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::header::{CONNECTION, RETRY_AFTER, SEC_WEBSOCKET_VERSION, UPGRADE, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};

use crate::model::{CloseReason, ErrorCode};
use crate::telemetry::metrics;

/// Seconds after which a client that found no place should try again.
const RETRY_AFTER_SECONDS: &str = "1";

/// Why somebody is not let in.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: ErrorCode,
    pub(super) message: String,
    /// Not a WebSocket handshake: says which version is spoken (RFC 6455 section 4.4).
    pub(super) needs_upgrade: bool,
    pub(super) counts_as: metrics::Refusal,
    /// With what a connection is closed instead, for clients that expect an upgrade first.
    pub(super) closes: Option<CloseReason>,
}

impl Refusal {
    pub(super) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let counts_as = match code {
            ErrorCode::Unauthorized | ErrorCode::InvalidToken | ErrorCode::Forbidden => {
                metrics::Refusal::Unauthorized
            }
            ErrorCode::Unavailable => metrics::Refusal::OverCapacity,
            _ => metrics::Refusal::BadRequest,
        };
        Self {
            code,
            message: message.into(),
            needs_upgrade: false,
            counts_as,
            closes: None,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        metrics::refused(self.counts_as);
        let status = if self.needs_upgrade {
            426
        } else {
            self.code.status()
        };
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::json!({ "error": self.code, "message": self.message });
        let mut response = (status, Json(body)).into_response();
        let headers = response.headers_mut();
        if self.needs_upgrade {
            // RFC 9110 section 7.8: whoever sends the one has to name it in the other.
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.code == ErrorCode::Unavailable {
            headers.insert(RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
        }
        response
    }
}
