//! One request over one connection: sends it, waits for the head of the answer, and streams its body.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::endpoint::Attempt;
use super::wire::{self, Wire};
use crate::model::BodyError;

/// Why no answer came.
#[derive(Debug)]
pub(super) enum Failure {
    /// The upstream took too long with the head of its answer.
    TimedOut,
    /// The client's body failed on its way.
    Body(BodyError),
    /// The connection closed before anything of the request was written; here it is back.
    Unsent(Box<Request<Body>>),
    /// The connection broke, or what came is no HTTP.
    Broken,
}

/// Sends a request and waits for the head of its answer.
pub(super) async fn send(
    wire: &mut Wire,
    request: Request<Body>,
    deadline: Instant,
) -> Result<Response<Incoming>, Failure> {
    let mut answer = pin!(wire.sender.try_send_request(request));
    let mut timer = pin!(sleep_until(deadline));
    poll_fn(|cx| {
        let has_ended = wire.drive(cx);
        // The answer comes out of driving the connection, so that is what has to be woken; the answer's own waker would
        // only wake this task from within.
        let mut quiet = Context::from_waker(Waker::noop());
        if let Poll::Ready(answer) = answer.as_mut().poll(&mut quiet) {
            return Poll::Ready(answer.map_err(|mut error| match error.take_message() {
                Some(request) => Failure::Unsent(Box::new(request)),
                None => BodyError::find(error.error()).map_or(Failure::Broken, Failure::Body),
            }));
        }
        if has_ended {
            return Poll::Ready(Err(Failure::Broken));
        }
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(Failure::TimedOut))
    })
    .await
}

/// The body of an answer, as it comes. Dropped before its end, it takes the connection with it.
pub(super) struct UpstreamBody {
    body: Incoming,
    /// `None` after the end.
    under_way: Option<(Box<Wire>, Attempt)>,
    /// The longest pause; none for event streams.
    pause_max: Option<Duration>,
    /// Made at the first pause only: most bodies come with their head.
    pause: Option<Pin<Box<Sleep>>>,
    /// Told at the next look, so that what came before it is written first.
    error: Option<UpstreamError>,
}

/// Why an answer stops in its middle.
#[derive(Debug, thiserror::Error)]
pub(super) enum UpstreamError {
    #[error("the upstream broke off its answer")]
    Broken,
    #[error("the upstream paused too long in its answer")]
    TimedOut,
}

impl UpstreamBody {
    /// The rest of an answer whose head came over `wire`.
    pub(super) fn stream(
        body: Incoming,
        mut wire: Box<Wire>,
        attempt: Attempt,
        pause_max: Option<Duration>,
    ) -> Body {
        // Also forgets the waker of the head, which asking for the body would wake for nothing.
        wire.drive_quietly();
        if body.is_end_stream() {
            wire::put(attempt.endpoint.id, wire);
            return Body::empty();
        }
        Body::new(Self {
            body,
            under_way: Some((wire, attempt)),
            pause_max,
            pause: None,
            error: None,
        })
    }

    fn poll_body(&mut self) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let mut quiet = Context::from_waker(Waker::noop());
        Pin::new(&mut self.body).poll_frame(&mut quiet)
    }

    fn poll_upstream(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UpstreamError>>> {
        let mut frame = self.poll_body();
        if frame.is_pending() {
            let Some((wire, _)) = &mut self.under_way else {
                return Poll::Ready(None);
            };
            let has_ended = wire.drive(cx);
            frame = self.poll_body();
            if frame.is_pending() && has_ended {
                return Poll::Ready(Some(Err(UpstreamError::Broken)));
            }
        }
        match frame {
            Poll::Ready(frame) => {
                self.pause = None;
                Poll::Ready(frame.map(|frame| frame.map_err(|_| UpstreamError::Broken)))
            }
            Poll::Pending => self.poll_pause(cx),
        }
    }

    fn poll_pause(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UpstreamError>>> {
        let Some(pause_max) = self.pause_max else {
            return Poll::Pending;
        };
        let pause = self.pause.get_or_insert_with(|| Box::pin(sleep(pause_max)));
        ready!(pause.as_mut().poll(cx));
        Poll::Ready(Some(Err(UpstreamError::TimedOut)))
    }
}

impl HttpBody for UpstreamBody {
    type Data = Bytes;
    type Error = UpstreamError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UpstreamError>>> {
        if self.under_way.is_none() {
            return Poll::Ready(self.error.take().map(Err));
        }
        let frame = match ready!(self.poll_upstream(cx)) {
            Some(Err(error)) => {
                tracing::debug!(%error, "an answer breaks off");
                self.under_way = None;
                self.error = Some(error);
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            frame => frame,
        };
        if (frame.is_none() || self.body.is_end_stream())
            && let Some((wire, attempt)) = self.under_way.take()
        {
            wire::put(attempt.endpoint.id, wire);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.under_way.is_none() && self.error.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
