//! A socket of tokio's, plain or encrypted, or what stands for one.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustls::{IoState, ServerConnection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use super::{Layer, Pipe};

/// One connection. What is written to an encrypted one is on its way only after a flush; reading flushes too, so that
/// whoever waits for an answer need not think of it.
#[derive(Debug)]
pub enum Stream {
    /// As it is.
    Plain(TcpStream),
    /// Encrypted, after its handshake.
    Tls(Box<TlsStream<TcpStream>>),
    /// One stream of many over a connection that is somebody else's.
    Pipe(Pipe),
    /// Nobody's: what is written is gone, and nothing ever comes.
    Nobody,
}

impl Stream {
    /// Whether it is encrypted.
    pub fn is_encrypted(&self) -> bool {
        match self {
            Self::Tls(_) => true,
            Self::Pipe(pipe) => pipe.is_encrypted(),
            Self::Plain(_) | Self::Nobody => false,
        }
    }

    /// Whether its two ends agreed on HTTP/2 (ALPN, RFC 9113 section 3.2).
    pub fn is_http2(&self) -> bool {
        let protocol = match self {
            Self::Tls(stream) => stream.get_ref().1.alpn_protocol(),
            Self::Plain(_) | Self::Pipe(_) | Self::Nobody => None,
        };
        protocol == Some(b"h2")
    }

    /// Whether the other end, of which nothing more comes, has said so itself: over TLS whoever stands between may cut it
    /// off. Without encryption nobody can tell.
    pub fn is_ended(&mut self) -> bool {
        let ended = |state: Result<IoState, rustls::Error>| {
            state.is_ok_and(|state| state.peer_has_closed())
        };
        match self {
            Self::Tls(stream) => match &mut **stream {
                TlsStream::Client(stream) => ended(stream.get_mut().1.process_new_packets()),
                TlsStream::Server(stream) => ended(stream.get_mut().1.process_new_packets()),
            },
            Self::Plain(_) | Self::Pipe(_) | Self::Nobody => true,
        }
    }

    /// The socket's other end.
    ///
    /// # Errors
    /// When it has gone.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Plain(socket) => socket.peer_addr(),
            Self::Tls(stream) => stream.get_ref().0.peer_addr(),
            Self::Pipe(_) | Self::Nobody => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Takes the socket out of tokio, with the layer that goes on over it.
    ///
    /// # Errors
    /// When the system refuses; and for a connection that we began, whose side is no server's.
    pub fn into_std(self) -> io::Result<(std::net::TcpStream, Option<Layer>)> {
        match self {
            Self::Plain(socket) => Ok((socket.into_std()?, None)),
            Self::Tls(stream) => match *stream {
                TlsStream::Server(stream) => {
                    let (socket, session): (TcpStream, ServerConnection) = stream.into_inner();
                    Ok((socket.into_std()?, Some(Layer::new(session))))
                }
                TlsStream::Client(_) => Err(io::ErrorKind::Unsupported.into()),
            },
            Self::Pipe(pipe) => Ok((pipe.into_std()?, None)),
            Self::Nobody => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

impl From<TcpStream> for Stream {
    fn from(socket: TcpStream) -> Self {
        Self::Plain(socket)
    }
}

impl From<Pipe> for Stream {
    fn from(pipe: Pipe) -> Self {
        Self::Pipe(pipe)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buffer),
            Self::Tls(stream) => {
                // A failure to write shows in the reading as well.
                let _ = Pin::new(&mut **stream).poll_flush(cx);
                match Pin::new(&mut **stream).poll_read(cx, buffer) {
                    // Cut without a farewell: HTTP knows by itself whether something is missing (RFC 9112 section 9.8), but for
                    // a body that the connection's end ends, whose reader asks `is_ended`.
                    Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                        Poll::Ready(Ok(()))
                    }
                    read => read,
                }
            }
            Self::Pipe(pipe) => Pin::new(pipe).poll_read(cx, buffer),
            Self::Nobody => Poll::Pending,
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_write(cx, bytes),
            Self::Pipe(pipe) => Pin::new(pipe).poll_write(cx, bytes),
            Self::Nobody => Poll::Ready(Ok(bytes.len())),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write_vectored(cx, slices),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_write_vectored(cx, slices),
            Self::Pipe(pipe) => Pin::new(pipe).poll_write_vectored(cx, slices),
            Self::Nobody => Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum())),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(_) | Self::Nobody => Poll::Ready(Ok(())),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_flush(cx),
            Self::Pipe(pipe) => Pin::new(pipe).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_shutdown(cx),
            Self::Pipe(pipe) => Pin::new(pipe).poll_shutdown(cx),
            Self::Nobody => Poll::Ready(Ok(())),
        }
    }
}
