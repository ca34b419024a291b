//! What the session room can be told.

use std::time::Duration;

use super::{Database, HashParameters, SessionLimits};

/// Users and sessions.
#[derive(Debug, Clone)]
pub struct Config {
    /// The SQLite file (`DATA_FILE`), or [`IN_MEMORY`](super::IN_MEMORY).
    pub data_file: String,
    /// Whether memory will do while another node has that file: nobody chose it, and this is no production.
    pub may_forget: bool,
    /// The Redis server that a fleet shares; `None` for a node that is alone.
    pub redis: Option<crate::redis::Config>,
    /// What the keys in Redis begin with; empty, or with a colon at its end.
    pub redis_prefix: String,
    /// Where users are, when they are not where their sessions are (`DATABASE_URL`).
    pub database: Option<Database>,
    /// The limits of sessions.
    pub limits: SessionLimits,
    /// Whether a login ends the user's other sessions (`SINGLE_SESSION_PER_USER`).
    pub is_single: bool,
    /// How passwords are hashed (`PASSWORD_HASH`).
    pub password_hash: HashParameters,
    /// Threads that hash (`PASSWORD_THREADS`).
    pub password_threads: usize,
    /// The most hashes that wait for one (`PASSWORD_QUEUE`); half of them at most are of registrations.
    pub password_waiting_max: usize,
    /// Logins of one user from one address in the window, ten times as many from all of them (`LOGIN_RATE_MAX`); 0 is
    /// no limit.
    pub login_rate_max: u32,
    /// Logins from one address in the window (`LOGIN_ADDRESS_RATE_MAX`); 0 is no limit.
    pub login_address_rate_max: u32,
    /// Registrations from one address in the window (`REGISTER_RATE_MAX`); 0 is no limit.
    pub register_rate_max: u32,
    /// The window (`LOGIN_RATE_WINDOW_MS`).
    pub login_rate_window: Duration,
    /// Between two writes of what was used when (`BATCH_WRITE_INTERVAL_MS`).
    pub write_interval: Duration,
    /// How long a user may stay away (`SESSION_MAX_INACTIVE_DAYS`).
    pub inactive_max: Duration,
    /// Between two looks for users who stayed away (`SESSION_CHECK_INTERVAL_DAYS`).
    pub check_interval: Duration,
}

#[cfg(test)]
impl Config {
    /// Small, in memory, without limits of logins.
    pub(super) fn for_tests() -> Self {
        Self {
            data_file: super::IN_MEMORY.to_owned(),
            may_forget: false,
            redis: None,
            redis_prefix: String::new(),
            database: None,
            limits: SessionLimits {
                timeout: Duration::from_secs(1800),
                per_user_max: 10,
                data_bytes_max: 10_000,
            },
            is_single: true,
            password_hash: HashParameters::default(),
            password_threads: 1,
            password_waiting_max: 10,
            login_rate_max: 0,
            login_address_rate_max: 0,
            register_rate_max: 0,
            login_rate_window: Duration::from_secs(60),
            write_interval: Duration::from_millis(10),
            inactive_max: Duration::from_secs(365 * 86_400),
            check_interval: Duration::from_secs(86_400),
        }
    }
}
