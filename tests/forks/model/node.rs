//! A node of the model: the broker over Redis, the relay, an inbox and a hub as they are, and what a worker does between
//! them, which is decided by the same `relay::follow`. There are no sockets: what a client was sent is taken from its queue.

mod behind;

use std::collections::{BTreeMap, VecDeque};
use std::io::IoSlice;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fanfare::broker::redis::RedisBroker;
use fanfare::broker::{BrokerError, Publish, ReadLimit, Recovery, Start};
use fanfare::hub::{ConnectionIndex, Hub, Limits, Stage, Subscribed, Verdict};
use fanfare::model::{
    ChannelKey, Envelope, Event, Namespaces, OverflowPolicy, Payload, Position, Publication,
    WireFormat,
};
use fanfare::redis::{Address, Config, Connections as _, Pending};
use fanfare::relay::follow::{self, Beginning, CatchUp, Welcome};
use fanfare::relay::{Inbox, InboxLimits, Message, Relay};

use super::line::Line;
use super::record::{Begun, Record, Records};
use super::tasks::lock;

/// How long a subscriber or a stream waits for a broker that is away.
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// How long a subscriber that is ahead of its hub waits for it.
const AHEAD_AFTER: Duration = Duration::from_millis(2);

/// A connection for as long as it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ref {
    pub(crate) index: ConnectionIndex,
    generation: u64,
}

#[derive(Debug, Clone)]
struct Joining {
    connection: Ref,
    claimed: Option<Position>,
}

/// An answer of the broker, or of a timer.
enum Done {
    Started(Result<Start, BrokerError>),
    Recovered(Joining, Result<Recovery, BrokerError>),
    CaughtUp(Ref, Position, Result<Recovery, BrokerError>),
    Repaired(Position, Result<Recovery, BrokerError>),
    Retry(Ref),
    RepairAgain(Position),
}

struct Socket {
    generation: u64,
    catch_up: Option<CatchUp>,
}

/// How small things are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) inbox: usize,
    pub(crate) page: usize,
    pub(crate) queue: usize,
}

pub(crate) struct Node {
    pub(crate) line: Arc<Line>,
    relay: Arc<Relay>,
    hub: Hub,
    channel: ChannelKey,
    pub(crate) sizes: Sizes,
    sockets: BTreeMap<ConnectionIndex, Socket>,
    generation: u64,
    starting: Vec<Joining>,
    repairs: VecDeque<Position>,
    catching_up: Vec<Ref>,
    done: Arc<Mutex<Vec<Done>>>,
    /// Connections that the hub gave up.
    pub(crate) closed: Vec<Ref>,
}

impl Node {
    pub(crate) fn new(
        line: Arc<Line>,
        channel: ChannelKey,
        namespaces: Arc<Namespaces>,
        sizes: Sizes,
    ) -> Self {
        let config = Config {
            address: Address::parse("redis://127.0.0.1:6379").expect("an address"),
            prefix: "model".to_owned(),
            ready_grace: Duration::ZERO,
            wait_replicas: 0,
            ca_file: None,
        };
        let broker = RedisBroker::over(line.clone(), &config, namespaces);
        let inbox = Inbox::new(InboxLimits {
            messages_max: sizes.inbox,
            bytes_max: 1 << 20,
        });
        Self {
            line,
            relay: Arc::new(Relay::new(Arc::new(broker), vec![Arc::new(inbox)])),
            hub: Hub::new(Limits {
                pending_bytes_max: sizes.queue,
                pending_messages_max: 10_000,
                total_pending_bytes_max: 1 << 24,
            }),
            channel,
            sizes,
            sockets: BTreeMap::new(),
            generation: 0,
            starting: Vec::new(),
            repairs: VecDeque::new(),
            catching_up: Vec::new(),
            done: Arc::default(),
            closed: Vec::new(),
        }
    }

    /// Asks at once, and leaves the answer for the loop.
    fn when_done(&self, asked: impl Future<Output = Done> + Send + 'static) {
        let done = self.done.clone();
        self.line.tasks.begin(Box::pin(async move {
            let answer = asked.await;
            lock(&done).push(answer);
        }));
    }

    fn later(&self, after: Duration, done: Done) {
        let pause: Pending<()> = self.line.pause(after);
        self.when_done(async move {
            pause.await;
            done
        });
    }

    pub(crate) fn publish(&self, content: u64) {
        let (relay, channel) = (self.relay.clone(), self.channel.clone());
        self.line.tasks.begin(Box::pin(async move {
            let publish = Publish {
                channel,
                data: Payload::from_plain_json(content.to_string()),
                origin: None,
                key: None,
                idempotency_key: None,
            };
            relay.broker().publish(vec![publish]).await;
        }));
    }

    // --- clients ---

    pub(crate) fn connect(&mut self) -> Ref {
        let index = self.hub.connect(WireFormat::Json);
        self.generation += 1;
        let generation = self.generation;
        let socket = Socket {
            generation,
            catch_up: None,
        };
        self.sockets.insert(index, socket);
        Ref { index, generation }
    }

