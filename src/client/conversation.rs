//! What a client says, and what becomes of it.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::auth::{Action, Identity, may};
use crate::limits::{Rate, TokenBucket};
use crate::model::{
    ChannelKey, ClientId, ErrorCode, Member, Moment, Namespaces, Origin, Payload, SessionId,
};
use crate::protocol::{ClaimedPosition, Command, CommandId, DecodeError, Reply};

use super::{Config, Heartbeat};

/// What a conversation is judged by; one value for all clients of a worker.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Heartbeat and limits.
    pub config: Config,
    /// What each namespace allows.
    pub namespaces: Arc<Namespaces>,
    /// This node, for the answers that name it.
    pub gateway_id: Arc<str>,
}

/// One client's conversation.
#[derive(Debug)]
pub struct Client {
    id: ClientId,
    identity: Arc<Identity>,
    /// The session that it came with. Most clients have none.
    session: Option<Box<NamedSession>>,
    heartbeat: Heartbeat,
    commands: TokenBucket,
    /// When the token ends, in the worker's time; the far future for a token without an end.
    expires_at: Moment,
    /// Answers that wait for an earlier one. Most clients never have any.
    waiting: Option<Box<Waiting>>,
    /// Channels that a back end subscribed it to: no token decides about them.
    granted: Vec<ChannelKey>,
}

/// The session that a connection was opened with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedSession {
    /// As the client named it.
    pub text: Arc<str>,
    /// The session, when it was found to be this user's; without, the name is only repeated.
    pub verified: Option<SessionId>,
}

/// The place of an answer in the order of answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket(u64);

/// An answer that may be sent now.
#[derive(Debug, PartialEq)]
pub struct Answer {
    /// What the client called its command by.
    pub id: Option<CommandId>,
    /// The answer.
    pub reply: Reply,
}

/// Answers that are asked for and not yet sent, in order.
#[derive(Debug, Default)]
struct Waiting {
    /// The ticket of the first of `answers`.
    first: u64,
    answers: VecDeque<(Option<CommandId>, Option<Reply>)>,
}

/// The most questions that one client may have open; its socket is not read while there are as many.
const QUESTIONS_MAX: usize = 64;

/// What one command asks for.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// Answer at once.
    Answer(Reply),
    /// Ask, then bring the answer to [`Client::complete`].
    Ask(Question),
    /// Nothing is answered.
    Nothing,
}

/// What the transport must ask others.
#[derive(Debug, PartialEq)]
pub enum Question {
    /// Subscribe; permitted.
    Subscribe {
        /// To what.
        channel: ChannelKey,
        /// Where to go on from.
        recover: Option<ClaimedPosition>,
        /// Whether join and leave are wanted, and available.
        watches: bool,
    },
    /// Unsubscribe.
    Unsubscribe {
        /// From what.
        channel: ChannelKey,
    },
    /// Publish; permitted.
    Publish {
        /// Where.
        channel: ChannelKey,
        /// What.
        data: Payload,
        /// What `latest` keeps one of.
        key: Option<Arc<str>>,
    },
    /// Read history; permitted.
    History {
        /// Of what.
        channel: ChannelKey,
        /// The most publications; `None` for as many as fit.
        limit: Option<u32>,
        /// After which position.
        since: Option<ClaimedPosition>,
    },
    /// Read presence; permitted.
    Presence {
        /// Of what.
        channel: ChannelKey,
    },
    /// Keep a key in the session's data.
    UpdateApiKey {
        /// The session.
        session: SessionId,
        /// The key.
        key: Box<str>,
    },
    /// Verify a token and bring the identity to [`Client::refresh`].
    Refresh {
        /// The token.
        token: Box<str>,
    },
}

impl Question {
    /// Whether it must wait until every earlier question is answered: what follows depends on it.
    pub fn is_barrier(&self) -> bool {
        !matches!(
            self,
            Self::Publish { .. }
                | Self::History { .. }
                | Self::Presence { .. }
                | Self::UpdateApiKey { .. }
        )
    }
}

/// What became of a completion: the answers that may be sent now, in order.
#[derive(Debug, Default)]
pub struct Completion {
    /// In the order of their commands.
    pub answers: Vec<Answer>,
}

/// No end.
const NEVER: Moment = Moment::from_millis(u64::MAX);

