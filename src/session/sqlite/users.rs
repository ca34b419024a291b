//! The table of users.

use std::sync::Arc;

use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};

use super::{column, time};
use crate::session::tables::users::users_table;
use crate::session::{UnixTime, User, UserName};

/// How many users one sweep removes: the others are not kept waiting for long.
const SWEPT_MAX: i64 = 1000;

users_table!(SqliteConnection, SqliteRow, "users", "max");

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
