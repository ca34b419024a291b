//! The server's side of the WebSocket framing layer (RFC 6455), sans-IO: bytes in, events out, and the other way round.
//!
//! Not the handshake, and no extensions. [`decode`] needs no memory for a connection that is between two messages:
//! messages that lie whole in the read buffer are unmasked there and handed on as slices. Only what the end of the
//! buffer cut off is kept, in a boxed [`Partial`] that is dropped at the next message boundary.

mod decoder;
#[cfg(test)]
mod differential;
mod frame;
mod header;
mod mask;

pub use decoder::{Partial, decode};
pub use frame::{close_frame, close_frame_echo, frame, frame_header, ping, pong};

use crate::model::CloseReason;

/// What a frame carries (RFC 6455 section 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// A further fragment of the message that is open.
    Continuation = 0x0,
    /// UTF-8 text.
    Text = 0x1,
    /// Bytes.
    Binary = 0x2,
    /// The end of the conversation.
    Close = 0x8,
    /// To be answered with a pong.
    Ping = 0x9,
    /// The answer to a ping, or a sign of life.
    Pong = 0xA,
}

impl Opcode {
    /// The opcode of these four bits; `None` for the reserved ones.
    const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0x0 => Some(Self::Continuation),
            0x1 => Some(Self::Text),
            0x2 => Some(Self::Binary),
            0x8 => Some(Self::Close),
            0x9 => Some(Self::Ping),
            0xA => Some(Self::Pong),
            _ => None,
        }
    }

    /// Whether frames of this kind may stand between the fragments of a message (section 5.5).
    const fn is_control(self) -> bool {
        self as u8 & 0x8 != 0
    }
}

/// What a client's frames say, one whole message or control frame each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// A text message.
    Text(&'a str),
    /// A binary message.
    Binary(&'a [u8]),
    /// To be answered with [`pong`] and the same bytes.
    Ping(&'a [u8]),
    /// The answer to our ping, or an unasked sign of life.
    Pong(&'a [u8]),
    /// The client closes, with its status code and reason if it gave one. The last event of a connection.
    Close(Option<(u16, &'a str)>),
}

/// What a client may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most payload bytes of a message, all fragments together. A message over it is refused as soon as a frame's
    /// header declares it.
    pub message_bytes_max: usize,
}

/// How a client broke the protocol. The connection cannot go on: send [`close_frame`] with
/// [`WebSocketError::close_reason`], then close the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WebSocketError {
    /// A client must mask (section 5.1).
    #[error("a frame without mask")]
    Unmasked,
    /// No extension was negotiated (section 5.2).
    #[error("a reserved bit is set")]
    ReservedBits,
    /// An opcode that has no meaning (section 5.2).
    #[error("reserved opcode {0:#x}")]
    ReservedOpcode(u8),
    /// Control frames cannot be fragmented (section 5.5).
    #[error("a fragmented control frame")]
    FragmentedControl,
    /// Control frames have at most 125 bytes (section 5.5).
    #[error("a control frame of more than 125 bytes")]
    ControlTooLong,
    /// The shortest encoding of a length must be used (section 5.2).
    #[error("a length that is not encoded in the fewest bytes")]
    LengthNotMinimal,
    /// The top bit of a 64-bit length must be 0 (section 5.2).
    #[error("a length of 2^63 or more")]
    LengthOutOfRange,
    /// A continuation without a message that is open (section 5.4).
    #[error("a continuation without a beginning")]
    UnexpectedContinuation,
    /// A new message before the last fragment of the one that is open (section 5.4).
    #[error("a message inside a fragmented message")]
    ExpectedContinuation,
    /// A close payload of one byte, or a status code that must not be sent (sections 5.5.1 and 7.4).
    #[error("a close frame that is not well-formed")]
    BadClose,
    /// Text or a close reason that is not UTF-8 (section 8.1).
    #[error("text that is not UTF-8")]
    InvalidUtf8,
    /// Over [`Limits::message_bytes_max`].
    #[error("a message over the limit")]
    MessageTooBig,
}

impl WebSocketError {
    /// What the client is told (section 7.4.1).
    pub const fn close_reason(self) -> CloseReason {
        match self {
            Self::InvalidUtf8 => CloseReason::InvalidUtf8,
            Self::MessageTooBig => CloseReason::MessageTooBig,
            _ => CloseReason::ProtocolError,
        }
    }
}