impl Client {
    /// A conversation that begins now. `jitter` in 0..1 spreads heartbeats.
    pub fn new(
        identity: Arc<Identity>,
        session: Option<Box<NamedSession>>,
        rules: &Rules,
        now: Moment,
        unix_seconds: u64,
        jitter: f64,
    ) -> Self {
        let expires_at = expiry(&identity, now, unix_seconds);
        Self {
            id: ClientId::random(),
            identity,
            session,
            heartbeat: Heartbeat::new(now, &rules.config, jitter),
            commands: TokenBucket::full(command_rate(rules), now),
            expires_at,
            waiting: None,
            granted: Vec::new(),
        }
    }

    /// The connection's id.
    pub fn id(&self) -> ClientId {
        self.id
    }

    /// Who it is.
    pub fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// The session it named.
    pub fn session_id(&self) -> Option<&Arc<str>> {
        self.session.as_ref().map(|session| &session.text)
    }

    /// The session whose data are this connection's.
    pub fn session(&self) -> Option<SessionId> {
        self.session.as_ref().and_then(|session| session.verified)
    }

    /// The sessions with which it ends: the one that it named, and the one that its token was minted for.
    pub fn sessions(&self) -> impl Iterator<Item = SessionId> {
        self.session()
            .into_iter()
            .chain(self.identity.login_session)
    }

    /// Its heartbeat.
    pub fn heartbeat(&mut self) -> &mut Heartbeat {
        &mut self.heartbeat
    }

    /// When [`Client::is_expired`] or the heartbeat has something to say at the earliest.
    pub fn next_deadline(&self, rules: &Rules) -> Moment {
        self.heartbeat
            .next_deadline(&rules.config)
            .min(self.expires_at)
    }

    /// When the token ends.
    pub fn expires_at(&self) -> Moment {
        self.expires_at
    }

    /// Whether the token's time is over.
    pub fn is_expired(&self, now: Moment) -> bool {
        now >= self.expires_at
    }

    /// Seconds until the token ends; `None` without an end.
    pub fn expires_in(&self, now: Moment) -> Option<u64> {
        (self.expires_at != NEVER).then(|| self.expires_at.since(now).as_secs())
    }

    /// How it is shown in presence.
    pub fn member(&self) -> Member {
        Member {
            client: self.id,
            user: self.identity.user.clone(),
            info: self.identity.info.clone(),
        }
    }

    /// How its publications are signed.
    pub fn origin(&self) -> Origin {
        Origin {
            client: self.id,
            user: self.identity.user.clone(),
        }
    }

    /// Whether a further command may be handled now, or must wait for open questions.
    pub fn can_take(&self, is_barrier: bool) -> bool {
        let open = self.waiting_count();
        open == 0 || (!is_barrier && open < QUESTIONS_MAX)
    }

    /// Whether more may be read of the client. Answers that are known at once wait behind open questions: who asks on
    /// and on meanwhile is read again when the questions are answered.
    pub fn may_read_on(&self) -> bool {
        self.waiting_count() < QUESTIONS_MAX
    }

    fn waiting_count(&self) -> usize {
        self.waiting
            .as_ref()
            .map_or(0, |waiting| waiting.answers.len())
    }

    /// Whether the command fits the rate; when not, it is answered with `rate_limited`.
    pub fn admit(&mut self, now: Moment, rules: &Rules) -> Result<(), Reply> {
        self.heartbeat.saw(now);
        if rules.config.command_rate == 0 || self.commands.take(now, 1, command_rate(rules)).is_ok()
        {
            return Ok(());
        }
        Err(error(
            ErrorCode::RateLimited,
            format!("over {} commands a second", rules.config.command_rate),
        ))
    }

    /// What a command asks for. `subscriptions` is how many channels the client has, `is_subscribed` whether the
    /// command's channel is among them.
    pub fn handle(
        &mut self,
        command: Command,
        subscriptions: usize,
        is_subscribed: impl Fn(&ChannelKey) -> bool,
        rules: &Rules,
        unix_time: f64,
    ) -> Step {
        match command {
            Command::Subscribe {
                channel,
                recover,
                presence,
            } => self.subscribe(
                channel,
                recover,
                presence,
                subscriptions,
                is_subscribed,
                rules,
            ),
            Command::Unsubscribe { channel } => unsubscribe(channel, is_subscribed),
            Command::Publish { channel, data, key } => self.publish(channel, data, key, rules),
            Command::History {
                channel,
                limit,
                since,
            } => self.history(channel, limit, since, rules),
            Command::Presence { channel } => self.presence(channel, rules),
            Command::Ping => Step::Answer(Reply::Pong {
                timestamp: unix_time,
            }),
            Command::Pong => Step::Nothing,
            Command::Refresh { token } => Step::Ask(Question::Refresh { token }),
            Command::UpdateApiKey { key } => match self.session() {
                Some(session) => Step::Ask(Question::UpdateApiKey { session, key }),
                None => Step::Answer(self.api_key_updated(key, rules)),
            },
            Command::Unknown { kind } => Step::Answer(error(
                ErrorCode::BadRequest,
                format!("Unknown message type: {kind}"),
            )),
        }
    }

