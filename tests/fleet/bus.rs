//! What lies between the nodes: a real memory broker for streams, and a link to each worker that delays, loses,
//! repeats and mixes what the broker hands out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use fanfare::broker::memory::MemoryBroker;
use fanfare::broker::{Broker, Config, Control, Publish, ReadLimit, Recovery, Sink, Start};
use fanfare::model::{ChannelKey, Envelope, Epoch, Moment, Namespaces, Payload, Position};

use crate::random::Random;

/// What a worker is told.
pub(crate) enum Message {
    Envelope(Envelope),
    Hole(Option<ChannelKey>),
}

/// How bad the links are: chances in a hundred, and the longest delay in steps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weather {
    pub(crate) delay_max: u64,
    pub(crate) loss: u64,
    pub(crate) repetition: u64,
}

#[derive(Default)]
struct Collected(Mutex<Vec<Envelope>>);

impl Sink for Collected {
    fn deliver(&self, envelope: &Envelope) {
        self.0.lock().expect("whole").push(envelope.clone());
    }

    fn hole(&self, _: Option<&ChannelKey>) {}

    fn changed(&self) {}

    fn control(&self, _: &Control) {}
}

/// The way to one worker. Each channel has a queue of its own: order holds within a channel and not across.
#[derive(Default)]
struct Link {
    wanted: BTreeSet<ChannelKey>,
    queues: BTreeMap<ChannelKey, VecDeque<(u64, Message)>>,
    everywhere: Option<u64>,
}

pub(crate) struct Bus {
    pub(crate) now: u64,
    pub(crate) weather: Weather,
    broker: MemoryBroker,
    sink: Arc<Collected>,
    clock: Arc<AtomicU64>,
    namespaces: Arc<Namespaces>,
    links: Vec<Link>,
    /// Everything that was ever acknowledged: the data, by channel, epoch and offset.
    pub(crate) log: BTreeMap<(ChannelKey, Option<Epoch>), BTreeMap<u64, String>>,
    published: u64,
}

fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => unreachable!("the memory broker answers at once"),
    }
}

fn broker(namespaces: &Arc<Namespaces>, clock: &Arc<AtomicU64>) -> (MemoryBroker, Arc<Collected>) {
    let config = Config {
        history_bytes_max: 64 << 20,
        channels_max: 1000,
        idempotency_keys_max: 10,
    };
    let (clock, sink) = (Arc::clone(clock), Arc::new(Collected::default()));
    let clock = move || Moment::from_millis(clock.load(Ordering::Relaxed));
    let broker = MemoryBroker::new(&config, Arc::clone(namespaces), clock);
    broker.attach(sink.clone());
    (broker, sink)
}

impl Bus {
    pub(crate) fn new(workers: usize, namespaces: Arc<Namespaces>, weather: Weather) -> Self {
        let clock = Arc::new(AtomicU64::new(0));
        let (broker, sink) = broker(&namespaces, &clock);
        Self {
            now: 0,
            weather,
            broker,
            sink,
            clock,
            namespaces,
            links: (0..workers).map(|_| Link::default()).collect(),
            log: BTreeMap::new(),
            published: 0,
        }
    }

    /// One step is 100 ms.
    pub(crate) fn tick(&mut self) {
        self.now += 1;
        self.clock.store(self.now * 100, Ordering::Relaxed);
        if self.now.is_multiple_of(10) {
            self.broker.sweep();
        }
    }

    /// The broker comes back empty: epochs are new, and everybody is told that something may be missing.
    pub(crate) fn restart(&mut self) {
        (self.broker, self.sink) = broker(&self.namespaces, &self.clock);
        for link in &mut self.links {
            for channel in &link.wanted {
                now(self.broker.add_interest(channel)).expect("room");
            }
            link.everywhere = Some(self.now + self.weather.delay_max);
        }
    }

    pub(crate) fn publish(&mut self, random: &mut Random, channel: &ChannelKey, key: Option<&str>) {
        self.published += 1;
        let padding = "x".repeat(random.below(40) as usize);
        let data = format!("\"{}{padding}\"", self.published);
        let publish = Publish {
            channel: channel.clone(),
            data: Payload::from_plain_json(data.clone()),
            origin: None,
            key: key.map(Arc::from),
            idempotency_key: None,
        };
        let published = now(self.broker.publish(vec![publish])).pop();
        let position = published.expect("one").expect("room").position;
        let at = position.map_or(self.published, |position| position.offset);
        let epoch = position.map(|position| position.epoch);
        let log = self.log.entry((channel.clone(), epoch)).or_default();
        log.insert(at, data);
        let envelopes = std::mem::take(&mut *self.sink.0.lock().expect("whole"));
        for envelope in envelopes {
            for link in &mut self.links {
                link.carry(&envelope, self.now, self.weather, random);
            }
        }
    }

    /// What a worker has by now, mixed across channels.
    pub(crate) fn arrived(&mut self, worker: usize, random: &mut Random) -> Vec<Message> {
        let (link, now) = (&mut self.links[worker], self.now);
        let mut arrived = Vec::new();
        let mut channels: Vec<_> = link.queues.keys().cloned().collect();
        random.shuffle(&mut channels);
        for channel in channels {
            let queue = link.queues.get_mut(&channel).expect("it");
            while queue.front().is_some_and(|(due, _)| *due <= now) {
                arrived.extend(queue.pop_front().map(|(_, message)| message));
            }
        }
        if link.everywhere.take_if(|due| *due <= now).is_some() {
            arrived.push(Message::Hole(None));
        }
        arrived
    }

    pub(crate) fn want(&mut self, worker: usize, channel: &ChannelKey) {
        self.links[worker].wanted.insert(channel.clone());
        now(self.broker.add_interest(channel)).expect("room");
    }

    pub(crate) fn unwant(&mut self, worker: usize, channel: &ChannelKey) {
        self.links[worker].wanted.remove(channel);
        // What is on its way is passed over by its position when the channel is wanted again; where there is none, the
        // broker itself must see to it that nothing comes after the end of interest.
        if self.position(channel).is_none() {
            self.links[worker].queues.remove(channel);
        }
        if self.links.iter().all(|link| !link.wanted.contains(channel)) {
            now(self.broker.remove_interest(channel)).expect("done");
        }
    }

    pub(crate) fn position(&self, channel: &ChannelKey) -> Start {
        now(self.broker.position(channel)).expect("room")
    }

    pub(crate) fn recover(
        &self,
        channel: &ChannelKey,
        since: Position,
        limit: ReadLimit,
    ) -> Recovery {
        now(self.broker.recover(channel, since, limit)).expect("history")
    }
}

impl Link {
    fn carry(&mut self, envelope: &Envelope, now: u64, weather: Weather, random: &mut Random) {
        if !self.wanted.contains(&envelope.channel) {
            return;
        }
        let queue = self.queues.entry(envelope.channel.clone()).or_default();
        let earliest = queue.back().map_or(now, |(due, _)| *due);
        let due = earliest.max(now + random.below(weather.delay_max + 1));
        if random.chance(weather.loss) {
            let late = due + random.below(weather.delay_max + 1);
            queue.push_back((late, Message::Hole(Some(envelope.channel.clone()))));
            return;
        }
        queue.push_back((due, Message::Envelope(envelope.clone())));
        // Only positions tell a repetition from another publication.
        if envelope.epoch.is_some() && random.chance(weather.repetition) {
            queue.push_back((due, Message::Envelope(envelope.clone())));
        }
    }
}
