//! What an envelope's offset says to a hub, and how a stream goes on after a hole.

use crate::model::{Epoch, Position};

use super::channel::Stage;
use super::{ChannelIndex, Hub};

/// What an envelope's offset says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The next one: deliver it.
    Next {
        /// Whether it is the first that subscribers see of its epoch.
        first_of_epoch: bool,
    },
    /// Seen already, or part of what is being read again: pass over it.
    PassOver,
    /// Something before it is missing: read the stream again from the channel's position.
    Hole,
    /// Nobody here wants it.
    Unwanted,
}

impl Hub {
    /// Says what a publication that came from the broker is to this hub, and takes note of it.
    pub fn judge(&mut self, channel: ChannelIndex, epoch: Option<Epoch>, offset: u64) -> Verdict {
        let Some(slot) = self.channels.get_mut(channel as usize) else {
            return Verdict::Unwanted;
        };
        match slot.stage {
            Stage::Starting => {
                slot.seen_early = slot.seen_early.max(offset);
                return Verdict::PassOver;
            }
            Stage::Repairing { seen } => {
                slot.stage = Stage::Repairing {
                    seen: seen.max(offset),
                };
                return Verdict::PassOver;
            }
            Stage::Live => {}
        }
        let (Some(position), Some(epoch)) = (slot.position, epoch) else {
            return Verdict::Next {
                first_of_epoch: false,
            };
        };
        if epoch != position.epoch {
            return Verdict::Hole;
        }
        if offset <= position.offset {
            return Verdict::PassOver;
        }
        if offset > position.offset + 1 {
            return Verdict::Hole;
        }
        slot.position = Some(Position::new(epoch, offset));
        Verdict::Next {
            first_of_epoch: false,
        }
    }

    /// Publications of a channel may be missing, up to `seen`, or up to nobody knows where when that is 0: pass over
    /// what comes until [`Hub::resume`]. Answers the position to read from.
    ///
    /// `None` when the channel keeps no history or has nobody here; or when its stream is being read already, or its
    /// position asked for: then [`Hub::resume`] or [`Hub::start`] will say that it must be read again, because that
    /// answer may be older than what is missing.
    pub fn begin_repair(&mut self, channel: ChannelIndex, seen: u64) -> Option<Position> {
        let slot = self.channels.get_mut(channel as usize)?;
        let missing = if seen == 0 { u64::MAX } else { seen };
        match slot.stage {
            Stage::Live => {
                let position = slot.position?;
                slot.stage = Stage::Repairing { seen };
                Some(position)
            }
            Stage::Starting => {
                slot.seen_early = slot.seen_early.max(missing);
                None
            }
            Stage::Repairing { seen } => {
                let seen = seen.max(missing);
                slot.stage = Stage::Repairing { seen };
                None
            }
        }
    }

    /// The stream was read up to `position`. Answers whether more came meanwhile, so that it must be read again.
    pub fn resume(&mut self, channel: ChannelIndex, position: Position, is_whole: bool) -> bool {
        let Some(slot) = self.channels.get_mut(channel as usize) else {
            return false;
        };
        let Stage::Repairing { seen } = slot.stage else {
            return false;
        };
        slot.is_epoch_untold |= slot.position.is_some_and(|old| old.epoch != position.epoch);
        slot.position = Some(position);
        let again = !is_whole || seen > position.offset;
        // What was seen so far came before the next read is asked, which therefore covers it, or it is of an epoch that
        // was left and no read will ever reach its offset.
        slot.stage = match again {
            true => Stage::Repairing { seen: 0 },
            false => Stage::Live,
        };
        again
    }
}
