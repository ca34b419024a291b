//! One upstream stream for many subscribers: whoever asks a service that shares for the same path gets what one
//! connection to the upstream brings, over a channel of the hub.
//!
//! The wing knows no hub. What it needs of one is [`SharedStreams`], which the composition root implements: publishing
//! into a channel, whether a channel has subscribers, and what stands last in it. The channel is
//! `~shared:<service>:<hash>`, which no client can name. Of the nodes of a fleet with subscribers one holds a lease and
//! reads the upstream; when it goes, another one goes on after the last event that stands in the channel.
//!
//! Who shows credentials that an upstream could answer by never shares, unless the service's streams are told apart by
//! user and it is known who that is.

mod answer;
mod asking;
mod event;
mod joining;
mod source;

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::runtime::Handle;

use super::Proxy;
use super::course::Course;
use super::policy::Share;
use super::table::Route;
use crate::http1::{Framing, RequestHead};
use crate::telemetry::proxy::Carried;
pub use joining::{Admitted, Refused};
use source::Source;

/// What comes of something that takes its time.
pub type Soon<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What the wing needs of the hub.
pub trait SharedStreams: Send + Sync {
    /// Publishes JSON texts, each of one line, in a channel, in their order. Answers whether all were taken.
    fn publish(&self, channel: &str, texts: Vec<Vec<u8>>) -> Soon<bool>;

    /// The most bytes of one of them.
    fn event_bytes_max(&self, channel: &str) -> usize;

    /// How many subscribers a channel has on this node. It must not wait.
    fn subscribers(&self, channel: &str) -> u64;

    /// Where a channel stands; `None` when nobody can say.
    fn position(&self, channel: &str) -> Soon<Option<Top>>;

    /// The JSON text that was published last and is still kept; `None` when nobody can say.
    fn last(&self, channel: &str) -> Soon<Option<Vec<u8>>>;

    /// Ends the streams of all subscribers of a channel, on every node, so that they ask again.
    fn end(&self, channel: &str) -> Soon<()>;
}

/// Where a channel stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Top {
    /// As an id of an event.
    pub id: String,
    /// Whether nothing was ever published there.
    pub is_empty: bool,
}

/// The sources that this node knows, by channel.
#[derive(Default)]
pub(super) struct Shared {
    streams: OnceLock<Arc<dyn SharedStreams>>,
    runtime: OnceLock<Handle>,
    sources: Mutex<HashMap<String, Arc<Source>>>,
    is_over: AtomicBool,
}

impl Shared {
    fn sources(&self) -> MutexGuard<'_, HashMap<String, Arc<Source>>> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the node ends.
    fn is_over(&self) -> bool {
        self.is_over.load(Relaxed)
    }
}

impl Proxy {
    /// Joins the wing to a hub. To be called once.
    pub fn join(&self, streams: Arc<dyn SharedStreams>) {
        let _ = self.shared.streams.set(streams);
    }

    /// Lets the tasks that read shared streams live on this runtime. To be called once, before anybody can ask.
    pub fn share_on(&self, runtime: Handle) {
        let _ = self.shared.runtime.set(runtime);
    }

    /// Leaves the upstreams whose streams are shared to other nodes, so that none waits for a lease to end. Takes two
    /// seconds at most.
    pub async fn withdraw(&self) {
        self.shared.is_over.store(true, Relaxed);
        let Some(fleet) = &self.fleet else { return };
        let channels: Vec<String> = self.shared.sources().keys().cloned().collect();
        fleet.resign(&channels).await;
    }

    /// Whether a request is answered by a stream that it shares with others.
    pub(super) fn shares(
        &self,
        head: &RequestHead<'_>,
        carried: Carried,
        route: &Route,
        query: Option<&str>,
    ) -> bool {
        let Some(share) = route.policy.share else {
            return false;
        };
        let is_plain = carried == Carried::Sse
            && head.method == "GET"
            && matches!(head.body, Framing::Length(0));
        if !is_plain {
            return false;
        }
        let shows_credentials = ["authorization", "cookie"]
            .iter()
            .any(|name| head.field(name).is_some());
        match share {
            _ if !shows_credentials => true,
            Share::All => false,
            Share::User => self.is_known(head, carried, query, &route.policy.identity),
        }
    }
}
