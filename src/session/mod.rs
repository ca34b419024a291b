//! Users, their login sessions, and which sockets they have.
//!
//! [`Sessions`] is what the rest of the process asks: the rules of accounts and sessions. It stands on a [`Store`], of
//! which there are two, Redis ([`RedisStore`]) for a fleet and an embedded SQLite file ([`SqliteStore`]) for a node that is
//! alone, with users in PostgreSQL ([`PostgresStore`]) where a database is named; and on [`Passwords`], which checks passwords without starving anybody.
//!
//! Not here: tokens (`auth`), HTTP (`api`) and sockets (`transport`).

mod activity;
mod attempts;
mod config;
mod connections;
mod merge;
mod name;
mod outcome;
mod password;
mod postgres;
mod records;
mod redis;
mod sessions;
mod sqlite;
mod store;
mod tables;
mod upkeep;

pub use config::Config;
pub use name::{NAME_BYTES_MAX, NameError, UserName};
pub use outcome::{AccountError, Admission, LoggedIn, Opened};
pub use password::{
    HashParameters, PARAMETERS_RULE, ParametersError, PasswordError, Passwords, Verdict,
};
pub use postgres::{DATABASE_RULE, Database, DatabaseError, DatabaseUrlError, PostgresStore};
pub use records::{Connection, EMPTY_DATA, Session, SessionHead, UnixTime, User};
pub use redis::RedisStore;
pub use sessions::Sessions;
pub use sqlite::{FileLock, IN_MEMORY, OpenError, SqliteStore, check_data_file};
pub use store::{
    Answer, Begun, Chosen, Counts, LIFE_MAX, ServerInfo, SessionLimits, Store, StoreError, Swept,
    Update, Updated, Used,
};
