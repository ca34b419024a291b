//! Reads and updates of sessions that stand together in a batch: two statements for all of them.
//!
//! A statement is a conversation with the thread that SQLite works on, which costs more than what it does. Sessions are what
//! clients ask for most, so they are read together, changed here in the order of the calls, and written together.

use std::collections::HashSet;

use sqlx::SqliteConnection;
use tokio::sync::oneshot;

use super::sessions;
use super::writer::{Finish, finish};
use crate::model::SessionId;
use crate::session::merge::merged;
use crate::session::store::{SessionLimits, Update, Updated};
use crate::session::{Session, StoreError, UnixTime};

/// The most that are joined: with the largest data of each, what is in memory at once.
pub(super) const JOINED_MAX: usize = 64;

/// Who asks.
pub(super) type Tell<T> = oneshot::Sender<Result<T, StoreError>>;

/// Something about one session.
#[derive(Debug)]
pub(super) enum OnSession {
    Read {
        id: SessionId,
        alive_since: UnixTime,
        tell: Tell<Option<Session>>,
    },
    Update {
        update: Update,
        limits: SessionLimits,
        tell: Tell<Updated>,
    },
}

impl OnSession {
    fn id(&self) -> SessionId {
        match self {
            Self::Read { id, .. } => *id,
            Self::Update { update, .. } => update.id,
        }
    }
}

/// Does what is asked, in its order. A row that cannot be read fails those alone who ask for it: they are dropped. Any other
/// error is the batch's.
pub(super) async fn perform(
    connection: &mut SqliteConnection,
    asked: Vec<OnSession>,
    finishes: &mut Vec<Finish>,
) -> Result<(), sqlx::Error> {
    let ids: HashSet<SessionId> = asked.iter().map(OnSession::id).collect();
    let mut found = sessions::all(connection, &ids).await?;
    let mut changed = HashSet::new();
    for one in asked {
        let session = match found.get_mut(&one.id()) {
            Some(Err(error)) => {
                tracing::error!(%error, "a session in the data file cannot be read");
                continue;
            }
            Some(Ok(session)) => Some(session),
            None => None,
        };
        match one {
            OnSession::Read {
                alive_since, tell, ..
            } => {
                let alive = session.filter(|session| session.head.last_access >= alive_since);
                finishes.push(finish(tell, alive.cloned()));
            }
            OnSession::Update {
                update,
                limits,
                tell,
            } => {
                let id = update.id;
                let updated =
                    session.map_or(Updated::Missing, |session| apply(session, update, limits));
                if updated == Updated::Done {
                    changed.insert(id);
                }
                finishes.push(finish(tell, updated));
            }
        }
    }
    let changed = found
        .values()
        .flatten()
        .filter(|session| changed.contains(&session.head.id));
    sessions::write(connection, changed).await
}

/// Changes a session, where that is allowed.
fn apply(session: &mut Session, update: Update, limits: SessionLimits) -> Updated {
    let Session { head, data } = session;
    if head.last_access < update.now.before(limits.timeout) {
        return Updated::Missing;
    }
    if head.user != update.user {
        return Updated::NotOwner;
    }
    let Some(after) = merged(data, &update.fields) else {
        return Updated::Unreadable;
    };
    if after.len() > limits.data_bytes_max {
        return Updated::TooLarge;
    }
    *data = after.into();
    head.last_access = head.last_access.max(update.now);
    head.node = update.node;
    if let Some(chat_id) = update.chat_id {
        head.chat_id = chat_id;
    }
    Updated::Done
}
