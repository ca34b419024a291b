//! `fanfare migrate` and `fanfare seed`: what is kept of users, before the first start.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use super::CliError;
use super::hub::runtime;
use crate::config::Settings;
use crate::session::{
    Passwords, PostgresStore, RedisStore, SqliteStore, Store, UnixTime, User, UserName,
};

/// How long Redis may take to be there.
const REDIS_TIMEOUT: Duration = Duration::from_secs(5);
/// Letters and digits of a password that nobody takes for one another: five bits each.
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
/// A hundred bits.
const PASSWORD_LENGTH: usize = 20;

#[derive(Debug, clap::Args)]
pub(super) struct SeedOptions {
    /// The admin's name
    #[arg(long, value_name = "NAME", default_value = "admin")]
    admin: String,
}

/// Makes the data file and the table in PostgreSQL, or brings them up to date.
pub(super) fn migrate(out: &mut dyn Write) -> Result<(), CliError> {
    let settings = Settings::from_process()?;
    let session = &settings.session;
    if session.redis.is_none() || session.database.is_some() {
        open(&settings, &runtime()?)?;
    }
    match &session.redis {
        Some(_) => writeln!(
            out,
            "{} in Redis, where there is nothing to migrate",
            match session.database {
                Some(_) => "sessions are",
                None => "users and sessions are",
            }
        )?,
        None => writeln!(out, "{} is up to date", session.data_file)?,
    }
    if let Some(database) = &session.database {
        writeln!(out, "{database} is up to date")?;
    }
    Ok(())
}

/// Makes an admin, once, and prints the password.
pub(super) fn seed(options: &SeedOptions, out: &mut dyn Write) -> Result<(), CliError> {
    let settings = Settings::from_process()?;
    let name = UserName::for_account(&options.admin).map_err(|error| CliError::Argument {
        argument: "--admin",
        rule: error.to_string(),
    })?;
    let runtime = runtime()?;
    let store = open(&settings, &runtime)?;
    let passwords = Passwords::start(settings.session.password_hash, 1, 1)?;
    let password = password();
    let hash = runtime.block_on(passwords.hash(&password))?;
    let now = UnixTime::now();
    let admin = User {
        name,
        email: "".into(),
        password: hash.into(),
        role: "admin".into(),
        created_at: now,
        last_login: now,
    };
    let name = admin.name.text().clone();
    match runtime.block_on(store.add_user(admin))? {
        true => writeln!(out, "the admin is {name} with the password {password}")?,
        false => writeln!(out, "there is a user {name} already: nothing was changed")?,
    }
    Ok(())
}

/// The store that a node with these settings has.
fn open(settings: &Settings, runtime: &Runtime) -> Result<Arc<dyn Store>, CliError> {
    let store = open_sessions(settings, runtime)?;
    let Some(database) = &settings.session.database else {
        return Ok(store);
    };
    Ok(Arc::new(
        runtime.block_on(PostgresStore::open(database, store))?,
    ))
}

fn open_sessions(settings: &Settings, runtime: &Runtime) -> Result<Arc<dyn Store>, CliError> {
    let session = &settings.session;
    let Some(redis) = &session.redis else {
        let opened = SqliteStore::open(&session.data_file, session.limits);
        return Ok(Arc::new(runtime.block_on(opened)?));
    };
    let store = RedisStore::start(redis, &session.redis_prefix, session.limits)
        .map_err(|error| CliError::Redis(error.to_string()))?;
    let began = Instant::now();
    while !store.is_ready() {
        if began.elapsed() > REDIS_TIMEOUT {
            return Err(CliError::Redis("redis cannot be reached".to_owned()));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(Arc::new(store))
}

fn password() -> String {
    let bits: u128 = rand::random();
    let letters = (0..PASSWORD_LENGTH).map(|place| {
        let letter = usize::try_from((bits >> (place * 5)) & 31).unwrap_or_default();
        char::from(ALPHABET[letter])
    });
    letters.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_long_and_differ() {
        let (one, other) = (password(), password());
        assert_eq!(one.len(), PASSWORD_LENGTH);
        assert_ne!(one, other);
    }
}
