//! One request to an upstream and its answer, as a state machine that the client's connection polls.
//!
//! `Dialling` → `Asking` (the request goes out, the answer's head is awaited) → `Answering` (its body passes) or
//! `Tunnel` (a WebSocket). A try that fails before a byte went to the client goes back to the beginning with another
//! upstream, within the service's budget; otherwise `Telling`: an answer of our own.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Instant;

use super::download::{Download, DownloadFault, Form};
use super::endpoint::{Attempt, Endpoint};
use super::error::ProxyError;
use super::rate::AddressLimits;
use super::table::Service;
use super::upload::{Upload, UploadFault, Waits};
use super::websocket::{Handshake, Tunnel};
use super::wire::{self, Wire, with_buffer};
use super::{Proxy, reply};
use crate::http1::{
    After, Exchange, Framing, HeadScan, Peer, ResponseHead, Scanned, has_entry, slots,
};
use crate::model::BodyError;
use crate::telemetry::proxy::{self as counts, Carried};
use crate::tls::Stream;

/// How long an upstream may take to accept a connection.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(3);
/// Upstreams that are asked for one request, at most.
const TRIES_MAX: usize = 3;

/// What is known of a request when it is let in.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) carried: Carried,
    pub(super) method: counts::Method,
    /// As the request line has it.
    pub(super) verb: String,
    /// Whether repeating it does no harm (RFC 9110 section 9.2.2).
    pub(super) is_idempotent: bool,
    /// Whether the client speaks HTTP/1.0.
    pub(super) is_old: bool,
    /// Whether the client's connection is kept.
    pub(super) keeps_alive: bool,
    /// Whether it waits for `100 Continue`.
    pub(super) expects: bool,
    /// Whether limits are told.
    pub(super) has_limits: bool,
    /// Lines that every answer carries: ids and limits.
    pub(super) lines: Vec<u8>,
    /// When its head was read.
    pub(super) started: Instant,
}

/// Where a request goes.
#[derive(Debug)]
pub(super) struct Course {
    pub(super) service: Arc<Service>,
    /// Path and query, behind the upstream's base.
    pub(super) target: String,
    /// The fields, with the empty line, without `Host`.
    pub(super) fields: Vec<u8>,
    /// Of a WebSocket's handshake, what the upstream must answer to.
    pub(super) handshake: Option<Handshake>,
}

/// A request on its way.
pub(super) struct Call {
    proxy: Arc<Proxy>,
    asked: Asked,
    course: Option<Course>,
    upload: Upload,
    tries_left: usize,
    attempt: Option<Attempt>,
    avoid: Option<usize>,
    wire: Option<Wire>,
    scan: HeadScan,
    began: Instant,
    /// The last time that anything moved.
    moved: Instant,
    has_timed_out: bool,
    is_draining: bool,
    state: State,
}

type Dial = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

enum State {
    Dialling(Dial),
    Asking,
    Answering {
        download: Download,
        keeps_wire: bool,
    },
    Tunnel(Box<Tunnel>),
    /// Our own answer, then this.
    Telling {
        bytes: Vec<u8>,
        sent: usize,
        after: After,
    },
    /// A state is being left.
    Leaving,
}

impl Call {
    /// Asks an upstream.
    pub(super) fn new(proxy: Arc<Proxy>, asked: Asked, course: Course, body: Framing) -> Self {
        course.service.requested(proxy.at(asked.started));
        let tries_left = TRIES_MAX.min(course.service.endpoints.len());
        let mut call = Self::idle(proxy, asked, body);
        call.tries_left = tries_left;
        call.course = Some(course);
        call.try_next();
        call
    }

    /// Answers with an error, without asking anybody.
    pub(super) fn refuse(
        proxy: Arc<Proxy>,
        asked: Asked,
        body: Framing,
        error: &ProxyError,
    ) -> Self {
        let mut call = Self::idle(proxy, asked, body);
        call.tell(error);
        call
    }

    fn idle(proxy: Arc<Proxy>, asked: Asked, body: Framing) -> Self {
        let started = asked.started;
        let bytes_max = proxy.body_bytes_max;
        Self {
            proxy,
            asked,
            course: None,
            upload: Upload::new(body, bytes_max),
            tries_left: 0,
            attempt: None,
            avoid: None,
            wire: None,
            scan: HeadScan::default(),
            began: started,
            moved: started,
            has_timed_out: false,
            is_draining: false,
            state: State::Leaving,
        }
    }

