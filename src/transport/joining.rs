//! Subscriptions: from the wish to the first publication, and their end.

use std::sync::Arc;

use crate::broker::{BrokerError, Recovery, Start};
use crate::client::Ticket;
use crate::events::Kind;
use crate::hub::{ConnectionIndex, Stage, Subscribed};
use crate::model::{ChannelKey, ErrorCode, Position};
use crate::protocol::{Push, Reply};
use crate::relay::follow::{self, Beginning, Welcome};

use super::questions::{Done, broker_error};
use super::shard::Shard;
use super::socket::{Cause, Joining, Opened};

/// The code of an `unsubscribed` push when the token no longer permits the channel.
const NOT_PERMITTED: u16 = 2501;

impl Shard {
    /// Subscribes. The answer is given when the broker has said where the stream stands and, where the client goes on
    /// from a position, what it missed.
    pub(super) fn join(&mut self, joining: Joining, watches: bool) {
        let overflow = self.context.rules.namespaces.of(&joining.channel).overflow;
        let connection = joining.connection.index;
        let subscribed = self
            .hub
            .subscribe(connection, &joining.channel, overflow, watches);
        if subscribed != Subscribed::Already {
            self.context.relay.count_subscriber(&joining.channel);
            self.counts.subscriptions += 1;
            self.tell_subscription(Kind::Subscribe, connection, &joining.channel);
        }
        match subscribed {
            Subscribed::Already => {}
            Subscribed::First(_) => {
                let (relay, worker) = (self.context.relay.clone(), self.worker);
                let channel = joining.channel.clone();
                self.waiting
                    .starting
                    .entry(channel.clone())
                    .or_default()
                    .push(joining);
                self.when_done(async move {
                    let start = relay.add_interest(worker, &channel).await;
                    Done::Started(channel, start)
                });
            }
            Subscribed::Joined(channel) => {
                if self
                    .hub
                    .channel(channel)
                    .is_some_and(|channel| channel.stage() == Stage::Starting)
                {
                    self.waiting
                        .starting
                        .entry(joining.channel.clone())
                        .or_default()
                        .push(joining);
                } else {
                    self.settle(joining);
                }
            }
        }
    }

    /// The broker said where a stream stands, or that it cannot.
    pub(super) fn started(&mut self, channel: &ChannelKey, start: Result<Start, BrokerError>) {
        let waiting = self.waiting.starting.remove(channel).unwrap_or_default();
        match start {
            Ok(position) => {
                if let Some(index) = self.hub.find_channel(channel)
                    && self.hub.start(index, position)
                {
                    self.missed(channel, 0);
                }
                for joining in waiting {
                    self.settle(joining);
                }
            }
            Err(error) => {
                for joining in waiting {
                    self.refuse_join(&joining, error);
                }
            }
        }
    }

    /// Whether the subscription that waited is still wanted.
    fn is_joining(&mut self, joining: &Joining) -> bool {
        let connection = joining.connection;
        self.sockets.find(connection).is_some()
            && self.hub.is_subscribed(connection.index, &joining.channel)
    }

    fn refuse_join(&mut self, joining: &Joining, error: BrokerError) {
        // What has ended meanwhile does not fail any more.
        if !self.is_joining(joining) {
            return self.give_up_join(joining);
        }
        let connection = joining.connection;
        self.unsubscribe(connection.index, &joining.channel);
        match joining.cause {
            Cause::Command(ticket) => self.complete(connection, ticket, broker_error(error)),
            Cause::Opening(_) => self.cannot_open(connection.index),
            Cause::Server => {}
        }
    }

    /// The subscription was ended before it began: by a back end, or because the client may not have it any more. The
    /// command is answered all the same, since those behind it wait for that.
    fn give_up_join(&mut self, joining: &Joining) {
        if let Cause::Command(ticket) = joining.cause {
            let reply = Reply::Error {
                code: ErrorCode::NotSubscribed,
                message: "the subscription was ended before it began".to_owned(),
            };
            self.complete(joining.connection, ticket, reply);
        }
    }

    /// The stream's position is known here: decides where the subscriber begins, or asks.
    fn settle(&mut self, joining: Joining) {
        if !self.is_joining(&joining) {
            return self.give_up_join(&joining);
        }
        let Some(channel) = self.hub.find_channel(&joining.channel) else {
            return;
        };
        let position = self
            .hub
            .channel(channel)
            .and_then(|channel| channel.position());
        let can_recover = self
            .context
            .rules
            .namespaces
            .of(&joining.channel)
            .can_recover();
        let claimed = joining.recover.as_ref();
        let claimed = claimed.map(|claimed| Some(Position::new(claimed.epoch?, claimed.offset)));
        match follow::welcome(claimed, position, can_recover) {
            Welcome::Begin(beginning) => self.begin(joining, beginning),
            Welcome::Ask(claimed) => {
                let relay = self.context.relay.clone();
                let limit = self.page_limit(joining.connection.index);
                self.when_done(async move {
                    let recovery = relay
                        .broker()
                        .recover(&joining.channel, claimed, limit)
                        .await;
                    Done::Recovered(Box::new(joining), recovery)
                });
            }
        }
    }

