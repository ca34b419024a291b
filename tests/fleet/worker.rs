//! The transport's part: the calls that a worker makes of its hub, in the same order as `transport` makes them, without
//! sockets; what they depend on is decided by the same `relay::follow`. Answers of the broker take their time.
//!
//! Where an answer may belong to an earlier life of its subscription or channel, it is checked against the position it
//! was asked from; see `Done`.

use std::collections::{BTreeMap, VecDeque};
use std::io::IoSlice;

use fanfare::broker::{Page, ReadLimit, Recovery, Start};
use fanfare::hub::{ConnectionIndex, Contents, Hub, Limits, Stage, Subscribed, Verdict};
use fanfare::model::{
    ChannelKey, CloseReason, Encode as _, Event, Namespaces, Position, Publication, WireFormat,
};
use fanfare::protocol::encoder::Encoder;
use fanfare::protocol::{Push, Reply, plain, websocket};
use fanfare::relay::follow::{self, Beginning, Missed, Step, Welcome};

use crate::bus::{Bus, Message};
use crate::random::Random;

/// Names a connection for as long as it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ref {
    pub(crate) index: ConnectionIndex,
    pub(crate) generation: u64,
}

struct CatchUp {
    channel: ChannelKey,
    course: follow::CatchUp,
}

struct Socket {
    generation: u64,
    catch_ups: Vec<CatchUp>,
    /// The one reason, and when the socket is let go whatever is pending.
    closing: Option<(CloseReason, u64)>,
    /// What it takes in this step.
    room: usize,
    is_blocked: bool,
    sent: Vec<u8>,
}

#[derive(Clone)]
struct Joining {
    connection: Ref,
    channel: ChannelKey,
    recover: Option<Position>,
}

/// An answer of the broker.
enum Done {
    Started(ChannelKey, Start),
    Recovered(Joining, Recovery),
    CaughtUp(Ref, ChannelKey, Position, Recovery),
    Repaired(ChannelKey, Position, Recovery),
    Retry(Ref, ChannelKey),
}

/// A question on its way to the broker.
enum Asked {
    Start(ChannelKey),
    Recover(Joining, Position, ReadLimit),
    CatchUp(Ref, ChannelKey, Position, ReadLimit),
    Repair(ChannelKey, Position),
    Nothing(Ref, ChannelKey),
}

/// What a turn is made with.
pub(crate) struct World<'a> {
    pub(crate) bus: &'a mut Bus,
    pub(crate) random: &'a mut Random,
    pub(crate) namespaces: &'a Namespaces,
}

pub(crate) struct Worker {
    at: usize,
    limits: Limits,
    pub(crate) hub: Hub,
    encoder: Encoder,
    sockets: BTreeMap<ConnectionIndex, Socket>,
    generation: u64,
    asked: Vec<(u64, Asked)>,
    done: Vec<(u64, Done)>,
    starting: BTreeMap<ChannelKey, Vec<Joining>>,
    repairs: VecDeque<(ChannelKey, Position)>,
    catching_up: Vec<(Ref, ChannelKey)>,
    /// The connections that ended, and what was sent to each before.
    pub(crate) ended: Vec<(Ref, Vec<u8>)>,
    pub(crate) closed: BTreeMap<u64, CloseReason>,
}

impl Worker {
    pub(crate) fn new(at: usize, limits: Limits) -> Self {
        Self {
            at,
            limits,
            hub: Hub::new(limits),
            encoder: Encoder::default(),
            sockets: BTreeMap::new(),
            generation: 0,
            asked: Vec::new(),
            done: Vec::new(),
            starting: BTreeMap::new(),
            repairs: VecDeque::new(),
            catching_up: Vec::new(),
            ended: Vec::new(),
            closed: BTreeMap::new(),
        }
    }

    pub(crate) fn connect(&mut self) -> Ref {
        let index = self.hub.connect(WireFormat::Json);
        self.generation += 1;
        let generation = self.generation;
        let socket = Socket {
            generation,
            catch_ups: Vec::new(),
            closing: None,
            room: 0,
            is_blocked: false,
            sent: Vec::new(),
        };
        self.sockets.insert(index, socket);
        Ref { index, generation }
    }

