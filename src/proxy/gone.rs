//! Whether a client still waits for its answer.

use std::task::{Context, Poll, ready};

use crate::http1::Peer;

/// Most bytes that are read of a client whose request is whole and whose answer is not.
const AHEAD_BYTES_MAX: usize = 64 * 1024;

/// Ready when the client has gone. What it sends meanwhile stays read ahead; with [`AHEAD_BYTES_MAX`] nobody looks any
/// more, so that whatever is waited for has to have a time-out, or [`is_flooding`] its say.
pub(super) fn poll_gone(cx: &mut Context<'_>, peer: &mut Peer<'_>) -> Poll<()> {
    while !is_flooding(peer) {
        match ready!(peer.read.poll_fill(cx, peer.socket)) {
            Ok(0) | Err(_) => return Poll::Ready(()),
            Ok(_) => {}
        }
    }
    Poll::Pending
}

/// Whether a client has sent as much ahead of its answer as is read.
pub(super) fn is_flooding(peer: &Peer<'_>) -> bool {
    peer.read.unread().len() >= AHEAD_BYTES_MAX
}