    // Trying.

    fn try_next(&mut self) {
        let Some(course) = &self.course else { return };
        self.tries_left -= 1;
        let now = self.proxy.at(self.moved);
        let (endpoint, pass) = course.service.choose(now, self.avoid);
        self.avoid = Some(endpoint.id);
        self.upload
            .begin(course.head_for(&endpoint, &self.asked.verb));
        // A WebSocket keeps its connection to itself, so it brings a new one.
        let may_reuse = self.asked.carried != Carried::Ws;
        let pooled = may_reuse
            .then(|| wire::take(endpoint.id, self.moved))
            .flatten();
        self.attempt = Some(Attempt::begin(
            endpoint.clone(),
            pass,
            self.asked.carried,
            now,
        ));
        match pooled {
            Some(wire) => self.ask(wire),
            None => self.dial(endpoint),
        }
    }

    fn dial(&mut self, endpoint: Arc<Endpoint>) {
        let connector = self.proxy.connector.clone();
        self.state = State::Dialling(Box::pin(async move {
            let dialling = endpoint.dial(connector.as_ref());
            let dialled = tokio::time::timeout(CONNECT_TIME_MAX, dialling).await;
            dialled.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        }));
    }

    fn ask(&mut self, wire: Wire) {
        self.wire = Some(wire);
        self.scan = HeadScan::default();
        self.state = State::Asking;
    }

    /// This try failed before the client got anything.
    fn fail(&mut self, error: &ProxyError) {
        self.moved = Instant::now();
        let was_reused = self.wire.take().is_some_and(|wire| wire.is_reused);
        let may_repeat = self.upload.is_unsent()
            || (self.asked.is_idempotent
                && self.upload.is_untouched()
                && *error != ProxyError::TimedOut);
        if was_reused && may_repeat {
            // The upstream had closed a connection that was kept: nobody's failure.
            if let Some(attempt) = &self.attempt {
                let endpoint = attempt.endpoint.clone();
                self.upload.begin_again();
                return self.dial(endpoint);
            }
        }
        let now = self.proxy.at(self.moved);
        if let Some(mut attempt) = self.attempt.take() {
            attempt.failed(now);
        }
        let service = self.course.as_ref().map(|course| &course.service);
        if may_repeat
            && self.tries_left > 0
            && service.is_some_and(|service| service.may_retry(now))
        {
            return self.try_next();
        }
        self.tell(error);
    }

    /// Answers with an error of our own.
    fn tell(&mut self, error: &ProxyError) {
        let keeps_alive = self.may_keep_client();
        let (status, bytes) = reply::error(error, &self.asked, keeps_alive);
        self.count(status);
        self.attempt = None;
        self.wire = None;
        let after = if keeps_alive {
            After::KeepAlive
        } else {
            After::Close
        };
        self.state = State::Telling {
            bytes,
            sent: 0,
            after,
        };
    }

    /// Whether the client's connection can carry another request after an answer that begins now: what is left of this
    /// one's body would be read as one.
    fn may_keep_client(&self) -> bool {
        self.asked.keeps_alive && !self.is_draining && self.upload.is_body_read()
    }

    fn count(&self, status: u16) {
        let elapsed = self.asked.started.elapsed();
        counts::answered(self.asked.carried, self.asked.method, status, elapsed);
    }

    // Going on.

    fn poll_dial(&mut self, cx: &mut Context<'_>, peer: &mut Peer<'_>) -> Poll<Option<After>> {
        let State::Dialling(dial) = &mut self.state else {
            return Poll::Ready(None);
        };
        let Poll::Ready(dialled) = dial.as_mut().poll(cx) else {
            return poll_gone(cx, peer).map(|()| Some(After::Cut));
        };
        self.began = Instant::now();
        self.moved = self.began;
        match dialled {
            Ok(socket) => self.ask(Wire::new(socket)),
            Err(error) => {
                if let Some(attempt) = &self.attempt {
                    let upstream = &attempt.endpoint.address.url;
                    tracing::debug!(%error, %upstream, "cannot reach an upstream");
                }
                let timed_out = error.kind() == io::ErrorKind::TimedOut;
                self.fail(if timed_out {
                    &ProxyError::TimedOut
                } else {
                    &ProxyError::Unavailable
                });
            }
        }
        Poll::Ready(None)
    }

