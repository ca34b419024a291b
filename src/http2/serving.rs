//! One stream of a client: its request goes into a pipe as HTTP/1, and what comes out of the pipe is its answer.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::HeaderMap;
use tokio::time::{Sleep, sleep, timeout};

use super::answer::translate;
use super::body::{Fault, Outgoing, end, last_chunk, poll_in, poll_send};
use super::connection::Limits;
use super::request::Translated;
use super::room::Room;
use crate::http1::{Framing, HeadScan, ResponseHead, Scanned, slots};
use crate::tls::{FarEnd, Pulled};

/// How long a client may go on with its request behind the answer, and with how much at a time.
const LINGER_TIME_MAX: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: usize = 256 * 1024;

/// How long the end of an answer waits for the end of its request. A client that is still sending may do something wrong
/// with its stream, and hears of that only while the stream is open on our side.
const END_PAUSE: Duration = Duration::from_millis(20);

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carried {
    /// Its answer is whole.
    Whole,
    /// The client has given it up; before its answer began, or behind that.
    GivenUp {
        /// Whether the answer had begun.
        was_answered: bool,
    },
    /// The answer broke off, or the client took none of it for too long; the client was told.
    Broken,
}

/// What becomes of the bytes that the client sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Up {
    /// They are a body whose length was told.
    Plain,
    /// They are a body, and go in chunks.
    Chunks,
    /// They are frames of a WebSocket that is not answered yet.
    Wait,
    /// They go as they are, their end included.
    Raw,
    /// They have ended, or nobody takes them.
    Done,
}

/// What comes out of the pipe.
enum Down {
    Head(HeadScan),
    Body(Outgoing),
    Raw,
}

/// The client's side of the answer.
enum Answer {
    Awaited(SendResponse<Bytes>),
    Begun(SendStream<Bytes>),
}

/// One stream on its way. Polled by the task that serves the pipe; dropped before its end, it resets the stream and cuts
/// the pipe.
pub struct Serving {
    far: FarEnd,
    body: RecvStream,
    answer: Answer,
    up: Up,
    down: Down,
    is_head: bool,
    is_websocket: bool,
    /// What came out of the pipe and is not sent.
    held: Bytes,
    /// The client's window is closed although there is something to send.
    is_stalled: bool,
    stall_max: Duration,
    /// Bytes of the request's body so far.
    brought: u64,
    room: Room,
    stall: Option<Pin<Box<Sleep>>>,
    end_pause: Option<Pin<Box<Sleep>>>,
}

impl Serving {
    pub(super) fn new(
        translated: Translated,
        is_head: bool,
        mut far: FarEnd,
        (body, respond): (RecvStream, SendResponse<Bytes>),
        (limits, room): (Limits, Room),
    ) -> Self {
        let is_websocket = matches!(translated, Translated::WebSocket { .. });
        let up = match &translated {
            Translated::Request { .. } if body.is_end_stream() => Up::Done,
            Translated::Request { is_chunked, .. } if *is_chunked => Up::Chunks,
            Translated::Request { .. } => Up::Plain,
            Translated::WebSocket { .. } => Up::Wait,
            Translated::UnknownProtocol => Up::Done,
        };
        if let Translated::Request { head, .. } | Translated::WebSocket { head } = translated {
            far.push(head.into());
        }
        Self {
            far,
            body,
            answer: Answer::Awaited(respond),
            up,
            down: Down::Head(HeadScan::default()),
            is_head,
            is_websocket,
            held: Bytes::new(),
            is_stalled: false,
            stall_max: limits.stall_max,
            brought: 0,
            room,
            stall: None,
            end_pause: None,
        }
    }

