//! Which channels this node wants, and what of it the connection knows.
//!
//! Everything that is said to and by the connection that brings messages is in one order, that of its wire. A *mark* is
//! a message that the node publishes to itself there: when it comes back, every change that was sent before it has taken
//! effect, and every message before it has been handed over. So the position that is read after a mark is one from which
//! nothing is missed, and nothing comes after the end of an interest.
//!
//! Changes are asked under one lock, so they take effect in the order of the calls, and leave in batches.
//!
//! Nothing here does I/O or reads a clock. All of this is of one server; which channels are whose is known next door (`interests`).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use tokio::sync::{Notify, oneshot};

use crate::broker::{BrokerError, Control, Sink, Start};
use crate::model::{ChannelKey, Position};

use super::entry::{Check, Entry, Phase};
use super::orders::Orders;
use super::{give_back, give_back_line};

mod hearing;

/// How long a channel stays subscribed to that nobody wants: churn must not become a storm.
pub(super) const LINGER: Duration = Duration::from_secs(1);

/// The most channels of one SUBSCRIBE.
const BATCH_MAX: usize = 512;

/// What happens when a mark comes back.
#[derive(Debug, Default)]
struct Barrier {
    started: Vec<String>,
    ended: Vec<String>,
    checks: Vec<Check>,
    is_control: bool,
}

/// A change that is to be sent: to be subscribed to, no longer, and the mark behind it.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) added: Vec<String>,
    pub(super) removed: Vec<String>,
    pub(super) mark: u64,
}

#[derive(Debug, Default)]
struct State {
    is_connected: bool,
    /// Whether orders are to come from this server.
    wants_control: bool,
    /// Whether they do.
    is_controlled: bool,
    /// Whether the server is one no more.
    has_ended: bool,
    channels: HashMap<String, Entry>,
    starting: Vec<String>,
    ending: Vec<String>,
    checks: Vec<Check>,
    /// Channels that another server has now, to which this one may still be subscribed.
    departed: Vec<String>,
    /// In the order in which they became idle.
    idle: VecDeque<String>,
    barriers: HashMap<u64, Barrier>,
    marks: u64,
}

/// The channels that this node wants of one server.
pub(super) struct Interest {
    state: Mutex<State>,
    pub(super) changed: Notify,
    ears: Arc<Ears>,
}

/// Where everything is handed over, where orders come, and which did.
#[derive(Default)]
pub(super) struct Ears {
    pub(super) sink: OnceLock<Arc<dyn Sink>>,
    pub(super) control: String,
    pub(super) orders: Orders,
}

impl Ears {
    pub(super) fn execute(&self, control: &Control) {
        if let Some(sink) = self.sink.get() {
            sink.control(control);
        }
    }
}

