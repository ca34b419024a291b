//! Makes the parts of a node that the settings choose among, or that are joined as they are made.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Instant;

use super::pressure::Pressure;
use super::shared::Streams;
use super::waiting_runtime;
use crate::auth::Verifier;
use crate::broker::Broker;
use crate::broker::memory::MemoryBroker;
use crate::broker::redis::RedisBroker;
use crate::config::Settings;
use crate::model::{Moment, Namespaces};
use crate::proxy::{Fleet, Pages, Proxy, Told};
use crate::redis::StartError;
use crate::server::{Browsers, ServerError};
use crate::session::Sessions;
use crate::transport::Context;

/// A broker, and the same again as what it is.
pub(super) type Chosen = (
    Arc<dyn Broker>,
    Option<Arc<MemoryBroker>>,
    Option<Arc<RedisBroker>>,
);

/// The broker that the settings name.
pub(super) fn make_broker(
    settings: &Settings,
    namespaces: Arc<Namespaces>,
    started: Instant,
) -> Result<Chosen, ServerError> {
    if let Some(redis) = &settings.redis {
        tracing::info!(redis = %redis.address, prefix = redis.prefix, "a node of a fleet over redis");
        let broker = RedisBroker::start(redis, namespaces).map_err(start_error)?;
        let runtime = waiting_runtime().map_err(ServerError::Start)?;
        runtime.block_on(broker.examine()).map_err(start_error)?;
        let broker = Arc::new(broker);
        return Ok((broker.clone(), None, Some(broker)));
    }
    tracing::info!("a single node: channels live in its memory");
    let clock = move || {
        Moment::from_millis(u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX))
    };
    let broker = Arc::new(MemoryBroker::new(&settings.broker, namespaces, clock));
    Ok((broker.clone(), Some(broker), None))
}

/// Lets a node that was given no secret sign with the one that the store keeps for all.
pub(super) fn share_secret(sessions: &Sessions, verifier: &Arc<Verifier>) {
    verifier.await_secret();
    let verifier = verifier.clone();
    sessions.keep_secret(move |secret| {
        if verifier.lacks_secret() {
            tracing::info!("no JWT_SECRET: tokens are signed with one that the store keeps");
        } else {
            tracing::warn!("the store has lost the secret of tokens: the one is taken that another node has put there");
        }
        verifier.adopt_secret(secret.as_bytes());
    });
}

/// The proxy, joined to what carries the streams that many share.
pub(super) fn make_proxy(
    settings: &Settings,
    context: &Context,
    pressure: &Arc<Pressure>,
    nodes: &Arc<AtomicUsize>,
) -> Result<Proxy, ServerError> {
    let fleet = settings.redis.as_ref();
    let fleet = fleet.map(|redis| Fleet::new(redis, nodes.clone()));
    let fleet = fleet.transpose().map_err(start_error)?;
    let asked = pressure.clone();
    let strain = move || asked.strain();
    let (verifier, pages) = (context.verifier.clone(), pages(&settings.server.browsers));
    let proxy = Proxy::new(&settings.proxy, verifier, fleet, pages, strain);
    let streams = Streams::new(context.relay.clone(), context.rules.namespaces.clone());
    proxy.join(Arc::new(streams));
    Ok(proxy)
}

/// What the proxy tells pages: what the server does.
fn pages(browsers: &Browsers) -> Pages {
    Pages::new(browsers.origins.listed(), |origin| Told {
        passed: browsers.origin_lines(origin),
        own: browsers.lines(origin, false),
        own_encrypted: browsers.lines(origin, true),
    })
}

fn start_error(error: StartError) -> ServerError {
    ServerError::Start(std::io::Error::other(error))
}
