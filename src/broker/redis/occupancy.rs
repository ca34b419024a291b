//! Which channels have a subscriber anywhere in the fleet: told once when that begins, and once when it ends.
//!
//! Each channel has a hash in Redis with the nodes that have subscribers, and with its *life*: a random word that stands from the
//! first subscriber to the last. A node puts itself in and takes itself out by one script, and the one whose call makes the
//! first or the last change tells it. So both changes have one name for the fleet, and telling one again, which happens when an
//! answer or a node is lost, is recognised by it.
//!
//! Whoever cleans up after a dead node takes its part away as well (`fleet`). When Redis lost the hash, the nodes bring it back with
//! the life that they know, and nothing has begun.
//!
//! A channel that nobody wants lingers: who comes back within that time has not left.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::interest::LINGER;
use super::presence::AGAIN_AFTER;
use super::{
    BrokerError, CallError, ChannelKey, Command, Inner, Value, give_back, give_back_line, keys,
    lock, read, scripts, within,
};
use crate::redis::Pending;

/// The most channels of a batch.
const BATCH_MAX: usize = 512;

/// How often is looked for channels that lingered long enough.
const TICK: Duration = Duration::from_millis(250);

/// A channel got its first subscriber in the fleet, or lost its last one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Occupancy {
    /// Which.
    pub channel: ChannelKey,
    /// Whether somebody is subscribed now.
    pub is_occupied: bool,
    /// The same for the first subscriber and the last one behind it, and however often each is told: 32 hexadecimal digits.
    pub life: String,
}

/// Told of such changes. It must not wait.
pub type OccupancyObserver = Box<dyn Fn(Occupancy) + Send + Sync>;

/// What this node knows of the channels that it has subscribers of, or had a moment ago.
#[derive(Default)]
pub(super) struct Local {
    observer: OnceLock<OccupancyObserver>,
    state: Mutex<State>,
    changed: Notify,
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local")
            .field("is_watched", &self.observer.get().is_some())
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct State {
    channels: HashMap<ChannelKey, Entry>,
    /// Of which Redis may have to be told.
    due: VecDeque<ChannelKey>,
    /// In the order in which nobody wanted them any more.
    idle: VecDeque<(Instant, ChannelKey)>,
    /// How often everything was to be said again. What was said before that settles nothing.
    era: u64,
    has_ended: bool,
}

#[derive(Debug, Default)]
struct Entry {
    /// Since when nobody wants it; `None` while somebody does.
    idle_since: Option<Instant>,
    /// The name under which Redis may have this node there.
    name: Option<String>,
    /// The channel's life, where it is known, or empty.
    life: String,
    /// Whether Redis is known to have this node there, under its present name.
    is_settled: bool,
    is_due: bool,
}

/// What Redis is told of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Word {
    channel: ChannelKey,
    is_entering: bool,
    /// The node's name there.
    name: String,
    /// Under which it may be there still.
    former: String,
    /// The life that is known, or empty.
    life: String,
    era: u64,
}

/// What Redis answers.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Answer {
    life: String,
    /// What is to be told, if anything: that the channel is occupied, or vacant.
    is_occupied: Option<bool>,
}

impl Answer {
    fn read(answer: Value) -> Option<Self> {
        let parts = answer.into_array();
        let [life, change] = parts.as_slice() else {
            return None;
        };
        Some(Self {
            life: life.as_string()?,
            is_occupied: match read::number(change)? {
                1 => Some(true),
                2 => Some(false),
                _ => None,
            },
        })
    }

    fn occupancy(&self, channel: &ChannelKey) -> Option<Occupancy> {
        Some(Occupancy {
            channel: channel.clone(),
            is_occupied: self.is_occupied?,
            life: self.life.clone(),
        })
    }
}

impl State {
    fn add(&mut self, channel: &ChannelKey) {
        if let Some(entry) = self.channels.get_mut(channel)
            && !std::mem::replace(&mut entry.is_due, true)
        {
            self.due.push_back(channel.clone());
        }
    }

    fn occupy(&mut self, channel: &ChannelKey) {
        let entry = self.channels.entry(channel.clone()).or_default();
        entry.idle_since = None;
        if !entry.is_settled {
            self.add(channel);
        }
    }

    fn vacate(&mut self, channel: &ChannelKey, now: Instant) {
        if let Some(entry) = self.channels.get_mut(channel) {
            entry.idle_since = Some(now);
            self.idle.push_back((now, channel.clone()));
        }
    }

