//! A connection to a server that speaks HTTP/2: many requests at once, each through a pipe of its own.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, Connection, SendRequest};
use h2::{Ping, PingPong};
use http::uri::{Authority, Scheme};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::asking::Asking;
use super::{CONNECTION_WINDOW_BYTES, SEND_BYTES_MAX, STREAM_WINDOW_BYTES};
use crate::http1::HEAD_BYTES_MAX;
use crate::tls::{Pipe, Stream};

/// Requests at once on one connection, where the server allows as many.
const STREAMS_MAX: usize = 128;
/// What stands for it until the server has said how many: no number that a server says by chance.
const STREAMS_UNKNOWN: usize = usize::MAX - 1;
/// How long a connection is kept that carries nothing.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// How often it is looked after.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// How long a server may take to answer a ping.
const PONG_TIME_MAX: Duration = Duration::from_secs(10);
/// The least time between two pings that a doubt is the reason for: servers of gRPC count pings, and send away who sends
/// too many.
const DOUBT_INTERVAL: Duration = Duration::from_secs(30);
/// Between pings of a connection that carries something: above the five minutes that servers of gRPC bear by default.
const PING_INTERVAL: Duration = Duration::from_secs(310);

/// What a connection's requests share with whoever drives it.
#[derive(Debug, Default)]
pub(super) struct State {
    streams: AtomicUsize,
    is_over: AtomicBool,
    is_doubted: AtomicBool,
    /// Told when another request may find room.
    freed: Arc<Notify>,
    /// Whom the first request asked. As a rule all ask the same, which need not be read again.
    authority: OnceLock<Authority>,
}

impl State {
    /// A stream has ended.
    pub(super) fn end_stream(&self) {
        self.streams.fetch_sub(1, Relaxed);
        self.freed.notify_one();
    }

    /// A request was given up that the server had not answered: the connection gets no more of them until it shows that it
    /// lives.
    pub(super) fn doubt(&self) {
        self.is_doubted.store(true, Relaxed);
    }

    /// The authority of this text; nothing when it is none.
    pub(super) fn authority(&self, text: &str) -> Option<Authority> {
        match self.authority.get() {
            Some(known) if known.as_str() == text => Some(known.clone()),
            Some(_) => text.parse().ok(),
            None => {
                let read: Authority = text.parse().ok()?;
                // Whoever was first has set it.
                let _ = self.authority.set(read.clone());
                Some(read)
            }
        }
    }

    /// It does.
    fn trust(&self) {
        if self.is_doubted.load(Relaxed) {
            self.is_doubted.store(false, Relaxed);
            self.freed.notify_one();
        }
    }
}

/// A socket from which whatever comes takes doubts away.
struct Heard {
    socket: Stream,
    state: Arc<State>,
}

impl AsyncRead for Heard {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.socket).poll_read(cx, buffer);
        if read.is_ready() {
            self.state.trust();
        }
        read
    }
}

impl AsyncWrite for Heard {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, slices)
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

fn closed() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

/// Begins to speak HTTP/2, until the server has said what it takes (its `SETTINGS`, RFC 9113 section 3.4). What drives the
/// connection has to run for as long as it is used. `freed` is told of each request that ends: who waits for room looks again.
///
/// # Errors
/// When the socket takes nothing, or the server does not speak HTTP/2.
pub async fn begin(
    socket: Stream,
    is_encrypted: bool,
    freed: Arc<Notify>,
) -> io::Result<(Asker, impl Future<Output = ()> + Send)> {
    let state = Arc::new(State {
        freed,
        ..State::default()
    });
    let socket = Heard {
        socket,
        state: state.clone(),
    };
    let (send, mut connection) = Builder::new()
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(u32::try_from(HEAD_BYTES_MAX).unwrap_or(u32::MAX))
        .max_send_buffer_size(SEND_BYTES_MAX)
        .initial_max_send_streams(STREAMS_UNKNOWN)
        .handshake(socket)
        .await
        .map_err(io::Error::other)?;
    // Who asks for more at once than the server takes is refused.
    poll_fn(|cx| match Pin::new(&mut connection).poll(cx) {
        Poll::Ready(end) => Poll::Ready(Err(end.err().map_or_else(closed, io::Error::other))),
        Poll::Pending if send.current_max_send_streams() == STREAMS_UNKNOWN => Poll::Pending,
        Poll::Pending => Poll::Ready(Ok(())),
    })
    .await?;
    let asker = Asker {
        send,
        state: state.clone(),
        scheme: match is_encrypted {
            true => Scheme::HTTPS,
            false => Scheme::HTTP,
        },
    };
    Ok((asker, drive(connection, state)))
}

/// Makes requests on one connection.
#[derive(Debug)]
pub struct Asker {
    send: SendRequest<Bytes>,
    state: Arc<State>,
    scheme: Scheme,
}

impl Asker {
    /// Whether it has come to its end, or to no good.
    pub fn is_over(&mut self) -> bool {
        let mut nobody = Context::from_waker(Waker::noop());
        let is_open = matches!(self.send.poll_ready(&mut nobody), Poll::Ready(Ok(())));
        self.state.is_over.load(Relaxed) || !is_open
    }

    /// Whether it takes another request now.
    pub fn has_room(&self) -> bool {
        let most = self.send.current_max_send_streams().min(STREAMS_MAX);
        !self.state.is_doubted.load(Relaxed) && self.state.streams.load(Relaxed) < most
    }

