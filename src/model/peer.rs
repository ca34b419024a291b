//! What `server` leaves in a request's extensions about where it came from.

use std::net::SocketAddr;

/// Which worker of the process serves this request: 0 up to the number of workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WorkerIndex(pub usize);

/// The address at the other end of the socket, which may be a proxy's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PeerAddr(pub SocketAddr);

/// The request came over TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Encrypted;