    fn find(&mut self, connection: Ref) -> Option<&mut Socket> {
        self.sockets
            .get_mut(&connection.index)
            .filter(|socket| socket.generation == connection.generation)
    }

    fn is_open(&mut self, connection: Ref) -> bool {
        self.find(connection)
            .is_some_and(|socket| socket.closing.is_none())
    }

    /// What the socket of a connection took since.
    pub(crate) fn take_sent(&mut self, connection: Ref) -> Vec<u8> {
        self.find(connection)
            .map(|socket| std::mem::take(&mut socket.sent))
            .unwrap_or_default()
    }

    pub(crate) fn set_room(&mut self, connection: Ref, room: usize) {
        if let Some(socket) = self.find(connection) {
            socket.room = room;
        }
    }

    fn ask(&mut self, world: &mut World<'_>, asked: Asked) {
        let due = world.bus.now + world.random.below(world.bus.weather.delay_max + 1);
        self.asked.push((due, asked));
    }

    // --- commands ---

    pub(crate) fn subscribe(
        &mut self,
        world: &mut World<'_>,
        connection: Ref,
        channel: &ChannelKey,
        recover: Option<Position>,
    ) {
        if !self.is_open(connection) {
            return;
        }
        let overflow = world.namespaces.of(channel).overflow;
        let joining = Joining {
            connection,
            channel: channel.clone(),
            recover,
        };
        match self
            .hub
            .subscribe(connection.index, channel, overflow, false)
        {
            Subscribed::Already => unreachable!("clients ask once"),
            Subscribed::First(_) => {
                self.starting
                    .entry(channel.clone())
                    .or_default()
                    .push(joining);
                world.bus.want(self.at, channel);
                self.ask(world, Asked::Start(channel.clone()));
            }
            Subscribed::Joined(index) => {
                let stage = self.hub.channel(index).expect("it").stage();
                if stage == Stage::Starting {
                    self.starting
                        .entry(channel.clone())
                        .or_default()
                        .push(joining);
                } else {
                    self.settle(world, joining);
                }
            }
        }
    }

    pub(crate) fn unsubscribe(
        &mut self,
        world: &mut World<'_>,
        connection: Ref,
        channel: &ChannelKey,
    ) {
        if !self.is_open(connection) {
            return;
        }
        let is_vacant = self.hub.unsubscribe(connection.index, channel);
        let socket = self.find(connection).expect("it");
        socket
            .catch_ups
            .retain(|catch_up| catch_up.channel != *channel);
        if is_vacant.expect("clients end what they have") {
            world.bus.unwant(self.at, channel);
        }
        let channel = channel.clone();
        self.reply(connection.index, &Reply::Unsubscribed { channel });
    }

    fn reply(&mut self, connection: ConnectionIndex, reply: &Reply) {
        let mut bytes = Vec::new();
        plain::encode_reply(WireFormat::Json, reply, None, &mut bytes);
        self.hub.send(connection, &bytes);
    }

    // --- joining ---

    fn started(&mut self, world: &mut World<'_>, channel: &ChannelKey, start: Start) {
        if let Some(index) = self.hub.find_channel(channel)
            && self.hub.start(index, start)
        {
            self.missed(channel, 0);
        }
        for joining in self.starting.remove(channel).unwrap_or_default() {
            self.settle(world, joining);
        }
    }

    fn settle(&mut self, world: &mut World<'_>, joining: Joining) {
        let Joining {
            connection,
            channel,
            recover,
        } = &joining;
        if !self.is_open(*connection) || !self.hub.is_subscribed(connection.index, channel) {
            return;
        }
        match follow::welcome(recover.map(Some), self.position(channel), true) {
            Welcome::Begin(beginning) => self.begin(&joining, beginning),
            Welcome::Ask(claimed) => {
                let limit = self.page_limit(*connection);
                self.ask(world, Asked::Recover(joining, claimed, limit));
            }
        }
    }

