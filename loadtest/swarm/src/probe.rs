//! A quiet bystander during a fan-out: one subscriber of its own channel with one publisher, and one caller of
//! `/healthz`, each on threads and sockets apart from the swarm's. What they wait for is what a large fan-out costs
//! everybody else. Both are open-loop: latency counts from the intended time.

use std::io::{Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use hdrhistogram::Histogram;

use crate::args::Server;
use crate::clock::{self, SECOND};
use crate::frame::{self, Step};
use crate::http::{self, HttpConnection};
use crate::payload::{Stamp, StampReader};
use crate::plan::{Behaviour, Plan, Protocol};
use crate::request::Requests;
use crate::tally::{Window, histogram};

/// Publications, and calls of `/healthz`, a second.
const RATE: u64 = 50;
/// Bytes of a probe's payload.
const PAYLOAD_BYTES: usize = 128;

/// Probes at work.
pub(crate) struct Probe {
    channel: JoinHandle<Result<Histogram<u64>>>,
    healthz: JoinHandle<Result<Histogram<u64>>>,
}

/// What they found.
pub(crate) struct Probed {
    /// From the intended time of a publication on the quiet channel to its arrival.
    pub(crate) channel: Histogram<u64>,
    /// From the intended time of a call to its answer.
    pub(crate) healthz: Histogram<u64>,
}

/// Subscribes at once and measures from `from` to `to`.
pub(crate) fn start(server: &Server, prefix: &str, from: u64, to: u64) -> Result<Probe> {
    let mut quiet = QuietChannel::open(server, format!("{prefix}probe"))?;
    let target = server.target;
    // Half a step apart, so that the two do not wait for each other.
    let step = SECOND / RATE;
    let channel = thread::spawn(move || paced(from, to, |at| quiet.round_trip(at)));
    let healthz = thread::spawn(move || {
        let mut connection = HttpConnection::open(target, true)?;
        let request = http::get(target, "/healthz");
        paced(from + step / 2, to, |_| {
            let (status, _) = connection.call(&request)?;
            if status == 200 {
                Ok(clock::now())
            } else {
                bail!("/healthz answered {status}")
            }
        })
    });
    Ok(Probe { channel, healthz })
}

impl Probe {
    /// Waits for the end and hands back both histograms.
    pub(crate) fn finish(self) -> Result<Probed> {
        let join = |handle: JoinHandle<Result<Histogram<u64>>>| {
            handle.join().map_err(|_| anyhow!("a probe panicked"))
        };
        let channel = join(self.channel)?.context("the quiet channel")?;
        Ok(Probed {
            channel,
            healthz: join(self.healthz)?.context("/healthz")?,
        })
    }
}

/// Calls `once` at each intended time; it says when it was done.
fn paced(from: u64, to: u64, mut once: impl FnMut(u64) -> Result<u64>) -> Result<Histogram<u64>> {
    let mut spread = histogram();
    for at in (from..to).step_by((SECOND / RATE) as usize) {
        clock::sleep_until(at);
        spread.saturating_record(once(at)? - at);
    }
    Ok(spread)
}

/// One subscriber and one publisher of the same channel, on blocking sockets.
struct QuietChannel {
    subscriber: TcpStream,
    received: Vec<u8>,
    publisher: HttpConnection,
    requests: Requests,
    stamps: StampReader,
    count: u64,
}

impl QuietChannel {
    fn open(server: &Server, channel: String) -> Result<Self> {
        let channels = [channel];
        let requests = Requests::new(server.target, server.key.clone(), &channels, PAYLOAD_BYTES)?;
        let publisher = HttpConnection::open(server.target, true)?;
        let plan = plan(server.target, server.token.clone(), channels);
        let mut subscriber = TcpStream::connect(server.target)?;
        subscriber.set_nodelay(true)?;
        subscriber.set_read_timeout(Some(Duration::from_secs(10)))?;
        subscriber.write_all(&plan.request(0))?;
        let mut quiet = QuietChannel {
            subscriber,
            received: Vec::new(),
            publisher,
            requests,
            stamps: StampReader::default(),
            count: 0,
        };
        quiet.skip_head()?;
        let subscribe = plan.subscribe(0).context("the plan has a channel")?;
        quiet.subscriber.write_all(&subscribe)?;
        quiet.wait_for(|payload| memchr::memmem::find(payload, br#""subscribed""#).is_some())?;
        Ok(quiet)
    }

    fn round_trip(&mut self, at: u64) -> Result<u64> {
        let stamp = Stamp {
            at,
            number: self.count,
        };
        self.count += 1;
        let mut request = Vec::new();
        self.requests.put_single(&mut request, stamp);
        self.publisher.send(&request, 1)?;
        // The delivery first, for it may come before the answer and is what is measured.
        let mut stamps = std::mem::take(&mut self.stamps);
        self.wait_for(|payload| stamps.read(payload) == Some(stamp))?;
        self.stamps = stamps;
        let arrived = clock::now();
        while self.publisher.unanswered > 0 {
            self.publisher.receive(|_| {})?;
        }
        Ok(arrived)
    }

    fn skip_head(&mut self) -> Result<()> {
        loop {
            if let Some(end) = memchr::memmem::find(&self.received, b"\r\n\r\n") {
                self.received.drain(..end + 4);
                return Ok(());
            }
            self.read()?;
        }
    }

    fn wait_for(&mut self, mut wanted: impl FnMut(&[u8]) -> bool) -> Result<()> {
        loop {
            while let Step::Frame {
                opcode,
                payload,
                length,
            } = frame::next(&self.received)
            {
                let found = wanted(payload);
                let pong = (opcode == frame::PING).then(|| frame::masked(frame::PONG, payload));
                self.received.drain(..length);
                if let Some(pong) = pong {
                    self.subscriber.write_all(&pong)?;
                }
                if found {
                    return Ok(());
                }
            }
            self.read()?;
        }
    }

    fn read(&mut self) -> Result<()> {
        let mut chunk = [0; 4096];
        let read = self
            .subscriber
            .read(&mut chunk)
            .context("the probe's subscriber")?;
        if read == 0 {
            bail!("the server closed the probe's subscriber");
        }
        self.received.extend_from_slice(&chunk[..read]);
        Ok(())
    }
}

fn plan(target: SocketAddrV4, token: Option<String>, channels: [String; 1]) -> Plan {
    Plan {
        target,
        token,
        sessions: [].into(),
        protocol: Protocol::Ws,
        connections: 1,
        channels: channels.into(),
        threads: 1,
        connect_rate: 0,
        in_flight_max: 1,
        addresses: 1,
        receive_bytes: None,
        behaviour: Behaviour::Listen,
        window: Window::closed(),
        sample_every: 1,
        publications: 0,
    }
}
