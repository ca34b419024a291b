//! Connections to an upstream: new ones, and places on those that several requests share.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::time::{Instant, timeout_at};

use super::endpoint::Endpoint;
use super::multiplexed::{self, Bounds, DialError, Dialling, Line, Place, Wanted};
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
    /// A place on a connection that others use, where there is one at once.
    pub(super) fn share(&self, now: Instant) -> Option<Stream> {
        match self.may_share() {
            true => multiplexed::line(self.id).open(now),
            false => None,
        }
    }

    /// A connection for a request: a new one, or a place on one that several share. Encrypted where the address says so.
    pub(super) async fn dial(
        &self,
        connector: Option<&Connector>,
        way: Way,
        bounds: Bounds,
    ) -> Result<Dialled, DialError> {
        let dialling = match self.join(way, bounds).await? {
            Some(Place::Open(socket)) => {
                return Ok(Dialled {
                    socket,
                    // Who asked for a new one is not given another for that.
                    is_reused: way == Way::Any,
                });
            }
            Some(Place::Dial(dialling)) => Some(dialling),
            None => None,
        };
        let line = dialling.as_ref().map(Dialling::line);
        let dialled = timeout_at(bounds.until, self.dial_now(connector, way, line)).await;
        let dialled = dialled.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        match (&dialled, dialling) {
            (Err(_), Some(dialling)) => dialling.failed(),
            (Ok(_), Some(dialling)) if !self.may_share() => dialling.tell_all(),
            _ => {}
        }
        match dialled {
            Ok(socket) => Ok(Dialled {
                socket,
                is_reused: false,
            }),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(DialError::TimedOut),
            Err(error) => Err(error.into()),
        }
    }

    /// A place on a connection that is shared, or the task to make one; nothing where none is. One is made at a time: a
    /// hundred requests at once are no hundred connections.
    async fn join(&self, way: Way, bounds: Bounds) -> Result<Option<Place>, DialError> {
        let wanted = match way {
            Way::Any => Wanted::Any,
            Way::Fresh => Wanted::Another,
            Way::Own => return Ok(None),
        };
        if !self.may_share() {
            return Ok(None);
        }
        let line = multiplexed::line(self.id);
        line.join(wanted, bounds, || self.may_share()).await
    }

    async fn dial_now(
        &self,
        connector: Option<&Connector>,
        way: Way,
        line: Option<Arc<Line>>,
    ) -> io::Result<Stream> {
        let socket = self.connect(connector, way).await?;
        if way == Way::Own {
            return Ok(socket);
        }
        let is_http2 = self.address.is_http2 || socket.is_http2();
        self.shares.store(is_http2, Relaxed);
        if !is_http2 {
            return Ok(socket);
        }
        // Of an upstream that had not shared its connections before, nobody stands in line.
        let line = line.unwrap_or_else(|| multiplexed::line(self.id));
        let (asker, driving) =
            http2::begin(socket, self.address.is_encrypted, line.freed()).await?;
        let socket = asker.open();
        let alive = line.keep(asker, self.connection_age_max());
        tokio::spawn(async move {
            driving.await;
            drop(alive);
        });
        Ok(socket)
    }

    /// Whether it speaks HTTP/2, as far as it is known. Of an https upstream the last connection has shown.
    pub(super) fn may_share(&self) -> bool {
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
