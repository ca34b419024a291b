//! One client: who it is, what it may, its signs of life and limits. What its commands ask is next door (`question`), the
//! order of its answers too (`answers`).

use std::sync::Arc;

use crate::auth::{Action, Identity, may};
use crate::limits::{Rate, TokenBucket};
use crate::model::{
    ChannelKey, ClientId, ErrorCode, Member, Moment, Namespaces, Origin, SessionId,
};
use crate::protocol::{CommandId, DecodeError, Reply};

use super::answers::{Answers, Completion, Ticket};
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
    answers: Answers,
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
            answers: Answers::default(),
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
        self.answers.can_take(is_barrier)
    }

    /// Whether more may be read of the client. Answers that are known at once wait behind open questions: who asks on
    /// and on meanwhile is read again when the questions are answered.
    pub fn may_read_on(&self) -> bool {
        self.answers.may_read_on()
    }

    /// Keeps a place in the order of answers for a question.
    pub fn open(&mut self, id: Option<CommandId>) -> Ticket {
        self.answers.open(id)
    }

    /// The answer to a question that kept a place.
    pub fn complete(&mut self, ticket: Ticket, reply: Reply) -> Completion {
        self.answers.complete(ticket, reply)
    }

    /// An answer that is known at once: it is sent now, or waits behind earlier ones.
    pub fn answer(&mut self, id: Option<CommandId>, reply: Reply) -> Completion {
        self.answers.answer(id, reply)
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

pub(super) fn error(code: ErrorCode, message: String) -> Reply {
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
