//! One worker of the server, joined to what it serves.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;

use crate::admin;
use crate::api::ApiState;
use crate::http1::{Exchange, RequestHead};
use crate::model::{ConnectionPermit, DrainSignal};
use crate::proxy::{Arrival, Proxy};
use crate::server::{self, Worker};
use crate::transport::{self, Slot};

/// Joins the server, which knows no use of sockets, to transport, api and proxy, which know no server.
pub(super) struct NodeWorker {
    pub(super) hub: Rc<transport::Worker>,
    pub(super) api: Arc<ApiState>,
    pub(super) proxy: Arc<Proxy>,
}

impl Worker for NodeWorker {
    type Slot = Slot;

    fn is_vital(&self, head: &RequestHead<'_>) -> bool {
        let path = head.target.split('?').next().unwrap_or_default();
        matches!(head.method, "GET" | "HEAD") && admin::VITAL.contains(&path)
    }

    fn take(&self, head: &RequestHead<'_>, caller: server::Caller) -> Option<Box<dyn Exchange>> {
        let arrival = Arrival {
            peer: caller.peer,
            is_encrypted: caller.is_encrypted,
            is_http2: caller.is_http2,
        };
        self.proxy.take(head, arrival)
    }

    fn reply(&self, head: &RequestHead<'_>, body: &[u8]) -> Option<server::Reply> {
        self.api.reply(head, body)
    }

    fn adopt(&self, carrier: server::Carrier, read: Bytes, slot: Slot, permit: ConnectionPermit) {
        let server::Carrier { socket, layer } = carrier;
        self.hub.adopt(socket, layer, read, &slot, permit);
    }

    fn run(self: Rc<Self>, drain: DrainSignal) -> impl Future<Output = ()> + 'static {
        self.hub.clone().run(drain)
    }
}

impl server::Slot for Slot {
    fn is_filled(&self) -> bool {
        Slot::is_filled(self)
    }

    fn swallows_head(&self) -> bool {
        Slot::swallows_head(self)
    }

    fn add_fields(&self, fields: &HeaderMap) {
        Slot::add_fields(self, fields);
    }
}
