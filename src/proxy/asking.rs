//! A call that asks: a connection is made, the request goes out on it, and the head of the answer is awaited.

use std::io;
use std::task::{Context, Poll};

use super::call::{Call, State};
use super::cause::Cause;
use super::error::ProxyError;
use super::gone::poll_gone;
use super::upload::{UploadFault, Waits};
use super::wire::with_buffer;
use crate::http1::{After, Peer, Scanned};
use crate::http2::{REFUSED, UNSAYABLE};
use crate::model::BodyError;

/// Why no head came.
enum Fault {
    Closed,
    Broke(io::Error),
    Nonsense(&'static str),
}

impl Fault {
    fn cause(&self) -> Cause<'_> {
        match self {
            Self::Closed => Cause::Closed,
            Self::Broke(error) => Cause::NoAnswer(error),
            Self::Nonsense(what) => Cause::NoAnswer(what),
        }
    }
}

impl Call {
    /// Waits for a connection.
    pub(super) fn poll_dial(
        &mut self,
        cx: &mut Context<'_>,
        peer: &mut Peer<'_>,
    ) -> Poll<Option<After>> {
        let State::Dialling(dial) = &mut self.state else {
            return Poll::Ready(None);
        };
        let Poll::Ready(dialled) = dial.as_mut().poll(cx) else {
            return poll_gone(cx, peer).map(|()| Some(After::Cut));
        };
        match dialled {
            Ok(dialled) => self.ask_on(dialled),
            Err(error) => self.is_undialled(&error),
        }
        Poll::Ready(None)
    }

    /// Sends the request, and waits for the head of the answer.
    pub(super) fn poll_ask(
        &mut self,
        cx: &mut Context<'_>,
        peer: &mut Peer<'_>,
    ) -> Poll<Option<After>> {
        if std::mem::take(&mut self.has_timed_out) {
            match self.upload.waits {
                Waits::ForClient if !self.upload.is_done() => {
                    self.tell(&ProxyError::Body(BodyError::TimedOut));
                }
                _ => self.fail(&ProxyError::TimedOut, &Cause::NoAnswerInTime),
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
        let mut fault = Fault::Closed;
        let read = with_buffer(&mut wire.read, |read| {
            loop {
                match self.scan.look(read.unread()) {
                    Scanned::Partial => match read.poll_fill(cx, &mut wire.socket) {
                        Poll::Pending => break Poll::Pending,
                        Poll::Ready(Ok(0)) => break Poll::Ready(None),
                        Poll::Ready(Err(error)) => {
                            fault = Fault::Broke(error);
                            break Poll::Ready(None);
                        }
                        Poll::Ready(Ok(_)) => {}
                    },
                    Scanned::Whole(length) => break Poll::Ready(Some(length)),
                    Scanned::Malformed => {
                        fault = Fault::Nonsense("the answer's head is malformed");
                        break Poll::Ready(None);
                    }
                    Scanned::TooLong => {
                        fault = Fault::Nonsense("the answer's head is too long");
                        break Poll::Ready(None);
                    }
                }
            }
        });
        match read {
            Poll::Ready(Some(length)) => self.hear(length),
            Poll::Ready(None) => match &fault {
                Fault::Broke(error) if error.kind() == REFUSED => self.refused(),
                // That is the client's doing, and another connection would not help.
                Fault::Broke(error) if error.kind() == UNSAYABLE => {
                    self.tell(&ProxyError::Unsayable);
                }
                fault => self.fail(&ProxyError::Unavailable, &fault.cause()),
            },
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
}
