//! MessagePack itself: heads, scalars, and skipping what nobody wants. What it means is said elsewhere.

mod reader;
mod writer;

pub(super) use reader::{Cursor, Head};
pub(super) use writer::{array_head, float, map_head, signed, text, unsigned};

/// What MessagePack cannot become JSON for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MessagePackFault {
    /// The bytes end inside a value.
    #[error("MessagePack is cut off")]
    Truncated,
    /// Bytes follow the value.
    #[error("bytes follow the MessagePack value")]
    Trailing,
    /// The marker 0xc1, which is never used.
    #[error("a MessagePack marker that is never used")]
    Reserved,
    /// A string that is not UTF-8.
    #[error("a string that is not UTF-8")]
    NotUtf8,
    /// Binary data: JSON has none, and a guess at base64 would be one.
    #[error("binary data has no JSON form")]
    Binary,
    /// An extension type, timestamps among them.
    #[error("an extension type has no JSON form")]
    Extension,
    /// NaN or an infinity.
    #[error("a number that is not finite has no JSON form")]
    NotFinite,
    /// A map key that is no string.
    #[error("a map key that is not a string")]
    KeyNotString,
}
