//! WebSockets to upstreams: `GET /ws/{service}?path=/p`.
//!
//! The client is let in and an upstream has accepted the handshake before the client gets its 101; from then on a tunnel
//! carries bytes both ways as they are: opcodes, fragments, extensions and close codes are the two ends' own. A look at
//! the frames' headers tells where one ends, so that pings and a close of ours stand between frames.
//!
//! Not here: messages. Nothing is unmasked, decompressed or put together.

mod flow;
mod frames;
mod handshake;
mod tunnel;

pub(super) use handshake::{Handshake, upstream_target};
pub(super) use tunnel::{Tunnel, TunnelConfig};
