//! The drain: who begins it, and in which steps it goes. What each part does then is told by [`DrainSignal`].

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::model::{DrainPhase, DrainSignal};

/// How long after the window the last connections may still take.
pub(super) const GRACE: Duration = Duration::from_secs(5);

/// How long workers have to tell their clients that the process ends at once.
pub(super) const LAST_WORDS_MAX: Duration = Duration::from_millis(500);

/// Begins the drain of the server that it was given to. Clones are the same drain.
#[derive(Debug, Clone)]
pub struct Drain(Arc<watch::Sender<DrainPhase>>);

impl Drain {
    /// A drain that has not begun.
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(DrainPhase::Running)))
    }

    /// Begins the drain. Asked a second time, the process ends at once.
    pub fn begin(&self) {
        self.0.send_modify(|phase| {
            *phase = match phase {
                DrainPhase::Running => DrainPhase::NotReady,
                DrainPhase::NotReady | DrainPhase::Closing { .. } | DrainPhase::Stopping => {
                    DrainPhase::Stopping
                }
            };
        });
    }

    /// Whether it has begun.
    pub fn is_draining(&self) -> bool {
        *self.0.borrow() != DrainPhase::Running
    }

    /// A reader of its phase, for handlers and workers.
    pub fn signal(&self) -> DrainSignal {
        DrainSignal::new(self.0.subscribe())
    }

    /// Goes from "not ready" to "closing".
    pub(super) fn close(&self, window: Duration) {
        self.0.send_if_modified(|phase| {
            let is_next = *phase == DrainPhase::NotReady;
            if is_next {
                *phase = DrainPhase::Closing { window };
            }
            is_next
        });
    }

    /// Waits until it was asked for a second time.
    pub(super) async fn forced(&self) {
        // The sender lives in `self`, so this cannot fail before it is true.
        let mut phase = self.0.subscribe();
        let _ = phase.wait_for(|phase| *phase == DrainPhase::Stopping).await;
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_its_phases_in_order() {
        let drain = Drain::new();
        let signal = drain.signal();
        assert!(!signal.is_draining());
        drain.begin();
        assert!(signal.is_draining() && drain.is_draining());
        assert_eq!(signal.now(), None);
        drain.close(Duration::from_secs(3));
        assert_eq!(signal.now(), Some(Duration::from_secs(3)));
    }

    #[tokio::test]
    async fn is_forced_by_the_second_asking_only_and_then_for_good() {
        let drain = Drain::new();
        drain.begin();
        assert!(!drain.signal().is_stopping());
        drain.begin();
        drain.forced().await;
        drain.close(Duration::from_secs(3));
        assert!(drain.signal().is_stopping());
        assert_eq!(drain.signal().now(), Some(Duration::ZERO));
    }
}
