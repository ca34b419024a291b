//! Connections to an upstream: new ones, and places on those that several requests share.

use std::io;
use std::sync::atomic::Ordering::Relaxed;

use tokio::time::Instant;

use super::endpoint::Endpoint;
use super::multiplexed::{self, Dialling, Place, Wanted};
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

/// How a request comes to its connection.
enum Joined {
    /// It has a place on one.
    Shares(Stream),
    /// It makes one, for others too where there is something to tell them by.
    Dials(Option<Dialling>),
}

impl Endpoint {
    /// A connection for a request: a new one, or a place on one that several share. Encrypted where the address says so.
    pub(super) async fn dial(
        &self,
        connector: Option<&Connector>,
        way: Way,
    ) -> io::Result<Dialled> {
        let dialling = match self.join(way).await? {
            Joined::Shares(socket) => {
                return Ok(Dialled {
                    socket,
                    // Who asked for a new one is not given another for that.
                    is_reused: way == Way::Any,
                });
            }
            Joined::Dials(dialling) => dialling,
        };
        let dialled = self.dial_now(connector, way).await;
        if let (Err(_), Some(dialling)) = (&dialled, dialling) {
            dialling.failed();
        }
        let socket = dialled?;
        Ok(Dialled {
            socket,
            is_reused: false,
        })
    }

    /// A place on a connection that is shared, as soon as there is one, or the task to make one. One is made at a time:
    /// a hundred requests at once are no hundred connections.
    async fn join(&self, way: Way) -> io::Result<Joined> {
        let mut wanted = match way {
            Way::Any => Wanted::Any,
            Way::Fresh => Wanted::Another,
            Way::Own => return Ok(Joined::Dials(None)),
        };
        while self.may_share() {
            match multiplexed::place(self.id, wanted, Instant::now()) {
                Place::Open(socket) => return Ok(Joined::Shares(socket)),
                Place::Dial(dialling) => return Ok(Joined::Dials(Some(dialling))),
                Place::Soon(dial) => dial.done().await?,
            }
            if wanted == Wanted::Another {
                // What somebody else has made meanwhile is new enough.
                wanted = Wanted::Newest;
            }
        }
        Ok(Joined::Dials(None))
    }

    async fn dial_now(&self, connector: Option<&Connector>, way: Way) -> io::Result<Stream> {
        let socket = self.connect(connector, way).await?;
        let is_http2 = way != Way::Own && (self.address.is_http2 || socket.is_http2());
        self.shares.store(is_http2, Relaxed);
        if !is_http2 {
            return Ok(socket);
        }
        let (asker, driving) = http2::begin(socket, self.address.is_encrypted).await?;
        tokio::spawn(driving);
        let socket = asker.open();
        multiplexed::keep(self.id, asker, self.connection_age_max(), Instant::now());
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
