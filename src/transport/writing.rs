//! From a connection's queue to its socket.

use std::io::{self, ErrorKind, IoSlice};

use crate::hub::{ConnectionIndex, SendQueue};
use crate::model::CloseReason;

use super::carried::Stream;
use super::poll::{interest, token};
use super::shard::Shard;

/// How many frames go into one call: the kernel takes 1,024, but few are ever pending.
const SLICES: usize = 64;

/// How a write ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    /// The queue is empty.
    All,
    /// The socket takes no more now. Whether it took anything.
    Blocked { any: bool },
}

impl Shard {
    /// Writes what is pending, as far as the socket takes it.
    pub(super) fn write(&mut self, connection: ConnectionIndex) {
        let Some(socket) = self.sockets.get_mut(connection) else {
            return;
        };
        let Some(queue) = self.hub.queue(connection) else {
            return;
        };
        match write_all(&mut socket.stream, queue) {
            // What nearly every delivery comes to: nobody waits for the room.
            Ok(Written::All) if socket.wants_nothing() => {}
            Ok(Written::All) => {
                self.watch_writable(connection, false);
                self.written(connection);
            }
            Ok(Written::Blocked { any }) => {
                self.watch_writable(connection, true);
                if any {
                    // It reads: as good as a pong.
                    self.saw_pong(connection);
                }
            }
            Err(_) => self.remove(connection, CloseReason::ClientClosed),
        }
    }

    /// Everything was written.
    fn written(&mut self, connection: ConnectionIndex) {
        let Some(socket) = self.sockets.get_mut(connection) else {
            return;
        };
        if socket.is_closing() {
            return self.finish_close(connection);
        }
        self.read_on(connection);
        self.has_room(connection);
    }

    /// Asks to hear when the socket takes bytes again, or no longer.
    fn watch_writable(&mut self, connection: ConnectionIndex, watches: bool) {
        let Some(socket) = self.sockets.get_mut(connection) else {
            return;
        };
        if socket.watches_writable == watches {
            return;
        }
        socket.watches_writable = watches;
        self.hub.set_blocked(connection, watches);
        let registered = self.poll.registry().reregister(
            &mut socket.stream.socket,
            token(connection),
            interest(watches),
        );
        if registered.is_err() {
            self.remove(connection, CloseReason::InternalError);
        }
    }
}

fn write_all(stream: &mut Stream, queue: &mut SendQueue) -> io::Result<Written> {
    let mut any = false;
    while !queue.is_empty() {
        match write_once(stream, queue) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(bytes) => {
                queue.advance(bytes);
                any = true;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                return Ok(Written::Blocked { any });
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    match stream.flush()? {
        true => Ok(Written::All),
        false => Ok(Written::Blocked { any }),
    }
}

/// One system call: `send` for one frame, which is what light load brings, `writev` for several.
fn write_once(stream: &mut Stream, queue: &SendQueue) -> io::Result<usize> {
    if let Some(bytes) = queue.only() {
        return stream.write(bytes);
    }
    let mut slices = [IoSlice::new(&[]); SLICES];
    let filled = queue.slices(&mut slices);
    stream.write_vectored(&slices[..filled])
}
