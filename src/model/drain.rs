//! How every part of the process learns that it should come to an end. Who begins the drain is `server`'s matter.

use std::time::Duration;

use tokio::sync::watch;

/// How far the end of the process has come. It only ever moves downwards in this list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DrainPhase {
    /// Serving.
    #[default]
    Running,
    /// Still serving, but readiness says no, so that load balancers turn away.
    NotReady,
    /// Nothing is accepted any more and clients are being closed.
    Closing {
        /// Over how long the closes are spread.
        window: Duration,
    },
    /// The process ends now: each client is told so, and nobody is waited for.
    Stopping,
}

/// One reader of the drain's phase. Clones are independent and cheap; a handler may keep one for its readiness answer.
///
/// When the writing side is gone without a drain (the process is ending anyway), it reads as closing at once.
#[derive(Debug, Clone)]
pub struct DrainSignal(watch::Receiver<DrainPhase>);

impl DrainSignal {
    /// The signal that follows `phase`.
    pub fn new(phase: watch::Receiver<DrainPhase>) -> Self {
        Self(phase)
    }

    /// The phase now.
    pub fn phase(&self) -> DrainPhase {
        *self.0.borrow()
    }

    /// Whether the end has begun, be it only by readiness saying no.
    pub fn is_draining(&self) -> bool {
        self.phase() != DrainPhase::Running
    }

    /// The window over which clients are to be closed, once that has begun.
    pub fn now(&self) -> Option<Duration> {
        match self.phase() {
            DrainPhase::Closing { window } => Some(window),
            DrainPhase::Stopping => Some(Duration::ZERO),
            DrainPhase::Running | DrainPhase::NotReady => None,
        }
    }

    /// Whether the process ends now.
    pub fn is_stopping(&self) -> bool {
        self.phase() == DrainPhase::Stopping
    }

    /// Waits until clients are to be closed; gives the window to spread that over.
    pub async fn draining(&mut self) -> Duration {
        let closing =
            |phase: &DrainPhase| matches!(phase, DrainPhase::Closing { .. } | DrainPhase::Stopping);
        match self.0.wait_for(closing).await.as_deref() {
            Ok(DrainPhase::Closing { window }) => *window,
            _ => Duration::ZERO,
        }
    }

    /// Waits until the end has begun ([`DrainPhase::NotReady`] or later).
    pub async fn begun(&mut self) {
        // An error is the writer's end, which is an end as well.
        let _ = self.0.wait_for(|phase| *phase != DrainPhase::Running).await;
    }
}
