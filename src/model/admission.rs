//! How many connections the process has: counted at the door, held by whoever owns the socket, read by statistics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use tokio::sync::Notify;

/// Counts of the process, shared by all workers. The numbers are exact; readings of several may be a moment apart.
#[derive(Debug, Default)]
pub struct ServerCounts {
    /// Sockets accepted since the start, refused ones included.
    pub accepted: AtomicU64,
    /// Sockets refused because the process had its most connections.
    pub refused_connections: AtomicU64,
    /// Sockets refused because too many were in their first request's head.
    pub refused_handshakes: AtomicU64,
    /// Requests that reached the router.
    pub requests: AtomicU64,
    /// Sockets handed over to a worker.
    pub upgraded: AtomicU64,
    /// Connections ended because a head did not arrive in time.
    pub header_timeouts: AtomicU64,
    /// Handlers that panicked; each was answered 500.
    pub panics: AtomicU64,
    /// Times that accepting paused because no file descriptor was left.
    pub accept_pauses: AtomicU64,
    open: AtomicUsize,
    handshakes: AtomicUsize,
    spare: AtomicUsize,
    closed: Notify,
}

impl ServerCounts {
    /// Connections that are open now, HTTP and upgraded together.
    pub fn open(&self) -> usize {
        self.open.load(Relaxed)
    }

    /// Connections that have not sent their first request's head yet.
    pub fn handshakes(&self) -> usize {
        self.handshakes.load(Relaxed)
    }

    /// A place among the connections, or `None` when `most` are taken.
    pub fn connection(self: &Arc<Self>, most: usize) -> Option<ConnectionPermit> {
        take(&self.open, most).then(|| ConnectionPermit(Arc::clone(self)))
    }

    /// A place beyond those of the connections, or `None` when `most` are taken.
    pub fn spare(self: &Arc<Self>, most: usize) -> Option<SparePermit> {
        take(&self.spare, most).then(|| SparePermit(Arc::clone(self)))
    }

    /// A place among the handshakes, or `None` when `most` are taken.
    pub fn handshake(self: &Arc<Self>, most: usize) -> Option<HandshakePermit> {
        take(&self.handshakes, most).then(|| HandshakePermit(Arc::clone(self)))
    }

    /// Waits until any connection of the process ends.
    pub async fn next_close(&self) {
        self.closed.notified().await;
    }
}

/// One connection's place. Dropping it makes room for another: keep it as long as the socket.
#[derive(Debug)]
pub struct ConnectionPermit(Arc<ServerCounts>);

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
        self.0.closed.notify_waiters();
    }
}

/// One place beyond those of the connections. Keep it as long as the socket.
#[derive(Debug)]
pub struct SparePermit(Arc<ServerCounts>);

impl Drop for SparePermit {
    fn drop(&mut self) {
        self.0.spare.fetch_sub(1, Relaxed);
    }
}

/// One handshake's place, given back when the first request's head has arrived or the socket has gone.
#[derive(Debug)]
pub struct HandshakePermit(Arc<ServerCounts>);

impl Drop for HandshakePermit {
    fn drop(&mut self) {
        self.0.handshakes.fetch_sub(1, Relaxed);
    }
}

/// Adds one unless that would be over `most`. A momentary excess by racing workers is taken back before anyone is
/// admitted on it.
fn take(count: &AtomicUsize, most: usize) -> bool {
    let admitted = count.fetch_add(1, Relaxed) < most;
    if !admitted {
        count.fetch_sub(1, Relaxed);
    }
    admitted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_permit_makes_room() {
        let counts = Arc::new(ServerCounts::default());
        let first = counts.connection(1);
        assert!(first.is_some());
        assert!(counts.connection(1).is_none());
        assert_eq!(counts.open(), 1);
        drop(first);
        assert!(counts.connection(1).is_some());
        assert_eq!(counts.open(), 0);
    }

    #[test]
    fn a_permit_is_one_pointer() {
        assert_eq!(size_of::<ConnectionPermit>(), size_of::<usize>());
    }
}
