//! What comes from the connection: marks, positions that were read behind them, and messages, which are handed over in their order.

use std::time::Instant;

use bytes::Bytes;

use super::super::entry::{Entry, Phase, ToRead, is_before};
use super::super::envelope;
use super::{Interest, State};
use crate::broker::{BrokerError, Control, Start};
use crate::model::{ChannelKey, Envelope, Event, Position};

/// The most envelopes that wait for the position of their channel; more are a hole.
const HELD_MAX: usize = 1024;

impl Interest {
    /// A mark came back. Answers the channels whose position is to be read now.
    pub(in super::super) fn passed(&self, mark: u64, now: Instant) -> Vec<ToRead> {
        let mut state = self.lock();
        let state = &mut *state;
        let Some(barrier) = state.barriers.remove(&mark) else {
            return Vec::new();
        };
        if barrier.is_control && state.wants_control {
            state.is_controlled = true;
            self.ears.orders.back();
        }
        for name in barrier.ended {
            let Some(entry) = state.channels.get_mut(&name) else {
                continue;
            };
            entry.ends.clear();
            if matches!(entry.phase, Phase::Ending) {
                entry.phase = Phase::Idle(now);
                state.idle.push_back(name);
            }
        }
        for check in barrier.checks {
            if let Some(entry) = state.channels.get_mut(&check.name)
                && entry.is_off(&check)
            {
                entry.last = check.found;
                self.hole(&entry.channel);
            }
        }
        let mut to_read = Vec::new();
        for name in barrier.started {
            let Some(entry) = state.channels.get_mut(&name) else {
                continue;
            };
            if !matches!(entry.phase, Phase::Asked) {
                continue;
            }
            if !entry.is_wanted {
                // Its position is not asked for: that would make one.
                let nobody = Err(BrokerError::Unavailable);
                self.go_live(state, &name, Vec::new(), nobody);
            } else if entry.keeps_history {
                // Somebody waits for the position; and after a hole the checks need one to begin from.
                entry.phase = Phase::Reading(Vec::new());
                to_read.push(ToRead {
                    name,
                    channel: entry.channel.clone(),
                    life: entry.life,
                });
            } else {
                self.go_live(state, &name, Vec::new(), Ok(None));
            }
        }
        to_read
    }

    /// The position of a channel was read. What was asked before the connection was lost is passed over: it is not yet
    /// subscribed to again, and another read follows.
    pub(in super::super) fn read(&self, name: &str, life: u64, start: Result<Start, BrokerError>) {
        let mut state = self.lock();
        let entry = state.channels.get_mut(name);
        let Some(entry) = entry.filter(|entry| entry.life == life) else {
            return;
        };
        let Phase::Reading(held) = &mut entry.phase else {
            return;
        };
        let held = std::mem::take(held);
        self.go_live(&mut state, name, held, start);
    }

    /// From now on what comes is handed over; what came meanwhile first.
    fn go_live(
        &self,
        state: &mut State,
        name: &str,
        held: Vec<Envelope>,
        start: Result<Start, BrokerError>,
    ) {
        let Some(entry) = state.channels.get_mut(name) else {
            return;
        };
        entry.phase = Phase::Live;
        let position = start.ok().flatten();
        entry.last = position;
        for start_of in entry.starts.drain(..) {
            let _ = start_of.send(start);
        }
        for envelope in held {
            if !is_before(&envelope, position) {
                self.hand_over(entry, &envelope);
            }
        }
        if std::mem::take(&mut entry.has_hole) {
            self.hole(&entry.channel);
        }
        if !entry.is_wanted {
            entry.phase = Phase::Ending;
            state.ending.push(name.to_owned());
            self.changed.notify_one();
        }
    }

    /// A message came.
    pub(in super::super) fn message(&self, name: &str, payload: &Bytes) {
        if name == self.ears.control {
            if let Some(order) = envelope::unpack_order(payload) {
                let execute = |control: &Control| self.ears.execute(control);
                self.ears.orders.came(order, execute);
            }
            return;
        }
        let mut state = self.lock();
        let Some(entry) = state.channels.get_mut(name) else {
            return;
        };
        if matches!(entry.phase, Phase::Asked | Phase::Idle(_)) {
            return;
        }
        let Some(envelope) = envelope::unpack(&entry.channel, payload) else {
            return;
        };
        match &mut entry.phase {
            Phase::Reading(held) if held.len() < HELD_MAX => held.push(envelope),
            Phase::Reading(_) => entry.has_hole = true,
            _ => self.hand_over(entry, &envelope),
        }
    }

    /// The lock is held: so envelopes of one channel stay in order. The sink does not call back.
    fn hand_over(&self, entry: &mut Entry, envelope: &Envelope) {
        if let (Some(epoch), Event::Publication(publication)) = (envelope.epoch, &envelope.event) {
            entry.last = Some(Position::new(epoch, publication.offset));
        }
        if let Some(sink) = self.ears.sink.get() {
            sink.deliver(envelope);
        }
    }

    fn hole(&self, channel: &ChannelKey) {
        if let Some(sink) = self.ears.sink.get() {
            sink.hole(Some(channel));
        }
    }
}