    /// Where a stream stands here.
    fn position(&self, channel: &ChannelKey) -> Option<Position> {
        let index = self.hub.find_channel(channel)?;
        self.hub.channel(index)?.position()
    }

    fn recovered(&mut self, joining: &Joining, recovery: Recovery) {
        let connection = joining.connection;
        if !self.is_open(connection) || !self.hub.is_subscribed(connection.index, &joining.channel)
        {
            return;
        }
        let asked = joining.recover.expect("asked").offset;
        let top = self.position(&joining.channel);
        self.begin(joining, follow::welcome_back(asked, recovery, top));
    }

    fn begin(&mut self, joining: &Joining, beginning: Beginning) {
        let (connection, channel) = (joining.connection, &joining.channel);
        let Beginning {
            position,
            recovered,
            missed,
        } = beginning;
        let reply = Reply::Subscribed {
            channel: channel.clone(),
            position,
            recovered,
        };
        self.reply(connection.index, &reply);
        let index = self.hub.find_channel(channel).expect("subscribed");
        let top = self.position(channel);
        let Some(course) = follow::CatchUp::begin(position, missed.is_some(), top) else {
            return self.hub.go_live(connection.index, index);
        };
        let catch_up = CatchUp {
            channel: channel.clone(),
            course,
        };
        self.find(connection)
            .expect("open")
            .catch_ups
            .push(catch_up);
        match missed {
            Some(page) => self.send_page(connection, channel, &page),
            None => self.catching_up.push((connection, channel.clone())),
        }
    }

    // --- catching up ---

    fn page_limit(&mut self, connection: Ref) -> ReadLimit {
        let queue = self.hub.queue(connection.index).expect("it");
        let bytes = self.limits.pending_bytes_max - queue.pending_bytes();
        let messages = self.limits.pending_messages_max - queue.pending_messages();
        ReadLimit {
            publications: (messages / 2).max(1),
            bytes: bytes / 4,
        }
    }

    fn catch_up(&mut self, connection: Ref, channel: &ChannelKey) -> Option<&mut CatchUp> {
        let catch_ups = &mut self.find(connection)?.catch_ups;
        catch_ups
            .iter_mut()
            .find(|catch_up| catch_up.channel == *channel)
    }

    fn caught_up(
        &mut self,
        connection: Ref,
        channel: &ChannelKey,
        from: Position,
        recovery: Recovery,
    ) {
        let catch_up = self.catch_up(connection, channel);
        if !catch_up.is_some_and(|catch_up| catch_up.course.handle_page(from)) {
            return;
        }
        match recovery {
            Recovery::Recovered(page) => self.send_page(connection, channel, &page),
            Recovery::Lost { .. } => self.give_up(connection, channel),
        }
    }

    fn end_catch_up(&mut self, connection: Ref, channel: &ChannelKey) {
        let socket = self.find(connection).expect("it");
        socket
            .catch_ups
            .retain(|catch_up| catch_up.channel != *channel);
        let index = self.hub.find_channel(channel).expect("subscribed");
        self.hub.go_live(connection.index, index);
    }

    fn give_up(&mut self, connection: Ref, channel: &ChannelKey) {
        let catch_up = self.catch_up(connection, channel).expect("it");
        let from = catch_up.course.position();
        let gap = follow::give_up(from, self.position(channel));
        let mut bytes = Vec::new();
        let gap = Push::Gap {
            channel: channel.clone(),
            dropped: gap.dropped,
            position: gap.position,
        };
        plain::encode_push(WireFormat::Json, &gap, &mut bytes);
        self.hub.send(connection.index, &bytes);
        self.end_catch_up(connection, channel);
    }

    fn send_page(&mut self, connection: Ref, channel: &ChannelKey, page: &Page) {
        let top = self.position(channel).expect("history");
        let publications = follow::presentable(page, top);
        if let Some(offset) = self.send_publications(connection, channel, publications, top) {
            let reached = Position::new(top.epoch, offset);
            let catch_up = self.catch_up(connection, channel).expect("it");
            catch_up.course.advance(reached);
        }
        self.catching_up.push((connection, channel.clone()));
    }

