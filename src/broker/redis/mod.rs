//! The broker that joins the nodes of a fleet over Redis: one server, or the masters of a Cluster.
//!
//! *Streams.* A channel with history is one Redis stream, numbered by one script that appends and publishes in one step.
//! An epoch belongs to one incarnation of the data: the script asks the server which one it is, and when it is another
//! than the one that wrote last, a new epoch begins and the old one's end is remembered (a *fork*). So a server that was
//! rolled back cannot make a reader believe that it has seen what it has not. Reading writes nothing.
//!
//! *Interest.* The node is subscribed to the channels that it wants, and to no others (`interest`), each on the server that
//! has it (`interests`).
//!
//! *Presence.* One write for a join or a leave; a node renews one lease for all its members (`presence`, `fleet`).
//!
//! *Occupancy.* Where somebody wants to hear of it, the nodes that have subscribers of a channel stand in Redis: the change that
//! is the first or the last is told once for the fleet (`occupancy`).
//!
//! *Orders.* What all nodes are to do is published, and kept for a while for those that do not hear it (`orders`).
//!
//! *Outages.* What cannot be sent is [`BrokerError::Unavailable`] at once; what was sent and is not answered within two
//! seconds is [`BrokerError::OutcomeUnknown`]; nothing is ever sent twice. When a connection is back, every channel has
//! a hole, which the relay reads again.
//!
//! Not here: the connections themselves (`redis`).

use std::collections::VecDeque;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use tokio::sync::oneshot;

use super::{
    ActiveChannel, Answer, Broker, BrokerError, Control, NodeInfo, Page, Presence, Publish,
    Published, ReadLimit, Recovery, Results, Sink, Start,
};
use crate::model::{ChannelKey, ClientId, Member, Namespaces, Position, Publication};
use crate::redis::{CallError, Command, Config, Connections, Redis, ServerId, StartError, Value};

mod entry;
mod envelope;
mod fleet;
mod flight;
mod interest;
#[cfg(test)]
mod interest_tests;
mod interests;
mod keys;
mod listener;
mod occupancy;
mod orders;
mod outbox;
mod policies;
mod presence;
mod read;
pub mod scripts;
mod streams;
mod upkeep;

use interests::Interests;
use keys::Keys;
pub use occupancy::{Occupancy, OccupancyObserver};
use policies::Policies;

/// How long a node counts as alive after it said so.
const LEASE: Duration = Duration::from_secs(9);

/// How long a change of interest may take.
const INTEREST_TIMEOUT: Duration = Duration::from_millis(1900);

/// The broker over Redis. See the module for what it guarantees.
pub struct RedisBroker {
    inner: Arc<Inner>,
}

/// What the broker and its tasks share.
struct Inner {
    redis: Arc<dyn Connections>,
    keys: Keys,
    namespaces: Arc<Namespaces>,
    policies: Policies,
    interests: Interests,
    presence: presence::Local,
    occupancy: occupancy::Local,
    flights: flight::Flights,
    told: Mutex<fleet::Told>,
    ready_grace: Duration,
    /// When it was last ready.
    ready_at: Mutex<Option<Instant>>,
    /// Since when it is connected and nothing that it wrote of nodes was refused.
    heard_since: Mutex<Option<Instant>>,
    /// When something of nodes was last refused.
    refused_at: Mutex<Option<Instant>>,
}

impl fmt::Debug for RedisBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBroker")
            .field("redis", &self.inner.redis)
            .finish_non_exhaustive()
    }
}

impl RedisBroker {
    /// Begins to connect, and goes on for as long as the value lives.
    ///
    /// # Errors
    /// When the system gives no thread, or the certificates cannot be used.
    pub fn start(config: &Config, namespaces: Arc<Namespaces>) -> Result<Self, StartError> {
        let redis = Arc::new(Self::connections(config)?);
        Ok(Self::over(redis, config, namespaces))
    }

    /// Connections for [`RedisBroker::over`], which know its scripts.
    ///
    /// # Errors
    /// As [`RedisBroker::start`].
    pub fn connections(config: &Config) -> Result<Redis, StartError> {
        let marks = Keys::new(&config.prefix).marks(&format!("{:032x}", rand::random::<u128>()));
        Redis::new(config, marks, scripts::ALL)
    }

