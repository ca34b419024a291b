//! The socket of a client's connection: what its streams say in one turn goes out together.
//!
//! `h2` flushes after each frame of data, so it would make a system call for each stream's answer. Here frames wait for
//! the end of the turn ([`Socket::poll_send`]), or until there are as many bytes as are worth a call.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::tls::Stream;

/// Most bytes that wait for the end of a turn. A frame of data has 16 KiB, which cost less to copy than to write alone.
const WAITING_BYTES_MAX: usize = 64 * 1024;

thread_local! {
    /// What waits is written within its turn as a rule, so one buffer serves the connections of a worker.
    static BUFFER: RefCell<Vec<u8>> = RefCell::default();
}

/// The socket of a connection, which whoever serves it gets back at the end.
#[derive(Debug, Clone)]
pub struct Socket(Rc<Shared>);

#[derive(Debug)]
struct Shared {
    stream: RefCell<Stream>,
    waiting: RefCell<Waiting>,
    /// Whether what is flushed waits for the end of the turn all the same.
    is_held: Cell<bool>,
    /// Since when its peer takes nothing.
    blocked: Cell<Option<Instant>>,
}

/// What is to be written.
#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    sent: usize,
}

impl Waiting {
    fn left(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    fn put(&mut self, slices: &[IoSlice<'_>]) {
        if self.bytes.capacity() == 0 {
            BUFFER.with_borrow_mut(|buffer| std::mem::swap(&mut self.bytes, buffer));
        }
        self.bytes.drain(..std::mem::take(&mut self.sent));
        for slice in slices {
            self.bytes.extend_from_slice(slice);
        }
    }

    /// So many bytes are written. A connection that has nothing to say holds no buffer.
    fn consume(&mut self, count: usize) {
        self.sent += count;
        if self.sent == self.bytes.len() {
            self.bytes.clear();
            self.sent = 0;
            BUFFER.with_borrow_mut(|buffer| std::mem::swap(&mut self.bytes, buffer));
            self.bytes = Vec::new();
        }
    }
}

impl Socket {
    /// Shares a socket.
    pub fn new(stream: Stream) -> Self {
        Self(Rc::new(Shared {
            stream: RefCell::new(stream),
            waiting: RefCell::default(),
            is_held: Cell::new(false),
            blocked: Cell::new(None),
        }))
    }

    /// From now on a flush does nothing: whoever polls the connection calls [`Socket::poll_send`] at the end of its turn.
    pub(super) fn hold(&self) {
        self.0.is_held.set(true);
    }

    /// Since when its peer takes nothing of what is written.
    pub fn blocked_since(&self) -> Option<Instant> {
        self.0.blocked.get()
    }

    /// The socket, when nobody shares it any more.
    pub fn into_inner(self) -> Option<Stream> {
        Rc::into_inner(self.0).map(|shared| shared.stream.into_inner())
    }

    /// Writes what waits.
    ///
    /// # Errors
    /// When the socket fails.
    pub fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let waiting = &mut *self.0.waiting.borrow_mut();
        while !waiting.left().is_empty() {
            let written = self.poll_with(|socket| socket.poll_write(cx, waiting.left()));
            match ready!(self.note(written))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => waiting.consume(count),
            }
        }
        self.poll_with(|socket| socket.poll_flush(cx))
    }

    /// Takes the bytes of a frame: to write them later, or with what waits.
    fn poll_take(&self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let count: usize = slices.iter().map(|slice| slice.len()).sum();
        let waiting = self.0.waiting.borrow().left().len();
        if waiting + count > WAITING_BYTES_MAX {
            ready!(self.poll_send(cx))?;
        }
        self.0.waiting.borrow_mut().put(slices);
        Poll::Ready(Ok(count))
    }

    fn poll_with<T>(&self, poll: impl FnOnce(Pin<&mut Stream>) -> Poll<T>) -> Poll<T> {
        poll(Pin::new(&mut *self.0.stream.borrow_mut()))
    }

    fn note<T>(&self, written: Poll<T>) -> Poll<T> {
        let blocked = &self.0.blocked;
        match written {
            Poll::Ready(_) => blocked.set(None),
            Poll::Pending if blocked.get().is_none() => blocked.set(Some(Instant::now())),
            Poll::Pending => {}
        }
        written
    }
}