    /// What one request is written to as HTTP/1, and its answer read from.
    pub fn open(&self) -> Stream {
        self.state.streams.fetch_add(1, Relaxed);
        let (pipe, far) = Pipe::driven();
        let asking = Asking::new(
            far,
            self.send.clone(),
            self.scheme.clone(),
            self.state.clone(),
        );
        pipe.driven_by(Box::pin(asking)).into()
    }
}

/// Carries the connection's bytes, and ends it when it is idle or dead. Its requests fail then.
async fn drive(mut connection: Connection<Heard, Bytes>, state: Arc<State>) {
    let mut ping = connection.ping_pong();
    let mut pulse = Pulse::new(Instant::now());
    let mut looks = interval(LOOK_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let end = poll_fn(|cx| {
        if let Poll::Ready(end) = Pin::new(&mut connection).poll(cx) {
            return Poll::Ready(end.err());
        }
        if let Some(ping) = &mut ping
            && pulse.asked.is_some()
            && ping.poll_pong(cx).is_ready()
        {
            pulse.asked = None;
        }
        while let Poll::Ready(now) = looks.poll_tick(cx) {
            match pulse.look(now, &state) {
                Verdict::Keep => {}
                Verdict::Ask => pulse.note_asked(now, send(&mut ping)),
                Verdict::End => return Poll::Ready(None),
            }
        }
        Poll::Pending
    });
    if let Some(error) = end.await {
        tracing::debug!(%error, "an HTTP/2 connection to a server ended");
    }
    state.is_over.store(true, Relaxed);
}

fn send(ping: &mut Option<PingPong>) -> bool {
    let sent = ping.as_mut().map(|ping| ping.send_ping(Ping::opaque()));
    sent.is_some_and(|sent| sent.is_ok())
}

/// Whether a connection lives. Time is an argument.
#[derive(Debug)]
struct Pulse {
    /// A ping went out then, and is not answered.
    asked: Option<Instant>,
    /// When the last one did.
    last: Option<Instant>,
    began: Instant,
    /// When there was a stream.
    busy: Instant,
}

/// What a look at a connection comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It goes on.
    Keep,
    /// It goes on, and is to be pinged.
    Ask,
    /// It ends: nobody needs it, or its server is gone.
    End,
}

impl Pulse {
    fn new(now: Instant) -> Self {
        Self {
            asked: None,
            last: None,
            began: now,
            busy: now,
        }
    }

    fn look(&mut self, now: Instant, state: &State) -> Verdict {
        let is_busy = state.streams.load(Relaxed) > 0;
        if is_busy {
            self.busy = now;
        }
        let is_silent = self.asked.is_some_and(|asked| now - asked >= PONG_TIME_MAX);
        if is_silent || now - self.busy >= IDLE_MAX {
            return Verdict::End;
        }
        let is_due = match state.is_doubted.load(Relaxed) {
            true => self.last.is_none_or(|last| now - last >= DOUBT_INTERVAL),
            false => is_busy && now - self.last.unwrap_or(self.began) >= PING_INTERVAL,
        };
        match is_due && self.asked.is_none() {
            true => Verdict::Ask,
            false => Verdict::Keep,
        }
    }

    fn note_asked(&mut self, now: Instant, is_sent: bool) {
        if is_sent {
            self.asked = Some(now);
            self.last = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks as often as a connection is looked at, until one comes to something else; when that was, in seconds.
    fn first_other(pulse: &mut Pulse, state: &State, from: Instant) -> (u64, Verdict) {
        let mut now = from;
        loop {
            match pulse.look(now, state) {
                Verdict::Keep => now += LOOK_INTERVAL,
                other => return ((now - from).as_secs(), other),
            }
        }
    }

    fn begun() -> (Pulse, State, Instant) {
        let now = Instant::now();
        (Pulse::new(now), State::default(), now)
    }

    #[test]
    fn one_that_carries_nothing_ends_after_a_while() {
        let (mut pulse, state, now) = begun();
        let ended = first_other(&mut pulse, &state, now);
        assert_eq!(ended, (IDLE_MAX.as_secs(), Verdict::End));
    }

    #[test]
    fn a_long_request_is_pinged_for_and_goes_on_as_long_as_that_is_answered() {
        let (mut pulse, state, mut now) = begun();
        state.streams.store(1, Relaxed);
        for _ in 0..3 {
            let asked = first_other(&mut pulse, &state, now);
            assert_eq!(asked, (PING_INTERVAL.as_secs(), Verdict::Ask));
            now += PING_INTERVAL;
            pulse.note_asked(now, true);
            pulse.asked = None;
        }
        pulse.note_asked(now, true);
        let ended = first_other(&mut pulse, &state, now);
        assert_eq!(ended, (PONG_TIME_MAX.as_secs(), Verdict::End), "silence");
    }

    #[test]
    fn a_doubt_is_asked_about_at_once_but_not_too_often() {
        let (mut pulse, state, now) = begun();
        state.streams.store(1, Relaxed);
        state.doubt();
        assert_eq!(pulse.look(now, &state), Verdict::Ask);
        pulse.note_asked(now, true);
        pulse.asked = None;
        let again = first_other(&mut pulse, &state, now);
        assert_eq!(again, (DOUBT_INTERVAL.as_secs(), Verdict::Ask));
    }

    #[test]
    fn a_ping_that_could_not_be_sent_is_not_waited_for() {
        let (mut pulse, state, now) = begun();
        state.streams.store(1, Relaxed);
        state.doubt();
        pulse.note_asked(now, false);
        assert_eq!(pulse.look(now + 2 * PONG_TIME_MAX, &state), Verdict::Ask);
    }
}