    /// The same over connections that are not yet listened to.
    pub fn over(redis: Arc<dyn Connections>, config: &Config, namespaces: Arc<Namespaces>) -> Self {
        let keys = Keys::new(&config.prefix);
        let inner = Arc::new(Inner {
            interests: Interests::new(keys.control()),
            redis,
            keys,
            policies: Policies::of(&namespaces),
            namespaces,
            presence: presence::Local::default(),
            occupancy: occupancy::Local::default(),
            flights: flight::Flights::default(),
            told: Mutex::default(),
            ready_grace: config.ready_grace,
            ready_at: Mutex::new(None),
            heard_since: Mutex::new(None),
            refused_at: Mutex::new(None),
        });
        let redis = &inner.redis;
        redis.spawn(Box::pin(upkeep::check_positions(inner.clone())));
        redis.spawn(Box::pin(upkeep::reap(inner.clone())));
        redis.spawn(Box::pin(upkeep::look_often(inner.clone())));
        redis.spawn(Box::pin(inner.clone().say_presence()));
        redis.listen(Arc::new(listener::Ears(inner.clone())));
        Self { inner }
    }

    /// Lets `observer` hear when a channel gets its first subscriber in the fleet and loses its last one, of those that
    /// [`RedisBroker::occupy`] tells on any node. To be called once, on every node or on none.
    pub fn watch_occupancy(&self, observer: OccupancyObserver) {
        if self.inner.occupancy.watch(observer) {
            let work = self.inner.clone().say_occupancy();
            self.inner.redis.spawn(Box::pin(work));
        }
    }

    /// A channel has subscribers on this node now, or has none any more. To be told in the order in which it became true.
    pub fn occupy(&self, channel: &ChannelKey, is_occupied: bool) {
        let now = self.inner.redis.now();
        self.inner.occupancy.occupy(channel, is_occupied, now);
    }

    /// Asks whether the server lets this node do what it must. `Ok` as well when it is away.
    ///
    /// # Errors
    /// When it refuses: a wrong password, a command, key or channel that the user may not use.
    pub async fn examine(&self) -> Result<(), StartError> {
        let inner = self.inner.clone();
        let asked = async move {
            let keys = inner.keys.probe();
            let channel = inner.keys.probe_channel();
            let probe = Command::script(&scripts::PROBE, &keys.each_ref()).word(channel.clone());
            inner.redis.examine(probe, &channel).await
        };
        // Connections live where such tasks do.
        let (tell, told) = oneshot::channel();
        self.inner.redis.spawn(Box::pin(async move {
            let _ = tell.send(asked.await);
        }));
        told.await.unwrap_or(Ok(()))
    }
}

