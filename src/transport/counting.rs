//! What the loop counts.

use crate::hub::Delivered;
use crate::protocol::Command;
use crate::telemetry::metrics::{CommandKind, DropReason, Transport};

use super::shard::Shard;
use super::socket::Carrier;

impl Shard {
    /// A delivery was made.
    pub(super) fn count(&mut self, delivered: Delivered) {
        self.counts.deliveries += delivered.deliveries;
        self.counts.delivered_bytes += delivered.bytes;
        self.counts.gaps += delivered.gaps;
        self.counts.dropped(DropReason::Policy, delivered.dropped);
    }

    /// A connection came or went.
    pub(super) fn count_connection(&mut self, carrier: &Carrier, came: bool) {
        let transport = match carrier {
            Carrier::WebSocket(_) | Carrier::Echo(_) => Transport::WebSocket,
            Carrier::Events { .. } => Transport::Sse,
        };
        let level = &mut self.counts.connections[transport.index()];
        *level = if came {
            *level + 1
        } else {
            level.saturating_sub(1)
        };
        if let Some(levels) = self.context.levels.get(self.worker) {
            let [web_sockets, event_streams] = self.counts.connections;
            levels.set_connections(web_sockets, event_streams);
        }
    }
}

/// The kind under which a command is counted.
pub(super) fn kind(command: &Command) -> CommandKind {
    match command {
        Command::Subscribe { .. } => CommandKind::Subscribe,
        Command::Unsubscribe { .. } => CommandKind::Unsubscribe,
        Command::Publish { .. } => CommandKind::Publish,
        Command::History { .. } => CommandKind::History,
        Command::Presence { .. } => CommandKind::Presence,
        Command::Ping => CommandKind::Ping,
        Command::Pong => CommandKind::Pong,
        Command::Refresh { .. } => CommandKind::Refresh,
        Command::UpdateApiKey { .. } => CommandKind::UpdateApiKey,
        Command::Unknown { .. } => CommandKind::Unknown,
    }
}
