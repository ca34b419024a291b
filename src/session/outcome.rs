//! What comes of asking for accounts and sessions.

use std::sync::Arc;
use std::time::Duration;

use super::{PasswordError, Session, StoreError};
use crate::model::{SessionId, UserId};

/// Why an account could not be made or used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    /// Somebody has the name.
    #[error("the name is taken")]
    Taken,
    /// No such user, or another password. Which of the two is nobody's business.
    #[error("the user name or the password is wrong")]
    Refused,
    /// Too many attempts; the next one after this time.
    #[error("too many attempts")]
    TooMany(Duration),
    /// The password was neither hashed nor checked.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A login.
#[derive(Debug, Clone)]
pub struct LoggedIn {
    /// Who.
    pub user: UserId,
    /// With which role.
    pub role: Arc<str>,
    /// The session that it began.
    pub session: SessionId,
}

/// Whether a socket may open with the session that it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It may; with the session that it has then.
    Admitted(Option<SessionId>),
    /// The session of its token has ended.
    Ended,
    /// The session that it names is not there, or not that user's.
    Mismatch,
}

/// What came of asking for a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// Here it is, new or as it was.
    Session(Session),
    /// It is somebody else's.
    NotOwner,
}
