//! Bytes that were read from a socket and that nobody has taken yet.

use std::future::Future as _;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// How much room a read gets.
const ROOM_BYTES: usize = 64 * 1024;
/// A read gets no less than this, so that a stream does not end up in drops.
const ROOM_BYTES_MIN: usize = 4 * 1024;

/// Bytes read from one socket, in order. Its buffer is borrowed for a turn ([`ReadAhead::lend`],
/// [`ReadAhead::reclaim`]), so that a silent connection holds none.
#[derive(Debug, Default)]
pub struct ReadAhead {
    bytes: Vec<u8>,
    start: usize,
}

impl ReadAhead {
    /// What nobody has taken yet.
    pub fn unread(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Whether that is nothing.
    pub fn is_empty(&self) -> bool {
        self.start == self.bytes.len()
    }

    /// Takes so many bytes away.
    pub fn consume(&mut self, count: usize) {
        self.start = self.bytes.len().min(self.start + count);
        if self.is_empty() {
            self.bytes.clear();
            self.start = 0;
        }
    }

    /// Reads once; 0 is the end. How much is held is the caller's matter: it reads again only when it has to.
    pub fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut (impl AsyncRead + Unpin),
    ) -> Poll<io::Result<usize>> {
        if self.bytes.capacity() - self.bytes.len() < ROOM_BYTES_MIN {
            self.bytes.drain(..self.start);
            self.start = 0;
            let room = if self.bytes.is_empty() {
                ROOM_BYTES
            } else {
                ROOM_BYTES_MIN
            };
            self.bytes.reserve(room);
        }
        let count = ready!(pin!(socket.read_buf(&mut self.bytes)).poll(cx))?;
        Poll::Ready(Ok(count))
    }

    /// Takes an empty buffer for one turn, where it has none; tells whether it did.
    pub fn lend(&mut self, buffer: &mut Vec<u8>) -> bool {
        let has_none = self.bytes.capacity() == 0;
        if has_none {
            std::mem::swap(&mut self.bytes, buffer);
            self.bytes.clear();
        }
        has_none
    }

    /// Gives the buffer back. What is left unread moves to one of its own size.
    pub fn reclaim(&mut self, buffer: &mut Vec<u8>) {
        if self.bytes.capacity() < ROOM_BYTES {
            return;
        }
        let left = self.unread().to_vec();
        self.start = 0;
        *buffer = std::mem::replace(&mut self.bytes, left);
    }

    /// What is unread, whole.
    pub fn into_unread(mut self) -> Vec<u8> {
        self.bytes.drain(..self.start);
        self.bytes
    }
}

impl From<Vec<u8>> for ReadAhead {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, start: 0 }
    }
}
