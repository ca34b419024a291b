//! One HTTP connection's socket, shared by hyper (through [`LinkIo`]), the service and the task that drives both.
//!
//! Answers are collected while hyper takes its turn and written when the turn ends, so pipelined requests are answered
//! in one write. hyper's own `pipeline_flush` is not used: while bytes that were read ahead wait, it does not flush at
//! all, so it loses the head of a 101 (and a last answer), and it bounds nothing.
//!
//! hyper gets one request at a time, and no byte behind it: so each head is looked at before hyper parses it, and what
//! hyper would repair or hide is refused.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::header::{CONNECTION, CONTENT_TYPE};
use http::{Response, StatusCode};
use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::io::AsyncWrite as _;
use tokio::time::Instant;

use super::answer::Refusal;
use crate::http1::{self, Framing, HeadScan, Peer, ReadAhead, Scanned};
use crate::model::{HandshakePermit, put_decimal};
use crate::tls::Stream;

/// Most bytes of answers that wait for the end of the turn or for the socket; above it hyper has to wait.
const PENDING_BYTES_MAX: usize = 64 * 1024;

/// From here on an answer goes to the socket without being copied first.
const DIRECT_BYTES_MIN: usize = 16 * 1024;

/// Most bytes of empty lines before a request.
const EMPTY_LINES_BYTES_MAX: usize = 8;

/// How long a connection may be idle between two requests. Longer than the 60 s for which nginx keeps its idle
/// connections to us, so that it is the one to close.
const IDLE_MAX: Duration = Duration::from_secs(75);

/// Where a connection is between two answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing of the next request has arrived.
    Idle,
    /// The first request's head, or some of a later one's, is awaited.
    Head,
    /// A request is being answered.
    Busy,
}

/// What becomes of the socket when HTTP is done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Handover {
    /// It is closed.
    None,
    /// A worker takes it, after the 101.
    Written,
    /// A worker takes it, and the head of the 101 is not written.
    Swallowed,
}

/// The shared state of one HTTP connection.
pub(super) struct Link<S> {
    socket: RefCell<Stream>,
    incoming: RefCell<Incoming>,
    /// hyper waits for the socket to take more of an answer.
    hyper_is_blocked: Cell<bool>,
    pending: RefCell<Pending>,
    blocked: Cell<Option<Instant>>,
    phase: Cell<Phase>,
    /// Since when `phase` holds; none until the end of the turn that changed it, which reads the clock once.
    since: Cell<Option<Instant>>,
    handshake: Cell<Option<HandshakePermit>>,
    heard: Cell<bool>,
    pub(super) handover: Cell<Handover>,
    /// What the handler of the current request leaves for the worker.
    pub(super) slot: RefCell<S>,
}

/// What was read of the socket.
struct Incoming {
    ahead: ReadAhead,
    scan: HeadScan,
    /// Of what is unread, so many bytes are hyper's.
    granted: usize,
    /// Where the body of hyper's request ends.
    body: Framing,
    /// Bytes of empty lines that stood before the next request.
    blank: usize,
}

/// What stands at the beginning of a connection's next request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NextHead {
    /// A whole head of so many bytes.
    Whole(usize),
    /// No head that anybody may get.
    Refused(Refusal),
    /// The peer has closed.
    Ended,
}

#[derive(Default)]
struct Pending {
    bytes: Vec<u8>,
    sent: usize,
}

impl<S: Default> Link<S> {
    pub(super) fn new(socket: Stream, handshake: Option<HandshakePermit>) -> Self {
        Self {
            socket: RefCell::new(socket),
            incoming: RefCell::new(Incoming {
                ahead: ReadAhead::default(),
                scan: HeadScan::default(),
                granted: 0,
                body: Framing::NONE,
                blank: 0,
            }),
            hyper_is_blocked: Cell::new(false),
            pending: RefCell::default(),
            blocked: Cell::new(None),
            phase: Cell::new(Phase::Head),
            since: Cell::new(None),
            handshake: Cell::new(handshake),
            heard: Cell::new(false),
            handover: Cell::new(Handover::None),
            slot: RefCell::default(),
        }
    }