/// The socket as `h2` sees it. The first bytes of it were read already.
#[derive(Debug)]
pub(super) struct Rewound {
    pub(super) read: Bytes,
    pub(super) socket: Socket,
}

impl AsyncRead for Rewound {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            return self.socket.poll_with(|socket| socket.poll_read(cx, buffer));
        }
        let count = self.read.len().min(buffer.remaining());
        buffer.put_slice(&self.read[..count]);
        self.read.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.socket.poll_take(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.socket.poll_take(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.socket.0.is_held.get() {
            true => Poll::Ready(Ok(())),
            false => self.socket.poll_send(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.socket.poll_send(cx))?;
        self.socket.poll_with(|socket| socket.poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    use tokio::io::AsyncReadExt as _;

    use crate::tls::{FarEnd, Pipe, Pulled};

    fn pulled(far: &mut FarEnd) -> Option<usize> {
        let mut nobody = Context::from_waker(Waker::noop());
        match far.poll_pull(&mut nobody) {
            Poll::Ready(Pulled::Bytes(bytes)) => Some(bytes.len()),
            _ => None,
        }
    }

    fn pair() -> (Rewound, Socket, FarEnd) {
        let (near, far) = Pipe::new(false);
        let socket = Socket::new(near.into());
        let read = Bytes::from_static(b"first");
        let rewound = Rewound {
            read,
            socket: socket.clone(),
        };
        (rewound, socket, far)
    }

    fn write(rewound: &mut Rewound, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut nobody = Context::from_waker(Waker::noop());
        Pin::new(rewound).poll_write(&mut nobody, bytes)
    }

    #[test]
    fn frames_wait_for_the_end_of_the_turn_once_they_are_held() {
        let (mut rewound, socket, mut far) = pair();
        let mut nobody = Context::from_waker(Waker::noop());
        assert!(write(&mut rewound, b"settings").is_ready());
        assert!(Pin::new(&mut rewound).poll_flush(&mut nobody).is_ready());
        assert_eq!(pulled(&mut far), Some(8), "nothing is held yet");
        socket.hold();
        for frame in [b"one".as_slice(), b"and two"] {
            assert!(write(&mut rewound, frame).is_ready());
            assert!(Pin::new(&mut rewound).poll_flush(&mut nobody).is_ready());
        }
        assert_eq!(pulled(&mut far), None);
        assert!(socket.poll_send(&mut nobody).is_ready());
        assert_eq!(pulled(&mut far), Some(10), "in one piece");
        assert!(write(&mut rewound, b"bye").is_ready());
        assert!(Pin::new(&mut rewound).poll_shutdown(&mut nobody).is_ready());
        assert_eq!(pulled(&mut far), Some(3));
    }

    #[test]
    fn takes_no_more_than_its_most_while_the_peer_takes_nothing() {
        let (mut rewound, socket, mut far) = pair();
        socket.hold();
        let frame = vec![7; 16 * 1024];
        // What the pipe holds, and what waits.
        let taken = (0..100).take_while(|_| write(&mut rewound, &frame).is_ready());
        assert_eq!(taken.count() * frame.len(), 64 * 1024 + WAITING_BYTES_MAX);
        assert!(socket.blocked_since().is_some());
        let mut total = 0;
        let mut nobody = Context::from_waker(Waker::noop());
        while let Some(count) = pulled(&mut far) {
            total += count;
            assert!(socket.poll_send(&mut nobody).is_ready());
        }
        assert_eq!(total, 64 * 1024 + WAITING_BYTES_MAX);
        assert!(socket.blocked_since().is_none());
        assert!(write(&mut rewound, &frame).is_ready());
    }

    #[tokio::test]
    async fn what_was_read_before_comes_first() {
        let (mut rewound, _, mut far) = pair();
        far.push(Bytes::from_static(b" second"));
        let mut text = [0; 12];
        rewound.read_exact(&mut text).await.expect("what was sent");
        assert_eq!(&text, b"first second");
    }
}
