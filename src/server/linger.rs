//! Closing so that the last answer arrives. A socket that is closed while bytes of the peer are unread sends a reset,
//! which can overtake the answer: so the writing half is closed first, and what still comes is thrown away for a moment.

use std::time::Duration;

use super::Worker;
use super::local::Local;
use crate::tls::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Sockets of one worker in this state; beyond it they are just closed.
const LINGERING_MAX: usize = 256;

/// How long one may stay in it.
const LINGER_TIME_MAX: Duration = Duration::from_secs(1);

/// How much is thrown away.
const LINGER_BYTES_MAX: usize = 256 * 1024;

/// Writes `last` and closes the socket.
pub(super) async fn close<W: Worker>(local: &Local<W>, mut socket: Stream, last: &[u8]) {
    if local.lingering.get() >= LINGERING_MAX {
        return;
    }
    local.lingering.set(local.lingering.get() + 1);
    // Neither an error nor the time's end changes anything: the socket is dropped.
    let _ = tokio::time::timeout(LINGER_TIME_MAX, part(&mut socket, last)).await;
    local.lingering.set(local.lingering.get() - 1);
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
