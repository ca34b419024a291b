//! The relay joins the workers' hubs to the broker: interest out, publications and orders in.
//!
//! A worker says which channels it has subscribers for; the relay has the broker's interest for each channel that any
//! worker wants, and puts what the broker brings into the inboxes of the workers that want it. Whether something is
//! missing is seen by the worker's hub, which asks the broker again.

pub mod follow;
mod inbox;

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use hashbrown::DefaultHashBuilder;

pub use inbox::{Inbox, InboxLimits, Message};

use crate::broker::{ActiveChannel, Answer, Broker, Control, Purged, Sink, Start};
use crate::model::{ChannelKey, Envelope};

/// The most workers of a node: their set is one word.
pub const WORKERS_MAX: usize = 64;

/// What every worker and every HTTP handler of the node shares.
pub struct Relay {
    broker: Arc<dyn Broker>,
    switchboard: Arc<Switchboard>,
    /// Held while a channel's first or last worker is told to the broker, so that the broker hears it in the order in
    /// which it became true. Never taken by what the broker brings.
    interest: Mutex<()>,
    observer: Option<InterestObserver>,
}

/// Told what caches are to forget, which no worker has. It must not wait.
pub type PurgeObserver = Box<dyn Fn(&Purged) + Send + Sync>;

/// Told when a channel gets its first worker with a subscriber on this node (true), and when it loses its last one (false),
/// in the order in which that became true. It must not wait.
pub type InterestObserver = Box<dyn Fn(&ChannelKey, bool) + Send + Sync>;

/// The room for channels that is kept without asking how much of it is used.
const ROOM_KEPT: usize = 16_384;

/// Who wants what on this node, and where it goes.
struct Switchboard {
    inboxes: Box<[Arc<Inbox>]>,
    channels: DashMap<ChannelKey, Interest, DefaultHashBuilder>,
    purges: OnceLock<PurgeObserver>,
}

/// One channel that somebody on this node is subscribed to.
#[derive(Debug, Default)]
struct Interest {
    /// A bit for each worker with a subscriber.
    workers: u64,
    subscribers: u64,
}

impl Relay {
    /// Joins `broker` to workers with these inboxes (at most [`WORKERS_MAX`]).
    pub fn new(broker: Arc<dyn Broker>, inboxes: Vec<Arc<Inbox>>) -> Self {
        let switchboard = Arc::new(Switchboard {
            inboxes: inboxes.into(),
            channels: DashMap::default(),
            purges: OnceLock::new(),
        });
        broker.attach(switchboard.clone());
        Self {
            broker,
            switchboard,
            interest: Mutex::new(()),
            observer: None,
        }
    }

    /// The same, and `observer` hears of channels that become occupied and vacant.
    #[must_use]
    pub fn observed_by(mut self, observer: Option<InterestObserver>) -> Self {
        self.observer = observer;
        self
    }

    /// `observer` hears what caches are to forget. To be called once.
    pub fn on_purge(&self, observer: PurgeObserver) {
        // The first one stays.
        let _ = self.switchboard.purges.set(observer);
    }

    fn observe(&self, channel: &ChannelKey, is_occupied: bool) {
        if let Some(observer) = &self.observer {
            observer(channel, is_occupied);
        }
    }

    /// The broker, for what needs no worker.
    pub fn broker(&self) -> &Arc<dyn Broker> {
        &self.broker
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.switchboard.inboxes.len()
    }

    /// The inbox of a worker.
    pub fn inbox(&self, worker: usize) -> &Arc<Inbox> {
        &self.switchboard.inboxes[worker]
    }

    /// A worker got its first subscriber of a channel. Everything after the position that the broker answers comes
    /// into the worker's inbox.
    pub fn add_interest<'a>(&'a self, worker: usize, channel: &'a ChannelKey) -> Answer<'a, Start> {
        let _ordered = self.interest.lock().unwrap_or_else(PoisonError::into_inner);
        let was_vacant = {
            let mut interest = self
                .switchboard
                .channels
                .entry(channel.clone())
                .or_default();
            let was_vacant = interest.workers == 0;
            interest.workers |= 1 << worker;
            was_vacant
        };
        if was_vacant {
            self.observe(channel, true);
        }
        self.broker.add_interest(channel)
    }

