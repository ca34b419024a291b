//! The store in Redis: what a fleet shares. Any node serves any session.
//!
//! Users, sessions and connections have the names, forms and times of the FastAPI gateway, whose data can be taken over:
//! `users:<name>` is a hash (without end), `sessions:<uuid>` a JSON text, `connections:<user>` a hash of the newest socket;
//! the latter two end without use. A socket ends with its process as well, which says every few seconds that it lives. What that system searched for with `KEYS` stands in indices of ours, `idx:…`.
//!
//! Each call is one script, so it is done wholly or not at all, and a session is merged where it is kept. A script names
//! keys that it reads elsewhere, which one server allows: in a Cluster all keys have a hash tag, so that they are one master's.

mod adoption;
mod asking;
mod clock;
mod record;
mod scripts;

use std::sync::Arc;
use std::time::{Duration, Instant};

use asking::{complain, fault};
use clock::Clock;

use super::store::{
    Answer, Begun, Chosen, Counts, ServerInfo, SessionLimits, Swept, Update, Updated, Used,
};
use super::{Connection, Session, SessionHead, Store, StoreError, UnixTime, User, UserName};
use crate::model::{ClientId, SessionId, UserId};
use crate::redis::{Command, Redis, StartError};

/// The most users that one sweep removes.
const SWEPT_MAX: u64 = 1000;

/// How long it is remembered that a process was there. One that was only away from Redis comes back to its sockets, and what
/// is left of one that was forgotten is thrown away.
const LIFE_KEPT: Duration = Duration::from_secs(86_400);

/// Users and sessions in Redis.
#[derive(Debug)]
pub struct RedisStore {
    redis: Redis,
    /// What every key begins with; empty, or with a colon at its end.
    prefix: Arc<str>,
    /// What the channels of events begin with: the same without what holds keys together in a Cluster, where any member brings
    /// them to whoever listens.
    events: String,
    limits: SessionLimits,
    /// This process among all that ever had this node's name.
    life: String,
    clock: Arc<Clock>,
}

impl RedisStore {
    /// Begins to connect, and goes on for as long as the value lives. `prefix` begins every key.
    ///
    /// # Errors
    /// When the system gives no thread, or the certificates cannot be used.
    pub fn start(
        config: &crate::redis::Config,
        prefix: &str,
        limits: SessionLimits,
    ) -> Result<Self, StartError> {
        let redis = Redis::new(config, String::new(), scripts::ALL)?;
        redis.connect();
        let key_prefix = match redis.is_cluster() {
            true => format!("{{{prefix}sessions}}:"),
            false => prefix.to_owned(),
        };
        Ok(Self {
            redis,
            prefix: key_prefix.into(),
            events: prefix.to_owned(),
            limits,
            life: format!("{:016x}", rand::random::<u64>()),
            clock: Arc::default(),
        })
    }

    /// Whether the server can be asked now.
    pub fn is_ready(&self) -> bool {
        self.redis.takes_commands()
    }
}

impl Store for RedisStore {
    fn now(&self) -> UnixTime {
        self.clock.now()
    }

