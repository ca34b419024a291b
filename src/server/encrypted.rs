//! A connection's TLS handshake, where the node has a certificate. Then it is served as any other.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::answer::Refusal;
use super::local::Local;
use super::place::{self, Place};
use super::{Worker, connection, linger};
use crate::model::HandshakePermit;
use crate::telemetry::metrics;
use crate::tls::{Acceptor, Stream};

/// What the first record of a handshake begins with (RFC 8446 section 5.1).
const HANDSHAKE: u8 = 22;

/// Does the handshake, within the time of a head, then serves.
pub(super) async fn serve<W: Worker>(
    local: Rc<Local<W>>,
    acceptor: Acceptor,
    socket: TcpStream,
    peer: SocketAddr,
    place: Place,
    handshake: Option<HandshakePermit>,
) {
    // On the heap: the connection's task would carry the room of it for its life.
    let accepting = Box::pin(accept(&acceptor, socket));
    let accepting = timeout(place.header_timeout(&local), accepting);
    let accepted = match place.lost() {
        None => accepting.await,
        Some(lost) => tokio::select! {
            biased;
            accepted = accepting => accepted,
            // It could not read why: that is encrypted.
            why = lost => return place::count(&local, why),
        },
    };
    match accepted {
        Ok(Some(Accepted::Encrypted(stream))) => {
            Box::pin(connection::serve(local, stream, peer, place, handshake)).await;
        }
        Ok(Some(Accepted::Plain(socket))) => {
            metrics::refused(metrics::Refusal::BadRequest);
            let _place = place.parting();
            let refusal = Refusal::NotEncrypted.bytes();
            linger::close(&local, socket.into(), &refusal, linger::MOMENT).await;
        }
        Ok(None) => metrics::refused(metrics::Refusal::BadRequest),
        Err(_) => {
            local.counts.header_timeouts.fetch_add(1, Relaxed);
            metrics::refused(metrics::Refusal::HeaderTimeout);
        }
    }
}

enum Accepted {
    Encrypted(Stream),
    /// It speaks something else: perhaps HTTP, so it is told in that.
    Plain(TcpStream),
}

async fn accept(acceptor: &Acceptor, socket: TcpStream) -> Option<Accepted> {
    let mut first = [0];
    match socket.peek(&mut first).await {
        Ok(1) if first[0] == HANDSHAKE => {}
        Ok(1) => return Some(Accepted::Plain(socket)),
        _ => return None,
    }
    match acceptor.accept(socket).await {
        Ok(stream) => Some(Accepted::Encrypted(stream)),
        Err(error) => {
            tracing::debug!(%error, "a TLS handshake failed");
            None
        }
    }
}
