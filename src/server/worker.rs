//! What the server asks of a worker, and nothing of what a worker is.

use std::net::{SocketAddr, TcpStream};
use std::pin::Pin;
use std::rc::Rc;

use bytes::Bytes;
use http::{HeaderMap, Response};

use crate::http1::{Exchange, RequestHead};
use crate::model::{ConnectionPermit, DrainSignal};
use crate::tls::Layer;

/// Where a request comes from.
#[derive(Debug, Clone, Copy)]
pub struct Caller {
    /// The socket's other end.
    pub peer: SocketAddr,
    /// Whether TLS carries it.
    pub is_encrypted: bool,
    /// Whether it came on a stream of HTTP/2.
    pub is_http2: bool,
}

/// An answer without the router: JSON, unless its head says otherwise. Most say nothing, so that they need no table of fields.
pub type Reply = Pin<Box<dyn Future<Output = Response<Vec<u8>>>>>;

/// What carries an upgraded connection.
#[derive(Debug)]
pub struct Carrier {
    /// The socket.
    pub socket: TcpStream,
    /// What encrypts what passes it, and may hold bytes of it.
    pub layer: Option<Layer>,
}

/// What a worker does with sockets that were upgraded. One value per worker thread, made on that thread, inside its
/// runtime.
pub trait Worker: 'static {
    /// What a handler leaves in the request's extensions for the worker. `Default` is empty; clones share one slot.
    type Slot: Slot;

    /// Whether a request is answered where there is no room for it, as long as it needs none of anybody's: by it is judged
    /// whether the node lives. It is the router's.
    fn is_vital(&self, _head: &RequestHead<'_>) -> bool {
        false
    }

    /// Looks at a request before the router does. What it gives answers the request with bytes of its own; `None`
    /// leaves it to the router.
    fn take(&self, _head: &RequestHead<'_>, _caller: Caller) -> Option<Box<dyn Exchange>> {
        None
    }

    /// Looks at a request that has come whole, before anybody else does. What it gives answers the request without the
    /// router; the server adds `Content-Type`, `Content-Length`, `Date` and `Connection`. `None` leaves it to the others.
    fn reply(&self, _head: &RequestHead<'_>, _body: &[u8]) -> Option<Reply> {
        None
    }

    /// Takes over a socket whose handler answered 101 and filled the slot. `read` are bytes that were read ahead: they
    /// come before whatever the carrier still holds. The socket is non-blocking and out of tokio's registration;
    /// everything before it (the 101's head, unless swallowed, and earlier answers) has been written. Dropping the
    /// permit makes room for another connection: keep it as long as the socket.
    fn adopt(&self, carrier: Carrier, read: Bytes, slot: Self::Slot, permit: ConnectionPermit);

    /// The worker's own loop, on the thread of the accept loop. Runs until the drain has closed all that was adopted;
    /// ending before the drain is a fault that ends the process.
    fn run(self: Rc<Self>, drain: DrainSignal) -> impl Future<Output = ()> + 'static;
}

/// Where a handler leaves what the worker needs to know about a socket that it asks to be upgraded.
pub trait Slot: Default + Clone + Send + Sync + 'static {
    /// Whether a handler filled it. Asked after a 101: the socket of an unfilled slot is closed.
    fn is_filled(&self) -> bool;

    /// Whether the head of the 101 must be swallowed instead of written: a stream of events writes its own 200.
    fn swallows_head(&self) -> bool;

    /// Fields for the head that is written instead of the swallowed one; those that it has already stay as they are.
    fn add_fields(&self, fields: &HeaderMap);
}
