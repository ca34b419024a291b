//! One upstream stream for many subscribers: whoever asks a service that shares for the same path gets what one
//! connection to the upstream brings, over a channel of the hub.
//!
//! The wing knows no hub. What it needs of one is [`SharedStreams`], which the composition root implements: publishing
//! into a channel, whether a channel has subscribers, and what stands last in it. The channel is
//! `~shared:<service>:<hash>`, which no client can name. Of the nodes of a fleet with subscribers one holds a lease and
//! reads the upstream; when it goes, another one goes on after the last event that stands in the channel.

mod event;
mod source;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use http::request::Parts;
use sha2::{Digest as _, Sha256};
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::Proxy;
use super::course::Course;
use super::error::ProxyError;
use super::policy::Share;
use crate::http1::{Field, Framing, RequestHead};
use crate::telemetry::proxy::Carried;
use source::{Phase, Source};

/// What comes of something that takes its time.
pub type Soon<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What the wing needs of the hub.
pub trait SharedStreams: Send + Sync {
    /// Publishes a JSON text, of one line, in a channel. Answers whether it was taken.
    fn publish(&self, channel: &str, json: Vec<u8>) -> Soon<bool>;

    /// How many subscribers a channel has on this node. It must not wait.
    fn subscribers(&self, channel: &str) -> u64;

    /// Where a channel stands, as an id of an event; `None` when nobody can say.
    fn position(&self, channel: &str) -> Soon<Option<String>>;

    /// The JSON text that was published last and is still kept; `None` when nobody can say.
    fn last(&self, channel: &str) -> Soon<Option<Vec<u8>>>;
}

/// A subscriber that was let in.
#[derive(Debug, PartialEq, Eq)]
pub struct Admitted {
    /// The channel to attach it to.
    pub channel: String,
    /// Where it begins, when it says nothing itself: who came before the stream was open gets all of it.
    pub from: Option<String>,
    /// Lines of the answer's head: ids and limits.
    pub fields: Vec<(String, String)>,
}

/// The answer to one that was not.
#[derive(Debug)]
pub struct Refused {
    /// The status.
    pub status: u16,
    /// The fields.
    pub fields: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// The sources that this node knows, by channel.
#[derive(Default)]
pub(super) struct Shared {
    streams: OnceLock<Arc<dyn SharedStreams>>,
    runtime: OnceLock<Handle>,
    sources: Mutex<HashMap<String, Arc<Source>>>,
}

impl Shared {
    /// The tasks of sources live here.
    pub(super) fn live_on(&self, runtime: Handle) {
        // The first one stays.
        let _ = self.runtime.set(runtime);
    }

    fn sources(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Source>>> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Proxy {
    /// Joins the wing to a hub. To be called once.
    pub fn join(&self, streams: Arc<dyn SharedStreams>) {
        let _ = self.shared.streams.set(streams);
    }

    /// Lets a subscriber in, or not, and sees to it that somebody reads the upstream. Ready when the stream is open, or
    /// cannot be opened.
    ///
    /// # Errors
    /// With the answer to who is not let in.
    pub async fn subscribe(
        self: &Arc<Self>,
        head: &Parts,
        caller: (SocketAddr, bool),
    ) -> Result<Admitted, Refused> {
        let started = Instant::now();
        let fields: Vec<Field<'_>> = head
            .headers
            .iter()
            .map(|(name, value)| Field {
                name: name.as_str(),
                value: value.as_bytes(),
            })
            .collect();
        let target = head
            .uri
            .path_and_query()
            .map_or("/", |target| target.as_str());
        let host = head.headers.get(http::header::HOST);
        let head = RequestHead {
            method: head.method.as_str(),
            target,
            is_old: false,
            host: host.and_then(|host| host.to_str().ok()).unwrap_or_default(),
            fields: &fields,
            body: Framing::NONE,
            keeps_alive: false,
        };
        let (course, mut asked) = self.judge(&head, caller, started).await;
        let course = match course {
            Ok(course) => self.open(course).await,
            Err(error) => Err(error),
        };
        match course {
            Ok((channel, from)) => {
                asked.is_answered(200, Instant::now());
                Ok(Admitted {
                    channel,
                    from,
                    fields: lines(&asked.lines),
                })
            }
            Err(error) => {
                let told = error.told(asked.accepts_problems);
                asked.is_answered(told.status, Instant::now());
                let mut fields = lines(&asked.lines);
                fields.extend(lines(error.fields().as_bytes()));
                fields.push(("content-type".to_owned(), told.content_type.to_owned()));
                Err(Refused {
                    status: told.status,
                    fields,
                    body: told.body,
                })
            }
        }
    }

    /// The channel of what was asked for, once its source is open, and where the stream began, for who waited for it.
    async fn open(
        self: &Arc<Self>,
        course: Course,
    ) -> Result<(String, Option<String>), ProxyError> {
        let (Some(streams), Some(runtime)) = (self.shared.streams.get(), self.shared.runtime.get())
        else {
            return Err(ProxyError::Unavailable);
        };
        let name = channel(&course);
        let source = {
            let mut sources = self.shared.sources();
            let source = sources.entry(name.clone()).or_insert_with(|| {
                let source = Arc::new(Source::new(name.clone(), &course));
                runtime.spawn(source.clone().run(self.clone(), streams.clone()));
                source
            });
            source.touch();
            source.clone()
        };
        let has_waited = source.is_opening();
        match source.settled().await {
            Phase::Opening | Phase::Open => Ok((name, source.beginning().filter(|_| has_waited))),
            Phase::Refused(status) => Err(ProxyError::Refused(status)),
            Phase::TimedOut => Err(ProxyError::TimedOut),
            Phase::Unavailable => Err(ProxyError::Unavailable),
        }
    }
}

/// Whether a request for this is shared.
pub(super) fn is_shared(carried: Carried, method: &str, share: Option<Share>) -> bool {
    carried == Carried::Sse && method == "GET" && share.is_some()
}

/// Where what is the same comes together: the service, the path and query, and where the service says so, the user.
fn channel(course: &Course) -> String {
    let mut hash = Sha256::new();
    hash.update(course.target.as_bytes());
    if course.route.policy.share == Some(Share::User)
        && let Some(identity) = &course.identity
    {
        for part in [&*identity.user, &*identity.role] {
            hash.update([0]);
            hash.update(part.as_bytes());
        }
    }
    let digest = hash.finalize();
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("~shared:{}:{hex}", course.route.name)
}

/// Lines of a head as pairs.
fn lines(lines: &[u8]) -> Vec<(String, String)> {
    let text = String::from_utf8_lossy(lines);
    let pairs = text.split("\r\n").filter_map(|line| line.split_once(": "));
    pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}
