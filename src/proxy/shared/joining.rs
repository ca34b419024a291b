//! How a subscriber gets into a stream that many share.

use std::sync::Arc;

use http::request::Parts;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::source::{Phase, Source};
use super::{Course, Proxy, Share};
use crate::http1::{Field, Framing, RequestHead};
use crate::proxy::Arrival;
use crate::proxy::course::Asked;
use crate::proxy::error::ProxyError;
use crate::proxy::open_streams::StreamPermit;

/// A subscriber that was let in.
#[derive(Debug)]
pub struct Admitted {
    /// The channel to attach it to.
    pub channel: String,
    /// Where it begins, when it says nothing itself: who came before the stream was open gets all of it.
    pub from: Option<String>,
    /// Lines of the answer's head: ids and limits.
    pub fields: Vec<(String, String)>,
    /// To be kept as long as the stream is open, where streams are counted.
    pub permit: Option<StreamPermit>,
}

/// The answer to one that was not.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused {
    /// The status.
    pub status: u16,
    /// The fields.
    pub fields: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Proxy {
    /// Lets a subscriber in, or not, and sees to it that somebody reads the upstream. Ready when the stream is open, or
    /// cannot be opened.
    ///
    /// # Errors
    /// With the answer to who is not let in.
    pub async fn subscribe(
        self: &Arc<Self>,
        head: &Parts,
        arrival: Arrival,
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
        let target = head.uri.path_and_query();
        let host = head.headers.get(http::header::HOST);
        let head = RequestHead {
            method: head.method.as_str(),
            target: target.map_or("/", |target| target.as_str()),
            is_old: false,
            host: host.and_then(|host| host.to_str().ok()).unwrap_or_default(),
            fields: &fields,
            body: Framing::NONE,
            keeps_alive: false,
        };
        let (course, mut asked) = self.judge(&head, arrival, started).await;
        let mut course = match course {
            Ok(course) => course,
            Err(error) => return Err(told(&error, &mut asked)),
        };
        let permit = course.permit.take();
        let (name, phase, from) = self.open(course).await;
        match phase {
            Phase::Open | Phase::Opening => {
                asked.is_answered(200, Instant::now());
                Ok(Admitted {
                    channel: name,
                    from,
                    fields: pairs(&asked.lines),
                    permit,
                })
            }
            Phase::Refused(refusal) => {
                asked.is_answered(refusal.status, Instant::now());
                let mut fields = pairs(&asked.lines);
                fields.extend(refusal.fields.iter().cloned());
                Err(Refused {
                    status: refusal.status,
                    fields,
                    body: refusal.body.clone(),
                })
            }
            // What says that all is well, and is no stream, is the upstream's fault.
            Phase::Unfit(200..300) => Err(told(&ProxyError::Refused(502), &mut asked)),
            Phase::Unfit(status) => Err(told(&ProxyError::Refused(status), &mut asked)),
            Phase::TimedOut => Err(told(&ProxyError::TimedOut, &mut asked)),
            Phase::Overloaded => Err(told(&ProxyError::Overloaded, &mut asked)),
            Phase::Unavailable | Phase::Gone => Err(told(&ProxyError::Unavailable, &mut asked)),
        }
    }

    /// The channel of what was asked for, how its source is, and where the stream began, for who waited for it.
    async fn open(self: &Arc<Self>, course: Course) -> (String, Phase, Option<String>) {
        let name = channel(&course);
        let (streams, runtime) = (self.shared.streams.get(), self.shared.runtime.get());
        let (Some(streams), Some(runtime)) = (streams, runtime) else {
            return (name, Phase::Unavailable, None);
        };
        let (source, has_waited) = {
            let mut sources = self.shared.sources();
            let known = sources.get(&name).cloned();
            // Whoever begins a source waits for it, however fast that opens.
            let has_waited = known.as_ref().is_none_or(|source| source.is_opening());
            let source = known.unwrap_or_else(|| {
                let source = Arc::new(Source::new(name.clone(), &course));
                runtime.spawn(source.clone().run(self.clone(), streams.clone()));
                sources.insert(name.clone(), source.clone());
                source
            });
            source.touch();
            (source, has_waited)
        };
        let phase = source.settled().await;
        // From now on it takes its time to be there.
        source.touch();
        (name, phase, source.beginning().filter(|_| has_waited))
    }
}

/// The answer that tells of an error.
fn told(error: &ProxyError, asked: &mut Asked) -> Refused {
    let told = error.told(asked.accepts_problems);
    asked.is_answered(told.status, Instant::now());
    let mut fields = pairs(&asked.lines);
    fields.extend(pairs(error.fields().as_bytes()));
    fields.push(("content-type".to_owned(), told.content_type.to_owned()));
    Refused {
        status: told.status,
        fields,
        body: told.body,
    }
}

/// Where what is the same comes together: the service, the path and query, and where the service says so, the user.
fn channel(course: &Course) -> String {
    let mut hash = Sha256::new();
    hash.update(course.target.as_bytes());
    if course.route.policy.share == Some(Share::User)
        && let Some(identity) = &course.identity
    {
        for part in [&*identity.user, &*identity.role] {
            // No target has such a byte, and no part that goes into a field.
            hash.update([0]);
            hash.update(part.as_bytes());
        }
    }
    let digest = hash.finalize();
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("~shared:{}:{hex}", course.route.name)
}

/// Lines of a head as pairs.
fn pairs(lines: &[u8]) -> Vec<(String, String)> {
    let text = String::from_utf8_lossy(lines);
    let pairs = text.split("\r\n").filter_map(|line| line.split_once(": "));
    pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}
