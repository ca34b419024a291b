//! The closed list of error codes: `code` of an `error` message on a socket, `error` of an HTTP error body.

use serde::{Serialize, Serializer};

/// What went wrong with one command or request, in a word that programs can compare. `docs/PROTOCOL.md` lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// Not readable, or a field is missing, unknown or of the wrong type.
    BadRequest,
    /// No credentials, or bad ones.
    Unauthorized,
    /// The identity may not do that.
    Forbidden,
    /// There is no such thing.
    NotFound,
    /// The method does not fit the path.
    MethodNotAllowed,
    /// The request did not arrive in time.
    RequestTimeout,
    /// The body, message or publication is over its limit.
    TooLarge,
    /// The content type is not one that is read here.
    UnsupportedMediaType,
    /// Too many commands or requests.
    RateLimited,
    /// Subscribed already.
    AlreadySubscribed,
    /// Not subscribed.
    NotSubscribed,
    /// Over the most channels of one connection.
    TooManyChannels,
    /// The namespace does not have that feature (history, presence).
    NotAvailable,
    /// A token that is expired, forged or of another issuer.
    InvalidToken,
    /// The broker cannot be reached; with `"outcome":"unknown"` when the command had been sent.
    BrokerUnavailable,
    /// The node, or the broker's memory, has no room, or the node is draining.
    Unavailable,
    /// Our fault.
    Internal,
}

impl ErrorCode {
    /// Every code, in the order of the table in `docs/PROTOCOL.md`.
    pub const ALL: [Self; 17] = [
        Self::BadRequest,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::RequestTimeout,
        Self::TooLarge,
        Self::UnsupportedMediaType,
        Self::RateLimited,
        Self::AlreadySubscribed,
        Self::NotSubscribed,
        Self::TooManyChannels,
        Self::NotAvailable,
        Self::InvalidToken,
        Self::BrokerUnavailable,
        Self::Unavailable,
        Self::Internal,
    ];

    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::RequestTimeout => "request_timeout",
            Self::TooLarge => "too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::RateLimited => "rate_limited",
            Self::AlreadySubscribed => "already_subscribed",
            Self::NotSubscribed => "not_subscribed",
            Self::TooManyChannels => "too_many_channels",
            Self::NotAvailable => "not_available",
            Self::InvalidToken => "invalid_token",
            Self::BrokerUnavailable => "broker_unavailable",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
        }
    }

    /// The HTTP status that goes with it (RFC 9110 section 15).
    pub const fn status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Unauthorized | Self::InvalidToken => 401,
            Self::Forbidden => 403,
            Self::NotFound | Self::NotSubscribed => 404,
            Self::MethodNotAllowed => 405,
            Self::RequestTimeout => 408,
            Self::AlreadySubscribed | Self::NotAvailable => 409,
            Self::TooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::RateLimited | Self::TooManyChannels => 429,
            Self::Internal => 500,
            Self::BrokerUnavailable | Self::Unavailable => 503,
        }
    }
}

impl Serialize for ErrorCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}