    /// Sends as many as fit half of the room that is left now: other channels' pages may have come since this one was
    /// asked for, and a page is counted without its frames. The rest is read again. Answers the last offset.
    fn send_publications(
        &mut self,
        connection: Ref,
        channel: &ChannelKey,
        publications: &[std::sync::Arc<Publication>],
        top: Position,
    ) -> Option<u64> {
        let catch_up = self.catch_up(connection, channel).expect("it");
        let is_new_epoch = catch_up.course.is_new_epoch(top);
        let queue = self.hub.queue(connection.index).expect("it");
        let is_empty = queue.is_empty();
        let room = (self.limits.pending_bytes_max - queue.pending_bytes()) / 2;
        let count = (self.limits.pending_messages_max - queue.pending_messages()) / 2;
        let (mut bytes, mut sent) = (Vec::new(), 0);
        for publication in publications.iter().take(count) {
            let (end, epoch) = (bytes.len(), Some(top.epoch));
            let json = WireFormat::Json;
            let first = is_new_epoch && sent == 0;
            self.encoder
                .publication(json, channel, publication, epoch, first, &mut bytes);
            // Alone in an empty queue any publication fits.
            if bytes.len() > room && !(is_empty && sent == 0) {
                bytes.truncate(end);
                break;
            }
            sent += 1;
        }
        let last = publications[..sent].last()?.offset;
        let contents = Contents {
            publications: u32::try_from(sent).expect("few"),
            ..Contents::default()
        };
        self.hub.send_contents(connection.index, &bytes, contents);
        Some(last)
    }

    fn step(&mut self, world: &mut World<'_>, connection: Ref, channel: &ChannelKey) {
        if self.catch_up(connection, channel).is_none() {
            return;
        }
        let index = self.hub.find_channel(channel).expect("subscribed");
        let slot = self.hub.channel(index).expect("it");
        let (top, stage) = (slot.position(), slot.stage());
        let queue = self.hub.queue(connection.index);
        let has_room = queue.is_some_and(|queue| queue.is_empty());
        let catch_up = self.catch_up(connection, channel).expect("it");
        match catch_up.course.step(top, stage, has_room) {
            Step::GoLive => self.end_catch_up(connection, channel),
            Step::Wait => self.ask(world, Asked::Nothing(connection, channel.clone())),
            Step::Read(from) => {
                let limit = self.page_limit(connection);
                self.ask(
                    world,
                    Asked::CatchUp(connection, channel.clone(), from, limit),
                );
            }
            Step::Rest => {}
        }
    }

    // --- holes ---

    fn missed(&mut self, channel: &ChannelKey, seen: u64) {
        let Some(index) = self.hub.find_channel(channel) else {
            return;
        };
        if let Missed::Read(position) =
            follow::missed(&mut self.hub, index, seen, &mut self.encoder)
        {
            self.repairs.push_back((channel.clone(), position));
        }
    }

    fn repaired(&mut self, channel: &ChannelKey, asked: Position, recovery: Recovery) {
        let Some(index) = self.hub.find_channel(channel) else {
            return;
        };
        let repaired = follow::repair(&mut self.hub, index, asked, recovery, &mut self.encoder);
        let again = repaired.again.map(|from| (channel.clone(), from));
        self.repairs.extend(again);
    }

    // --- what the broker brings ---

