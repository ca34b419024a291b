//! What a client's commands ask of the broker, and the answers.
//!
//! A question is asked at once, in the order of commands; when its answer is there at once (the embedded broker's
//! always is), it is sent at once. Otherwise a task waits for it and leaves it for the loop.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker};

use crate::auth::{AuthError, Identity};
use crate::broker::{BrokerError, Page, Presence, Publish, ReadLimit, Recovery, Start};
use crate::client::{Completion, Question, Ticket};
use crate::events::Withheld;
use crate::hub::ConnectionIndex;
use crate::model::{ChannelKey, CloseReason, ErrorCode, Position, SessionId, WireFormat};
use crate::protocol::plain::{encode_push, encode_reply};
use crate::protocol::{ClaimedPosition, CommandId, Push, Reply};
use crate::relay::Relay;
use crate::session::{Sessions, StoreError, Updated};

use super::consent::refusal;
use super::shard::{Shard, unix_time};
use super::socket::{Cause, ConnectionRef, Joining};

/// An answer that a task waited for.
#[derive(Debug)]
pub(super) enum Done {
    /// To a command.
    Replied(ConnectionRef, Ticket, Reply),
    /// Whose a fresh token is; `None` when it is worth nothing.
    Refreshed(
        ConnectionRef,
        Ticket,
        Result<Option<Arc<Identity>>, StoreError>,
    ),
    /// What a back end says of a subscription, and whether join and leave are wanted.
    Consented(Box<Joining>, bool, Result<(), Withheld>),
    /// Where a channel's stream stands, now that this worker has interest.
    Started(ChannelKey, Result<Start, BrokerError>),
    /// What a new subscriber missed.
    Recovered(Box<Joining>, Result<Recovery, BrokerError>),
    /// A further page for a subscriber who catches up.
    CaughtUp(
        ConnectionRef,
        ChannelKey,
        Position,
        Result<Recovery, BrokerError>,
    ),
    /// What this worker missed.
    Repaired(ChannelKey, Position, Result<Recovery, BrokerError>),
    /// A subscriber who catches up may try again.
    Retry(ConnectionRef, ChannelKey),
    /// A channel may be read again.
    RepairAgain(ChannelKey, Position),
    /// Who is present, where those who watch may be wrong.
    PresenceRead(ChannelKey, Result<Presence, BrokerError>),
    /// That may be asked again.
    PresenceRested(ChannelKey),
}

/// What a publication or a member takes at least in an answer.
pub(super) const ENTRY_BYTES_MIN: usize = 32;

impl Shard {
    /// Does what was asked, and sends or keeps the answer.
    pub(super) fn ask(
        &mut self,
        connection: ConnectionIndex,
        id: Option<CommandId>,
        question: Question,
    ) {
        match question {
            Question::Subscribe {
                channel,
                recover,
                watches,
            } => {
                self.ask_subscribe(connection, id, channel, recover, watches);
            }
            Question::Unsubscribe { channel } => {
                self.unsubscribe(connection, &channel);
                self.answer(connection, id, Reply::Unsubscribed { channel });
            }
            Question::Refresh { token } => self.ask_refresh(connection, id, &token),
            Question::UpdateApiKey { session, key } => {
                self.ask_update_api_key(connection, id, session, key);
            }
            Question::Publish { channel, data, key } => {
                self.ask_publish(connection, id, channel, data, key);
            }
            Question::History {
                channel,
                limit,
                since,
            } => self.ask_history(connection, id, channel, limit, since),
            Question::Presence { channel } => self.ask_presence(connection, id, channel),
        }
    }

    fn ask_subscribe(
        &mut self,
        connection: ConnectionIndex,
        id: Option<CommandId>,
        channel: ChannelKey,
        recover: Option<ClaimedPosition>,
        watches: bool,
    ) {
        let Some(socket) = self.sockets.get_mut(connection) else {
            return;
        };
        let cause = Cause::Command(socket.client.open(id));
        let connection = ConnectionRef {
            index: connection,
            generation: socket.generation,
        };
        self.join_with_consent(
            Joining {
                connection,
                channel,
                recover,
                cause,
            },
            watches,
        );
    }

