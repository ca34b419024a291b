//! Connections to upstreams that speak HTTP/2: each worker's, many requests on one.
//!
//! A request that finds none with room dials; those that come meanwhile stand in line, as do those for whom no further
//! connection may be made. Whenever there is room again, the first in line is told, and tells the next one if there is more.
//! A connection that is full, winding down (`GOAWAY`), doubted or too old is passed over; what is under way on it comes to its
//! end.
//!
//! Bounded for each upstream: connections, those among them that wind down too; the requests in line ([`WAITING_MAX`]); and how
//! long they stand there.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::Policy;
use crate::http2::Asker;
use crate::tls::Stream;

/// Requests in line for one upstream, on each worker. A request that waits holds its client's connection and little else.
const WAITING_MAX: usize = 1024;

/// How often whoever comes looks whether there is room for the first in line.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

struct Kept {
    asker: Asker,
    /// It takes no further requests then.
    ends_at: Option<Instant>,
}

/// One worker's connections to one upstream, and who waits for them.
#[derive(Default)]
pub(super) struct Line {
    kept: Mutex<Vec<Kept>>,
    /// Those that are not closed, be it that they take no further requests.
    alive: AtomicUsize,
    /// Somebody makes one.
    is_dialling: AtomicBool,
    /// How many times that came to nothing.
    failures: AtomicUsize,
    /// Who stands in line.
    waiting: AtomicUsize,
    /// Tells the first in line that there may be room.
    freed: Arc<Notify>,
    /// When the line began, or was last looked at.
    looked: Mutex<Option<Instant>>,
}

thread_local! {
    /// By the upstream's id.
    static LINES: RefCell<HashMap<usize, Arc<Line>>> = RefCell::default();
}

/// This worker's connections to the upstream of this id.
pub(super) fn line(id: usize) -> Arc<Line> {
    LINES.with_borrow_mut(|lines| lines.entry(id).or_default().clone())
}

/// Where a request finds its place.
pub(super) enum Place {
    /// Here.
    Open(Stream),
    /// On a connection that it makes.
    Dial(Dialling),
}

/// Which of the connections that there are will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The oldest with room, so that those beyond what is needed come to be idle.
    Any,
    /// The newest with room.
    Newest,
    /// None of them.
    Another,
}

/// Why there is no connection for a request.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    /// It has as many connections as it may, all are full, and none had room in time or too many wait for that: nobody's
    /// failure.
    #[error("its connections are full")]
    Full,
    /// It takes too long.
    #[error("no connection in time")]
    TimedOut,
    /// It cannot be reached.
    #[error(transparent)]
    Failed(#[from] io::Error),
}

/// How much a request may ask for on its way to a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// When there has to be one.
    pub(super) until: Instant,
    /// Connections of one worker to one upstream.
    pub(super) connections_max: usize,
}

impl Bounds {
    /// Those of a request that needs a connection from now on.
    pub(super) fn of(policy: &Policy) -> Self {
        Self {
            until: Instant::now() + policy.connect_timeout,
            connections_max: policy.http2_connections_max,
        }
    }
}

