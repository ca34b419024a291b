//! The server's clock, by which all nodes agree on what has expired, although their own may differ.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::session::UnixTime;

/// How far the server's clock was ahead of this machine's when somebody looked last.
#[derive(Debug, Default)]
pub(super) struct Clock {
    ahead_millis: AtomicI64,
}

impl Clock {
    /// The server's time, as far as it is known.
    pub(super) fn now(&self) -> UnixTime {
        self.at_server(UnixTime::now())
    }

    /// What time it was at the server when it answered, and how long the question and its answer were under way.
    pub(super) fn set(&self, server: UnixTime, under_way: Duration) {
        // The answer took half of it.
        let then = UnixTime::now().before(under_way / 2);
        let ahead = i128::from(server.as_millis()) - i128::from(then.as_millis());
        let ahead = i64::try_from(ahead).unwrap_or(0);
        self.ahead_millis.store(ahead, Ordering::Relaxed);
    }

    fn at_server(&self, own: UnixTime) -> UnixTime {
        let ahead = self.ahead_millis.load(Ordering::Relaxed);
        UnixTime::from_millis(own.as_millis().saturating_add_signed(ahead))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_the_servers_time_before_and_behind_ones_own() {
        let clock = Clock::default();
        let own = UnixTime::from_millis(10_000_000);
        assert_eq!(clock.at_server(own), own);
        let hour = Duration::from_secs(3600);
        for server in [UnixTime::now().after(hour), UnixTime::now().before(hour)] {
            clock.set(server, Duration::ZERO);
            let told = clock.now().as_millis();
            // What the machine took between its readings of the clock.
            assert!(told.abs_diff(server.as_millis()) < 1000, "{told}");
        }
    }

    #[test]
    fn an_answer_that_was_long_under_way_is_half_as_old() {
        let clock = Clock::default();
        clock.set(UnixTime::now(), Duration::from_secs(60));
        let ahead = clock.ahead_millis.load(Ordering::Relaxed);
        assert!((29_000..=30_000).contains(&ahead), "{ahead}");
    }
}
