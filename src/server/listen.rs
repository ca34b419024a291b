//! Listeners and the file limit: what is asked of the system before the first thread starts.

use std::io;
use std::net::{SocketAddr, TcpListener};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Protocol, Socket, Type};

use super::ServerError;

/// Connections that the kernel may hold for one worker before it accepts them. `net.core.somaxconn` bounds it too.
const BACKLOG: i32 = 4096;

/// One listener per worker, all on one port. The kernel deals connections out among them (`SO_REUSEPORT`).
///
/// Systems where it does not balance (macOS) serve everything on the last worker's listener: correct, but not spread.
pub(super) fn bind(address: SocketAddr, workers: usize) -> Result<Vec<TcpListener>, ServerError> {
    let fault = |cause| ServerError::Bind { address, cause };
    if address.port() != 0 {
        // SO_REUSEPORT would let a second process of this user share the port unnoticed: ask without it first.
        socket(address, false).map_err(fault)?;
    }
    let first = listen(address).map_err(fault)?;
    let address = first.local_addr().map_err(fault)?;
    let mut listeners = vec![first];
    for _ in 1..workers {
        listeners.push(listen(address).map_err(fault)?);
    }
    Ok(listeners)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(address, true)?;
    // Accepted sockets inherit it, which saves a system call for each.
    socket.set_tcp_nodelay(true)?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn socket(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Raises the soft limit of open files to the hard one, and tells it.
pub(super) fn raise_file_limit(connections_max: usize) {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, raised)
    {
        tracing::warn!(%error, "cannot raise the soft limit of open files to the hard one");
    }
    let files = getrlimit(Resource::Nofile).current;
    tracing::info!(limit = files, "open files allowed");
    if files.is_some_and(|files| files < connections_max as u64) {
        tracing::warn!(
            limit = files,
            connections_max,
            "the limit of open files is below MAX_CONNECTIONS: raise `ulimit -n` (LimitNOFILE in systemd, --ulimit \
             nofile in Docker)"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_workers_share_the_port_that_the_first_was_given() {
        let listeners = bind(SocketAddr::from(([127, 0, 0, 1], 0)), 3).expect("a free port");
        let ports: Vec<u16> = listeners
            .iter()
            .map(|listener| listener.local_addr().expect("a bound address").port())
            .collect();
        assert!(ports[0] != 0 && ports.iter().all(|port| *port == ports[0]));
    }

    #[test]
    fn a_taken_port_is_named_although_it_could_be_shared() {
        let taken = bind(SocketAddr::from(([127, 0, 0, 1], 0)), 1).expect("a free port");
        let address = taken[0].local_addr().expect("a bound address");
        let error = bind(address, 1).expect_err("the port is taken");
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }
}
