//! `swarm bridge`: WebSockets through a proxy to an echo behind it. Both ends are this thread: it connects to the proxy,
//! and is the upstream that the proxy connects to. It says what a pair of sockets costs that is idle, in the proxy's
//! memory, and what a message there and back costs, in its CPU.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddrV4;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use hdrhistogram::Histogram;
use memchr::memmem;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use serde_json::json;

use crate::args::Server;
use crate::clock::{self, SECOND, nanos};
use crate::frame::{self, Step};
use crate::plan::{ACCEPT, UPGRADE};
use crate::reading::Reading;
use crate::report::Report;
use crate::socket;
use crate::tally::histogram;

/// Connections between their beginning and their 101: a listener's backlog is often 128.
const IN_FLIGHT_MAX: usize = 64;
/// What one read takes: far more than a message.
const BUFFER_BYTES: usize = 16 * 1024;
/// How long nothing may happen where something must.
const SILENCE_MAX: u64 = 10 * SECOND;

/// Echo messages through a proxy: both ends of its WebSockets are here.
#[derive(Args, Clone, Debug)]
pub(crate) struct Bridge {
    #[command(flatten)]
    server: Server,
    /// Where the proxy's upstream listens: here.
    #[arg(long, value_parser = socket::loopback)]
    upstream: SocketAddrV4,
    /// What is asked of the proxy.
    #[arg(long, default_value = "/ws/swarm")]
    path: String,
    /// WebSockets, each with one message under way.
    #[arg(long, default_value_t = 1_000)]
    connections: usize,
    /// Bytes of a message.
    #[arg(long, default_value_t = 128)]
    bytes: usize,
    /// Seconds before memory is read, so that what the handshakes took is given back.
    #[arg(long, default_value_t = 2.0)]
    settle: f64,
    /// Seconds that are not measured.
    #[arg(long, default_value_t = 1.0)]
    warmup: f64,
    /// Seconds that are measured.
    #[arg(long, default_value_t = 5.0)]
    duration: f64,
}

/// Which end of a WebSocket a socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Client,
    Echo,
}

struct End {
    socket: TcpStream,
    role: Role,
    /// Its handshake is over.
    is_open: bool,
    /// What came and is not whole.
    held: Vec<u8>,
    /// When its message went out.
    sent_at: u64,
}

struct Ends {
    poll: Poll,
    events: Events,
    listener: TcpListener,
    ends: Vec<End>,
    buffer: Box<[u8]>,
    message: Vec<u8>,
    joined: usize,
    echoes: u64,
    latency: Histogram<u64>,
}

impl Bridge {
    /// Runs it. Latency is closed-loop, from the sending of a message to its echo.
    pub(crate) fn run(&self) -> Result<Report> {
        socket::require_files(2 * self.connections)?;
        let process = self.server.process().context("bridge needs --pid")?;
        let mut ends = Ends::listen(self.upstream, self.bytes)?;
        let before = process.memory()?;
        self.join(&mut ends)?;
        ends.run_until(clock::now() + nanos(self.settle))?;
        let idle = process.memory()?;
        ends.send_all()?;
        ends.run_until(clock::now() + nanos(self.warmup))?;
        ends.latency.reset();
        let from = Reading::take(Some(process), ends.echoes)?;
        ends.run_until(clock::now() + nanos(self.duration))?;
        let to = Reading::take(Some(process), ends.echoes)?;
        ensure!(to.count_since(&from) > 0, "no message came back");
        let Bridge {
            connections, bytes, ..
        } = self;
        let title = format!("bridge {connections} WebSockets, one message of {bytes} B each");
        let mut report = Report::new(title);
        to.report(&from, "echoes", &mut report);
        report.spread("", "latency", &ends.latency);
        let each = |after: u64, before: u64| (after as f64 - before as f64) / *connections as f64;
        report.say(
            "bytes_per_pair",
            each(idle.resident, before.resident),
            "{} B of memory an idle pair",
        );
        report.set("rss_mb", json!(idle.resident as f64 / 1e6));
        Ok(report)
    }

    fn join(&self, ends: &mut Ends) -> Result<()> {
        let Self { server, path, .. } = self;
        let token = crate::plan::bearer(server.token.as_deref());
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\n{token}{UPGRADE}\r\n",
            server.target
        );
        let (mut opened, mut moved) = (0, (0, clock::now()));
        while ends.joined < self.connections {
            while opened < self.connections && opened - ends.joined < IN_FLIGHT_MAX {
                ends.open(server.target, request.as_bytes())?;
                opened += 1;
            }
            ends.turn(Duration::from_millis(100))?;
            if ends.joined > moved.0 {
                moved = (ends.joined, clock::now());
            }
            let joined = ends.joined;
            ensure!(
                clock::now() - moved.1 < SILENCE_MAX,
                "{joined} of {} WebSockets were answered",
                self.connections
            );
        }
        Ok(())
    }
}

impl Ends {
    fn listen(address: SocketAddrV4, bytes: usize) -> Result<Self> {
        let mut listener =
            TcpListener::bind(address.into()).with_context(|| format!("listening on {address}"))?;
        let poll = Poll::new()?;
        poll.registry()
            .register(&mut listener, Token(0), Interest::READABLE)?;
        Ok(Self {
            poll,
            events: Events::with_capacity(1024),
            listener,
            ends: Vec::new(),
            buffer: vec![0; BUFFER_BYTES].into(),
            message: frame::masked(frame::BINARY, &vec![b'x'; bytes]),
            joined: 0,
            echoes: 0,
            latency: histogram(),
        })
    }