    /// A worker lost its last subscriber of a channel. `None` when other workers still want it.
    ///
    /// What is counted stays while another worker's first subscriber stands between being counted and being told here.
    pub fn remove_interest<'a>(
        &'a self,
        worker: usize,
        channel: &'a ChannelKey,
    ) -> Option<Answer<'a, ()>> {
        let _ordered = self.interest.lock().unwrap_or_else(PoisonError::into_inner);
        let Entry::Occupied(mut entry) = self.switchboard.channels.entry(channel.clone()) else {
            return None;
        };
        entry.get_mut().workers &= !(1 << worker);
        if entry.get().workers != 0 {
            return None;
        }
        if entry.get().subscribers == 0 {
            entry.remove();
        }
        self.observe(channel, false);
        Some(self.broker.remove_interest(channel))
    }

    /// A connection subscribed to a channel that its worker has interest in, or is about to have.
    pub fn count_subscriber(&self, channel: &ChannelKey) {
        if let Some(mut interest) = self.switchboard.channels.get_mut(channel) {
            interest.subscribers += 1;
            return;
        }
        self.switchboard
            .channels
            .entry(channel.clone())
            .or_default()
            .subscribers += 1;
    }

    /// A connection's subscription ended.
    pub fn discount_subscriber(&self, channel: &ChannelKey) {
        if let Some(mut interest) = self.switchboard.channels.get_mut(channel) {
            interest.subscribers = interest.subscribers.saturating_sub(1);
        }
    }

    /// The channels that have subscribers on this node and whose name begins with `prefix`, after `cursor` in the
    /// order of their names, at most `limit`.
    pub fn channels(&self, prefix: &str, cursor: Option<&str>, limit: usize) -> Vec<ActiveChannel> {
        let wanted =
            |name: &str| name.starts_with(prefix) && cursor.is_none_or(|cursor| name > cursor);
        let mut found: Vec<ActiveChannel> = self
            .switchboard
            .channels
            .iter()
            .filter(|entry| entry.subscribers > 0 && wanted(entry.key().name()))
            .map(|entry| ActiveChannel {
                channel: entry.key().clone(),
                subscribers: entry.subscribers,
            })
            .collect();
        found.sort_unstable_by(|a, b| a.channel.name().cmp(b.channel.name()));
        found.truncate(limit);
        found
    }

    /// Every channel that has subscribers on this node, in no order.
    pub fn all_channels(&self) -> Vec<ActiveChannel> {
        let channels = self.switchboard.channels.iter();
        channels
            .filter(|entry| entry.subscribers > 0)
            .map(|entry| ActiveChannel {
                channel: entry.key().clone(),
                subscribers: entry.subscribers,
            })
            .collect()
    }

    /// How many subscribers a channel has on this node.
    pub fn subscribers(&self, channel: &ChannelKey) -> u64 {
        self.switchboard
            .channels
            .get(channel)
            .map_or(0, |interest| interest.subscribers)
    }

    /// Gives back the room of channels, when there were many more. To be called now and then.
    pub fn give_back(&self) {
        let channels = &self.switchboard.channels;
        let room = channels.capacity();
        if room > ROOM_KEPT && channels.len() < room / 4 {
            channels.shrink_to_fit();
        }
    }

    /// How many channels have a subscriber on this node.
    pub fn channel_count(&self) -> u64 {
        self.switchboard.channels.len() as u64
    }
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relay")
            .field("broker", &self.broker.kind())
            .finish_non_exhaustive()
    }
}

impl Sink for Switchboard {
    fn deliver(&self, envelope: &Envelope) {
        let Some(workers) = self
            .channels
            .get(&envelope.channel)
            .map(|interest| interest.workers)
        else {
            return;
        };
        for (worker, inbox) in self.inboxes.iter().enumerate() {
            if workers & (1 << worker) != 0 {
                inbox.push_envelope(envelope);
            }
        }
    }

    fn hole(&self, channel: Option<&ChannelKey>) {
        for inbox in &self.inboxes {
            inbox.push(Message::Hole(channel.cloned()));
        }
    }

    fn changed(&self) {
        for inbox in &self.inboxes {
            inbox.push(Message::Changed);
        }
    }

    fn control(&self, control: &Control) {
        if let Control::Purge(purged) = control {
            if let Some(observer) = self.purges.get() {
                observer(purged);
            }
            return;
        }
        for inbox in &self.inboxes {
            inbox.push(Message::Control(control.clone()));
        }
    }
}

#[cfg(test)]
mod tests;
