//! Where a reader stands in a channel's stream.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One incarnation of a channel's data: 128 random bits, 22 URL-safe characters on the wire. Offsets of different
/// epochs cannot be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(u128);

/// How many characters an epoch has on the wire: 21 of six bits, and one of two.
const EPOCH_CHARS: usize = 22;

/// The characters of base64 that are safe in URLs (RFC 4648 section 5).
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// What no character stands for: more than six bits.
const NO_VALUE: u8 = 0xff;

/// What each byte stands for as a character.
const VALUES: [u8; 256] = {
    let mut values = [NO_VALUE; 256];
    let mut value = 0;
    while value < ALPHABET.len() {
        values[ALPHABET[value] as usize] = value as u8;
        value += 1;
    }
    values
};

impl Epoch {
    /// The epoch of these 128 bits. The caller draws them at random.
    pub const fn from_bits(bits: u128) -> Self {
        Self(bits)
    }

    /// Reads the wire form. `None` for any string that no epoch has: it is then simply an unknown epoch.
    pub fn parse(text: &str) -> Option<Self> {
        // By hand: each publication's epoch is read and written several times, and a library for base64 of any length takes
        // three times as long for it.
        let [sixes @ .., last]: &[u8; EPOCH_CHARS] = text.as_bytes().try_into().ok()?;
        let last = VALUES[usize::from(*last)];
        let (mut bits, mut seen) = (0, last);
        for character in sixes {
            let value = VALUES[usize::from(*character)];
            seen |= value;
            bits = bits << 6 | u128::from(value);
        }
        // Behind its two bits the last has four that are not used, and one way to write an epoch is enough.
        let is_epoch = seen < 64 && last & 0b1111 == 0;
        is_epoch.then(|| Self(bits << 2 | u128::from(last >> 4)))
    }

    /// Hands the wire form to `with` without allocating.
    pub fn with_str<T>(self, with: impl FnOnce(&str) -> T) -> T {
        with(std::str::from_utf8(&self.characters()).unwrap_or_default())
    }

    /// The wire form, for whoever writes bytes.
    pub fn characters(self) -> [u8; EPOCH_CHARS] {
        let character = |bits: u128| ALPHABET[(bits & 63) as usize];
        let mut text = [0; EPOCH_CHARS];
        let [sixes @ .., last] = &mut text;
        let mut bits = self.0;
        for six in sixes {
            bits = bits.rotate_left(6);
            *six = character(bits);
        }
        *last = character(self.0 << 4);
        text
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
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_epoch_is_base64_of_its_bits(bits in any::<u128>()) {
            let text = URL_SAFE_NO_PAD.encode(bits.to_be_bytes());
            prop_assert_eq!(Epoch::from_bits(bits).to_string(), text);
        }

        #[test]
        fn what_is_no_base64_of_sixteen_bytes_is_no_epoch(text in "[A-Za-z0-9_-]{21}[A-Za-z0-9_-]|[-_a-fAQgw]{22}|.{0,23}") {
            let bytes = URL_SAFE_NO_PAD.decode(&text).ok();
            let bits = bytes.and_then(|bytes| Some(u128::from_be_bytes(bytes.try_into().ok()?)));
            prop_assert_eq!(Epoch::parse(&text), bits.map(Epoch::from_bits));
        }
    }

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
