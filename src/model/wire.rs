//! The wire formats that a publication can be encoded in, and the encoder that the hub is handed.

use super::{ChannelKey, Epoch, Member, Publication};

/// What a connection speaks. A publication is encoded once for each format that has a subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum WireFormat {
    /// JSON in WebSocket text frames.
    Json = 0,
    /// MessagePack in WebSocket binary frames.
    MessagePack = 1,
    /// Server-sent events of one channel: the id is part of the shared frame.
    Sse = 2,
    /// Server-sent events of several channels: the id is a line of each connection's own, before the shared frame.
    SseMany = 3,
}

impl WireFormat {
    /// How many formats there are.
    pub const COUNT: usize = 4;

    /// Every format, by index.
    pub const ALL: [Self; Self::COUNT] = [Self::Json, Self::MessagePack, Self::Sse, Self::SseMany];

    /// The index in tables by format.
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// Turns what happened in a channel into bytes that are ready to be written to a socket. `protocol` implements it and
/// the hub calls it, once per format.
///
/// Each call appends one whole frame to `out`; frames in `out` can be written one after the other.
pub trait Encode {
    /// A publication. `epoch` is the stream's; `first` says that this is the first publication that subscribers see of
    /// it, so the frame must name it.
    fn publication(
        &mut self,
        format: WireFormat,
        channel: &ChannelKey,
        publication: &Publication,
        epoch: Option<Epoch>,
        first: bool,
        out: &mut Vec<u8>,
    );

    /// A connection became present. Formats that cannot say it append nothing.
    fn join(
        &mut self,
        format: WireFormat,
        channel: &ChannelKey,
        member: &Member,
        out: &mut Vec<u8>,
    );

    /// A connection left. Formats that cannot say it append nothing.
    fn leave(
        &mut self,
        format: WireFormat,
        channel: &ChannelKey,
        member: &Member,
        out: &mut Vec<u8>,
    );

    /// Subscribers missed publications: `dropped` of them where somebody could count. `position` is where the stream
    /// stands now.
    fn gap(
        &mut self,
        format: WireFormat,
        channel: &ChannelKey,
        dropped: Option<u64>,
        position: Option<super::Position>,
        out: &mut Vec<u8>,
    );

    /// The id line of one event for a connection of [`WireFormat::SseMany`]: its positions, in the order of its
    /// request (`None` where a channel has no history).
    fn event_id(
        &mut self,
        positions: &[Option<super::Position>],
        channels_hash: u64,
        out: &mut Vec<u8>,
    );
}