    fn say_again(&mut self, is_given_up: bool) {
        self.era += 1;
        for (channel, entry) in &mut self.channels {
            entry.is_settled = false;
            if is_given_up {
                // It may have ended meanwhile, and that was told.
                entry.life.clear();
            }
            if !std::mem::replace(&mut entry.is_due, true) {
                self.due.push_back(channel.clone());
            }
        }
    }

    /// What is to be said now, by a node of this name.
    fn batch(&mut self, name: &str, now: Instant) -> Vec<Word> {
        while let Some((_, channel)) = self
            .idle
            .pop_front_if(|(since, _)| now.duration_since(*since) >= LINGER)
        {
            self.add(&channel);
        }
        let mut batch = Vec::new();
        while batch.len() < BATCH_MAX {
            let Some(channel) = self.due.pop_front() else {
                break;
            };
            batch.extend(self.turn(channel, name, now));
        }
        batch
    }

    /// A channel's turn has come.
    fn turn(&mut self, channel: ChannelKey, name: &str, now: Instant) -> Option<Word> {
        let entry = self.channels.get_mut(&channel)?;
        entry.is_due = false;
        let is_entering = entry.idle_since.is_none();
        if is_entering && entry.is_settled {
            return None;
        }
        if entry
            .idle_since
            .is_some_and(|since| now.duration_since(since) < LINGER)
        {
            // It has a later place among those that linger.
            return None;
        }
        entry.is_settled = false;
        let (name, former) = match (entry.name.take(), is_entering) {
            (None, false) => {
                // Redis never heard of it.
                self.channels.remove(&channel);
                return None;
            }
            (Some(former), true) if former != name => (name.to_owned(), former),
            (_, true) => (name.to_owned(), String::new()),
            (Some(former), false) => (former, String::new()),
        };
        entry.name = Some(name.clone());
        let life = entry.life.clone();
        Some(Word {
            channel,
            is_entering,
            name,
            former,
            life,
            era: self.era,
        })
    }

    /// It was said, and this is the answer; `None` when it may not have been.
    fn said(&mut self, word: &Word, answer: Option<&Answer>) {
        let Some(entry) = self.channels.get_mut(&word.channel) else {
            return;
        };
        let Some(answer) = answer else {
            return self.add(&word.channel);
        };
        if word.is_entering {
            entry.life.clone_from(&answer.life);
            entry.is_settled = word.era == self.era;
            return;
        }
        (entry.name, entry.life) = (None, String::new());
        if entry.idle_since.is_some() {
            self.channels.remove(&word.channel);
        }
    }
}

impl Local {
    /// Gives back the room of channels, when there were many more.
    pub(super) fn give_back(&self) {
        let mut state = lock(&self.state);
        give_back(&mut state.channels);
        give_back_line(&mut state.due);
        give_back_line(&mut state.idle);
    }

    /// Answers whether this is the first one who watches.
    pub(super) fn watch(&self, observer: OccupancyObserver) -> bool {
        self.observer.set(observer).is_ok()
    }

    pub(super) fn occupy(&self, channel: &ChannelKey, is_occupied: bool, now: Instant) {
        let mut state = lock(&self.state);
        match is_occupied {
            true => state.occupy(channel),
            false => state.vacate(channel, now),
        }
        drop(state);
        if is_occupied {
            self.changed.notify_one();
        }
    }

    /// The node has another name: because others gave it up, or because Redis has other data.
    pub(super) fn say_again(&self, is_given_up: bool) {
        lock(&self.state).say_again(is_given_up);
        self.changed.notify_one();
    }

    /// Nothing is said any more.
    pub(super) fn end(&self) {
        lock(&self.state).has_ended = true;
        self.changed.notify_one();
    }

    fn tell(&self, occupancy: Option<Occupancy>) {
        if let (Some(observer), Some(occupancy)) = (self.observer.get(), occupancy) {
            observer(occupancy);
        }
    }
}

impl Inner {
    /// Says what is to be said, one batch after the other, until the end.
    pub(super) async fn say_occupancy(self: Arc<Self>) {
        while !lock(&self.occupancy.state).has_ended {
            within(&*self.redis, TICK, self.occupancy.changed.notified()).await;
            loop {
                let (batch, is_announced) = self.next_words();
                if batch.is_empty() {
                    break;
                }
                let answers = self.say_words(&batch, is_announced).await;
                if !self.hear(&batch, answers) {
                    self.redis.pause(AGAIN_AFTER).await;
                }
            }
        }
    }