    fn ask_refresh(&mut self, connection: ConnectionIndex, id: Option<CommandId>, token: &str) {
        let verifier = self.context.verifier.clone();
        let token = token.to_owned();
        let Some(socket) = self.sockets.get_mut(connection) else {
            return;
        };
        let ticket = socket.client.open(id);
        let connection = ConnectionRef {
            index: connection,
            generation: socket.generation,
        };
        let sessions = self.context.sessions.clone();
        self.when_done(async move {
            let now = unix_time().as_secs();
            let alive = match verifier.identify_or_ask(Some(&token), now).await {
                Ok(identity) => still_alive(&sessions, identity).await,
                // Nobody can say: the old token holds.
                Err(AuthError::KeysUnavailable | AuthError::SecretUnavailable) => {
                    Err(StoreError::Unavailable)
                }
                Err(_) => Ok(None),
            };
            Done::Refreshed(connection, ticket, alive)
        });
    }

    /// The identity of a fresh token takes the place of the old one, or the connection ends.
    fn refreshed(
        &mut self,
        connection: ConnectionRef,
        ticket: Ticket,
        identity: Result<Option<Arc<Identity>>, StoreError>,
    ) {
        let now = self.clock.now;
        let Some(socket) = self.sockets.find(connection) else {
            return;
        };
        let reply = match identity {
            // Nobody knows: the old token holds for as long as it does.
            Err(error) => Some(store_error(error)),
            Ok(identity) => identity.and_then(|identity| {
                let unix = unix_time().as_secs();
                socket.client.refresh(identity, now, unix)
            }),
        };
        // It may be of a session that ended while the store was asked: that this socket has it now, nobody else knows.
        if self.ended.concerns(now, &socket.client) {
            return self.close(connection.index, CloseReason::LoggedOut);
        }
        match reply {
            Some(reply) => {
                let completion = socket.client.complete(ticket, reply);
                self.send_answers(connection.index, completion);
                self.end_what_is_not_permitted(connection.index);
                self.schedule(connection.index);
                self.read_on(connection.index);
                self.go_on(connection.index);
            }
            None => self.close(connection.index, CloseReason::NotAllowed),
        }
    }

    fn ask_update_api_key(
        &mut self,
        connection: ConnectionIndex,
        id: Option<CommandId>,
        session: SessionId,
        key: Box<str>,
    ) {
        let Some(socket) = self.sockets.get_mut(connection) else {
            return;
        };
        let user = socket.client.identity().user.clone();
        let sessions = self.context.sessions.clone();
        let fields = serde_json::json!({ "api_key": key }).to_string();
        let done = socket.client.api_key_updated(key, &self.context.rules);
        self.reply_when_done(connection, id, async move {
            match sessions.update(session, &user, None, &fields).await {
                Ok(Updated::Done) => done,
                Ok(Updated::TooLarge) => Reply::Error {
                    code: ErrorCode::TooLarge,
                    message: "the session has no room for this key".to_owned(),
                },
                Ok(Updated::Missing | Updated::NotOwner) => Reply::Error {
                    code: ErrorCode::NotFound,
                    message: "the session has ended".to_owned(),
                },
                Ok(Updated::Unreadable) => Reply::Error {
                    code: ErrorCode::Internal,
                    message: "the data of the session cannot be read".to_owned(),
                },
                Err(error) => store_error(error),
            }
        });
    }

