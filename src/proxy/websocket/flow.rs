//! One direction of a tunnel: bytes from a source to a sink, at most one read of them held while the sink takes none.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite as _;
use tokio::time::Instant;

use super::super::wire::with_buffer;
use super::frames::{Frames, Over};
use crate::http1::ReadAhead;
use crate::tls::Stream;

/// Reads in one turn before others have theirs.
const READS_MAX: usize = 16;

/// One direction.
#[derive(Debug, Default)]
pub(super) struct Flow {
    frames: Frames,
    /// Of what was read, so many bytes are the sink's.
    granted: usize,
    /// What goes to the sink before anything more of the source: frames of ours.
    out: Vec<u8>,
    out_sent: usize,
    /// A last frame of ours, for the next boundary; nothing of the source follows it.
    last: Option<Vec<u8>>,
    /// The last frame was written: what the source still sends is thrown away.
    pub(super) is_sealed: bool,
    /// A message of the source's was too big: nothing more of it is passed on, and the last frame is still to be said.
    pub(super) is_cut: bool,
    /// The source has come to its end.
    pub(super) is_ended: bool,
    /// The source has sent a close frame.
    pub(super) is_closed: bool,
    /// The sink takes nothing any more.
    pub(super) is_dead: bool,
    /// The source's end was noted, and what is to be said about it.
    may_shut: bool,
    is_shut: bool,
    /// Something was written that was not flushed.
    is_unflushed: bool,
    /// Since when the sink has taken nothing although there is something.
    pub(super) stalled_since: Option<Instant>,
    /// Something was read of the source, or the sink took some after it had not, since this was last cleared.
    pub(super) has_read: bool,
    pub(super) has_written: bool,
}

impl Flow {
    /// A flow that begins with these bytes, which are no frames, and whose messages have so many payload bytes at most.
    pub(super) fn new(out: Vec<u8>, message_bytes_max: Option<u64>) -> Self {
        Self {
            frames: Frames::bounded(message_bytes_max),
            out,
            ..Self::default()
        }
    }

    /// Whether something of a message came since this was last asked.
    pub(super) fn take_data(&mut self) -> bool {
        std::mem::take(&mut self.frames.has_data)
    }

    /// Whether nothing more goes this way.
    pub(super) fn is_finished(&self) -> bool {
        let is_flushed = self.out_sent == self.out.len();
        let has_answered = self.is_closed || self.is_ended;
        self.is_dead || self.is_shut || (self.is_sealed && is_flushed && has_answered)
    }

    /// Puts a frame between two of the source's, if this is such a moment.
    pub(super) fn interject(&mut self, frame: &[u8]) -> bool {
        let is_open = !self.is_sealed && !self.is_closed && !self.is_ended;
        let may = is_open && self.frames.is_between() && self.granted == 0 && self.out.is_empty();
        if may {
            self.out.extend_from_slice(frame);
        }
        may
    }

    /// Ends it with this frame as soon as the source's present one has ended and was passed on.
    pub(super) fn end_with(&mut self, frame: Vec<u8>) {
        if std::mem::take(&mut self.is_cut) {
            return self.out.extend_from_slice(&frame);
        }
        let can_end = self.frames.is_between() || !self.is_ended;
        if !self.is_sealed && self.last.is_none() && !self.is_dead && !self.is_shut && can_end {
            self.last = Some(frame);
        }
    }

    /// The source's end reaches the sink: with this frame where the source sent no close of its own. Tells whether it
    /// has ended and that was not known.
    pub(super) fn note_end(&mut self, frame: impl FnOnce() -> Vec<u8>) -> bool {
        if !self.is_ended || self.may_shut {
            return false;
        }
        self.may_shut = true;
        if !self.is_closed {
            self.end_with(frame());
        }
        true
    }

    fn seal(&mut self) {
        if self.granted == 0
            && self.frames.is_between()
            && let Some(frame) = self.last.take()
        {
            self.out.extend_from_slice(&frame);
            self.is_sealed = true;
        }
    }

