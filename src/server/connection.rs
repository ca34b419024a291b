//! One HTTP connection's life: hyper drives it, this task bounds its time, writes its answers, and hands its socket to
//! the worker when a handler asked for that.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};

use hyper::server::conn::http1;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

use super::Worker;
use super::answer::Refusal;
use super::linger;
use super::link::{Handover, Link, LinkIo};
use super::local::{Local, Seat};
use super::service::Front;
use crate::model::{ConnectionPermit, HandshakePermit};
use crate::telemetry::metrics;

/// Serves `socket` until HTTP is done with it.
pub(super) async fn serve<W: Worker>(
    local: Rc<Local<W>>,
    socket: TcpStream,
    peer: SocketAddr,
    permit: ConnectionPermit,
    handshake: HandshakePermit,
) {
    let link = Rc::new(Link::new(socket, handshake));
    let (end, http) = drive(&local, &link, peer).await;
    let read = http.into_parts().read_buf;
    let mid_head = link.is_mid_head();
    let handover = link.handover.get();
    // hyper's parts and the service are gone by now, and with them every other holder.
    let Some(link) = Rc::into_inner(link) else {
        return;
    };
    let (socket, slot) = link.into_parts();
    match end {
        End::Done if handover != Handover::None => match socket.into_std() {
            Ok(socket) => {
                local.counts.upgraded.fetch_add(1, Relaxed);
                local.worker.adopt(socket, read, slot, permit);
            }
            Err(error) => tracing::warn!(%error, "cannot hand a socket over to its worker"),
        },
        End::Done => linger::close(&local, socket, &[]).await,
        End::TimedOut if mid_head => {
            linger::close(&local, socket, &Refusal::HeadTimedOut.bytes()).await;
        }
        End::TimedOut | End::Broken => {}
    }
}

type Http<W> = http1::Connection<LinkIo<<W as Worker>::Slot>, Front<W>>;

/// Why HTTP is done with a connection.
#[derive(Debug, Clone, Copy)]
enum End {
    /// It has come to its end: closed, refused or upgraded.
    Done,
    /// The peer took too long with a head, with the next request, or with taking its answer.
    TimedOut,
    /// The socket has failed.
    Broken,
}

async fn drive<W: Worker>(
    local: &Rc<Local<W>>,
    link: &Rc<Link<W::Slot>>,
    peer: SocketAddr,
) -> (End, Http<W>) {
    let service = Front {
        local: Rc::clone(local),
        link: Rc::clone(link),
        peer,
    };
    let mut course = Course {
        local,
        link,
        http: local
            .http
            .serve_connection(LinkIo(Rc::clone(link)), service),
        done: false,
        told_to_close: false,
    };
    let mut seat = Seat::take(local);
    let mut timer = pin!(sleep(local.header_timeout));
    let end = poll_fn(|cx| {
        seat.know(cx.waker());
        course.poll_turn(cx, timer.as_mut())
    })
    .await;
    (end, course.http)
}

struct Course<'a, W: Worker> {
    local: &'a Rc<Local<W>>,
    link: &'a Rc<Link<W::Slot>>,
    http: Http<W>,
    done: bool,
    told_to_close: bool,
}

impl<W: Worker> Course<'_, W> {
    fn poll_turn(&mut self, cx: &mut Context<'_>, timer: Pin<&mut Sleep>) -> Poll<End> {
        self.link.lend(&mut self.local.buffer.borrow_mut());
        self.poll_http(cx);
        let sent = self.link.poll_send(cx);
        self.link.reclaim(&mut self.local.buffer.borrow_mut());
        match sent {
            Poll::Ready(Ok(())) if self.done => Poll::Ready(End::Done),
            Poll::Ready(Err(_)) => Poll::Ready(End::Broken),
            _ => self.poll_time(cx, timer).map(|()| End::TimedOut),
        }
    }

    fn poll_http(&mut self, cx: &mut Context<'_>) {
        let close = self.local.is_closing() && !self.told_to_close;
        if close && self.link.is_busy() {
            // Before the answer, so that its head says so.
            self.close();
        }
        self.poll_hyper(cx);
        if close && !self.told_to_close {
            // After a look at the socket: a request that waits in it is still answered.
            self.close();
            self.poll_hyper(cx);
        }
    }

    fn close(&mut self) {
        self.told_to_close = true;
        Pin::new(&mut self.http).graceful_shutdown();
    }

    fn poll_hyper(&mut self, cx: &mut Context<'_>) {
        if self.done {
            return;
        }
        if let Poll::Ready(end) = self.http.poll_without_shutdown(cx) {
            self.done = true;
            if let Err(error) = end {
                tracing::debug!(%error, "an HTTP connection ended with an error");
            }
        }
    }

    /// One timer for the connection's life. It is moved forward when something is due sooner, which is rare; otherwise
    /// it fires late at most, sees that all is well, and is set again.
    fn poll_time(&mut self, cx: &mut Context<'_>, mut timer: Pin<&mut Sleep>) -> Poll<()> {
        let header_timeout = self.local.header_timeout;
        let due = self.link.due(header_timeout, self.local.body.pause_max);
        if let Some(due) = due.filter(|due| *due < timer.deadline()) {
            timer.as_mut().reset(due);
        }
        while timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            match due {
                Some(due) if due <= now => {
                    if self.link.is_mid_head() {
                        self.local.counts.header_timeouts.fetch_add(1, Relaxed);
                        metrics::refused(metrics::Refusal::HeaderTimeout);
                    }
                    return Poll::Ready(());
                }
                Some(due) => timer.as_mut().reset(due),
                None => timer.as_mut().reset(now + header_timeout),
            }
        }
        Poll::Pending
    }
}
