//! The hub's own protocol: JSON in text frames and MessagePack in binary frames, with the same fields.
//!
//! `request` says what a client can ask and `answer` what it is told, each once for both formats; `json` and
//! `message_pack` are the two ways to write it down.

mod answer;
mod json;
mod message_pack;
mod request;

pub use json::decode as decode_json;
pub use message_pack::decode as decode_message_pack;

pub(super) use answer::{Sink, connected, gap, member, publication, publication_bytes};
pub(super) use json::JsonSink;
pub(super) use message_pack::PackedSink;

use super::websocket::{Opcode, frame};
use super::{CommandId, Push, Reply};
use crate::model::WireFormat;

/// Appends the answer to a command as one whole WebSocket frame. Server-sent events have no commands: for them nothing
/// is appended.
pub fn encode_reply(format: WireFormat, reply: &Reply, id: Option<&CommandId>, out: &mut Vec<u8>) {
    let expected = answer::reply_bytes(reply);
    in_frame(format, expected, out, &answer::Reply { reply, id });
}

/// Appends what a client is told unasked as one whole WebSocket frame. For server-sent events nothing is appended: see
/// [`super::sse`].
pub fn encode_push(format: WireFormat, push: &Push, out: &mut Vec<u8>) {
    let expected = answer::push_bytes(push);
    in_frame(format, expected, out, push);
}

/// What can be written into either format.
trait Message {
    fn write(&self, sink: &mut impl Sink);
}

fn in_frame(format: WireFormat, expected: usize, out: &mut Vec<u8>, message: &impl Message) {
    match format {
        WireFormat::Json => frame(Opcode::Text, expected, out, |out| {
            message.write(&mut JsonSink { out });
        }),
        WireFormat::MessagePack => frame(Opcode::Binary, expected, out, |out| {
            message.write(&mut PackedSink::new(out, &mut Vec::new()));
        }),
        WireFormat::Sse | WireFormat::SseMany => {}
    }
}

#[cfg(test)]
mod tests;
