//! A socket's first moments: into the worker's set, its channels, its first message.

use std::sync::Arc;

use socket2::SockRef;

use crate::client::Client;
use crate::hub::ConnectionIndex;
use crate::model::{ChannelKey, CloseReason, ConnectionPermit, Encode as _, WireFormat};
use crate::protocol::plain::encode_push;
use crate::protocol::{ClaimedPosition, Connected, Push, sse};

use super::carried::Stream;
use super::closing::NEVER;
use super::intake::{EventStream, Purpose, Resume, Ticket};
use super::poll::{interest, token};
use super::shard::{Shard, unix_time};
use super::socket::{Carrier, Cause, ConnectionRef, Joining, Opened, Opening, Phase, Socket};
use super::timer_wheel::Link;
use super::worker::Adopted;

impl Shard {
    /// Takes a socket in.
    pub(super) fn adopt(&mut self, adopted: Adopted) {
        let Adopted {
            socket,
            layer,
            input,
            ticket,
            permit,
        } = adopted;
        let Ticket {
            mut purpose,
            identity,
            session,
            refused,
            head,
            ..
        } = ticket;
        let carrier = match &mut purpose {
            Purpose::Echo => Carrier::Echo(None),
            Purpose::Messages(_) => Carrier::WebSocket(None),
            Purpose::Events(events) => Carrier::Events {
                _held: events.held.take().map(Box::new),
            },
        };
        let jitter = self.tools.jitter();
        let unix = unix_time().as_secs();
        let client = Client::new(
            identity,
            session,
            &self.context.rules,
            self.clock.now,
            unix,
            jitter,
        );
        let stream = Stream::new(socket, layer);
        let holds_input = stream.may_hold_input();
        let Some(connection) = self.insert(stream, purpose.format(), carrier, client, permit)
        else {
            return;
        };
        self.hub.send(connection.index, &head);
        let refused = refused.or_else(|| self.has_ended(connection));
        if refused.is_none() {
            self.tell_opened(connection);
            if !purpose.is_of_upstream() {
                self.tell_connected(connection);
            }
        }
        match (refused, purpose) {
            (Some(reason), _) => self.close(connection.index, reason),
            (None, Purpose::Events(events)) => self.open_events(connection, events),
            (None, Purpose::Messages(_)) => self.open_messages(connection),
            (None, Purpose::Echo) => {}
        }
        self.schedule(connection.index);
        self.take_input(connection.index, &mut Vec::from(input));
        if holds_input {
            self.poll.read_again(connection.index);
        }
    }

    /// Puts the socket into the worker's set. `None` when the system refuses: it is dropped.
    fn insert(
        &mut self,
        mut stream: Stream,
        format: WireFormat,
        carrier: Carrier,
        client: Client,
        permit: ConnectionPermit,
    ) -> Option<ConnectionRef> {
        // What a stalled reader leaves in the kernel is bounded as well. A refusal leaves the system's own bound.
        let _ = SockRef::from(&stream.socket)
            .set_send_buffer_size(self.context.config.socket_buffer_bytes);
        let index = self.hub.connect(format);
        let registered =
            self.poll
                .registry()
                .register(&mut stream.socket, token(index), interest(false));
        if registered.is_err() {
            self.hub.disconnect(index, &mut Vec::new());
            return None;
        }
        self.count_connection(&carrier, true);
        let generation = self.sockets.next_generation();
        let socket = Socket {
            stream,
            carrier,
            client,
            phase: Phase::Open,
            generation,
            link: Link::default(),
            deferred: None,
            catch_ups: Vec::new(),
            last_publish: None,
            drain_at: NEVER,
            is_told: false,
            watches_writable: false,
            is_paused: false,
            _permit: permit,
        };
        self.sockets.insert(index, socket);
        Some(ConnectionRef { index, generation })
    }

    /// Why it must not stay: its session ended on its way here.
    fn has_ended(&mut self, connection: ConnectionRef) -> Option<CloseReason> {
        let socket = self.sockets.find(connection)?;
        let has_ended = self.ended.concerns(self.clock.now, &socket.client);
        has_ended.then_some(CloseReason::LoggedOut)
    }

