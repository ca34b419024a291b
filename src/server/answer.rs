//! The server's own answers: short JSON error bodies, as a response for hyper or as bytes for a socket without it.

use axum::body::Body;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};

use crate::http1;
use crate::model::ErrorCode;

/// Why the server answers instead of the router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Over `MAX_CONNECTIONS`.
    TooManyConnections,
    /// Over `MAX_HANDSHAKES`.
    TooManyHandshakes,
    /// Not TLS, where nothing else is spoken.
    NotEncrypted,
    /// Not HTTP/1.
    BadHead,
    /// The address has its most connections.
    TooManyOfAddress,
    /// The head is over its bounds.
    HeadTooLarge,
    /// Not HTTP/1.0 or 1.1.
    UnknownVersion,
    /// A transfer coding other than chunked.
    UnknownCoding,
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
    #[rustfmt::skip]
    fn parts(self) -> (StatusCode, ErrorCode, &'static str) {
        use ErrorCode as Code;
        use StatusCode as Status;
        match self {
            Self::TooManyConnections => (Status::SERVICE_UNAVAILABLE, Code::Unavailable, "this node has no room for another connection"),
            Self::TooManyHandshakes => (Status::SERVICE_UNAVAILABLE, Code::Unavailable, "too many connections are being opened at once"),
            Self::TooManyOfAddress => (Status::TOO_MANY_REQUESTS, Code::RateLimited, "this address has as many connections as one may have"),
            Self::NotEncrypted => (Status::BAD_REQUEST, Code::BadRequest, "this port speaks TLS only: use https or wss"),
            Self::BadHead => (Status::BAD_REQUEST, Code::BadRequest, "the head is not well-formed HTTP/1"),
            Self::HeadTooLarge => (Status::REQUEST_HEADER_FIELDS_TOO_LARGE, Code::TooLarge, "the head is over 64 KiB or 100 fields"),
            Self::UnknownVersion => (Status::HTTP_VERSION_NOT_SUPPORTED, Code::BadRequest, "only HTTP/1.0 and 1.1 are spoken here"),
            Self::UnknownCoding => (Status::NOT_IMPLEMENTED, Code::BadRequest, "only the transfer coding chunked is known"),
            Self::BadHost => (Status::BAD_REQUEST, Code::BadRequest, "exactly one valid Host header is required"),
            Self::Connect => (Status::METHOD_NOT_ALLOWED, Code::MethodNotAllowed, "this is not a tunnel"),
            Self::Trace => (Status::NOT_IMPLEMENTED, Code::MethodNotAllowed, "TRACE is not implemented"),
            Self::UriTooLong => (Status::URI_TOO_LONG, Code::TooLarge, "the request target is over 8 KiB"),
            Self::AmbiguousLength => (Status::BAD_REQUEST, Code::BadRequest, "the body's length is said in two ways, or in none that is valid"),
            Self::BodyTooLarge => (Status::PAYLOAD_TOO_LARGE, Code::TooLarge, "the body is larger than this server accepts"),
            Self::HeadTimedOut => (Status::REQUEST_TIMEOUT, Code::RequestTimeout, "the request's head did not arrive in time"),
            Self::UpgradeWithBody => (Status::BAD_REQUEST, Code::BadRequest, "a request with a body cannot be upgraded"),
            Self::Broken => (Status::INTERNAL_SERVER_ERROR, Code::Internal, "something broke on our side"),
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
        response
    }

    /// As bytes for a socket that hyper never sees, or has given up.
    pub(super) fn bytes(self) -> Vec<u8> {
        let (status, _, _) = self.parts();
        let body = self.body();
        let retry = match status {
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => "retry-after: 1\r\n",
            StatusCode::METHOD_NOT_ALLOWED => {
                "allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n"
            }
            _ => "",
        };
        let length = body.len();
        format!(
            "HTTP/1.1 {status}\r\ndate: {}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\
             {retry}connection: close\r\n\r\n{body}",
            http1::date()
        )
        .into_bytes()
    }

    fn body(self) -> String {
        let (_, code, message) = self.parts();
        format!(r#"{{"error":"{}","message":"{message}"}}"#, code.as_str())
    }
}
