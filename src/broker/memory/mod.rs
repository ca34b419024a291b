//! The embedded broker: one process, everything in memory. It is what runs when no other broker is configured, and
//! what the other brokers' conformance suite was written against.
//!
//! *Order.* A publication is numbered, kept and handed to the sink under one lock, that of its channel's shard, and
//! interest changes under the same: so the sink sees a channel's publications in the order of their offsets, and the
//! position that [`Broker::add_interest`] answers is exact. The lock is never held across an await: every answer is
//! ready when the call returns.
//!
//! *Bounds.* Three numbers of the [`Config`]: bytes of history, channels, idempotency keys; what happens at the edge of
//! each stands there. Members are bounded by the connections of the process.
//!
//! *Time* is asked from the clock that it was made with. [`MemoryBroker::sweep`] must be called about once a second;
//! without it answers stay right, but memory is given back only where channels are used.
//!
//! Not here: anything of other nodes. A restart forgets everything, and fresh epochs say so.

use std::fmt;
use std::future::ready;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::{
    ActiveChannel, Answer, Broker, BrokerError, Config, Control, NodeInfo, Page, Presence, Publish,
    Published, ReadLimit, Recovery, Results, Sink, Start,
};
use crate::model::{
    ChannelKey, ClientId, Envelope, Event, HistoryPolicy, Member, Moment, Namespaces, Position,
    Publication,
};

mod channel;
mod channels;
mod idempotency;
mod presence;
mod recency;
mod shard;
mod stream;

use channels::{Channels, Locked};
use idempotency::Idempotency;
use recency::Slot;
use stream::Stream;

/// The most expired idempotency keys that one sweep forgets: below a millisecond under their lock, and many times what
/// a second of publishing brings.
const KEYS_PER_SWEEP: usize = 16_384;

/// What tells the time.
type Clock = Box<dyn Fn() -> Moment + Send + Sync>;

/// The broker of a single node. See the module for what it guarantees.
///
/// The answers of this broker are computed when a method is called, not when its future is polled.
pub struct MemoryBroker {
    channels: Channels,
    /// Locked under a shard's lock, never the other way round.
    idempotency: Mutex<Idempotency>,
    sink: OnceLock<Arc<dyn Sink>>,
    node: Mutex<Option<NodeInfo>>,
    clock: Clock,
}

/// How much of its bounds a [`MemoryBroker`] uses; for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Channels that are remembered.
    pub channels: usize,
    /// What the kept publications cost, in bytes.
    pub history_bytes: usize,
    /// Idempotency keys that are remembered.
    pub idempotency_keys: usize,
    /// How often, since the start, publications were let go before their time because the history's bytes were spent.
    pub evictions: u64,
    /// How many idempotency keys, since the start, were forgotten before their time for want of room.
    pub displaced_keys: u64,
}

impl fmt::Debug for MemoryBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBroker")
            .field("usage", &self.usage())
            .finish_non_exhaustive()
    }
}

impl MemoryBroker {
    /// A broker without channels, with these bounds, for channels of these namespaces. `clock` must never go back by
    /// more than threads differ in reading it.
    pub fn new(
        config: &Config,
        namespaces: Arc<Namespaces>,
        clock: impl Fn() -> Moment + Send + Sync + 'static,
    ) -> Self {
        Self {
            channels: Channels::new(config, namespaces),
            idempotency: Mutex::new(Idempotency::new(config.idempotency_keys_max)),
            sink: OnceLock::new(),
            node: Mutex::new(None),
            clock: Box::new(clock),
        }
    }

    /// Gives memory back: expired publications, idle channels, expired idempotency keys. To be called about once a
    /// second; a call looks at a thirty-second part of the channels, so that each is looked at twice a minute.
    pub fn sweep(&self) {
        let now = self.now();
        self.channels.sweep(now);
        self.idempotency().expire(now, KEYS_PER_SWEEP);
    }

    /// How much of its bounds it uses.
    pub fn usage(&self) -> Usage {
        let idempotency = self.idempotency();
        Usage {
            channels: self.channels.len(),
            history_bytes: self.channels.history_bytes(),
            idempotency_keys: idempotency.len(),
            evictions: self.channels.evictions(),
            displaced_keys: idempotency.displaced(),
        }
    }

    fn now(&self) -> Moment {
        (self.clock)()
    }

    fn idempotency(&self) -> MutexGuard<'_, Idempotency> {
        // Nothing under this lock can panic half way; a poisoned lock is as good as another.
        self.idempotency
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// What was answered to the same idempotency key. The caller holds the shard's lock, so that of two publishes with
    /// one key the second sees the first's result.
    fn first_result(&self, publish: &Publish, now: Moment) -> Option<Published> {
        let key = publish.idempotency_key.as_ref()?;
        self.idempotency().find(&publish.channel, key, now)
    }

    fn deliver(&self, envelope: &Envelope) {
        if let Some(sink) = self.sink.get() {
            sink.deliver(envelope);
        }
    }

