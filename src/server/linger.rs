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
    part_within(time_max, &mut socket, last).await;
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

/// Neither an error nor the time's end changes anything: the socket is dropped behind it.
async fn part_within(time_max: Duration, socket: &mut Stream, last: &[u8]) {
    let _ = timeout(time_max, part(socket, last)).await;
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
    use crate::tls::{Pipe, Pulled};
    use bytes::Bytes;
    use tokio::time::sleep;

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

    /// How many pieces of so many bytes a peer gets rid of who goes on sending, with such a pause behind each, until it has
    /// sent that many or is not heard any more. It gets the last words whatever it does.
    async fn gets_rid_of(
        pieces: usize,
        bytes: usize,
        pause: Duration,
        time_max: Duration,
    ) -> usize {
        let (near, mut far) = Pipe::new(false);
        let send = async {
            let mut sent = 0;
            while sent < pieces && poll_fn(|cx| far.poll_room(cx)).await.is_ok() {
                far.push(Bytes::from(vec![0; bytes]));
                sent += 1;
                sleep(pause).await;
            }
            let heard = poll_fn(|cx| far.poll_pull(cx)).await;
            assert_eq!(heard, Pulled::Bytes(Bytes::from_static(b"last")));
            far.end();
            sent
        };
        let close = async {
            let mut socket = Stream::from(near);
            part_within(time_max, &mut socket, b"last").await;
        };
        tokio::join!(send, close).0
    }

    const ENDLESS: usize = 1_000_000;
    const NO_PAUSE: Duration = Duration::ZERO;

    #[tokio::test]
    async fn an_upload_of_the_usual_bound_comes_to_its_end() {
        assert_eq!(gets_rid_of(160, 64 * 1024, NO_PAUSE, UPLOAD).await, 160);
    }

    #[tokio::test]
    async fn nobody_sends_for_ever() {
        let fast = gets_rid_of(ENDLESS, 1024 * 1024, NO_PAUSE, UPLOAD).await;
        assert!(fast <= LINGER_BYTES_MAX / (1024 * 1024) + 2, "{fast}");
        let pause = Duration::from_millis(1);
        let slow = gets_rid_of(ENDLESS, 1, pause, Duration::from_millis(20)).await;
        assert!(slow < ENDLESS);
        // One that is silent is not waited for.
        let silent = gets_rid_of(ENDLESS, 1, 2 * MOMENT, UPLOAD).await;
        assert!(silent < 10, "{silent}");
    }
}
