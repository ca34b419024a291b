//! The relay joins the workers' hubs to the broker: interest out, publications and orders in.

use std::sync::Arc;

use crate::broker::{ActiveChannel, Broker};
use crate::model::ChannelKey;

/// What every worker and every HTTP handler of the node shares.
pub struct Relay {
    broker: Arc<dyn Broker>,
}

impl Relay {
    /// The broker, for what needs no worker.
    pub fn broker(&self) -> &Arc<dyn Broker> {
        &self.broker
    }

    /// The channels that have subscribers on this node and whose name begins with `prefix`, after `cursor` in the
    /// order of their names, at most `limit`.
    pub fn channels(&self, prefix: &str, cursor: Option<&str>, limit: usize) -> Vec<ActiveChannel> {
        let _ = (prefix, cursor, limit);
        Vec::new()
    }

    /// How many subscribers a channel has on this node.
    pub fn subscribers(&self, channel: &ChannelKey) -> u64 {
        let _ = channel;
        0
    }

    /// How many clients are connected to this node.
    pub fn connections(&self) -> u64 {
        0
    }

    /// How many channels have a subscriber on this node.
    pub fn channel_count(&self) -> u64 {
        0
    }
}
