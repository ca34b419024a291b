//! What is remembered of one channel.

use super::presence::Members;
use super::recency::Links;
use super::stream::Stream;
use crate::model::{ChannelKey, Epoch, Moment};

/// A channel's record. It stands in its shard while the channel has interest, members or kept publications, and with
/// history for a while after that, so that the epoch lives on.
#[derive(Debug)]
pub(super) struct Channel {
    /// Its name.
    pub(super) key: ChannelKey,
    /// Its stream; `None` where the namespace keeps no history.
    pub(super) stream: Option<Stream>,
    /// Who is present.
    pub(super) members: Members,
    /// When somebody last asked or told anything of it.
    pub(super) used: Moment,
    /// Its place among the channels that keep publications.
    pub(super) links: Option<Links>,
    /// Whether this node wants what happens in it.
    pub(super) interest: bool,
}

impl Channel {
    /// A channel in which nothing has happened yet.
    pub(super) fn new(key: ChannelKey, epoch: Option<Epoch>, now: Moment) -> Self {
        Self {
            key,
            stream: epoch.map(Stream::new),
            members: Members::default(),
            used: now,
            links: None,
            interest: false,
        }
    }

    /// The stream's epoch, as envelopes carry it.
    pub(super) fn epoch(&self) -> Option<Epoch> {
        self.stream.as_ref().map(|stream| stream.position().epoch)
    }

    /// Whether nothing but the numbering would be lost with it.
    pub(super) fn is_idle(&self) -> bool {
        !self.interest
            && self.members.is_empty()
            && self.stream.as_ref().is_none_or(Stream::is_empty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_channel_costs_less_than_200_bytes_beside_its_name() {
        assert!(size_of::<Channel>() <= 192, "{}", size_of::<Channel>());
    }
}
