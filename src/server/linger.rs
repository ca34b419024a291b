//! Closing so that the last answer arrives. A socket that is closed while bytes of the peer are unread sends a reset,
//! which can overtake the answer: so the writing half is closed first, and what still comes is thrown away for a moment.

use std::cell::Cell;
use std::time::Duration;

use super::Worker;
use super::local::Local;
use crate::tls::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Sockets of one worker in this state; beyond it they are written to and closed.
const LINGERING_MAX: usize = 256;

/// How long one may stay in it.
const LINGER_TIME_MAX: Duration = Duration::from_secs(1);

/// How much is thrown away.
const LINGER_BYTES_MAX: usize = 256 * 1024;

/// Writes `last` and closes the socket.
pub(super) async fn close<W: Worker>(local: &Local<W>, mut socket: Stream, last: &[u8]) {
    let Some(_place) = Place::take(&local.lingering) else {
        // What fits the socket at once still goes.
        let _ = tokio::time::timeout(Duration::ZERO, socket.write_all(last)).await;
        return;
    };
    // Neither an error nor the time's end changes anything: the socket is dropped.
    let _ = tokio::time::timeout(LINGER_TIME_MAX, part(&mut socket, last)).await;
}

/// One of the places; given back even when the wait is dropped half way, as that of a stream within a connection is.
struct Place<'a>(&'a Cell<usize>);

impl<'a> Place<'a> {
    fn take(taken: &'a Cell<usize>) -> Option<Self> {
        if taken.get() >= LINGERING_MAX {
            return None;
        }
        taken.set(taken.get() + 1);
        Some(Self(taken))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

async fn part(socket: &mut Stream, last: &[u8]) -> std::io::Result<()> {
    socket.write_all(last).await?;
    socket.shutdown().await?;
    let mut waste = [0; 1024];
    let mut read = 0;
    while read < LINGER_BYTES_MAX {
        match socket.read(&mut waste).await? {
            0 => break,
            bytes => read += bytes,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_comes_back_however_the_wait_ends() {
        let taken = Cell::new(LINGERING_MAX - 1);
        let place = Place::take(&taken);
        assert!(place.is_some());
        assert!(Place::take(&taken).is_none());
        drop(place);
        assert!(Place::take(&taken).is_some());
        assert_eq!(taken.get(), LINGERING_MAX - 1);
    }
}
