//! The id of a login session.

use std::fmt;
use std::str::FromStr;

use super::ClientId;

/// A session: a version 4 UUID, which nobody can guess.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(u128);

impl SessionId {
    /// A fresh random id.
    pub fn random() -> Self {
        Self(ClientId::random().bits())
    }

    /// The id of these bits.
    pub const fn from_bits(bits: u128) -> Self {
        Self(bits)
    }

    /// The bits.
    pub const fn bits(self) -> u128 {
        self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        ClientId::from_bits(self.0).fmt(f)
    }
}

/// Who knows a session's id may not use it without a token, but it is nobody's business: logs show its beginning.
impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({:08x}…)", self.0 >> 96)
    }
}

/// The text is no UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a UUID")]
pub struct SessionIdError;

impl FromStr for SessionId {
    type Err = SessionIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // One spelling, the usual one: braces, `urn:` and missing hyphens would be other keys in a store.
        if text.len() != 36 {
            return Err(SessionIdError);
        }
        let id = text.parse::<ClientId>().map_err(|_| SessionIdError)?;
        Ok(Self(id.bits()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_id_has_one_spelling() {
        let id = SessionId::random();
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.to_string().to_uppercase().parse(), Ok(id));
        for text in [
            "",
            "x",
            "00000000000000000000000000000000",
            "{00000000-0000-4000-8000-000000000000}",
            "00000000-0000-4000-8000-00000000000g",
        ] {
            assert_eq!(text.parse::<SessionId>(), Err(SessionIdError), "{text}");
        }
        assert!(!format!("{id:?}").contains(&id.to_string()[9..]));
    }
}
