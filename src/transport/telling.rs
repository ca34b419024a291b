//! What back ends hear of a worker's clients.

use crate::events::{Event, Kind};
use crate::hub::ConnectionIndex;
use crate::model::{ChannelKey, CloseReason};

use super::shard::Shard;
use super::socket::{ConnectionRef, Socket};

impl Shard {
    /// A client connected. What is refused after its upgrade never did.
    pub(super) fn tell_connected(&mut self, connection: ConnectionRef) {
        let Some(socket) = self.sockets.find(connection) else {
            return;
        };
        if socket.is_echo() {
            return;
        }
        socket.is_told = true;
        let events = &self.context.events;
        events.tell(Kind::Connect, |event| describe(event, socket));
    }

    /// It went away, for this reason.
    pub(super) fn tell_disconnected(&mut self, connection: ConnectionIndex, reason: CloseReason) {
        let socket = self.sockets.get_mut(connection);
        if let Some(socket) = socket.filter(|socket| socket.is_told) {
            self.context.events.tell(Kind::Disconnect, |event| {
                describe(event, socket);
                event.reason = Some(reason.label());
            });
        }
    }

    /// It subscribed, or that ended.
    pub(super) fn tell_subscription(
        &mut self,
        kind: Kind,
        connection: ConnectionIndex,
        channel: &ChannelKey,
    ) {
        // Most nodes tell nobody, and a deploy ends all subscriptions at once.
        if !self.context.events.wants(kind) || channel.is_internal() {
            return;
        }
        if let Some(socket) = self.sockets.get_mut(connection) {
            self.context.events.tell(kind, |event| {
                describe(event, socket);
                event.channel = Some(channel.clone());
            });
        }
    }
}

fn describe(event: &mut Event, socket: &Socket) {
    let client = &socket.client;
    event.client = Some(client.id());
    event.user = client.identity().user.clone();
    event.session = client.session();
    event.transport = Some(if socket.is_websocket() { "ws" } else { "sse" });
}
