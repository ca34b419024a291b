//! Opening client sockets on the loopback network from several source addresses, and the limit on open files.
//! The one thing that it guarantees: no packet leaves this machine.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::AsRawFd;

use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Protocol, Socket, Type};

/// Connections a source address is used for. The range of ephemeral ports holds 28,232; the search for a free one
/// grows long well before that and would be measured as the server's slowness.
const CONNECTIONS_PER_ADDRESS: usize = 5_000;

/// Parses `host:port` and refuses everything but 127.0.0.0/8: a load generator aimed elsewhere is an attack.
pub(crate) fn loopback(address: &str) -> Result<SocketAddrV4, String> {
    let address: SocketAddrV4 = address
        .parse()
        .map_err(|_| format!("{address} is not an IPv4 address with port"))?;
    if address.ip().is_loopback() {
        Ok(address)
    } else {
        Err(format!("{address} is not in 127.0.0.0/8"))
    }
}

/// How many source addresses `connections` are spread over when the command line does not say.
pub(crate) fn addresses_for(connections: usize) -> u32 {
    connections.div_ceil(CONNECTIONS_PER_ADDRESS).clamp(1, 250) as u32
}

/// Where one socket comes from and goes to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Route {
    /// The server.
    pub(crate) target: SocketAddrV4,
    /// 0 leaves the source to the kernel; k binds 127.0.0.(1 + k).
    pub(crate) source: u32,
    /// A small receive buffer, for readers that are to look stalled soon.
    pub(crate) receive_bytes: Option<usize>,
}

/// Begins a connection without waiting for it.
pub(crate) fn open(route: Route) -> io::Result<mio::net::TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    if let Some(bytes) = route.receive_bytes {
        socket.set_recv_buffer_size(bytes)?;
    }
    if route.source > 0 {
        bind_address_no_port(&socket)?;
        let source = Ipv4Addr::from(u32::from(Ipv4Addr::LOCALHOST) + route.source);
        socket.bind(&SocketAddr::new(IpAddr::V4(source), 0).into())?;
    }
    match socket.connect(&SocketAddr::V4(route.target).into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    Ok(mio::net::TcpStream::from_std(socket.into()))
}

/// Leaves the choice of port to `connect`, which knows the peer and may use a port that another peer's socket has.
#[expect(
    unsafe_code,
    reason = "neither socket2 nor rustix offers IP_BIND_ADDRESS_NO_PORT"
)]
fn bind_address_no_port(socket: &Socket) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is open as long as `socket` is borrowed, and the value is an int of the length given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Raises the limit on open files to the hard limit and refuses a run that cannot fit under it.
pub(crate) fn require_files(wanted: usize) -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        };
        setrlimit(Resource::Nofile, raised).context("raising the limit on open files")?;
    }
    let room = limit.maximum.unwrap_or(u64::MAX);
    // Beside the connections: publishers, probes, pollers, /proc.
    let needed = wanted as u64 + 100;
    ensure!(
        needed <= room,
        "{wanted} connections need {needed} open files, the hard limit is {room}"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aims_at_nothing_but_loopback() {
        assert!(loopback("127.0.0.1:8080").is_ok());
        assert!(loopback("127.8.9.10:1").is_ok());
        for refused in [
            "10.0.0.1:80",
            "128.0.0.1:80",
            "0.0.0.0:80",
            "example.org:80",
            "127.0.0.1",
        ] {
            assert!(loopback(refused).is_err(), "{refused}");
        }
    }

    #[test]
    fn spreads_many_connections_over_addresses() {
        assert_eq!(addresses_for(1), 1);
        assert_eq!(addresses_for(5_000), 1);
        assert_eq!(addresses_for(18_000), 4);
    }
}
