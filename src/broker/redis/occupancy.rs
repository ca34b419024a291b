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

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::presence::AGAIN_AFTER;
use super::{
    BrokerError, CallError, ChannelKey, Command, Inner, Value, keys, lock, scripts, within,
};
use crate::redis::Pending;

mod state;

use state::{Answer, State, Word};

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

impl Local {
    /// Gives back the room of channels, when there were many more.
    pub(super) fn give_back(&self) {
        lock(&self.state).give_back();
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