impl Line {
    fn kept(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place that is there now, unless others wait for it.
    pub(super) fn open(&self, now: Instant) -> Option<Stream> {
        match self.waiting.load(Relaxed) {
            0 => self.open_on(Wanted::Any, now),
            _ => None,
        }
    }

    fn open_on(&self, wanted: Wanted, now: Instant) -> Option<Stream> {
        let mut kept = self.kept();
        kept.retain_mut(|one| {
            let is_old = one.ends_at.is_some_and(|end| end <= now);
            !is_old && !one.asker.is_over()
        });
        let mut with_room = kept.iter().filter(|one| one.asker.has_room());
        let one = match wanted {
            Wanted::Any => with_room.next(),
            Wanted::Newest => with_room.next_back(),
            Wanted::Another => None,
        };
        one.map(|one| one.asker.open())
    }

    fn may_dial(&self, connections_max: usize) -> bool {
        !self.is_dialling.load(Relaxed) && self.alive.load(Relaxed) < connections_max
    }

    /// Tells the first in line where there is something to be had.
    fn tell_next(&self, connections_max: usize) {
        if self.waiting.load(Relaxed) == 0 {
            return;
        }
        let has_room = || self.kept().iter().any(|one| one.asker.has_room());
        if self.may_dial(connections_max) || has_room() {
            self.freed.notify_one();
        }
    }

    /// Room that nobody was told of (a server allows more than before) is found by whoever comes; now and then only, or who
    /// was just told would be overtaken.
    fn look_again(&self, connections_max: usize) {
        let now = Instant::now();
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = looked.is_some_and(|looked| now - looked >= LOOK_INTERVAL);
        let is_first = self.waiting.load(Relaxed) == 0;
        if is_first || is_due {
            *looked = Some(now);
        }
        if is_due && !is_first {
            drop(looked);
            self.tell_next(connections_max);
        }
    }

    fn place(self: &Arc<Self>, wanted: Wanted, connections_max: usize) -> Option<Place> {
        if let Some(stream) = self.open_on(wanted, Instant::now()) {
            return Some(Place::Open(stream));
        }
        // A node's shared runtime has several threads, so the look above does not decide.
        if !self.may_dial(connections_max) || self.is_dialling.swap(true, Relaxed) {
            return None;
        }
        Some(Place::Dial(Dialling(self.clone())))
    }

    /// A place, in line where there is none; nothing when the upstream shares no connections after all.
    ///
    /// # Errors
    /// When too many wait already, none came in time, or whoever made the first connection has failed: all who wait are
    /// told at once, and do not try one after the other.
    pub(super) async fn join(
        self: &Arc<Self>,
        mut wanted: Wanted,
        bounds: Bounds,
        may_share: impl Fn() -> bool,
    ) -> Result<Option<Place>, DialError> {
        let mut in_line = None;
        while may_share() {
            // Made before the look, so that nothing is missed between the two.
            let freed = self.freed.notified();
            let failures = self.failures.load(Relaxed);
            let is_first = in_line.is_some() || self.waiting.load(Relaxed) == 0;
            let place = match is_first {
                true => self.place(wanted, bounds.connections_max),
                false => None,
            };
            if place.is_some() {
                drop(in_line);
                self.tell_next(bounds.connections_max);
                return Ok(place);
            }
            if in_line.is_none() {
                self.look_again(bounds.connections_max);
                in_line = Some(InLine::enter(self)?);
            }
            if timeout_at(bounds.until, freed).await.is_err() {
                return Err(self.out_of_time());
            }
            if self.failures.load(Relaxed) != failures {
                return Err(io::Error::from(io::ErrorKind::NotConnected).into());
            }
            if wanted == Wanted::Another {
                // What somebody else has made meanwhile is new enough.
                wanted = Wanted::Newest;
            }
        }
        Ok(None)
    }

    fn out_of_time(&self) -> DialError {
        match self.alive.load(Relaxed) {
            0 => DialError::TimedOut,
            _ => DialError::Full,
        }
    }

    /// Keeps a connection, to be used for so long. What is returned lives as long as the connection does.
    pub(super) fn keep(self: Arc<Self>, asker: Asker, age_max: Option<Duration>) -> Alive {
        // Upstreams may have gone with a reload.
        LINES.with_borrow_mut(|lines| lines.retain(|_, line| Arc::strong_count(line) > 1));
        let ends_at = age_max.map(|age| Instant::now() + age);
        self.kept().push(Kept { asker, ends_at });
        self.alive.fetch_add(1, Relaxed);
        Alive(self)
    }

    /// What its connections tell of streams that have ended.
    pub(super) fn freed(&self) -> Arc<Notify> {
        self.freed.clone()
    }
}

/// A connection that is not closed.
pub(super) struct Alive(Arc<Line>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.alive.fetch_sub(1, Relaxed);
        // Another one may be made.
        self.0.freed.notify_one();
    }
}

/// One request in line.
struct InLine(Arc<Line>);

