//! Where users, sessions and connections are kept: one narrow trait.
//!
//! Every store passes the same conformance suite (`tests/store_conformance`). Times are arguments, which tests choose;
//! nodes take them from the [clock](Store::now) that all on one store share, so that they agree on what has expired.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::{Connection, Session, SessionHead, UnixTime, User, UserName};
use crate::model::{ClientId, NodeId, SessionId, UserId};

/// Between two times that a process says that it lives.
pub(super) const BEAT_INTERVAL: Duration = Duration::from_secs(5);
/// After how long without a word a process is taken for dead, and its sockets with it. Two words may be lost.
pub const LIFE_MAX: Duration = Duration::from_secs(15);

/// A future that a store answers with.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Why a store could not do what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached, or failed: nothing was done.
    #[error("the store cannot be reached")]
    Unavailable,
    /// It has more to do than it takes in: nothing was done.
    #[error("the store has too much to do")]
    Busy,
    /// It was asked and no answer came: it may or may not have been done.
    #[error("the store did not answer in time; the outcome is unknown")]
    OutcomeUnknown,
}

/// The limits of sessions, the same for every store.
#[derive(Debug, Clone, Copy)]
pub struct SessionLimits {
    /// How long a session lasts without use (`SESSION_TIMEOUT_MINUTES`).
    pub timeout: Duration,
    /// The most sessions of one user; a further one ends the one that was used the longest ago.
    pub per_user_max: usize,
    /// The most bytes of a session's data.
    pub data_bytes_max: usize,
}

/// A change of one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// Which.
    pub id: SessionId,
    /// Whose it has to be.
    pub user: Arc<str>,
    /// The conversation that it is for from now on, when that changes.
    pub chat_id: Option<Box<str>>,
    /// A JSON object, on one line: its fields replace those of the same name.
    pub fields: Box<str>,
    /// When.
    pub now: UnixTime,
    /// The node that does it.
    pub node: NodeId,
}

/// What became of an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Updated {
    /// It is done: whoever reads the session sees it.
    Done,
    /// There is no such session, or it has expired.
    Missing,
    /// It is somebody else's.
    NotOwner,
    /// The data would be over its limit; nothing was changed.
    TooLarge,
    /// The fields, or what the session has, are no JSON object whose names can be read; nothing was changed.
    Unreadable,
}

/// A login that began its session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begun {
    /// The user's role at that moment: whoever changes it afterwards finds the session.
    pub role: Arc<str>,
    /// The sessions that it ended.
    pub ended: Vec<SessionId>,
}

/// The session for a conversation, and whether there was one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// The session.
    pub session: Session,
    /// Whether it has begun now.
    pub is_new: bool,
    /// The sessions that had to go because the user has too many.
    pub ended: Vec<SessionId>,
}

/// One use of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Used {
    /// Which.
    pub session: SessionId,
    /// Whose it is.
    pub user: UserId,
    /// When.
    pub at: UnixTime,
}

/// What a sweep threw away.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Swept {
    /// How many sessions had expired.
    pub sessions: u64,
    /// Users who had not logged in for too long, at most a thousand at a time.
    pub users: Vec<Arc<str>>,
}

/// How much is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Users who registered here.
    pub users: u64,
    /// Sessions that have not expired.
    pub sessions: u64,
}

/// What a server that the store stands on says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServerInfo {
    /// How many connections it has, of anybody's.
    pub connected_clients: u64,
    /// Its memory, in words.
    pub used_memory_human: String,
    /// The most that it had.
    pub used_memory_peak_human: String,
    /// Keys that were asked for and there.
    pub keyspace_hits: u64,
    /// And not there.
    pub keyspace_misses: u64,
    /// Commands since its start.
    pub total_commands_processed: u64,
}

/// Users, sessions and connections.
///
/// What was answered is kept: whoever asks afterwards, on whichever node, sees it. Each call is done wholly or not at
/// all.
pub trait Store: Send + Sync {
    /// The time, by the clock that all nodes on this store share.
    fn now(&self) -> UnixTime {
        UnixTime::now()
    }

    /// Looks at that clock, from time to time, where it is not this machine's.
    fn look_at_clock(&self) -> Answer<'_, ()> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Whether users can be found, as far as is known: a database of theirs is looked at with every [beat](Store::beat).
    fn has_users(&self) -> bool {
        true
    }

    /// Adds a user. Answers whether the name was free: of several who ask at once exactly one gets it.
    fn add_user(&self, user: User) -> Answer<'_, bool>;

    /// The user of this name.
    fn user<'a>(&'a self, name: &'a UserName) -> Answer<'a, Option<User>>;