    /// The socket, what was read of it, and the slot, when nobody shares them any more.
    pub(super) fn into_parts(self) -> (Stream, Vec<u8>, S) {
        (
            self.socket.into_inner(),
            self.incoming.into_inner().ahead.into_unread(),
            self.slot.into_inner(),
        )
    }

    /// Waits for the head of the next request.
    pub(super) fn poll_head(&self, cx: &mut Context<'_>) -> Poll<io::Result<NextHead>> {
        let incoming = &mut *self.incoming.borrow_mut();
        loop {
            incoming.skip_empty_lines();
            if !incoming.ahead.is_empty() {
                self.hear();
                match incoming.scan.look(incoming.ahead.unread()) {
                    Scanned::Whole(length) => return Poll::Ready(Ok(NextHead::Whole(length))),
                    Scanned::Malformed => {
                        return Poll::Ready(Ok(NextHead::Refused(Refusal::BadHead)));
                    }
                    Scanned::TooLong => {
                        return Poll::Ready(Ok(NextHead::Refused(Refusal::HeadTooLarge)));
                    }
                    Scanned::Partial => {}
                }
            }
            let socket = &mut *self.socket.borrow_mut();
            if ready!(incoming.ahead.poll_fill(cx, socket))? == 0 {
                return Poll::Ready(Ok(NextHead::Ended));
            }
        }
    }

    /// The length of the next request's head, if it has come whole. Reads nothing, and leaves the head to who looks for it
    /// next.
    pub(super) fn whole_head(&self) -> Option<usize> {
        let incoming = &mut *self.incoming.borrow_mut();
        if incoming.ahead.is_empty() {
            return None;
        }
        incoming.skip_empty_lines();
        match HeadScan::default().look(incoming.ahead.unread()) {
            Scanned::Whole(length) => Some(length),
            _ => None,
        }
    }

    /// What was read and nobody has taken.
    pub(super) fn with_unread<T>(&self, look: impl FnOnce(&[u8]) -> T) -> T {
        look(self.incoming.borrow().ahead.unread())
    }

    /// The head that [`Link::poll_head`] found, of `length` bytes, goes to hyper, and its body.
    pub(super) fn grant(&self, length: usize, body: Framing) {
        let incoming = &mut *self.incoming.borrow_mut();
        incoming.granted = length;
        incoming.body = body;
        incoming.begin_next();
    }

    /// So many bytes, a head and perhaps its body, go to who answers the request.
    pub(super) fn take_request(&self, length: usize) {
        let incoming = &mut *self.incoming.borrow_mut();
        incoming.ahead.consume(length);
        incoming.begin_next();
    }