impl InLine {
    fn enter(line: &Arc<Line>) -> Result<Self, DialError> {
        if line.waiting.fetch_add(1, Relaxed) < WAITING_MAX {
            return Ok(Self(line.clone()));
        }
        line.waiting.fetch_sub(1, Relaxed);
        Err(DialError::Full)
    }
}

impl Drop for InLine {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}

/// Somebody makes a connection; dropped when it is made, or given up.
pub(super) struct Dialling(Arc<Line>);

impl Dialling {
    /// Where the connection is to be kept.
    pub(super) fn line(&self) -> Arc<Line> {
        self.0.clone()
    }

    /// It came to nothing. Where there are connections, the others go on waiting for them.
    pub(super) fn failed(self) {
        if self.0.alive.load(Relaxed) == 0 {
            self.0.failures.fetch_add(1, Relaxed);
            self.tell_all();
        }
    }

    /// The upstream speaks HTTP/1: everybody needs a connection of his own.
    pub(super) fn tell_all(self) {
        self.0.is_dialling.store(false, Relaxed);
        self.0.freed.notify_waiters();
    }
}

impl Drop for Dialling {
    fn drop(&mut self) {
        self.0.is_dialling.store(false, Relaxed);
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::{Context, Poll, Waker};

    fn bounds(line_time: Duration) -> Bounds {
        Bounds {
            until: Instant::now() + line_time,
            connections_max: 1,
        }
    }

    async fn join(line: &Arc<Line>, time: Duration) -> Result<Option<Place>, DialError> {
        line.join(Wanted::Any, bounds(time), || true).await
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn no_more_wait_than_may_and_none_for_longer() {
        let line = Arc::<Line>::default();
        let Ok(Some(Place::Dial(dialling))) = join(&line, HOUR).await else {
            panic!("the first one dials");
        };
        let timed_out = join(&line, Duration::from_millis(10)).await;
        assert!(
            matches!(timed_out, Err(DialError::TimedOut)),
            "nobody has a connection"
        );
        let waiting: Vec<InLine> = (0..WAITING_MAX)
            .map(|_| InLine::enter(&line).expect("room"))
            .collect();
        assert!(matches!(join(&line, HOUR).await, Err(DialError::Full)));
        drop((waiting, dialling));
        assert!(matches!(join(&line, HOUR).await, Ok(Some(Place::Dial(_)))));
    }

    #[tokio::test]
    async fn who_comes_later_does_not_go_first() {
        let line = Arc::<Line>::default();
        let Ok(Some(Place::Dial(dialling))) = join(&line, HOUR).await else {
            panic!("the first one dials");
        };
        let (first, second) = (join(&line, HOUR), join(&line, HOUR));
        tokio::pin!(first, second);
        let mut nobody = Context::from_waker(Waker::noop());
        assert!(first.as_mut().poll(&mut nobody).is_pending());
        drop(dialling);
        // There is something to be had, which is the other's.
        assert!(second.as_mut().poll(&mut nobody).is_pending());
        let found = first.as_mut().poll(&mut nobody);
        assert!(matches!(found, Poll::Ready(Ok(Some(Place::Dial(_))))));
    }

    #[tokio::test]
    async fn who_gives_up_lets_the_next_one_dial_and_a_failure_is_everybodys() {
        let line = Arc::<Line>::default();
        let Ok(Some(Place::Dial(dialling))) = join(&line, HOUR).await else {
            panic!("the first one dials");
        };
        let (first, second) = (join(&line, HOUR), join(&line, HOUR));
        tokio::pin!(first, second);
        tokio::select! {
            biased;
            _ = &mut first => panic!("it waits"),
            _ = &mut second => panic!("it waits"),
            () = std::future::ready(()) => {}
        }
        drop(dialling);
        let Ok(Some(Place::Dial(dialling))) = first.await else {
            panic!("the first in line dials");
        };
        dialling.failed();
        assert!(matches!(second.await, Err(DialError::Failed(_))));
        assert_eq!(line.waiting.load(Relaxed), 0);
    }
}
