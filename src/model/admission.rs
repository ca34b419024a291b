//! How many connections the process has, and each address: counted at the door, held by whoever owns the socket, read by statistics.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
    spare: Mutex<Spares>,
    closed: Notify,
}

/// Places beyond those of the connections.
#[derive(Debug, Default)]
struct Spares {
    taken: usize,
    /// Those who have asked for nothing yet, the oldest first.
    silent: VecDeque<Arc<Spare>>,
}

/// One of them, as long as it is held.
#[derive(Debug, Default)]
struct Spare {
    /// Somebody else has it now.
    is_lost: AtomicBool,
    lost: Notify,
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

    /// A place beyond those of the connections. Where `most` are taken it is that of whoever has had one for the longest
    /// without asking for anything; `None` when all have asked.
    pub fn spare(self: &Arc<Self>, most: usize) -> Option<SparePermit> {
        let mut spares = self.spares();
        if spares.taken < most {
            spares.taken += 1;
        } else {
            let former = spares.silent.pop_front()?;
            former.is_lost.store(true, Relaxed);
            former.lost.notify_one();
        }
        let spare = Arc::<Spare>::default();
        spares.silent.push_back(Arc::clone(&spare));
        Some(SparePermit {
            counts: Arc::clone(self),
            spare,
        })
    }

    fn spares(&self) -> MutexGuard<'_, Spares> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
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

/// One place beyond those of the connections. Keep it as long as the socket, or until it is lost.
#[derive(Debug)]
pub struct SparePermit {
    counts: Arc<ServerCounts>,
    spare: Arc<Spare>,
}

impl SparePermit {
    /// It has asked: from now on nobody takes its place. One that was lost stays lost.
    pub fn heard(&self) {
        self.counts.spares().forget(&self.spare);
    }

    /// Ends when the place is lost to somebody who came later.
    pub fn lost(&self) -> impl Future<Output = ()> + use<> {
        let spare = Arc::clone(&self.spare);
        async move {
            while !spare.is_lost.load(Relaxed) {
                spare.lost.notified().await;
            }
        }
    }
}

impl Drop for SparePermit {
    fn drop(&mut self) {
        let mut spares = self.counts.spares();
        spares.forget(&self.spare);
        // Who takes a place marks it so under the same lock.
        if !self.spare.is_lost.load(Relaxed) {
            spares.taken -= 1;
        }
    }
}

impl Spares {
    fn forget(&mut self, spare: &Arc<Spare>) {
        self.silent.retain(|other| !Arc::ptr_eq(other, spare));
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

    /// Whether a place is lost by now.
    fn is_lost(permit: &SparePermit) -> bool {
        let lost = std::pin::pin!(permit.lost());
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        lost.poll(&mut cx).is_ready()
    }

    #[test]
    fn the_oldest_that_asked_for_nothing_makes_way() {
        let counts = Arc::new(ServerCounts::default());
        let spare = || counts.spare(2);
        let (heard, silent) = (spare().expect("room"), spare().expect("room"));
        heard.heard();
        let third = spare().expect("that of the silent one");
        assert_eq!([&heard, &silent, &third].map(is_lost), [false, true, false]);
        let fourth = spare().expect("that of the third");
        assert!(is_lost(&third));
        fourth.heard();
        assert!(spare().is_none(), "both have asked");
        // Who has lost its place gives none back, and cannot have it again.
        silent.heard();
        drop((silent, third));
        assert!(spare().is_none());
        drop(heard);
        let fifth = spare().expect("a place that was given back");
        drop((fourth, fifth));
        let again = [spare(), spare()];
        assert!(again.iter().all(Option::is_some));
        assert_eq!(counts.spares().silent.len(), 2);
    }

    #[test]
    fn a_permit_is_one_pointer() {
        assert_eq!(size_of::<ConnectionPermit>(), size_of::<usize>());
    }
}