    fn poll_ask(&mut self, cx: &mut Context<'_>, peer: &mut Peer<'_>) -> Poll<Option<After>> {
        if std::mem::take(&mut self.has_timed_out) {
            match self.upload.waits {
                Waits::ForClient if !self.upload.is_done() => {
                    self.tell(&ProxyError::Body(BodyError::TimedOut));
                }
                _ => self.fail(&ProxyError::TimedOut),
            }
            return Poll::Ready(None);
        }
        let Some(wire) = &mut self.wire else {
            return Poll::Ready(Some(After::Cut));
        };
        let uploaded = self.upload.poll(cx, peer, wire);
        match uploaded {
            Poll::Ready(Err(UploadFault::ClientGone)) => return Poll::Ready(Some(After::Cut)),
            Poll::Ready(Err(UploadFault::BadBody)) => {
                self.tell(&ProxyError::Body(BodyError::Broken));
                return Poll::Ready(None);
            }
            Poll::Ready(Err(UploadFault::TooLarge)) => {
                self.tell(&ProxyError::Body(BodyError::TooLarge));
                return Poll::Ready(None);
            }
            // It takes no more; what it said before decides.
            Poll::Ready(Err(UploadFault::Upstream) | Ok(())) | Poll::Pending => {}
        }
        let read = with_buffer(&mut wire.read, |read| {
            loop {
                match self.scan.look(read.unread()) {
                    Scanned::Partial => match read.poll_fill(cx, &mut wire.socket) {
                        Poll::Pending => break Poll::Pending,
                        Poll::Ready(Ok(0) | Err(_)) => break Poll::Ready(None),
                        Poll::Ready(Ok(_)) => {}
                    },
                    Scanned::Whole(length) => break Poll::Ready(Some(length)),
                    Scanned::Malformed | Scanned::TooLong => break Poll::Ready(None),
                }
            }
        });
        match read {
            Poll::Ready(Some(length)) => self.hear(length),
            Poll::Ready(None) => self.fail(&ProxyError::Unavailable),
            Poll::Pending => {
                self.note_moves();
                if self.upload.is_body_read() {
                    return poll_gone(cx, peer).map(|()| Some(After::Cut));
                }
                return Poll::Pending;
            }
        }
        Poll::Ready(None)
    }

    /// The head of an answer has come.
    fn hear(&mut self, length: usize) {
        let Some(mut wire) = self.wire.take() else {
            return;
        };
        let mut out = Vec::with_capacity(512);
        let heard = {
            let bytes = &wire.read.unread()[..length];
            let mut slots = slots();
            match ResponseHead::parse(bytes, &mut slots, self.asked.method == counts::Method::Head)
            {
                Ok(head) => self.answer(&head, &mut out),
                Err(_) => Heard::Nonsense,
            }
        };
        wire.read.consume(length);
        match heard {
            Heard::Nonsense => {
                // A connection that talks nonsense is not the fault of having been kept.
                wire.is_reused = false;
                self.wire = Some(wire);
                self.fail(&ProxyError::Unavailable);
            }
            Heard::Interim => {
                self.scan = HeadScan::default();
                self.moved = Instant::now();
                wire.is_reused = false;
                self.wire = Some(wire);
                self.state = State::Asking;
                if !out.is_empty() {
                    self.interim(out);
                }
            }
            Heard::Final {
                body,
                form,
                keeps_wire,
            } => {
                self.wire = Some(wire);
                let download = Download::new(out, body, form);
                self.state = State::Answering {
                    download,
                    keeps_wire,
                };
            }
            Heard::Switched => {
                let attempt = self.attempt.take();
                let config = self.proxy.tunnel;
                // A tunnel lives long, and nothing of the request is needed any more.
                self.course = None;
                self.upload = Upload::new(Framing::NONE, 0);
                self.asked.lines = Vec::new();
                self.state = State::Tunnel(Box::new(Tunnel::new(wire, out, attempt, config)));
            }
        }
    }

