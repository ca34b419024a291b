//! The store in an embedded SQLite file: for a node that is alone. `:memory:` forgets everything when the node ends.
//!
//! Everything goes through one connection in batches (`writer`). Connections of clients are not in the file: they end
//! with the process.

mod joined;
mod lock;
mod secrets;
mod sessions;
mod users;
mod writer;

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use sqlx::ConnectOptions as _;
use sqlx::migrate::MigrateError;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};

use super::connections::Connections;
use super::store::{
    Answer, Begun, Chosen, Counts, ServerInfo, SessionLimits, Swept, Update, Updated, Used,
};
use super::tables::{column, migrator, time};
use super::{Connection, Session, SessionHead, Store, UnixTime, User, UserName};
use crate::model::{ClientId, SessionId, UserId};
use joined::OnSession;
pub use lock::FileLock;
use writer::Writer;

/// What stands for no file at all.
pub const IN_MEMORY: &str = ":memory:";

/// For its owner only; what SQLite puts beside the file gets the same.
const FILE_MODE: u32 = 0o600;

/// How long another process may hold the file, as `sqlite3` in an operator's hands.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// Each with its version and name; a migration that was released never changes.
const MIGRATIONS: [(i64, &str, &str); 1] = [(
    1,
    "users and sessions",
    include_str!("migrations/0001_users_and_sessions.sql"),
)];

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It is no database, or it cannot be created or written.
    #[error("{file}: {cause}")]
    File {
        /// `DATA_FILE`.
        file: String,
        /// What SQLite says.
        #[source]
        cause: sqlx::Error,
    },
    /// Another node works with it.
    #[error(
        "{file}: another node uses it (process {process}); several nodes share REDIS_URL instead"
    )]
    InUse {
        /// `DATA_FILE`.
        file: String,
        /// The process.
        process: String,
    },
    /// Its tables could not be made what this version needs.
    #[error("{file}: its tables cannot be brought up to date: {cause}")]
    Migration {
        /// `DATA_FILE`.
        file: String,
        /// Why.
        #[source]
        cause: MigrateError,
    },
}

/// Users and sessions in an SQLite file.
#[derive(Debug)]
pub struct SqliteStore {
    writer: Writer,
    connections: Connections,
    limits: SessionLimits,
}

impl SqliteStore {
    /// Opens the file, creates it when there is none, and brings its tables up to date. The task that works on it
    /// lives on the present runtime.
    ///
    /// # Errors
    /// When it cannot be read and written.
    pub async fn open(file: &str, limits: SessionLimits) -> Result<Self, OpenError> {
        // Hashes of passwords and a secret are for nobody else on the machine. What fails here fails below, and says why.
        if file != IN_MEMORY {
            let mut new = OpenOptions::new();
            let _ = new.write(true).create_new(true).mode(FILE_MODE).open(file);
        }
        let options = match file {
            IN_MEMORY => SqliteConnectOptions::new().in_memory(true),
            _ => SqliteConnectOptions::new()
                .filename(Path::new(file))
                .create_if_missing(true)
                .journal_mode(SqliteJournalMode::Wal)
                // A user who was told "registered" is registered, also after a power cut; batches make it affordable.
                .synchronous(SqliteSynchronous::Full),
        };
        let options = options
            .busy_timeout(BUSY_TIMEOUT)
            .thread_name(|_| "fanfare-sqlite".to_owned())
            .disable_statement_logging();
        let failed = |cause| OpenError::File {
            file: file.to_owned(),
            cause,
        };
        let mut connection = options.connect().await.map_err(failed)?;
        let migrated = migrator(&MIGRATIONS).run(&mut connection).await;
        migrated.map_err(|cause| OpenError::Migration {
            file: file.to_owned(),
            cause,
        })?;
        // Reading works in a file that may not be written; whoever starts should know now.
        let probe = "BEGIN IMMEDIATE; ROLLBACK";
        sqlx::raw_sql(probe)
            .execute(&mut connection)
            .await
            .map_err(failed)?;
        Ok(Self {
            writer: Writer::start(connection),
            connections: Connections::default(),
            limits,
        })
    }
}

