//! Why a connection ends: the one closed list, and what a client does next.

/// What a client should do after a close.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reconnect {
    /// Stay away: the same attempt would end the same way.
    No,
    /// Come back, with jitter.
    Yes,
    /// Come back, waiting longer each time.
    BackingOff,
    /// Come back with a new token.
    WithNewToken,
}

/// Why a connection ended. Every WebSocket that we close ends with exactly one of these; other wire formats map the
/// list to codes of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The client closed, or its socket ended.
    ClientClosed,
    /// The node stops at once.
    GoingAway,
    /// The client broke the WebSocket protocol (RFC 6455).
    ProtocolError,
    /// A frame type that the negotiated subprotocol does not carry.
    UnsupportedData,
    /// A text message that is not UTF-8.
    InvalidUtf8,
    /// A message over `WS_MAX_MESSAGE_BYTES`.
    MessageTooBig,
    /// The token is no good.
    InvalidToken,
    /// The token and the session are not of one user.
    SessionMismatch,
    /// A refresh was refused.
    NotAllowed,
    /// Our fault.
    InternalError,
    /// The node drains.
    Drain,
    /// The node has no room for this connection.
    OverCapacity,
    /// The client reads too slowly: its pending bytes or messages passed the bound.
    SlowConsumer,
    /// The token's time is over.
    TokenExpired,
    /// Disconnected by the API, or from a stream that its upstream has no longer.
    Disconnected,
    /// The user logged out.
    LoggedOut,
    /// No pong within the time-out.
    NoPong,
    /// No sign of life within the inactivity time-out.
    Inactive,
}

impl CloseReason {
    /// Every reason, in the order of the table in `docs/PROTOCOL.md`.
    pub const ALL: [Self; 18] = [
        Self::ClientClosed,
        Self::GoingAway,
        Self::ProtocolError,
        Self::UnsupportedData,
        Self::InvalidUtf8,
        Self::InvalidToken,
        Self::SessionMismatch,
        Self::NotAllowed,
        Self::MessageTooBig,
        Self::InternalError,
        Self::Drain,
        Self::OverCapacity,
        Self::SlowConsumer,
        Self::TokenExpired,
        Self::Disconnected,
        Self::LoggedOut,
        Self::NoPong,
        Self::Inactive,
    ];

    /// The status code of the WebSocket close frame (RFC 6455 section 7.4; 4000 to 4999 are ours).
    pub const fn code(self) -> u16 {
        match self {
            Self::ClientClosed => 1000,
            Self::GoingAway => 1001,
            Self::ProtocolError => 1002,
            Self::UnsupportedData => 1003,
            Self::InvalidUtf8 => 1007,
            Self::InvalidToken | Self::SessionMismatch | Self::NotAllowed => 1008,
            Self::MessageTooBig => 1009,
            Self::InternalError => 1011,
            Self::Drain => 1012,
            Self::OverCapacity | Self::SlowConsumer => 1013,
            Self::TokenExpired => 4001,
            Self::Disconnected => 4002,
            Self::LoggedOut => 4003,
            Self::NoPong | Self::Inactive => 4004,
        }
    }

    /// The reason phrase of the close frame; at most 123 bytes.
    pub const fn text(self) -> &'static str {
        match self {
            Self::ClientClosed => "closed",
            Self::GoingAway => "going away",
            Self::ProtocolError => "protocol error",
            Self::UnsupportedData => "unsupported data",
            Self::InvalidUtf8 => "invalid UTF-8",
            Self::InvalidToken => "Invalid token",
            Self::SessionMismatch => "Session mismatch",
            Self::NotAllowed => "not allowed",
            Self::MessageTooBig => "message too big",
            Self::InternalError => "internal error",
            Self::Drain => "draining, reconnect",
            Self::OverCapacity => "over capacity",
            Self::SlowConsumer => "slow consumer",
            Self::TokenExpired => "token expired",
            Self::Disconnected => "disconnected",
            Self::LoggedOut => "logged out",
            Self::NoPong => "no pong",
            Self::Inactive => "inactive",
        }
    }

    /// What the client should do next.
    pub const fn reconnect(self) -> Reconnect {
        match self {
            Self::GoingAway | Self::Drain | Self::NoPong | Self::Inactive => Reconnect::Yes,
            Self::InternalError | Self::OverCapacity | Self::SlowConsumer => Reconnect::BackingOff,
            Self::TokenExpired => Reconnect::WithNewToken,
            _ => Reconnect::No,
        }
    }

    /// The value of the `reason` label in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::ClientClosed => "client_closed",
            Self::GoingAway => "going_away",
            Self::ProtocolError => "protocol_error",
            Self::UnsupportedData => "unsupported_data",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::InvalidToken => "invalid_token",
            Self::SessionMismatch => "session_mismatch",
            Self::NotAllowed => "not_allowed",
            Self::MessageTooBig => "message_too_big",
            Self::InternalError => "internal_error",
            Self::Drain => "drain",
            Self::OverCapacity => "over_capacity",
            Self::SlowConsumer => "slow_consumer",
            Self::TokenExpired => "token_expired",
            Self::Disconnected => "disconnected",
            Self::LoggedOut => "logged_out",
            Self::NoPong => "no_pong",
            Self::Inactive => "inactive",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reason_texts_fit_a_close_frame() {
        for reason in CloseReason::ALL {
            assert!(reason.text().len() <= 123, "{reason:?}");
        }
    }
}
