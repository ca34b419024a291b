//! Connections to upstreams, and each worker's pool of idle ones.
//!
//! A connection has no task of its own: whoever uses it polls it. So nothing is woken for another task's sake, and when a
//! client goes away, its exchange is dropped, and the upstream's connection with it. An idle one is polled by nobody; a
//! look when it is taken out tells whether the upstream has closed it meanwhile.
//!
//! Bounded: a worker keeps `IDLE_MAX` idle ones for each upstream, for `IDLE_TIME_MAX`; those in use are no more than
//! the client connections that the server admits.

use std::cell::RefCell;
use std::collections::HashMap;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

use crate::http1::ReadAhead;
use crate::tls::Stream;

/// Idle connections that one worker keeps for one upstream.
const IDLE_MAX: usize = 128;
/// For how long. Below the 5 s after which Node's servers close theirs, so that we are the one to do so.
const IDLE_TIME_MAX: Duration = Duration::from_secs(4);

/// One connection to an upstream.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) socket: Stream,
    /// What came and was not passed on.
    pub(super) read: ReadAhead,
    /// It has carried a request before.
    pub(super) is_reused: bool,
    /// It is not to be used for another request after this.
    ends_at: Option<Instant>,
}

impl Wire {
    /// A new connection, to be used for so long.
    pub(super) fn new(socket: Stream, age_max: Option<Duration>, now: Instant) -> Self {
        Self {
            socket,
            read: ReadAhead::default(),
            is_reused: false,
            ends_at: age_max.map(|age| now + age),
        }
    }

    /// Whether nothing came and nothing ended while nobody looked: either makes it worthless.
    fn is_quiet(&mut self) -> bool {
        let mut nobody = Context::from_waker(Waker::noop());
        let filled = with_buffer(&mut self.read, |read| {
            read.poll_fill(&mut nobody, &mut self.socket)
        });
        matches!(filled, Poll::Pending)
    }
}

thread_local! {
    /// One buffer for whatever this worker reads of upstreams.
    static BUFFER: RefCell<Vec<u8>> = RefCell::default();
}

/// Lends the worker's buffer for a look at what comes; what stays unread moves to a buffer of its own size.
pub(super) fn with_buffer<T>(read: &mut ReadAhead, act: impl FnOnce(&mut ReadAhead) -> T) -> T {
    let was_lent = BUFFER.with_borrow_mut(|buffer| read.lend(buffer));
    let done = act(read);
    if was_lent {
        BUFFER.with_borrow_mut(|buffer| read.reclaim(buffer));
    }
    done
}

struct Idle {
    wire: Wire,
    since: Instant,
}

#[derive(Default)]
struct Pool {
    /// By the upstream's id; the one that was used last is last.
    idle: HashMap<usize, Vec<Idle>>,
    is_swept: bool,
}

thread_local! {
    /// A worker is a thread, so its pool needs no lock.
    static POOL: RefCell<Pool> = RefCell::default();
}

/// Takes out a connection that is idle, if there is one.
pub(super) fn take(id: usize, now: Instant) -> Option<Wire> {
    POOL.with_borrow_mut(|pool| {
        let idle = pool.idle.get_mut(&id)?;
        while let Some(Idle { mut wire, since }) = idle.pop() {
            if now.saturating_duration_since(since) > IDLE_TIME_MAX {
                // The others have been idle for longer.
                idle.clear();
            } else if wire.is_quiet() {
                wire.is_reused = true;
                return Some(wire);
            }
        }
        None
    })
}

/// Puts a connection back whose answer has been read to its end.
pub(super) fn put(id: usize, wire: Wire, now: Instant) {
    if wire.ends_at.is_some_and(|end| end <= now) {
        return;
    }
    let must_sweep = POOL.with_borrow_mut(|pool| {
        let idle = pool.idle.entry(id).or_default();
        if idle.len() < IDLE_MAX {
            idle.push(Idle { wire, since: now });
        }
        !std::mem::replace(&mut pool.is_swept, true)
    });
    if must_sweep {
        tokio::spawn(sweep());
    }
}

/// Closes what has been idle for too long, until nothing is left. Ends with the worker's runtime otherwise.
async fn sweep() {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let is_empty = POOL.with_borrow_mut(|pool| {
            pool.idle.retain(|_, idle| {
                idle.retain_mut(|one| one.since.elapsed() <= IDLE_TIME_MAX && one.wire.is_quiet());
                !idle.is_empty()
            });
            pool.is_swept = !pool.idle.is_empty();
            pool.idle.is_empty()
        });
        if is_empty {
            return;
        }
    }
}
