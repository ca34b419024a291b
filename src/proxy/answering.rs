//! A call that is answered: an upstream's body passes, or what we say ourselves goes out.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite as _;
use tokio::time::Instant;

use super::call::{Call, State};
use super::cause::Cause;
use super::download::DownloadFault;
use super::error::ProxyError;
use super::gone::{is_flooding, poll_gone};
use super::upload::{UploadFault, Waits};
use super::wire;
use crate::http1::{After, Peer};
use crate::telemetry::proxy::Carried;

impl Call {
    /// Passes the body of an answer.
    pub(super) fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        peer: &mut Peer<'_>,
    ) -> Poll<Option<After>> {
        let State::Answering {
            download,
            keeps_wire,
        } = &mut self.state
        else {
            return Poll::Ready(Some(After::Cut));
        };
        let Some(wire) = &mut self.wire else {
            return Poll::Ready(Some(After::Cut));
        };
        let removed = &self.proxy.removed;
        if std::mem::take(&mut self.has_timed_out) {
            if download.waits != Waits::ForUpstream || !download.has_heartbeats() {
                return Poll::Ready(Some(After::Cut));
            }
            download.beat();
            self.moved = Instant::now();
        }
        let client_is_gone = if self.upload.is_done() {
            // A stream has no time-out that would find out, and nobody sends requests behind one.
            poll_gone(cx, peer).is_ready()
                || (self.asked.carried == Carried::Sse && is_flooding(peer))
        } else {
            // An answer may begin before the request has ended, and both go on.
            let uploaded = self.upload.poll(cx, peer, wire);
            uploaded == Poll::Ready(Err(UploadFault::ClientGone))
        };
        if client_is_gone {
            return Poll::Ready(Some(After::Cut));
        }
        let mut downloaded = download.poll(cx, (wire, removed), peer.socket);
        let leaving = self.leaving.filter(|_| downloaded.is_pending());
        match leaving.and_then(|leaving| leaving.end(download)) {
            Some(After::Close) => {
                // What the upstream goes on to say is for nobody.
                *keeps_wire = false;
                self.asked.keeps_alive = false;
                downloaded = download.poll(cx, (wire, removed), peer.socket);
            }
            Some(after) => return Poll::Ready(Some(after)),
            None => {}
        }
        match downloaded {
            Poll::Pending => {
                self.note_moves();
                Poll::Pending
            }
            Poll::Ready(Err(DownloadFault::Upstream)) if download.is_unsent() => {
                // Head and nonsense came in one piece.
                let cause = Cause::NoAnswer(&"a body that breaks its framing");
                self.fail(&ProxyError::Unavailable, &cause);
                Poll::Ready(None)
            }
            Poll::Ready(Err(DownloadFault::Client | DownloadFault::Upstream)) => {
                Poll::Ready(Some(After::Cut))
            }
            Poll::Ready(Ok(())) => {
                let recorder = download.take_recorder();
                let keeps_wire = *keeps_wire && self.upload.is_done() && wire.read.is_empty();
                if let (true, Some(attempt), Some(wire)) =
                    (keeps_wire, &self.attempt, self.wire.take())
                {
                    wire::put(attempt.endpoint.id, wire, self.moved);
                }
                if let Some(recorder) = recorder {
                    self.keep(*recorder);
                }
                let is_whole = self.upload.is_body_read();
                Poll::Ready(Some(match self.asked.keeps_alive && is_whole {
                    true => After::KeepAlive,
                    false => After::Close,
                }))
            }
        }
    }

    /// Answers itself.
    pub(super) fn poll_tell(
        &mut self,
        cx: &mut Context<'_>,
        peer: &mut Peer<'_>,
    ) -> Poll<Option<After>> {
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
}