    fn find(&mut self, connection: Ref) -> Option<&mut Socket> {
        let socket = self.sockets.get_mut(&connection.index)?;
        (socket.generation == connection.generation).then_some(socket)
    }

    /// The peer is gone.
    pub(crate) fn disconnect(&mut self, connection: Ref) {
        if self.find(connection).is_none() {
            return;
        }
        self.sockets.remove(&connection.index);
        let mut vacated = Vec::new();
        self.hub.begin_close(connection.index, &mut vacated);
        self.hub.disconnect(connection.index, &mut Vec::new());
        if !vacated.is_empty() {
            self.vacate();
        }
    }

    fn vacate(&self) {
        let (relay, channel) = (self.relay.clone(), self.channel.clone());
        self.line.tasks.begin(Box::pin(async move {
            if let Some(removed) = relay.remove_interest(0, &channel) {
                let _ = removed.await;
            }
        }));
    }

    /// What was written to the client.
    pub(crate) fn take_sent(&mut self, connection: Ref, into: &mut Vec<u8>) {
        if self.find(connection).is_none() {
            return;
        }
        let Some(queue) = self.hub.queue(connection.index) else {
            return;
        };
        if queue.is_empty() {
            return;
        }
        while !queue.is_empty() {
            let mut slices = [IoSlice::new(&[]); 16];
            let filled = queue.slices(&mut slices);
            let before = into.len();
            slices[..filled]
                .iter()
                .for_each(|slice| into.extend_from_slice(slice));
            queue.advance(into.len() - before);
        }
        self.catching_up.push(connection);
    }

    /// Where the stream stands for those who are live here.
    pub(crate) fn position(&self) -> Option<Position> {
        let index = self.hub.find_channel(&self.channel)?;
        self.hub.channel(index)?.position()
    }

    /// For whoever looks for what went wrong.
    pub(crate) fn state(&self) -> String {
        let index = self.hub.find_channel(&self.channel);
        let slot = index.and_then(|index| self.hub.channel(index));
        let slot = slot.map(|slot| (slot.stage(), slot.position(), slot.live_count()));
        format!(
            "{slot:?} connected to {:?}",
            self.line.servers_of_connections()
        )
    }

    pub(crate) fn is_live(&self) -> bool {
        let index = self.hub.find_channel(&self.channel);
        index.is_none_or(|index| {
            self.hub
                .channel(index)
                .is_none_or(|slot| slot.stage() == Stage::Live)
        })
    }

    pub(crate) fn subscribe(&mut self, connection: Ref, claimed: Option<Position>) {
        let joining = Joining {
            connection,
            claimed,
        };
        let overflow = OverflowPolicy::Disconnect;
        match self
            .hub
            .subscribe(connection.index, &self.channel, overflow, false)
        {
            Subscribed::Already => {}
            Subscribed::First(_) => {
                self.starting.push(joining);
                let (relay, channel) = (self.relay.clone(), self.channel.clone());
                self.when_done(async move {
                    let start = relay.add_interest(0, &channel).await;
                    Done::Started(start)
                });
            }
            Subscribed::Joined(index) => {
                let stage = self.hub.channel(index).map(fanfare::hub::Channel::stage);
                match stage == Some(Stage::Starting) {
                    true => self.starting.push(joining),
                    false => self.settle(joining),
                }
            }
        }
    }

    pub(crate) fn unsubscribe(&mut self, connection: Ref) {
        let Some(socket) = self.find(connection) else {
            return;
        };
        socket.catch_up = None;
        if self.hub.unsubscribe(connection.index, &self.channel) == Some(true) {
            self.vacate();
        }
    }

    fn is_joining(&mut self, joining: &Joining) -> bool {
        let connection = joining.connection;
        self.find(connection).is_some() && self.hub.is_subscribed(connection.index, &self.channel)
    }

    fn started(&mut self, start: Result<Start, BrokerError>) {
        self.line.note(|| format!("starts at {start:?}"));
        let waiting = std::mem::take(&mut self.starting);
        match start {
            Ok(position) => {
                if let Some(index) = self.hub.find_channel(&self.channel)
                    && self.hub.start(index, position)
                {
                    self.missed(0);
                }
                for joining in waiting {
                    self.settle(joining);
                }
            }
            Err(_) => waiting.iter().for_each(|joining| self.refuse(joining)),
        }
    }

    fn refuse(&mut self, joining: &Joining) {
        if self.find(joining.connection).is_some() {
            self.unsubscribe(joining.connection);
            self.send(joining.connection, Record::Refused);
        }
    }

    fn send(&mut self, connection: Ref, record: Record) {
        let mut bytes = Vec::new();
        record.write(&mut bytes);
        self.hub.send(connection.index, &bytes);
    }