    /// Puts another hash in the place of `from`. Answers false, and changes nothing, when it is no longer `from`.
    fn replace_password<'a>(
        &'a self,
        name: &'a UserName,
        from: &'a str,
        to: &'a str,
    ) -> Answer<'a, bool>;

    /// Takes over users whom another system keeps in the same place, where there may be some: from then on they are found in any
    /// spelling, listed and never end by themselves. Answers how many.
    fn adopt_users(&self) -> Answer<'_, usize> {
        Box::pin(std::future::ready(Ok(0)))
    }

    /// Gives a user another role. Answers whether there is such a user.
    fn set_role<'a>(&'a self, name: &'a UserName, role: &'a str) -> Answer<'a, bool>;

    /// Removes a user with all sessions, whose ids it answers; `None` when there is no such user.
    fn remove_user<'a>(&'a self, name: &'a UserName) -> Answer<'a, Option<Vec<SessionId>>>;

    /// Users in the order of their keys, after `cursor` (a key), at most `limit`.
    fn users<'a>(&'a self, cursor: &'a str, limit: usize) -> Answer<'a, Vec<User>>;

    /// Begins the session of a login whose password was right for the hash `password`, unless the user is gone by now or has
    /// another hash (`None`): checking takes long, and the name may be somebody else's since. With `ends_others` it is the
    /// user's only one.
    fn begin_login(
        &self,
        name: UserName,
        password: Box<str>,
        session: Session,
        ends_others: bool,
    ) -> Answer<'_, Option<Begun>>;

    /// Adds a session. Answers the ids of those that had to go because the user has too many.
    fn add_session(&self, session: Session) -> Answer<'_, Vec<SessionId>>;

    /// Adds a session, the user's only one. Answers the ids of those that it ended.
    fn replace_sessions(&self, session: Session) -> Answer<'_, Vec<SessionId>>;

    /// A session that has not expired at this time.
    fn session(&self, id: SessionId, now: UnixTime) -> Answer<'_, Option<Session>>;

    /// Whose a session is that has not expired at this time.
    fn owner(&self, id: SessionId, now: UnixTime) -> Answer<'_, Option<UserId>>;

    /// The session of `new`'s user for the conversation of `new`: the one that was used last, when there are several, and
    /// `new` when none has been used within the time-out before `new`. Of several who ask at once all get the same. `login` is
    /// used at that moment: where the user has too many sessions, it is not the one that goes.
    fn choose_session(&self, new: Session, login: Option<SessionId>) -> Answer<'_, Chosen>;

    /// The sessions of a user that have not expired, the newest first.
    fn sessions<'a>(&'a self, user: &'a str, now: UnixTime) -> Answer<'a, Vec<SessionHead>>;

    /// Changes a session, atomically: of several who change it at once, nobody's fields are lost.
    fn update_session(&self, update: Update) -> Answer<'_, Updated>;

    /// Ends a session. Answers whether it was there.
    fn end_session(&self, id: SessionId) -> Answer<'_, bool>;

    /// Ends all sessions of a user, whose ids it answers.
    fn end_sessions<'a>(&'a self, user: &'a str) -> Answer<'a, Vec<SessionId>>;

    /// These sessions were used. Answers those that are gone, which stay gone.
    fn touch(&self, used: Vec<Used>) -> Answer<'_, Vec<SessionId>>;

    /// A WebSocket was opened. This and [`disconnect`](Store::disconnect) take effect in the order of the calls,
    /// although nobody waits for the answers.
    fn connect(&self, connection: Connection) -> Answer<'_, ()>;

    /// It was closed. No other is touched.
    fn disconnect<'a>(&'a self, user: &'a str, client: ClientId, now: UnixTime) -> Answer<'a, ()>;

    /// The WebSockets of a user at this time, the newest first; without those of processes that have not
    /// [said](Store::beat) for [`LIFE_MAX`] that they live.
    fn connections<'a>(&'a self, user: &'a str, now: UnixTime) -> Answer<'a, Vec<Connection>>;

    /// This process lives at this time. Nobody needs to hear it where the connections end with the process.
    fn beat(&self, _now: UnixTime) -> Answer<'_, ()> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// How much is kept at this time.
    fn counts(&self, now: UnixTime) -> Answer<'_, Counts>;

    /// Throws away sessions that have expired, and users who have not logged in since `inactive_since` and have no
    /// session.
    fn sweep(&self, now: UnixTime, inactive_since: UnixTime) -> Answer<'_, Swept>;

    /// What the server says of itself; `None` for a store that has none.
    fn server(&self) -> Answer<'_, Option<ServerInfo>>;

    /// The secret that all nodes on this store sign with which were given none: `candidate`, unless one is kept already.
    fn shared_secret<'a>(&'a self, candidate: &'a str) -> Answer<'a, String>;

    /// Tells whoever listens beside the fleet, under a name of the FastAPI gateway's; nobody may.
    fn announce(&self, channel: &str, event: &str);

    /// What it stands on, for logs and statistics.
    fn kind(&self) -> &'static str;
}
