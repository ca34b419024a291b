//! How the scripts are asked: the words that several of them take, and what becomes of an answer that is none.

use super::super::store::{Answer, Chosen, LIFE_MAX};
use super::super::{Session, StoreError, UnixTime};
use super::{RedisStore, record, scripts};
use crate::model::SessionId;
use crate::redis::{CallError, Command, Script, Value};

impl RedisStore {
    pub(super) fn script(&self, script: &'static Script) -> Command {
        Command::script(script, &[&*self.prefix])
    }

    /// Sends now, in the order of the calls, and reads the answer when it is there.
    pub(super) fn ask<T: Send + 'static>(
        &self,
        command: Command,
        read: impl FnOnce(Value) -> Option<T> + Send + 'static,
    ) -> Answer<'static, T> {
        let answer = self.redis.call_one(command);
        Box::pin(async move {
            let value = answer.await.map_err(fault)?;
            read(value).ok_or_else(|| {
                tracing::error!("redis answered something else than a script of ours says");
                StoreError::Unavailable
            })
        })
    }

    pub(super) fn millis(time: UnixTime) -> u64 {
        time.as_millis()
    }

    pub(super) fn timeout_millis(&self) -> u64 {
        u64::try_from(self.limits.timeout.as_millis()).unwrap_or(u64::MAX)
    }

    /// Something about a session, which goes together with what others ask of theirs.
    pub(super) fn on_sessions(&self) -> Command {
        let (timeout, bytes_max) = (self.timeout_millis(), self.limits.data_bytes_max);
        self.script(&scripts::SESSIONS)
            .formatted(format_args!("{timeout} {bytes_max} {}", self.events))
    }

    pub(super) fn read(&self, id: SessionId, with_record: bool) -> Command {
        self.on_sessions()
            .word("read")
            .formatted(format_args!("{id}"))
            .number(u64::from(with_record))
    }

    /// Asks for something of a session. A record that nobody can read is told to the log and counts as gone: asking again would
    /// not help, and with a new login there is another session.
    pub(super) fn ask_of_session<T: Send + 'static>(
        &self,
        id: SessionId,
        command: Command,
        read: impl FnOnce(&str) -> Option<Option<T>> + Send + 'static,
    ) -> Answer<'static, Option<T>> {
        let prefix = self.prefix.clone();
        self.ask(command, move |value| {
            let told = read(value.as_str()?);
            Some(told.unwrap_or_else(|| {
                complain(&prefix, id);
                None
            }))
        })
    }

    /// The session for a conversation, or the id of one that has it and cannot be read.
    pub(super) fn try_to_choose(
        &self,
        new: &Session,
        login: &str,
    ) -> Answer<'static, Result<Chosen, SessionId>> {
        let command = self
            .with_session(self.script(&scripts::CHOOSE), new, self.limits.per_user_max)
            .word(&*new.head.chat_id)
            .word(login);
        let new = new.clone();
        self.ask(command, move |value| record::chosen(value, new))
    }

    /// A script about the sockets of a user.
    pub(super) fn sockets_of(&self, script: &'static Script, user: &str, now: UnixTime) -> Command {
        self.script(script)
            .word(user)
            .number(Self::millis(now.before(LIFE_MAX)))
            .number(Self::millis(now.after(self.limits.timeout)))
    }

    /// The words of a session that is added.
    pub(super) fn with_session(&self, command: Command, session: &Session, most: usize) -> Command {
        let Session { head, data } = session;
        command
            .word(head.user.to_string())
            .word(head.id.to_string())
            .word(record::write(head, data))
            .word(record::write_head(head))
            .number(Self::millis(head.last_access))
            .number(self.timeout_millis())
            .number(most as u64)
    }
}

/// Says which record nobody can read.
pub(super) fn complain(prefix: &str, id: SessionId) {
    let key = format!("{prefix}sessions:{id}");
    tracing::error!(key, "a session in redis cannot be read: it counts as gone");
}

/// What became of a command, for who asked.
pub(super) fn fault(error: CallError) -> StoreError {
    match error {
        CallError::NotSent => StoreError::Unavailable,
        CallError::OutOfMemory => StoreError::Busy,
        CallError::Unanswered(_) | CallError::NotReplicated => StoreError::OutcomeUnknown,
        CallError::Refused(why) => {
            tracing::error!(why, "redis refused a script of sessions");
            StoreError::Unavailable
        }
    }
}
