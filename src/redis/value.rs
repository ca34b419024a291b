//! What a server answers.

use std::borrow::Cow;

use bytes::Bytes;

/// An answer, or a part of one. Of RESP's kinds those are one that mean the same to whoever asks: texts of every form and
/// numbers that are no integers are bytes, sets are arrays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// There is none.
    Null,
    /// A number, or a truth: 1 or 0.
    Integer(i64),
    /// A text.
    Bytes(Bytes),
    /// Values in their order.
    Array(Vec<Self>),
    /// Values by keys, in the order of the server.
    Map(Vec<(Self, Self)>),
    /// What the server refused, within a larger answer.
    Error(Bytes),
}

impl Value {
    /// A text, where it is one and UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Bytes(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// The bytes of a text.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// A text, or a number as a text.
    pub fn as_string(&self) -> Option<String> {
        let text = match self {
            Self::Integer(number) => Cow::Owned(number.to_string()),
            _ => Cow::Borrowed(self.as_str()?),
        };
        Some(text.into_owned())
    }

    /// A number that is not negative, or a text that is one.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Integer(number) => u64::try_from(*number).ok(),
            _ => self.as_str()?.parse().ok(),
        }
    }

    /// The values of an array; of anything else none.
    pub fn into_array(self) -> Vec<Self> {
        match self {
            Self::Array(values) => values,
            _ => Vec::new(),
        }
    }

    /// Whether there is none.
    pub const fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Bytes(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Bytes(Bytes::from(text))
    }
}