    fn subscribe(
        &self,
        channel: ChannelKey,
        recover: Option<ClaimedPosition>,
        presence: bool,
        subscriptions: usize,
        is_subscribed: impl Fn(&ChannelKey) -> bool,
        rules: &Rules,
    ) -> Step {
        let namespace = rules.namespaces.of(&channel);
        if !may(&self.identity, namespace, Action::Subscribe, &channel) {
            return Step::Answer(self.forbidden("subscribe"));
        }
        let is_subscribed = is_subscribed(&channel);
        // A subscribe with a position on a channel that the token subscribed it to restarts it there.
        if is_subscribed && !(recover.is_some() && self.identity.channels.contains(&channel)) {
            let text = format!("subscribed to {} already", channel.name());
            return Step::Answer(error(ErrorCode::AlreadySubscribed, text));
        }
        if !is_subscribed && subscriptions >= rules.config.channels_max {
            let text = format!(
                "over {} channels on one connection",
                rules.config.channels_max
            );
            return Step::Answer(error(ErrorCode::TooManyChannels, text));
        }
        let watches = presence
            && namespace.presence
            && namespace.join_leave
            && may(&self.identity, namespace, Action::Presence, &channel);
        Step::Ask(Question::Subscribe {
            channel,
            recover,
            watches,
        })
    }

    fn publish(
        &self,
        channel: ChannelKey,
        data: Payload,
        key: Option<Arc<str>>,
        rules: &Rules,
    ) -> Step {
        let namespace = rules.namespaces.of(&channel);
        if !may(&self.identity, namespace, Action::Publish, &channel) {
            return Step::Answer(self.forbidden("publish"));
        }
        if data.len() > namespace.publication_bytes_max {
            let text = format!(
                "data has {} bytes, at most {} are allowed",
                data.len(),
                namespace.publication_bytes_max
            );
            return Step::Answer(error(ErrorCode::TooLarge, text));
        }
        Step::Ask(Question::Publish { channel, data, key })
    }

    fn history(
        &self,
        channel: ChannelKey,
        limit: Option<u32>,
        since: Option<ClaimedPosition>,
        rules: &Rules,
    ) -> Step {
        let namespace = rules.namespaces.of(&channel);
        if !may(&self.identity, namespace, Action::History, &channel) {
            return Step::Answer(self.forbidden("history"));
        }
        if !namespace.history.is_on() {
            let text = format!("{} keeps no history", channel.name());
            return Step::Answer(error(ErrorCode::NotAvailable, text));
        }
        Step::Ask(Question::History {
            channel,
            limit,
            since,
        })
    }

    fn presence(&self, channel: ChannelKey, rules: &Rules) -> Step {
        let namespace = rules.namespaces.of(&channel);
        if !may(&self.identity, namespace, Action::Presence, &channel) {
            return Step::Answer(self.forbidden("presence"));
        }
        if !namespace.presence {
            let text = format!("{} keeps no presence", channel.name());
            return Step::Answer(error(ErrorCode::NotAvailable, text));
        }
        Step::Ask(Question::Presence { channel })
    }

    /// The answer to an API key that was kept, as far as there is a session to keep it in.
    pub fn api_key_updated(&self, api_key: Box<str>, rules: &Rules) -> Reply {
        Reply::ApiKeyUpdated {
            api_key,
            session_id: self.session_id().cloned(),
            gateway_id: rules.gateway_id.clone(),
        }
    }

    fn forbidden(&self, what: &str) -> Reply {
        // Who has no role is a user like any other.
        let role = Some(&*self.identity.role)
            .filter(|role| !role.is_empty())
            .unwrap_or("user");
        error(
            ErrorCode::Forbidden,
            format!("Unauthorized: role '{role}' cannot send '{what}'"),
        )
    }

    /// A back end subscribed it to a channel.
    pub fn grant(&mut self, channel: ChannelKey) {
        if !self.granted.contains(&channel) {
            self.granted.push(channel);
        }
    }

