//! What a store keeps: users, sessions and connections.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::model::{ClientId, NodeId, UserId};

use super::UserName;

/// Milliseconds since 1970.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixTime(u64);

impl UnixTime {
    /// Now, by the system's clock.
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Self(since.map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        }))
    }

    /// So many milliseconds after the beginning of 1970.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the beginning of 1970.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Whole seconds since then.
    pub const fn as_secs(self) -> u64 {
        self.0 / 1000
    }

    /// Seconds with a fraction, as session records show them.
    #[expect(clippy::cast_precision_loss, reason = "exact until the year 287396")]
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1000.0
    }

    /// Later by so much.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }

    /// Earlier by so much.
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(millis(duration)))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

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

/// A user who registered here.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: UserName,
    /// As given; nothing is sent there.
    pub email: Box<str>,
    /// What the password is checked against: a PHC string, or 64 hexadecimal digits of an imported SHA-256.
    pub password: Box<str>,
    /// `user`, `admin` or one of the operator's own.
    pub role: Arc<str>,
    /// When they registered.
    pub created_at: UnixTime,
    /// When they last logged in; when they registered, before the first time.
    pub last_login: UnixTime,
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User")
            .field("name", self.name.text())
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

/// A session of a user.
#[derive(Clone, PartialEq, Eq)]
pub struct Session {
    /// Its head.
    pub head: SessionHead,
    /// A JSON object, on one line.
    pub data: Box<str>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("head", &self.head)
            .field("data_bytes", &self.data.len())
            .finish()
    }
}

/// A session without its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionHead {
    /// Its id.
    pub id: SessionId,
    /// Whose it is.
    pub user: UserId,
    /// Which of the user's conversations it is for.
    pub chat_id: Box<str>,
    /// When it began.
    pub created_at: UnixTime,
    /// When it was last used.
    pub last_access: UnixTime,
    /// The node that used it last.
    pub node: NodeId,
}

/// What a session begins with.
pub const EMPTY_DATA: &str = r#"{"api_key":null,"conversation":[]}"#;

/// A WebSocket of a user, somewhere in the fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// The connection.
    pub client: ClientId,
    /// Whose it is.
    pub user: UserId,
    /// The session that it was opened with.
    pub session: SessionId,
    /// The node that serves it.
    pub node: NodeId,
    /// When it was opened.
    pub connected_at: UnixTime,
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
