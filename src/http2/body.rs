//! Bodies from one form into the other, as far as whoever takes them does.

use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use h2::{RecvStream, SendStream};
use http::HeaderMap;

use super::answer::fields;
use crate::http1::{Framing, Trailers};
use crate::tls::FarEnd;

/// Why a message does not arrive whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// What came out of the pipe broke off, or is nonsense.
    Inside,
    /// The stream is gone, or its connection.
    Stream,
}

/// Sends so many bytes of what is held, or as many of them as the other end takes; tells how many.
pub(super) fn poll_send(
    cx: &mut Context<'_>,
    stream: &mut SendStream<Bytes>,
    held: &mut Bytes,
    (count, ends): (usize, bool),
) -> Poll<Result<usize, Fault>> {
    stream.reserve_capacity(count);
    let mut capacity = stream.capacity();
    while capacity == 0 {
        capacity = match ready!(stream.poll_capacity(cx)) {
            Some(Ok(capacity)) => capacity,
            Some(Err(_)) | None => return Poll::Ready(Err(Fault::Stream)),
        };
    }
    let sent = capacity.min(count);
    let piece = held.split_to(sent);
    let is_sent = stream.send_data(piece, ends && sent == count);
    Poll::Ready(is_sent.map(|()| sent).map_err(|_| Fault::Stream))
}

/// Ends a stream, with these trailers where there are any.
pub(super) fn end(stream: &mut SendStream<Bytes>, trailers: HeaderMap) -> Result<(), Fault> {
    let ended = match trailers.is_empty() {
        true => stream.send_data(Bytes::new(), true),
        false => stream.send_trailers(trailers),
    };
    ended.map_err(|_| Fault::Stream)
}

/// A body of HTTP/1 on its way into a stream.
pub(super) struct Outgoing {
    pub(super) framing: Framing,
    trailers: Trailers,
    /// Of what is held, so many bytes are its data.
    granted: usize,
}

impl Outgoing {
    pub(super) fn new(framing: Framing) -> Self {
        Self {
            framing,
            trailers: Trailers::default(),
            granted: 0,
        }
    }

    /// Whether all of its bytes are sent, and only its end is left.
    pub(super) fn is_whole(&self) -> bool {
        self.granted == 0 && self.framing.is_done()
    }

    /// Sends what is held of it, as far as the other end takes it, and its end once it may end; tells whether that was
    /// its end.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut SendStream<Bytes>,
        held: &mut Bytes,
        may_end: bool,
    ) -> Poll<Result<bool, Fault>> {
        let is_chunked = matches!(self.framing, Framing::Chunked(_));
        loop {
            if self.granted > 0 {
                let ends = self.framing.is_done() && !is_chunked && may_end;
                let sent = ready!(poll_send(cx, stream, held, (self.granted, ends)))?;
                self.granted -= sent;
                if ends && self.granted == 0 {
                    return Poll::Ready(Ok(true));
                }
                continue;
            }
            if self.framing.is_done() {
                if !may_end {
                    return Poll::Pending;
                }
                let trailers = match is_chunked {
                    true => self.trailers.with_fields(fields).flatten(),
                    false => Some(HeaderMap::new()),
                };
                let ended = trailers.ok_or(Fault::Inside);
                return Poll::Ready(
                    ended
                        .and_then(|trailers| end(stream, trailers))
                        .map(|()| true),
                );
            }
            if held.is_empty() {
                return Poll::Ready(Ok(false));
            }
            let run = self.framing.run(held);
            let Ok(Some(run)) = run else {
                return Poll::Ready(Err(Fault::Inside));
            };
            if is_chunked {
                self.trailers.see(&held[..run.length], run.is_data);
            }
            match run.is_data {
                true => self.granted = run.length,
                false => held.advance(run.length),
            }
        }
    }
}

/// Passes what comes on a stream into the pipe, in chunks or as it is, and adds to `brought` how much that was; ready at its
/// end, with the trailers. `None`: nobody reads the pipe any more.
pub(super) fn poll_in(
    cx: &mut Context<'_>,
    body: &mut RecvStream,
    far: &mut FarEnd,
    is_chunked: bool,
    brought: &mut u64,
) -> Poll<Result<Option<HeaderMap>, h2::Error>> {
    loop {
        if ready!(far.poll_room(cx)).is_err() {
            return Poll::Ready(Ok(None));
        }
        let Some(bytes) = ready!(body.poll_data(cx)).transpose()? else {
            let trailers = ready!(body.poll_trailers(cx))?;
            return Poll::Ready(Ok(Some(trailers.unwrap_or_default())));
        };
        *brought += bytes.len() as u64;
        // It is held in the pipe from now on, which has a bound of its own.
        body.flow_control().release_capacity(bytes.len())?;
        if !is_chunked {
            far.push(bytes);
        } else if !bytes.is_empty() {
            far.push(format!("{:x}\r\n", bytes.len()).into());
            far.push(bytes);
            far.push(Bytes::from_static(b"\r\n"));
        }
    }
}

/// The end of a chunked body, with trailers. Those that say where a message ends or belongs have no place there (RFC 9110
/// section 6.5.1).
pub(super) fn last_chunk(trailers: &HeaderMap) -> Bytes {
    let mut bytes = b"0\r\n".to_vec();
    for (name, value) in trailers {
        if !matches!(
            name.as_str(),
            "content-length" | "host" | "transfer-encoding"
        ) {
            bytes.extend_from_slice(name.as_str().as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.into()
}
