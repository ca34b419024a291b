//! Users, their login sessions, and which sockets they have.
//!
//! [`Store`] is what is kept: in an embedded SQLite file ([`SqliteStore`]) for a node that is alone. [`Passwords`] checks
//! passwords without starving anybody.
//!
//! Not here: tokens (`auth`), HTTP (`api`) and sockets (`transport`).

mod connections;
mod merge;
mod name;
mod password;
mod records;
mod sqlite;
mod store;

pub use name::{NAME_BYTES_MAX, NameError, UserName};
pub use password::{
    HashParameters, PARAMETERS_RULE, ParametersError, PasswordError, Passwords, Verdict,
};
pub use records::{
    Connection, EMPTY_DATA, Session, SessionHead, SessionId, SessionIdError, UnixTime, User,
};
pub use sqlite::{IN_MEMORY, OpenError, SqliteStore};
pub use store::{Answer, Counts, SessionLimits, Store, StoreError, Swept, Update, Updated};
