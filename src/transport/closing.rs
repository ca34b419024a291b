//! How connections end, and the timers that end them.

use std::time::Duration;

use crate::client::Signal;
use crate::hub::{ConnectionIndex, Frame};
use crate::model::{ChannelKey, CloseReason, Moment, WireFormat};
use crate::protocol::{sse, websocket};
use crate::telemetry::metrics::DropReason;

use super::shard::Shard;
use super::socket::{Carrier, Closing, Phase, Socket};

/// How long a peer may take to answer a close, and a socket to take what is left.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// No time.
pub(super) const NEVER: Moment = Moment::from_millis(u64::MAX);

impl Shard {
    /// Closes a connection for one reason: says so, as far as its protocol can, and lets it go when that is written.
    /// Closing again changes nothing.
    pub(super) fn close(&mut self, connection: ConnectionIndex, reason: CloseReason) {
        self.begin_close(connection, reason, Closing::default());
    }

    /// The same for a peer whose next bytes cannot be understood: nothing more is read of it.
    pub(super) fn close_deaf(&mut self, connection: ConnectionIndex, reason: CloseReason) {
        self.begin_close(
            connection,
            reason,
            Closing {
                is_deaf: true,
                ..Closing::default()
            },
        );
    }

    fn begin_close(&mut self, connection: ConnectionIndex, reason: CloseReason, closing: Closing) {
        let Some(socket) = self.sockets.get_mut(connection) else {
            return;
        };
        if socket.is_closing() {
            return;
        }
        let is_websocket = socket.is_websocket();
        socket.phase = Phase::Closing(Closing {
            peer_has_closed: !is_websocket,
            ..closing
        });
        socket.deferred = None;
        self.end_conversation(connection, reason);
        self.say_goodbye(connection, reason, is_websocket);
        self.schedule(connection);
    }

    fn say_goodbye(
        &mut self,
        connection: ConnectionIndex,
        reason: CloseReason,
        is_websocket: bool,
    ) {
        let is_too_slow = matches!(
            reason,
            CloseReason::SlowConsumer | CloseReason::NoPong | CloseReason::Inactive
        );
        let retry = self.retry_millis();
        let scratch = &mut self.tools.scratch;
        scratch.clear();
        if is_websocket {
            websocket::close_frame(reason, scratch);
        } else {
            // An event stream knows no close: it comes back by itself, after this time.
            sse::retry(retry, scratch);
        }
        self.hub
            .send_last(connection, &self.tools.scratch, is_too_slow);
    }

    /// The peer's close frame came.
    pub(super) fn peer_closes(&mut self, connection: ConnectionIndex, code: Option<(u16, &str)>) {
        let Some(socket) = self.sockets.get_mut(connection) else {
            return;
        };
        if let Phase::Closing(closing) = &mut socket.phase {
            closing.peer_has_closed = true;
            return self.finish_close(connection);
        }
        socket.phase = Phase::Closing(Closing {
            peer_has_closed: true,
            ..Closing::default()
        });
        socket.deferred = None;
        self.end_conversation(connection, CloseReason::ClientClosed);
        self.tools.scratch.clear();
        websocket::close_frame_echo(code, &mut self.tools.scratch);
        self.hub.send_last(connection, &self.tools.scratch, false);
        self.schedule(connection);
    }

    /// Everything was written to a connection on its way out: the socket ends when the peer has closed too; until then
    /// our side is shut, and what the peer still sends is read, so that no reset overtakes the close frame.
    pub(super) fn finish_close(&mut self, connection: ConnectionIndex) {
        let is_written = self
            .hub
            .queue(connection)
            .is_none_or(|queue| queue.is_empty());
        let Some(socket) = self.sockets.get_mut(connection) else {
            return;
        };
        let Phase::Closing(closing) = &mut socket.phase else {
            return;
        };
        if !is_written {
            return;
        }
        if closing.peer_has_closed {
            return self.let_go(connection);
        }
        if closing.is_deaf && !closing.is_shut {
            closing.is_shut = true;
            socket.stream.shut();
            self.poll.read_again(connection);
        }
    }

    /// Ends a connection without a word: its socket is gone, or of no use.
    pub(super) fn remove(&mut self, connection: ConnectionIndex, reason: CloseReason) {
        let Some(socket) = self.sockets.get_mut(connection) else {
            return;
        };
        if !socket.is_closing() {
            self.end_conversation(connection, reason);
        }
        self.let_go(connection);
    }

    fn let_go(&mut self, connection: ConnectionIndex) {
        self.wheel.clear(&mut self.sockets, connection);
        let mut vacated = Vec::new();
        self.hub.disconnect(connection, &mut vacated);
        // Closing the descriptor takes the socket out of the set as well.
        let Some(mut socket) = self.sockets.remove(connection) else {
            return;
        };
        socket.stream.part();
        self.count_connection(&socket.carrier, false);
        if socket.client.session().is_some() && socket.is_websocket() {
            let user = &socket.client.identity().user;
            self.context.sessions.closed(socket.client.id(), user);
        }
    }

    /// A conversation is over, for one reason.
    fn end_conversation(&mut self, connection: ConnectionIndex, reason: CloseReason) {
        self.counts.closed(reason);
        self.end_subscriptions(connection);
        self.tell_disconnected(connection, reason);
    }

    /// Ends all subscriptions of a connection.
    fn end_subscriptions(&mut self, connection: ConnectionIndex) {
        let channels: Vec<ChannelKey> = self.hub.subscriptions(connection).cloned().collect();
        for channel in &channels {
            self.leave(connection, channel);
        }
        let mut vacated = Vec::new();
        self.hub.begin_close(connection, &mut vacated);
        for channel in &vacated {
            self.vacate(channel);
        }
        if let Some(socket) = self.sockets.get_mut(connection) {
            socket.catch_ups = Vec::new();
        }
    }

