//! Connections to an upstream: new ones, and places on those that several requests share.

use std::io;
use std::sync::atomic::Ordering::Relaxed;

use tokio::time::Instant;

use super::endpoint::Endpoint;
use super::multiplexed::{self, Place};
use crate::http2;
use crate::telemetry::proxy as counts;
use crate::tls::{Connector, Stream};

/// What connection a request wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Any.
    Any,
    /// A new one: the one that others use was no good.
    Fresh,
    /// One of its own, which speaks HTTP/1: it becomes a WebSocket.
    Own,
}

/// What a request is written to.
#[derive(Debug)]
pub(super) struct Dialled {
    pub(super) socket: Stream,
    /// It stands on a connection that has carried others.
    pub(super) is_reused: bool,
}

impl Endpoint {
    /// A connection for a request: a new one, or a place on one that several share. Encrypted where the address says so.
    pub(super) async fn dial(
        &self,
        connector: Option<&Connector>,
        way: Way,
    ) -> io::Result<Dialled> {
        let mut dialling = None;
        if way == Way::Any && self.may_share() {
            let mut place = multiplexed::place(self.id, Instant::now());
            if let Place::Soon(dial) = &place {
                dial.done().await;
                place = multiplexed::place(self.id, Instant::now());
            }
            match place {
                Place::Open(socket) => {
                    return Ok(Dialled {
                        socket,
                        is_reused: true,
                    });
                }
                Place::Dial(guard) => dialling = Some(guard),
                // It came to nothing, and is tried again: not for all, one after the other.
                Place::Soon(_) => {}
            }
        }
        let socket = self.connect(connector, way).await?;
        let is_http2 = way != Way::Own && (self.address.is_http2 || socket.is_http2());
        self.shares.store(is_http2, Relaxed);
        if !is_http2 {
            return Ok(Dialled {
                socket,
                is_reused: false,
            });
        }
        let (asker, driving) = http2::begin(socket, self.address.is_encrypted).await?;
        tokio::spawn(driving);
        let socket = asker.open();
        multiplexed::keep(self.id, asker, self.connection_age_max(), Instant::now());
        drop(dialling);
        Ok(Dialled {
            socket,
            is_reused: false,
        })
    }

    /// Whether it speaks HTTP/2, as far as it is known. Of an https upstream the last connection has shown.
    fn may_share(&self) -> bool {
        self.address.is_http2 || self.shares.load(Relaxed)
    }

    async fn connect(&self, connector: Option<&Connector>, way: Way) -> io::Result<Stream> {
        counts::dialled();
        let socket = self.resolver.connect().await?;
        socket.set_nodelay(true)?;
        let host = &self.address.host;
        match connector.filter(|_| self.address.is_encrypted) {
            Some(connector) if way == Way::Own => connector.connect(host, socket).await,
            Some(connector) => connector.connect_any(host, socket).await,
            // `config` gives a connector where any address is https: never in clear instead.
            None if self.address.is_encrypted => Err(io::ErrorKind::Unsupported.into()),
            None => Ok(socket.into()),
        }
    }
}
