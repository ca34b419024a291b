//! A channel that this node wants of a server: what it goes through, and where its stream was seen to stand.

use std::time::Instant;

use tokio::sync::oneshot;

use crate::broker::{BrokerError, Start};
use crate::model::{ChannelKey, Envelope, Event, Position};

/// What a channel goes through, in this order.
#[derive(Debug)]
pub(super) enum Phase {
    /// It is to be subscribed to, and a mark is to come back. What comes before is not wanted yet.
    Asked,
    /// The position is being read. What comes waits for it.
    Reading(Vec<Envelope>),
    /// What comes is handed over.
    Live,
    /// Nobody wants it, but what was published before that is still handed over.
    Ending,
    /// Nobody wants it since then.
    Idle(Instant),
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) channel: ChannelKey,
    pub(super) keeps_history: bool,
    pub(super) is_wanted: bool,
    pub(super) phase: Phase,
    pub(super) starts: Vec<oneshot::Sender<Result<Start, BrokerError>>>,
    pub(super) ends: Vec<oneshot::Sender<()>>,
    /// Whether something may have been missed before it is live again.
    pub(super) has_hole: bool,
    /// Where the stream stood when something last came, if it is known.
    pub(super) last: Option<Position>,
    /// How often it was begun again. What was asked in an earlier life says nothing about this one.
    pub(super) life: u64,
}

/// A channel whose position is to be read, in this life.
#[derive(Debug)]
pub(super) struct ToRead {
    pub(super) name: String,
    pub(super) channel: ChannelKey,
    pub(super) life: u64,
}

/// A channel whose position was looked up: what stood there, and what this node had seen before the question.
#[derive(Debug)]
pub(super) struct Check {
    pub(super) name: String,
    pub(super) seen: Position,
    pub(super) found: Option<Position>,
}

impl Entry {
    /// Nobody wants it yet.
    pub(super) fn new(channel: &ChannelKey, keeps_history: bool, now: Instant) -> Self {
        Self {
            channel: channel.clone(),
            keeps_history,
            is_wanted: false,
            phase: Phase::Idle(now),
            starts: Vec::new(),
            ends: Vec::new(),
            has_hole: false,
            last: None,
            life: 0,
        }
    }

    /// It is to be subscribed to anew, and something may have been missed.
    pub(super) fn begin_again(&mut self) {
        self.ends.clear();
        if !matches!(self.phase, Phase::Asked) {
            self.has_hole = true;
        }
        self.phase = Phase::Asked;
        self.last = None;
        self.life += 1;
    }

    /// Whether the stream does not stand where this node is, now that everything before the question has come.
    pub(super) fn is_off(&self, check: &Check) -> bool {
        let (Some(last), Phase::Live) = (self.last, &self.phase) else {
            return false;
        };
        match check.found {
            None => true,
            Some(found) if found.epoch != last.epoch => check.seen.epoch == last.epoch,
            Some(found) => found.offset > last.offset || found.offset < check.seen.offset,
        }
    }
}

/// Whether a publication is part of what a position covers.
pub(super) fn is_before(envelope: &Envelope, position: Option<Position>) -> bool {
    match (&envelope.event, envelope.epoch, position) {
        (Event::Publication(publication), Some(epoch), Some(position)) => {
            epoch == position.epoch && publication.offset <= position.offset
        }
        _ => false,
    }
}