    /// The connection as an exchange sees it.
    pub(super) fn with_peer<T>(&self, exchange: impl FnOnce(Peer<'_>) -> T) -> T {
        let peer = Peer {
            socket: &mut self.socket.borrow_mut(),
            read: &mut self.incoming.borrow_mut().ahead,
        };
        exchange(peer)
    }

    /// Whether hyper has nothing to do: no request was given to it that is not answered.
    pub(super) fn is_hyper_idle(&self) -> bool {
        let incoming = self.incoming.borrow();
        incoming.granted == 0
            && incoming.body.is_done()
            && !self.is_busy()
            && !self.hyper_is_blocked.get()
    }

    /// Gives hyper what is its own of what was read.
    fn poll_give(&self, cx: &mut Context<'_>, mut to: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let incoming = &mut *self.incoming.borrow_mut();
        while incoming.granted == 0 {
            if incoming.body.is_done() && (!self.is_busy() || !incoming.ahead.is_empty()) {
                return Poll::Pending;
            }
            if incoming.ahead.is_empty() {
                // Behind the request's end, this is how hyper learns that the peer has gone.
                let socket = &mut *self.socket.borrow_mut();
                if ready!(incoming.ahead.poll_fill(cx, socket))? == 0 {
                    return Poll::Ready(Ok(()));
                }
            }
            let followed = incoming.body.follow(incoming.ahead.unread());
            let invalid = |fault| io::Error::new(io::ErrorKind::InvalidData, fault);
            incoming.granted = followed.map_err(invalid)?.0;
        }
        let count = incoming.granted.min(to.remaining());
        to.put_slice(&incoming.ahead.unread()[..count]);
        incoming.ahead.consume(count);
        incoming.granted -= count;
        Poll::Ready(Ok(()))
    }

    /// Something of the next request has come.
    fn hear(&self) {
        self.heard.set(true);
        if self.phase.get() == Phase::Idle {
            self.enter(Phase::Head);
        }
    }

    /// A request's head is complete: its connection is no handshake any more.
    pub(super) fn begin_request(&self) {
        drop(self.handshake.take());
        self.enter(Phase::Busy);
    }

    /// Whether no request has come yet, on a connection that is no stream of another.
    pub(super) fn is_new(&self) -> bool {
        let handshake = self.handshake.take();
        let is_new = handshake.is_some();
        self.handshake.set(handshake);
        is_new
    }

    /// The permit of a connection that has not brought a request.
    pub(super) fn take_handshake(&self) -> Option<HandshakePermit> {
        self.handshake.take()
    }

    /// The current request has been answered to the last byte.
    pub(super) fn end_request(&self) {
        self.enter(Phase::Idle);
    }

    /// Whether a request is being answered.
    pub(super) fn is_busy(&self) -> bool {
        self.phase.get() == Phase::Busy
    }

    /// Whether the peer began a request that did not arrive.
    pub(super) fn is_mid_head(&self) -> bool {
        self.phase.get() == Phase::Head && self.heard.get()
    }

    /// When this connection is to be given up unless something happens. `header_timeout` bounds a head, `pause_max`
    /// a peer that takes none of its answer; a handler's time is the router's matter.
    pub(super) fn due(&self, header_timeout: Duration, pause_max: Duration) -> Option<Instant> {
        let since = || {
            let since = self.since.get().unwrap_or_else(Instant::now);
            self.since.set(Some(since));
            since
        };
        let phase = match self.phase.get() {
            Phase::Idle => Some(since() + IDLE_MAX),
            Phase::Head => Some(since() + header_timeout),
            Phase::Busy => None,
        };
        let stalled = self.blocked.get().map(|since| since + pause_max);
        phase.into_iter().chain(stalled).min()
    }

    /// Lends empty buffers for one turn: for what is read, and for the answers.
    pub(super) fn lend(&self, read: &mut Vec<u8>, buffer: &mut Vec<u8>) {
        self.incoming.borrow_mut().ahead.lend(read);
        let mut pending = self.pending.borrow_mut();
        if pending.bytes.capacity() == 0 {
            std::mem::swap(&mut pending.bytes, buffer);
        }
    }

    /// Takes the buffers back, that of the answers if everything has been written, so that an idle connection holds
    /// none.
    pub(super) fn reclaim(&self, read: &mut Vec<u8>, buffer: &mut Vec<u8>) {
        self.incoming.borrow_mut().ahead.reclaim(read);
        let mut pending = self.pending.borrow_mut();
        if pending.bytes.is_empty() && pending.bytes.capacity() <= 2 * PENDING_BYTES_MAX {
            *buffer = std::mem::take(&mut pending.bytes);
        }
    }

    /// Writes what is pending.
    pub(super) fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut pending = self.pending.borrow_mut();
        while pending.sent < pending.bytes.len() {
            let written = ready!(self.poll_socket(cx, &pending.bytes[pending.sent..]))?;
            pending.sent += written;
        }
        pending.bytes.clear();
        pending.sent = 0;
        self.poll_flush(cx)
    }

