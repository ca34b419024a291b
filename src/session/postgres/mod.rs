//! Users in PostgreSQL, for who keeps them there anyway. Their sessions and sockets stay where they are without it: in Redis,
//! or in the data file of a node that is alone.
//!
//! A change of both is one transaction, in whose middle the other store is asked: a user's row is locked while sessions
//! begin or end, so that nobody logs in as a user who goes, and what the other store refuses is not done here either.

mod calls;
mod database;
mod users;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::migrate::MigrateError;
use sqlx::postgres::PgPool;

pub use database::{DATABASE_RULE, Database, DatabaseUrlError};

use super::store::{Answer, Begun, Chosen, Counts, ServerInfo, Swept, Update, Updated, Used};
use super::tables::migrator;
use super::{Connection, Session, SessionHead, Store, UnixTime, User, UserName};
use crate::model::{ClientId, SessionId, UserId};
use calls::{Calls, commit};

/// Each with its version and name; a migration that was released never changes.
const MIGRATIONS: [(i64, &str, &str); 1] =
    [(1, "users", include_str!("migrations/0001_users.sql"))];
/// Where it is noted which of them were made: beside whatever else uses the database.
const MIGRATIONS_TABLE: &str = "hub_users_migrations";

/// Why the database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// It cannot be reached, or refuses us.
    #[error("{address}: {cause}")]
    Unreachable {
        /// Where, without a password.
        address: String,
        /// What it says.
        #[source]
        cause: sqlx::Error,
    },
    /// The table could not be made what this version needs.
    #[error("{address}: the table of users cannot be brought up to date: {cause}")]
    Migration {
        /// Where, without a password.
        address: String,
        /// Why.
        #[source]
        cause: MigrateError,
    },
}

/// Users in PostgreSQL, and the rest in another store.
pub struct PostgresStore {
    calls: Calls,
    /// Whether the database answered when it was asked last.
    is_there: Arc<AtomicBool>,
    rest: Arc<dyn Store>,
}

impl std::fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresStore")
            .field("rest", &self.rest.kind())
            .finish_non_exhaustive()
    }
}

impl PostgresStore {
    /// Connects, and brings the table up to date; several nodes may do so at once. What is asked lives on the present
    /// runtime. `rest` has sessions and connections.
    ///
    /// # Errors
    /// When the database cannot be reached or its table not be made.
    pub async fn open(database: &Database, rest: Arc<dyn Store>) -> Result<Self, DatabaseError> {
        let pool = database.connect().await;
        let pool = pool.map_err(|cause| DatabaseError::Unreachable {
            address: database.to_string(),
            cause,
        })?;
        let migrated = migrate(&pool).await;
        migrated.map_err(|cause| DatabaseError::Migration {
            address: database.to_string(),
            cause,
        })?;
        let calls = Calls::new(pool);
        Ok(Self {
            calls,
            is_there: Arc::new(AtomicBool::new(true)),
            rest,
        })
    }
}

async fn migrate(pool: &PgPool) -> Result<(), MigrateError> {
    let mut migrator = migrator(&MIGRATIONS);
    migrator.dangerous_set_table_name(MIGRATIONS_TABLE);
    migrator.run(pool).await
}

