//! A channel as one hub knows it: who receives it here, and where its stream stands for them.

use crate::model::{ChannelKey, OverflowPolicy, Position, WireFormat};

/// How far a channel's stream is known to this hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The broker has not yet said where the stream stands: nothing is delivered.
    Starting,
    /// Publications are delivered as they come.
    Live,
    /// A hole is being read again: what comes meanwhile is part of what is read. The offset is the highest that came.
    Repairing {
        /// The highest offset that was passed over meanwhile.
        seen: u64,
    },
}

/// One channel of one hub.
#[derive(Debug)]
pub struct Channel {
    /// Which.
    pub(super) key: ChannelKey,
    /// The connections that receive publications now, by format.
    pub(super) live: [Vec<u32>; WireFormat::COUNT],
    /// The connections that want join and leave too.
    pub(super) watchers: Vec<u32>,
    /// Subscribed connections that do not receive yet: they wait for the position, or catch up.
    pub(super) paused: u32,
    /// Everything up to here was handed to the live subscribers; `None` without history.
    pub(super) position: Option<Position>,
    /// How far the stream is known.
    pub(super) stage: Stage,
    /// Whether the epoch changed and no publication has named it yet.
    pub(super) is_epoch_untold: bool,
    /// The highest offset that came before the broker said where the stream stands.
    pub(super) seen_early: u64,
    /// What happens to its slow consumers.
    pub(super) overflow: OverflowPolicy,
}

impl Channel {
    pub(super) fn new(key: ChannelKey, overflow: OverflowPolicy) -> Self {
        Self {
            key,
            live: Default::default(),
            watchers: Vec::new(),
            paused: 0,
            position: None,
            stage: Stage::Starting,
            is_epoch_untold: false,
            seen_early: 0,
            overflow,
        }
    }

    /// The channel's key.
    pub fn key(&self) -> &ChannelKey {
        &self.key
    }

    /// Where its stream stands for the live subscribers.
    pub fn position(&self) -> Option<Position> {
        self.position
    }

    /// How far the stream is known.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// How many connections receive it now.
    pub fn live_count(&self) -> usize {
        self.live.iter().map(Vec::len).sum()
    }

    /// Whether anybody wants join and leave.
    pub fn is_watched(&self) -> bool {
        !self.watchers.is_empty()
    }

    /// Whether nobody on this hub is subscribed.
    pub(super) fn is_vacant(&self) -> bool {
        self.paused == 0 && self.live.iter().all(Vec::is_empty)
    }
}
