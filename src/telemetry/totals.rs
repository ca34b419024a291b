//! What the node has done since it started, as a few integers that a dashboard can read: the recorder's counters can
//! only be rendered.
//!
//! Workers add to them when they flush, about once a second.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::metrics::label;

label! {
    /// What is added up.
    Total {
        /// Publications accepted by this node, through any door.
        Publications = "publications",
        /// Publications put into send queues.
        Deliveries = "deliveries",
        /// Their bytes.
        DeliveredBytes = "delivered_bytes",
        /// Gaps told.
        Gaps = "gaps",
        /// Pending publications thrown away.
        Drops = "drops",
    }
}

static TOTALS: [AtomicU64; Total::COUNT] = [const { AtomicU64::new(0) }; Total::COUNT];
static SUBSCRIPTIONS: AtomicU64 = AtomicU64::new(0);
static PENDING_BYTES: AtomicU64 = AtomicU64::new(0);

/// The totals at one moment, and two levels beside them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// By [`Total::index`]; they only grow.
    counts: [u64; Total::COUNT],
    /// Subscriptions now.
    pub subscriptions: u64,
    /// Bytes in send queues now.
    pub pending_bytes: u64,
}

impl Totals {
    /// Reads them now.
    pub fn read() -> Self {
        Self {
            counts: std::array::from_fn(|index| TOTALS[index].load(Relaxed)),
            subscriptions: SUBSCRIPTIONS.load(Relaxed),
            pending_bytes: PENDING_BYTES.load(Relaxed),
        }
    }

    /// One of them.
    pub fn of(&self, total: Total) -> u64 {
        self.counts[total.index()]
    }
}

/// So many more.
pub(super) fn add(total: Total, count: u64) {
    if count > 0 {
        TOTALS[total.index()].fetch_add(count, Relaxed);
    }
}

/// One worker's levels were `told` and are `now`: subscriptions, then pending bytes.
pub(super) fn shift(told: [u64; 2], now: [u64; 2]) {
    for (level, (told, now)) in [&SUBSCRIPTIONS, &PENDING_BYTES]
        .into_iter()
        .zip(told.into_iter().zip(now))
    {
        // Wrapping: a worker's level that fell takes away what it once added.
        level.fetch_add(now.wrapping_sub(told), Relaxed);
    }
}
