//! The server's own answers: short JSON error bodies, as a response for hyper or as bytes for a socket without it.

use axum::body::Body;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};

use crate::model::ErrorCode;

/// Why the server answers instead of the router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Over `MAX_CONNECTIONS`.
    TooManyConnections,
    /// Over `MAX_HANDSHAKES`.
    TooManyHandshakes,
    /// Not exactly one valid `Host`, or not the one that the target names.
    BadHost,
    /// `CONNECT`.
    Connect,
    /// `TRACE`.
    Trace,
    /// The target is over its limit.
    UriTooLong,
    /// Two ways to tell where the body ends.
    AmbiguousLength,
    /// `Content-Length` is over `MAX_BODY_BYTES`.
    BodyTooLarge,
    /// The head did not arrive in time.
    HeadTimedOut,
    /// An upgrade of a request that has a body: its rest would be read as frames.
    UpgradeWithBody,
    /// A handler panicked, or asked for an upgrade that is none.
    Broken,
}

impl Refusal {
    /// Status, code and message, in one table.
    fn parts(self) -> (StatusCode, ErrorCode, &'static str) {
        use ErrorCode as Code;
        match self {
            Self::TooManyConnections => (
                StatusCode::SERVICE_UNAVAILABLE,
                Code::Unavailable,
                "this node has no room for another connection",
            ),
            Self::TooManyHandshakes => (
                StatusCode::SERVICE_UNAVAILABLE,
                Code::Unavailable,
                "too many connections are being opened at once",
            ),
            Self::BadHost => (
                StatusCode::BAD_REQUEST,
                Code::BadRequest,
                "exactly one valid Host header is required",
            ),
            Self::Connect => (
                StatusCode::METHOD_NOT_ALLOWED,
                Code::MethodNotAllowed,
                "this is not a tunnel",
            ),
            Self::Trace => (
                StatusCode::NOT_IMPLEMENTED,
                Code::MethodNotAllowed,
                "TRACE is not implemented",
            ),
            Self::UriTooLong => (
                StatusCode::URI_TOO_LONG,
                Code::TooLarge,
                "the request target is over 8 KiB",
            ),
            Self::AmbiguousLength => (
                StatusCode::BAD_REQUEST,
                Code::BadRequest,
                "Content-Length and Transfer-Encoding exclude each other",
            ),
            Self::BodyTooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                Code::TooLarge,
                "the body is larger than this server accepts",
            ),
            Self::HeadTimedOut => (
                StatusCode::REQUEST_TIMEOUT,
                Code::RequestTimeout,
                "the request's head did not arrive in time",
            ),
            Self::UpgradeWithBody => (
                StatusCode::BAD_REQUEST,
                Code::BadRequest,
                "a request with a body cannot be upgraded",
            ),
            Self::Broken => (
                StatusCode::INTERNAL_SERVER_ERROR,
                Code::Internal,
                "something broke on our side",
            ),
        }
    }

    /// As an answer that also ends the connection: what follows on it is not to be trusted, or not wanted.
    pub(super) fn response(self) -> Response<Body> {
        let (status, _, _) = self.parts();
        let mut response = Response::new(Body::from(self.body()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if status == StatusCode::METHOD_NOT_ALLOWED {
            let methods = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
            headers.insert(ALLOW, HeaderValue::from_static(methods));
        }
        response
    }

    /// As bytes for a socket that hyper never sees, or has given up.
    pub(super) fn bytes(self) -> Vec<u8> {
        let (status, _, _) = self.parts();
        let body = self.body();
        let retry = match status {
            StatusCode::SERVICE_UNAVAILABLE => "retry-after: 1\r\n",
            _ => "",
        };
        let length = body.len();
        format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n{retry}connection: \
             close\r\n\r\n{body}"
        )
        .into_bytes()
    }

    fn body(self) -> String {
        let (_, code, message) = self.parts();
        format!(r#"{{"error":"{}","message":"{message}"}}"#, code.as_str())
    }
}