    /// Carries what there is, both ways. To be polled after whoever serves the pipe had its turn, on the same task.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Carried> {
        if self.poll_reset(cx).is_ready() || matches!(self.poll_up(cx), Poll::Ready(Err(_))) {
            return Poll::Ready(self.given_up());
        }
        match self.poll_down(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(Carried::Whole),
            Poll::Ready(Err(Fault::Stream)) => Poll::Ready(self.given_up()),
            Poll::Ready(Err(Fault::Inside)) => Poll::Ready(self.reset(Reason::INTERNAL_ERROR)),
            Poll::Pending => {
                ready!(self.poll_stall(cx));
                Poll::Ready(self.reset(Reason::CANCEL))
            }
        }
    }

    /// After a whole answer: throws away what the client still sends of its request, for a moment and so that it hears of
    /// what is wrong with it. Then the stream is reset, which says that the rest is not wanted (section 8.1).
    pub async fn linger(mut self) {
        let end = poll_fn(|cx| self.poll_waste(cx));
        // Its time's end changes nothing.
        let _ = timeout(LINGER_TIME_MAX, end).await;
    }

    fn poll_waste(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut wasted = 0;
        while wasted < LINGER_BYTES_MAX {
            let Some(Ok(bytes)) = ready!(self.body.poll_data(cx)) else {
                break;
            };
            wasted += bytes.len();
            // A stream that is gone has no window.
            let _ = self.body.flow_control().release_capacity(bytes.len());
        }
        Poll::Ready(())
    }

    fn given_up(&self) -> Carried {
        let was_answered = matches!(self.answer, Answer::Begun(_));
        Carried::GivenUp { was_answered }
    }

    /// Never a clean end: the client must not take what it has for the whole.
    fn reset(&mut self, reason: Reason) -> Carried {
        match &mut self.answer {
            Answer::Awaited(respond) => respond.send_reset(reason),
            Answer::Begun(stream) => stream.send_reset(reason),
        }
        Carried::Broken
    }

    /// Ready when the client has reset the stream, or its connection is gone.
    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.answer {
            Answer::Awaited(respond) => respond.poll_reset(cx).map(|_| ()),
            Answer::Begun(stream) => stream.poll_reset(cx).map(|_| ()),
        }
    }

    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        if matches!(self.up, Up::Done | Up::Wait) {
            return Poll::Ready(Ok(()));
        }
        let is_chunked = self.up == Up::Chunks;
        let before = self.brought;
        let ended = poll_in(
            cx,
            &mut self.body,
            &mut self.far,
            is_chunked,
            &mut self.brought,
        );
        if self.brought > before && self.far.poll_room(cx).is_ready() {
            self.room.note(self.brought);
        }
        let ended = ready!(ended)?;
        // Where nobody reads any more, what is answered decides.
        if let Some(trailers) = ended {
            match self.up {
                Up::Chunks => self.far.push(last_chunk(&trailers)),
                Up::Raw => self.far.end(),
                // A length leaves no place for trailers; they may be dropped (RFC 9110 section 6.5.1).
                Up::Plain | Up::Wait | Up::Done => {}
            }
        }
        self.up = Up::Done;
        Poll::Ready(Ok(()))
    }

    fn poll_down(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        loop {
            let is_done = match &mut self.down {
                Down::Head(scan) => match scan.look(&self.held) {
                    Scanned::Whole(length) => self.begin(length)?,
                    Scanned::Partial => {
                        match ready!(self.far.poll_pull(cx)) {
                            Pulled::Bytes(bytes) if self.held.is_empty() => self.held = bytes,
                            Pulled::Bytes(bytes) => {
                                self.held = [&self.held[..], &bytes].concat().into();
                            }
                            Pulled::End | Pulled::Cut => return Poll::Ready(Err(Fault::Inside)),
                        }
                        false
                    }
                    Scanned::Malformed | Scanned::TooLong => {
                        return Poll::Ready(Err(Fault::Inside));
                    }
                },
                Down::Body(body) if body.is_whole() => ready!(self.poll_send(cx))?,
                Down::Body(_) | Down::Raw if self.held.is_empty() => {
                    match ready!(self.far.poll_pull(cx)) {
                        Pulled::Bytes(bytes) => {
                            self.held = bytes;
                            false
                        }
                        Pulled::End => return Poll::Ready(self.end_of_pipe()),
                        Pulled::Cut => return Poll::Ready(Err(Fault::Inside)),
                    }
                }
                Down::Body(_) | Down::Raw => ready!(self.poll_send(cx))?,
            };
            if is_done {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// A head has come; tells whether the answer ends with it.
    fn begin(&mut self, length: usize) -> Result<bool, Fault> {
        let bytes = self.held.split_to(length);
        let mut slots = slots();
        let head = ResponseHead::parse(&bytes, &mut slots, self.is_head);
        let head = head.map_err(|_| Fault::Inside)?;
        let response = translate(&head, &bytes, self.is_websocket).ok_or(Fault::Inside)?;
        let Answer::Awaited(respond) = &mut self.answer else {
            return Err(Fault::Inside);
        };
        if head.is_interim() {
            // It may be left out (RFC 9110 section 15.2).
            let _ = respond.send_informational(response);
            self.down = Down::Head(HeadScan::default());
            return Ok(false);
        }
        let is_switched = head.status == 101;
        // What stands behind an acceptance that was none is for nobody.
        let is_refused = self.is_websocket && (200..300).contains(&head.status);
        let ends = !is_switched && (head.body.is_done() || is_refused);
        let stream = respond.send_response(response, ends);
        self.answer = Answer::Begun(stream.map_err(|_| Fault::Stream)?);
        self.up = match self.up {
            Up::Wait if is_switched => Up::Raw,
            Up::Wait => Up::Done,
            up => up,
        };
        self.down = match is_switched {
            true => Down::Raw,
            false => Down::Body(Outgoing::new(head.body)),
        };
        Ok(ends)
    }

    /// Sends what is held, as far as the client takes it; tells whether that was the answer's end.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Fault>> {
        let may_end = self.poll_end_pause(cx).is_ready();
        let Answer::Begun(stream) = &mut self.answer else {
            return Poll::Ready(Err(Fault::Inside));
        };
        let before = self.held.len();
        let sent = match &mut self.down {
            Down::Body(body) => body.poll(cx, stream, &mut self.held, may_end),
            Down::Raw => {
                let sent = poll_send(cx, stream, &mut self.held, (before, false));
                sent.map(|sent| sent.map(|_| false))
            }
            Down::Head(_) => return Poll::Ready(Err(Fault::Inside)),
        };
        if self.held.len() < before {
            self.stall = None;
        }
        self.is_stalled = sent.is_pending();
        sent
    }

    /// The pipe has ended in good order: so has the answer, where that is how it ends.
    fn end_of_pipe(&mut self) -> Result<(), Fault> {
        match &self.down {
            Down::Raw => {}
            Down::Body(body) if matches!(body.framing, Framing::UntilClose) => {}
            Down::Body(_) | Down::Head(_) => return Err(Fault::Inside),
        }
        match &mut self.answer {
            Answer::Begun(stream) => end(stream, HeaderMap::new()),
            Answer::Awaited(_) => Err(Fault::Inside),
        }
    }

    /// Ready when an answer may end.
    fn poll_end_pause(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !matches!(self.up, Up::Plain | Up::Chunks) {
            return Poll::Ready(());
        }
        let pause = self
            .end_pause
            .get_or_insert_with(|| Box::pin(sleep(END_PAUSE)));
        pause.as_mut().poll(cx)
    }

    /// Ready when the client has taken nothing for too long.
    fn poll_stall(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.is_stalled {
            return Poll::Pending;
        }
        let stall_max = self.stall_max;
        let stall = self.stall.get_or_insert_with(|| Box::pin(sleep(stall_max)));
        stall.as_mut().poll(cx)
    }
}
