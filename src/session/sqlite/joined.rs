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

/// Does what is asked, in its order. An error is the batch's.
pub(super) async fn perform(
    connection: &mut SqliteConnection,
    asked: Vec<OnSession>,
    finishes: &mut Vec<Finish>,
) -> Result<(), sqlx::Error> {
    let ids: HashSet<SessionId> = asked.iter().map(OnSession::id).collect();
    let mut found = sessions::all(connection, &ids).await?;
    let mut changed = HashSet::new();
    for one in asked {
        let session = found.get_mut(&one.id());
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

#[cfg(test)]
mod tests {
    use sqlx::ConnectOptions as _;
    use sqlx::sqlite::SqliteConnectOptions;

    use super::super::MIGRATIONS;
    use super::super::writer::Writer;
    use super::*;

    const TABLES: &str = MIGRATIONS[0].2;
    const ROWS: &str = r#"
        INSERT INTO sessions VALUES
            (x'00000000000000000000000000000001', 'ann', 'default', '{}', 1, 1000, 'node'),
            (x'00000000000000000000000000000002', 'ann', CAST(x'ff' AS TEXT), '{}', 1, 1000, 'node'),
            (x'00000000000000000000000000000003', 'ann', 'default', '[]', 1, 1000, 'node')"#;

    async fn writer() -> Writer {
        let options = SqliteConnectOptions::new().in_memory(true);
        let mut connection = options.connect().await.expect("it opens");
        for text in [TABLES, ROWS] {
            let done = sqlx::raw_sql(text).execute(&mut connection).await;
            done.expect("tables with rows");
        }
        Writer::start(connection)
    }

    /// All of it is asked before the task runs, so it is one batch.
    #[tokio::test]
    async fn a_row_that_cannot_be_read_counts_as_gone_and_fails_nobody_else() {
        let writer = writer().await;
        let time = UnixTime::from_millis(1000);
        let read = |id| {
            writer.on_session(|tell| OnSession::Read {
                id: SessionId::from_bits(id),
                alive_since: time,
                tell,
            })
        };
        let update = |id| {
            let update = Update {
                id: SessionId::from_bits(id),
                user: "ann".into(),
                chat_id: None,
                fields: r#"{"a":"\u0000 \"b\""}"#.into(),
                now: time,
                node: crate::model::NodeId::new("other"),
            };
            let limits = SessionLimits {
                timeout: std::time::Duration::from_secs(1),
                per_user_max: 1,
                data_bytes_max: 100,
            };
            writer.on_session(|tell| OnSession::Update {
                update,
                limits,
                tell,
            })
        };
        let good = update(1);
        let unreadable = (update(2), read(2));
        let (no_object, missing) = (update(3), update(4));
        let after = read(1);
        assert_eq!(good.await, Ok(Updated::Done));
        assert_eq!(unreadable.0.await, Ok(Updated::Missing));
        assert_eq!(unreadable.1.await, Ok(None));
        assert_eq!(no_object.await, Ok(Updated::Unreadable));
        assert_eq!(missing.await, Ok(Updated::Missing));
        let expected = r#"{"a":"\u0000 \"b\""}"#;
        let after = after.await.expect("it answers").expect("alive");
        assert_eq!(&*after.data, expected);
        // Not only in the batch that changed it.
        let kept = read(1).await.expect("it answers").expect("alive");
        assert_eq!((&*kept.data, kept.head.node.as_str()), (expected, "other"));
    }
}