    /// What a new subscriber missed, or that nobody can say.
    pub(super) fn recovered(&mut self, joining: Joining, recovery: Result<Recovery, BrokerError>) {
        if !self.is_joining(&joining) {
            return self.give_up_join(&joining);
        }
        let Some(channel) = self.hub.find_channel(&joining.channel) else {
            return;
        };
        let top = self
            .hub
            .channel(channel)
            .and_then(|channel| channel.position());
        let asked = joining.recover.as_ref().map_or(0, |claimed| claimed.offset);
        match recovery {
            Ok(recovery) => self.begin(joining, follow::welcome_back(asked, recovery, top)),
            Err(error) => self.refuse_join(&joining, error),
        }
    }

    /// Answers, sends what was missed, and lets the subscriber receive.
    fn begin(&mut self, joining: Joining, beginning: Beginning) {
        let Joining {
            connection,
            channel,
            cause,
            ..
        } = joining;
        let Beginning {
            position,
            recovered,
            missed,
        } = beginning;
        match cause {
            Cause::Opening(at) => {
                let opened = Opened {
                    has_ended: false,
                    position,
                    is_lost: recovered == Some(false),
                    missed,
                };
                return self.opened(connection, at, opened);
            }
            Cause::Command(ticket) => {
                self.say_subscribed(connection, ticket, &channel, position, recovered);
            }
            Cause::Server => {
                let reply = Reply::Subscribed {
                    channel: channel.clone(),
                    position,
                    recovered: None,
                };
                self.answer(connection.index, None, reply);
            }
        }
        self.receive(connection, &channel, position, missed);
        self.enter(connection.index, &channel);
        // Commands behind a subscribe wait until what it asked for has begun.
        self.go_on(connection.index);
    }

    fn say_subscribed(
        &mut self,
        connection: super::socket::ConnectionRef,
        ticket: Ticket,
        channel: &ChannelKey,
        position: Option<Position>,
        recovered: Option<bool>,
    ) {
        let reply = Reply::Subscribed {
            channel: channel.clone(),
            position,
            recovered,
        };
        let Some(socket) = self.sockets.find(connection) else {
            return;
        };
        let completion = socket.client.complete(ticket, reply);
        self.send_answers(connection.index, completion);
    }

    /// Makes a subscriber present.
    pub(super) fn enter(&mut self, connection: ConnectionIndex, channel: &ChannelKey) {
        if !self.context.rules.namespaces.of(channel).presence {
            return;
        }
        let Some(socket) = self.sockets.get_mut(connection) else {
            return;
        };
        let member = Arc::new(socket.client.member());
        let (relay, channel) = (self.context.relay.clone(), channel.clone());
        run_aside(async move { relay.broker().join(&channel, member).await.is_ok() });
    }

    /// A refreshed token may permit less: ends the subscriptions that it does not, and says so.
    pub(super) fn end_what_is_not_permitted(&mut self, connection: ConnectionIndex) {
        let channels: Vec<ChannelKey> = self.hub.subscriptions(connection).cloned().collect();
        let rules = self.context.rules.clone();
        for channel in channels {
            let Some(socket) = self.sockets.get_mut(connection) else {
                return;
            };
            if !socket.client.may_keep(&channel, &rules) {
                self.unsubscribe(connection, &channel);
                let (code, reason) = (NOT_PERMITTED, "no longer permitted");
                self.push(
                    connection,
                    &Push::Unsubscribed {
                        channel,
                        code,
                        reason,
                    },
                );
            }
        }
    }

    /// Ends a subscription, begun or not.
    pub(super) fn unsubscribe(&mut self, connection: ConnectionIndex, channel: &ChannelKey) {
        let Some(is_vacant) = self.hub.unsubscribe(connection, channel) else {
            return;
        };
        if let Some(socket) = self.sockets.get_mut(connection) {
            socket
                .catch_ups
                .retain(|catch_up| catch_up.channel != *channel);
            socket.client.end_grant(channel);
        }
        self.leave(connection, channel);
        if is_vacant {
            self.vacate(channel);
        }
    }

    /// A subscription is over: counts and presence. Leaving where one never was present is harmless.
    pub(super) fn leave(&mut self, connection: ConnectionIndex, channel: &ChannelKey) {
        self.context.relay.discount_subscriber(channel);
        self.counts.subscriptions = self.counts.subscriptions.saturating_sub(1);
        self.tell_subscription(Kind::Unsubscribe, connection, channel);
        if !self.context.rules.namespaces.of(channel).presence {
            return;
        }
        let Some(socket) = self.sockets.get_mut(connection) else {
            return;
        };
        let (relay, channel, client) = (
            self.context.relay.clone(),
            channel.clone(),
            socket.client.id(),
        );
        run_aside(async move { relay.broker().leave(&channel, client).await.is_ok() });
    }

    /// A channel has no subscriber here any more.
    pub(super) fn vacate(&mut self, channel: &ChannelKey) {
        let (relay, worker, channel) = (self.context.relay.clone(), self.worker, channel.clone());
        run_aside(async move {
            match relay.remove_interest(worker, &channel) {
                Some(removed) => removed.await.is_ok(),
                None => true,
            }
        });
    }
}

/// Asks for something whose answer changes nothing here. It begins at once, so that what is asked is asked in order.
fn run_aside(asked: impl Future<Output = bool> + 'static) {
    let mut asked = Box::pin(asked);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    if asked.as_mut().poll(&mut context).is_pending() {
        tokio::task::spawn_local(async move {
            if !asked.await {
                tracing::debug!("the broker could not be told of a change of interest or presence");
            }
        });
    }
}
