//! The table of users.

use std::sync::Arc;

use sqlx::postgres::{PgPool, PgRow};
use sqlx::{PgConnection, Row as _};

use crate::session::tables::{column, time};
use crate::session::{UnixTime, User, UserName};

/// How many users one sweep looks at.
const SWEPT_MAX: i64 = 1000;

pub(super) async fn add(connection: &mut PgConnection, user: &User) -> Result<bool, sqlx::Error> {
    let added = sqlx::query(
        "INSERT INTO hub_users (key, name, email, password, role, created_at, last_login)
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
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

pub(super) async fn get(pool: &PgPool, key: &str) -> Result<Option<User>, sqlx::Error> {
    let row = sqlx::query("SELECT * FROM hub_users WHERE key = $1")
        .bind(key)
        .fetch_optional(pool)
        .await?;
    row.as_ref().map(user).transpose()
}

pub(super) async fn list(
    pool: &PgPool,
    cursor: &str,
    limit: usize,
) -> Result<Vec<User>, sqlx::Error> {
    let rows = sqlx::query("SELECT * FROM hub_users WHERE key > $1 ORDER BY key LIMIT $2")
        .bind(cursor)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(pool)
        .await?;
    rows.iter().map(user).collect()
}

pub(super) async fn replace_password(
    connection: &mut PgConnection,
    key: &str,
    from: &str,
    to: &str,
) -> Result<bool, sqlx::Error> {
    let sql = "UPDATE hub_users SET password = $1 WHERE key = $2 AND password = $3";
    let replaced = sqlx::query(sql)
        .bind(to)
        .bind(key)
        .bind(from)
        .execute(connection)
        .await?;
    Ok(replaced.rows_affected() == 1)
}

pub(super) async fn set_role(
    connection: &mut PgConnection,
    key: &str,
    role: &str,
) -> Result<bool, sqlx::Error> {
    let set = sqlx::query("UPDATE hub_users SET role = $1 WHERE key = $2")
        .bind(role)
        .bind(key)
        .execute(connection)
        .await?;
    Ok(set.rows_affected() == 1)
}

/// Notes the login, and locks the user until the transaction ends. Answers the role, when there is a user with this hash of a
/// password.
pub(super) async fn log_in(
    connection: &mut PgConnection,
    name: &UserName,
    password: &str,
    now: UnixTime,
) -> Result<Option<Arc<str>>, sqlx::Error> {
    let sql = "UPDATE hub_users SET last_login = greatest(last_login, $1)
               WHERE key = $2 AND password = $3 RETURNING role";
    let role: Option<String> = sqlx::query_scalar(sql)
        .bind(column(now))
        .bind(name.key())
        .bind(password)
        .fetch_optional(connection)
        .await?;
    Ok(role.map(Arc::from))
}

/// Removes a user, and answers the name as it was registered.
pub(super) async fn remove(
    connection: &mut PgConnection,
    key: &str,
) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar("DELETE FROM hub_users WHERE key = $1 RETURNING name")
        .bind(key)
        .fetch_optional(connection)
        .await
}

pub(super) async fn count(pool: &PgPool) -> Result<u64, sqlx::Error> {
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM hub_users")
        .fetch_one(pool)
        .await?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// Keys and names of users who have not logged in since then.
pub(super) async fn idle(
    pool: &PgPool,
    inactive_since: UnixTime,
) -> Result<Vec<(String, Arc<str>)>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT key, name FROM hub_users WHERE last_login < $1 ORDER BY last_login LIMIT $2",
    )
    .bind(column(inactive_since))
    .bind(SWEPT_MAX)
    .fetch_all(pool)
    .await?;
    let idle = |row: &PgRow| {
        Ok((
            row.try_get("key")?,
            row.try_get::<String, _>("name")?.into(),
        ))
    };
    rows.iter().map(idle).collect()
}

/// Removes a user who still has not.
pub(super) async fn remove_idle(
    pool: &PgPool,
    key: &str,
    inactive_since: UnixTime,
) -> Result<bool, sqlx::Error> {
    let removed = sqlx::query("DELETE FROM hub_users WHERE key = $1 AND last_login < $2")
        .bind(key)
        .bind(column(inactive_since))
        .execute(pool)
        .await?;
    Ok(removed.rows_affected() == 1)
}

fn user(row: &PgRow) -> Result<User, sqlx::Error> {
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
