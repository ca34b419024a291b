//! A connection's place among those of the process, or one of a few behind them, from which only that may be asked by which it is
//! judged whether the node lives: whoever asks so does it the most when it is full, and ends a node that does not answer.
//! Who has one of the few and asks for nothing loses it to the next one.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::Worker;
use super::answer::Refusal;
use super::local::Local;
use crate::model::{ConnectionPermit, HandshakePermit, NoPlace, SparePermit};
use crate::telemetry::metrics;

/// The most connections beyond those of the process. As many files are free beside `MAX_CONNECTIONS`, and more.
const SPARE_MAX: usize = 16;

/// How long one of them may take with its head: nobody may keep them from those for whom they are.
const SPARE_HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// Ends when a place is lost, with why there was no other. On the heap: all but a few have none.
pub(super) type Lost = Pin<Box<dyn Future<Output = Refusal>>>;

/// Where a connection, or a stream of one, stands.
pub(super) enum Place {
    /// It may ask for anything.
    Regular(ConnectionPermit),
    /// There was no such place, for this reason, which whoever asks for anything else is told.
    Spare(SparePermit, Refusal),
}

impl Place {
    /// One for a connection from there that has yet to bring its first head.
    pub(super) fn of_connection<W: Worker>(
        local: &Local<W>,
        from: IpAddr,
    ) -> Result<(Self, Option<HandshakePermit>), Refusal> {
        let counts = &local.counts;
        let why = match local.addresses.connection(from, local.connections_max) {
            // The few places behind are not for who has enough of its own.
            Err(NoPlace::Address) => {
                count(local, Refusal::TooManyOfAddress);
                return Err(Refusal::TooManyOfAddress);
            }
            Err(NoPlace::Process) => Refusal::TooManyConnections,
            Ok(permit) => match counts.handshake(local.handshakes_max) {
                Some(handshake) => return Ok((Self::Regular(permit), Some(handshake))),
                None => Refusal::TooManyHandshakes,
            },
        };
        Ok((Self::spare(local, why)?, None))
    }

    /// One for a stream, whose head has come.
    pub(super) fn of_stream<W: Worker>(local: &Local<W>) -> Result<Self, Refusal> {
        match local.addresses.stream(local.connections_max) {
            Some(permit) => Ok(Self::Regular(permit)),
            None => Self::spare(local, Refusal::TooManyConnections),
        }
    }

    fn spare<W: Worker>(local: &Local<W>, why: Refusal) -> Result<Self, Refusal> {
        match local.counts.spare(SPARE_MAX) {
            Some(permit) => Ok(Self::Spare(permit, why)),
            None => {
                count(local, why);
                Err(why)
            }
        }
    }

    /// Why it may not ask for everything.
    pub(super) fn bound(&self) -> Option<Refusal> {
        match self {
            Self::Regular(_) => None,
            Self::Spare(_, why) => Some(*why),
        }
    }

    /// The permit of one that may.
    pub(super) fn regular(self) -> Option<ConnectionPermit> {
        match self {
            Self::Regular(permit) => Some(permit),
            Self::Spare(..) => None,
        }
    }

    /// Its request has come: nobody takes the place any more.
    pub(super) fn heard(&self) {
        if let Self::Spare(permit, _) = self {
            permit.heard();
        }
    }

    /// Ends with why, when the place is lost to somebody who came later; `None` where that cannot be.
    pub(super) fn lost(&self) -> Option<Lost> {
        let Self::Spare(permit, why) = self else {
            return None;
        };
        let (lost, why) = (permit.lost(), *why);
        Some(Box::pin(async move {
            lost.await;
            why
        }))
    }

    /// What is kept while the socket is closed gently, which is bounded by itself: nobody who asks how the node is waits for
    /// that.
    pub(super) fn parting(self) -> Option<ConnectionPermit> {
        self.regular()
    }

    /// How long its heads may take.
    pub(super) fn header_timeout<W>(&self, local: &Local<W>) -> Duration {
        match self {
            Self::Regular(_) => local.header_timeout,
            Self::Spare(..) => local.header_timeout.min(SPARE_HEADER_TIMEOUT),
        }
    }
}

/// Somebody was refused for want of a place.
pub(super) fn count<W: Worker>(local: &Local<W>, why: Refusal) {
    let (counter, reason) = match why {
        Refusal::TooManyHandshakes => (
            &local.counts.refused_handshakes,
            metrics::Refusal::Handshakes,
        ),
        Refusal::TooManyOfAddress => (
            &local.counts.refused_connections,
            metrics::Refusal::PerAddress,
        ),
        _ => (
            &local.counts.refused_connections,
            metrics::Refusal::OverCapacity,
        ),
    };
    counter.fetch_add(1, Relaxed);
    metrics::refused(reason);
}
