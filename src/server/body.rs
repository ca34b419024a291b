//! A request's body with its two bounds: how large it may be, and how long it may pause.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::time::Sleep;

use crate::model::BodyError;

/// The limits of one body.
#[derive(Debug, Clone, Copy)]
pub(super) struct BodyLimits {
    /// The most bytes; `u64::MAX` is no limit.
    pub(super) bytes_max: u64,
    /// The longest pause.
    pub(super) pause_max: Duration,
}

/// What the router gets to read. No body costs no allocation.
pub(super) fn bound(body: Incoming, limits: BodyLimits) -> Body {
    if body.is_end_stream() {
        return Body::empty();
    }
    Body::new(BoundedBody {
        body,
        left: limits.bytes_max,
        pause_max: limits.pause_max,
        pause: None,
        failed: false,
    })
}

/// A body that fails with [`BodyError`] when it is too large or pauses too long.
struct BoundedBody {
    body: Incoming,
    left: u64,
    pause_max: Duration,
    /// Made at the first pause only: most bodies arrive with their head.
    pause: Option<Pin<Box<Sleep>>>,
    failed: bool,
}

impl BoundedBody {
    fn poll_bounded(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
            ready!(self.poll_pause(cx));
            return Poll::Ready(Some(Err(BodyError::TimedOut)));
        };
        self.pause = None;
        Poll::Ready(frame.map(|frame| self.count(frame.map_err(|_| BodyError::Broken)?)))
    }

    fn poll_pause(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let pause_max = self.pause_max;
        self.pause
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(pause_max)))
            .as_mut()
            .poll(cx)
    }

    fn count(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, BodyError> {
        let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
        self.left = self.left.checked_sub(bytes).ok_or(BodyError::TooLarge)?;
        Ok(frame)
    }
}

impl HttpBody for BoundedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.failed {
            return Poll::Ready(None);
        }
        let frame = ready!(self.poll_bounded(cx));
        self.failed = matches!(frame, Some(Err(_)));
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.failed || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