impl Store for SqliteStore {
    fn add_user(&self, user: User) -> Answer<'_, bool> {
        self.writer
            .change(move |connection| Box::pin(async move { users::add(connection, &user).await }))
    }

    fn user<'a>(&'a self, name: &'a UserName) -> Answer<'a, Option<User>> {
        let key = name.key().to_owned();
        self.writer
            .read(move |connection| Box::pin(async move { users::get(connection, &key).await }))
    }

    fn replace_password<'a>(
        &'a self,
        name: &'a UserName,
        from: &'a str,
        to: &'a str,
    ) -> Answer<'a, bool> {
        let (key, from, to) = (name.key().to_owned(), from.to_owned(), to.to_owned());
        self.writer.change(move |connection| {
            Box::pin(async move { users::replace_password(connection, &key, &from, &to).await })
        })
    }

    fn set_role<'a>(&'a self, name: &'a UserName, role: &'a str) -> Answer<'a, bool> {
        let (key, role) = (name.key().to_owned(), role.to_owned());
        self.writer.change(move |connection| {
            Box::pin(async move { users::set_role(connection, &key, &role).await })
        })
    }

    fn remove_user<'a>(&'a self, name: &'a UserName) -> Answer<'a, Option<Vec<SessionId>>> {
        let key = name.key().to_owned();
        self.writer.change(move |connection| {
            Box::pin(async move {
                let Some(name) = users::remove(connection, &key).await? else {
                    return Ok(None);
                };
                sessions::end_all(connection, name).await.map(Some)
            })
        })
    }

    fn users<'a>(&'a self, cursor: &'a str, limit: usize) -> Answer<'a, Vec<User>> {
        let cursor = cursor.to_owned();
        self.writer.read(move |connection| {
            Box::pin(async move { users::list(connection, &cursor, limit).await })
        })
    }

    fn begin_login(
        &self,
        name: UserName,
        password: Box<str>,
        session: Session,
        ends_others: bool,
    ) -> Answer<'_, Option<Begun>> {
        let most = if ends_others {
            1
        } else {
            self.limits.per_user_max
        };
        self.writer.change(move |connection| {
            Box::pin(async move {
                let now = session.head.created_at;
                let role = users::log_in(connection, &name, &password, now).await?;
                let Some(role) = role else { return Ok(None) };
                let ended = sessions::add(connection, session, most).await?;
                Ok(Some(Begun { role, ended }))
            })
        })
    }

    fn add_session(&self, session: Session) -> Answer<'_, Vec<SessionId>> {
        let most = self.limits.per_user_max;
        self.writer
            .change(move |connection| Box::pin(sessions::add(connection, session, most)))
    }

    fn replace_sessions(&self, session: Session) -> Answer<'_, Vec<SessionId>> {
        self.writer
            .change(move |connection| Box::pin(sessions::add(connection, session, 1)))
    }

    fn session(&self, id: SessionId, now: UnixTime) -> Answer<'_, Option<Session>> {
        let alive_since = now.before(self.limits.timeout);
        self.writer.on_session(|tell| OnSession::Read {
            id,
            alive_since,
            tell,
        })
    }

    fn owner(&self, id: SessionId, now: UnixTime) -> Answer<'_, Option<UserId>> {
        let alive_since = now.before(self.limits.timeout);
        self.writer
            .read(move |connection| Box::pin(sessions::owner(connection, id, alive_since)))
    }

    fn choose_session(&self, new: Session, login: Option<SessionId>) -> Answer<'_, Chosen> {
        let SessionLimits {
            timeout,
            per_user_max,
            ..
        } = self.limits;
        self.writer.change(move |connection| {
            Box::pin(sessions::choose(
                connection,
                new,
                login,
                timeout,
                per_user_max,
            ))
        })
    }

    fn sessions<'a>(&'a self, user: &'a str, now: UnixTime) -> Answer<'a, Vec<SessionHead>> {
        let alive_since = now.before(self.limits.timeout);
        let user = user.to_owned();
        self.writer
            .read(move |connection| Box::pin(sessions::of_user(connection, user, alive_since)))
    }

    fn update_session(&self, update: Update) -> Answer<'_, Updated> {
        let limits = self.limits;
        self.writer.on_session(|tell| OnSession::Update {
            update,
            limits,
            tell,
        })
    }

    fn end_session(&self, id: SessionId) -> Answer<'_, bool> {
        self.writer
            .change(move |connection| Box::pin(sessions::end(connection, id)))
    }

    fn end_sessions<'a>(&'a self, user: &'a str) -> Answer<'a, Vec<SessionId>> {
        let user = user.to_owned();
        self.writer
            .change(move |connection| Box::pin(sessions::end_all(connection, user)))
    }

    fn touch(&self, used: Vec<Used>) -> Answer<'_, Vec<SessionId>> {
        self.writer
            .change(move |connection| Box::pin(sessions::touch(connection, used)))
    }

    fn connect(&self, connection: Connection) -> Answer<'_, ()> {
        self.connections.add(connection);
        Box::pin(std::future::ready(Ok(())))
    }

    fn disconnect<'a>(&'a self, _: &'a str, client: ClientId, _: UnixTime) -> Answer<'a, ()> {
        self.connections.remove(client);
        Box::pin(std::future::ready(Ok(())))
    }

    fn connections<'a>(&'a self, user: &'a str, _: UnixTime) -> Answer<'a, Vec<Connection>> {
        Box::pin(std::future::ready(Ok(self.connections.of(user))))
    }

    fn counts(&self, now: UnixTime) -> Answer<'_, Counts> {
        let alive_since = now.before(self.limits.timeout);
        self.writer.read(move |connection| {
            Box::pin(async move {
                Ok(Counts {
                    users: users::count(connection).await?,
                    sessions: sessions::count(connection, alive_since).await?,
                })
            })
        })
    }

    fn sweep(&self, now: UnixTime, inactive_since: UnixTime) -> Answer<'_, Swept> {
        let alive_since = now.before(self.limits.timeout);
        self.writer.change(move |connection| {
            Box::pin(async move {
                Ok(Swept {
                    sessions: sessions::sweep(connection, alive_since).await?,
                    users: users::sweep(connection, inactive_since).await?,
                })
            })
        })
    }

    fn server(&self) -> Answer<'_, Option<ServerInfo>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    fn shared_secret<'a>(&'a self, candidate: &'a str) -> Answer<'a, String> {
        let candidate = candidate.to_owned();
        self.writer
            .change(move |connection| Box::pin(secrets::shared(connection, candidate)))
    }

    fn announce(&self, _: &str, _: &str) {}

    fn kind(&self) -> &'static str {
        "sqlite"
    }
}
