//! What the relay brings: publications into the hub, orders to connections.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use crate::broker::{Control, Target};
use crate::hub::{ChannelIndex, ConnectionIndex, Verdict};
use crate::model::{ChannelKey, CloseReason, Envelope, Event, Publication, SessionId, UserId};
use crate::protocol::Push;
use crate::relay::Message;

use super::shard::Shard;
use super::socket::{Cause, ConnectionRef, Joining, Phase};

/// The code of an `unsubscribed` push when a back end ended the subscription.
const UNSUBSCRIBED_BY_API: u16 = 2500;

/// The publications of one drain of the inbox, by channel, in the order in which the channels first came.
#[derive(Debug, Default)]
struct Batch {
    channels: Vec<(ChannelIndex, bool, Vec<Arc<Publication>>)>,
    /// Where each channel stands in `channels`.
    at: hashbrown::HashMap<ChannelIndex, usize>,
}

impl Batch {
    fn add(&mut self, channel: ChannelIndex, first_of_epoch: bool, publication: Arc<Publication>) {
        if let Some((_, _, publications)) = self
            .channels
            .last_mut()
            .filter(|(last, ..)| *last == channel)
        {
            return publications.push(publication);
        }
        let at = *self.at.entry(channel).or_insert(self.channels.len());
        match self.channels.get_mut(at) {
            Some((_, _, publications)) => publications.push(publication),
            None => self
                .channels
                .push((channel, first_of_epoch, vec![publication])),
        }
    }
}

impl Shard {
    /// Takes in what came out of the inbox, as far as is allowed: all publications of a channel go out as one frame, but for
    /// those behind an order or a hole. Who is told of a hole has all from before it, and nothing from behind it.
    pub(super) fn take_in(&mut self, messages: &mut VecDeque<Message>) {
        while !messages.is_empty() && self.waiting.allowance.is_left() {
            self.take_in_batch(messages);
        }
    }

    fn take_in_batch(&mut self, messages: &mut VecDeque<Message>) {
        let began = Instant::now();
        let mut batch = Batch::default();
        let mut after = Vec::new();
        while self.waiting.allowance.is_left() {
            let Some(message) = messages.pop_front() else {
                break;
            };
            match message {
                Message::Envelope(envelope) => self.take_envelope(envelope, &mut batch, &mut after),
                other => {
                    after.push(other);
                    break;
                }
            }
        }
        let has_publications = !batch.channels.is_empty();
        for (channel, first_of_epoch, publications) in batch.channels {
            let delivered =
                self.hub
                    .deliver(channel, &publications, first_of_epoch, &mut self.encoder);
            self.count(delivered);
        }
        if has_publications {
            self.counts.fan_out_took(began.elapsed());
        }
        for message in after {
            self.take_after(message);
        }
    }

    fn take_envelope(&mut self, envelope: Envelope, batch: &mut Batch, after: &mut Vec<Message>) {
        let Some(channel) = self.hub.find_channel(&envelope.channel) else {
            return;
        };
        let Event::Publication(publication) = envelope.event else {
            return self.announce(channel, &envelope.channel, envelope.event);
        };
        match self.hub.judge(channel, envelope.epoch, publication.offset) {
            Verdict::Next { first_of_epoch } => {
                self.waiting.allowance.spend(publication.data.len());
                batch.add(channel, first_of_epoch, publication);
            }
            Verdict::PassOver | Verdict::Unwanted => {}
            Verdict::Hole => {
                // Passed over from now on; read again when what came before it has been delivered.
                let event = Event::Publication(publication);
                after.push(Message::Envelope(Envelope { event, ..envelope }));
            }
        }
    }

    fn take_after(&mut self, message: Message) {
        match message {
            Message::Envelope(Envelope {
                channel,
                event: Event::Publication(publication),
                ..
            }) => {
                self.missed(&channel, publication.offset);
            }
            Message::Envelope(_) => {}
            Message::Hole(Some(channel)) => self.missed(&channel, 0),
            Message::Hole(None) => self.missed_everywhere(),
            Message::Changed => self.read_all_again(),
            Message::Control(control) => self.obey(control),
        }
    }

