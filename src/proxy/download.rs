//! The way of an answer to its client: the head, then the body as the upstream sends it, never more of it held than one
//! read. Bytes pass as they came; only the framing changes where the two ends do not speak alike, and trailers pass as far as
//! fields of the head do.

use std::io::{self, IoSlice, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite as _;

use super::cache::Recorder;
use super::events::{Boundary, HEARTBEAT};
use super::fields::write_response_trailers;
use super::removed::Removed;
use super::upload::Waits;
use super::wire::{Wire, with_buffer};
use crate::http1::{Framing, with_trailers};
use crate::tls::Stream;

/// How the client gets the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// As it comes, framing and all.
    Same,
    /// A client of HTTP/1.0 knows no chunks: the end of the connection ends the body.
    Bare,
    /// In chunks of ours: where the upstream ends the body with its connection the client keeps its own, and comments of
    /// ours can stand between them.
    Chunks,
}

/// Why an answer breaks off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DownloadFault {
    /// The client has gone.
    Client,
    /// The upstream broke off, or broke the framing.
    Upstream,
}

/// One answer on its way.
#[derive(Debug)]
pub(super) struct Download {
    /// What is to be written before anything else.
    out: Vec<u8>,
    out_sent: usize,
    /// Whether the client has got anything.
    has_begun: bool,
    body: Framing,
    form: Form,
    /// The last chunk of ours is written.
    is_closed: bool,
    /// Of what the upstream sent, so many bytes are the client's.
    granted: usize,
    /// The fields behind a body that passes as it comes, before they are all here.
    trailers: Vec<u8>,
    pub(super) waits: Waits,
    /// Of a stream of events: where something of ours may stand.
    events: Option<Boundary>,
    /// Comments of ours do.
    has_heartbeats: bool,
    /// Something went on since this was last cleared.
    pub(super) has_moved: bool,
    /// The upstream said something since this was last cleared.
    pub(super) has_heard: bool,
    /// Takes the body down for the cache.
    recorder: Option<Box<Recorder>>,
}

impl Download {
    /// An answer that begins with these bytes.
    pub(super) fn new(out: Vec<u8>, body: Framing, form: Form) -> Self {
        Self {
            out,
            out_sent: 0,
            has_begun: false,
            body,
            form,
            is_closed: false,
            granted: 0,
            trailers: Vec::new(),
            waits: Waits::ForUpstream,
            events: None,
            has_heartbeats: false,
            has_moved: false,
            has_heard: true,
            recorder: None,
        }
    }

    /// The same, and its body is taken down.
    pub(super) fn recorded_by(mut self, recorder: Option<Box<Recorder>>) -> Self {
        self.recorder = recorder;
        self
    }

    /// Who took it down, at the end.
    pub(super) fn take_recorder(&mut self) -> Option<Box<Recorder>> {
        self.recorder.take()
    }

    /// The same for a stream of events, perhaps with heartbeats; it must not be of the form [`Form::Same`].
    pub(super) fn with_events(mut self, has_heartbeats: bool) -> Self {
        self.events = Some(Boundary::default());
        self.has_heartbeats = has_heartbeats;
        self
    }

    /// Whether it is known where its events end.
    pub(super) const fn follows_events(&self) -> bool {
        self.events.is_some()
    }

    /// Whether its end was not told beforehand.
    pub(super) const fn is_endless(&self) -> bool {
        !matches!(self.body, Framing::Length(_))
    }

    /// Whether the client has got nothing, so that something else can still be answered.
    pub(super) const fn is_unsent(&self) -> bool {
        !self.has_begun
    }

    /// Whether comments of ours stand between its events.
    pub(super) const fn has_heartbeats(&self) -> bool {
        self.has_heartbeats
    }

    /// Whether a comment could stand here: the client has everything, and no event has begun.
    pub(super) fn may_beat(&self) -> bool {
        self.out_sent == self.out.len()
            && self.granted == 0
            && self.events.is_some_and(|events| events.is_here())
    }

    /// Puts a comment between two events; in the middle of one it does nothing.
    pub(super) fn beat(&mut self) {
        if self.may_beat() {
            self.frame(HEARTBEAT);
        }
    }

    /// Ends a stream of events in good order, with this as its last one; in the middle of one it does nothing, and tells so.
    pub(super) fn end_with(&mut self, last: &[u8]) -> bool {
        let may_end = self.may_beat();
        if may_end {
            self.frame(last);
            self.body = Framing::NONE;
        }
        may_end
    }

    /// More of the body.
    pub(super) fn follow_events(&mut self, bytes: &[u8]) {
        if let Some(events) = &mut self.events {
            events.follow(bytes);
        }
    }

    /// Bytes of a body that is framed anew.
    fn frame(&mut self, bytes: &[u8]) {
        if self.form != Form::Chunks {
            return self.out.extend_from_slice(bytes);
        }
        // A vector takes every write.
        let _ = write!(self.out, "{:x}\r\n", bytes.len());
        self.out.extend_from_slice(bytes);
        self.out.extend_from_slice(b"\r\n");
    }

