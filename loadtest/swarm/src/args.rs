//! Command-line options that subcommands share, and the plans that they make.

use std::net::SocketAddrV4;

use clap::Args;

use crate::plan::{Behaviour, Plan, Protocol, channels};
use crate::process::Process;
use crate::socket;
use crate::tally::Window;

/// Where the server is and how it lets us in.
#[derive(Args, Clone, Debug)]
pub(crate) struct Server {
    /// Address and port of the server, within 127.0.0.0/8; best below port 32768, where no client socket can sit.
    #[arg(long, default_value = "127.0.0.1:8080", value_parser = socket::loopback)]
    pub(crate) target: SocketAddrV4,
    /// Token for WebSocket and SSE, where the server asks for one.
    #[arg(long)]
    pub(crate) token: Option<String>,
    /// Key for /hub, where the server asks for one.
    #[arg(long)]
    pub(crate) key: Option<String>,
    /// Process id of the server, to report its CPU and memory.
    #[arg(long)]
    pub(crate) pid: Option<u32>,
}

impl Server {
    /// The server's process, when its id was given.
    pub(crate) fn process(&self) -> Option<Process> {
        self.pid.map(Process::new)
    }
}

/// How the subscribers connect.
#[derive(Args, Clone, Debug)]
pub(crate) struct Crowd {
    /// Connections begun a second; 0 for as many as fit in flight.
    #[arg(long, default_value_t = 5_000)]
    pub(crate) connect_rate: u64,
    /// Most connections between their beginning and their first answer. Above a listener's backlog (often 128) the
    /// kernel drops handshakes and repeats them a second later.
    #[arg(long, default_value_t = 64)]
    pub(crate) in_flight: usize,
    /// Source addresses 127.0.0.2 and up; by default one for each 5,000 connections.
    #[arg(long)]
    pub(crate) addresses: Option<u32>,
    /// Reader threads.
    #[arg(long, default_value_t = 1)]
    pub(crate) threads: usize,
    /// What the names of channels begin with.
    #[arg(long, default_value = "swarm-")]
    pub(crate) prefix: String,
}

impl Crowd {
    /// A plan of listeners on `channel_count` channels, with nothing booked but counts.
    pub(crate) fn plan(
        &self,
        server: &Server,
        protocol: Protocol,
        connections: usize,
        channel_count: usize,
    ) -> Plan {
        Plan {
            target: server.target,
            token: server.token.clone(),
            sessions: [].into(),
            protocol,
            connections,
            channels: channels(&self.prefix, channel_count),
            threads: self.threads,
            connect_rate: self.connect_rate,
            in_flight_max: self.in_flight.max(1),
            addresses: self
                .addresses
                .unwrap_or_else(|| socket::addresses_for(connections)),
            receive_bytes: None,
            behaviour: Behaviour::Listen,
            window: Window::all(),
            sample_every: 1,
            publications: 0,
        }
    }
}
