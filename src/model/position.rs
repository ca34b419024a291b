//! Where a reader stands in a channel's stream.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One incarnation of a channel's data: 128 random bits, 22 URL-safe characters on the wire. Offsets of different
/// epochs cannot be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(u128);

/// How many characters an epoch has on the wire.
const EPOCH_CHARS: usize = 22;

impl Epoch {
    /// The epoch of these 128 bits. The caller draws them at random.
    pub const fn from_bits(bits: u128) -> Self {
        Self(bits)
    }

    /// Reads the wire form. `None` for any string that no epoch has: it is then simply an unknown epoch.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0u8; 16];
        if text.len() != EPOCH_CHARS {
            return None;
        }
        match URL_SAFE_NO_PAD.decode_slice(text, &mut bytes) {
            Ok(16) => Some(Self(u128::from_be_bytes(bytes))),
            _ => None,
        }
    }

    /// Hands the wire form to `with` without allocating.
    pub fn with_str<T>(self, with: impl FnOnce(&str) -> T) -> T {
        let mut text = [0u8; EPOCH_CHARS];
        let length = URL_SAFE_NO_PAD
            .encode_slice(self.0.to_be_bytes(), &mut text)
            .unwrap_or_default();
        with(std::str::from_utf8(&text[..length]).unwrap_or_default())
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with_str(|text| f.write_str(text))
    }
}

impl Serialize for Epoch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.with_str(|text| serializer.serialize_str(text))
    }
}

impl<'de> Deserialize<'de> for Epoch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not an epoch"))
    }
}

/// A place in one epoch of a channel's stream: everything up to and including `offset`. The first publication of a
/// stream has offset 1; 0 is before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Position {
    /// The incarnation of the data that `offset` counts in.
    pub epoch: Epoch,
    /// The offset of the last publication that was seen.
    pub offset: u64,
}

impl Position {
    /// The position after `offset` publications of `epoch`.
    pub const fn new(epoch: Epoch, offset: u64) -> Self {
        Self { epoch, offset }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch, self.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_survives_the_wire() {
        for bits in [0, 1, u128::MAX, 0x0123_4567_89ab_cdef_0011_2233_4455_6677] {
            let epoch = Epoch::from_bits(bits);
            let text = epoch.to_string();
            assert_eq!(text.len(), EPOCH_CHARS);
            assert_eq!(Epoch::parse(&text), Some(epoch));
        }
    }

    #[test]
    fn strings_that_are_no_epoch_are_unknown_not_fatal() {
        for text in [
            "",
            "AAAA",
            "not!base64!not!base64!",
            &"A".repeat(23),
            &"ä".repeat(11),
        ] {
            assert_eq!(Epoch::parse(text), None, "{text}");
        }
    }
}