    /// The session has a further socket.
    fn tell_opened(&mut self, connection: ConnectionRef) {
        let Some(socket) = self.sockets.find(connection) else {
            return;
        };
        if let (Some(session), true) = (socket.client.session(), socket.is_websocket()) {
            let user = &socket.client.identity().user;
            let sessions = &self.context.sessions;
            sessions.opened(socket.client.id(), user, session);
        }
    }

    /// A WebSocket: the first message comes when the token's channels are subscribed to.
    fn open_messages(&mut self, connection: ConnectionRef) {
        let rules = self.context.rules.clone();
        let Some(socket) = self.sockets.find(connection) else {
            return;
        };
        let channels = socket.client.own_channels(&rules);
        self.open_channels(
            connection,
            channels
                .into_iter()
                .map(|channel| (channel, None))
                .collect(),
        );
    }

    /// An event stream: the channels of its request.
    fn open_events(&mut self, connection: ConnectionRef, events: EventStream) {
        let EventStream { channels, from, .. } = events;
        let positions = match from {
            Resume::Now => vec![None; channels.len()],
            Resume::From(positions) => positions,
            // A position that no stream has: whatever came before is lost.
            Resume::Unreadable => vec![
                Some(ClaimedPosition {
                    epoch: None,
                    offset: 0
                });
                channels.len()
            ],
        };
        self.open_channels(connection, channels.into_iter().zip(positions).collect());
    }

    /// Subscribes to what comes with the connection.
    fn open_channels(
        &mut self,
        connection: ConnectionRef,
        channels: Vec<(ChannelKey, Option<ClaimedPosition>)>,
    ) {
        let Some(socket) = self.sockets.find(connection) else {
            return;
        };
        let opening = Opening {
            channels: channels
                .iter()
                .map(|(channel, _)| (channel.clone(), None))
                .collect(),
        };
        socket.phase = Phase::Opening(Box::new(opening));
        for (at, (channel, recover)) in channels.into_iter().enumerate() {
            self.join(
                Joining {
                    connection,
                    channel,
                    recover,
                    cause: Cause::Opening(at),
                },
                false,
            );
        }
        self.open_if_ready(connection);
    }

    /// One of the channels is subscribed to.
    pub(super) fn opened(&mut self, connection: ConnectionRef, at: usize, opened: Opened) {
        let Some(socket) = self.sockets.find(connection) else {
            return;
        };
        let Phase::Opening(opening) = &mut socket.phase else {
            return;
        };
        if let Some((_, slot)) = opening.channels.get_mut(at) {
            *slot = Some(opened);
        }
        self.open_if_ready(connection);
    }

    /// A back end ended one of the channels that come with a connection. Answers whether the first message is still to
    /// come: then it is told behind it.
    pub(super) fn leave_opening(
        &mut self,
        connection: ConnectionIndex,
        channel: &ChannelKey,
    ) -> bool {
        let Some(socket) = self.sockets.get_mut(connection) else {
            return false;
        };
        let generation = socket.generation;
        let Phase::Opening(opening) = &mut socket.phase else {
            return false;
        };
        for (_, slot) in opening.channels.iter_mut().filter(|(of, _)| of == channel) {
            *slot = Some(Opened {
                has_ended: true,
                ..Opened::default()
            });
        }
        self.open_if_ready(ConnectionRef {
            index: connection,
            generation,
        });
        true
    }

    /// The first message, and from then on what comes.
    fn open_if_ready(&mut self, connection: ConnectionRef) {
        let Some(socket) = self.sockets.find(connection) else {
            return;
        };
        let Phase::Opening(opening) = &mut socket.phase else {
            return;
        };
        if opening.channels.iter().any(|(_, opened)| opened.is_none()) {
            return;
        }
        let channels = std::mem::take(&mut opening.channels);
        socket.phase = Phase::Open;
        self.set_cursor(connection.index, &channels);
        self.say_connected(connection, &channels);
        for (channel, opened) in channels {
            let Some(Opened {
                position,
                is_lost,
                missed,
                has_ended,
            }) = opened
            else {
                continue;
            };
            if has_ended {
                self.say_unsubscribed(connection.index, &channel);
                continue;
            }
            if is_lost {
                self.tell_gap(connection.index, &channel, None, position);
            }
            self.receive(connection, &channel, position, missed);
            self.enter(connection.index, &channel);
        }
        self.go_on(connection.index);
    }

