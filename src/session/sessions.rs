//! What users do with their accounts and sessions: the rules that hold on every store.

mod accounts;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use super::activity::Activity;
use super::attempts::Attempts;
use super::{
    Admission, Chosen, Config, Connection, EMPTY_DATA, FileLock, IN_MEMORY, OpenError, Opened,
    Passwords, PostgresStore, RedisStore, Session, SessionHead, SqliteStore, Store, StoreError,
    Swept, Update, Updated, upkeep,
};
use crate::broker::{Broker, Control};
use crate::model::{ClientId, NodeId, SessionId, UserId};

/// How long the end may take to write what waits.
const END_TIMEOUT: Duration = Duration::from_secs(3);
/// What a conversation is called that nobody named.
const DEFAULT_CHAT: &str = "default";
/// The role of whoever registers.
const DEFAULT_ROLE: &str = "user";

/// Accounts and sessions. It has a small runtime of its own, on which the store lives, so that what was begun ends
/// although the one who asked has gone away.
pub struct Sessions {
    store: Arc<dyn Store>,
    broker: Arc<dyn Broker>,
    passwords: Passwords,
    attempts: Attempts,
    activity: Arc<Activity>,
    node: NodeId,
    is_single: bool,
    /// After which time without a login a user is inactive.
    inactive_max: Duration,
    /// The data file, where the store is this process's own.
    file: Option<FileLock>,
    /// Taken at the end.
    runtime: Mutex<Option<Runtime>>,
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sessions")
            .field("store", &self.store.kind())
            .finish_non_exhaustive()
    }
}

/// The data file and its lock. A second node that nobody told where to keep its users, as when two are tried in one
/// folder, keeps them in memory.
fn data_file(config: &Config) -> Result<(FileLock, &str), OpenError> {
    match FileLock::take(&config.data_file) {
        Ok(lock) => Ok((lock, &config.data_file)),
        Err(error @ OpenError::InUse { .. }) if config.may_forget => {
            tracing::warn!(%error, "users and sessions are kept in memory; DATA_FILE says where else");
            Ok((FileLock::take(IN_MEMORY)?, IN_MEMORY))
        }
        Err(error) => Err(error),
    }
}

