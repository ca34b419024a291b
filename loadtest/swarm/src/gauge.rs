//! What a reader thread lets others see while it runs: a few counters, written by it alone, once per turn of its loop.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// See the head of the file.
#[derive(Debug, Default)]
pub(crate) struct Gauge {
    /// Connections that have become live, ever.
    pub(crate) joined: AtomicUsize,
    /// Connections that ended before they were live.
    pub(crate) failed: AtomicUsize,
    /// Connections that ended after.
    pub(crate) ended: AtomicUsize,
    /// Publications received.
    pub(crate) deliveries: AtomicU64,
    /// Answers to commands received.
    pub(crate) answers: AtomicU64,
    /// Pings answered.
    pub(crate) pings: AtomicU64,
    /// Messages handed to sockets by `SendEach`.
    pub(crate) sent: AtomicUsize,
    /// When the first connection began.
    pub(crate) began_at: AtomicU64,
    /// When the latest one became live.
    pub(crate) joined_at: AtomicU64,
}

impl Gauge {
    /// Adds one.
    pub(crate) fn count(counter: &AtomicUsize) {
        counter.store(counter.load(Relaxed) + 1, Relaxed);
    }
}
