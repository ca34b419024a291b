//! What the tables of both databases have in common.

pub(super) mod users;

use sqlx::SqlSafeStr as _;
use sqlx::migrate::{Migration, MigrationType, Migrator};

use super::UnixTime;

/// Makes tables what this version needs. Each migration has a version, a name and its statements.
pub(super) fn migrator(migrations: &[(i64, &'static str, &'static str)]) -> Migrator {
    let migration = |&(version, name, sql): &(i64, &'static str, &'static str)| {
        let up = MigrationType::Simple;
        Migration::new(version, name.into(), up, sql.into_sql_str(), false)
    };
    Migrator::with_migrations(migrations.iter().map(migration).collect())
}

/// A time as a column has it.
pub(super) fn column(time: UnixTime) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// A time out of a column.
pub(super) fn time(column: i64) -> UnixTime {
    UnixTime::from_millis(u64::try_from(column).unwrap_or(0))
}
