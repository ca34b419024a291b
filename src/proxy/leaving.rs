//! How a stream of events leaves a node that drains: at a moment of its own, so that not all clients come back at once, and
//! between two events, so that none is lost in its middle. One whose upstream has been silent for too long goes the same way.

use std::time::Duration;

use tokio::time::Instant;

use super::download::Download;
use crate::http1::After;

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

    /// At this moment.
    pub(super) const fn at(at: Instant) -> Self {
        let stage = Stage::Stays;
        Self { at, by: at, stage }
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

    /// Ends a stream whose moment has come: in good order between two events, at once where nobody knows where those are, and
    /// when the time is over. `None` while it goes on.
    pub(super) fn end(&self, download: &mut Download) -> Option<After> {
        if self.stage == Stage::Stays || !download.is_endless() {
            return None;
        }
        if download.end_with(farewell().as_bytes()) {
            return Some(After::Close);
        }
        (self.stage == Stage::IsLate || !download.follows_events()).then_some(After::Cut)
    }
}

/// The last thing that a client gets: when to come back (HTML, 9.2.6).
fn farewell() -> String {
    let (least, more) = RETRY;
    format!("retry: {}\n\n", least + rand::random_range(0..=more))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::Framing;
    use crate::proxy::download::Form;

    #[test]
    fn a_stream_leaves_within_the_window_and_is_late_at_its_end() {
        let (now, window) = (Instant::now(), Duration::from_secs(10));
        let mut leaving = Leaving::within(window, now);
        let at = leaving.due();
        assert!((now..=now + window).contains(&at));
        assert_eq!(leaving.end(&mut stream(b"")), None);
        assert!(leaving.handle_timeout(at));
        assert_eq!(leaving.end(&mut stream(b"")), Some(After::Close));
        assert_eq!(leaving.end(&mut stream(b"data: 1")), None);
        assert_eq!(leaving.due(), now + window);
        assert!(leaving.handle_timeout(now + window));
        assert_eq!(leaving.end(&mut stream(b"data: 1")), Some(After::Cut));
    }

    /// A stream of which its client has everything, these bytes last.
    fn stream(last: &[u8]) -> Download {
        let mut stream =
            Download::new(Vec::new(), Framing::UntilClose, Form::Bare).with_events(false);
        stream.follow_events(last);
        stream
    }
}
