//! Closing so that the last answer arrives. A socket that is closed while bytes of the peer are unread sends a reset,
//! which can overtake the answer: so the writing half is closed first, and what still comes is thrown away for a while.
//! A proxy that meets the reset in the middle of an upload loses the answer, and takes the node for broken.

use std::cell::Cell;
use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::time::Duration;

use super::Worker;
use super::local::Local;
use crate::tls::Stream;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;

/// Sockets of one worker in this state; beyond it they are written to and closed.
const LINGERING_MAX: usize = 256;

/// How long one may stay in it that has a place among the connections of the process, for as long as it goes on sending:
/// an upload of 10 MiB at 10 Mbit/s comes to its end.
pub(super) const UPLOAD: Duration = Duration::from_secs(10);

/// How long any other one may, and how long one may be silent.
pub(super) const MOMENT: Duration = Duration::from_secs(1);

/// How much is thrown away: more than `MAX_BODY_BYTES` unless that was raised, and some 20 ms of a core.
const LINGER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What one read takes.
const READ_BYTES: usize = 16 * 1024;

/// Writes `last` and closes the socket, within `time_max`.
pub(super) async fn close<W: Worker>(
    local: &Local<W>,
    mut socket: Stream,
    last: &[u8],
    time_max: Duration,
) {
    let Some(_place) = Place::take(&local.lingering) else {
        // What fits the socket at once still goes.
        let _ = timeout(Duration::ZERO, socket.write_all(last)).await;
        return;
    };
    // Neither an error nor the time's end changes anything: the socket is dropped.
    let _ = timeout(time_max, part(&mut socket, last)).await;
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
    timeout(MOMENT, bid_farewell(socket, last)).await??;
    let mut wasted = 0;
    while wasted < LINGER_BYTES_MAX {
        match timeout(MOMENT, waste(socket)).await?? {
            0 => break,
            bytes => wasted += bytes,
        }
    }
    Ok(())
}

async fn bid_farewell(socket: &mut Stream, last: &[u8]) -> std::io::Result<()> {
    socket.write_all(last).await?;
    socket.shutdown().await
}

/// Reads something for nobody; 0 at the end. The buffer is not the future's: every connection would hold one.
async fn waste(socket: &mut Stream) -> std::io::Result<usize> {
    poll_fn(|cx| {
        let mut buffer = [MaybeUninit::uninit(); READ_BYTES];
        let mut buffer = ReadBuf::uninit(&mut buffer);
        let read = Pin::new(&mut *socket).poll_read(cx, &mut buffer);
        read.map_ok(|()| buffer.filled().len())
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::{FarEnd, Pipe, Pulled};
    use bytes::Bytes;
    use tokio::time::{Instant, sleep};

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

    /// Sends a piece at a time, so many in all, with such a pause behind each; answers how many were taken, and what came
    /// until the other end was done.
    async fn send(
        mut far: FarEnd,
        bytes: usize,
        pieces: usize,
        pause: Duration,
    ) -> (usize, Pulled) {
        let mut sent = 0;
        while sent < pieces && poll_fn(|cx| far.poll_room(cx)).await.is_ok() {
            far.push(Bytes::from(vec![0; bytes]));
            sent += 1;
            sleep(pause).await;
        }
        let heard = poll_fn(|cx| far.poll_pull(cx)).await;
        if sent == pieces {
            far.end();
        }
        (sent, heard)
    }

    /// What [`part`] lets a peer send who would send all of that: pieces, and for how long.
    async fn lets_send(bytes: usize, pieces: usize, pause: Duration) -> (usize, Duration) {
        let (near, far) = Pipe::new(false);
        let began = Instant::now();
        let close = async {
            let mut socket = Stream::from(near);
            // Its end, its fault and its time's end are the same to whoever closes.
            let _ = timeout(UPLOAD, part(&mut socket, b"last")).await;
            drop(socket);
            began.elapsed()
        };
        let ((sent, heard), took) = tokio::join!(send(far, bytes, pieces, pause), close);
        assert_eq!(heard, Pulled::Bytes(Bytes::from_static(b"last")));
        (sent, took)
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_of_the_usual_bound_comes_to_its_end() {
        let (sent, _) = lets_send(64 * 1024, 160, Duration::from_millis(50)).await;
        assert_eq!(sent, 160);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_sends_for_ever() {
        let (_, took) = lets_send(1, 1_000_000, Duration::from_millis(900)).await;
        assert_eq!(took, UPLOAD);
        let (sent, took) = lets_send(64 * 1024, 1_000_000, Duration::ZERO).await;
        assert!(sent * 64 * 1024 < 2 * LINGER_BYTES_MAX, "{sent}");
        assert!(took < UPLOAD, "{took:?}");
        let (sent, took) = lets_send(1, 2, Duration::from_secs(5)).await;
        assert_eq!((sent, took), (1, MOMENT));
    }
}