    /// It is subscribed to the channel no more: what a back end granted is over.
    pub fn end_grant(&mut self, channel: &ChannelKey) {
        self.granted.retain(|granted| granted != channel);
        if self.granted.is_empty() {
            self.granted = Vec::new();
        }
    }

    /// Whether it may keep a subscription now that its identity is another.
    pub fn may_keep(&self, channel: &ChannelKey, rules: &Rules) -> bool {
        self.granted.contains(channel)
            || may(
                &self.identity,
                rules.namespaces.of(channel),
                Action::Subscribe,
                channel,
            )
    }

    /// The channels that the token subscribes it to and that it may have.
    pub fn own_channels(&self, rules: &Rules) -> Vec<ChannelKey> {
        let is_permitted = |channel: &&ChannelKey| {
            let namespace = rules.namespaces.of(channel);
            may(&self.identity, namespace, Action::Subscribe, channel)
        };
        let channels = self.identity.channels.iter().filter(is_permitted);
        channels.take(rules.config.channels_max).cloned().collect()
    }

    /// Puts a verified identity in place of the one that expires. `None` when it is not the same user's.
    pub fn refresh(
        &mut self,
        identity: Arc<Identity>,
        now: Moment,
        unix_seconds: u64,
    ) -> Option<Reply> {
        if identity.user != self.identity.user {
            return None;
        }
        // What a back end said of this connection holds for its next token too.
        let identity = match &self.identity.supplement {
            Some(supplement) => Arc::new(identity.supplemented(supplement)),
            None => identity,
        };
        self.expires_at = expiry(&identity, now, unix_seconds);
        self.identity = identity;
        Some(Reply::Refreshed {
            expires_in: self.expires_in(now),
        })
    }

    /// Keeps a place in the order of answers for a question.
    pub fn open(&mut self, id: Option<CommandId>) -> Ticket {
        let waiting = self.waiting.get_or_insert_default();
        waiting.answers.push_back((id, None));
        Ticket(waiting.first + waiting.answers.len() as u64 - 1)
    }

    /// The answer to a question that kept a place.
    pub fn complete(&mut self, ticket: Ticket, reply: Reply) -> Completion {
        let Some(waiting) = self.waiting.as_mut() else {
            return Completion::default();
        };
        // A ticket that was answered already is nobody's now.
        let at = ticket.0.checked_sub(waiting.first);
        let slot = at.and_then(|at| waiting.answers.get_mut(usize::try_from(at).ok()?));
        if let Some((_, slot @ None)) = slot {
            *slot = Some(reply);
        }
        self.ready()
    }

    /// An answer that is known at once: it is sent now, or waits behind earlier ones.
    pub fn answer(&mut self, id: Option<CommandId>, reply: Reply) -> Completion {
        match self.waiting.as_mut() {
            None => Completion {
                answers: vec![Answer { id, reply }],
            },
            Some(waiting) => {
                waiting.answers.push_back((id, Some(reply)));
                self.ready()
            }
        }
    }

    fn ready(&mut self) -> Completion {
        let mut completion = Completion::default();
        let Some(waiting) = self.waiting.as_mut() else {
            return completion;
        };
        while let Some((id, Some(reply))) =
            waiting.answers.pop_front_if(|(_, reply)| reply.is_some())
        {
            waiting.first += 1;
            completion.answers.push(Answer { id, reply });
        }
        if waiting.answers.is_empty() {
            self.waiting = None;
        }
        completion
    }
}

fn unsubscribe(channel: ChannelKey, is_subscribed: impl Fn(&ChannelKey) -> bool) -> Step {
    if is_subscribed(&channel) {
        return Step::Ask(Question::Unsubscribe { channel });
    }
    Step::Answer(error(
        ErrorCode::NotSubscribed,
        format!("not subscribed to {}", channel.name()),
    ))
}

/// The rate is the burst as well.
fn command_rate(rules: &Rules) -> Rate {
    Rate::new(rules.config.command_rate, rules.config.command_rate)
}

fn expiry(identity: &Identity, now: Moment, unix_seconds: u64) -> Moment {
    identity.expires_at.map_or(NEVER, |at| {
        now + std::time::Duration::from_secs(at.saturating_sub(unix_seconds))
    })
}

fn error(code: ErrorCode, message: String) -> Reply {
    Reply::Error { code, message }
}

impl From<DecodeError> for Reply {
    fn from(error: DecodeError) -> Self {
        Self::Error {
            code: error.code,
            message: error.message,
        }
    }
}