    /// What the client gets of a head, and what follows it.
    fn answer(&mut self, head: &ResponseHead<'_>, out: &mut Vec<u8>) -> Heard {
        if head.is_interim() {
            let passes = head.status != 100 || self.asked.expects;
            if passes && !self.asked.is_old {
                reply::interim(head, out);
            }
            return Heard::Interim;
        }
        let switched = head.status == 101;
        let handshake = self
            .course
            .as_ref()
            .and_then(|course| course.handshake.as_ref());
        if switched && !handshake.is_some_and(|handshake| handshake.is_answered_by(head)) {
            return Heard::Nonsense;
        }
        let now = Instant::now();
        if let Some(attempt) = &mut self.attempt {
            attempt.answered(head.status, now - self.began, self.proxy.at(now));
        }
        self.moved = now;
        let elapsed = now - self.asked.started;
        counts::answered(self.asked.carried, self.asked.method, head.status, elapsed);
        if switched {
            reply::switched(head, &self.asked, out);
            return Heard::Switched;
        }
        let form = match head.body {
            Framing::Chunked(_) if self.asked.is_old => Form::Bare,
            Framing::UntilClose if !self.asked.is_old => Form::Chunks,
            _ => Form::Same,
        };
        self.asked.keeps_alive = self.may_keep_client() && !self.asked.is_old;
        reply::head(head, &self.asked, form, out);
        Heard::Final {
            body: head.body,
            form,
            keeps_wire: head.keeps_alive,
        }
    }

    /// An interim answer goes out whole or, to a client that takes nothing, not at all: it may be left out.
    fn interim(&mut self, out: Vec<u8>) {
        self.state = State::Telling {
            bytes: out,
            sent: 0,
            after: After::KeepAlive,
        };
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>, peer: &mut Peer<'_>) -> Poll<After> {
        let State::Answering {
            download,
            keeps_wire,
        } = &mut self.state
        else {
            return Poll::Ready(After::Cut);
        };
        let Some(wire) = &mut self.wire else {
            return Poll::Ready(After::Cut);
        };
        if std::mem::take(&mut self.has_timed_out) {
            return Poll::Ready(After::Cut);
        }
        let mut client_is_gone = false;
        if !self.upload.is_done() {
            // An answer may begin before the request has ended, and both go on.
            let uploaded = self.upload.poll(cx, peer, wire);
            client_is_gone = uploaded == Poll::Ready(Err(UploadFault::ClientGone));
        } else if peer.read.is_empty() {
            client_is_gone = poll_gone(cx, peer).is_ready();
        }
        if client_is_gone {
            return Poll::Ready(After::Cut);
        }
        match download.poll(cx, wire, peer.socket) {
            Poll::Pending => {
                self.note_moves();
                Poll::Pending
            }
            Poll::Ready(Err(DownloadFault::Client | DownloadFault::Upstream)) => {
                Poll::Ready(After::Cut)
            }
            Poll::Ready(Ok(())) => {
                let keeps_wire = *keeps_wire && self.upload.is_done() && wire.read.is_empty();
                if let (true, Some(attempt), Some(wire)) =
                    (keeps_wire, &self.attempt, self.wire.take())
                {
                    wire::put(attempt.endpoint.id, wire, self.moved);
                }
                let is_whole = self.upload.is_body_read();
                Poll::Ready(match self.asked.keeps_alive && is_whole {
                    true => After::KeepAlive,
                    false => After::Close,
                })
            }
        }
    }

    fn poll_tell(&mut self, cx: &mut Context<'_>, peer: &mut Peer<'_>) -> Poll<Option<After>> {
        use tokio::io::AsyncWrite as _;
        let State::Telling { bytes, sent, after } = &mut self.state else {
            return Poll::Ready(None);
        };
        if std::mem::take(&mut self.has_timed_out) {
            return Poll::Ready(Some(After::Cut));
        }
        while *sent < bytes.len() {
            match ready!(Pin::new(&mut *peer.socket).poll_write(cx, &bytes[*sent..])) {
                Ok(0) | Err(_) => return Poll::Ready(Some(After::Cut)),
                Ok(count) => *sent += count,
            }
        }
        if ready!(Pin::new(&mut *peer.socket).poll_flush(cx)).is_err() {
            return Poll::Ready(Some(After::Cut));
        }
        if self.wire.is_some() {
            // That was an interim answer.
            self.state = State::Asking;
            return Poll::Ready(None);
        }
        Poll::Ready(Some(*after))
    }

