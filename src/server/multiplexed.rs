//! One HTTP/2 connection's life: each of its streams is served as a connection of HTTP/1 is, by the same code, over a
//! pipe.
//!
//! A stream has a place among the connections of the process as long as it lasts, like a connection of its own: it may
//! become one of the worker's. Bounded in time: a connection without a stream as one between two requests of HTTP/1, and
//! one whose peer takes nothing as one that takes none of its answer.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::task::spawn_local;
use tokio::time::{Instant, Sleep, sleep, timeout};

use super::answer::Refusal;
use super::local::{Local, Seat};
use super::place::Place;
use super::{Caller, Worker, connection, linger};
use crate::http2::{Carried, Incoming, Served, Socket, handshake};
use crate::model::HandshakePermit;
use crate::telemetry::metrics;
use crate::tls::{Pipe, Stream};

/// How long a connection may be without a stream: as long as one of HTTP/1 between two requests.
const IDLE_MAX: Duration = Duration::from_secs(75);
/// The same when it was told to end: for as long as the client may take to hear of it.
const FAREWELL_MAX: Duration = Duration::from_secs(5);
/// How long it may take to end once it was told to, when it has no stream any more.
const LAST_WORDS_MAX: Duration = Duration::from_secs(1);
/// Requests that a client may give up before they are answered, beyond those that it lets be answered, until its
/// connection is ended: opening and resetting streams in a row costs it nothing, and us a request each
/// (CVE-2023-44487).
const GIVEN_UP_MAX: u32 = 256;
/// In this time the count of those falls by [`GIVEN_UP_FORGIVEN`].
const FORGIVING_TIME: Duration = Duration::from_secs(1);
const GIVEN_UP_FORGIVEN: u32 = 32;

/// Serves a socket, of which `read` has been read, until HTTP/2 is done with it.
pub(super) async fn serve<W: Worker>(
    local: Rc<Local<W>>,
    (socket, read): (Stream, Vec<u8>),
    caller: Caller,
    place: Place,
    first: Option<HandshakePermit>,
) {
    let mut seat = Seat::take(&local);
    let socket = Socket::new(socket);
    let shaking = Box::pin(handshake(socket.clone(), read, local.http2));
    let served = match timeout(place.header_timeout(&local), shaking).await {
        Ok(Ok(served)) => served,
        Ok(Err(error)) => {
            tracing::debug!(%error, "an HTTP/2 connection failed at its beginning");
            return metrics::refused(metrics::Refusal::BadRequest);
        }
        Err(_) => {
            local.counts.header_timeouts.fetch_add(1, Relaxed);
            return metrics::refused(metrics::Refusal::HeaderTimeout);
        }
    };
    let mut course = Course {
        idle_max: place.header_timeout(&local),
        local: Rc::clone(&local),
        served: Box::new(served),
        caller,
        handshake: first,
        streams: Rc::default(),
        idle_since: Some(Instant::now()),
        socket,
        is_told: false,
        end_by: None,
        has_lost_its_place: false,
    };
    let mut timer = pin!(sleep(course.idle_max));
    let mut lost = place.lost();
    let is_cut = poll_fn(|cx| {
        seat.know(cx.waker());
        if let Some(losing) = &mut lost
            && losing.as_mut().poll(cx).is_ready()
        {
            lost = None;
            course.has_lost_its_place = true;
        }
        course.poll(cx, timer.as_mut())
    })
    .await;
    let _place = place.parting();
    let Course { served, socket, .. } = course;
    drop(served);
    // Its last words are to arrive, whatever the client still sends.
    if let Some(socket) = socket.into_inner().filter(|_| !is_cut) {
        linger::close(&local, socket, &[], linger::MOMENT).await;
    }
}

/// What a connection's streams share with it.
#[derive(Default)]
struct Streams {
    open: Cell<usize>,
    given_up: Cell<u32>,
    /// One was answered while the node turns clients away.
    was_turned_away: Cell<bool>,
    connection: RefCell<Option<Waker>>,
}

impl Streams {
    fn wake_connection(&self) {
        if let Some(waker) = &*self.connection.borrow() {
            waker.wake_by_ref();
        }
    }

    /// A stream has ended.
    fn note(&self, carried: Carried, is_turning_away: bool) {
        let given_up = self.given_up.get();
        let is_unanswered = matches!(
            carried,
            Carried::GivenUp {
                was_answered: false
            }
        );
        self.given_up.set(match is_unanswered {
            true => given_up + 1,
            false => given_up.saturating_sub(1),
        });
        self.was_turned_away
            .set(is_turning_away || self.was_turned_away.get());
        if is_turning_away || self.given_up.get() > GIVEN_UP_MAX {
            self.wake_connection();
        }
    }
}

/// An open stream; dropping it closes it.
struct Open(Rc<Streams>);

impl Open {
    fn new(streams: &Rc<Streams>) -> Self {
        streams.open.set(streams.open.get() + 1);
        Self(Rc::clone(streams))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let left = self.0.open.get() - 1;
        self.0.open.set(left);
        if left == 0 {
            self.0.wake_connection();
        }
    }
}

struct Course<W: Worker> {
    local: Rc<Local<W>>,
    served: Box<Served>,
    caller: Caller,
    /// Until its first request.
    handshake: Option<HandshakePermit>,
    streams: Rc<Streams>,
    idle_since: Option<Instant>,
    /// How long it may be idle; the first request has less time.
    idle_max: Duration,
    socket: Socket,
    /// It was told to end with its last stream.
    is_told: bool,
    /// It is cut then.
    end_by: Option<Instant>,
    /// It ends when it has no stream.
    has_lost_its_place: bool,
}

