//! Connections to upstreams that speak HTTP/2: each worker's, many requests on one.
//!
//! A request that finds none with room dials; those that come meanwhile wait for that one, however many. A connection that is full, winding down
//! (`GOAWAY`), doubted or too old is passed over; what is under way on it comes to its end.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::http2::Asker;
use crate::tls::Stream;

struct Kept {
    asker: Asker,
    /// It takes no further requests then.
    ends_at: Option<Instant>,
}

#[derive(Default)]
struct Connections {
    kept: Vec<Kept>,
    dial: Arc<Dial>,
}

/// Whether somebody makes a connection, and who waits for it.
#[derive(Default)]
pub(super) struct Dial {
    is_on: AtomicBool,
    /// How many times it came to nothing.
    failures: AtomicUsize,
    done: Notify,
}

impl Dial {
    /// Waits until whoever makes a connection has it, or has given up.
    ///
    /// # Errors
    /// When there is none to be had: all who wait are told at once, and do not try one after the other.
    pub(super) async fn done(&self) -> io::Result<()> {
        let before = self.failures.load(Relaxed);
        self.done.notified().await;
        match self.failures.load(Relaxed) == before {
            true => Ok(()),
            false => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

thread_local! {
    /// By the upstream's id. A worker is a thread, so it needs no lock.
    static POOL: RefCell<HashMap<usize, Connections>> = RefCell::default();
}

/// Where a request finds its place.
pub(super) enum Place {
    /// Here.
    Open(Stream),
    /// On a connection that somebody is making.
    Soon(Arc<Dial>),
    /// On one that it makes.
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

/// Looks for a place at the upstream of this id.
pub(super) fn place(id: usize, wanted: Wanted, now: Instant) -> Place {
    POOL.with_borrow_mut(|pool| {
        let connections = pool.entry(id).or_default();
        connections.kept.retain_mut(|one| {
            let is_old = one.ends_at.is_some_and(|end| end <= now);
            !is_old && !one.asker.is_over()
        });
        let mut with_room = connections.kept.iter().filter(|one| one.asker.has_room());
        let with_room = match wanted {
            Wanted::Any => with_room.next(),
            Wanted::Newest => with_room.next_back(),
            Wanted::Another => None,
        };
        match with_room {
            Some(one) => Place::Open(one.asker.open()),
            None if connections.dial.is_on.swap(true, Relaxed) => {
                Place::Soon(connections.dial.clone())
            }
            None => Place::Dial(Dialling(connections.dial.clone())),
        }
    })
}

/// Keeps a connection, to be used for so long.
pub(super) fn keep(id: usize, asker: Asker, age_max: Option<Duration>, now: Instant) {
    POOL.with_borrow_mut(|pool| {
        // Upstreams may have gone with a reload: what has ended is not kept for them.
        pool.retain(|_, connections| {
            connections.kept.retain_mut(|one| !one.asker.is_over());
            !connections.kept.is_empty() || connections.dial.is_on.load(Relaxed)
        });
        let ends_at = age_max.map(|age| now + age);
        let kept = &mut pool.entry(id).or_default().kept;
        kept.push(Kept { asker, ends_at });
    });
}

/// Somebody makes a connection; dropped when it is made, or cannot be.
pub(super) struct Dialling(Arc<Dial>);

impl Dialling {
    /// It came to nothing.
    pub(super) fn failed(self) {
        self.0.failures.fetch_add(1, Relaxed);
    }
}

impl Drop for Dialling {
    fn drop(&mut self) {
        self.0.is_on.store(false, Relaxed);
        self.0.done.notify_waiters();
    }
}
