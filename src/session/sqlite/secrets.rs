//! The table of the one secret.

use sqlx::SqliteConnection;

/// The secret that is kept; `candidate`, when there was none.
pub(super) async fn shared(
    connection: &mut SqliteConnection,
    candidate: String,
) -> Result<String, sqlx::Error> {
    sqlx::query("INSERT INTO secrets (id, secret) VALUES (1, ?) ON CONFLICT DO NOTHING")
        .bind(candidate)
        .execute(&mut *connection)
        .await?;
    sqlx::query_scalar("SELECT secret FROM secrets")
        .fetch_one(connection)
        .await
}
