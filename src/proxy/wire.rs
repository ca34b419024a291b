//! Connections to upstreams, and each worker's pool of idle ones.
//!
//! A connection has no task of its own: whoever uses it drives it from its own poll. So nothing is woken for another
//! task's sake, and when a client goes away, its request's future is dropped, and the upstream's connection with it. An
//! idle one is driven by nobody; a look when it is taken out tells whether the upstream has closed it meanwhile.
//!
//! Bounded: a worker keeps `IDLE_MAX` idle ones for each upstream, for `IDLE_TIME_MAX`; those in use are no more than
//! the client connections that the server admits.

use std::cell::RefCell;
use std::collections::HashMap;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::body::Body;
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// Idle connections that one worker keeps for one upstream.
const IDLE_MAX: usize = 128;
/// For how long. Below the 5 s after which Node's servers close theirs, so that we are the one to do so.
const IDLE_TIME_MAX: Duration = Duration::from_secs(4);
/// The largest head of an answer.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// One connection to an upstream. It is large, so it lives in a box, from use to use.
pub(super) struct Wire {
    pub(super) sender: SendRequest<Body>,
    connection: Connection<TokioIo<TcpStream>, Body>,
    /// It came to its end: it is not driven again.
    has_ended: bool,
    /// It has carried a request before.
    pub(super) is_reused: bool,
}

impl Wire {
    /// Speaks HTTP/1.1 over this socket.
    pub(super) async fn new(socket: TcpStream) -> hyper::Result<Box<Self>> {
        let (sender, connection) = Builder::new()
            .max_buf_size(HEAD_BYTES_MAX)
            .handshake(TokioIo::new(socket))
            .await?;
        Ok(Box::new(Self {
            sender,
            connection,
            has_ended: false,
            is_reused: false,
        }))
    }

    /// Lets it read and write what it can; tells whether it came to its end.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.has_ended {
            self.has_ended = match Pin::new(&mut self.connection).poll(cx) {
                Poll::Pending => false,
                Poll::Ready(end) => {
                    if let Err(error) = end {
                        tracing::debug!(%error, "a connection to an upstream ended with an error");
                    }
                    true
                }
            };
        }
        self.has_ended
    }

    /// The same without being woken again.
    pub(super) fn drive_quietly(&mut self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()))
    }

    /// Whether it can carry a request now.
    fn is_idle(&mut self) -> bool {
        !self.drive_quietly() && self.sender.is_ready()
    }
}

#[derive(Default)]
struct Pool {
    /// By the upstream's id; the one that was used last is last.
    idle: HashMap<usize, Vec<(Box<Wire>, Instant)>>,
    is_swept: bool,
}

thread_local! {
    /// A worker is a thread, so its pool needs no lock.
    static POOL: RefCell<Pool> = RefCell::default();
}

/// Takes out a connection that is idle, if there is one.
pub(super) fn take(id: usize) -> Option<Box<Wire>> {
    POOL.with_borrow_mut(|pool| {
        let idle = pool.idle.get_mut(&id)?;
        while let Some((mut wire, since)) = idle.pop() {
            if since.elapsed() > IDLE_TIME_MAX {
                // The others have been idle for longer.
                idle.clear();
            } else if wire.is_idle() {
                wire.is_reused = true;
                return Some(wire);
            }
        }
        None
    })
}

/// Puts a connection back whose answer has been read to its end; it is closed when it cannot carry another.
pub(super) fn put(id: usize, mut wire: Box<Wire>) {
    if !wire.is_idle() {
        return;
    }
    let must_sweep = POOL.with_borrow_mut(|pool| {
        let idle = pool.idle.entry(id).or_default();
        if idle.len() < IDLE_MAX {
            idle.push((wire, Instant::now()));
        }
        !std::mem::replace(&mut pool.is_swept, true)
    });
    if must_sweep {
        tokio::spawn(sweep());
    }
}

/// Closes what has been idle for too long, until nothing is left. Ends with the worker's runtime otherwise.
async fn sweep() {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let is_empty = POOL.with_borrow_mut(|pool| {
            pool.idle.retain(|_, idle| {
                idle.retain_mut(|(wire, since)| {
                    since.elapsed() <= IDLE_TIME_MAX && !wire.drive_quietly()
                });
                !idle.is_empty()
            });
            pool.is_swept = !pool.idle.is_empty();
            pool.idle.is_empty()
        });
        if is_empty {
            return;
        }
    }
}
