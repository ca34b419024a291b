//! What a client's commands ask, and what of it may be answered at once.

use std::sync::Arc;

use crate::auth::{Action, may};
use crate::model::{ChannelKey, ErrorCode, Payload, SessionId};
use crate::protocol::{ClaimedPosition, Command, Reply};

use super::conversation::{Client, Rules, error};

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

impl Client {
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
        if !may(self.identity(), namespace, Action::Subscribe, &channel) {
            return Step::Answer(self.forbidden("subscribe"));
        }
        let is_subscribed = is_subscribed(&channel);
        // A subscribe with a position on a channel that the token subscribed it to restarts it there.
        if is_subscribed && !(recover.is_some() && self.identity().channels.contains(&channel)) {
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
            && may(self.identity(), namespace, Action::Presence, &channel);
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
        if !may(self.identity(), namespace, Action::Publish, &channel) {
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
        if !may(self.identity(), namespace, Action::History, &channel) {
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
        if !may(self.identity(), namespace, Action::Presence, &channel) {
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
        let role = Some(&*self.identity().role)
            .filter(|role| !role.is_empty())
            .unwrap_or("user");
        error(
            ErrorCode::Forbidden,
            format!("Unauthorized: role '{role}' cannot send '{what}'"),
        )
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
