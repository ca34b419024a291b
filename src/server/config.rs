//! What the server room can be told.

use std::net::IpAddr;
use std::time::Duration;

use super::Browsers;
use crate::tls::Acceptor;

/// Listeners, limits of HTTP/1 and admission. `config` fills it; defaults and units stand there.
#[derive(Debug, Clone)]
pub struct Config {
    /// The address to listen on (`HOST`).
    pub host: IpAddr,
    /// The certificate (`TLS_CERT`, `TLS_KEY`); with one, only TLS is spoken.
    pub tls: Option<Acceptor>,
    /// The port (`PORT`); 0 lets the system choose.
    pub port: u16,
    /// Worker threads (`WORKERS`), one hub shard each.
    pub workers: usize,
    /// The most connections of the process, HTTP and upgraded together (`MAX_CONNECTIONS`).
    pub connections_max: usize,
    /// The most connections of one address (`MAX_CONNECTIONS_PER_ADDRESS`); 0 is no bound.
    pub address_connections_max: usize,
    /// Networks that are not counted so (`TRUSTED_PROXIES`): an address, and how many of its bits count.
    pub trusted: Vec<(IpAddr, u8)>,
    /// The most connections of the process that have not finished their handshake or request (`MAX_HANDSHAKES`).
    pub handshakes_max: usize,
    /// How long a request's head may take (`HEADER_TIMEOUT_MS`).
    pub header_timeout: Duration,
    /// How long a request's body may pause, and how long a peer may take nothing of its answer (`BODY_TIMEOUT_MS`).
    pub body_timeout: Duration,
    /// The most bytes of a request's body (`MAX_BODY_BYTES`); 0 is no limit.
    pub body_bytes_max: usize,
    /// The most streams of one HTTP/2 connection (`HTTP2_MAX_STREAMS`); 0 speaks HTTP/1 only.
    pub http2_streams_max: u32,
    /// What browsers are told.
    pub browsers: Browsers,
    /// How long to say "not ready" before the listeners close (`DRAIN_DELAY_MS`).
    pub drain_delay: Duration,
    /// Over how long the clients are closed then (`DRAIN_SECONDS`).
    pub drain_window: Duration,
}
