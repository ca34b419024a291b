//! What the connections of one worker share, on its thread: no lock, no atomic.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use slab::Slab;
use tokio::sync::Notify;

use super::body::BodyLimits;
use super::{Browsers, Config, Worker};
use crate::http2::Limits;
use crate::model::{Addresses, ServerCounts, WorkerIndex};
use crate::tls::Acceptor;

/// The largest head, and hyper's read buffer, through which bodies stream. Both are told to hyper: its buffer may hold
/// more than its most, by what an allocation had to spare, and would parse a larger head from it.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// One worker's side of the server.
pub(super) struct Local<W> {
    pub(super) index: WorkerIndex,
    pub(super) worker: Rc<W>,
    pub(super) router: Router,
    pub(super) counts: Arc<ServerCounts>,
    pub(super) addresses: Arc<Addresses>,
    pub(super) connections_max: usize,
    pub(super) handshakes_max: usize,
    pub(super) acceptor: Option<Acceptor>,
    pub(super) header_timeout: Duration,
    pub(super) body: BodyLimits,
    pub(super) http: http1::Builder,
    pub(super) http2: Limits,
    pub(super) browsers: Browsers,
    /// The one buffer in which the answers of a turn are collected, when no connection has borrowed it.
    pub(super) buffer: RefCell<Vec<u8>>,
    /// The same for what is read.
    pub(super) read_buffer: RefCell<Vec<u8>>,
    /// Sockets that are being closed gently, see [`linger`](super::linger).
    pub(super) lingering: Cell<usize>,
    turning_away: Cell<bool>,
    closing: Cell<Option<Duration>>,
    seats: RefCell<Slab<Option<Waker>>>,
    emptied: Notify,
}

impl<W: Worker> Local<W> {
    pub(super) fn new(
        index: usize,
        config: &Config,
        router: Router,
        worker: W,
        addresses: Arc<Addresses>,
    ) -> Self {
        Self {
            index: WorkerIndex(index),
            worker: Rc::new(worker),
            router,
            counts: Arc::clone(addresses.counts()),
            addresses,
            connections_max: config.connections_max,
            handshakes_max: config.handshakes_max,
            acceptor: config.tls.clone(),
            header_timeout: config.header_timeout,
            body: BodyLimits {
                bytes_max: match config.body_bytes_max {
                    0 => u64::MAX,
                    bytes => bytes as u64,
                },
                pause_max: config.body_timeout,
            },
            http: http(),
            http2: Limits {
                streams_max: config.http2_streams_max,
                stall_max: config.body_timeout,
            },
            browsers: config.browsers.clone(),
            buffer: RefCell::default(),
            read_buffer: RefCell::default(),
            lingering: Cell::new(0),
            turning_away: Cell::new(false),
            closing: Cell::new(None),
            seats: RefCell::default(),
            emptied: Notify::new(),
        }
    }

    /// Whether clients may speak HTTP/2.
    pub(super) fn speaks_http2(&self) -> bool {
        self.http2.streams_max > 0
    }

    /// Whether answers are to say that their connection ends with them.
    pub(super) fn is_turning_away(&self) -> bool {
        self.turning_away.get()
    }

    /// Lets HTTP connections end one by one, each with its next answer: a balancer's idle ones are then few when
    /// [`close`](Self::close) ends them, and few requests meet that in the middle.
    pub(super) fn turn_away(&self) {
        self.turning_away.set(true);
    }

    /// Once HTTP connections are to end: over how long those whose answers have no end of their own.
    pub(super) fn closing(&self) -> Option<Duration> {
        self.closing.get()
    }

    /// Ends all HTTP connections: idle ones at once, the others after their current answer.
    pub(super) fn close(&self, window: Duration) {
        self.closing.set(Some(window));
        // Waking only schedules, so no task can reach for the seats meanwhile.
        for (_, waker) in self.seats.borrow().iter() {
            waker.iter().for_each(Waker::wake_by_ref);
        }
    }

    /// Waits until no HTTP connection is left.
    pub(super) async fn empty(&self) {
        while !self.seats.borrow().is_empty() {
            self.emptied.notified().await;
        }
    }
}

/// No timer and no header time-out of hyper's: it would allocate and register a timer for each request; the
/// connection's task has one for its life. No `max_headers`: the default is the same 100, on the stack.
fn http() -> http1::Builder {
    let mut http = http1::Builder::new();
    http.header_read_timeout(None)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_header_size(HEAD_BYTES_MAX)
        .keep_alive(true)
        .half_close(false);
    http
}

/// A connection's entry among those that the drain wakes.
pub(super) struct Seat<W> {
    local: Rc<Local<W>>,
    key: usize,
    known: bool,
}

impl<W> Seat<W> {
    pub(super) fn take(local: &Rc<Local<W>>) -> Self {
        let key = local.seats.borrow_mut().insert(None);
        Self {
            local: Rc::clone(local),
            key,
            known: false,
        }
    }

    /// Tells how to wake this connection. A task's waker stays the same, so once is enough.
    pub(super) fn know(&mut self, waker: &Waker) {
        if !self.known {
            self.known = true;
            self.local.seats.borrow_mut()[self.key] = Some(waker.clone());
        }
    }
}

impl<W> Drop for Seat<W> {
    fn drop(&mut self) {
        let mut seats = self.local.seats.borrow_mut();
        seats.remove(self.key);
        if seats.is_empty() {
            self.local.emptied.notify_one();
        }
    }
}
