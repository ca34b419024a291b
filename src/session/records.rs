//! What a store keeps: users, sessions and connections.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::model::{ClientId, NodeId, SessionId, UserId};

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