impl Sessions {
    /// Opens the store and starts what writes behind and sweeps. Orders to close sockets go to `broker`.
    ///
    /// # Errors
    /// When the store cannot be opened, or the system gives no thread.
    pub fn start(
        config: &Config,
        node: NodeId,
        broker: Arc<dyn Broker>,
    ) -> Result<Self, std::io::Error> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("fanfare-session")
            .enable_all()
            .build()?;
        let (lock, data_file) = match config.redis {
            Some(_) => (None, &*config.data_file),
            None => {
                let (lock, file) = data_file(config).map_err(std::io::Error::other)?;
                (Some(lock), file)
            }
        };
        let store: Arc<dyn Store> = match &config.redis {
            Some(redis) => {
                let started = RedisStore::start(redis, &config.redis_prefix, config.limits);
                Arc::new(started.map_err(std::io::Error::other)?)
            }
            None => {
                let opened = SqliteStore::open(data_file, config.limits);
                Arc::new(runtime.block_on(opened).map_err(std::io::Error::other)?)
            }
        };
        let store: Arc<dyn Store> = match &config.database {
            Some(database) => {
                let opened = runtime.block_on(PostgresStore::open(database, store));
                Arc::new(opened.map_err(std::io::Error::other)?)
            }
            None => store,
        };
        let activity = Arc::new(Activity::default());
        upkeep::begin(&runtime, &store, &broker, &activity, config);
        let passwords = Passwords::start(
            config.password_hash,
            config.password_threads,
            config.password_waiting_max,
        )?;
        Ok(Self {
            store,
            broker,
            passwords,
            attempts: Attempts::new(config),
            activity,
            node,
            is_single: config.is_single,
            inactive_max: config.inactive_max,
            file: lock,
            runtime: Mutex::new(Some(runtime)),
        })
    }

    /// Writes what waits to be written and ends the store's runtime. To be called outside of any runtime.
    pub fn end(&self) {
        let runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(runtime) = { runtime }.take() else {
            return;
        };
        let flush = self.activity.flush(&*self.store);
        if runtime
            .block_on(async { timeout(END_TIMEOUT, flush).await })
            .is_err()
        {
            tracing::warn!("the last use of sessions could not be written");
        }
        runtime.shutdown_timeout(END_TIMEOUT);
    }

    /// Finds the secret that all nodes on this store sign with, for a node that was given none. `found` is called with it:
    /// with a file once, before this returns; with Redis when that is there, and again when another one stands there. Where
    /// Redis has lost it, it is put back.
    pub fn keep_secret(&self, found: impl Fn(&str) + Send + 'static) {
        let runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(runtime) = &*runtime else { return };
        match &self.file {
            Some(_) => found(&runtime.block_on(upkeep::find_secret(&*self.store))),
            None => drop(runtime.spawn(upkeep::keep_secret(self.store.clone(), found))),
        }
    }

    /// Where it is kept, for what needs no rules.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Throws away sessions that have expired and users who are inactive.
    ///
    /// # Errors
    /// When the store failed.
    pub async fn sweep(&self) -> Result<Swept, StoreError> {
        let inactive_since = self.store.now().before(self.inactive_max);
        upkeep::sweep(&*self.store, inactive_since).await
    }

    /// The user's session of this id, or for this conversation; a new one when there is none. A new one has an id of
    /// its own: whoever could choose it could make somebody use theirs. `login` is that of the token that asks.
    ///
    /// # Errors
    /// When the store failed.
    pub async fn open(
        &self,
        user: &UserId,
        chat_id: Option<&str>,
        id: Option<SessionId>,
        login: Option<SessionId>,
    ) -> Result<Opened, StoreError> {
        if let Some(id) = id
            && let Some(session) = self.store.session(id, self.store.now()).await?
        {
            if session.head.user != *user {
                return Ok(Opened::NotOwner);
            }
            self.saw(id, user);
            self.announce_use("http", user, id);
            return Ok(Opened::Session(session));
        }
        let new = self.new_session(user, chat_id.unwrap_or(DEFAULT_CHAT));
        let Chosen {
            session,
            is_new,
            ended,
        } = self.store.choose_session(new, login).await?;
        let (id, chat_id) = (session.head.id, &session.head.chat_id);
        if is_new {
            self.close_sockets(user, ended).await;
            let fields = [("session_id", &*id.to_string()), ("chat_id", chat_id)];
            self.announce("session:new", user, &fields);
        } else {
            self.saw(id, user);
        }
        self.announce_use("http", user, id);
        Ok(Opened::Session(session))
    }

    /// Changes a session: what was answered, every node sees.
    ///
    /// # Errors
    /// When the store failed.
    pub fn update(
        &self,
        id: SessionId,
        user: &UserId,
        chat_id: Option<&str>,
        fields: &str,
    ) -> super::Answer<'_, Updated> {
        self.store.update_session(Update {
            id,
            user: user.clone(),
            chat_id: chat_id.map(Into::into),
            fields: fields.into(),
            now: self.store.now(),
            node: self.node.clone(),
        })
    }

    /// A session, whoever's it is.
    ///
    /// # Errors
    /// When the store failed.
    pub async fn session(&self, id: SessionId) -> Result<Option<Session>, StoreError> {
        self.store.session(id, self.store.now()).await
    }

    /// The sessions of a user, the newest first.
    ///
    /// # Errors
    /// When the store failed.
    pub async fn sessions(&self, user: &str) -> Result<Vec<SessionHead>, StoreError> {
        self.store.sessions(user, self.store.now()).await
    }

    /// Whether a token of this login session is still worth something. That is use of the session.
    ///
    /// # Errors
    /// When the store failed.
    pub async fn is_alive(&self, user: &UserId, login: SessionId) -> Result<bool, StoreError> {
        let owner = self.store.owner(login, self.store.now()).await?;
        let is_alive = owner.is_some_and(|owner| owner == *user);
        if is_alive {
            self.saw(login, user);
        }
        Ok(is_alive)
    }

    /// Whether a socket may open: with a token of `login`, and naming a session.
    ///
    /// # Errors
    /// When the store failed.
    pub async fn admit(
        &self,
        user: &UserId,
        login: Option<SessionId>,
        named: Option<&str>,
    ) -> Result<Admission, StoreError> {
        if let Some(login) = login
            && !self.is_alive(user, login).await?
        {
            return Ok(Admission::Ended);
        }
        let Some(named) = named else {
            return Ok(Admission::Admitted(login));
        };
        let Ok(named) = named.parse() else {
            return Ok(Admission::Mismatch);
        };
        if login == Some(named) || self.is_alive(user, named).await? {
            return Ok(Admission::Admitted(Some(named)));
        }
        Ok(Admission::Mismatch)
    }

    /// A session was used: it lasts from now on. Written behind.
    pub fn saw(&self, session: SessionId, user: &UserId) {
        self.activity.saw(session, user, self.store.now());
    }

    /// A socket opened with a session.
    pub fn opened(&self, client: ClientId, user: &UserId, session: SessionId) {
        self.saw(session, user);
        let connected = self.store.connect(Connection {
            client,
            user: user.clone(),
            session,
            node: self.node.clone(),
            connected_at: self.store.now(),
        });
        self.drive(connected);
        self.announce_use("ws", user, session);
    }

    /// A socket with a session closed.
    pub fn closed(&self, client: ClientId, user: &UserId) {
        self.drive(self.store.disconnect(user, client, self.store.now()));
        self.announce("connection:removed", user, &[]);
    }

    /// Tells the FastAPI gateway's listeners: `events:<what>:<user>`.
    fn announce(&self, what: &str, user: &str, fields: &[(&str, &str)]) {
        let own = [("gateway_id", self.node.as_str())];
        announce(&*self.store, what, user, &[&own, fields].concat());
    }

    /// Tells those of a session that is used from now on, by a socket (`ws`) or by calls (`http`), as that system's list
    /// of connections has it.
    fn announce_use(&self, by: &str, user: &str, session: SessionId) {
        let event = serde_json::json!({
            "gateway_id": self.node.as_str(),
            "last_seen": self.store.now().as_secs_f64(),
            "session_id": session.to_string(),
            "user_id": user,
            "ws_connected": if by == "ws" { "1" } else { "0" },
        });
        let channel = format!("events:connection:{by}:{user}");
        self.store.announce(&channel, &event.to_string());
    }

    /// Sees to what nobody waits for. It was asked already, in the order of the calls.
    fn drive(&self, mut answer: super::Answer<'_, ()>) {
        let waker = std::task::Waker::noop();
        let mut context = std::task::Context::from_waker(waker);
        if let std::task::Poll::Ready(Err(error)) = answer.as_mut().poll(&mut context) {
            tracing::debug!(%error, "the list of connections is not up to date");
        }
    }

    fn new_session(&self, user: &UserId, chat_id: &str) -> Session {
        let now = self.store.now();
        Session {
            head: SessionHead {
                id: SessionId::random(),
                user: user.clone(),
                chat_id: chat_id.into(),
                created_at: now,
                last_access: now,
                node: self.node.clone(),
            },
            data: EMPTY_DATA.into(),
        }
    }

    /// Closes the sockets of sessions that have ended, wherever they are.
    async fn close_sockets(&self, user: &UserId, ended: Vec<SessionId>) {
        if !ended.is_empty() {
            self.tell(Control::EndSessions(user.clone(), ended.into()))
                .await;
        }
    }

    /// Tells every node. The sessions have ended already; sockets that do not hear of it end with their tokens.
    async fn tell(&self, control: Control) {
        if let Err(error) = self.broker.control(control).await {
            tracing::warn!(%error, "sockets of sessions that ended may stay open on other nodes");
        }
    }
}

impl Drop for Sessions {
    fn drop(&mut self) {
        let mut runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner);
        // A runtime may not be dropped where tasks run; in the background it may.
        if let Some(runtime) = runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Tells the FastAPI gateway's listeners: `events:<what>:<user>`, with these fields beside the user.
pub(super) fn announce(store: &dyn Store, what: &str, user: &str, fields: &[(&str, &str)]) {
    store.announce(&format!("events:{what}:{user}"), &event(user, fields));
}

/// The user and these fields, as those listeners are told.
fn event(user: &str, fields: &[(&str, &str)]) -> String {
    let fields = fields.iter().copied();
    let event: BTreeMap<&str, &str> = [("user_id", user)].into_iter().chain(fields).collect();
    // A map of texts cannot fail to be written.
    serde_json::to_string(&event).unwrap_or_default()
}