    /// Closes those whose queue could not take what was meant for them, after shedding what is too much for all.
    pub(super) fn close_overflowed(&mut self) {
        self.hub.shed();
        for connection in self.hub.take_overflowed() {
            let pending = self
                .hub
                .queue(connection)
                .map_or(0, |queue| queue.pending_messages());
            self.counts.dropped(DropReason::Disconnect, pending as u64);
            self.close(connection, CloseReason::SlowConsumer);
        }
    }

    /// Sets the connection's timer to its next deadline.
    pub(super) fn schedule(&mut self, connection: ConnectionIndex) {
        let (now, rules) = (self.clock.now, &self.context.rules);
        let comment_interval = self.context.config.sse_comment_interval;
        let Some(socket) = self.sockets.get_mut(connection) else {
            return;
        };
        let deadline = match (&socket.phase, &socket.carrier) {
            (Phase::Closing(_), _) => now + CLOSE_TIMEOUT,
            (_, Carrier::Events { .. }) => (now + comment_interval).min(socket.client.expires_at()),
            _ => socket.client.next_deadline(rules),
        };
        let deadline = if socket.is_closing() {
            deadline
        } else {
            deadline.min(socket.drain_at)
        };
        self.wheel.set(&mut self.sockets, connection, deadline);
    }

    /// Serves the timers that are due.
    pub(super) fn fire_timers(&mut self) {
        let mut fired = Vec::new();
        self.wheel
            .advance(&mut self.sockets, self.clock.now, &mut fired);
        for connection in fired {
            self.fire(connection);
        }
    }

    fn fire(&mut self, connection: ConnectionIndex) {
        let now = self.clock.now;
        let Some(socket) = self.sockets.get_mut(connection) else {
            return;
        };
        if socket.is_closing() {
            return self.let_go(connection);
        }
        if now >= socket.drain_at {
            return self.close(connection, CloseReason::Drain);
        }
        if socket.client.is_expired(now) {
            return self.close(connection, CloseReason::TokenExpired);
        }
        if !socket.is_websocket() {
            self.use_sessions(connection);
            self.keep_awake(connection);
            return self.schedule(connection);
        }
        if socket.is_unheard() {
            // Its pong may lie behind the command that waits.
            socket.client.heartbeat().saw_pong(now);
        }
        match socket
            .client
            .heartbeat()
            .check(now, &self.context.rules.config)
        {
            Signal::Nothing => {}
            Signal::Ping => self.ping(connection),
            Signal::Close(reason) => return self.close(connection, reason),
        }
        self.schedule(connection);
    }

    /// Who is connected uses the sessions that it came with: they last as long as the connection does.
    fn use_sessions(&mut self, connection: ConnectionIndex) {
        let Some(socket) = self.sockets.get_mut(connection) else {
            return;
        };
        let user = &socket.client.identity().user;
        for session in socket.client.sessions() {
            self.context.sessions.saw(session, user);
        }
    }

    fn ping(&mut self, connection: ConnectionIndex) {
        self.use_sessions(connection);
        if !self.send_ping(connection) {
            return;
        }
        let (now, rules) = (self.clock.now, &self.context.rules);
        if let Some(socket) = self.sockets.get_mut(connection) {
            socket.client.heartbeat().expect_pong(now, &rules.config);
        }
    }

    /// Sends a ping behind whatever is pending: on a busy channel something always is. To a socket that takes nothing it
    /// would say nothing new; that it takes something is the answer then. Answers whether a sign of life is due; not when
    /// there was no room, which is over before the next ping.
    fn send_ping(&mut self, connection: ConnectionIndex) -> bool {
        let is_blocked = |socket: &mut Socket| socket.watches_writable;
        if self.sockets.get_mut(connection).is_none_or(is_blocked) {
            return true;
        }
        let speaks_json = self.hub.format(connection) == Some(WireFormat::Json);
        let json_ping = self.tools.json_ping.clone().filter(|_| speaks_json);
        let frames = [Some(self.tools.ping.clone()), json_ping];
        let bytes: usize = frames.iter().flatten().map(Frame::len).sum();
        if !self.hub.has_room_for(connection, bytes, frames.len()) {
            return false;
        }
        for frame in frames.into_iter().flatten() {
            self.hub.send_frame(connection, frame);
        }
        true
    }

    /// A comment goes into an empty queue only: what is pending keeps the stream awake as well.
    fn keep_awake(&mut self, connection: ConnectionIndex) {
        let is_empty = self
            .hub
            .queue(connection)
            .is_some_and(|queue| queue.is_empty());
        if is_empty {
            let comment = self.tools.comment.clone();
            self.hub.send_frame(connection, comment);
        }
    }

    /// The node ends now: whoever is here is told, as far as its socket takes it at once.
    pub(super) fn stop(&mut self) {
        let connections: Vec<ConnectionIndex> =
            self.sockets.iter().map(|(index, _)| index).collect();
        for connection in connections {
            self.close(connection, CloseReason::GoingAway);
            self.write(connection);
        }
    }

    /// The node drains: every connection gets a time within the window at which it is closed.
    pub(super) fn begin_drain(&mut self, window: Duration) {
        let connections: Vec<ConnectionIndex> =
            self.sockets.iter().map(|(index, _)| index).collect();
        for connection in connections {
            let at = self.clock.now + window.mul_f64(self.tools.jitter());
            if let Some(socket) = self.sockets.get_mut(connection) {
                socket.drain_at = at;
            }
            self.schedule(connection);
        }
    }
}
