//! The socket of a connection, plain or encrypted, as the worker's loop reads and writes it.

use std::io::{self, IoSlice, Read, Write};
use std::net::Shutdown;

use mio::net::TcpStream;

use crate::tls::Layer;

/// A socket and, where TLS is spoken, its layer.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) socket: TcpStream,
    layer: Option<Layer>,
}

impl Stream {
    pub(super) fn new(socket: std::net::TcpStream, layer: Option<Layer>) -> Self {
        Self {
            socket: TcpStream::from_std(socket),
            layer,
        }
    }

    /// Whether the layer may hold bytes of which the socket tells nothing.
    pub(super) fn may_hold_input(&self) -> bool {
        self.layer.is_some()
    }

    /// Reads once, as a socket does.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.layer {
            None => self.socket.read(buffer),
            Some(layer) => layer.read(&mut self.socket, buffer),
        }
    }

    /// Writes these bytes, or some of them.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.layer {
            None => self.socket.write(bytes),
            Some(layer) => layer.write(&mut self.socket, &[IoSlice::new(bytes)]),
        }
    }

    /// The same with several pieces.
    pub(super) fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match &mut self.layer {
            None => self.socket.write_vectored(slices),
            Some(layer) => layer.write(&mut self.socket, slices),
        }
    }

    /// Whether the socket took all that was written: an encrypted one may hold what it has encrypted.
    pub(super) fn flush(&mut self) -> io::Result<bool> {
        match &mut self.layer {
            None => Ok(true),
            Some(layer) => layer.flush(&mut self.socket),
        }
    }

    /// Shuts our side.
    pub(super) fn shut(&mut self) {
        if let Some(layer) = &mut self.layer {
            layer.close(&mut self.socket);
        }
        // A socket that is gone already needs no shutdown.
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// Says farewell, where the protocol has one, before the socket is closed.
    pub(super) fn part(&mut self) {
        if let Some(layer) = &mut self.layer {
            layer.close(&mut self.socket);
        }
    }
}