    /// Begins a connection to the proxy. A blocking connect: the kernel answers it at once on loopback.
    fn open(&mut self, target: SocketAddrV4, request: &[u8]) -> Result<()> {
        let socket = std::net::TcpStream::connect(target).context("connecting to the proxy")?;
        socket.set_nonblocking(true)?;
        let mut socket = TcpStream::from_std(socket);
        write(&mut socket, request)?;
        self.add(socket, Role::Client)
    }

    fn add(&mut self, mut socket: TcpStream, role: Role) -> Result<()> {
        socket.set_nodelay(true)?;
        let token = Token(self.ends.len() + 1);
        self.poll
            .registry()
            .register(&mut socket, token, Interest::READABLE)?;
        self.ends.push(End {
            socket,
            role,
            is_open: false,
            held: Vec::new(),
            sent_at: 0,
        });
        Ok(())
    }

    /// Every client sends its first message.
    fn send_all(&mut self) -> Result<()> {
        let clients = self.ends.iter_mut().filter(|end| end.role == Role::Client);
        for end in clients {
            end.sent_at = clock::now();
            write(&mut end.socket, &self.message)?;
        }
        Ok(())
    }

    fn run_until(&mut self, deadline: u64) -> Result<()> {
        while clock::now() < deadline {
            self.turn(Duration::from_nanos(deadline.saturating_sub(clock::now())))?;
        }
        Ok(())
    }

    fn turn(&mut self, patience: Duration) -> Result<()> {
        match self.poll.poll(&mut self.events, Some(patience)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        let ready: Vec<usize> = self.events.iter().map(|event| event.token().0).collect();
        for token in ready {
            match token {
                0 => self.accept()?,
                token => self.read(token - 1)?,
            }
        }
        Ok(())
    }

    fn accept(&mut self) -> Result<()> {
        loop {
            match self.listener.accept() {
                Ok((socket, _)) => self.add(socket, Role::Echo)?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("accepting the proxy's connections"),
            }
        }
    }

    fn read(&mut self, index: usize) -> Result<()> {
        let end = &mut self.ends[index];
        loop {
            let count = match end.socket.read(&mut self.buffer) {
                Ok(0) => bail!("the proxy closed a connection of a {:?}", end.role),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("reading"),
            };
            end.held.extend_from_slice(&self.buffer[..count]);
            if !end.is_open && end.is_answered()? {
                self.joined += usize::from(end.role == Role::Client);
            }
            if end.is_open {
                let echoes = match end.role {
                    Role::Client => end.hear(&self.message, &mut self.latency)?,
                    Role::Echo => end.echo()?,
                };
                self.echoes += echoes;
            }
            if count < self.buffer.len() {
                // There is a new edge for what comes next.
                return Ok(());
            }
        }
    }
}

impl End {
    /// Whether its handshake is over now.
    fn is_answered(&mut self) -> Result<bool> {
        let Some(at) = memmem::find(&self.held, b"\r\n\r\n") else {
            return Ok(false);
        };
        let head: Vec<u8> = self.held.drain(..at + 4).collect();
        if self.role == Role::Echo {
            let accept = String::from_utf8_lossy(ACCEPT);
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: {accept}\r\n\r\n"
            );
            write(&mut self.socket, answer.as_bytes())?;
        } else if !head.starts_with(b"HTTP/1.1 101") {
            let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
            bail!("the proxy answered {}", String::from_utf8_lossy(line));
        }
        self.is_open = true;
        Ok(true)
    }

    /// The client's part: each echo is booked, and the next message goes out. Tells how many echoes came.
    fn hear(&mut self, message: &[u8], latency: &mut Histogram<u64>) -> Result<u64> {
        let (mut used, mut echoes) = (0, 0);
        loop {
            match frame::next(&self.held[used..]) {
                Step::Frame {
                    opcode,
                    payload,
                    length,
                } => {
                    match opcode {
                        frame::PING => {
                            write(&mut self.socket, &frame::masked(frame::PONG, payload))?;
                        }
                        frame::CLOSE => {
                            bail!("the proxy closed with {}", frame::close_code(payload))
                        }
                        _ => {
                            let now = clock::now();
                            latency.saturating_record(now - self.sent_at);
                            self.sent_at = now;
                            echoes += 1;
                            write(&mut self.socket, message)?;
                        }
                    }
                    used += length;
                }
                Step::Partial => break,
                Step::Broken => bail!("the proxy broke the protocol"),
            }
        }
        self.held.drain(..used);
        Ok(echoes)
    }

    /// The upstream's part: what comes masked goes back unmasked, all of one read in one write. No echo is booked here.
    fn echo(&mut self) -> Result<u64> {
        let (mut used, mut out) = (0, Vec::new());
        while let Some((opcode, payload, length)) = frame::unmasked(&self.held[used..]) {
            let opcode = match opcode {
                frame::PING => frame::PONG,
                frame::CLOSE => bail!("the proxy closed an upstream's connection"),
                opcode => opcode,
            };
            if opcode != frame::PONG || !payload.is_empty() {
                frame::put_plain(&mut out, opcode, &payload);
            }
            used += length;
        }
        self.held.drain(..used);
        if !out.is_empty() {
            write(&mut self.socket, &out)?;
        }
        Ok(0)
    }
}

/// A message is far smaller than what a socket holds, so one that does not take it is stuck.
fn write(socket: &mut TcpStream, bytes: &[u8]) -> Result<()> {
    socket.write_all(bytes).context("writing a message")
}
