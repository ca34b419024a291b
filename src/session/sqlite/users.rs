//! The table of users.

use std::sync::Arc;

use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};

use super::{column, sessions, time};
use crate::model::SessionId;
use crate::session::{UnixTime, User, UserName};

/// How many users one sweep removes: the others are not kept waiting for long.
const SWEPT_MAX: i64 = 1000;

pub(super) async fn add(
    connection: &mut SqliteConnection,
    user: User,
) -> Result<bool, sqlx::Error> {
    let added = sqlx::query(
        "INSERT INTO users (key, name, email, password, role, created_at, last_login)
         VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
    )
    .bind(user.name.key())
    .bind(&**user.name.text())
    .bind(&*user.email)
    .bind(&*user.password)
    .bind(&*user.role)
    .bind(column(user.created_at))
    .bind(column(user.last_login))
    .execute(connection)
    .await?;
    Ok(added.rows_affected() == 1)
}

pub(super) async fn get(
    connection: &mut SqliteConnection,
    key: String,
) -> Result<Option<User>, sqlx::Error> {
    let row = sqlx::query("SELECT * FROM users WHERE key = ?")
        .bind(key)
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(user).transpose()
}

pub(super) async fn list(
    connection: &mut SqliteConnection,
    cursor: String,
    limit: usize,
) -> Result<Vec<User>, sqlx::Error> {
    let rows = sqlx::query("SELECT * FROM users WHERE key > ? ORDER BY key LIMIT ?")
        .bind(cursor)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(connection)
        .await?;
    rows.iter().map(user).collect()
}

pub(super) async fn replace_password(
    connection: &mut SqliteConnection,
    key: String,
    from: String,
    to: String,
) -> Result<bool, sqlx::Error> {
    let replaced = sqlx::query("UPDATE users SET password = ? WHERE key = ? AND password = ?")
        .bind(to)
        .bind(key)
        .bind(from)
        .execute(connection)
        .await?;
    Ok(replaced.rows_affected() == 1)
}

pub(super) async fn set_role(
    connection: &mut SqliteConnection,
    key: String,
    role: String,
) -> Result<bool, sqlx::Error> {
    let set = sqlx::query("UPDATE users SET role = ? WHERE key = ?")
        .bind(role)
        .bind(key)
        .execute(connection)
        .await?;
    Ok(set.rows_affected() == 1)
}

/// Notes the login. Answers the role, when there is a user with this hash of a password.
pub(super) async fn log_in(
    connection: &mut SqliteConnection,
    name: &UserName,
    password: &str,
    now: UnixTime,
) -> Result<Option<Arc<str>>, sqlx::Error> {
    let sql = "UPDATE users SET last_login = max(last_login, ?) WHERE key = ? AND password = ?
               RETURNING role";
    let role: Option<String> = sqlx::query_scalar(sql)
        .bind(column(now))
        .bind(name.key())
        .bind(password)
        .fetch_optional(connection)
        .await?;
    Ok(role.map(Arc::from))
}

pub(super) async fn remove(
    connection: &mut SqliteConnection,
    key: String,
) -> Result<Option<Vec<SessionId>>, sqlx::Error> {
    let row = sqlx::query("DELETE FROM users WHERE key = ? RETURNING name")
        .bind(key)
        .fetch_optional(&mut *connection)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let ended = sessions::end_all(connection, row.try_get("name")?).await?;
    Ok(Some(ended))
}

pub(super) async fn count(connection: &mut SqliteConnection) -> Result<u64, sqlx::Error> {
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM users")
        .fetch_one(connection)
        .await?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// Removes users who have not logged in since then and have no session. Answers their names.
pub(super) async fn sweep(
    connection: &mut SqliteConnection,
    inactive_since: UnixTime,
) -> Result<Vec<Arc<str>>, sqlx::Error> {
    let names: Vec<String> = sqlx::query_scalar(
        "DELETE FROM users WHERE key IN (
             SELECT key FROM users
             WHERE last_login < ? AND NOT EXISTS (SELECT 1 FROM sessions WHERE user = users.name)
             LIMIT ?)
         RETURNING name",
    )
    .bind(column(inactive_since))
    .bind(SWEPT_MAX)
    .fetch_all(connection)
    .await?;
    Ok(names.into_iter().map(Arc::from).collect())
}

fn user(row: &SqliteRow) -> Result<User, sqlx::Error> {
    let name: &str = row.try_get("name")?;
    Ok(User {
        // It was one when it was written; an operator may have written it.
        name: UserName::new(name).map_err(|error| sqlx::Error::Decode(Box::new(error)))?,
        email: row.try_get::<String, _>("email")?.into(),
        password: row.try_get::<String, _>("password")?.into(),
        role: row.try_get::<String, _>("role")?.into(),
        created_at: time(row.try_get("created_at")?),
        last_login: time(row.try_get("last_login")?),
    })
}
