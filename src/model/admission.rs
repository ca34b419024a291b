//! How many connections the process has, and each address: counted at the door, held by whoever owns the socket, read by statistics.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use super::network::{contains, counted_as};

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
pub struct ConnectionPermit(Arc<Holder>);

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let Holder { counts, open } = &*self.0;
        open.fetch_sub(1, Relaxed);
        counts.open.fetch_sub(1, Relaxed);
        counts.closed.notify_waiters();
    }
}

/// For whom places are held: an address, or all that are not counted by themselves.
#[derive(Debug)]
struct Holder {
    counts: Arc<ServerCounts>,
    open: AtomicUsize,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoPlace {
    /// The process has its most connections.
    Process,
    /// The address has.
    Address,
}

/// Who has how many places, shared by all workers.
#[derive(Debug)]
pub struct Addresses {
    /// The most connections of an address; 0 counts none.
    most: usize,
    /// Who is not counted: balancers and proxies bring the connections of many.
    exempt: Vec<(IpAddr, u8)>,
    everybody: Arc<Holder>,
    holders: Mutex<Holders>,
}

#[derive(Debug, Default)]
struct Holders {
    table: HashMap<IpAddr, Arc<Holder>>,
    /// At so many entries those without a connection are forgotten.
    swept_at: usize,
}

/// The fewest entries that are swept.
const SWEPT_MIN: usize = 1024;

impl Addresses {
    /// None has a place; each may have `most` (0 is no bound), but for those in `exempt`.
    pub fn new(counts: &Arc<ServerCounts>, most: usize, exempt: &[(IpAddr, u8)]) -> Self {
        Self {
            most,
            exempt: exempt.to_vec(),
            everybody: Arc::new(Holder::new(counts)),
            holders: Mutex::default(),
        }
    }

    /// Where all of it counts.
    pub fn counts(&self) -> &Arc<ServerCounts> {
        &self.everybody.counts
    }

    /// A place for a connection from there, of `most` that the process has.
    ///
    /// # Errors
    /// Which bound it would be over.
    pub fn connection(&self, from: IpAddr, most: usize) -> Result<ConnectionPermit, NoPlace> {
        let from = from.to_canonical();
        let is_exempt = || self.exempt.iter().any(|one| contains(*one, from));
        match self.most == 0 || is_exempt() {
            true => self.everybody.place(most, usize::MAX),
            false => self.holder(counted_as(from)).place(most, self.most),
        }
    }

    /// A place for what is no connection by itself, and has one behind it.
    pub fn stream(&self, most: usize) -> Option<ConnectionPermit> {
        self.everybody.place(most, usize::MAX).ok()
    }

    fn holder(&self, address: IpAddr) -> Arc<Holder> {
        let mut holders = self.holders.lock().unwrap_or_else(PoisonError::into_inner);
        let Holders { table, swept_at } = &mut *holders;
        if table.len() >= (*swept_at).max(SWEPT_MIN) {
            // Nobody takes a place meanwhile: whoever has the holder counts as one who holds it.
            table.retain(|_, holder| Arc::strong_count(holder) > 1);
            table.shrink_to(2 * table.len());
            *swept_at = 2 * table.len();
        }
        let new = || Arc::new(Holder::new(&self.everybody.counts));
        Arc::clone(table.entry(address).or_insert_with(new))
    }
}

impl Holder {
    fn new(counts: &Arc<ServerCounts>) -> Self {
        Self {
            counts: Arc::clone(counts),
            open: AtomicUsize::new(0),
        }
    }

    fn place(self: &Arc<Self>, most: usize, most_here: usize) -> Result<ConnectionPermit, NoPlace> {
        if !take(&self.open, most_here) {
            return Err(NoPlace::Address);
        }
        if !take(&self.counts.open, most) {
            self.open.fetch_sub(1, Relaxed);
            return Err(NoPlace::Process);
        }
        Ok(ConnectionPermit(Arc::clone(self)))
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
    use std::net::Ipv4Addr;

    use super::*;

    const ANN: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    const BOB: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));

    fn addresses(most: usize, exempt: &[(IpAddr, u8)]) -> (Arc<ServerCounts>, Addresses) {
        let counts = Arc::new(ServerCounts::default());
        let addresses = Addresses::new(&counts, most, exempt);
        (counts, addresses)
    }

    #[test]
    fn a_dropped_permit_makes_room() {
        let (counts, addresses) = addresses(0, &[]);
        let first = addresses.connection(ANN, 1).expect("room");
        assert_eq!(addresses.connection(BOB, 1).err(), Some(NoPlace::Process));
        assert_eq!(counts.open(), 1);
        drop(first);
        assert!(addresses.connection(BOB, 1).is_ok());
        assert_eq!(counts.open(), 0);
    }

    #[test]
    fn an_address_has_its_own_bound_and_a_proxy_has_none() {
        let (counts, addresses) = addresses(2, &[(BOB, 32)]);
        let mut anns: Vec<_> = (0..2).map(|_| addresses.connection(ANN, 9)).collect();
        assert!(anns.iter().all(Result::is_ok));
        let mapped = "::ffff:192.0.2.1".parse().expect("an address");
        assert_eq!(
            addresses.connection(mapped, 9).err(),
            Some(NoPlace::Address)
        );
        let bobs: Vec<_> = (0..5).map(|_| addresses.connection(BOB, 9)).collect();
        assert!(bobs.iter().all(Result::is_ok));
        assert!(addresses.stream(9).is_some());
        anns.pop();
        assert!(addresses.connection(ANN, 9).is_ok());
        drop((anns, bobs));
        assert_eq!(counts.open(), 0);
    }

    #[test]
    fn of_ipv6_a_network_is_counted() {
        let (_, addresses) = addresses(1, &[]);
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        let _one = addresses.connection(ip("2001:db8::1"), 9).expect("room");
        assert!(addresses.connection(ip("2001:db8::ffff:2"), 9).is_err());
        assert!(addresses.connection(ip("2001:db8:0:1::1"), 9).is_ok());
    }

    #[test]
    fn what_the_process_refuses_is_not_counted_for_the_address() {
        let (_, addresses) = addresses(1, &[]);
        let first = addresses.connection(BOB, 1).expect("room");
        for _ in 0..3 {
            assert_eq!(addresses.connection(ANN, 1).err(), Some(NoPlace::Process));
        }
        drop(first);
        assert!(addresses.connection(ANN, 1).is_ok());
    }

    #[test]
    fn addresses_that_left_are_forgotten() {
        let (_, addresses) = addresses(1, &[]);
        let ip = |number: usize| Ipv4Addr::from_bits(u32::try_from(number).expect("small")).into();
        let kept: Vec<_> = (0..10)
            .map(|number| addresses.connection(ip(number), 99))
            .collect();
        for number in 10..10 * SWEPT_MIN {
            drop(addresses.connection(ip(number), 99));
        }
        let holders = addresses.holders.lock().expect("nobody panicked");
        assert!(holders.table.len() <= SWEPT_MIN, "{}", holders.table.len());
        assert!((0..10).all(|number| holders.table.contains_key(&ip(number))));
        assert!(kept.iter().all(Result::is_ok));
    }

    #[test]
    fn a_permit_is_one_pointer() {
        assert_eq!(size_of::<ConnectionPermit>(), size_of::<usize>());
    }
}
