//! The way of a request to its upstream: the head, then the body as the client sends it, never more of it held than one
//! read.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite as _;

use super::wire::Wire;
use crate::http1::{Framing, Peer};

/// Most bytes of a body that are kept so that another upstream can get them.
const KEPT_BYTES_MAX: usize = 64 * 1024;

/// Who has to move next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waits {
    ForClient,
    ForUpstream,
}

/// Why a request did not arrive whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UploadFault {
    /// The client has gone.
    ClientGone,
    /// Its body breaks its framing.
    BadBody,
    /// Its body is over the limit.
    TooLarge,
    /// The upstream takes no more; it may have answered all the same.
    Upstream,
}

/// One request on its way. It can be sent again as long as everything of its body that was taken is kept.
#[derive(Debug)]
pub(super) struct Upload {
    head: Vec<u8>,
    head_sent: usize,
    body: Framing,
    /// Of what the client's socket gave, so many bytes are to be sent.
    granted: usize,
    /// Bytes that the body may still have.
    left: u64,
    /// Why nothing more of the body is taken.
    fault: Option<UploadFault>,
    /// What was taken of the body, framing and all; `None` once that is too much, or nobody wants it again.
    kept: Option<Vec<u8>>,
    /// Something of the body has gone to an upstream.
    has_given: bool,
    pub(super) waits: Waits,
    /// Something of the body went on since this was last cleared.
    pub(super) has_moved: bool,
}

impl Upload {
    /// A request with this body, of at most so many bytes; the head comes with [`Upload::begin`]. What is to be kept of
    /// it costs a copy.
    pub(super) fn new(body: Framing, bytes_max: u64, keeps: bool) -> Self {
        Self {
            head: Vec::new(),
            head_sent: 0,
            body,
            granted: 0,
            left: bytes_max,
            fault: None,
            kept: keeps.then(Vec::new),
            has_given: false,
            waits: Waits::ForUpstream,
            has_moved: false,
        }
    }

    /// Sends this head, and what was kept of the body, to an upstream that has seen nothing of the request.
    pub(super) fn begin(&mut self, mut head: Vec<u8>) {
        head.extend_from_slice(self.kept.as_deref().unwrap_or_default());
        self.head = head;
        self.head_sent = 0;
        self.waits = Waits::ForUpstream;
    }

    /// Whether no byte has left for this upstream.
    pub(super) fn is_unsent(&self) -> bool {
        self.head_sent == 0
    }

    /// Whether all of the body is here still: only then another upstream can get it.
    pub(super) fn can_repeat(&self) -> bool {
        self.kept.is_some()
    }

    /// Whether all of the body is here, or still to come: an upstream that has seen nothing of it can get it.
    pub(super) fn is_here(&self) -> bool {
        self.can_repeat() || !self.has_given
    }

    /// Nobody will want it again.
    pub(super) fn forget(&mut self) {
        self.kept = None;
    }

    /// Whether the client has sent everything and the upstream got it.
    pub(super) fn is_done(&self) -> bool {
        self.head_sent == self.head.len() && self.granted == 0 && self.body.is_done()
    }

    /// Whether nothing of the client's body is left on its connection.
    pub(super) fn is_body_read(&self) -> bool {
        self.granted == 0 && self.body.is_done()
    }

    /// Sends what there is.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        peer: &mut Peer<'_>,
        wire: &mut Wire,
    ) -> Poll<Result<(), UploadFault>> {
        loop {
            if self.granted == 0 && !self.body.is_done() && !peer.read.is_empty() {
                self.grant(peer)?;
            }
            if self.head_sent < self.head.len() || self.granted > 0 {
                self.waits = Waits::ForUpstream;
                let sent = ready!(self.poll_send(cx, peer, wire));
                sent.map_err(|_| UploadFault::Upstream)?;
                continue;
            }
            let flushed = ready!(Pin::new(&mut wire.socket).poll_flush(cx));
            flushed.map_err(|_| UploadFault::Upstream)?;
            if self.body.is_done() {
                return Poll::Ready(Ok(()));
            }
            self.waits = Waits::ForClient;
            match ready!(peer.read.poll_fill(cx, peer.socket)) {
                Ok(0) | Err(_) => return Poll::Ready(Err(UploadFault::ClientGone)),
                Ok(_) => {}
            }
        }
    }

    /// Takes what the client sent as a part of its body, or none of it: what was refused must not count as read, or what
    /// follows it on the connection would be taken for the next request.
    fn grant(&mut self, peer: &Peer<'_>) -> Result<(), UploadFault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let mut body = self.body;
        let followed = match body.follow(peer.read.unread()) {
            Ok((granted, data)) => match self.left.checked_sub(data) {
                Some(left) => Ok((granted, left)),
                None => Err(UploadFault::TooLarge),
            },
            Err(_) => Err(UploadFault::BadBody),
        };
        let (granted, left) = followed.inspect_err(|fault| self.fault = Some(*fault))?;
        (self.body, self.granted, self.left) = (body, granted, left);
        Ok(())
    }

    /// Head and body in one call where both wait.
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        peer: &mut Peer<'_>,
        wire: &mut Wire,
    ) -> Poll<io::Result<()>> {
        let head = &self.head[self.head_sent..];
        let body = &peer.read.unread()[..self.granted];
        let socket = Pin::new(&mut wire.socket);
        let sent = match (head, body) {
            (head, []) => ready!(socket.poll_write(cx, head))?,
            ([], body) => ready!(socket.poll_write(cx, body))?,
            (head, body) => {
                let both = [IoSlice::new(head), IoSlice::new(body)];
                ready!(socket.poll_write_vectored(cx, &both))?
            }
        };
        if sent == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        let of_head = sent.min(head.len());
        self.head_sent += of_head;
        let of_body = sent - of_head;
        if of_body > 0 {
            self.granted -= of_body;
            self.has_given = true;
            self.keep(&peer.read.unread()[..of_body]);
            peer.read.consume(of_body);
            self.has_moved = true;
        }
        Poll::Ready(Ok(()))
    }

    fn keep(&mut self, bytes: &[u8]) {
        match &mut self.kept {
            Some(kept) if kept.len() + bytes.len() <= KEPT_BYTES_MAX => {
                kept.extend_from_slice(bytes);
            }
            kept => *kept = None,
        }
    }
}