    /// The next batch, and whether the name that it says is announced.
    fn next_words(&self) -> (Vec<Word>, bool) {
        let mut state = lock(&self.occupancy.state);
        // Read under the lock: a name that changes after this is followed by a new era.
        let (name, is_announced) = self.presence.name();
        (state.batch(&name, self.redis.now()), is_announced)
    }

    /// Answers of each word what Redis answered. Before it enters anywhere, that there is something to clean up is known where
    /// the leases are: on a Cluster another server has to know it, and a node that died in between would stay for ever.
    async fn say_words(&self, batch: &[Word], is_announced: bool) -> Vec<Option<Answer>> {
        let nothing = || vec![None; batch.len()];
        if let Some((name, note)) = self.note_words(batch, is_announced) {
            let Some(noted) = self.call_until_end(vec![note]) else {
                return nothing();
            };
            if noted.await.iter().any(Result::is_err) {
                return nothing();
            }
            // From now on there is something to lose with the lease.
            self.presence.announced(&name);
        }
        let commands = batch.iter().map(|word| self.word_command(word));
        let Some(answers) = self.call_until_end(commands.collect()) else {
            return nothing();
        };
        let answers = answers.await.into_iter();
        answers.map(|answer| Answer::read(answer.ok()?)).collect()
    }

    /// Says of the channels that are entered that this node is in them; `None` without any. And its name there.
    fn note_words(&self, batch: &[Word], is_announced: bool) -> Option<(String, Command)> {
        let mut entering = batch.iter().filter(|word| word.is_entering).peekable();
        let name = entering.peek()?.name.clone();
        let note = self.note(&name, is_announced, &self.keys.occupied_by(&name));
        let note = entering.fold(note, |note, word| note.word(keys::tag(&word.channel)));
        Some((name, note))
    }

    /// Sends commands, unless this node has left: behind that nothing may be said.
    fn call_until_end(
        &self,
        commands: Vec<Command>,
    ) -> Option<Pending<Vec<Result<Value, CallError>>>> {
        let state = lock(&self.occupancy.state);
        (!state.has_ended).then(|| self.redis.call(commands))
    }

    fn word_command(&self, word: &Word) -> Command {
        if !word.is_entering {
            return self.vacate_command(&word.channel, &word.name, &word.life, false);
        }
        let occupants = self.keys.channel(&word.channel).occupants();
        Command::script(&scripts::OCCUPY, &[&occupants])
            .word(&word.name)
            .word(format!("{:032x}", rand::random::<u128>()))
            .word(&word.life)
            .word(&word.former)
    }

    fn vacate_command(
        &self,
        channel: &ChannelKey,
        name: &str,
        life: &str,
        is_dead: bool,
    ) -> Command {
        let occupants = self.keys.channel(channel).occupants();
        Command::script(&scripts::VACATE, &[&occupants])
            .word(name)
            .word(life)
            .number(u64::from(is_dead))
    }

    /// Takes note of what was answered, and tells what is to be told. Answers whether everything was said.
    fn hear(&self, batch: &[Word], answers: Vec<Option<Answer>>) -> bool {
        let is_said = answers.iter().all(Option::is_some);
        let mut left: HashMap<&str, Vec<String>> = HashMap::new();
        for (word, answer) in batch.iter().zip(answers) {
            lock(&self.occupancy.state).said(word, answer.as_ref());
            let Some(answer) = answer else { continue };
            self.occupancy.tell(answer.occupancy(&word.channel));
            if !word.is_entering {
                left.entry(&word.name)
                    .or_default()
                    .push(keys::tag(&word.channel));
            }
        }
        // Only now: until the end was told, whoever cleans up after this node must tell it. One that stays does no harm.
        let forget = left.into_iter().map(|(name, tags)| {
            let set = Command::new("SREM").word(self.keys.occupied_by(name));
            tags.iter().fold(set, Command::word)
        });
        let forget: Vec<_> = forget.collect();
        if !forget.is_empty() {
            drop(self.call_until_end(forget));
        }
        is_said
    }

    /// Takes a node out of all channels, as Redis knows them, and tells what comes of it: when it says so itself, or its lease
    /// ended.
    pub(super) async fn vacate_all(&self, node: &str, is_own: bool) -> Result<(), BrokerError> {
        let channels = self.channels_in(self.keys.occupied_by(node)).await?;
        let commands = channels
            .iter()
            .map(|channel| self.vacate_command(channel, node, "", !is_own));
        self.call_in_parts(commands.collect(), |at, answer| {
            let answer = Answer::read(answer);
            self.occupancy
                .tell(answer.and_then(|answer| answer.occupancy(&channels[at])));
        })
        .await
    }
}

#[cfg(test)]
mod tests;