    fn settle(&mut self, joining: Joining) {
        if !self.is_joining(&joining) {
            return;
        }
        match follow::welcome(joining.claimed.map(Some), self.position(), true) {
            Welcome::Begin(beginning) => self.begin(&joining, beginning),
            Welcome::Ask(claimed) => {
                let recovery = self.recover(claimed);
                self.when_done(async move { Done::Recovered(joining, recovery.await) });
            }
        }
    }

    /// The page behind a position.
    fn recover(
        &self,
        since: Position,
    ) -> impl Future<Output = Result<Recovery, BrokerError>> + use<> {
        let (relay, channel) = (self.relay.clone(), self.channel.clone());
        let limit = ReadLimit {
            publications: self.sizes.page,
            bytes: 1 << 16,
        };
        async move { relay.broker().recover(&channel, since, limit).await }
    }

    fn recovered(&mut self, joining: &Joining, recovery: Result<Recovery, BrokerError>) {
        if !self.is_joining(joining) {
            return;
        }
        let asked = joining.claimed.map_or(0, |claimed| claimed.offset);
        match recovery {
            Ok(recovery) => {
                let beginning = follow::welcome_back(asked, recovery, self.position());
                self.begin(joining, beginning);
            }
            Err(_) => self.refuse(joining),
        }
    }

    fn begin(&mut self, joining: &Joining, beginning: Beginning) {
        let connection = joining.connection;
        let position = beginning.position.expect("history");
        let has_missed = beginning.missed.is_some();
        let begun = match beginning.recovered {
            None => Begun::Anew,
            Some(true) if has_missed => Begun::Recovered,
            Some(true) => Begun::WithOthers,
            Some(false) => Begun::Lost,
        };
        self.send(connection, Record::Subscribed(position, begun));
        let course = CatchUp::begin(Some(position), has_missed, self.position());
        let Some(course) = course else {
            return self.go_live(connection);
        };
        self.find(connection).expect("it joins").catch_up = Some(course);
        match beginning.missed {
            Some(page) => self.send_page(connection, &page),
            None => self.catching_up.push(connection),
        }
    }

    fn go_live(&mut self, connection: Ref) {
        if let Some(socket) = self.find(connection) {
            socket.catch_up = None;
        }
        if let Some(index) = self.hub.find_channel(&self.channel) {
            self.hub.go_live(connection.index, index);
        }
    }

    // --- a turn ---

    pub(crate) fn turn(&mut self) {
        let done = std::mem::take(&mut *lock(&self.done));
        for done in done {
            match done {
                Done::Started(start) => self.started(start),
                Done::Recovered(joining, recovery) => self.recovered(&joining, recovery),
                Done::CaughtUp(connection, from, recovery) => {
                    self.caught_up(connection, from, recovery);
                }
                Done::Repaired(asked, recovery) => self.repaired(asked, recovery),
                Done::Retry(connection) => self.catching_up.push(connection),
                Done::RepairAgain(from) => self.repairs.push_back(from),
            }
        }
        self.drain_inbox();
        for from in std::mem::take(&mut self.repairs) {
            let recovery = self.recover(from);
            self.when_done(async move { Done::Repaired(from, recovery.await) });
        }
        for connection in std::mem::take(&mut self.catching_up) {
            self.step(connection);
        }
        for index in self.hub.take_overflowed() {
            let Some(socket) = self.sockets.get(&index) else {
                continue;
            };
            let generation = socket.generation;
            let connection = Ref { index, generation };
            self.closed.push(connection);
            self.disconnect(connection);
        }
        self.hub.next_slice(&mut Vec::new());
    }

    fn drain_inbox(&mut self) {
        let mut messages = Vec::new();
        if self.relay.inbox(0).drain(&mut messages) {
            self.missed(0);
        }
        let (mut batch, mut after) = (Vec::new(), Vec::new());
        for message in messages {
            match message {
                Message::Envelope(envelope) => self.take_envelope(envelope, &mut batch, &mut after),
                Message::Hole(_) | Message::Changed => after.push(0),
                Message::Control(_) => {}
            }
        }
        if let Some(index) = self.hub.find_channel(&self.channel) {
            self.hub.deliver(index, &batch, false, &mut Records);
        }
        after.into_iter().for_each(|seen| self.missed(seen));
    }

    fn take_envelope(
        &mut self,
        envelope: Envelope,
        batch: &mut Vec<Arc<Publication>>,
        after: &mut Vec<u64>,
    ) {
        let Some(index) = self.hub.find_channel(&self.channel) else {
            return;
        };
        let Event::Publication(publication) = envelope.event else {
            return;
        };
        let verdict = self.hub.judge(index, envelope.epoch, publication.offset);
        let (epoch, offset) = (envelope.epoch, publication.offset);
        self.line
            .note(|| format!("hears {epoch:?}, offset {offset}: {verdict:?}"));
        match verdict {
            Verdict::Next { .. } => batch.push(publication),
            Verdict::PassOver | Verdict::Unwanted => {}
            Verdict::Hole => after.push(publication.offset),
        }
    }
}