impl Interest {
    pub(super) fn new(ears: Arc<Ears>) -> Self {
        Self {
            state: Mutex::default(),
            changed: Notify::new(),
            ears,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the connection stands and brings orders.
    pub(super) fn is_ready(&self) -> bool {
        let state = self.lock();
        state.is_connected && (state.is_controlled || !state.wants_control)
    }

    /// Whether orders are to come from this server.
    pub(super) fn want_control(&self, wants: bool) {
        let mut state = self.lock();
        state.is_controlled &= wants;
        if wants && !state.wants_control {
            self.ears.orders.lost();
        }
        state.wants_control = wants;
        self.changed.notify_one();
    }

    /// Gives away the channels that another server has now. Whoever waits for one goes on waiting.
    pub(super) fn depart(&self, is_elsewhere: impl Fn(&str) -> bool) -> Vec<(String, Entry)> {
        let mut state = self.lock();
        let state = &mut *state;
        let gone: Vec<_> = state
            .channels
            .extract_if(|name, _| is_elsewhere(name))
            .collect();
        state
            .starting
            .retain(|name| state.channels.contains_key(name));
        state
            .ending
            .retain(|name| state.channels.contains_key(name));
        if state.is_connected {
            state
                .departed
                .extend(gone.iter().map(|(name, _)| name.clone()));
            self.changed.notify_one();
        }
        // Dropping what waits for an end says that it came.
        gone.into_iter()
            .filter(|(_, entry)| entry.is_wanted)
            .collect()
    }

    /// Takes over a channel that another server had. What was published meanwhile may be missing.
    pub(super) fn arrive(&self, name: String, mut entry: Entry) {
        let mut state = self.lock();
        entry.begin_again();
        state.starting.push(name.clone());
        state.channels.insert(name, entry);
        self.changed.notify_one();
    }

    /// The server is one no more.
    pub(super) fn end(&self) {
        self.lock().has_ended = true;
        self.changed.notify_one();
    }

    /// Gives back the room of what was wanted, when that was much more.
    pub(super) fn give_back(&self) {
        let mut state = self.lock();
        give_back(&mut state.channels);
        give_back_line(&mut state.idle);
        if state.starting.is_empty() {
            state.starting = Vec::new();
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.lock().has_ended
    }

    /// The channel is wanted. Answers whether it is handed over already, so that its position may be read at once;
    /// otherwise what to wait for.
    pub(super) fn add(
        &self,
        name: String,
        channel: &ChannelKey,
        keeps_history: bool,
        now: Instant,
    ) -> Option<oneshot::Receiver<Result<Start, BrokerError>>> {
        let mut state = self.lock();
        let state = &mut *state;
        let (tell, told) = oneshot::channel();
        if !state.is_connected && !state.channels.contains_key(&name) {
            // Who asks gives it up, and nothing is to be left of that when the connection is back.
            let _ = tell.send(Err(BrokerError::Unavailable));
            return Some(told);
        }
        let entry = state.channels.entry(name.clone());
        let entry = entry.or_insert_with(|| Entry::new(channel, keeps_history, now));
        entry.is_wanted = true;
        match entry.phase {
            Phase::Live if state.is_connected => return None,
            Phase::Ending => {
                entry.phase = Phase::Live;
                return None;
            }
            Phase::Idle(_) | Phase::Live => {
                entry.phase = Phase::Asked;
                state.starting.push(name);
                self.changed.notify_one();
            }
            Phase::Asked | Phase::Reading(_) => {}
        }
        match state.is_connected {
            true => entry.starts.push(tell),
            // It is subscribed to when the connection is back, unless it is given up before.
            false => drop(tell.send(Err(BrokerError::Unavailable))),
        }
        Some(told)
    }

    /// The channel is no longer wanted. What to wait for until nothing more comes.
    pub(super) fn remove(&self, name: &str) -> Option<oneshot::Receiver<()>> {
        let mut state = self.lock();
        let state = &mut *state;
        let entry = state.channels.get_mut(name)?;
        entry.is_wanted = false;
        if !state.is_connected {
            // Nothing comes, and nothing is to be asked for it when the connection is back.
            state.channels.remove(name);
            return None;
        }
        if !matches!(entry.phase, Phase::Live | Phase::Ending) {
            return None;
        }
        let (tell, told) = oneshot::channel();
        entry.ends.push(tell);
        entry.phase = Phase::Ending;
        state.ending.push(name.to_owned());
        self.changed.notify_one();
        Some(told)
    }

    /// What is to be sent next; `None` when there is nothing, or no connection.
    pub(super) fn next_change(&self, now: Instant) -> Option<Change> {
        let mut state = self.lock();
        let state = &mut *state;
        if !state.is_connected {
            return None;
        }
        let mut barrier = Barrier::default();
        let mut change = Change {
            added: Vec::new(),
            removed: state.outlived(now),
            mark: state.marks + 1,
        };
        change.removed.append(&mut state.departed);
        if state.wants_control
            && !state.is_controlled
            && !state.barriers.values().any(|barrier| barrier.is_control)
        {
            barrier.is_control = true;
            change.added.push(self.ears.control.clone());
        }
        let count = state.starting.len().min(BATCH_MAX);
        let started = state.starting.drain(..count);
        // Some may have been given up meanwhile.
        barrier.started = started
            .filter(|name| state.channels.contains_key(name))
            .collect();
        barrier.ended = std::mem::take(&mut state.ending);
        barrier.checks = std::mem::take(&mut state.checks);
        change.added.extend(barrier.started.iter().cloned());
        let is_empty = change.added.is_empty()
            && change.removed.is_empty()
            && barrier.ended.is_empty()
            && barrier.checks.is_empty();
        if is_empty {
            return None;
        }
        state.marks += 1;
        state.barriers.insert(state.marks, barrier);
        Some(change)
    }

    /// A change was not taken: it is asked again with the next.
    pub(super) fn refused(&self, mark: u64) {
        let mut state = self.lock();
        if let Some(barrier) = state.barriers.remove(&mark) {
            state.starting.extend(barrier.started);
            state.ending.extend(barrier.ended);
            state.checks.extend(barrier.checks);
        }
    }

    /// Live channels whose position could not be read are asked for again: without one they cannot be checked.
    pub(super) fn ask_unknown(&self) {
        let mut state = self.lock();
        let state = &mut *state;
        if !state.is_connected {
            return;
        }
        for (name, entry) in &mut state.channels {
            let is_unknown = entry.is_wanted && entry.keeps_history && entry.last.is_none();
            if is_unknown && matches!(entry.phase, Phase::Live) {
                entry.phase = Phase::Asked;
                entry.has_hole = true;
                state.starting.push(name.clone());
                self.changed.notify_one();
            }
        }
    }

    /// Channels that are live and keep history, with what was seen of them.
    pub(super) fn seen(&self) -> Vec<(String, ChannelKey, Option<Position>)> {
        let state = self.lock();
        let live = state.channels.iter().filter(|(_, entry)| {
            entry.is_wanted && entry.keeps_history && matches!(entry.phase, Phase::Live)
        });
        live.map(|(name, entry)| (name.clone(), entry.channel.clone(), entry.last))
            .collect()
    }

    /// Looks at these when everything that was published before the question has come.
    pub(super) fn check(&self, checks: Vec<Check>) {
        self.lock().checks.extend(checks);
        self.changed.notify_one();
    }

    pub(super) fn connected(&self) {
        self.lock().is_connected = true;
        self.changed.notify_one();
    }

    /// What was wanted is to be subscribed to again, and has a hole then.
    pub(super) fn lost(&self) {
        let mut state = self.lock();
        let state = &mut *state;
        state.is_connected = false;
        state.is_controlled = false;
        if state.wants_control {
            self.ears.orders.lost();
        }
        state.barriers.clear();
        state.ending.clear();
        state.checks.clear();
        state.idle.clear();
        state.departed.clear();
        // Dropping what waits for an end says that it came.
        state.channels.retain(|_, entry| entry.is_wanted);
        for entry in state.channels.values_mut() {
            entry.begin_again();
        }
        state.starting = state.channels.keys().cloned().collect();
    }
}

impl State {
    /// The channels that nobody wanted for a while. They are forgotten.
    fn outlived(&mut self, now: Instant) -> Vec<String> {
        let mut outlived = Vec::new();
        while let Some(name) = self.idle.front() {
            match self.channels.get(name).map(|entry| &entry.phase) {
                Some(Phase::Idle(since)) if now.duration_since(*since) < LINGER => break,
                Some(Phase::Idle(_)) => {
                    self.channels.remove(name);
                    outlived.extend(self.idle.pop_front());
                }
                _ => drop(self.idle.pop_front()),
            }
        }
        outlived
    }
}
