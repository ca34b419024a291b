//! What answers a request with bytes of its own, on a connection that is the server's: how the server and the proxy meet
//! without knowing each other.

use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::ReadAhead;
use crate::tls::Stream;

/// The client's end of an exchange.
#[derive(Debug)]
pub struct Peer<'a> {
    /// Its socket. Whatever was to be written before has been written.
    pub socket: &'a mut Stream,
    /// What was read of it and belongs behind the request's head: its body, then perhaps further requests.
    pub read: &'a mut ReadAhead,
}

/// What becomes of a connection after an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// It can carry another request, whose first byte is the next one to be read.
    KeepAlive,
    /// It is closed in good order: the answer is whole.
    Close,
    /// It is cut: the peer has gone, or must learn that its answer is not whole.
    Cut,
}

/// One request and its answer, from the request's head on. Dropped before its end, it gives up.
pub trait Exchange {
    /// Goes on as far as it can, and leaves a wake-up for the rest. Not called again after it was ready.
    fn poll(&mut self, cx: &mut Context<'_>, peer: Peer<'_>) -> Poll<After>;

    /// When [`Exchange::handle_timeout`] is to be called, unless something happens before.
    fn due(&self) -> Option<Instant>;

    /// Nothing has happened for too long. It is polled next.
    fn handle_timeout(&mut self, now: Instant);

    /// What goes on in its place: asked whenever it waits. What stays for long need not keep what it began with.
    fn successor(&mut self) -> Option<Box<dyn Exchange>> {
        None
    }

    /// The node drains: what has no end of its own ends within this time. It is polled next.
    fn handle_drain(&mut self, window: Duration);
}