    fn take_in(&mut self, messages: Vec<Message>) {
        let mut batch: Vec<(u32, Vec<std::sync::Arc<Publication>>)> = Vec::new();
        let mut after = Vec::new();
        for message in messages {
            let Message::Envelope(envelope) = message else {
                after.push(message);
                continue;
            };
            let Some(index) = self.hub.find_channel(&envelope.channel) else {
                continue;
            };
            let Event::Publication(publication) = &envelope.event else {
                continue;
            };
            match self.hub.judge(index, envelope.epoch, publication.offset) {
                Verdict::Next { .. } => match batch.iter_mut().find(|(at, _)| *at == index) {
                    Some((_, publications)) => publications.push(publication.clone()),
                    None => batch.push((index, vec![publication.clone()])),
                },
                Verdict::PassOver | Verdict::Unwanted => {}
                Verdict::Hole => after.push(Message::Envelope(envelope)),
            }
        }
        for (index, publications) in batch {
            self.hub
                .deliver(index, &publications, false, &mut self.encoder);
        }
        for message in after {
            match message {
                Message::Envelope(envelope) => {
                    let Event::Publication(publication) = &envelope.event else {
                        continue;
                    };
                    self.missed(&envelope.channel, publication.offset);
                }
                Message::Hole(Some(channel)) => self.missed(&channel, 0),
                Message::Hole(None) => {
                    let all = self.hub.channels().map(|(_, slot)| slot.key().clone());
                    for channel in all.collect::<Vec<_>>() {
                        self.missed(&channel, 0);
                    }
                }
            }
        }
    }

    // --- ends ---

    pub(crate) fn close(
        &mut self,
        world: &mut World<'_>,
        connection: ConnectionIndex,
        reason: CloseReason,
    ) {
        let until = world.bus.now + 20;
        let Some(socket) = self.sockets.get_mut(&connection) else {
            return;
        };
        if socket.closing.is_some() {
            return;
        }
        socket.closing = Some((reason, until));
        let twice = self.closed.insert(socket.generation, reason);
        assert_eq!(twice, None, "one reason for each connection");
        socket.catch_ups.clear();
        self.end_subscriptions(world, connection);
        let mut bytes = Vec::new();
        websocket::close_frame(reason, &mut bytes);
        let at_once = reason == CloseReason::SlowConsumer;
        self.hub.send_last(connection, &bytes, at_once);
    }

    fn end_subscriptions(&mut self, world: &mut World<'_>, connection: ConnectionIndex) {
        let mut vacated = Vec::new();
        self.hub.begin_close(connection, &mut vacated);
        for channel in &vacated {
            world.bus.unwant(self.at, channel);
        }
    }

    /// The peer is gone, or was let go.
    pub(crate) fn remove(&mut self, world: &mut World<'_>, connection: ConnectionIndex) {
        let Some(socket) = self.sockets.remove(&connection) else {
            return;
        };
        if socket.closing.is_none() {
            let twice = self
                .closed
                .insert(socket.generation, CloseReason::ClientClosed);
            assert_eq!(twice, None, "one reason for each connection");
        }
        self.end_subscriptions(world, connection);
        self.hub.disconnect(connection, &mut Vec::new());
        let generation = socket.generation;
        let ended = Ref {
            index: connection,
            generation,
        };
        self.ended.push((ended, socket.sent));
    }

    pub(crate) fn drain(&mut self, world: &mut World<'_>) {
        for connection in self.sockets.keys().copied().collect::<Vec<_>>() {
            self.close(world, connection, CloseReason::Drain);
        }
    }

    // --- the loop ---

