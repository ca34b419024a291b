//! One client connection: a socket, the phase of its conversation, the bytes of a unit that has not wholly come, and
//! the bytes that the socket has not taken. Both buffers are empty, and own no memory, nearly always: tens of thousands
//! of these exist.

use std::io::{ErrorKind, Read, Write};

use mio::net::TcpStream;

/// How far the conversation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The TCP handshake runs.
    Connecting,
    /// The HTTP request is sent.
    Upgrading,
    /// The server's first message or the answer to `subscribe` is awaited.
    Joining,
    /// In its working state.
    Live,
    /// Live, and never read again.
    Stalled,
    /// Over, by whomever.
    Closed,
}

/// What a read brought.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arrived {
    /// The buffer holds that many bytes; the socket is empty now.
    Last(usize),
    /// The buffer is full; there may be more.
    More(usize),
    /// Nothing.
    Nothing,
    /// The connection is over.
    End,
}

/// See the head of the file.
pub(crate) struct Connection {
    pub(crate) socket: TcpStream,
    pub(crate) phase: Phase,
    carry: Vec<u8>,
    unsent: Vec<u8>,
}

impl Connection {
    /// A connection that has just begun.
    pub(crate) fn new(socket: TcpStream) -> Self {
        Connection {
            socket,
            phase: Phase::Connecting,
            carry: Vec::new(),
            unsent: Vec::new(),
        }
    }

    /// Fills `buffer` with what was carried over and what the socket has.
    #[inline]
    pub(crate) fn receive(&mut self, buffer: &mut [u8]) -> Arrived {
        let carried = self.carry.len();
        if carried > 0 {
            buffer[..carried].copy_from_slice(&self.carry);
        }
        match self.socket.read(&mut buffer[carried..]) {
            Ok(0) => Arrived::End,
            Ok(read) if carried + read == buffer.len() => Arrived::More(carried + read),
            // A short read has emptied the socket: the next bytes bring a new edge (epoll(7)).
            Ok(read) => Arrived::Last(carried + read),
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                Arrived::Nothing
            }
            Err(_) => Arrived::End,
        }
    }

    /// Keeps the beginning of a unit for the next read. False when it is so long that it will never fit.
    #[inline]
    pub(crate) fn carry(&mut self, rest: &[u8], buffer: usize) -> bool {
        if rest.is_empty() {
            if self.carry.capacity() > 0 {
                self.carry = Vec::new();
            }
            return true;
        }
        self.carry.clear();
        self.carry.extend_from_slice(rest);
        rest.len() < buffer
    }

    /// Sends, or keeps what the socket does not take. False when the connection is over.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> bool {
        if !self.unsent.is_empty() {
            self.unsent.extend_from_slice(bytes);
            return true;
        }
        match write_some(&mut self.socket, bytes) {
            Some(written) => {
                self.unsent.extend_from_slice(&bytes[written..]);
                true
            }
            None => false,
        }
    }

    /// The socket is writable again. False when the connection is over.
    pub(crate) fn flush(&mut self) -> bool {
        if self.unsent.is_empty() {
            return true;
        }
        let unsent = std::mem::take(&mut self.unsent);
        self.send(&unsent)
    }

    /// Bytes that the socket has not taken yet.
    pub(crate) fn unsent(&self) -> usize {
        self.unsent.len()
    }
}

/// How much the socket took; nothing when it is broken.
fn write_some(socket: &mut TcpStream, bytes: &[u8]) -> Option<usize> {
    let mut written = 0;
    while written < bytes.len() {
        match socket.write(&bytes[written..]) {
            Ok(0) => return None,
            Ok(count) => written += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
    Some(written)
}
