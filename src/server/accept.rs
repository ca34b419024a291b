//! The accept loop of one worker, and who is let in.

use std::cell::Cell;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rustix::io::Errno;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{spawn_local, yield_now};
use tokio::time::{Instant, timeout};

use super::answer::Refusal;
use super::local::Local;
use super::place::Place;
use super::{Worker, connection, encrypted, linger};
use crate::telemetry::metrics;

/// Sockets accepted in one go before others on this thread have their turn.
const ACCEPTS_MAX: usize = 64;

/// How long to wait for a file descriptor when none closes.
const PAUSE: Duration = Duration::from_millis(100);

/// How often to say that file descriptors are short.
const PAUSE_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Accepts for ever.
pub(super) async fn accept<W: Worker>(local: &Rc<Local<W>>, listener: &TcpListener) -> Infallible {
    let logged = Cell::new(None);
    loop {
        for _ in 0..ACCEPTS_MAX {
            match listener.accept().await {
                Ok((socket, peer)) => admit(local, socket, peer),
                Err(error) => recover(local, &error, &logged).await,
            }
        }
        yield_now().await;
    }
}

/// Accepts what the kernel has completed already, then closes the listener: these clients were promised a server.
pub(super) fn accept_last<W: Worker>(
    local: &Rc<Local<W>>,
    listener: TcpListener,
) -> io::Result<()> {
    let listener = listener.into_std()?;
    // Ends with WouldBlock when the queue is empty; any other error ends it just as well.
    while let Ok((socket, peer)) = listener.accept() {
        socket.set_nonblocking(true)?;
        admit(local, TcpStream::from_std(socket)?, peer);
    }
    Ok(())
}

fn admit<W: Worker>(local: &Rc<Local<W>>, socket: TcpStream, peer: SocketAddr) {
    local.counts.accepted.fetch_add(1, Relaxed);
    let (place, handshake) = match Place::of_connection(local, peer.ip()) {
        Ok(places) => places,
        Err(refusal) => return refuse(local, socket, refusal),
    };
    let local = Rc::clone(local);
    match local.acceptor.clone() {
        None => {
            let socket = socket.into();
            spawn_local(connection::serve(local, socket, peer, place, handshake));
        }
        Some(acceptor) => {
            spawn_local(encrypted::serve(
                local, acceptor, socket, peer, place, handshake,
            ));
        }
    }
}

fn refuse<W: Worker>(local: &Rc<Local<W>>, socket: TcpStream, refusal: Refusal) {
    // A client that expects TLS could not read it, and a handshake is what there is no room for.
    if local.acceptor.is_some() {
        return;
    }
    let local = Rc::clone(local);
    spawn_local(async move {
        linger::close(&local, socket.into(), &refusal.bytes(), linger::MOMENT).await;
    });
}

/// A socket that failed before it was accepted is its peer's matter; anything else is a shortage, which passes when
/// something closes.
async fn recover<W: Worker>(local: &Local<W>, error: &io::Error, logged: &Cell<Option<Instant>>) {
    if matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    ) {
        return;
    }
    local.counts.accept_pauses.fetch_add(1, Relaxed);
    metrics::refused(metrics::Refusal::FileLimit);
    let now = Instant::now();
    if logged
        .get()
        .is_none_or(|last| now - last > PAUSE_LOG_INTERVAL)
    {
        logged.set(Some(now));
        tracing::error!(%error, raise = what_to_raise(error), "cannot accept connections; pausing");
    }
    // Elapsed or closed, the next accept tells.
    let _ = timeout(PAUSE, local.counts.next_close()).await;
}

fn what_to_raise(error: &io::Error) -> &'static str {
    match Errno::from_io_error(error) {
        Some(Errno::MFILE) => {
            "the process's limit of open files: `ulimit -n`, LimitNOFILE in systemd, --ulimit nofile in Docker"
        }
        Some(Errno::NFILE) => "the system's limit of open files: sysctl fs.file-max",
        _ => "memory of the machine or of its sockets: sysctl net.ipv4.tcp_mem",
    }
}