    fn publish_one(&self, publish: Publish, now: Moment) -> Result<Published, BrokerError> {
        let policy = self.channels.namespace(&publish.channel).history;
        if !policy.is_on() {
            return Ok(self.publish_unkept(publish, now));
        }
        let published = self.publish_kept(publish, &policy, now)?;
        // Only now, when no lock is held.
        self.channels.relieve();
        Ok(published)
    }

    fn publish_kept(
        &self,
        publish: Publish,
        policy: &HistoryPolicy,
        now: Moment,
    ) -> Result<Published, BrokerError> {
        let (mut shard, slot) = self.channels.open(&publish.channel, now)?;
        if let Some(first) = self.first_result(&publish, now) {
            return Ok(first);
        }
        let (publication, channel, key) = split(publish);
        let appended = shard.change_stream(slot, true, |stream| {
            let publication = stream.append(publication, policy, now);
            (publication, stream.position())
        });
        let (publication, position) = appended.ok_or(BrokerError::NoHistory)?;
        if let Some(key) = key {
            self.idempotency()
                .add(channel.clone(), key, Some(position), now);
        }
        if shard.channel(slot).interest {
            self.deliver(&Envelope {
                channel,
                epoch: Some(position.epoch),
                event: Event::Publication(publication),
            });
        }
        Ok(Published {
            position: Some(position),
            duplicate: false,
        })
    }

    /// Publishes in a channel without history: nothing is remembered of the channel, and without interest nothing is
    /// allocated.
    fn publish_unkept(&self, publish: Publish, now: Moment) -> Published {
        let (shard, slot) = self.channels.find(&publish.channel);
        if let Some(first) = self.first_result(&publish, now) {
            return first;
        }
        let (publication, channel, key) = split(publish);
        if let Some(key) = key {
            self.idempotency().add(channel.clone(), key, None, now);
        }
        if slot.is_some_and(|slot| shard.channel(slot).interest) {
            self.deliver(&Envelope {
                channel,
                epoch: None,
                event: Event::Publication(Arc::new(publication)),
            });
        }
        Published {
            position: None,
            duplicate: false,
        }
    }

    /// Asks a stream something, with its policy and the time.
    fn read<T>(
        &self,
        channel: &ChannelKey,
        ask: impl FnOnce(&Stream, &HistoryPolicy, Moment) -> T,
    ) -> Result<T, BrokerError> {
        let policy = &self.channels.namespace(channel).history;
        if !policy.is_on() {
            return Err(BrokerError::NoHistory);
        }
        let now = self.now();
        let (shard, slot) = self.channels.open(channel, now)?;
        let stream = shard.channel(slot).stream.as_ref();
        stream
            .map(|stream| ask(stream, policy, now))
            .ok_or(BrokerError::NoHistory)
    }

    fn start_interest(&self, channel: &ChannelKey) -> Result<Start, BrokerError> {
        let (mut shard, slot) = self.channels.open(channel, self.now())?;
        let channel = shard.channel_mut(slot);
        channel.interest = true;
        Ok(channel.stream.as_ref().map(Stream::position))
    }

    fn end_interest(&self, channel: &ChannelKey) {
        let (mut shard, slot) = self.channels.find(channel);
        if let Some(slot) = slot {
            let channel = shard.channel_mut(slot);
            channel.interest = false;
            channel.used = self.now();
            self.forget_if_unkept(&mut shard, slot);
        }
    }

    fn clear(&self, channel: &ChannelKey) -> Result<Start, BrokerError> {
        if !self.channels.namespace(channel).history.is_on() {
            return Ok(None);
        }
        let (mut shard, slot) = self.channels.open(channel, self.now())?;
        Ok(shard.change_stream(slot, false, |stream| {
            stream.clear();
            stream.position()
        }))
    }

    fn add_member(&self, channel: &ChannelKey, member: Arc<Member>) -> Result<(), BrokerError> {
        if !self.channels.namespace(channel).presence {
            return Ok(());
        }
        let (mut shard, slot) = self.channels.open(channel, self.now())?;
        if shard.channel_mut(slot).members.join(Arc::clone(&member)) {
            self.tell(&shard, slot, Event::Join([member].into()));
        }
        Ok(())
    }

    fn remove_member(&self, channel: &ChannelKey, client: ClientId) {
        let (mut shard, slot) = self.channels.find(channel);
        let Some(slot) = slot else { return };
        let record = shard.channel_mut(slot);
        if let Some(member) = record.members.leave(client) {
            record.used = self.now();
            self.tell(&shard, slot, Event::Leave([member].into()));
            self.forget_if_unkept(&mut shard, slot);
        }
    }

    /// Tells of a join or a leave where the namespace wants it told.
    fn tell(&self, shard: &Locked<'_>, slot: Slot, event: Event) {
        let channel = shard.channel(slot);
        if channel.interest && self.channels.namespace(&channel.key).join_leave {
            self.deliver(&Envelope {
                channel: channel.key.clone(),
                epoch: channel.epoch(),
                event,
            });
        }
    }