    fn ask_publish(
        &mut self,
        connection: ConnectionIndex,
        id: Option<CommandId>,
        channel: ChannelKey,
        data: crate::model::Payload,
        key: Option<Arc<str>>,
    ) {
        let Some(socket) = self.sockets.get_mut(connection) else {
            return;
        };
        let publish = Publish {
            channel,
            data,
            origin: Some(socket.client.origin()),
            key,
            idempotency_key: None,
        };
        let relay = self.context.relay.clone();
        match self.ask_to_publish(connection, &publish) {
            None => self.reply_when_done(connection, id, published(relay, publish)),
            Some(asked) => self.reply_when_done(connection, id, async move {
                let (verdict, turn) = asked.await;
                let reply = match verdict {
                    Ok(data) => published(relay, Publish { data, ..publish }).await,
                    Err(withheld) => refusal(&withheld),
                };
                drop(turn);
                reply
            }),
        }
    }

    fn ask_history(
        &mut self,
        connection: ConnectionIndex,
        id: Option<CommandId>,
        channel: ChannelKey,
        limit: Option<u32>,
        since: Option<ClaimedPosition>,
    ) {
        let (relay, room) = (self.context.relay.clone(), self.answer_bytes());
        let most = (room / ENTRY_BYTES_MIN).max(1);
        let limit = ReadLimit {
            publications: limit.map_or(most, |limit| (limit as usize).min(most)),
            bytes: room,
        };
        // A position of an unknown epoch says nothing about this stream: it is read from the start.
        let since = since.and_then(|since| Some(Position::new(since.epoch?, since.offset)));
        self.reply_when_done(connection, id, async move {
            match relay.broker().history(&channel, since, limit).await {
                Ok(Page {
                    publications,
                    top,
                    more,
                }) => Reply::History {
                    channel,
                    publications,
                    position: top,
                    more,
                }
                .fit(room),
                Err(error) => broker_error(error),
            }
        });
    }

    fn ask_presence(
        &mut self,
        connection: ConnectionIndex,
        id: Option<CommandId>,
        channel: ChannelKey,
    ) {
        let (relay, room) = (self.context.relay.clone(), self.answer_bytes());
        let most = (room / ENTRY_BYTES_MIN).max(1);
        self.reply_when_done(connection, id, async move {
            match relay.broker().presence(&channel, most).await {
                Ok(presence) => presence_reply(channel, presence, room),
                Err(error) => broker_error(error),
            }
        });
    }

    /// An answer takes at most half of what may be pending.
    pub(super) fn answer_bytes(&self) -> usize {
        self.context.config.pending_bytes_max / 2
    }

    /// Sends the reply when it is there; answers leave in the order of their commands.
    fn reply_when_done(
        &mut self,
        connection: ConnectionIndex,
        id: Option<CommandId>,
        reply: impl Future<Output = Reply> + 'static,
    ) {
        let mut reply = Box::pin(reply);
        if let Some(reply) = poll_once(reply.as_mut()) {
            return self.answer(connection, id, reply);
        }
        let Some(socket) = self.sockets.get_mut(connection) else {
            return;
        };
        let ticket = socket.client.open(id);
        let connection = ConnectionRef {
            index: connection,
            generation: socket.generation,
        };
        let front = self.front.clone();
        tokio::task::spawn_local(async move {
            front.finish(Done::Replied(connection, ticket, reply.await));
        });
    }

    /// Comes back with what `done` brings: at once when it is there at once.
    pub(super) fn when_done(&mut self, done: impl Future<Output = Done> + 'static) {
        let mut done = Box::pin(done);
        match poll_once(done.as_mut()) {
            Some(done) => self.finish(done),
            None => {
                let front = self.front.clone();
                tokio::task::spawn_local(async move { front.finish(done.await) });
            }
        }
    }

    /// Takes an answer in.
    pub(super) fn finish(&mut self, done: Done) {
        match done {
            Done::Replied(connection, ticket, reply) => self.complete(connection, ticket, reply),
            Done::Consented(joining, watches, verdict) => {
                self.consented(*joining, watches, verdict);
            }
            Done::Started(channel, start) => self.started(&channel, start),
            Done::Recovered(joining, recovery) => self.recovered(*joining, recovery),
            Done::CaughtUp(connection, channel, from, recovery) => {
                self.caught_up(connection, &channel, from, recovery);
            }
            Done::Refreshed(connection, ticket, identity) => {
                self.refreshed(connection, ticket, identity);
            }
            Done::Repaired(channel, from, recovery) => self.repaired(channel, from, recovery),
            Done::Retry(connection, channel) => self.retry(connection, channel),
            Done::RepairAgain(channel, from) => self.repair_again(channel, from),
            Done::PresenceRead(channel, presence) => self.presence_read(channel, presence),
            Done::PresenceRested(channel) => self.presence_rested(channel),
        }
    }