    /// Whether nothing is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.asked.is_empty()
            && self.done.is_empty()
            && self.repairs.is_empty()
            && self.catching_up.is_empty()
            && self
                .sockets
                .values()
                .all(|socket| socket.catch_ups.is_empty())
            && self.hub.held_bytes() == 0
    }

    pub(crate) fn turn(&mut self, world: &mut World<'_>) {
        self.serve_writable(world);
        self.serve_broker(world);
        let arrived = world.bus.arrived(self.at, world.random);
        self.take_in(arrived);
        for (channel, position) in std::mem::take(&mut self.repairs) {
            self.ask(world, Asked::Repair(channel, position));
        }
        for (connection, channel) in std::mem::take(&mut self.catching_up) {
            self.step(world, connection, &channel);
        }
        self.hub.shed();
        for connection in self.hub.take_overflowed() {
            self.close(world, connection, CloseReason::SlowConsumer);
        }
        self.check_bounds();
        let mut slice = Vec::new();
        self.hub.next_slice(&mut slice);
        for connection in slice {
            self.write(world, connection);
        }
    }

    fn serve_writable(&mut self, world: &mut World<'_>) {
        let now = world.bus.now;
        for connection in self.sockets.keys().copied().collect::<Vec<_>>() {
            let socket = &self.sockets[&connection];
            if socket.closing.is_some_and(|(_, until)| now >= until) {
                self.remove(world, connection);
            } else if socket.is_blocked && socket.room > 0 {
                self.write(world, connection);
            }
        }
    }

    fn serve_broker(&mut self, world: &mut World<'_>) {
        let now = world.bus.now;
        for (_, asked) in self.asked.extract_if(.., |(due, _)| *due <= now) {
            let due = now + world.random.below(world.bus.weather.delay_max + 1);
            let bus = &world.bus;
            let done = match asked {
                Asked::Start(channel) => Done::Started(channel.clone(), bus.position(&channel)),
                Asked::Recover(joining, from, limit) => {
                    let recovery = bus.recover(&joining.channel, from, limit);
                    Done::Recovered(joining, recovery)
                }
                Asked::CatchUp(connection, channel, from, limit) => {
                    let recovery = bus.recover(&channel, from, limit);
                    Done::CaughtUp(connection, channel, from, recovery)
                }
                Asked::Repair(channel, from) => {
                    let limit = ReadLimit {
                        publications: 4,
                        bytes: 1000,
                    };
                    let recovery = bus.recover(&channel, from, limit);
                    Done::Repaired(channel, from, recovery)
                }
                Asked::Nothing(connection, channel) => Done::Retry(connection, channel),
            };
            self.done.push((due, done));
        }
        let done: Vec<_> = self.done.extract_if(.., |(due, _)| *due <= now).collect();
        for (_, done) in done {
            match done {
                Done::Started(channel, start) => self.started(world, &channel, start),
                Done::Recovered(joining, recovery) => self.recovered(&joining, recovery),
                Done::CaughtUp(connection, channel, from, recovery) => {
                    self.caught_up(connection, &channel, from, recovery);
                }
                Done::Repaired(channel, from, recovery) => self.repaired(&channel, from, recovery),
                Done::Retry(connection, channel) => self.catching_up.push((connection, channel)),
            }
        }
    }

    fn write(&mut self, world: &mut World<'_>, connection: ConnectionIndex) {
        let Some(socket) = self.sockets.get_mut(&connection) else {
            return;
        };
        let queue = self.hub.queue(connection).expect("it");
        while !queue.is_empty() && socket.room > 0 {
            let mut slices = [IoSlice::new(&[]); 4];
            let filled = queue.slices(&mut slices);
            let before = socket.sent.len();
            for slice in &slices[..filled] {
                let taken = slice.len().min(socket.room);
                socket.sent.extend_from_slice(&slice[..taken]);
                socket.room -= taken;
            }
            queue.advance(socket.sent.len() - before);
        }
        socket.is_blocked = !queue.is_empty();
        self.hub.set_blocked(connection, socket.is_blocked);
        if socket.is_blocked {
            return;
        }
        if socket.closing.is_some() {
            return self.remove(world, connection);
        }
        let generation = socket.generation;
        let connection = Ref {
            index: connection,
            generation,
        };
        let waiting = socket.catch_ups.iter();
        let waiting = waiting.map(|catch_up| (connection, catch_up.channel.clone()));
        self.catching_up.extend(waiting);
    }

    /// Those on their way out hold the rest of a frame that was begun, and their last one.
    fn check_bounds(&mut self) {
        let mut leaving = 0;
        for (connection, socket) in &self.sockets {
            let queue = self.hub.queue(*connection).expect("it");
            let (bytes, messages) = (queue.pending_bytes(), queue.pending_messages());
            if socket.closing.is_some() {
                leaving += bytes + 200;
            } else {
                assert!(bytes <= self.limits.pending_bytes_max, "{bytes} bytes");
                assert!(messages <= self.limits.pending_messages_max, "{messages}");
            }
        }
        let (held, most) = (self.hub.held_bytes(), self.limits.total_pending_bytes_max);
        assert!(held <= most + leaving, "{held} bytes over {most}");
    }
}
