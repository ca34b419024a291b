//! Streams of upstreams that many share: joins the proxy, which reads them, to the hub, which carries them.

use std::sync::Arc;

use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::admin;
use crate::broker::{Control, Publish, ReadLimit};
use crate::model::{
    ChannelKey, Encrypted, Namespaces, Payload, PeerAddr, Position, Scope, WorkerIndex,
};
use crate::proxy::{Admitted, Arrival, Proxy, Refused, SharedStreams, Soon, Top};
use crate::relay::Relay;
use crate::transport::{Attached, Doors, Held, Slot};

/// What the proxy needs of the hub.
pub(super) struct Streams {
    relay: Arc<Relay>,
    namespaces: Arc<Namespaces>,
}

impl Streams {
    pub(super) fn new(relay: Arc<Relay>, namespaces: Arc<Namespaces>) -> Self {
        Self { relay, namespaces }
    }
}

/// The proxy makes names of services and hashes, which are names of channels.
fn key(channel: &str) -> Option<ChannelKey> {
    ChannelKey::internal(Scope::default(), channel).ok()
}

impl SharedStreams for Streams {
    fn publish(&self, channel: &str, texts: Vec<Vec<u8>>) -> Soon<bool> {
        let Some(channel) = key(channel) else {
            return Box::pin(std::future::ready(false));
        };
        let publishes = texts.into_iter().map(|text| Publish {
            channel: channel.clone(),
            data: Payload::from_plain_json(text),
            origin: None,
            key: None,
            idempotency_key: None,
        });
        let (publishes, broker) = (publishes.collect(), self.relay.broker().clone());
        Box::pin(async move {
            let results = broker.publish(publishes).await;
            results.iter().all(Result::is_ok)
        })
    }

    fn event_bytes_max(&self, channel: &str) -> usize {
        key(channel).map_or(0, |channel| {
            self.namespaces.of(&channel).publication_bytes_max
        })
    }

    fn subscribers(&self, channel: &str) -> u64 {
        key(channel).map_or(0, |channel| self.relay.subscribers(&channel))
    }

    fn position(&self, channel: &str) -> Soon<Option<Top>> {
        let (channel, broker) = (key(channel), self.relay.broker().clone());
        Box::pin(async move {
            let top = broker.position(&channel?).await.ok()??;
            let offset = top.offset;
            Some(Top {
                id: top.epoch.with_str(|epoch| format!("{epoch}:{offset}")),
                is_empty: offset == 0,
            })
        })
    }

    fn last(&self, channel: &str) -> Soon<Option<Vec<u8>>> {
        let (channel, broker) = (key(channel), self.relay.broker().clone());
        Box::pin(async move {
            let channel = channel?;
            let top = broker.position(&channel).await.ok()??;
            let before = Position::new(top.epoch, top.offset.checked_sub(1)?);
            let limit = ReadLimit {
                publications: 1,
                bytes: usize::MAX,
            };
            let page = broker.history(&channel, Some(before), limit).await.ok()?;
            let last = page.publications.last()?;
            Some(last.data.as_bytes().to_vec())
        })
    }

    fn end(&self, channel: &str) -> Soon<()> {
        let (channel, broker) = (key(channel), self.relay.broker().clone());
        Box::pin(async move {
            let Some(channel) = channel else { return };
            if broker.control(Control::EndStreams(channel)).await.is_err() {
                tracing::warn!("the broker did not pass on that a shared stream is over");
            }
        })
    }
}

/// What is answered where no route is: streams that many share, or that there is nothing.
#[derive(Clone)]
pub(super) struct Shared {
    proxy: Arc<Proxy>,
    doors: Doors,
}

impl Shared {
    pub(super) fn new(proxy: Arc<Proxy>, doors: Doors) -> Self {
        Self { proxy, doors }
    }

    /// Answers a request that the proxy has left to the router.
    pub(super) async fn answer(self, request: Request) -> Response {
        // What the proxy takes over never comes here, but for what is shared.
        if !Proxy::takes(request.uri().path()) {
            return admin::not_found(request).await;
        }
        let (head, _) = request.into_parts();
        let extensions = &head.extensions;
        let place = (extensions.get::<Slot>(), extensions.get::<WorkerIndex>());
        let (place, peer) = (place, extensions.get::<PeerAddr>());
        let ((Some(slot), Some(worker)), Some(PeerAddr(peer))) = (place, peer) else {
            return StatusCode::NOT_FOUND.into_response();
        };
        let arrival = Arrival {
            peer: *peer,
            is_encrypted: extensions.get::<Encrypted>().is_some(),
            // Who asks for a WebSocket never comes here.
            is_http2: false,
        };
        match self.proxy.subscribe(&head, arrival).await {
            Err(refused) => refusal(refused),
            Ok(Admitted {
                channel,
                from,
                fields,
                permit,
            }) => match key(&channel) {
                Some(channel) => {
                    let place = (slot, *worker);
                    let what = Attached {
                        channel,
                        from: from.as_deref(),
                        fields: pairs(fields),
                        held: permit.map(|permit| Box::new(permit) as Held),
                    };
                    self.doors.attach(place, &head.headers, what)
                }
                None => StatusCode::NOT_FOUND.into_response(),
            },
        }
    }
}

fn pairs(fields: Vec<(String, String)>) -> HeaderMap {
    let fields = fields.into_iter().filter_map(|(name, value)| {
        let name = HeaderName::try_from(name).ok()?;
        Some((name, HeaderValue::try_from(value).ok()?))
    });
    fields.collect()
}

fn refusal(refused: Refused) -> Response {
    let status = StatusCode::from_u16(refused.status).unwrap_or(StatusCode::BAD_GATEWAY);
    (status, pairs(refused.fields), refused.body).into_response()
}
