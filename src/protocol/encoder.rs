//! What happens in a channel, as frames that all its subscribers share: once for each wire format.

use super::plain::{self, JsonSink, PackedSink, Sink};
use super::sse;
use super::websocket::{Opcode, frame};
use crate::model::{ChannelKey, Encode, Epoch, Member, Position, Publication, WireFormat};

/// Turns what happens in a channel into frames. Each worker has one; it holds nothing but scratch memory.
#[derive(Debug, Default)]
pub struct Encoder {
    lens: Vec<u32>,
}

impl Encoder {
    /// A WebSocket frame of either format.
    fn framed(
        &mut self,
        format: WireFormat,
        expected: usize,
        out: &mut Vec<u8>,
        message: &impl SharedMessage,
    ) {
        match format {
            WireFormat::MessagePack => frame(Opcode::Binary, expected, out, |out| {
                message.write(&mut PackedSink::new(out, &mut self.lens));
            }),
            _ => frame(Opcode::Text, expected, out, |out| {
                message.write(&mut JsonSink { out });
            }),
        }
    }
}

/// What both formats of the plain protocol can say.
trait SharedMessage {
    fn write(&self, sink: &mut impl Sink);
}

struct PublicationMessage<'a>(&'a ChannelKey, &'a Publication, Option<Epoch>);

impl SharedMessage for PublicationMessage<'_> {
    fn write(&self, sink: &mut impl Sink) {
        plain::publication(sink, self.0, self.1, self.2);
    }
}

struct MemberMessage<'a>(&'static str, &'a ChannelKey, &'a Member);

impl SharedMessage for MemberMessage<'_> {
    fn write(&self, sink: &mut impl Sink) {
        plain::member(sink, self.0, self.1, self.2);
    }
}

struct GapMessage<'a>(&'a ChannelKey, Option<u64>, Option<Position>);

impl SharedMessage for GapMessage<'_> {
    fn write(&self, sink: &mut impl Sink) {
        plain::gap(sink, self.0, self.1, self.2);
    }
}

impl Encode for Encoder {
    fn publication(
        &mut self,
        format: WireFormat,
        channel: &ChannelKey,
        publication: &Publication,
        epoch: Option<Epoch>,
        first: bool,
        out: &mut Vec<u8>,
    ) {
        match format {
            WireFormat::Sse => sse::publication(channel, publication, epoch, out),
            WireFormat::SseMany => sse::publication(channel, publication, None, out),
            WireFormat::Json | WireFormat::MessagePack => {
                let expected = 50 + channel.name().len() + plain::publication_bytes(publication);
                let message = PublicationMessage(channel, publication, epoch.filter(|_| first));
                self.framed(format, expected, out, &message);
            }
        }
    }

    fn join(
        &mut self,
        format: WireFormat,
        channel: &ChannelKey,
        member: &Member,
        out: &mut Vec<u8>,
    ) {
        if matches!(format, WireFormat::Json | WireFormat::MessagePack) {
            self.framed(format, 100, out, &MemberMessage("join", channel, member));
        }
    }

    fn leave(
        &mut self,
        format: WireFormat,
        channel: &ChannelKey,
        member: &Member,
        out: &mut Vec<u8>,
    ) {
        if matches!(format, WireFormat::Json | WireFormat::MessagePack) {
            self.framed(format, 100, out, &MemberMessage("leave", channel, member));
        }
    }

    fn gap(
        &mut self,
        format: WireFormat,
        channel: &ChannelKey,
        dropped: Option<u64>,
        position: Option<Position>,
        out: &mut Vec<u8>,
    ) {
        match format {
            WireFormat::Sse => sse::gap(channel, dropped, position, position, out),
            WireFormat::SseMany => sse::gap(channel, dropped, position, None, out),
            WireFormat::Json | WireFormat::MessagePack => {
                self.framed(format, 100, out, &GapMessage(channel, dropped, position));
            }
        }
    }

    fn event_id(&mut self, positions: &[Option<Position>], channels_hash: u64, out: &mut Vec<u8>) {
        sse::event_id(positions, channels_hash, out);
    }
}

#[cfg(test)]
#[path = "encoder_tests.rs"]
mod tests;
