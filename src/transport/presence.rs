//! Who is present, told anew to those who watch a channel. Joins and leaves have no numbers and are kept nowhere: after a hole
//! nobody knows which are missing, so all who watch are told who is there now.
//!
//! What comes while that is asked waits behind the answer, which may be older: so who replaces a list by it and goes on with
//! joins and leaves is right again.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::broker::{BrokerError, Presence};
use crate::hub::ChannelIndex;
use crate::model::{ChannelKey, Event, WireFormat};
use crate::protocol::plain::encode_reply;

use super::questions::{Done, ENTRY_BYTES_MIN, presence_reply};
use super::shard::Shard;

/// How many channels are asked about at the same time: a hole in every channel must not become a storm.
const READS_MAX: usize = 8;

/// Between two answers that are told in a channel, however many holes it has. And how long a question that failed waits.
const REST: Duration = Duration::from_secs(1);

/// The most joins and leaves that wait for an answer.
const HELD_MAX: usize = 256;

/// The most bytes of what is told: nobody asked for it. Some hundred members; when there are more, that is said.
const TOLD_BYTES_MAX: usize = 64 * 1024;

/// The channels in which those who watch may be wrong.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    channels: HashMap<ChannelKey, Doubt>,
    waiting: VecDeque<ChannelKey>,
    reading: usize,
}

/// What becomes of a channel's doubt.
#[derive(Debug)]
struct Doubt {
    stage: Stage,
    /// Whether something may be missing since it was asked.
    again: bool,
    /// What came since.
    held: Vec<Event>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Waiting,
    Reading,
    Resting,
}

impl Doubts {
    /// Whether a read could begin now.
    pub(super) fn can_go_on(&self) -> bool {
        !self.waiting.is_empty() && self.reading < READS_MAX
    }

    fn add(&mut self, channel: &ChannelKey) {
        if let Some(doubt) = self.channels.get_mut(channel) {
            doubt.again |= doubt.stage != Stage::Waiting;
            return;
        }
        let doubt = Doubt {
            stage: Stage::Waiting,
            again: false,
            held: Vec::new(),
        };
        self.channels.insert(channel.clone(), doubt);
        self.waiting.push_back(channel.clone());
    }

    /// The channel that is to be asked about next.
    fn next(&mut self) -> Option<ChannelKey> {
        if !self.can_go_on() {
            return None;
        }
        let channel = self.waiting.pop_front()?;
        let doubt = self.channels.get_mut(&channel)?;
        doubt.stage = Stage::Reading;
        self.reading += 1;
        Some(channel)
    }

    /// Something came. Answers what is to be told now.
    fn take(&mut self, channel: &ChannelKey, event: Event) -> Vec<Event> {
        let doubt = self.channels.get_mut(channel);
        let Some(doubt) = doubt.filter(|doubt| doubt.stage == Stage::Reading) else {
            return vec![event];
        };
        doubt.held.push(event);
        if doubt.held.len() <= HELD_MAX {
            return Vec::new();
        }
        // The answer will be older than these.
        doubt.again = true;
        std::mem::take(&mut doubt.held)
    }

    /// An answer came, or none. What is to be told behind it.
    fn answered(&mut self, channel: &ChannelKey, is_answer: bool) -> Vec<Event> {
        self.reading = self.reading.saturating_sub(1);
        let Some(doubt) = self.channels.get_mut(channel) else {
            return Vec::new();
        };
        doubt.stage = Stage::Resting;
        doubt.again |= !is_answer;
        std::mem::take(&mut doubt.held)
    }

    /// It may be asked again.
    fn rested(&mut self, channel: ChannelKey) {
        let Some(doubt) = self.channels.get_mut(&channel) else {
            return;
        };
        if !std::mem::take(&mut doubt.again) {
            self.channels.remove(&channel);
            return;
        }
        doubt.stage = Stage::Waiting;
        self.waiting.push_back(channel);
    }
}

impl Shard {
    /// Joins and leaves of this channel may be missing.
    pub(super) fn doubt_presence(&mut self, channel: ChannelIndex) {
        let Some(slot) = self.hub.channel(channel) else {
            return;
        };
        if slot.is_watched() {
            self.waiting.doubts.add(slot.key());
        }
    }

    /// Members joined or left.
    pub(super) fn announce(&mut self, channel: ChannelIndex, key: &ChannelKey, event: Event) {
        if self.waiting.doubts.reading == 0 {
            return self.hub.announce(channel, &event, &mut self.encoder);
        }
        for event in self.waiting.doubts.take(key, event) {
            self.hub.announce(channel, &event, &mut self.encoder);
        }
    }

