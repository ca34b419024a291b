//! Holes: what this worker missed is read again, at once, and delivered as if it had come.

use std::collections::VecDeque;
use std::time::Duration;

use crate::broker::{BrokerError, ReadLimit, Recovery};
use crate::model::{ChannelKey, Position};
use crate::relay::follow::{self, Missed};
use crate::telemetry::metrics;

use super::questions::Done;
use super::shard::Shard;

/// How many streams are read at the same time: a hole in every channel must not become a storm.
const READS_MAX: usize = 64;

/// How long a stream whose read failed waits for the next.
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// One read of a stream.
const READ_LIMIT: ReadLimit = ReadLimit {
    publications: 512,
    bytes: 128 * 1024,
};

/// The channels that are to be read again.
#[derive(Debug, Default)]
pub(super) struct Repairs {
    waiting: VecDeque<(ChannelKey, Position)>,
    reading: usize,
}

impl Repairs {
    /// Whether a read could begin now.
    pub(super) fn can_go_on(&self) -> bool {
        !self.waiting.is_empty() && self.reading < READS_MAX
    }
}

impl Shard {
    /// Something before `seen` did not come. Channels without history cannot be read again: their subscribers are told.
    pub(super) fn missed(&mut self, channel: &ChannelKey, seen: u64) {
        let Some(index) = self.hub.find_channel(channel) else {
            return;
        };
        metrics::hole();
        self.doubt_presence(index);
        match follow::missed(&mut self.hub, index, seen, &mut self.encoder) {
            Missed::Told(gaps) => self.counts.gaps += gaps,
            Missed::Read(position) => self
                .waiting
                .repairs
                .waiting
                .push_back((channel.clone(), position)),
            Missed::Nothing => {}
        }
    }

    /// Nobody knows what did not come.
    pub(super) fn missed_everywhere(&mut self) {
        for channel in self.channels() {
            self.missed(&channel, 0);
        }
    }

    /// Every stream may be another than before. Whoever is in a channel without one missed nothing by that, but who is
    /// present there may be others.
    pub(super) fn read_all_again(&mut self) {
        for channel in self.channels() {
            let index = self.hub.find_channel(&channel);
            match index.filter(|index| follow::keeps_nothing(&self.hub, *index)) {
                Some(index) => self.doubt_presence(index),
                None => self.missed(&channel, 0),
            }
        }
    }

    fn channels(&self) -> Vec<ChannelKey> {
        let channels = self.hub.channels();
        channels.map(|(_, channel)| channel.key().clone()).collect()
    }

    /// Begins as many reads as may be under way.
    pub(super) fn go_on_with_repairs(&mut self) {
        for _ in 0..READS_MAX {
            if !self.waiting.repairs.can_go_on() || !self.waiting.allowance.is_left() {
                return;
            }
            let Some((channel, position)) = self.waiting.repairs.waiting.pop_front() else {
                return;
            };
            self.waiting.repairs.reading += 1;
            let relay = self.context.relay.clone();
            self.when_done(async move {
                let recovery = relay.broker().recover(&channel, position, READ_LIMIT).await;
                Done::Repaired(channel, position, recovery)
            });
        }
    }

    /// A read came back: delivers what it brought and goes on until nothing is missing.
    pub(super) fn repaired(
        &mut self,
        channel: ChannelKey,
        asked: Position,
        recovery: Result<Recovery, BrokerError>,
    ) {
        self.waiting.repairs.reading = self.waiting.repairs.reading.saturating_sub(1);
        let Some(index) = self.hub.find_channel(&channel) else {
            return;
        };
        if !follow::awaits(&self.hub, index, asked) {
            return;
        }
        let Ok(recovery) = recovery else {
            return self.repair_later(channel, asked);
        };
        if let Recovery::Recovered(page) = &recovery {
            for publication in &page.publications {
                self.waiting.allowance.spend(publication.data.len());
            }
        }
        let repaired = follow::repair(&mut self.hub, index, asked, recovery, &mut self.encoder);
        self.count(repaired.delivered);
        self.counts.gaps += repaired.gaps;
        if let Some(position) = repaired.again {
            self.waiting.repairs.waiting.push_back((channel, position));
        }
    }

    /// The broker is away: asks again in a while.
    fn repair_later(&self, channel: ChannelKey, from: Position) {
        let front = self.front.clone();
        tokio::task::spawn_local(async move {
            tokio::time::sleep(RETRY_AFTER).await;
            front.finish(Done::RepairAgain(channel, from));
        });
    }

    /// A channel's turn to be read again has come.
    pub(super) fn repair_again(&mut self, channel: ChannelKey, from: Position) {
        self.waiting.repairs.waiting.push_back((channel, from));
    }
}
