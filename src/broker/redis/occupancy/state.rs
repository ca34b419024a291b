//! What a node says of its channels: when, under which name, and what it makes of the answer. Without I/O and without a clock.

use std::collections::VecDeque;
use std::time::Instant;

use hashbrown::HashMap;

use super::super::interest::LINGER;
use super::super::{ChannelKey, Value, give_back, give_back_line, read};
use super::Occupancy;

/// The most channels of a batch.
const BATCH_MAX: usize = 512;

#[derive(Debug, Default)]
pub(super) struct State {
    channels: HashMap<ChannelKey, Entry>,
    /// Of which Redis may have to be told.
    due: VecDeque<ChannelKey>,
    /// In the order in which nobody wanted them any more.
    idle: VecDeque<(Instant, ChannelKey)>,
    /// How often everything was to be said again. What was said before that settles nothing.
    era: u64,
    pub(super) has_ended: bool,
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
pub(super) struct Word {
    pub(super) channel: ChannelKey,
    pub(super) is_entering: bool,
    /// The node's name there.
    pub(super) name: String,
    /// Under which it may be there still.
    pub(super) former: String,
    /// The life that is known, or empty.
    pub(super) life: String,
    era: u64,
}

/// What Redis answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    life: String,
    /// What is to be told, if anything: that the channel is occupied, or vacant.
    is_occupied: Option<bool>,
}

impl Answer {
    pub(super) fn read(answer: Value) -> Option<Self> {
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

    pub(super) fn occupancy(&self, channel: &ChannelKey) -> Option<Occupancy> {
        Some(Occupancy {
            channel: channel.clone(),
            is_occupied: self.is_occupied?,
            life: self.life.clone(),
        })
    }
}

impl State {
    /// Gives back the room of channels, when there were many more.
    pub(super) fn give_back(&mut self) {
        give_back(&mut self.channels);
        give_back_line(&mut self.due);
        give_back_line(&mut self.idle);
    }

    fn add(&mut self, channel: &ChannelKey) {
        if let Some(entry) = self.channels.get_mut(channel)
            && !std::mem::replace(&mut entry.is_due, true)
        {
            self.due.push_back(channel.clone());
        }
    }

    pub(super) fn occupy(&mut self, channel: &ChannelKey) {
        let entry = self.channels.entry(channel.clone()).or_default();
        entry.idle_since = None;
        if !entry.is_settled {
            self.add(channel);
        }
    }

    pub(super) fn vacate(&mut self, channel: &ChannelKey, now: Instant) {
        if let Some(entry) = self.channels.get_mut(channel) {
            entry.idle_since = Some(now);
            self.idle.push_back((now, channel.clone()));
        }
    }

    pub(super) fn say_again(&mut self, is_given_up: bool) {
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
    pub(super) fn batch(&mut self, name: &str, now: Instant) -> Vec<Word> {
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
    pub(super) fn said(&mut self, word: &Word, answer: Option<&Answer>) {
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

#[cfg(test)]
mod tests;
