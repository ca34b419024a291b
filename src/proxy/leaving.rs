//! How a stream of events leaves a node that drains: at a moment of its own, so that not all clients come back at once, and
//! between two events, so that none is lost in its middle.

use std::time::Duration;

use tokio::time::Instant;

/// When a client comes back: in milliseconds, at the earliest and so many later at most.
const RETRY: (u64, u64) = (1000, 2000);

/// When a stream ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Leaving {
    /// From then on at the next end of an event.
    at: Instant,
    /// Then at the latest.
    by: Instant,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Stays,
    Leaves,
    IsLate,
}

impl Leaving {
    /// At some moment of this time.
    pub(super) fn within(window: Duration, now: Instant) -> Self {
        Self {
            at: now + window.mul_f64(rand::random::<f64>()),
            by: now + window,
            stage: Stage::Stays,
        }
    }

    /// When [`Leaving::handle_timeout`] is to be called.
    pub(super) const fn due(&self) -> Instant {
        match self.stage {
            Stage::Stays => self.at,
            Stage::Leaves | Stage::IsLate => self.by,
        }
    }

    /// Tells whether something was due.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> bool {
        if now < self.due() {
            return false;
        }
        self.stage = match self.stage {
            Stage::Stays => Stage::Leaves,
            Stage::Leaves | Stage::IsLate => Stage::IsLate,
        };
        true
    }

    /// Whether it ends as soon as it can.
    pub(super) fn has_come(&self) -> bool {
        self.stage != Stage::Stays
    }

    /// Whether it ends wherever it is.
    pub(super) fn is_late(&self) -> bool {
        self.stage == Stage::IsLate
    }
}

/// The last thing that a client gets: when to come back (HTML, 9.2.6).
pub(super) fn farewell() -> String {
    let (least, more) = RETRY;
    format!("retry: {}\n\n", least + rand::random_range(0..=more))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_leaves_within_the_window_and_is_late_at_its_end() {
        let (now, window) = (Instant::now(), Duration::from_secs(10));
        let mut leaving = Leaving::within(window, now);
        let at = leaving.due();
        assert!((now..=now + window).contains(&at));
        assert!(!leaving.has_come());
        assert!(leaving.handle_timeout(at));
        assert!(leaving.has_come() && !leaving.is_late());
        assert_eq!(leaving.due(), now + window);
        assert!(leaving.handle_timeout(now + window) && leaving.is_late());
    }
}
