//! The table of users.

use std::sync::Arc;

use sqlx::postgres::{PgPool, PgRow};
use sqlx::{PgConnection, Row as _};

use crate::session::tables::users::users_table;
use crate::session::tables::{column, time};
use crate::session::{UnixTime, User, UserName};

/// How many users one sweep looks at.
const SWEPT_MAX: i64 = 1000;

users_table!(PgConnection, PgRow, "hub_users", "greatest");

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
