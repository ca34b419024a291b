//! What a node tells others over HTTP and asks of them: back ends and issuers.

use std::sync::Arc;

use crate::auth::{Verifier, keep_keys};
use crate::broker::redis::RedisBroker;
use crate::config::Settings;
use crate::events::{Consent, Events, Kind};
use crate::outbound::Outbound;
use crate::relay::InterestObserver;
use crate::server::ServerError;

/// Who hears of events, and who is asked. Keys of issuers are kept from now on.
pub(super) fn start(
    settings: &Settings,
    verifier: &Arc<Verifier>,
) -> Result<(Events, Consent), ServerError> {
    let Some(outbound) = start_outbound(settings)? else {
        return Ok((Events::none(), Consent::none()));
    };
    keep_keys(verifier, &outbound);
    let (node, asked) = (&settings.transport.node, &settings.events.consent);
    let events = Events::start(&settings.events, node.clone(), &outbound);
    let consent = asked.as_ref().map_or_else(Consent::none, |asked| {
        Consent::new(asked, node.clone(), &outbound)
    });
    Ok((events.map_err(ServerError::Start)?, consent))
}

/// What asks others over HTTP, where there is anything to ask or to tell.
fn start_outbound(settings: &Settings) -> Result<Option<Arc<Outbound>>, ServerError> {
    let events = &settings.events;
    let tells = events.webhook.is_some() || events.stream.is_some();
    if !tells && events.consent.is_none() && settings.auth.key_sources.is_empty() {
        return Ok(None);
    }
    let outbound = Outbound::start().map_err(ServerError::Start)?;
    Ok(Some(Arc::new(outbound)))
}

/// Lets back ends hear of channels that become occupied and vacant: in the fleet, where there is one. Answers who is to be told
/// what this node has; nobody where nobody wants to hear.
pub(super) fn observe(
    events: &Arc<Events>,
    redis: Option<&Arc<RedisBroker>>,
) -> Option<InterestObserver> {
    if !events.wants(Kind::ChannelOccupied) && !events.wants(Kind::ChannelVacated) {
        return None;
    }
    let events = events.clone();
    let Some(broker) = redis.cloned() else {
        return Some(Box::new(move |channel, is_occupied| {
            if !channel.is_internal() {
                events.tell(kind(is_occupied), |event| {
                    event.channel = Some(channel.clone());
                });
            }
        }));
    };
    broker.watch_occupancy(Box::new(move |told| {
        let kind = kind(told.is_occupied);
        let id = format!("{}-{}", told.life, kind.name());
        events.tell_as(id, kind, |event| event.channel = Some(told.channel));
    }));
    Some(Box::new(move |channel, is_occupied| {
        if !channel.is_internal() {
            broker.occupy(channel, is_occupied);
        }
    }))
}

const fn kind(is_occupied: bool) -> Kind {
    match is_occupied {
        true => Kind::ChannelOccupied,
        false => Kind::ChannelVacated,
    }
}
