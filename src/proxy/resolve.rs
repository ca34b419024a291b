//! Where a name leads: looked up when it is needed, remembered for a moment, asked again ever after.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;

/// How long an answer holds. Names of containers change hands within seconds.
const FRESH: Duration = Duration::from_secs(5);
/// How long an old answer stands in for a resolver that fails.
const STALE_MAX: Duration = Duration::from_secs(300);
/// How long a connection to a name may be used.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(60);

/// One host and port.
#[derive(Debug)]
pub(super) struct Resolver {
    place: Place,
    /// Counts the connections: each begins with another address of the name.
    turn: AtomicUsize,
}

#[derive(Debug)]
enum Place {
    Known(SocketAddr),
    Named {
        host: Box<str>,
        port: u16,
        found: Mutex<Option<Found>>,
    },
}

#[derive(Debug, Clone)]
struct Found {
    addresses: Arc<[SocketAddr]>,
    at: Instant,
}

impl Resolver {
    /// Of a name or an address.
    pub(super) fn new(host: &str, port: u16) -> Self {
        let place = match host.parse::<IpAddr>() {
            Ok(ip) => Place::Known(SocketAddr::new(ip, port)),
            Err(_) => Place::Named {
                host: host.into(),
                port,
                found: Mutex::default(),
            },
        };
        Self {
            place,
            turn: AtomicUsize::new(0),
        }
    }

    /// For how long a connection may be used; as long as one likes where no name is.
    pub(super) fn age_max(&self) -> Option<Duration> {
        matches!(self.place, Place::Named { .. }).then_some(CONNECTION_AGE_MAX)
    }

    /// Connects to one of the addresses; those that fail are followed by the others.
    pub(super) async fn connect(&self) -> io::Result<TcpStream> {
        let addresses = match &self.place {
            Place::Known(address) => return TcpStream::connect(address).await,
            Place::Named { host, port, found } => find(host, *port, found).await?,
        };
        let turn = self.turn.fetch_add(1, Relaxed);
        let mut failure = io::ErrorKind::AddrNotAvailable.into();
        for index in 0..addresses.len() {
            match TcpStream::connect(addresses[(turn + index) % addresses.len()]).await {
                Ok(socket) => return Ok(socket),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }
}

async fn find(
    host: &str,
    port: u16,
    found: &Mutex<Option<Found>>,
) -> io::Result<Arc<[SocketAddr]>> {
    let known = found.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if let Some(known) = &known
        && known.at.elapsed() < FRESH
    {
        return Ok(known.addresses.clone());
    }
    let looked_up = tokio::net::lookup_host((host, port)).await;
    let failure = match looked_up.map(|all| all.collect::<Arc<[SocketAddr]>>()) {
        Ok(addresses) if !addresses.is_empty() => {
            let at = Instant::now();
            let new = Found {
                addresses: addresses.clone(),
                at,
            };
            *found.lock().unwrap_or_else(PoisonError::into_inner) = Some(new);
            return Ok(addresses);
        }
        Ok(_) => io::ErrorKind::AddrNotAvailable.into(),
        Err(error) => error,
    };
    match known.filter(|known| known.at.elapsed() < STALE_MAX) {
        Some(known) => {
            tracing::debug!(%failure, host, "a name is not found any more: its last addresses stand in");
            Ok(known.addresses)
        }
        None => Err(failure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_leads_to_its_addresses_in_turn() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let resolver = Resolver::new("localhost", port);
        // `localhost` may be ::1 too, where nobody listens: each connection must come through all the same.
        for _ in 0..4 {
            let socket = resolver.connect().await.expect("a connection");
            assert_eq!(socket.peer_addr().expect("a peer").port(), port);
        }
        assert!(resolver.age_max().is_some());
        assert!(Resolver::new("::1", port).age_max().is_none());
    }

    #[tokio::test]
    async fn old_addresses_stand_in_for_a_name_that_is_not_found_any_more() {
        let addresses: Arc<[SocketAddr]> = [SocketAddr::from(([127, 0, 0, 1], 1))].into();
        // No label may be so long: no server is asked.
        let name = "x".repeat(64);
        let at = |age| Instant::now().checked_sub(age).expect("the machine is up");
        let check = async |age| {
            let known = Found {
                addresses: addresses.clone(),
                at: at(age),
            };
            find(&name, 1, &Mutex::new(Some(known))).await.ok()
        };
        assert_eq!(check(FRESH * 2).await, Some(addresses.clone()));
        assert_eq!(check(STALE_MAX).await, None);
    }
}