    /// Asks about as many channels as may be.
    pub(super) fn go_on_with_presence(&mut self) {
        for _ in 0..READS_MAX {
            let Some(channel) = self.waiting.doubts.next() else {
                return;
            };
            let relay = self.context.relay.clone();
            let most = (self.told_bytes() / ENTRY_BYTES_MIN).max(1);
            self.when_done(async move {
                let presence = relay.broker().presence(&channel, most).await;
                Done::PresenceRead(channel, presence)
            });
        }
    }

    fn told_bytes(&self) -> usize {
        self.answer_bytes().min(TOLD_BYTES_MAX)
    }

    /// Tells all who watch the channel who is there.
    pub(super) fn presence_read(
        &mut self,
        key: ChannelKey,
        presence: Result<Presence, BrokerError>,
    ) {
        let held = self.waiting.doubts.answered(&key, presence.is_ok());
        if let Some(channel) = self.hub.find_channel(&key) {
            if let Ok(presence) = presence {
                let reply = presence_reply(key.clone(), presence, self.told_bytes());
                self.hub.tell_presence(channel, |format, out| {
                    if matches!(format, WireFormat::Json | WireFormat::MessagePack) {
                        encode_reply(format, &reply, None, out);
                    }
                });
            }
            for event in held {
                self.hub.announce(channel, &event, &mut self.encoder);
            }
        }
        let front = self.front.clone();
        tokio::task::spawn_local(async move {
            tokio::time::sleep(REST).await;
            front.finish(Done::PresenceRested(key));
        });
    }

    /// A channel has not been told of for a while.
    pub(super) fn presence_rested(&mut self, channel: ChannelKey) {
        self.waiting.doubts.rested(channel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ClientId, Member};
    use std::sync::Arc;

    fn room() -> ChannelKey {
        ChannelKey::new("room").expect("a name")
    }

    fn join(client: u128) -> Event {
        let member = Member {
            client: ClientId::from_bits(client),
            user: "ann".into(),
            info: None,
        };
        Event::Join([Arc::new(member)].into())
    }

    #[test]
    fn what_comes_while_it_is_asked_waits_for_the_answer() {
        let mut doubts = Doubts::default();
        assert_eq!(doubts.take(&room(), join(1)), [join(1)]);
        doubts.add(&room());
        assert_eq!(doubts.take(&room(), join(2)), [join(2)], "not asked yet");
        assert_eq!(doubts.next(), Some(room()));
        assert!(doubts.take(&room(), join(3)).is_empty());
        assert_eq!(doubts.answered(&room(), true), [join(3)]);
        assert_eq!(doubts.take(&room(), join(4)), [join(4)]);
        doubts.rested(room());
        assert!(doubts.channels.is_empty() && !doubts.can_go_on());
    }

    #[test]
    fn holes_that_follow_each_other_are_one_question_after_a_rest() {
        let mut doubts = Doubts::default();
        doubts.add(&room());
        doubts.add(&room());
        assert_eq!(doubts.next(), Some(room()));
        doubts.add(&room());
        doubts.add(&room());
        assert_eq!(doubts.next(), None);
        doubts.answered(&room(), true);
        assert_eq!(doubts.next(), None, "it rests");
        doubts.rested(room());
        assert_eq!(doubts.next(), Some(room()));
        doubts.answered(&room(), true);
        doubts.rested(room());
        assert_eq!(doubts.next(), None);
    }

    #[test]
    fn a_question_that_failed_is_asked_again() {
        let mut doubts = Doubts::default();
        doubts.add(&room());
        assert_eq!(doubts.next(), Some(room()));
        doubts.answered(&room(), false);
        doubts.rested(room());
        assert_eq!(doubts.next(), Some(room()));
    }

    #[test]
    fn what_waits_is_bounded_and_then_asked_again() {
        let mut doubts = Doubts::default();
        doubts.add(&room());
        doubts.next();
        let told = (0..=HELD_MAX as u128).map(|client| doubts.take(&room(), join(client)));
        let told: Vec<Event> = told.flatten().collect();
        assert_eq!(told.len(), HELD_MAX + 1);
        doubts.answered(&room(), true);
        doubts.rested(room());
        assert_eq!(doubts.next(), Some(room()));
    }

    #[test]
    fn no_more_are_asked_about_at_once_than_may_be() {
        let mut doubts = Doubts::default();
        for number in 0..=READS_MAX {
            let channel = ChannelKey::new(&format!("room-{number}")).expect("a name");
            doubts.add(&channel);
        }
        let asked = std::iter::from_fn(|| doubts.next()).count();
        assert_eq!(asked, READS_MAX);
    }
}
