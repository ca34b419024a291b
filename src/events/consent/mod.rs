//! What back ends are asked: whether a client may connect, subscribe or publish.
//!
//! [`Consent`] asks what the configuration has a URL for, after the rules of tokens and namespaces have said yes: a back end
//! can only forbid more. A question is a signed `POST` of JSON, as a webhook is. So many are under way at once to one URL, so
//! many wait, and the rest is answered at once: try again. Whoever asks gets a future, and no worker waits for it.
//!
//! Guarantees: without a readable yes nothing is allowed. A no is told from "nobody can say", after which the same question
//! may be asked again. An answer is kept for as long as it says itself, in a cache bounded by bytes.

mod answer;
mod config;
mod desk;
mod kept;
mod question;

use std::future::{Future, ready};
use std::net::IpAddr;
use std::sync::Arc;

use futures_util::future::Either;
use http::HeaderMap;
use http::header::HeaderName;

pub use config::{ConsentConfig, HEADERS_RULE};
pub use question::Asker;

use crate::auth::{Identity, Supplement};
use crate::model::{ChannelKey, ErrorCode, Namespace, NodeId, Payload};
use crate::outbound::Outbound;
use crate::telemetry::consent::Matter;
use answer::Answer;
use desk::Desk;
use question::Question;

/// Why something is not allowed. Its text is what the client is told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Withheld {
    /// The back end says no, with a text of its own or ours.
    #[error("{}", .0.as_deref().unwrap_or("the back end does not allow this"))]
    Denied(Option<Arc<str>>),
    /// Nobody can say.
    #[error("the back end that allows this cannot be asked now, try again")]
    Unavailable,
}

impl Withheld {
    /// What clients and back ends are told.
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Denied(_) => ErrorCode::Forbidden,
            Self::Unavailable => ErrorCode::Unavailable,
        }
    }
}

/// A client at the door.
#[derive(Debug, Clone, Copy)]
pub struct Visitor<'a> {
    /// How it connects: `ws` or `sse`.
    pub transport: &'static str,
    /// From where.
    pub address: IpAddr,
    /// The fields of its request.
    pub headers: &'a HeaderMap,
}

/// Asks back ends.
#[derive(Debug)]
pub struct Consent {
    connect: Option<Arc<Desk>>,
    subscribe: Option<Arc<Desk>>,
    publish: Option<Arc<Desk>>,
    /// Fields of a client's request that a back end is told.
    headers: Box<[HeaderName]>,
    node: NodeId,
}

impl Consent {
    /// Nobody is asked.
    pub fn none() -> Self {
        Self {
            connect: None,
            subscribe: None,
            publish: None,
            headers: Box::default(),
            node: NodeId::new(""),
        }
    }

    /// Asks whom the configuration names.
    pub fn new(config: &ConsentConfig, node: NodeId, outbound: &Arc<Outbound>) -> Self {
        let desk = |matter, url: &Option<_>| {
            let url = url.clone()?;
            Some(Arc::new(Desk::new(matter, url, config, outbound.clone())))
        };
        Self {
            connect: desk(Matter::Connect, &config.connect),
            subscribe: desk(Matter::Subscribe, &config.subscribe),
            publish: desk(Matter::Publish, &config.publish),
            headers: config.headers.clone(),
            node,
        }
    }

    /// Whether anybody is asked about new clients.
    pub const fn is_asked_to_connect(&self) -> bool {
        self.connect.is_some()
    }

    /// Whether anybody is asked about publications at all.
    pub const fn asks_publishers(&self) -> bool {
        self.publish.is_some()
    }

    /// Whether anybody is asked about subscriptions in this namespace.
    pub const fn is_asked_to_subscribe(&self, namespace: &Namespace) -> bool {
        self.subscribe.is_some() && namespace.consent
    }

    /// Whether anybody is asked about publications in this namespace.
    pub const fn is_asked_to_publish(&self, namespace: &Namespace) -> bool {
        self.publish.is_some() && namespace.consent
    }

    /// Asks whether a client may connect, and answers who it is then.
    ///
    /// # Errors
    /// When it may not, or nobody can say.
    pub async fn connect(
        &self,
        identity: Arc<Identity>,
        session: Option<&str>,
        visitor: Visitor<'_>,
    ) -> Result<Arc<Identity>, Withheld> {
        let Some(desk) = &self.connect else {
            return Ok(identity);
        };
        let question = Question::connect(&self.node, &identity, session, visitor, &self.headers);
        let answer = desk.ask(&question).await?;
        match &answer.supplement {
            Some(supplement) => Ok(Arc::new(identity.supplemented(supplement))),
            None => Ok(identity),
        }
    }

    /// Asks whether a client may subscribe to a channel. The question is on its way when this returns.
    ///
    /// # Errors
    /// When it may not, or nobody can say.
    pub fn subscribe(
        &self,
        asker: &Asker<'_>,
        channel: &ChannelKey,
    ) -> impl Future<Output = Result<(), Withheld>> + Send + use<> {
        let Some(desk) = &self.subscribe else {
            return Either::Left(ready(Ok(())));
        };
        let asked = desk.ask(&Question::subscribe(&self.node, asker, channel));
        Either::Right(async move { asked.await.map(drop) })
    }

    /// Asks whether somebody may publish this, and answers what is published: the same, or what the back end puts in its
    /// place, in at most `bytes_max` bytes. The question is on its way when this returns.
    ///
    /// # Errors
    /// When it may not be published, or nobody can say.
    pub fn publish(
        &self,
        asker: &Asker<'_>,
        channel: &ChannelKey,
        data: Payload,
        key: Option<&str>,
        bytes_max: usize,
    ) -> impl Future<Output = Result<Payload, Withheld>> + Send + use<> {
        let Some(desk) = self.publish.clone() else {
            return Either::Left(ready(Ok(data)));
        };
        let asked = desk.ask(&Question::publish(&self.node, asker, channel, &data, key));
        Either::Right(async move {
            let answer: Answer = asked.await?;
            match answer.data {
                Some(other) if other.len() > bytes_max => {
                    desk.is_faulty("its data is larger than the channel takes");
                    Err(Withheld::Unavailable)
                }
                Some(other) => Ok(other),
                None => Ok(data),
            }
        })
    }
}

/// What a supplement of a token's holder may not say.
fn contradicts(identity_user: Option<&str>, supplement: &Supplement) -> bool {
    match (identity_user, supplement.user.as_deref()) {
        (Some(ours), Some(theirs)) => ours != theirs,
        _ => false,
    }
}