impl Drop for RedisBroker {
    fn drop(&mut self) {
        // The tasks hold what they run on.
        self.inner.redis.end();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing under these locks can panic half way.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What comes of some work, unless it takes longer than this.
async fn within<T>(
    redis: &dyn Connections,
    most: Duration,
    work: impl Future<Output = T>,
) -> Option<T> {
    tokio::select! {
        biased;
        done = work => Some(done),
        () = redis.pause(most) => None,
    }
}

impl Inner {
    /// Whether the server is there, or was a moment ago. To be asked often: that moment is counted from when it last was.
    fn is_ready(&self) -> bool {
        let mut ready_at = lock(&self.ready_at);
        if self.redis.is_connected() && self.interests.is_ready() {
            *ready_at = Some(self.redis.now());
            return true;
        }
        ready_at.is_some_and(|at| self.redis.now().duration_since(at) < self.ready_grace)
    }
}

/// The room that a table may keep without being asked how much of it is used.
const ROOM_KEPT: usize = 4096;

/// How much room a table of so much room and so many entries is to have, when that is much less: a crowd that left leaves
/// nothing behind, and a number that swings moves nothing.
fn room_for(entries: usize, room: usize) -> Option<usize> {
    (room > ROOM_KEPT && entries < room / 4).then_some(entries * 2)
}

fn give_back<K: Eq + Hash, V>(table: &mut HashMap<K, V>) {
    if let Some(room) = room_for(table.len(), table.capacity()) {
        table.shrink_to(room);
    }
}

fn give_back_line<T>(line: &mut VecDeque<T>) {
    if let Some(room) = room_for(line.len(), line.capacity()) {
        line.shrink_to(room);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What a failed call means to who asked.
fn broker_error(error: CallError) -> BrokerError {
    match error {
        CallError::NotSent => BrokerError::Unavailable,
        CallError::Unanswered(why) => {
            tracing::debug!(why, "redis did not answer");
            BrokerError::OutcomeUnknown
        }
        CallError::NotReplicated => BrokerError::NotReplicated,
        CallError::OutOfMemory => BrokerError::Full,
        CallError::Refused(why) => {
            tracing::warn!(why, "redis refused");
            BrokerError::Unavailable
        }
    }
}

/// An answer in a form that no version of ours gives.
const fn garbled() -> BrokerError {
    BrokerError::OutcomeUnknown
}

impl Broker for RedisBroker {
    /// The first sink stays; attaching another one does nothing.
    fn attach(&self, sink: Arc<dyn Sink>) {
        self.inner.interests.attach(sink);
    }

    fn publish(&self, publishes: Vec<Publish>) -> Results<'_> {
        let kinds = publishes.iter().map(|publish| self.inner.kind(publish));
        let kinds: Vec<read::Kind> = kinds.collect();
        let commands = publishes.iter().map(|publish| self.inner.publish(publish));
        let answers = self.inner.redis.call(commands.collect());
        Box::pin(async move {
            let answers = answers.await.into_iter().zip(kinds);
            answers
                .map(|(answer, kind)| read::published(&answer.map_err(broker_error)?, kind))
                .collect()
        })
    }

    fn publish_one(&self, publish: Publish) -> Answer<'_, Published> {
        let kind = self.inner.kind(&publish);
        let answers = self.inner.redis.call(vec![self.inner.publish(&publish)]);
        Box::pin(async move {
            let answer = answers.await.pop().ok_or_else(garbled)?;
            read::published(&answer.map_err(broker_error)?, kind)
        })
    }

    fn history<'a>(
        &'a self,
        channel: &'a ChannelKey,
        since: Option<Position>,
        limit: ReadLimit,
    ) -> Answer<'a, Page> {
        Box::pin(async move { Ok(self.inner.read(channel, since, limit).await?.page) })
    }

