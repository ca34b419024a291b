//! The table of sessions. A session is alive when it was used at or after a time that the caller gives. One whose row nobody
//! can read, as an operator may have left it, is told to the log and counts as gone: asking again would not help, and with a
//! new login there is another session.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};

use super::{column, time};
use crate::model::{NodeId, SessionId, UserId};
use crate::session::store::{Chosen, Used};
use crate::session::{Session, SessionHead, UnixTime};

/// Adds a session; of the user's sessions the `most` that were used last stay. Answers those that went.
pub(super) async fn add(
    connection: &mut SqliteConnection,
    session: Session,
    most: usize,
) -> Result<Vec<SessionId>, sqlx::Error> {
    let Session { head, data } = session;
    let others = i64::try_from(most.saturating_sub(1)).unwrap_or(i64::MAX);
    let ended = sqlx::query(
        "DELETE FROM sessions WHERE id IN (
             SELECT id FROM sessions WHERE user = ? ORDER BY last_access DESC LIMIT -1 OFFSET ?)
         RETURNING id",
    )
    .bind(&*head.user)
    .bind(others)
    .fetch_all(&mut *connection)
    .await?;
    sqlx::query(
        "INSERT INTO sessions (id, user, chat_id, data, created_at, last_access, node)
         VALUES (?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(key(head.id))
    .bind(&*head.user)
    .bind(&*head.chat_id)
    .bind(&*data)
    .bind(column(head.created_at))
    .bind(column(head.last_access))
    .bind(head.node.as_str())
    .execute(connection)
    .await?;
    Ok(ids(&ended))
}

/// Those of these that there are.
pub(super) async fn all(
    connection: &mut SqliteConnection,
    ids: &HashSet<SessionId>,
) -> Result<HashMap<SessionId, Session>, sqlx::Error> {
    let ids: Vec<String> = ids.iter().copied().map(hex).collect();
    let rows = sqlx::query(
        "SELECT sessions.* FROM json_each(?) AS wanted CROSS JOIN sessions ON sessions.id = unhex(wanted.value)",
    )
    .bind(json(&ids)?)
    .fetch_all(connection)
    .await?;
    let sessions = rows.iter().filter_map(|row| readable(row, session));
    Ok(sessions.map(|session| (session.head.id, session)).collect())
}

/// Writes what may have changed of these.
pub(super) async fn write<'a>(
    connection: &mut SqliteConnection,
    sessions: impl Iterator<Item = &'a Session>,
) -> Result<(), sqlx::Error> {
    let rows = sessions.map(|Session { head, data }| {
        let last = column(head.last_access);
        (hex(head.id), data, &head.chat_id, last, head.node.as_str())
    });
    let rows: Vec<_> = rows.collect();
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "UPDATE sessions
         SET data = new.value ->> 1, chat_id = new.value ->> 2, last_access = new.value ->> 3, node = new.value ->> 4
         FROM json_each(?) AS new WHERE sessions.id = unhex(new.value ->> 0)",
    )
    .bind(json(&rows)?)
    .execute(connection)
    .await
    .map(drop)
}

fn json(rows: &impl Serialize) -> Result<String, sqlx::Error> {
    serde_json::to_string(rows).map_err(|error| sqlx::Error::Encode(error.into()))
}

fn hex(id: SessionId) -> String {
    format!("{:032X}", id.bits())
}

pub(super) async fn owner(
    connection: &mut SqliteConnection,
    id: SessionId,
    alive_since: UnixTime,
) -> Result<Option<UserId>, sqlx::Error> {
    let row = sqlx::query(
        "SELECT id, user, chat_id, created_at, last_access, node FROM sessions WHERE id = ? AND last_access >= ?",
    )
    .bind(key(id))
    .bind(column(alive_since))
    .fetch_optional(connection)
    .await?;
    let head = row.and_then(|row| readable(&row, head));
    Ok(head.map(|head| head.user))
}

/// The session of the user for the conversation, or else `new`, in one change.
pub(super) async fn choose(
    connection: &mut SqliteConnection,
    new: Session,
    login: Option<SessionId>,
    timeout: Duration,
    most: usize,
) -> Result<Chosen, sqlx::Error> {
    let SessionHead {
        user,
        chat_id,
        last_access: now,
        ..
    } = &new.head;
    let found = get_for(connection, user, chat_id, now.before(timeout)).await?;
    if let Some(session) = found {
        return Ok(Chosen {
            session,
            is_new: false,
            ended: Vec::new(),
        });
    }
    if let Some(session) = login {
        let (user, at) = (user.clone(), *now);
        touch(connection, vec![Used { session, user, at }]).await?;
    }
    let ended = add(connection, new.clone(), most).await?;
    Ok(Chosen {
        session: new,
        is_new: true,
        ended,
    })
}