impl Store for PostgresStore {
    fn add_user(&self, user: User) -> Answer<'_, bool> {
        self.calls.change(move |pool| async move {
            let mut transaction = pool.begin().await?;
            let is_added = users::add(&mut transaction, &user).await?;
            commit(transaction, is_added).await
        })
    }

    fn user<'a>(&'a self, name: &'a UserName) -> Answer<'a, Option<User>> {
        let key = name.key().to_owned();
        self.calls.read(move |pool| async move {
            Ok(users::get(&mut *pool.acquire().await?, &key).await?)
        })
    }

    fn replace_password<'a>(
        &'a self,
        name: &'a UserName,
        from: &'a str,
        to: &'a str,
    ) -> Answer<'a, bool> {
        let (key, from, to) = (name.key().to_owned(), from.to_owned(), to.to_owned());
        self.calls.change(move |pool| async move {
            let mut transaction = pool.begin().await?;
            let is_replaced = users::replace_password(&mut transaction, &key, &from, &to).await?;
            commit(transaction, is_replaced).await
        })
    }

    fn set_role<'a>(&'a self, name: &'a UserName, role: &'a str) -> Answer<'a, bool> {
        let (key, role) = (name.key().to_owned(), role.to_owned());
        self.calls.change(move |pool| async move {
            let mut transaction = pool.begin().await?;
            let is_set = users::set_role(&mut transaction, &key, &role).await?;
            commit(transaction, is_set).await
        })
    }

    fn remove_user<'a>(&'a self, name: &'a UserName) -> Answer<'a, Option<Vec<SessionId>>> {
        let (key, rest) = (name.key().to_owned(), self.rest.clone());
        self.calls.change(move |pool| async move {
            let mut transaction = pool.begin().await?;
            let Some(name) = users::remove(&mut transaction, &key).await? else {
                return Ok(None);
            };
            let ended = rest.end_sessions(&name).await?;
            commit(transaction, Some(ended)).await
        })
    }

    fn users<'a>(&'a self, cursor: &'a str, limit: usize) -> Answer<'a, Vec<User>> {
        let cursor = cursor.to_owned();
        self.calls.read(move |pool| async move {
            Ok(users::list(&mut *pool.acquire().await?, &cursor, limit).await?)
        })
    }

    fn begin_login(
        &self,
        name: UserName,
        password: Box<str>,
        session: Session,
        ends_others: bool,
    ) -> Answer<'_, Option<Begun>> {
        let rest = self.rest.clone();
        self.calls.change(move |pool| async move {
            let mut transaction = pool.begin().await?;
            let now = session.head.created_at;
            let role = users::log_in(&mut transaction, &name, &password, now).await?;
            let Some(role) = role else { return Ok(None) };
            let id = session.head.id;
            let ended = match ends_others {
                true => rest.replace_sessions(session).await?,
                false => rest.add_session(session).await?,
            };
            let committed = commit(transaction, Some(Begun { role, ended })).await;
            if committed.is_err() {
                // Nobody was told of it. Where this fails as well it ends without use.
                let _ = rest.end_session(id).await;
            }
            committed
        })
    }

    fn add_session(&self, session: Session) -> Answer<'_, Vec<SessionId>> {
        self.rest.add_session(session)
    }

    fn replace_sessions(&self, session: Session) -> Answer<'_, Vec<SessionId>> {
        self.rest.replace_sessions(session)
    }

    fn session(&self, id: SessionId, now: UnixTime) -> Answer<'_, Option<Session>> {
        self.rest.session(id, now)
    }

    fn owner(&self, id: SessionId, now: UnixTime) -> Answer<'_, Option<UserId>> {
        self.rest.owner(id, now)
    }

    fn choose_session(&self, new: Session, login: Option<SessionId>) -> Answer<'_, Chosen> {
        self.rest.choose_session(new, login)
    }

    fn sessions<'a>(&'a self, user: &'a str, now: UnixTime) -> Answer<'a, Vec<SessionHead>> {
        self.rest.sessions(user, now)
    }

    fn update_session(&self, update: Update) -> Answer<'_, Updated> {
        self.rest.update_session(update)
    }

    fn end_session(&self, id: SessionId) -> Answer<'_, bool> {
        self.rest.end_session(id)
    }

    fn end_sessions<'a>(&'a self, user: &'a str) -> Answer<'a, Vec<SessionId>> {
        self.rest.end_sessions(user)
    }

    fn touch(&self, used: Vec<Used>) -> Answer<'_, Vec<SessionId>> {
        self.rest.touch(used)
    }

    fn connect(&self, connection: Connection) -> Answer<'_, ()> {
        self.rest.connect(connection)
    }

    fn disconnect<'a>(&'a self, user: &'a str, client: ClientId, now: UnixTime) -> Answer<'a, ()> {
        self.rest.disconnect(user, client, now)
    }

    fn connections<'a>(&'a self, user: &'a str, now: UnixTime) -> Answer<'a, Vec<Connection>> {
        self.rest.connections(user, now)
    }

    fn now(&self) -> UnixTime {
        self.rest.now()
    }

    fn look_at_clock(&self) -> Answer<'_, ()> {
        self.rest.look_at_clock()
    }

    fn has_users(&self) -> bool {
        self.is_there.load(Ordering::Relaxed)
    }

    fn beat(&self, now: UnixTime) -> Answer<'_, ()> {
        let asked = self.calls.read(|pool| async move {
            sqlx::query("SELECT 1").execute(&pool).await?;
            Ok(())
        });
        let (beaten, is_there) = (self.rest.beat(now), self.is_there.clone());
        Box::pin(async move {
            let beaten = beaten.await;
            is_there.store(asked.await.is_ok(), Ordering::Relaxed);
            beaten
        })
    }

    fn counts(&self, now: UnixTime) -> Answer<'_, Counts> {
        let rest = self.rest.clone();
        self.calls.read(move |pool| async move {
            let users = users::count(&mut *pool.acquire().await?).await?;
            Ok(Counts {
                users,
                ..rest.counts(now).await?
            })
        })
    }

    fn sweep(&self, now: UnixTime, inactive_since: UnixTime) -> Answer<'_, Swept> {
        let rest = self.rest.clone();
        self.calls.sweep(move |pool| async move {
            let Swept { sessions, .. } = rest.sweep(now, inactive_since).await?;
            let mut swept = Vec::new();
            for (key, name) in users::idle(&pool, inactive_since).await? {
                let is_busy = !rest.sessions(&name, now).await?.is_empty();
                // Whoever has logged in since is idle no longer, and stays.
                if !is_busy && users::remove_idle(&pool, &key, inactive_since).await? {
                    swept.push(name);
                }
            }
            Ok(Swept {
                sessions,
                users: swept,
            })
        })
    }

    fn server(&self) -> Answer<'_, Option<ServerInfo>> {
        self.rest.server()
    }

    fn shared_secret<'a>(&'a self, candidate: &'a str) -> Answer<'a, String> {
        self.rest.shared_secret(candidate)
    }

    fn announce(&self, channel: &str, event: &str) {
        self.rest.announce(channel, event);
    }

    fn kind(&self) -> &'static str {
        "postgres"
    }
}
