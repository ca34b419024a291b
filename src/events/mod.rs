//! What back ends hear of: clients that come and go, subscriptions, channels that become occupied and vacant.
//!
//! [`Events`] is what the rest of the process tells. Each event goes to every *outlet* that wants its kind: a webhook, signed
//! and repeated until it is taken (`webhook`), and a stream in Redis that consumer groups read (`stream`). An outlet has a
//! bounded queue and a task of its own; whoever tells never waits, and what finds a queue full is dropped and counted. An event
//! that was taken into a queue is told at least once, in order, with an id that stays the same, as long as the process lives.
//!
//! What the hub asks back ends is in `consent`: whether a client may connect, subscribe or publish.
//!
//! Not here: the events of users' sessions (`session`).

mod config;
mod consent;
mod event;
mod outlet;
mod stream;
mod webhook;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub use config::{Config, KINDS_RULE, Kinds, KindsError, StreamConfig, WebhookConfig};
pub use consent::{Asker, Consent, ConsentConfig, HEADERS_RULE, Visitor, Withheld};
pub use event::{Event, Kind};

use crate::model::NodeId;
use crate::outbound::Outbound;
use crate::telemetry::events::Way;
use outlet::Outlet;
use stream::StreamSink;
use webhook::Webhook;

/// How long the end may take to tell what waits.
const END_TIMEOUT: Duration = Duration::from_secs(3);

/// Where lifecycle events are told.
#[derive(Debug)]
pub struct Events {
    outlets: Vec<Outlet>,
    /// The kinds that any outlet wants.
    wanted: Kinds,
    ids: Ids,
    /// Where the tasks live; `None` without outlets.
    outbound: Option<Arc<Outbound>>,
}

/// Ids of this process's events: its own name, drawn at the start, and a number.
#[derive(Debug)]
struct Ids {
    node: NodeId,
    life: u32,
    next: AtomicU64,
}

impl Events {
    /// Nobody hears anything.
    pub fn none() -> Self {
        Self {
            outlets: Vec::new(),
            wanted: Kinds::NONE,
            ids: Ids::new(NodeId::new("")),
            outbound: None,
        }
    }

    /// Starts what the configuration names.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(config: &Config, node: NodeId, outbound: &Arc<Outbound>) -> io::Result<Self> {
        let mut outlets = Vec::new();
        if let Some(webhook) = &config.webhook {
            let sink = Webhook::new(webhook, outbound.clone());
            let (kinds, capacity) = (webhook.kinds, webhook.queue_max);
            outlets.push(Outlet::start(Way::Webhook, kinds, capacity, sink, outbound));
        }
        if let Some(stream) = &config.stream {
            let sink = StreamSink::start(stream)?;
            let (kinds, capacity) = (Kinds::ALL, stream.queue_max);
            outlets.push(Outlet::start(Way::Stream, kinds, capacity, sink, outbound));
        }
        Ok(Self {
            wanted: outlets
                .iter()
                .fold(Kinds::NONE, |all, outlet| all.with(outlet.kinds())),
            outlets,
            ids: Ids::new(node),
            outbound: Some(outbound.clone()),
        })
    }

    /// Whether anybody wants to hear of this kind: what is not wanted need not be made.
    pub fn wants(&self, kind: Kind) -> bool {
        self.wanted.contains(kind)
    }

    /// Tells an event. `describe` fills it in, and is called only where somebody wants to hear.
    pub fn tell(&self, kind: Kind, describe: impl FnOnce(&mut Event)) {
        if self.wants(kind) {
            self.hand_over(self.ids.next(), kind, describe);
        }
    }

    /// The same of an event of the whole fleet, which has the same id whoever tells it.
    pub fn tell_as(&self, id: String, kind: Kind, describe: impl FnOnce(&mut Event)) {
        if self.wants(kind) {
            self.hand_over(id, kind, describe);
        }
    }

    fn hand_over(&self, id: String, kind: Kind, describe: impl FnOnce(&mut Event)) {
        let mut event = Event::new(id, kind, self.ids.node.clone());
        describe(&mut event);
        let event = Arc::new(event);
        for outlet in &self.outlets {
            outlet.tell(&event);
        }
    }

    /// Waits until everything is told that was told before, for some seconds. To be called outside of any runtime.
    pub fn end(&self) {
        let Some(outbound) = &self.outbound else {
            return;
        };
        let told = async {
            for outlet in &self.outlets {
                outlet.is_empty().await;
            }
        };
        if outbound.wait(END_TIMEOUT, told).is_none() {
            tracing::warn!("events that nobody took are lost with this process");
        }
    }
}

impl Ids {
    fn new(node: NodeId) -> Self {
        Self {
            node,
            life: rand::random(),
            next: AtomicU64::new(1),
        }
    }

    fn next(&self) -> String {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        format!("{}-{:08x}-{number}", self.node, self.life)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_made_that_nobody_wants() {
        let events = Events::none();
        events.tell(Kind::Connect, |_| panic!("nobody wants it"));
        assert!(!events.wants(Kind::ChannelVacated));
        events.end();
    }

    #[test]
    fn ids_differ_and_tell_the_node() {
        let ids = Ids::new(NodeId::new("node-1"));
        let (one, other) = (ids.next(), ids.next());
        assert_ne!(one, other);
        assert!(one.starts_with("node-1-") && one.ends_with("-1"), "{one}");
        let later = Ids::new(NodeId::new("node-1"));
        assert_ne!(later.next(), one, "another life has other ids");
    }
}