    fn note_moves(&mut self) {
        let mut has_moved = std::mem::take(&mut self.upload.has_moved);
        if let State::Answering { download, .. } = &mut self.state {
            has_moved |= std::mem::take(&mut download.has_moved);
        }
        if has_moved {
            self.moved = Instant::now();
        }
    }
}

/// What an upstream said.
enum Heard {
    /// No answer to this request.
    Nonsense,
    /// Another head follows.
    Interim,
    /// The answer.
    Final {
        body: Framing,
        form: Form,
        keeps_wire: bool,
    },
    /// A WebSocket from here on.
    Switched,
}

/// Ready when the client has gone. What it sends meanwhile stays read ahead, one read of it.
fn poll_gone(cx: &mut Context<'_>, peer: &mut Peer<'_>) -> Poll<()> {
    if !peer.read.is_empty() {
        return Poll::Pending;
    }
    match ready!(peer.read.poll_fill(cx, peer.socket)) {
        Ok(0) | Err(_) => Poll::Ready(()),
        Ok(_) => Poll::Pending,
    }
}

impl Exchange for Call {
    fn poll(&mut self, cx: &mut Context<'_>, mut peer: Peer<'_>) -> Poll<After> {
        loop {
            let after = match &mut self.state {
                State::Dialling(_) => ready!(self.poll_dial(cx, &mut peer)),
                State::Asking => ready!(self.poll_ask(cx, &mut peer)),
                State::Answering { .. } => return self.poll_answer(cx, &mut peer),
                State::Tunnel(tunnel) => return tunnel.poll(cx, &mut peer),
                State::Telling { .. } => ready!(self.poll_tell(cx, &mut peer)),
                State::Leaving => return Poll::Ready(After::Cut),
            };
            if let Some(after) = after {
                return Poll::Ready(after);
            }
        }
    }

    fn due(&self) -> Option<Instant> {
        let (waits, upstream_may) = match &self.state {
            State::Tunnel(tunnel) => return Some(tunnel.due()),
            // The dial has a time-out of its own.
            State::Dialling(_) | State::Leaving => return None,
            State::Telling { .. } => (Waits::ForClient, None),
            State::Asking if self.upload.is_done() => {
                (Waits::ForUpstream, Some(self.proxy.timeout))
            }
            State::Asking => (self.upload.waits, Some(self.proxy.timeout)),
            State::Answering { download, .. } => {
                let is_stream = self.asked.carried == Carried::Sse;
                (download.waits, (!is_stream).then_some(self.proxy.timeout))
            }
        };
        match waits {
            Waits::ForClient => Some(self.moved + self.proxy.body_timeout),
            Waits::ForUpstream => upstream_may.map(|time| self.moved + time),
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        match &mut self.state {
            State::Tunnel(tunnel) => tunnel.handle_timeout(now),
            _ => self.has_timed_out = true,
        }
    }

    fn handle_drain(&mut self, window: Duration) {
        self.is_draining = true;
        if let State::Tunnel(tunnel) = &mut self.state {
            tunnel.handle_drain(window, Instant::now());
        }
    }
}

impl Course {
    /// The request's head for this upstream.
    fn head_for(&self, endpoint: &Endpoint, verb: &str) -> Vec<u8> {
        let parts = [
            verb.as_bytes(),
            b" ",
            endpoint.address.base.as_bytes(),
            self.target.as_bytes(),
            b" HTTP/1.1\r\nhost: ",
            endpoint.authority.as_bytes(),
            b"\r\n",
            &self.fields,
        ];
        parts.concat()
    }
}

/// Whether an answer's field of this name, in lower case, is said by us and nobody else.
pub(super) fn is_replaced(asked: &Asked, has_limits: bool, lower: &[u8]) -> bool {
    match lower {
        b"x-request-id" | b"x-correlation-id" => true,
        b"cache-control" | b"x-accel-buffering" => asked.carried == Carried::Sse,
        lower => has_limits && AddressLimits::is_told(lower),
    }
}

/// Whether a request waits for `100 Continue` before it sends its body.
pub(super) fn expects(head: &crate::http1::RequestHead<'_>) -> bool {
    has_entry(head.fields, "expect", "100-continue")
}
