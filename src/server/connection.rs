//! One HTTP connection's life: its requests run their course, then its socket is closed, or handed to the worker when a
//! handler asked for that. A client that begins HTTP/2 is passed on.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;

use super::answer::Refusal;
use super::course::{End, drive};
use super::link::{Handover, Link};
use super::local::Local;
use super::place::{self, Place};
use super::{Caller, Carrier, Worker, linger, multiplexed};
use crate::model::HandshakePermit;
use crate::tls::Stream;

/// Serves `socket` until HTTP is done with it.
pub(super) async fn serve<W: Worker>(
    local: Rc<Local<W>>,
    socket: Stream,
    peer: SocketAddr,
    place: Place,
    handshake: Option<HandshakePermit>,
) {
    let caller = Caller {
        peer,
        is_encrypted: socket.is_encrypted(),
        is_http2: false,
    };
    if local.speaks_http2() && socket.is_http2() {
        let serving = multiplexed::serve(local, (socket, Vec::new()), caller, place, handshake);
        return Box::pin(serving).await;
    }
    let link = Rc::new(Link::new(socket, handshake));
    finish(local, link, caller, place).await;
}

/// Serves one stream of a connection, whose request has come.
pub(super) async fn serve_stream<W: Worker>(
    local: Rc<Local<W>>,
    socket: Stream,
    caller: Caller,
    place: Place,
) {
    let link = Rc::new(Link::new(socket, None));
    finish(local, link, caller, place).await;
}

async fn finish<W: Worker>(
    local: Rc<Local<W>>,
    link: Rc<Link<W::Slot>>,
    caller: Caller,
    place: Place,
) {
    let end = drive(&local, &link, caller, &place).await;
    let mid_head = link.is_mid_head();
    let handshake = link.take_handshake();
    let handover = link.handover.get();
    // hyper's parts and the service are gone by now, and with them every other holder.
    let Some(link) = Rc::into_inner(link) else {
        return;
    };
    let (socket, read, slot) = link.into_parts();
    // Who has none of the places of the process gets no time for an upload.
    let linger_max = match place.bound() {
        None => linger::UPLOAD,
        Some(_) => linger::MOMENT,
    };
    match end {
        End::Done if handover != Handover::None => match (socket.into_std(), place.regular()) {
            (Ok((socket, layer)), Some(permit)) => {
                local.counts.upgraded.fetch_add(1, Relaxed);
                let carrier = Carrier { socket, layer };
                local.worker.adopt(carrier, read.into(), slot, permit);
            }
            (Err(error), _) => tracing::warn!(%error, "cannot hand a socket over to its worker"),
            // Nothing that may be asked from there becomes the worker's.
            (Ok(_), None) => {}
        },
        End::Http2 => {
            // On the heap: most connections never come here.
            let serving = multiplexed::serve(local, (socket, read), caller, place, handshake);
            Box::pin(serving).await;
        }
        End::Done => {
            let _place = place.parting();
            linger::close(&local, socket, &[], linger_max).await;
        }
        End::Refused(refusal) => {
            if place.bound() == Some(refusal) {
                place::count(&local, refusal);
            }
            let _place = place.parting();
            linger::close(&local, socket, &refusal.bytes(), linger_max).await;
        }
        End::TimedOut if mid_head => {
            let _place = place.parting();
            let refusal = Refusal::HeadTimedOut.bytes();
            linger::close(&local, socket, &refusal, linger::MOMENT).await;
        }
        End::TimedOut | End::Broken => {}
    }
}
