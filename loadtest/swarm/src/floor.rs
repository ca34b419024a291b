//! `swarm floor`: the cost below which no server that writes each frame by itself can come. No server takes part: this
//! process writes the same bytes to the same number of loopback sockets at the same pace, one plain `write()` a frame,
//! and counts the CPU of its writing thread alone. The readers are a process of their own that reads as the swarm
//! does, because on loopback the writer pays for waking the reader.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::{Value, json};

use crate::args::{Crowd, Server};
use crate::clock::{self, SECOND, nanos};
use crate::frame;
use crate::payload::{self, Stamp};
use crate::plan::Protocol;
use crate::process::thread_cpu;
use crate::report::Report;
use crate::socket;
use crate::swarm::Swarm;

/// Write the same bytes at the same pace with plain write(): the figure to compare a server's CPU with.
#[derive(Args, Clone, Debug)]
pub(crate) struct Floor {
    /// Sockets.
    #[arg(long, default_value_t = 1_000)]
    subscribers: usize,
    /// Channels over which they are spread.
    #[arg(long, default_value_t = 1)]
    channels: usize,
    /// Publications a second over all channels.
    #[arg(long, default_value_t = 100.0)]
    rate: f64,
    /// Bytes of each payload.
    #[arg(long, default_value_t = 128)]
    bytes: usize,
    /// Frames in one write; their number a second stays the same.
    #[arg(long, default_value_t = 1)]
    coalesce: usize,
    /// Seconds that are not measured.
    #[arg(long, default_value_t = 2.0)]
    warmup: f64,
    /// Seconds that are measured.
    #[arg(long, default_value_t = 10.0)]
    duration: f64,
    /// Port to listen on, below 32768.
    #[arg(long, default_value_t = 18_079)]
    port: u16,
}

/// The other side of `floor`.
#[derive(Args, Clone, Debug)]
pub(crate) struct FloorReader {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    crowd: Crowd,
    /// Connections to open and read until their end.
    #[arg(long)]
    connections: usize,
}

/// What the writer did in the measured time.
#[derive(Default)]
struct Written {
    writes: u64,
    cpu: f64,
    seconds: f64,
}