    /// Passes on what there is, but for trailers of names that are removed; ready at the end.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        (wire, removed): (&mut Wire, &Removed),
        client: &mut Stream,
    ) -> Poll<Result<(), DownloadFault>> {
        loop {
            if self.granted == 0 && !wire.read.is_empty() && !self.body.is_done() && self.has_room()
            {
                self.take(wire, removed)?;
            }
            if self.out_sent < self.out.len() || self.granted > 0 {
                self.waits = Waits::ForClient;
                let sent = ready!(self.poll_send(cx, wire, client));
                sent.map_err(|_| DownloadFault::Client)?;
                continue;
            }
            let flushed = ready!(Pin::new(&mut *client).poll_flush(cx));
            flushed.map_err(|_| DownloadFault::Client)?;
            if self.body.is_done() {
                if self.form == Form::Chunks && !std::mem::replace(&mut self.is_closed, true) {
                    self.out.extend_from_slice(b"0\r\n\r\n");
                    continue;
                }
                return Poll::Ready(Ok(()));
            }
            self.waits = Waits::ForUpstream;
            let filled = with_buffer(&mut wire.read, |read| {
                let filled = ready!(read.poll_fill(cx, &mut wire.socket));
                Poll::Ready(filled)
            });
            match ready!(filled) {
                Ok(0) if matches!(self.body, Framing::UntilClose) && wire.socket.is_ended() => {
                    self.body = Framing::NONE;
                }
                Ok(0) | Err(_) => return Poll::Ready(Err(DownloadFault::Upstream)),
                Ok(_) => {
                    self.has_moved = true;
                    self.has_heard = true;
                }
            }
        }
    }

    /// Bodies that are framed anew are copied, one read at a time.
    fn has_room(&self) -> bool {
        self.form == Form::Same || self.out_sent == self.out.len()
    }

    fn take(&mut self, wire: &mut Wire, removed: &Removed) -> Result<(), DownloadFault> {
        match self.form {
            Form::Same if self.body.is_in_trailers() => self.take_trailers(wire, removed),
            Form::Same => self.grant(wire),
            Form::Bare | Form::Chunks => self.take_apart(wire),
        }
    }

    /// Lets pass what stands before the trailers; where there are none, to the end.
    fn grant(&mut self, wire: &Wire) -> Result<(), DownloadFault> {
        let unread = wire.read.unread();
        let followed = self.body.follow_to_trailers(unread);
        let (mut granted, _) = followed.map_err(|_| DownloadFault::Upstream)?;
        if self.body.is_in_trailers() && unread[granted..].starts_with(b"\r\n") {
            let followed = self.body.follow(&unread[granted..]);
            granted += followed.map_err(|_| DownloadFault::Upstream)?.0;
        }
        self.granted = granted;
        if let Some(recorder) = &mut self.recorder {
            recorder.see(&unread[..granted]);
        }
        Ok(())
    }

    /// Takes what has come of the trailers; once they are all here, those that may pass go on behind the body.
    fn take_trailers(&mut self, wire: &mut Wire, removed: &Removed) -> Result<(), DownloadFault> {
        let unread = wire.read.unread();
        let followed = self.body.follow(unread);
        let (count, _) = followed.map_err(|_| DownloadFault::Upstream)?;
        self.trailers.extend_from_slice(&unread[..count]);
        if let Some(recorder) = &mut self.recorder {
            recorder.see(&unread[..count]);
        }
        if self.body.is_done() {
            let is_removed = |lower: &[u8]| removed.has(lower);
            let out = &mut self.out;
            with_trailers(&self.trailers, |fields| {
                write_response_trailers(fields, is_removed, out);
            })
            .ok_or(DownloadFault::Upstream)?;
        }
        wire.read.consume(count);
        Ok(())
    }

    /// Frames the data anew; trailers have no place then.
    fn take_apart(&mut self, wire: &mut Wire) -> Result<(), DownloadFault> {
        let unread = wire.read.unread();
        let mut used = 0;
        while used < unread.len() {
            let run = self.body.run(&unread[used..]);
            let Some(run) = run.map_err(|_| DownloadFault::Upstream)? else {
                break;
            };
            let bytes = &unread[used..used + run.length];
            used += run.length;
            if run.is_data && !bytes.is_empty() {
                self.follow_events(bytes);
                self.frame(bytes);
            }
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.see(&unread[..used]);
        }
        wire.read.consume(used);
        Ok(())
    }

    /// What waits of ours and of the body, in one call.
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        wire: &mut Wire,
        client: &mut Stream,
    ) -> Poll<io::Result<()>> {
        let out = &self.out[self.out_sent..];
        let body = &wire.read.unread()[..self.granted];
        let client = Pin::new(client);
        let sent = match (out, body) {
            (out, []) => ready!(client.poll_write(cx, out))?,
            ([], body) => ready!(client.poll_write(cx, body))?,
            (out, body) => {
                let both = [IoSlice::new(out), IoSlice::new(body)];
                ready!(client.poll_write_vectored(cx, &both))?
            }
        };
        if sent == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.has_moved = true;
        self.has_begun = true;
        let of_out = sent.min(out.len());
        self.out_sent += of_out;
        if self.out_sent == self.out.len() {
            self.out.clear();
            self.out_sent = 0;
        }
        self.granted -= sent - of_out;
        wire.read.consume(sent - of_out);
        Poll::Ready(Ok(()))
    }
}
