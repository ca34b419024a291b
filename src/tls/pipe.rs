//! A connection without a socket: one stream of many, as whoever serves or asks over HTTP/1 sees it.
//!
//! Two ends: the [`Pipe`] is read and written as a socket is, and the [`FarEnd`] carries its bytes elsewhere. Each way
//! holds at most [`HELD_BYTES_MAX`] and one piece. When a worker wants a descriptor ([`Pipe::into_std`]), the two go on
//! over a pair of sockets, and the far end notices nothing.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;

/// How much one way holds before its writer has to wait.
const HELD_BYTES_MAX: usize = 64 * 1024;
/// What one read of a pair of sockets takes.
const READ_BYTES: usize = 16 * 1024;

/// How one way ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// In good order, behind what is held.
    Done,
    /// Whoever wrote is gone; nothing says that what came is whole.
    Cut(ErrorKind),
}

#[derive(Debug, Default)]
struct Shared {
    /// Towards the pipe.
    inward: VecDeque<Bytes>,
    inward_bytes: usize,
    inward_end: Option<End>,
    /// Towards the far end.
    outward: BytesMut,
    outward_end: Option<End>,
    /// The far end, or the pipe, is gone: it takes nothing.
    is_far_gone: bool,
    is_near_gone: bool,
    /// The far end goes on with this, or has begun to.
    handed: Option<UnixStream>,
    is_handed: bool,
    /// The pipe polls whoever carries its bytes, so that nobody is to be woken.
    is_driven: bool,
    /// Of the pipe's reader, its writer, and the far end.
    reader: Option<Waker>,
    writer: Option<Waker>,
    far: Option<Waker>,
}

impl Shared {
    fn wake_far(&mut self) {
        self.far.take().into_iter().for_each(Waker::wake);
    }