    /// A channel without history has no epoch to keep alive: its record goes with its last use.
    fn forget_if_unkept(&self, shard: &mut Locked<'_>, slot: Slot) {
        let channel = shard.channel(slot);
        if channel.stream.is_none() && channel.is_idle() {
            self.channels.forget(shard, slot);
        }
    }
}

/// What is kept and delivered of a publish, where, and its idempotency key. The stream numbers the publication.
fn split(publish: Publish) -> (Publication, ChannelKey, Option<Arc<str>>) {
    let publication = Publication {
        offset: 0,
        data: publish.data,
        origin: publish.origin,
        key: publish.key,
    };
    (publication, publish.channel, publish.idempotency_key)
}

/// An answer that is there already.
fn answer<'a, T: Send + 'a>(result: Result<T, BrokerError>) -> Answer<'a, T> {
    Box::pin(ready(result))
}

impl Broker for MemoryBroker {
    /// The first sink stays; attaching another one does nothing.
    fn attach(&self, sink: Arc<dyn Sink>) {
        let _ = self.sink.set(sink);
    }

    fn publish(&self, publishes: Vec<Publish>) -> Results<'_> {
        let now = self.now();
        let results = publishes
            .into_iter()
            .map(|publish| self.publish_one(publish, now))
            .collect();
        Box::pin(ready(results))
    }

    fn history<'a>(
        &'a self,
        channel: &'a ChannelKey,
        since: Option<Position>,
        limit: ReadLimit,
    ) -> Answer<'a, Page> {
        answer(self.read(channel, |stream, policy, now| {
            stream.history(since, limit, policy, now)
        }))
    }

    fn recover<'a>(
        &'a self,
        channel: &'a ChannelKey,
        since: Position,
        limit: ReadLimit,
    ) -> Answer<'a, Recovery> {
        answer(self.read(channel, |stream, policy, now| {
            stream.recover(since, limit, policy, now)
        }))
    }

    fn position<'a>(&'a self, channel: &'a ChannelKey) -> Answer<'a, Start> {
        answer(match self.read(channel, |stream, _, _| stream.position()) {
            Err(BrokerError::NoHistory) => Ok(None),
            position => position.map(Some),
        })
    }

    fn clear_history<'a>(&'a self, channel: &'a ChannelKey) -> Answer<'a, Start> {
        answer(self.clear(channel))
    }

    fn add_interest<'a>(&'a self, channel: &'a ChannelKey) -> Answer<'a, Start> {
        answer(self.start_interest(channel))
    }

    fn remove_interest<'a>(&'a self, channel: &'a ChannelKey) -> Answer<'a, ()> {
        self.end_interest(channel);
        answer(Ok(()))
    }

    fn join<'a>(&'a self, channel: &'a ChannelKey, member: Arc<Member>) -> Answer<'a, ()> {
        answer(self.add_member(channel, member))
    }

    fn leave<'a>(&'a self, channel: &'a ChannelKey, client: ClientId) -> Answer<'a, ()> {
        self.remove_member(channel, client);
        answer(Ok(()))
    }

    fn presence<'a>(&'a self, channel: &'a ChannelKey, limit: usize) -> Answer<'a, Presence> {
        let (shard, slot) = self.channels.find(channel);
        let summary = slot.map(|slot| shard.channel(slot).members.summary(limit));
        answer(Ok(summary.unwrap_or_default()))
    }

    fn control(&self, control: Control) -> Answer<'_, ()> {
        if let Some(sink) = self.sink.get() {
            sink.control(&control);
        }
        answer(Ok(()))
    }

    fn announce(&self, node: NodeInfo, _: Vec<ActiveChannel>) -> Answer<'_, ()> {
        *self.node.lock().unwrap_or_else(PoisonError::into_inner) = Some(node);
        answer(Ok(()))
    }

    fn nodes(&self) -> Answer<'_, Vec<NodeInfo>> {
        let node = self.node.lock().unwrap_or_else(PoisonError::into_inner);
        answer(Ok(node.iter().cloned().collect()))
    }

    fn withdraw(&self) -> Answer<'_, ()> {
        *self.node.lock().unwrap_or_else(PoisonError::into_inner) = None;
        answer(Ok(()))
    }

    fn channels_elsewhere<'a>(
        &'a self,
        _: &'a str,
        _: Option<&'a str>,
        _: usize,
    ) -> Answer<'a, Vec<ActiveChannel>> {
        answer(Ok(Vec::new()))
    }

    fn subscribers_elsewhere<'a>(&'a self, _: &'a ChannelKey) -> Answer<'a, u64> {
        answer(Ok(0))
    }

    fn is_ready(&self) -> bool {
        true
    }

    fn kind(&self) -> &'static str {
        "memory"
    }
}

#[cfg(test)]
mod tests;
