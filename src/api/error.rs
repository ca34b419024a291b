//! What a back end is told when a call fails: one envelope, one closed list of codes.

use std::borrow::Cow;

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::header::{
    ACCEPT, CONNECTION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{Method, StatusCode};
use serde::Serialize;

use super::ApiState;
use crate::broker::BrokerError;
use crate::model::{ChannelNameError, ErrorCode};

/// Most bytes of a message: a body's own words may be quoted in it, and nobody should get a megabyte back.
const MESSAGE_BYTES_MAX: usize = 512;

/// A failed call, or one failed item of a call with several. The text is shown to the caller: it must hold no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    code: ErrorCode,
    message: Cow<'static, str>,
    outcome_unknown: bool,
    ends_connection: bool,
}

impl ApiError {
    /// An error of this code; `message` says what and where.
    pub fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            message: shortened(message.into()),
            outcome_unknown: false,
            ends_connection: false,
        }
    }

    /// The request cannot be read, or a value breaks its rule.
    pub(super) fn bad_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::BadRequest, message)
    }

    /// The same, and the answer says that its connection ends with it: the rest of the body is not read, so no other
    /// request can follow (RFC 9112 section 9.6).
    pub(super) fn ending_connection(mut self) -> Self {
        self.ends_connection = true;
        self
    }

    /// The code.
    pub const fn code(&self) -> ErrorCode {
        self.code
    }

    /// What and where.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Whether the command may have been done all the same.
    pub const fn outcome_unknown(&self) -> bool {
        self.outcome_unknown
    }

    /// The answer: the envelope, or RFC 9457's form where the caller asked for that.
    pub fn response<B: From<Vec<u8>>>(&self, as_problem: bool) -> Response<B> {
        let status =
            StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = Response::new(B::from(self.body(status, as_problem)));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static(if as_problem {
                "application/problem+json"
            } else {
                "application/json"
            }),
        );
        if self.ends_connection {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        match status {
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            StatusCode::UNAUTHORIZED => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            _ => {}
        }
        response
    }

    /// The fields of the envelope, for an answer or an item of one.
    pub(super) fn envelope(&self) -> Envelope<'_> {
        Envelope {
            error: self.code,
            message: &self.message,
            outcome: self.outcome_unknown.then_some("unknown"),
        }
    }

    fn body(&self, status: StatusCode, as_problem: bool) -> Vec<u8> {
        let envelope = self.envelope();
        let body = if as_problem {
            serde_json::to_vec(&Problem {
                r#type: "about:blank",
                title: status.canonical_reason().unwrap_or_default(),
                status: status.as_u16(),
                detail: &self.message,
                envelope,
            })
        } else {
            serde_json::to_vec(&envelope)
        };
        body.unwrap_or_default()
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        self.response(false)
    }
}

/// `{"error","message"}`, and `"outcome":"unknown"` when nobody knows whether it was done.
#[derive(Debug, Serialize)]
pub(super) struct Envelope<'a> {
    error: ErrorCode,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
}

/// RFC 9457, with the envelope's fields as extensions.
#[derive(Debug, Serialize)]
struct Problem<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: &'a str,
    #[serde(flatten)]
    envelope: Envelope<'a>,
}

impl From<BrokerError> for ApiError {
    fn from(error: BrokerError) -> Self {
        Self {
            outcome_unknown: error.is_outcome_unknown(),
            ..Self::new(error.code(), error.to_string())
        }
    }
}

impl From<ChannelNameError> for ApiError {
    fn from(error: ChannelNameError) -> Self {
        Self::new(ErrorCode::BadRequest, error.to_string())
    }
}

/// Whether the caller wants errors in the form of RFC 9457.
pub(super) fn wants_problem(headers: &HeaderMap) -> bool {
    headers
        .get(ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("application/problem+json"))
}

/// A path under `/hub` that is none.
pub(super) async fn not_found(_: &ApiState, request: Request) -> Result<Vec<u8>, ApiError> {
    let path = request.uri().path();
    let hint = if path.starts_with("/hub/channels/") {
        "; a / in a channel name is written %2F"
    } else {
        ""
    };
    let message = format!("there is no {path}{hint}");
    Err(ApiError::new(ErrorCode::NotFound, message))
}

/// A path that exists, with another method.
pub(super) async fn method_not_allowed(
    _: &ApiState,
    request: Request,
) -> Result<Vec<u8>, ApiError> {
    let method: &Method = request.method();
    let message = format!("{method} does not fit {}; see Allow", request.uri().path());
    Err(ApiError::new(ErrorCode::MethodNotAllowed, message))
}

/// Cuts at a character's edge.
fn shortened(message: Cow<'static, str>) -> Cow<'static, str> {
    if message.len() <= MESSAGE_BYTES_MAX {
        return message;
    }
    let mut message = message.into_owned();
    message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
    message.push('…');
    Cow::Owned(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(error: &ApiError) -> String {
        String::from_utf8(error.body(StatusCode::BAD_REQUEST, false)).expect("JSON is UTF-8")
    }

    #[test]
    fn the_envelope_has_code_and_message_and_tells_an_unknown_outcome() {
        assert_eq!(
            body(&ApiError::bad_request("no \"x\"")),
            r#"{"error":"bad_request","message":"no \"x\""}"#
        );
        assert!(body(&BrokerError::OutcomeUnknown.into()).ends_with(r#","outcome":"unknown"}"#));
        assert!(body(&BrokerError::NotReplicated.into()).ends_with(r#","outcome":"unknown"}"#));
        assert!(!body(&BrokerError::Unavailable.into()).contains("outcome"));
    }

    #[test]
    fn a_long_message_is_cut_at_a_characters_edge() {
        let error = ApiError::bad_request("ä".repeat(10_000));
        assert!(error.message.len() <= MESSAGE_BYTES_MAX + '…'.len_utf8());
        assert!(error.message.ends_with("ä…"));
    }
}