/// The session that the user has for the conversation. One that nobody can read makes room.
async fn get_for(
    connection: &mut SqliteConnection,
    user: &str,
    chat_id: &str,
    alive_since: UnixTime,
) -> Result<Option<Session>, sqlx::Error> {
    loop {
        let row = sqlx::query(
            "SELECT * FROM sessions WHERE user = ? AND chat_id = ? AND last_access >= ?
             ORDER BY last_access DESC, id LIMIT 1",
        )
        .bind(user)
        .bind(chat_id)
        .bind(column(alive_since))
        .fetch_optional(&mut *connection)
        .await?;
        let Some(row) = row else { return Ok(None) };
        if let Some(session) = readable(&row, session) {
            return Ok(Some(session));
        }
        sqlx::query("DELETE FROM sessions WHERE id = ?")
            .bind(row.try_get::<&[u8], _>("id")?)
            .execute(&mut *connection)
            .await?;
    }
}

pub(super) async fn of_user(
    connection: &mut SqliteConnection,
    user: String,
    alive_since: UnixTime,
) -> Result<Vec<SessionHead>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT id, user, chat_id, created_at, last_access, node FROM sessions
         WHERE user = ? AND last_access >= ? ORDER BY created_at DESC, id",
    )
    .bind(user)
    .bind(column(alive_since))
    .fetch_all(connection)
    .await?;
    Ok(rows.iter().filter_map(|row| readable(row, head)).collect())
}

pub(super) async fn end(
    connection: &mut SqliteConnection,
    id: SessionId,
) -> Result<bool, sqlx::Error> {
    let ended = sqlx::query("DELETE FROM sessions WHERE id = ?")
        .bind(key(id))
        .execute(connection)
        .await?;
    Ok(ended.rows_affected() == 1)
}

pub(super) async fn end_all(
    connection: &mut SqliteConnection,
    user: String,
) -> Result<Vec<SessionId>, sqlx::Error> {
    let ended = sqlx::query("DELETE FROM sessions WHERE user = ? RETURNING id")
        .bind(user)
        .fetch_all(connection)
        .await?;
    Ok(ids(&ended))
}

pub(super) async fn touch(
    connection: &mut SqliteConnection,
    used: Vec<Used>,
) -> Result<Vec<SessionId>, sqlx::Error> {
    let rows = used.iter().map(|used| (hex(used.session), column(used.at)));
    let rows: Vec<_> = rows.collect();
    let touched = sqlx::query(
        "UPDATE sessions SET last_access = max(last_access, used.value ->> 1)
         FROM json_each(?) AS used WHERE sessions.id = unhex(used.value ->> 0) RETURNING id",
    )
    .bind(json(&rows)?)
    .fetch_all(connection)
    .await?;
    let touched: HashSet<SessionId> = ids(&touched).into_iter().collect();
    let gone = used.iter().map(|used| used.session);
    Ok(gone.filter(|session| !touched.contains(session)).collect())
}

pub(super) async fn count(
    connection: &mut SqliteConnection,
    alive_since: UnixTime,
) -> Result<u64, sqlx::Error> {
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM sessions WHERE last_access >= ?")
        .bind(column(alive_since))
        .fetch_one(connection)
        .await?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// Throws away what is no longer alive. Answers how many.
pub(super) async fn sweep(
    connection: &mut SqliteConnection,
    alive_since: UnixTime,
) -> Result<u64, sqlx::Error> {
    let swept = sqlx::query("DELETE FROM sessions WHERE last_access < ?")
        .bind(column(alive_since))
        .execute(connection)
        .await?;
    Ok(swept.rows_affected())
}

fn key(id: SessionId) -> Vec<u8> {
    id.bits().to_be_bytes().to_vec()
}

fn id(row: &SqliteRow) -> Result<SessionId, sqlx::Error> {
    let bytes: &[u8] = row.try_get("id")?;
    let bytes = <[u8; 16]>::try_from(bytes).map_err(|error| sqlx::Error::Decode(error.into()))?;
    Ok(SessionId::from_bits(u128::from_be_bytes(bytes)))
}

fn ids(rows: &[SqliteRow]) -> Vec<SessionId> {
    rows.iter().filter_map(|row| readable(row, id)).collect()
}

/// What a row says, unless nobody can read it.
fn readable<T>(row: &SqliteRow, read: fn(&SqliteRow) -> Result<T, sqlx::Error>) -> Option<T> {
    let read = read(row);
    if let Err(error) = &read {
        let id = row.try_get::<&[u8], _>("id").unwrap_or_default();
        tracing::error!(?id, %error, "a session in the data file cannot be read: it counts as gone");
    }
    read.ok()
}

fn head(row: &SqliteRow) -> Result<SessionHead, sqlx::Error> {
    Ok(SessionHead {
        id: id(row)?,
        user: row.try_get::<String, _>("user")?.into(),
        chat_id: row.try_get::<String, _>("chat_id")?.into(),
        created_at: time(row.try_get("created_at")?),
        last_access: time(row.try_get("last_access")?),
        node: NodeId::new(row.try_get("node")?),
    })
}

fn session(row: &SqliteRow) -> Result<Session, sqlx::Error> {
    let data: String = row.try_get("data")?;
    let json: Result<&RawValue, _> = serde_json::from_str(&data);
    json.map_err(|error| sqlx::Error::Decode(error.into()))?;
    Ok(Session {
        head: head(row)?,
        data: data.into(),
    })
}
