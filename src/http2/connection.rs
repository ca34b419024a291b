//! A client's connection of HTTP/2: its bounds, and the streams that it opens.

use std::cell::Cell;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::{Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::request::{Translated, translate};
use super::serving::Serving;
use crate::http1::HEAD_BYTES_MAX;
use crate::tls::{Pipe, Stream};

/// What a client may send on one stream before it is taken further.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// The same for all streams of a connection together.
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// What is encrypted or on its way of one stream's answer.
const SEND_BYTES_MAX: usize = 128 * 1024;
/// Streams that the client has reset, and that are still remembered; and those among them that nobody has looked at.
const RESET_STREAMS_MAX: usize = 64;
/// Streams that the client broke so that they were reset. More end the connection: a client does not err that often.
const ERRORS_MAX: usize = 256;

/// What a connection may have.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Streams at once.
    pub streams_max: u32,
    /// How long a client may take nothing of an answer.
    pub stall_max: Duration,
}

/// A socket of which the first bytes were read already, and that notes since when its peer takes nothing.
#[derive(Debug)]
pub struct Rewound {
    read: Bytes,
    socket: Stream,
    blocked: Rc<Cell<Option<Instant>>>,
}

impl Rewound {
    /// A socket of which these bytes were read. What comes out of the cell is since when it takes nothing.
    pub fn new(read: Vec<u8>, socket: Stream) -> (Self, Rc<Cell<Option<Instant>>>) {
        let blocked = Rc::<Cell<Option<Instant>>>::default();
        let rewound = Self {
            read: read.into(),
            socket,
            blocked: blocked.clone(),
        };
        (rewound, blocked)
    }

    fn note<T>(&self, written: Poll<T>) -> Poll<T> {
        match written {
            Poll::Ready(_) => self.blocked.set(None),
            Poll::Pending if self.blocked.get().is_none() => self.blocked.set(Some(Instant::now())),
            Poll::Pending => {}
        }
        written
    }
}

impl AsyncRead for Rewound {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            return Pin::new(&mut self.socket).poll_read(cx, buffer);
        }
        let count = self.read.len().min(buffer.remaining());
        buffer.put_slice(&self.read[..count]);
        self.read.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, slices);
        self.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// Reads the preface and sends our settings (RFC 9113 section 3.4). The caller bounds its time.
///
/// # Errors
/// When the peer does not speak HTTP/2, or goes.
pub async fn handshake(socket: Rewound, limits: Limits) -> io::Result<Served> {
    let connection = Builder::new()
        .max_concurrent_streams(limits.streams_max)
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(u32::try_from(HEAD_BYTES_MAX).unwrap_or(u32::MAX))
        .max_send_buffer_size(SEND_BYTES_MAX)
        .max_concurrent_reset_streams(RESET_STREAMS_MAX)
        .max_pending_accept_reset_streams(RESET_STREAMS_MAX)
        .max_local_error_reset_streams(Some(ERRORS_MAX))
        .enable_connect_protocol()
        .handshake(socket)
        .await
        .map_err(io::Error::other)?;
    Ok(Served { connection, limits })
}

/// A connection after its handshake. It has to be polled for its streams to go on.
pub struct Served {
    connection: Connection<Rewound, Bytes>,
    limits: Limits,
}

impl Served {
    /// Waits for a request; `None` when there will be none: the connection is closed.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Incoming>> {
        loop {
            match ready!(pin!(self.connection.accept()).poll(cx)) {
                Some(Ok((request, respond))) => {
                    let limits = self.limits;
                    return Poll::Ready(Some(Incoming {
                        request,
                        respond,
                        limits,
                    }));
                }
                // One stream's matter, or the end of all: the next look tells.
                Some(Err(error)) if error.is_reset() => {}
                Some(Err(error)) => {
                    tracing::debug!(%error, "an HTTP/2 connection ended with an error");
                    return Poll::Ready(None);
                }
                None => return Poll::Ready(None),
            }
        }
    }

    /// Takes no further streams, and ends with the last one (section 6.8).
    pub fn wind_down(&mut self) {
        self.connection.graceful_shutdown();
    }

    /// Ends at once, and says that the client asks too much.
    pub fn end_flood(&mut self) {
        self.connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
    }
}

/// A request that has come.
pub struct Incoming {
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    limits: Limits,
}

impl Incoming {
    /// Begins to carry it: whoever has the pipe serves it as a connection of HTTP/1. `None` when there is nothing to
    /// serve; the client was told.
    pub fn begin(self, is_encrypted: bool) -> Option<(Pipe, Serving)> {
        let Self {
            request,
            mut respond,
            limits,
        } = self;
        let (parts, body) = request.into_parts();
        let has_body = !body.is_end_stream();
        let translated = match translate(&parts, has_body) {
            Ok(Translated::UnknownProtocol) => {
                let mut response = Response::new(());
                *response.status_mut() = StatusCode::NOT_IMPLEMENTED;
                // A client that has gone needs no answer.
                let _ = respond.send_response(response, true);
                return None;
            }
            Ok(translated) => translated,
            Err(_) => {
                respond.send_reset(Reason::PROTOCOL_ERROR);
                return None;
            }
        };
        let (pipe, far) = Pipe::new(is_encrypted);
        let is_head = parts.method == http::Method::HEAD;
        let serving = Serving::new(translated, is_head, far, (body, respond), limits.stall_max);
        Some((pipe, serving))
    }
}
