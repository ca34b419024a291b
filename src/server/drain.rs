//! The drain: who begins it, and in which steps it goes. What each part does then is told by [`DrainSignal`].

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::model::{DrainPhase, DrainSignal};

/// How long after the window the last connections may still take.
pub(super) const GRACE: Duration = Duration::from_secs(5);

/// Begins the drain of the server that it was given to. Clones are the same drain.
#[derive(Debug, Clone)]
pub struct Drain(Arc<State>);

#[derive(Debug)]
struct State {
    phase: watch::Sender<DrainPhase>,
    forced: watch::Sender<bool>,
}

impl Drain {
    /// A drain that has not begun.
    pub fn new() -> Self {
        Self(Arc::new(State {
            phase: watch::Sender::new(DrainPhase::Running),
            forced: watch::Sender::new(false),
        }))
    }

    /// Begins the drain. Asked a second time, the process ends at once.
    pub fn begin(&self) {
        let begun = self
            .0
            .phase
            .send_if_modified(|phase| match std::mem::take(phase) {
                DrainPhase::Running => {
                    *phase = DrainPhase::NotReady;
                    true
                }
                already => {
                    *phase = already;
                    false
                }
            });
        if !begun {
            self.0.forced.send_replace(true);
        }
    }

    /// Whether it has begun.
    pub fn is_draining(&self) -> bool {
        *self.0.phase.borrow() != DrainPhase::Running
    }

    /// A reader of its phase, for handlers and workers.
    pub fn signal(&self) -> DrainSignal {
        DrainSignal::new(self.0.phase.subscribe())
    }

    /// Goes from "not ready" to "closing".
    pub(super) fn close(&self, window: Duration) {
        self.0.phase.send_replace(DrainPhase::Closing { window });
    }

    /// Waits until it was asked for a second time.
    pub(super) async fn forced(&self) {
        // The sender lives in `self`, so this cannot fail before it is true.
        let _ = self.0.forced.subscribe().wait_for(|forced| *forced).await;
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
    async fn is_forced_by_the_second_asking_only() {
        let drain = Drain::new();
        drain.begin();
        assert!(!*drain.0.forced.borrow());
        drain.begin();
        drain.forced().await;
    }
}