impl<W: Worker> Course<W> {
    /// Ready when the connection is over; tells whether it has to be cut.
    fn poll(&mut self, cx: &mut Context<'_>, timer: Pin<&mut Sleep>) -> Poll<bool> {
        let connection = &self.streams.connection;
        if connection.borrow().is_none() {
            *connection.borrow_mut() = Some(cx.waker().clone());
        }
        loop {
            match self.served.poll_next(cx) {
                Poll::Ready(Some(incoming)) => self.begin(incoming),
                Poll::Ready(None) => return Poll::Ready(false),
                Poll::Pending if self.must_tell() => self.tell(),
                Poll::Pending => break,
            }
        }
        if self.streams.given_up.get() > GIVEN_UP_MAX && self.end_by.is_none() {
            metrics::refused(metrics::Refusal::BadRequest);
            self.served.end_flood();
            self.end_by = Some(Instant::now() + LAST_WORDS_MAX);
            cx.waker().wake_by_ref();
        }
        if let Poll::Ready(Err(error)) = self.socket.poll_send(cx) {
            tracing::debug!(%error, "an HTTP/2 connection broke");
            return Poll::Ready(true);
        }
        self.note_idleness();
        self.poll_time(cx, timer).map(|()| true)
    }

    fn must_tell(&self) -> bool {
        let is_leaving = self.local.closing().is_some() || self.streams.was_turned_away.get();
        is_leaving && !self.is_told
    }

    fn tell(&mut self) {
        self.is_told = true;
        self.idle_max = FAREWELL_MAX;
        self.served.wind_down();
    }

    fn begin(&mut self, incoming: Incoming) {
        self.handshake = None;
        if !self.is_told {
            self.idle_max = IDLE_MAX;
        }
        let Some((pipe, mut serving)) = incoming.begin(self.caller.is_encrypted) else {
            return;
        };
        let local = Rc::clone(&self.local);
        let caller = Caller {
            is_http2: true,
            ..self.caller
        };
        let open = Open::new(&self.streams);
        let place = Place::of_stream(&local);
        spawn_local(async move {
            let mut inner = Some(Box::pin(serve_stream(local.clone(), pipe, caller, place)));
            let carried = poll_fn(|cx| {
                let ended = inner
                    .as_mut()
                    .map(|inner| inner.as_mut().poll(cx).is_ready());
                if ended == Some(true) {
                    inner = None;
                }
                serving.poll(cx)
            })
            .await;
            open.0.note(carried, local.is_turning_away());
            if carried == Carried::Whole {
                drop(inner);
                return serving.linger().await;
            }
            // Whoever serves it sees its client go, as on a connection of its own, and may have something to say behind.
            drop(serving);
            if let Some(inner) = inner {
                inner.await;
            }
        });
    }

    fn note_idleness(&mut self) {
        if self.streams.open.get() > 0 {
            self.idle_since = None;
        } else if self.idle_since.is_none() {
            self.idle_since = Some(Instant::now());
        }
    }

    /// Ready when the connection has to be cut.
    fn poll_time(&mut self, cx: &mut Context<'_>, mut timer: Pin<&mut Sleep>) -> Poll<()> {
        loop {
            let now = Instant::now();
            let idle = self.idle_since.map(|since| match self.has_lost_its_place {
                true => now,
                false => since + self.idle_max,
            });
            let stalled = self.socket.blocked_since();
            let stalled = stalled.map(|since| since + self.local.body.pause_max);
            if [stalled, self.end_by].iter().flatten().any(|at| *at <= now) {
                return Poll::Ready(());
            }
            if idle.is_some_and(|at| at <= now) && self.end_by.is_none() {
                if self.handshake.is_some() {
                    self.local.counts.header_timeouts.fetch_add(1, Relaxed);
                    metrics::refused(metrics::Refusal::HeaderTimeout);
                }
                self.end_by = Some(now + LAST_WORDS_MAX);
                self.tell();
                // What it says goes out with the next look at the connection.
                cx.waker().wake_by_ref();
            }
            let forgiving = (self.streams.given_up.get() > 0).then_some(now + FORGIVING_TIME);
            let idle = idle.filter(|_| self.end_by.is_none());
            let due = [idle, stalled, self.end_by, forgiving];
            let due = due.into_iter().flatten().min();
            let due = due.unwrap_or(now + IDLE_MAX);
            if due < timer.deadline() || timer.deadline() <= now {
                timer.as_mut().reset(due);
            }
            match timer.as_mut().poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(()) => self.forgive(),
            }
        }
    }

    fn forgive(&self) {
        let given_up = self.streams.given_up.get();
        let left = given_up.saturating_sub(GIVEN_UP_FORGIVEN);
        self.streams.given_up.set(left);
    }
}

/// What a stream's request is answered by: the code that serves connections, or that there is no room.
async fn serve_stream<W: Worker>(
    local: Rc<Local<W>>,
    pipe: Pipe,
    caller: Caller,
    place: Result<Place, Refusal>,
) {
    use tokio::io::AsyncWriteExt as _;
    match place {
        Ok(place) => connection::serve_stream(local, pipe.into(), caller, place).await,
        Err(refusal) => {
            let mut pipe = pipe;
            // The far end may be gone: then nobody hears it.
            let _ = pipe.write_all(&refusal.bytes()).await;
            let _ = pipe.shutdown().await;
        }
    }
}
