//! From a socket's bytes to commands.

use std::io::ErrorKind;
use std::ops::ControlFlow;

use crate::client::Step;
use crate::hub::ConnectionIndex;
use crate::model::{CloseReason, WireFormat};
use crate::protocol::websocket::{self, Event, Limits, Opcode};
use crate::protocol::{DecodeError, Request, plain};
use crate::telemetry::metrics::CommandKind;

use super::poll::READ_BYTES;
use super::shard::{Shard, unix_time};
use super::socket::{Carrier, Deferred, Phase, Socket};

/// How many sockets of the ready list are read in one turn.
const READS_A_TURN: usize = 64;

impl Shard {
    /// Serves what the poll brought, then some of the sockets that had more to read.
    pub(super) fn serve_events(&mut self) {
        let news = self.poll.take_news();
        let again = self.poll.unread_count().min(READS_A_TURN);
        for ready in &news {
            if ready.is_writable {
                self.write(ready.connection);
            }
            if ready.is_readable {
                self.read(ready.connection, ready.is_last);
            }
        }
        self.poll.give_back(news);
        for _ in 0..again {
            if let Some(connection) = self.poll.next_unread() {
                self.read(connection, true);
            }
        }
    }

    /// Reads once. A socket that may have more comes again in the next turn: one that filled the buffer, and one of
    /// which it is not known (`until_end`) whether a short read leaves an end behind that brings no event.
    fn read(&mut self, connection: ConnectionIndex, until_end: bool) {
        if !self.may_read(connection) {
            return;
        }
        let Some(socket) = self.sockets.get_mut(connection) else {
            return;
        };
        let mut buffer = std::mem::take(&mut self.poll.buffer);
        match socket.stream.read(&mut buffer) {
            Ok(0) => self.peer_ended(connection),
            Ok(length) => {
                if until_end || length == buffer.len() {
                    self.poll.read_again(connection);
                }
                self.take_input(connection, &mut buffer[..length]);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {
                self.poll.read_again(connection);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => self.remove(connection, CloseReason::ClientClosed),
        }
        self.poll.buffer = buffer;
    }

    /// Whether the socket's next bytes can be taken in: not while a command waits, nor while half of what may be
    /// pending is. Both come back to reading when they are over.
    fn may_read(&mut self, connection: ConnectionIndex) -> bool {
        let waits = |socket: &mut Socket| socket.deferred.is_some();
        !self.sockets.get_mut(connection).is_none_or(waits) && !self.pauses(connection)
    }

    /// Whether a connection's input waits because half of what may be pending is (one answer takes at most the other
    /// half), or because too many questions are open. [`Shard::read_on`] ends the pause.
    fn pauses(&mut self, connection: ConnectionIndex) -> bool {
        let most = self.context.config.pending_bytes_max / 2;
        let pending = self
            .hub
            .queue(connection)
            .map_or(0, |queue| queue.pending_bytes());
        let Some(socket) = self.sockets.get_mut(connection) else {
            return false;
        };
        let waits = pending > most || !socket.client.may_read_on();
        socket.is_paused = waits && !socket.is_closing();
        socket.is_paused
    }

    /// What made a connection's input wait may be over: reads, or waits on.
    pub(super) fn read_on(&mut self, connection: ConnectionIndex) {
        let Some(socket) = self.sockets.get_mut(connection) else {
            return;
        };
        if std::mem::take(&mut socket.is_paused) {
            self.go_on(connection);
            self.poll.read_again(connection);
        }
    }

    /// The peer shut its side, or the connection broke.
    fn peer_ended(&mut self, connection: ConnectionIndex) {
        self.remove(connection, CloseReason::ClientClosed);
    }

    /// Decodes what a connection sent.
    pub(super) fn take_input(&mut self, connection: ConnectionIndex, input: &mut [u8]) {
        let Some(socket) = self.sockets.get_mut(connection) else {
            return;
        };
        match &socket.phase {
            Phase::Closing(closing) if closing.is_deaf => return,
            // The server speaks first: what came with the handshake waits, too.
            Phase::Opening(_) if input.is_empty() => return,
            Phase::Opening(_) => return self.defer(connection, input.to_vec()),
            Phase::Open | Phase::Closing(_) => {}
        }
        let (mut partial, is_echo) = match &mut socket.carrier {
            Carrier::WebSocket(partial) => (partial.take(), false),
            Carrier::Echo(partial) => (partial.take(), true),
            Carrier::Events { .. } => return,
        };
        let generation = socket.generation;
        let limits = Limits {
            message_bytes_max: self.context.config.message_bytes_max,
        };
        let decoded = websocket::decode(&mut partial, limits, input, &mut |event| {
            self.take_event(connection, generation, is_echo, event)
        });
        let Some(socket) = self
            .sockets
            .get_mut(connection)
            .filter(|socket| socket.generation == generation)
        else {
            return;
        };
        if let Carrier::WebSocket(slot) | Carrier::Echo(slot) = &mut socket.carrier {
            *slot = partial;
        }
        match decoded {
            Ok(consumed) => self.keep_rest(connection, &input[consumed..]),
            Err(error) => self.close_deaf(connection, error.close_reason()),
        }
    }

    /// Bytes behind a command that waits are decoded after it.
    fn keep_rest(&mut self, connection: ConnectionIndex, rest: &[u8]) {
        let Some(socket) = self.sockets.get_mut(connection) else {
            return;
        };
        if let Some(deferred) = socket.deferred.as_mut() {
            deferred.input.extend_from_slice(rest);
        }
    }

    fn take_event(
        &mut self,
        connection: ConnectionIndex,
        generation: u32,
        is_echo: bool,
        event: Event<'_>,
    ) -> ControlFlow<()> {
        match event {
            Event::Close(code) => self.peer_closes(connection, code),
            Event::Ping(payload) => {
                self.tools.scratch.clear();
                websocket::pong(payload, &mut self.tools.scratch);
                self.hub.send(connection, &self.tools.scratch);
                self.saw(connection);
            }
            Event::Pong(_) => self.saw_pong(connection),
            Event::Text(text) if is_echo => self.echo(connection, Opcode::Text, text.as_bytes()),
            Event::Binary(bytes) if is_echo => self.echo(connection, Opcode::Binary, bytes),
            Event::Text(text) => self.take_message(connection, WireFormat::Json, text.as_bytes()),
            Event::Binary(bytes) => self.take_message(connection, WireFormat::MessagePack, bytes),
        }
        let pauses = self.pauses(connection);
        let Some(socket) = self
            .sockets
            .get_mut(connection)
            .filter(|socket| socket.generation == generation)
        else {
            return ControlFlow::Break(());
        };
        if pauses {
            // A burst in one read must not be answered beyond the bound: what is behind waits too.
            socket.deferred.get_or_insert_default();
        }
        // On the way out nothing is read but the peer's close.
        if socket.deferred.is_some() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    fn saw(&mut self, connection: ConnectionIndex) {
        let now = self.clock.now;
        if let Some(socket) = self.sockets.get_mut(connection) {
            socket.client.heartbeat().saw(now);
        }
    }

    /// The client gave a sign of life of which only a living one is capable.
    pub(super) fn saw_pong(&mut self, connection: ConnectionIndex) {
        let now = self.clock.now;
        if let Some(socket) = self.sockets.get_mut(connection) {
            socket.client.heartbeat().saw_pong(now);
        }
    }

    fn echo(&mut self, connection: ConnectionIndex, opcode: Opcode, payload: &[u8]) {
        self.saw(connection);
        self.counts.command(CommandKind::Echo);
        self.tools.scratch.clear();
        websocket::frame_header(opcode, payload.len(), &mut self.tools.scratch);
        self.tools.scratch.extend_from_slice(payload);
        self.hub.send(connection, &self.tools.scratch);
        // A large message's memory is not kept.
        if self.tools.scratch.capacity() > READ_BYTES {
            self.tools.scratch = Vec::new();
        }
    }

    /// A message of a client in the format of its opcode.
    fn take_message(&mut self, connection: ConnectionIndex, format: WireFormat, message: &[u8]) {
        let Some(socket) = self.sockets.get_mut(connection) else {
            return;
        };
        if socket.is_closing() {
            return;
        }
        if self.hub.format(connection) != Some(format) {
            return self.close(connection, CloseReason::UnsupportedData);
        }
        let decoded = match (format, std::str::from_utf8(message)) {
            (WireFormat::MessagePack, _) => plain::decode_message_pack(message),
            (_, text) => plain::decode_json(text.unwrap_or_default()),
        };
        match decoded {
            Ok(request) => self.take_request(connection, request),
            Err(error) => self.refuse(connection, error),
        }
    }

    fn refuse(&mut self, connection: ConnectionIndex, mut error: DecodeError) {
        let id = error.id.take();
        let now = self.clock.now;
        self.counts.command(CommandKind::Invalid);
        let Some(socket) = self.sockets.get_mut(connection) else {
            return;
        };
        // What cannot be read counts as a command: it costs as much.
        let reply = socket
            .client
            .admit(now, &self.context.rules)
            .err()
            .unwrap_or_else(|| error.into());
        self.answer(connection, id, reply);
    }

    fn take_request(&mut self, connection: ConnectionIndex, request: Request) {
        let Request { id, command } = request;
        self.counts.command(super::counting::kind(&command));
        let (now, rules) = (self.clock.now, self.context.rules.clone());
        let Some(socket) = self.sockets.get_mut(connection) else {
            return;
        };
        if let Err(reply) = socket.client.admit(now, &rules) {
            return self.answer(connection, id, reply);
        }
        let hub = &self.hub;
        let subscriptions = hub.subscription_count(connection);
        let is_subscribed = |channel: &_| hub.is_subscribed(connection, channel);
        let step = socket.client.handle(
            command,
            subscriptions,
            is_subscribed,
            &rules,
            unix_time().as_secs_f64(),
        );
        match step {
            Step::Nothing => {}
            Step::Answer(reply) => self.answer(connection, id, reply),
            Step::Ask(question) => {
                if socket.client.can_take(question.is_barrier()) {
                    self.ask(connection, id, question);
                } else {
                    socket.deferred = Some(Box::new(Deferred {
                        command: Some((id, question)),
                        input: Vec::new(),
                    }));
                }
            }
        }
    }

    /// Goes on with a command that waited, and with what came behind it.
    pub(super) fn go_on(&mut self, connection: ConnectionIndex) {
        let Some(socket) = self.sockets.get_mut(connection) else {
            return;
        };
        let can_go_on = matches!(socket.phase, Phase::Open) && !socket.is_paused;
        let can_take = |deferred: &Deferred| match &deferred.command {
            Some((_, question)) => socket.client.can_take(question.is_barrier()),
            None => true,
        };
        if !can_go_on || !socket.deferred.as_deref().is_some_and(can_take) {
            return;
        }
        let Some(deferred) = socket.deferred.take() else {
            return;
        };
        let Deferred { command, mut input } = *deferred;
        if let Some((id, question)) = command {
            self.ask(connection, id, question);
        }
        if self.pauses(connection) {
            return self.defer(connection, input);
        }
        self.take_input(connection, &mut input);
        self.poll.read_again(connection);
    }

    /// Keeps input until there is room.
    fn defer(&mut self, connection: ConnectionIndex, input: Vec<u8>) {
        if let Some(socket) = self.sockets.get_mut(connection) {
            let command = None;
            socket.deferred = Some(Box::new(Deferred { command, input }));
        }
    }
}