    /// Carries what there is.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Stream,
        read: &mut ReadAhead,
        sink: &mut Stream,
    ) {
        for _ in 0..READS_MAX {
            match self.poll_once(cx, source, read, sink) {
                Poll::Pending => return,
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) => return,
                Poll::Ready(Err(_)) => {
                    self.is_dead = true;
                    return;
                }
            }
        }
        cx.waker().wake_by_ref();
    }

    /// One step; `false` when there is nothing more to do. Errors are the sink's.
    fn poll_once(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Stream,
        read: &mut ReadAhead,
        sink: &mut Stream,
    ) -> Poll<io::Result<bool>> {
        if self.is_dead {
            return Poll::Ready(Ok(false));
        }
        if self.has_something() {
            ready!(self.poll_write(cx, read, sink))?;
            self.seal();
            ready!(self.poll_write(cx, read, sink))?;
        }
        if self.is_ended {
            if self.may_shut && !self.is_shut {
                ready!(Pin::new(sink).poll_shutdown(cx))?;
                self.is_shut = true;
            }
            return Poll::Ready(Ok(false));
        }
        if !read.is_empty() {
            self.take(read);
            return Poll::Ready(Ok(true));
        }
        with_buffer(read, |read| {
            match ready!(read.poll_fill(cx, source)) {
                Ok(count) if count > 0 => {
                    self.take(read);
                    ready!(self.poll_write(cx, read, sink))?;
                }
                _ => self.is_ended = true,
            }
            Poll::Ready(Ok(true))
        })
    }

    /// Whether anything is to be written, or was and may not have gone out. Nearly never: most messages arrive whole, and
    /// their sink takes them at once.
    fn has_something(&self) -> bool {
        self.granted > 0 || !self.out.is_empty() || self.last.is_some() || self.is_unflushed
    }

    /// Looks at what was read and says what of it the sink gets.
    fn take(&mut self, read: &mut ReadAhead) {
        self.has_read = true;
        let seen = self.frames.follow(read.unread());
        self.is_closed |= seen.close;
        let length = read.unread().len();
        if self.is_sealed {
            return read.consume(length);
        }
        if let Some(over) = seen.over {
            return self.cut(over, read);
        }
        self.granted = length;
        if let Some(boundary) = seen.boundary
            && let Some(frame) = self.last.take()
        {
            // Up to the boundary, then ours; copied, for what follows is thrown away.
            self.out.extend_from_slice(&read.unread()[..boundary]);
            self.out.extend_from_slice(&frame);
            self.granted = 0;
            self.is_sealed = true;
            read.consume(length);
        }
    }

    /// Passes on what came before a frame that is not to pass, and nothing after that.
    fn cut(&mut self, over: Over, read: &mut ReadAhead) {
        match over {
            Over::At(began) => self.out.extend_from_slice(&read.unread()[..began]),
            // The sink has a part of its header, so no frame can follow.
            Over::Before => self.is_dead = true,
        }
        self.is_cut = true;
        self.is_sealed = true;
        read.consume(read.unread().len());
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        read: &mut ReadAhead,
        sink: &mut Stream,
    ) -> Poll<io::Result<()>> {
        while self.granted > 0 || self.out_sent < self.out.len() {
            // Frames of ours were put there at a boundary, when nothing was granted.
            let is_ours = self.out_sent < self.out.len();
            let bytes = match is_ours {
                true => &self.out[self.out_sent..],
                false => &read.unread()[..self.granted],
            };
            let Poll::Ready(written) = Pin::new(&mut *sink).poll_write(cx, bytes) else {
                self.stalled_since.get_or_insert_with(Instant::now);
                return Poll::Pending;
            };
            let written = written?;
            self.is_unflushed = true;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            if self.stalled_since.take().is_some() {
                self.has_written = true;
            }
            if is_ours {
                self.out_sent += written;
                if self.out_sent == self.out.len() {
                    self.out = Vec::new();
                    self.out_sent = 0;
                }
            } else {
                self.granted -= written;
                read.consume(written);
            }
        }
        let flushed = Pin::new(&mut *sink).poll_flush(cx);
        self.is_unflushed = flushed.is_pending();
        if flushed.is_pending() {
            self.stalled_since.get_or_insert_with(Instant::now);
        }
        flushed
    }
}
