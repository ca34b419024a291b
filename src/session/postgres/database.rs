//! Where the database is, and the connections to it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use sqlx::ConnectOptions as _;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};

/// What the text of `DATABASE_URL` must be.
pub const DATABASE_RULE: &str = "postgres://user:password@host:port/database, with ?sslmode=verify-full where the network is not yours";

/// The most connections of a node. A login holds one for as long as it takes to begin its session.
const CONNECTIONS_MAX: u32 = 16;
/// How long a call waits for a connection: whoever is told that the database is away is told soon.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the server works on one statement, or waits for another's lock.
const STATEMENT_TIMEOUT: &str = "5s";

/// A database of PostgreSQL. It shows no password.
#[derive(Clone)]
pub struct Database(PgConnectOptions);

/// The text names none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{DATABASE_RULE}")]
pub struct DatabaseUrlError;

impl FromStr for Database {
    type Err = DatabaseUrlError;

    fn from_str(url: &str) -> Result<Self, DatabaseUrlError> {
        let is_ours = url.starts_with("postgres://") || url.starts_with("postgresql://");
        let options = url.parse().ok().filter(|_| is_ours);
        options.map(Self).ok_or(DatabaseUrlError)
    }
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (host, port) = (self.0.get_host(), self.0.get_port());
        let database = self.0.get_database().unwrap_or_default();
        write!(f, "postgres://{host}:{port}/{database}")
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Database({self})")
    }
}

impl Database {
    /// Connects once, so that what is wrong is known at the start.
    pub(super) async fn connect(&self) -> Result<PgPool, sqlx::Error> {
        let options = self
            .0
            .clone()
            .application_name("fanfare")
            .options([
                ("statement_timeout", STATEMENT_TIMEOUT),
                ("lock_timeout", STATEMENT_TIMEOUT),
            ])
            .disable_statement_logging();
        PgPoolOptions::new()
            .max_connections(CONNECTIONS_MAX)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .connect_with(options)
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_database_and_shows_no_password() {
        let url = "postgres://ann:secret@db.example.com:6432/users?sslmode=require";
        let database: Database = url.parse().expect("a URL");
        assert_eq!(database.to_string(), "postgres://db.example.com:6432/users");
        assert!(!format!("{database:?}").contains("secret"));
        for text in [
            "",
            "localhost",
            "mysql://a@b/c",
            "postgres//a",
            "postgres://h:port/x",
        ] {
            assert!(text.parse::<Database>().is_err(), "{text}");
        }
    }
}