    fn obey(&mut self, control: Control) {
        match control {
            Control::Disconnect(target) => self.close_all(&target, CloseReason::Disconnected),
            Control::LogOut(user) => self.close_all(&Target::User(user), CloseReason::LoggedOut),
            Control::EndSessions(user, ended) => self.end_sessions(&user, &ended),
            Control::Subscribe(target, channel) => {
                for connection in self.targets(&target) {
                    self.subscribe_for(connection, &channel);
                }
            }
            Control::Unsubscribe(target, channel) => {
                for connection in self.targets(&target) {
                    self.unsubscribe_for(connection, &channel);
                }
            }
            Control::EndStreams(channel) => self.end_streams(&channel),
            // Of no worker: the relay has told whoever it is about.
            Control::Purge(_) => {}
        }
    }

    /// Closes the event streams of a channel.
    fn end_streams(&mut self, channel: &ChannelKey) {
        let open = self.sockets.iter();
        let open = open.filter(|(_, socket)| !socket.is_closing() && !socket.is_websocket());
        let open: Vec<ConnectionIndex> = open.map(|(index, _)| index).collect();
        for connection in open {
            if self.hub.is_subscribed(connection, channel) {
                self.close(connection, CloseReason::Disconnected);
            }
        }
    }

    fn close_all(&mut self, target: &Target, reason: CloseReason) {
        for connection in self.targets(target) {
            self.close(connection, reason);
        }
    }

    /// Closes the user's connections that belong to a session that has ended.
    fn end_sessions(&mut self, user: &UserId, ended: &[SessionId]) {
        self.ended.note(self.clock.now, ended);
        self.context.verifier.end_logins(ended);
        let connections = self.targets(&Target::User(user.clone()));
        for connection in connections {
            let Some(socket) = self.sockets.get_mut(connection) else {
                continue;
            };
            if socket
                .client
                .sessions()
                .any(|session| ended.contains(&session))
            {
                self.close(connection, CloseReason::LoggedOut);
            }
        }
    }

    /// The connections that are meant. Looks at each one: orders are rare, an index by user would cost every connection.
    fn targets(&self, target: &Target) -> Vec<ConnectionIndex> {
        let is_meant = |socket: &super::socket::Socket| match target {
            Target::User(user) => socket.client.identity().user == *user,
            Target::Client(client) => socket.client.id() == *client,
        };
        let open = self
            .sockets
            .iter()
            .filter(|(_, socket)| !socket.is_closing() && is_meant(socket));
        open.map(|(index, _)| index).collect()
    }

    /// A back end subscribes a connection. Not an event stream: its channels are those of its request.
    fn subscribe_for(&mut self, connection: ConnectionIndex, channel: &ChannelKey) {
        let most = self.context.rules.config.channels_max;
        if self.hub.subscription_count(connection) >= most
            || self.hub.is_subscribed(connection, channel)
        {
            return;
        }
        let Some(socket) = self.sockets.get_mut(connection) else {
            return;
        };
        if !socket.is_websocket() || !matches!(socket.phase, Phase::Open) {
            return;
        }
        socket.client.grant(channel.clone());
        let connection = ConnectionRef {
            index: connection,
            generation: socket.generation,
        };
        self.join(
            Joining {
                connection,
                channel: channel.clone(),
                recover: None,
                cause: Cause::Server,
            },
            false,
        );
    }

    fn unsubscribe_for(&mut self, connection: ConnectionIndex, channel: &ChannelKey) {
        if !self.hub.is_subscribed(connection, channel) {
            return;
        }
        self.unsubscribe(connection, channel);
        if !self.leave_opening(connection, channel) {
            self.say_unsubscribed(connection, channel);
        }
    }

    /// Says that a back end ended the subscription.
    pub(super) fn say_unsubscribed(&mut self, connection: ConnectionIndex, channel: &ChannelKey) {
        let reason = "unsubscribed by the API";
        self.push(
            connection,
            &Push::Unsubscribed {
                channel: channel.clone(),
                code: UNSUBSCRIBED_BY_API,
                reason,
            },
        );
    }
}
