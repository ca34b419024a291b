//! A client's connection of HTTP/2: its bounds, and the streams that it opens.

use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::{Request, Response, StatusCode};

use super::request::{Translated, translate};
use super::room::Room;
use super::serving::Serving;
use super::socket::{Rewound, Socket};
use super::{CONNECTION_WINDOW_BYTES, SEND_BYTES_MAX, STREAM_WINDOW_BYTES};
use crate::http1::HEAD_BYTES_MAX;
use crate::tls::Pipe;

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

/// Reads the preface, of which `read` came already, and sends our settings (RFC 9113 section 3.4). The caller bounds its
/// time.
///
/// # Errors
/// When the peer does not speak HTTP/2, or goes.
pub async fn handshake(socket: Socket, read: Vec<u8>, limits: Limits) -> io::Result<Served> {
    let read = read.into();
    let held = socket.clone();
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
        .handshake(Rewound { read, socket })
        .await
        .map_err(io::Error::other)?;
    held.hold();
    Ok(Served {
        connection,
        limits,
        room: Room::default(),
    })
}

/// A connection after its handshake. It has to be polled for its streams to go on, and [`Socket::poll_send`] after it.
pub struct Served {
    connection: Connection<Rewound, Bytes>,
    limits: Limits,
    room: Room,
}

impl Served {
    /// Waits for a request; `None` when there will be none: the connection is closed.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Incoming>> {
        self.room.grow(&mut self.connection);
        loop {
            match ready!(pin!(self.connection.accept()).poll(cx)) {
                Some(Ok((request, respond))) => {
                    return Poll::Ready(Some(Incoming {
                        request,
                        respond,
                        limits: self.limits,
                        room: self.room.clone(),
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
    room: Room,
}

impl Incoming {
    /// Begins to carry it: whoever has the pipe serves it as a connection of HTTP/1. `None` when there is nothing to
    /// serve; the client was told.
    pub fn begin(self, is_encrypted: bool) -> Option<(Pipe, Serving)> {
        let Self {
            request,
            mut respond,
            limits,
            room,
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
        let serving = Serving::new(translated, is_head, far, (body, respond), (limits, room));
        Some((pipe, serving))
    }
}
