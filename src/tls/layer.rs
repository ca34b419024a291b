//! TLS over a socket that somebody else polls: what a worker's connection keeps beside its socket.
//!
//! Sans runtime: it reads and writes the socket that it is given, and says `WouldBlock` as a socket would.

use std::io::{self, ErrorKind, IoSlice, Read, Write};

use rustls::ServerConnection;

/// A socket that notes whether a read got all that it had room for: otherwise the socket has no more, and asking would
/// cost a call for each message.
struct Once<'a, S> {
    socket: &'a mut S,
    was_filled: bool,
}

impl<S: Read> Read for Once<'_, S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.socket.read(buffer)?;
        self.was_filled = count == buffer.len();
        Ok(count)
    }
}

/// One connection's TLS, after its handshake.
#[derive(Debug)]
pub struct Layer(Box<ServerConnection>);

impl Layer {
    pub(super) fn new(session: ServerConnection) -> Self {
        Self(Box::new(session))
    }

    /// Reads plain text, as `read` of a socket does: 0 at the end, `WouldBlock` when there is none. A buffer that is not
    /// filled says that the socket has nothing more.
    ///
    /// # Errors
    /// The socket's, or `InvalidData` when the peer breaks the protocol.
    pub fn read(&mut self, mut socket: impl Read + Write, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        let mut has_more = true;
        loop {
            match self.0.reader().read(&mut buffer[filled..]) {
                // The peer has said farewell.
                Ok(0) => return Ok(filled),
                Ok(count) => filled += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // Cut without a farewell: whoever reads knows by itself whether something is missing.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(filled),
                Err(error) => return Err(error),
            }
            match has_more {
                _ if filled == buffer.len() => return Ok(filled),
                true => {}
                false if filled > 0 => return Ok(filled),
                // Part of a record.
                false => return Err(ErrorKind::WouldBlock.into()),
            }
            match self.read_records(&mut socket) {
                Ok(more) => has_more = more,
                Err(error) if filled == 0 || error.kind() == ErrorKind::InvalidData => {
                    return Err(error);
                }
                // What was read comes first; the error comes again.
                Err(_) => return Ok(filled),
            }
        }
    }

    /// Reads once; tells whether there may be more: another read, or the socket's end, which the reader then tells.
    fn read_records(&mut self, socket: &mut (impl Read + Write)) -> io::Result<bool> {
        let mut once = Once {
            socket,
            was_filled: false,
        };
        let count = self.0.read_tls(&mut once)?;
        let has_more = once.was_filled || count == 0;
        let processed = self.0.process_new_packets();
        // What it wants to answer: a new key, or why it gives up. A socket that is full takes it with the next write.
        if self.0.wants_write() {
            let _ = self.flush(socket);
        }
        let invalid = |error| io::Error::new(ErrorKind::InvalidData, error);
        processed.map(|_| has_more).map_err(invalid)
    }

    /// Writes plain text; tells how much of it was taken, which is more than nothing. What was encrypted and not taken by
    /// the socket goes with [`Layer::flush`].
    ///
    /// # Errors
    /// The socket's; `WouldBlock` when it does not even take what came before.
    pub fn write(&mut self, mut socket: impl Write, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if !self.flush(&mut socket)? {
            return Err(ErrorKind::WouldBlock.into());
        }
        let taken = self.0.writer().write_vectored(slices)?;
        self.flush(&mut socket)?;
        Ok(taken)
    }

    /// Writes what is encrypted already; tells whether the socket took all of it.
    ///
    /// # Errors
    /// The socket's, other than `WouldBlock`.
    pub fn flush(&mut self, mut socket: impl Write) -> io::Result<bool> {
        while self.0.wants_write() {
            match self.0.write_tls(&mut socket) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Says farewell (RFC 8446 section 6.1), as far as the socket takes it now.
    pub fn close(&mut self, socket: impl Write) {
        self.0.send_close_notify();
        // Whoever does not hear it sees the socket end.
        let _ = self.flush(socket);
    }
}