    fn wake_near(&mut self) {
        let wakers = self.reader.take().into_iter().chain(self.writer.take());
        wakers.for_each(Waker::wake);
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps a waker that is there already, if it wakes the same task; none where nobody is to be woken.
fn know(place: &mut Option<Waker>, is_driven: bool, waker: &Waker) {
    if !is_driven && !place.as_ref().is_some_and(|known| known.will_wake(waker)) {
        *place = Some(waker.clone());
    }
}

/// Whoever carries the bytes of a pipe.
type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The end that is used as a socket. Dropped before its shutdown, it cuts.
pub struct Pipe {
    shared: Arc<Mutex<Shared>>,
    is_encrypted: bool,
    /// Polled whenever the pipe is, until it has ended.
    driver: Option<Driver>,
}

impl std::fmt::Debug for Pipe {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Pipe")
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}

impl Pipe {
    /// Both ends. `is_encrypted` says whether TLS carries what the far end stands for.
    pub fn new(is_encrypted: bool) -> (Self, FarEnd) {
        let shared = Arc::<Mutex<Shared>>::default();
        let near = Self {
            shared: shared.clone(),
            is_encrypted,
            driver: None,
        };
        let socket = None;
        (near, FarEnd { shared, socket })
    }

    /// Both ends, where the far one is polled by whoever polls the pipe ([`Pipe::driven_by`]): no task of its own, and
    /// nothing is woken for another's sake. It cannot become a descriptor.
    pub fn driven() -> (Self, FarEnd) {
        let (near, far) = Self::new(false);
        lock(&near.shared).is_driven = true;
        (near, far)
    }

    /// The same with what is polled whenever it is: when it is read, written, flushed or shut down. What comes of that is
    /// read at once.
    #[must_use]
    pub fn driven_by(mut self, driver: Driver) -> Self {
        self.driver = Some(driver);
        self
    }

    fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(driver) = &mut self.driver
            && driver.as_mut().poll(cx).is_ready()
        {
            self.driver = None;
        }
    }

    /// Whether TLS carries it.
    pub fn is_encrypted(&self) -> bool {
        self.is_encrypted
    }

    /// A descriptor in place of the pipe: one of a pair of sockets of the system's, whose other end the far end has.
    ///
    /// # Errors
    /// When the system has no more descriptors, and for a pipe that is driven.
    pub fn into_std(self) -> io::Result<std::net::TcpStream> {
        if self.driver.is_some() {
            return Err(ErrorKind::Unsupported.into());
        }
        let (near, far) = std::os::unix::net::UnixStream::pair()?;
        near.set_nonblocking(true)?;
        far.set_nonblocking(true)?;
        let mut shared = lock(&self.shared);
        shared.handed = Some(UnixStream::from_std(far)?);
        shared.is_handed = true;
        shared.wake_far();
        drop(shared);
        // What is done with it (read, write, shut down, poll) is the same for any stream socket.
        Ok(OwnedFd::from(near).into())
    }

    fn take(&self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let shared = &mut *lock(&self.shared);
        let before = buffer.filled().len();
        while buffer.remaining() > 0
            && let Some(piece) = shared.inward.front_mut()
        {
            let count = piece.len().min(buffer.remaining());
            buffer.put_slice(&piece[..count]);
            piece.advance(count);
            if piece.is_empty() {
                shared.inward.pop_front();
            }
            shared.inward_bytes -= count;
        }
        if buffer.filled().len() > before {
            shared.wake_far();
            return Poll::Ready(Ok(()));
        }
        match shared.inward_end {
            Some(End::Done) => Poll::Ready(Ok(())),
            Some(End::Cut(kind)) => Poll::Ready(Err(kind.into())),
            None => {
                know(&mut shared.reader, shared.is_driven, cx.waker());
                Poll::Pending
            }
        }
    }

    fn give(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let shared = &mut *lock(&self.shared);
        if shared.is_far_gone {
            return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
        }
        let room = HELD_BYTES_MAX.saturating_sub(shared.outward.len());
        if room == 0 {
            know(&mut shared.writer, shared.is_driven, cx.waker());
            return Poll::Pending;
        }
        let count = room.min(bytes.len());
        shared.outward.extend_from_slice(&bytes[..count]);
        shared.wake_far();
        Poll::Ready(Ok(count))
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let mut shared = lock(&self.shared);
        if !shared.is_handed {
            let cut = End::Cut(ErrorKind::ConnectionReset);
            shared.outward_end.get_or_insert(cut);
            shared.is_near_gone = true;
            shared.inward.clear();
            shared.wake_far();
        }
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.drive(cx);
        self.take(cx, buffer)
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let given = self.give(cx, bytes);
        if given.is_ready() || self.driver.is_none() {
            return given;
        }
        self.drive(cx);
        self.give(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.drive(cx);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut shared = lock(&self.shared);
        shared.outward_end.get_or_insert(End::Done);
        shared.wake_far();
        drop(shared);
        self.drive(cx);
        Poll::Ready(Ok(()))
    }
}

/// What came out of a pipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pulled {
    /// These bytes.
    Bytes(Bytes),
    /// Its end, in good order.
    End,
    /// It was cut.
    Cut,
}

/// The end that carries the bytes of a [`Pipe`] elsewhere. To be polled by one task. Dropped before [`FarEnd::end`], it
/// cuts.
#[derive(Debug)]
pub struct FarEnd {
    shared: Arc<Mutex<Shared>>,
    /// What the pipe became.
    socket: Option<Handed>,
}

#[derive(Debug)]
struct Handed {
    socket: UnixStream,
    /// What its reader has not taken yet.
    out: VecDeque<Bytes>,
}

impl Handed {
    fn poll_pull(&mut self, cx: &mut Context<'_>) -> Poll<Pulled> {
        // What waits for its reader goes on meanwhile; a failure to write shows in the reading as well.
        let _ = self.poll_flush(cx);
        loop {
            if ready!(self.socket.poll_read_ready(cx)).is_err() {
                return Poll::Ready(Pulled::Cut);
            }
            let mut bytes = BytesMut::with_capacity(READ_BYTES);
            match self.socket.try_read_buf(&mut bytes) {
                Ok(0) => return Poll::Ready(Pulled::End),
                Ok(count) if count < READ_BYTES / 4 => {
                    // Most are small, and may wait for long: not in a large buffer.
                    return Poll::Ready(Pulled::Bytes(Bytes::copy_from_slice(&bytes)));
                }
                Ok(_) => return Poll::Ready(Pulled::Bytes(bytes.freeze())),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return Poll::Ready(Pulled::Cut),
            }
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(piece) = self.out.front_mut() {
            ready!(self.socket.poll_write_ready(cx))?;
            match self.socket.try_write(piece) {
                Ok(count) => piece.advance(count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
            if piece.is_empty() {
                self.out.pop_front();
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl FarEnd {
    /// Takes what was written to the pipe; asked again after the end it says the same.
    pub fn poll_pull(&mut self, cx: &mut Context<'_>) -> Poll<Pulled> {
        if let Some(handed) = &mut self.socket {
            return handed.poll_pull(cx);
        }
        let mut shared = lock(&self.shared);
        if !shared.outward.is_empty() {
            let bytes = shared.outward.split().freeze();
            shared.writer.take().into_iter().for_each(Waker::wake);
            return Poll::Ready(Pulled::Bytes(bytes));
        }
        match (shared.outward_end, shared.handed.take()) {
            (Some(End::Done), _) => Poll::Ready(Pulled::End),
            (Some(End::Cut(_)), _) => Poll::Ready(Pulled::Cut),
            (None, Some(socket)) => {
                let out = std::mem::take(&mut shared.inward);
                drop(shared);
                let handed = self.socket.insert(Handed { socket, out });
                handed.poll_pull(cx)
            }
            (None, None) => {
                let shared = &mut *shared;
                know(&mut shared.far, shared.is_driven, cx.waker());
                Poll::Pending
            }
        }
    }

    /// Waits until the pipe takes another piece.
    ///
    /// # Errors
    /// When nobody reads it any more.
    pub fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(handed) = &mut self.socket {
            return handed.poll_flush(cx);
        }
        let mut shared = lock(&self.shared);
        if shared.is_near_gone {
            return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
        }
        if shared.inward_bytes < HELD_BYTES_MAX {
            return Poll::Ready(Ok(()));
        }
        let shared = &mut *shared;
        know(&mut shared.far, shared.is_driven, cx.waker());
        Poll::Pending
    }

    /// Gives the pipe's reader these bytes. Ask [`FarEnd::poll_room`] first.
    pub fn push(&mut self, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        if let Some(handed) = &mut self.socket {
            return handed.out.push_back(bytes);
        }
        let mut shared = lock(&self.shared);
        shared.inward_bytes += bytes.len();
        shared.inward.push_back(bytes);
        shared.reader.take().into_iter().for_each(Waker::wake);
    }

    /// Nothing more comes, behind what was pushed. A pair of sockets is flushed first: ask [`FarEnd::poll_room`].
    pub fn end(&mut self) {
        if let Some(handed) = &mut self.socket {
            let mut nobody = Context::from_waker(Waker::noop());
            // It is done at once, and a socket that is gone needs no shutdown.
            let _ = Pin::new(&mut handed.socket).poll_shutdown(&mut nobody);
            return;
        }
        let mut shared = lock(&self.shared);
        shared.inward_end.get_or_insert(End::Done);
        shared.reader.take().into_iter().for_each(Waker::wake);
    }

    /// Cuts, and says why to whoever reads.
    pub fn cut(&mut self, kind: ErrorKind) {
        let mut shared = lock(&self.shared);
        shared.inward_end.get_or_insert(End::Cut(kind));
    }
}

impl Drop for FarEnd {
    fn drop(&mut self) {
        let mut shared = lock(&self.shared);
        shared.is_far_gone = true;
        let cut = End::Cut(ErrorKind::ConnectionReset);
        shared.inward_end.get_or_insert(cut);
        shared.wake_near();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::io::{Read as _, Write as _};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    async fn pull(far: &mut FarEnd) -> Pulled {
        poll_fn(|cx| far.poll_pull(cx)).await
    }

    fn bytes(text: &'static str) -> Pulled {
        Pulled::Bytes(Bytes::from_static(text.as_bytes()))
    }

    #[tokio::test]
    async fn carries_both_ways_and_tells_an_end_from_a_cut() {
        let (mut near, mut far) = Pipe::new(false);
        near.write_all(b"out").await.expect("a far end");
        far.push(Bytes::from_static(b"in"));
        assert_eq!(pull(&mut far).await, bytes("out"));
        let mut buffer = [0; 2];
        near.read_exact(&mut buffer).await.expect("what was pushed");
        assert_eq!(&buffer, b"in");
        near.write_all(b"last").await.expect("a far end");
        near.shutdown().await.expect("a shutdown");
        drop(near);
        assert_eq!(pull(&mut far).await, bytes("last"));
        assert_eq!(pull(&mut far).await, Pulled::End);
        assert!(poll_fn(|cx| far.poll_room(cx)).await.is_err());

        let (mut near, mut far) = Pipe::new(false);
        near.write_all(b"half").await.expect("a far end");
        drop(near);
        assert_eq!(pull(&mut far).await, bytes("half"));
        assert_eq!(pull(&mut far).await, Pulled::Cut);

        let (mut near, mut far) = Pipe::new(false);
        far.cut(ErrorKind::ConnectionRefused);
        drop(far);
        let error = near.read_u8().await.expect_err("a cut");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert!(near.write_all(b"x").await.is_err());
    }

    #[tokio::test]
    async fn a_pipe_that_is_driven_needs_nobody_else() {
        let (near, mut far) = Pipe::driven();
        let echo = async move {
            loop {
                match poll_fn(|cx| far.poll_pull(cx)).await {
                    Pulled::Bytes(bytes) => {
                        poll_fn(|cx| far.poll_room(cx)).await.expect("a reader");
                        far.push(bytes);
                    }
                    _ => return far.end(),
                }
            }
        };
        let mut near = near.driven_by(Box::pin(echo));
        // More than it holds, so that each side has to wait for the other.
        let sent = vec![7; 5 * HELD_BYTES_MAX];
        let mut came = Vec::new();
        for piece in sent.chunks(HELD_BYTES_MAX + 1) {
            let (mut buffer, mut rest) = (vec![0; HELD_BYTES_MAX], piece);
            while !rest.is_empty() {
                let count = near.write(rest).await.expect("a far end");
                rest = &rest[count..];
                let count = near.read(&mut buffer).await.expect("what was written");
                came.extend_from_slice(&buffer[..count]);
            }
        }
        near.shutdown().await.expect("a shutdown");
        near.read_to_end(&mut came).await.expect("an end");
        assert_eq!(came, sent);
        let (driven, _far) = Pipe::driven();
        let driven = driven.driven_by(Box::pin(std::future::pending()));
        assert!(driven.into_std().is_err());
    }

    #[tokio::test]
    async fn holds_no_more_than_its_most_each_way() {
        let (mut near, mut far) = Pipe::new(false);
        let mut nobody = Context::from_waker(Waker::noop());
        let piece = vec![7; HELD_BYTES_MAX - 1];
        near.write_all(&piece).await.expect("room");
        let more = Pin::new(&mut near).poll_write(&mut nobody, &[1, 2, 3]);
        assert!(matches!(more, Poll::Ready(Ok(1))));
        assert!(
            Pin::new(&mut near)
                .poll_write(&mut nobody, &[2])
                .is_pending()
        );
        far.push(piece.into());
        assert!(far.poll_room(&mut nobody).is_ready());
        far.push(Bytes::from_static(b"x"));
        assert!(far.poll_room(&mut nobody).is_pending());
        let mut some = [0; 10];
        near.read_exact(&mut some).await.expect("what was pushed");
        assert!(far.poll_room(&mut nobody).is_ready());
    }

    #[tokio::test]
    async fn goes_on_over_a_pair_of_sockets_without_a_loss() {
        let (mut near, mut far) = Pipe::new(true);
        near.write_all(b"before ").await.expect("a far end");
        far.push(Bytes::from_static(b"unread "));
        let mut socket = near.into_std().expect("a pair of sockets");
        socket.write_all(b"after").expect("room");
        far.push(Bytes::from_static(b"and more"));
        assert_eq!(pull(&mut far).await, bytes("before "));
        assert_eq!(pull(&mut far).await, bytes("after"));
        poll_fn(|cx| far.poll_room(cx)).await.expect("a reader");
        far.end();
        socket.set_nonblocking(false).expect("a socket");
        let mut text = String::new();
        socket.read_to_string(&mut text).expect("what was pushed");
        assert_eq!(text, "unread and more");
        drop(socket);
        assert_eq!(pull(&mut far).await, Pulled::End);
    }
}