    fn set_cursor(
        &mut self,
        connection: ConnectionIndex,
        channels: &[(ChannelKey, Option<Opened>)],
    ) {
        if self.hub.format(connection) != Some(WireFormat::SseMany) {
            return;
        }
        let keys: Vec<ChannelKey> = channels
            .iter()
            .map(|(channel, _)| channel.clone())
            .collect();
        self.hub
            .set_cursor(connection, &keys, sse::channels_hash(&keys));
        for (channel, opened) in channels {
            let position = opened.as_ref().and_then(|opened| opened.position);
            if let Some(index) = self.hub.find_channel(channel) {
                self.hub.move_cursor(connection, index, position);
            }
        }
    }

    fn say_connected(
        &mut self,
        connection: ConnectionRef,
        channels: &[(ChannelKey, Option<Opened>)],
    ) {
        let now = self.clock.now;
        let (rules, config) = (self.context.rules.clone(), self.context.config.clone());
        let Some(socket) = self.sockets.find(connection) else {
            return;
        };
        let position = |opened: &Option<Opened>| opened.as_ref().and_then(|opened| opened.position);
        let has_ended =
            |opened: &Option<Opened>| opened.as_ref().is_some_and(|opened| opened.has_ended);
        let connected = Connected {
            client_id: socket.client.id(),
            user_id: socket.client.identity().user.clone(),
            session_id: socket.client.session_id().cloned(),
            gateway_id: Arc::from(config.node.as_str()),
            ping_interval: rules.config.ping_interval.as_secs(),
            inactivity_timeout: rules.config.inactivity_timeout.as_secs(),
            expires_in: socket.client.expires_in(now),
            channels: channels
                .iter()
                .filter(|(_, opened)| !has_ended(opened))
                .map(|(channel, opened)| (channel.clone(), position(opened)))
                .collect(),
        };
        let Some(format) = self.hub.format(connection.index) else {
            return;
        };
        self.tools.scratch.clear();
        match format {
            WireFormat::Json | WireFormat::MessagePack => {
                encode_push(
                    format,
                    &Push::Connected(Box::new(connected)),
                    &mut self.tools.scratch,
                );
            }
            WireFormat::Sse | WireFormat::SseMany => {
                self.encode_first_event(connection.index, &connected);
            }
        }
        self.hub.send(connection.index, &self.tools.scratch);
    }

    /// The first event has the id of where the stream begins: who is cut off before the first publication goes on there.
    fn encode_first_event(&mut self, connection: ConnectionIndex, connected: &Connected) {
        let retry = self.retry_millis();
        let scratch = &mut self.tools.scratch;
        match (self.hub.cursor(connection), connected.channels.as_slice()) {
            (Some((positions, hash)), _) => self.encoder.event_id(positions, hash, scratch),
            (None, [(_, position)]) => sse::id_line(*position, scratch),
            (None, _) => {}
        }
        if let [(channel, _)] = connected.channels.as_slice()
            && channel.is_shared()
        {
            // The stream is the upstream's: no event of ours stands in it but a gap.
            return sse::retry(retry, scratch);
        }
        sse::connected(connected, retry, scratch);
    }

    /// After how many milliseconds an event stream that broke off comes back: spread, so that not all come at once.
    pub(super) fn retry_millis(&mut self) -> u64 {
        let retry = self
            .context
            .config
            .sse_retry
            .mul_f64(0.5 + self.tools.jitter());
        u64::try_from(retry.as_millis()).unwrap_or(u64::MAX)
    }

    /// The reason for which a connection whose channels could not be opened is closed.
    pub(super) fn cannot_open(&mut self, connection: ConnectionIndex) {
        self.close(connection, CloseReason::InternalError);
    }
}