    fn look_at_clock(&self) -> Answer<'_, ()> {
        let (clock, asked) = (self.clock.clone(), Instant::now());
        self.ask(self.script(&scripts::CLOCK), move |time| {
            let server = record::server_time(time)?;
            clock.set(server, asked.elapsed());
            Some(())
        })
    }

    fn add_user(&self, user: User) -> Answer<'_, bool> {
        let command = self
            .script(&scripts::ADD_USER)
            .word(user.name.key())
            .word(user.name.text().to_string())
            .word(String::from(user.email))
            .word(String::from(user.password))
            .word(user.role.to_string())
            .number(Self::millis(user.created_at))
            .number(Self::millis(user.last_login));
        self.ask(command, |value| record::flag(&value))
    }

    fn user<'a>(&'a self, name: &'a UserName) -> Answer<'a, Option<User>> {
        let command = self
            .script(&scripts::GET_USER)
            .word(name.key())
            .word(name.text().to_string());
        let name = name.clone();
        self.ask(command, move |value| {
            let fields = value.into_array();
            match fields.is_empty() {
                true => Some(None),
                false => record::user(name.text(), &fields).map(Some),
            }
        })
    }

    fn adopt_users(&self) -> Answer<'_, usize> {
        Box::pin(adoption::adopt(self))
    }

    fn replace_password<'a>(
        &'a self,
        name: &'a UserName,
        from: &'a str,
        to: &'a str,
    ) -> Answer<'a, bool> {
        let command = self
            .script(&scripts::REPLACE_PASSWORD)
            .word(name.key())
            .word(from)
            .word(to);
        self.ask(command, |value| record::flag(&value))
    }

    fn set_role<'a>(&'a self, name: &'a UserName, role: &'a str) -> Answer<'a, bool> {
        let command = self.script(&scripts::SET_ROLE).word(name.key()).word(role);
        self.ask(command, |value| record::flag(&value))
    }

    fn remove_user<'a>(&'a self, name: &'a UserName) -> Answer<'a, Option<Vec<SessionId>>> {
        let command = self.script(&scripts::REMOVE_USER).word(name.key());
        self.ask(command, record::optional_ids)
    }

    fn users<'a>(&'a self, cursor: &'a str, limit: usize) -> Answer<'a, Vec<User>> {
        let command = self
            .script(&scripts::LIST_USERS)
            .word(cursor)
            .number(limit as u64);
        self.ask(command, |value| {
            let users = value.into_array().into_iter().map(|user| {
                let fields = user.into_array();
                let (key, fields) = fields.split_first()?;
                record::user(&key.as_string()?, fields)
            });
            // One that an operator changed into something unreadable does not hide the others.
            Some(users.flatten().collect())
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
        let command = self.with_session(self.script(&scripts::LOG_IN), &session, most);
        let command = command.word(name.key()).word(String::from(password));
        self.ask(command, record::begun)
    }

    fn add_session(&self, session: Session) -> Answer<'_, Vec<SessionId>> {
        let most = self.limits.per_user_max;
        let command = self.with_session(self.script(&scripts::ADD), &session, most);
        self.ask(command, record::ids)
    }

    fn replace_sessions(&self, session: Session) -> Answer<'_, Vec<SessionId>> {
        let command = self.with_session(self.script(&scripts::ADD), &session, 1);
        self.ask(command, record::ids)
    }

    fn session(&self, id: SessionId, now: UnixTime) -> Answer<'_, Option<Session>> {
        let alive_since = now.before(self.limits.timeout);
        self.ask_of_session(id, self.read(id, true), move |text| {
            record::session(id, text, alive_since)
        })
    }

    fn owner(&self, id: SessionId, now: UnixTime) -> Answer<'_, Option<UserId>> {
        let alive_since = now.before(self.limits.timeout);
        self.ask_of_session(id, self.read(id, false), move |text| {
            record::owner(text, alive_since)
        })
    }

    fn choose_session(&self, new: Session, login: Option<SessionId>) -> Answer<'_, Chosen> {
        let login = login.map(|login| login.to_string()).unwrap_or_default();
        let first = self.try_to_choose(&new, &login);
        Box::pin(async move {
            let mut chosen = first.await?;
            // One more often than there can be sessions that nobody can read.
            for _ in 0..self.limits.per_user_max {
                match chosen {
                    Ok(chosen) => return Ok(chosen),
                    Err(id) => {
                        complain(&self.prefix, id);
                        self.end_session(id).await?;
                        chosen = self.try_to_choose(&new, &login).await?;
                    }
                }
            }
            chosen.map_err(|_| StoreError::Unavailable)
        })
    }

    fn sessions<'a>(&'a self, user: &'a str, now: UnixTime) -> Answer<'a, Vec<SessionHead>> {
        let alive_since = now.before(self.limits.timeout);
        let command = self
            .script(&scripts::LIST)
            .word(user)
            .number(Self::millis(alive_since));
        let user: UserId = Arc::from(user);
        self.ask(command, move |value| {
            let list = value.into_array();
            let heads = list
                .chunks_exact(3)
                .filter_map(|part| record::head(&user, part));
            let mut heads: Vec<SessionHead> = heads.collect();
            heads.sort_by_key(|head| (std::cmp::Reverse(head.created_at), head.id));
            Some(heads)
        })
    }

    fn update_session(&self, update: Update) -> Answer<'_, Updated> {
        let chat_id = update.chat_id.as_deref().map(record::json_text);
        let command = self
            .on_sessions()
            .word("update")
            .formatted(format_args!("{}", update.id))
            .word(&*update.user)
            .word(chat_id.unwrap_or_default())
            .word(&*update.fields)
            .number(Self::millis(update.now))
            .word(record::json_text(update.node.as_str()));
        let (prefix, id) = (self.prefix.clone(), update.id);
        self.ask(command, move |value| {
            Some(match value.as_str()? {
                "done" => Updated::Done,
                "missing" => Updated::Missing,
                "garbage" => {
                    complain(&prefix, id);
                    Updated::Missing
                }
                "not_owner" => Updated::NotOwner,
                "too_large" => Updated::TooLarge,
                "unreadable" => Updated::Unreadable,
                _ => return None,
            })
        })
    }

    fn end_session(&self, id: SessionId) -> Answer<'_, bool> {
        let command = self.script(&scripts::END).word(id.to_string());
        self.ask(command, |value| record::flag(&value))
    }

    fn end_sessions<'a>(&'a self, user: &'a str) -> Answer<'a, Vec<SessionId>> {
        let command = self.script(&scripts::END_ALL).word(user);
        self.ask(command, record::ids)
    }

    fn touch(&self, used: Vec<Used>) -> Answer<'_, Vec<SessionId>> {
        let mut command = self.script(&scripts::TOUCH).number(self.timeout_millis());
        for Used { session, user, at } in used {
            command = command
                .word(session.to_string())
                .word(user.to_string())
                .number(Self::millis(at));
        }
        self.ask(command, record::ids)
    }

    fn connect(&self, connection: Connection) -> Answer<'_, ()> {
        let command = self
            .script(&scripts::CONNECT)
            .word(connection.user.to_string())
            .word(connection.client.to_string())
            .word(record::write_connection(&connection, &self.life))
            .word(connection.session.to_string())
            .word(connection.node.as_str())
            .number(Self::millis(connection.connected_at))
            .number(self.timeout_millis())
            .word(&*self.life);
        self.ask(command, |_| Some(()))
    }

    fn disconnect<'a>(&'a self, user: &'a str, client: ClientId, now: UnixTime) -> Answer<'a, ()> {
        let command = self
            .sockets_of(&scripts::DISCONNECT, user, now)
            .word(client.to_string());
        self.ask(command, |_| Some(()))
    }

    fn beat(&self, now: UnixTime) -> Answer<'_, ()> {
        let command = self
            .script(&scripts::BEAT)
            .word(&*self.life)
            .number(Self::millis(now))
            .number(Self::millis(now.before(LIFE_KEPT)));
        self.ask(command, |_| Some(()))
    }

    fn connections<'a>(&'a self, user: &'a str, now: UnixTime) -> Answer<'a, Vec<Connection>> {
        let command = self.sockets_of(&scripts::CONNECTIONS, user, now);
        let user: UserId = Arc::from(user);
        self.ask(command, move |value| {
            let fields = record::pairs(value)?;
            let connections = fields
                .iter()
                .filter_map(|(client, json)| record::connection(&user, client, json));
            let mut connections: Vec<Connection> = connections.collect();
            connections.sort_by_key(|one| (std::cmp::Reverse(one.connected_at), one.client));
            Some(connections)
        })
    }

    fn counts(&self, now: UnixTime) -> Answer<'_, Counts> {
        let alive_since = now.before(self.limits.timeout);
        let users = Command::new("ZCARD").word(format!("{}idx:users", self.prefix));
        let sessions = Command::new("ZCOUNT")
            .word(format!("{}idx:sessions", self.prefix))
            .number(Self::millis(alive_since))
            .word("+inf");
        let answers = self.redis.call(vec![users, sessions]);
        Box::pin(async move {
            let mut counts = answers.await.into_iter().map(|answer| {
                let count = answer.map_err(fault)?;
                count.as_u64().ok_or(StoreError::Unavailable)
            });
            let mut next = || counts.next().unwrap_or(Err(StoreError::Unavailable));
            Ok(Counts {
                users: next()?,
                sessions: next()?,
            })
        })
    }

    fn sweep(&self, now: UnixTime, inactive_since: UnixTime) -> Answer<'_, Swept> {
        let alive_since = now.before(self.limits.timeout);
        let command = self
            .script(&scripts::SWEEP)
            .number(Self::millis(alive_since))
            .number(Self::millis(inactive_since))
            .number(SWEPT_MAX);
        self.ask(command, |value| {
            let gone = value.into_array();
            let (sessions, users) = gone.split_first()?;
            Some(Swept {
                sessions: sessions.as_u64()?,
                users: users
                    .iter()
                    .filter_map(|name| Some(Arc::from(name.as_str()?)))
                    .collect(),
            })
        })
    }

    fn server(&self) -> Answer<'_, Option<ServerInfo>> {
        self.ask(Command::new("INFO"), |value| {
            record::server(value.as_str()?).map(Some)
        })
    }

    fn shared_secret<'a>(&'a self, candidate: &'a str) -> Answer<'a, String> {
        let command = self.script(&scripts::SHARED_SECRET).word(candidate);
        self.ask(command, |value| value.as_string())
    }

    fn announce(&self, channel: &str, event: &str) {
        // On the way of what changes sessions, so that it is told in order.
        let command = self
            .script(&scripts::ANNOUNCE)
            .formatted(format_args!("{}{channel}", self.events))
            .word(event);
        // It is sent by the call. Nobody waits for who hears of it.
        drop(self.redis.call_one(command));
    }

    fn kind(&self) -> &'static str {
        "redis"
    }
}