impl Floor {
    /// Runs it.
    pub(crate) fn run(&self) -> Result<Report> {
        socket::require_files(self.subscribers)?;
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, self.port);
        let listener =
            TcpListener::bind(address).with_context(|| format!("listening on {address}"))?;
        let mut reader = self.start_reader(address)?;
        let result = self.write_all(&listener, &mut reader);
        if result.is_err() {
            // The child's own process, started above; without the sockets it has nothing left to do.
            let _ = reader.kill();
        }
        let read = read_line(&mut reader);
        reader.wait()?;
        Ok(self.report(&result?, &read?))
    }

    fn start_reader(&self, address: SocketAddrV4) -> Result<Child> {
        Command::new(std::env::current_exe()?)
            .args(["--json", "floor-reader", "--target", &address.to_string()])
            .args(["--connections", &self.subscribers.to_string()])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("starting the reader process")
    }

    fn write_all(&self, listener: &TcpListener, reader: &mut Child) -> Result<Written> {
        let mut sockets = self.accept(listener, reader)?;
        let (mut bytes, at) = self.frames()?;
        let frame_length = bytes.len() / self.coalesce.max(1);
        let step = SECOND as f64 * self.coalesce.max(1) as f64 / self.rate;
        let start = clock::now() + SECOND / 5;
        let (from, to) = (
            start + nanos(self.warmup),
            start + nanos(self.warmup + self.duration),
        );
        let (mut written, mut measured) = (Written::default(), None);
        for tick in 0.. {
            let due = start + (tick as f64 * step) as u64;
            if due >= from && measured.is_none() {
                measured = Some((thread_cpu()?, clock::now()));
            }
            if due >= to {
                break;
            }
            clock::sleep_until(due);
            // A stamp of 0 keeps the warm-up out of the reader's books.
            let stamp = Stamp {
                at: if due < from { 0 } else { due },
                number: tick,
            };
            bytes
                .chunks_mut(frame_length)
                .for_each(|frame| payload::patch(&mut frame[at..], stamp));
            let channel = tick as usize % self.channels;
            for socket in sockets.iter_mut().skip(channel).step_by(self.channels) {
                socket.write_all(&bytes)?;
                written.writes += u64::from(measured.is_some());
            }
        }
        if let Some((cpu, at)) = measured {
            written.cpu = thread_cpu()? - cpu;
            written.seconds = (clock::now() - at) as f64 / 1e9;
        }
        Ok(written)
    }

    fn accept(&self, listener: &TcpListener, reader: &mut Child) -> Result<Vec<TcpStream>> {
        listener.set_nonblocking(true)?;
        let deadline = clock::now() + 60 * SECOND;
        let mut sockets = Vec::with_capacity(self.subscribers);
        while sockets.len() < self.subscribers {
            match listener.accept() {
                Ok((socket, _)) => {
                    socket.set_nonblocking(false)?;
                    socket.set_nodelay(true)?;
                    socket.set_write_timeout(Some(Duration::from_secs(10)))?;
                    sockets.push(socket);
                }
                Err(_) if clock::now() > deadline || reader.try_wait()?.is_some() => {
                    bail!(
                        "only {} of {} readers came",
                        sockets.len(),
                        self.subscribers
                    );
                }
                Err(_) => thread::sleep(Duration::from_millis(1)),
            }
        }
        Ok(sockets)
    }

    /// The bytes of one write, and where in each frame its payload begins.
    fn frames(&self) -> Result<(Vec<u8>, usize)> {
        let payload = payload::template(self.bytes)?;
        let payload = std::str::from_utf8(&payload).context("a template is ASCII")?;
        // As the hub writes it; an offset of four digits is that of a run of this length.
        let head = r#"{"type":"publication","channel":"swarm-0","data":"#;
        let text = format!(r#"{head}{payload},"offset":1234}}"#);
        let mut one = Vec::new();
        frame::put_plain(&mut one, frame::TEXT, text.as_bytes());
        let at = one.len() - text.len() + head.len();
        Ok((one.repeat(self.coalesce.max(1)), at))
    }

    fn report(&self, written: &Written, read: &Value) -> Report {
        let coalesce = self.coalesce.max(1) as u64;
        let frames = written.writes * coalesce;
        let Floor {
            subscribers,
            channels,
            rate,
            bytes,
            ..
        } = self;
        let title = format!(
            "floor {subscribers} sockets, {channels} channels, {rate} publications/s of {bytes} B"
        );
        let mut report = Report::new(title);
        report.say(
            "cpu_us_per_write",
            written.cpu * 1e6 / written.writes as f64,
            "{} us CPU a write",
        );
        report.say(
            "cpu_us_per_frame",
            written.cpu * 1e6 / frames as f64,
            "{} us a frame",
        );
        report.say(
            "writer_cores",
            written.cpu / written.seconds,
            "writer {} cores",
        );
        report.say(
            "frames_per_second",
            frames as f64 / written.seconds,
            "{} frames/s",
        );
        report.set("coalesce", json!(coalesce));
        for name in ["p50_ms", "p90_ms", "p99_ms", "max_ms"] {
            report.say(
                name,
                read[name].as_f64().unwrap_or(0.0),
                &format!("{} {{}} ms", name.trim_end_matches("_ms")),
            );
        }
        report.set("frames_read", read["deliveries"].clone());
        report
    }
}

fn read_line(reader: &mut Child) -> Result<Value> {
    let output = reader.stdout.take().context("its output is piped")?;
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    serde_json::from_str(&line).context("the reader process said nothing")
}

impl FloorReader {
    /// Runs it.
    pub(crate) fn run(&self) -> Result<Report> {
        socket::require_files(self.connections)?;
        let plan = self
            .crowd
            .plan(&self.server, Protocol::Raw, self.connections, 1);
        let swarm = Swarm::start(plan)?.joined_or_why()?;
        while swarm.ended() < self.connections {
            thread::sleep(Duration::from_millis(20));
        }
        let tally = swarm.finish()?;
        let mut report = Report::new("floor-reader");
        report
            .spread("", "latency", &tally.latency)
            .set("deliveries", json!(tally.deliveries));
        Ok(report)
    }
}
