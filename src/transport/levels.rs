//! What a worker tells of itself at any time, to whoever asks: a few numbers that others may read.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// One worker's levels.
#[derive(Debug, Default)]
pub struct Levels {
    web_sockets: AtomicU64,
    event_streams: AtomicU64,
    loop_delay_micros: AtomicU64,
}

impl Levels {
    /// Open WebSockets.
    pub fn web_sockets(&self) -> u64 {
        self.web_sockets.load(Ordering::Relaxed)
    }

    /// Open event streams.
    pub fn event_streams(&self) -> u64 {
        self.event_streams.load(Ordering::Relaxed)
    }

    /// How late the loop's last tick was.
    pub fn loop_delay(&self) -> Duration {
        Duration::from_micros(self.loop_delay_micros.load(Ordering::Relaxed))
    }

    pub(super) fn set_connections(&self, web_sockets: u64, event_streams: u64) {
        self.web_sockets.store(web_sockets, Ordering::Relaxed);
        self.event_streams.store(event_streams, Ordering::Relaxed);
    }

    pub(super) fn set_loop_delay(&self, delay: Duration) {
        self.loop_delay_micros.store(
            u64::try_from(delay.as_micros()).unwrap_or(u64::MAX),
            Ordering::Relaxed,
        );
    }
}