    /// Answers a command whose question kept a place.
    pub(super) fn complete(&mut self, connection: ConnectionRef, ticket: Ticket, reply: Reply) {
        let Some(socket) = self.sockets.find(connection) else {
            return;
        };
        let completion = socket.client.complete(ticket, reply);
        self.send_answers(connection.index, completion);
        self.read_on(connection.index);
        self.go_on(connection.index);
    }

    /// Answers a command.
    pub(super) fn answer(
        &mut self,
        connection: ConnectionIndex,
        id: Option<CommandId>,
        reply: Reply,
    ) {
        let Some(socket) = self.sockets.get_mut(connection) else {
            return;
        };
        let completion = socket.client.answer(id, reply);
        self.send_answers(connection, completion);
    }

    pub(super) fn send_answers(&mut self, connection: ConnectionIndex, completion: Completion) {
        let Some(format) = self.hub.format(connection) else {
            return;
        };
        for answer in completion.answers {
            self.counts.publications += u64::from(matches!(answer.reply, Reply::Published { .. }));
            self.tools.scratch.clear();
            encode_reply(
                format,
                &answer.reply,
                answer.id.as_ref(),
                &mut self.tools.scratch,
            );
            self.hub.send(connection, &self.tools.scratch);
        }
    }

    /// Tells a client something that it did not ask.
    pub(super) fn push(&mut self, connection: ConnectionIndex, push: &Push) {
        let Some(format) = self.hub.format(connection) else {
            return;
        };
        if matches!(format, WireFormat::Json | WireFormat::MessagePack) {
            self.tools.scratch.clear();
            encode_push(format, push, &mut self.tools.scratch);
            self.hub.send(connection, &self.tools.scratch);
        }
    }
}

/// Who is present, as far as there is room for it.
pub(super) fn presence_reply(channel: ChannelKey, presence: Presence, room: usize) -> Reply {
    let more = presence.members.len() < presence.clients;
    Reply::Presence {
        channel,
        members: presence.members,
        clients: presence.clients,
        users: presence.users,
        more,
    }
    .fit(room)
}

/// Publishes, and answers so.
async fn published(relay: Arc<Relay>, publish: Publish) -> Reply {
    let channel = publish.channel.clone();
    match relay.broker().publish_one(publish).await {
        Ok(published) => Reply::Published {
            channel,
            position: published.position,
        },
        Err(error) => broker_error(error),
    }
}

/// The answer to a command that the broker could not do.
pub(super) fn broker_error(error: BrokerError) -> Reply {
    Reply::Error {
        code: error.code(),
        message: error.to_string(),
    }
}

/// The answer to a command that the store of sessions could not do.
fn store_error(error: StoreError) -> Reply {
    Reply::Error {
        code: ErrorCode::Unavailable,
        message: error.to_string(),
    }
}

/// The identity, unless the session that it was minted for has ended.
async fn still_alive(
    sessions: &Sessions,
    identity: Arc<Identity>,
) -> Result<Option<Arc<Identity>>, StoreError> {
    let is_alive = match identity.login_session {
        Some(login) => sessions.is_alive(&identity.user, login).await?,
        None => true,
    };
    Ok(is_alive.then_some(identity))
}

/// What the future has to say now. One that is not ready is polled again by a task, with a waker that wakes.
fn poll_once<T>(future: Pin<&mut (impl Future<Output = T> + ?Sized)>) -> Option<T> {
    match future.poll(&mut TaskContext::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}