    fn recover<'a>(
        &'a self,
        channel: &'a ChannelKey,
        since: Position,
        limit: ReadLimit,
    ) -> Answer<'a, Recovery> {
        self.inner.recover_together(channel, since, limit)
    }

    fn position<'a>(&'a self, channel: &'a ChannelKey) -> Answer<'a, Start> {
        if self.inner.history(channel).is_none() {
            return Box::pin(std::future::ready(Ok(None)));
        }
        let answer = self.inner.redis.call_one(self.inner.ensure(channel));
        Box::pin(async move { read::start(answer.await) })
    }

    fn clear_history<'a>(&'a self, channel: &'a ChannelKey) -> Answer<'a, Start> {
        if self.inner.history(channel).is_none() {
            return Box::pin(std::future::ready(Ok(None)));
        }
        let delete = Command::new("DEL").word(self.inner.keys.channel(channel).stream());
        let answers = self
            .inner
            .redis
            .call(vec![delete, self.inner.ensure(channel)]);
        Box::pin(async move {
            let mut answers = answers.await;
            let position = read::start(answers.pop().unwrap_or(Err(CallError::NotSent)));
            answers
                .pop()
                .unwrap_or(Err(CallError::NotSent))
                .map_err(broker_error)?;
            position
        })
    }

    fn add_interest<'a>(&'a self, channel: &'a ChannelKey) -> Answer<'a, Start> {
        let name = self.inner.keys.envelopes(channel);
        let keeps = self.inner.history(channel).is_some();
        let inner = &self.inner;
        let Some(told) = inner.interests.add(&*inner.redis, name, channel, keeps) else {
            return self.position(channel);
        };
        let (tell, answered) = oneshot::channel();
        let redis = inner.redis.clone();
        inner.redis.spawn(Box::pin(async move {
            let start = match within(&*redis, INTEREST_TIMEOUT, told).await {
                Some(Ok(start)) => start,
                _ => Err(BrokerError::Unavailable),
            };
            let _ = tell.send(start);
        }));
        Box::pin(async move { answered.await.unwrap_or(Err(BrokerError::Unavailable)) })
    }

    fn remove_interest<'a>(&'a self, channel: &'a ChannelKey) -> Answer<'a, ()> {
        let name = self.inner.keys.envelopes(channel);
        let told = self.inner.interests.remove(&*self.inner.redis, &name);
        Box::pin(async move {
            if let Some(told) = told {
                // Dropped unsaid when the connection is lost: then nothing more comes either.
                let _ = told.await;
            }
            Ok(())
        })
    }

    fn join<'a>(&'a self, channel: &'a ChannelKey, member: Arc<Member>) -> Answer<'a, ()> {
        self.inner.enter(channel, member)
    }

    fn leave<'a>(&'a self, channel: &'a ChannelKey, client: ClientId) -> Answer<'a, ()> {
        self.inner.exit(channel, client)
    }

    fn presence<'a>(&'a self, channel: &'a ChannelKey, limit: usize) -> Answer<'a, Presence> {
        let [members, clients, users] = self.inner.keys.channel(channel).presence();
        let command = Command::script(&scripts::PRESENCE, &[&members, &clients, &users])
            .number(limit.min(1_000_000_000) as u64);
        let answer = self.inner.redis.call_one(command);
        Box::pin(async move { read::presence(answer.await.map_err(broker_error)?) })
    }

    fn control(&self, control: Control) -> Answer<'_, ()> {
        Box::pin(self.inner.order(control))
    }

    fn announce(&self, node: NodeInfo, channels: Vec<ActiveChannel>) -> Answer<'_, ()> {
        Box::pin(async move { self.inner.announce(&node, channels).await })
    }

    fn withdraw(&self) -> Answer<'_, ()> {
        Box::pin(self.inner.withdraw())
    }

    fn channels_elsewhere<'a>(
        &'a self,
        prefix: &'a str,
        cursor: Option<&'a str>,
        limit: usize,
    ) -> Answer<'a, Vec<ActiveChannel>> {
        Box::pin(self.inner.channels_elsewhere(prefix, cursor, limit))
    }

    fn subscribers_elsewhere<'a>(&'a self, channel: &'a ChannelKey) -> Answer<'a, u64> {
        Box::pin(self.inner.subscribers_elsewhere(channel))
    }

    fn nodes(&self) -> Answer<'_, Vec<NodeInfo>> {
        let keys = &self.inner.keys;
        let keys = [&keys.leases(), &keys.infos()];
        let command = self.inner.ask_nodes(&scripts::NODES, &keys);
        let answer = self.inner.redis.call_one(command);
        Box::pin(async move { Ok(read::nodes(answer.await.map_err(broker_error)?)) })
    }

    fn is_ready(&self) -> bool {
        self.inner.is_ready()
    }

    fn kind(&self) -> &'static str {
        "redis"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_that_left_leaves_no_room_behind_and_a_number_that_swings_keeps_its_own() {
        let mut table: HashMap<usize, usize> = (0..20_000).map(|number| (number, 0)).collect();
        let mut line: VecDeque<usize> = (0..20_000).collect();
        let (of_table, of_line) = (table.capacity(), line.capacity());
        table.retain(|number, _| *number < 10_000);
        line.truncate(10_000);
        give_back(&mut table);
        give_back_line(&mut line);
        // A place that was taken does not always count as free again.
        assert!(table.capacity() > of_table / 2);
        assert_eq!(line.capacity(), of_line);
        table.retain(|number, _| *number < 10);
        line.truncate(10);
        give_back(&mut table);
        give_back_line(&mut line);
        assert!(table.capacity() < 100, "{}", table.capacity());
        assert!(line.capacity() < 100, "{}", line.capacity());
        assert_eq!((table.len(), line.len()), (10, 10));
    }
}