    /// Nothing for a plain socket. An encrypted one may hold what it has encrypted: a peer that takes none of that is not
    /// looked for here, for the next write finds it.
    fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.socket.borrow_mut()).poll_flush(cx)
    }

    fn poll_socket(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut *self.socket.borrow_mut()).poll_write(cx, bytes);
        match &written {
            Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Poll::Ready(_) => self.blocked.set(None),
            Poll::Pending if self.blocked.get().is_none() => self.blocked.set(Some(Instant::now())),
            Poll::Pending => {}
        }
        written
    }

    fn poll_accept(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.handover.get() == Handover::Swallowed {
            self.append(before_last_head(bytes));
            return Poll::Ready(Ok(bytes.len()));
        }
        let waiting = self.pending.borrow().bytes.len();
        if bytes.len() >= DIRECT_BYTES_MIN || waiting + bytes.len() > PENDING_BYTES_MAX {
            ready!(self.poll_send(cx))?;
        }
        if bytes.len() >= DIRECT_BYTES_MIN {
            return self.poll_socket(cx, bytes);
        }
        self.append(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    /// Whether so much waits to be written that no other request is to be begun.
    pub(super) fn is_full(&self) -> bool {
        self.pending.borrow().bytes.len() >= PENDING_BYTES_MAX
    }

    /// Puts an answer behind the others; `is_last` when the connection ends with it.
    pub(super) fn put(&self, response: &Response<Vec<u8>>, is_last: bool) {
        let out = &mut self.pending.borrow_mut().bytes;
        put_status(out, response.status());
        if !response.headers().contains_key(CONTENT_TYPE) {
            out.extend_from_slice(b"content-type: application/json\r\n");
        }
        for (name, value) in response.headers() {
            out.extend_from_slice(name.as_str().as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(value.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        if is_last && !response.headers().contains_key(CONNECTION) {
            out.extend_from_slice(b"connection: close\r\n");
        }
        out.extend_from_slice(b"content-length: ");
        put_decimal(response.body().len() as u64, out);
        out.extend_from_slice(b"\r\ndate: ");
        http1::put_date(out);
        out.extend_from_slice(b"\r\n\r\n");
        out.extend_from_slice(response.body());
    }

    fn append(&self, bytes: &[u8]) {
        self.pending.borrow_mut().bytes.extend_from_slice(bytes);
    }

    fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.since.set(None);
    }
}

impl Incoming {
    /// The next request's first byte is the next one to be looked at.
    fn begin_next(&mut self) {
        self.scan = HeadScan::default();
        self.blank = 0;
    }

    /// Some clients end a body with an empty line that belongs to nothing (RFC 9112 section 2.2).
    fn skip_empty_lines(&mut self) {
        while self.blank < EMPTY_LINES_BYTES_MAX && self.ahead.unread().starts_with(b"\r\n") {
            self.ahead.consume(2);
            self.blank += 2;
        }
    }
}

/// Appends the first line of an answer.
fn put_status(out: &mut Vec<u8>, status: StatusCode) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    // A code without words of its own is followed by none (RFC 9112 section 4).
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// What stands before the last head in `bytes`: the end of an earlier answer, usually nothing. The 101 that is to be
/// swallowed is the last thing that hyper writes, has no body, and none of its header fields names a version: nothing that
/// a client said stands in it (`service`).
fn before_last_head(bytes: &[u8]) -> &[u8] {
    let start = bytes.windows(7).rposition(|window| window == b"HTTP/1.");
    &bytes[..start.unwrap_or(0)]
}

/// The socket as hyper sees it.
pub(super) struct LinkIo<S>(pub(super) Rc<Link<S>>);

impl<S: Default> Read for LinkIo<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.poll_give(cx, buffer)
    }
}

impl<S: Default> Write for LinkIo<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let accepted = self.0.poll_accept(cx, bytes);
        self.0.hyper_is_blocked.set(accepted.is_pending());
        accepted
    }

    /// Does nothing: the connection's task writes at the end of its turn.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.0.poll_send(cx))?;
        Pin::new(&mut *self.0.socket.borrow_mut()).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_head_is_swallowed() {
        let bytes = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nxHTTP/1.1 101 Switching Protocols\r\n\r\n";
        assert_eq!(before_last_head(bytes), &bytes[..39]);
        assert_eq!(before_last_head(b"HTTP/1.0 101 X\r\n\r\n"), b"");
    }
}
