//! `swarm fleet`: a crowd over several gateways, held for a while and told something: more connections than one process may
//! have files for. Each gateway has a process of its own that connects to it; this one starts them, publishes, and adds up
//! what they saw. They all read one clock, so that the last arrival is the last of all.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddrV4;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::{Value, json};

use crate::args::{Crowd, Server};
use crate::clock::{self, SECOND, nanos};
use crate::plan::Protocol;
use crate::process::{self, Process};
use crate::publisher::{self, Pace, Published, Publishing};
use crate::report::Report;
use crate::socket;
use crate::swarm::Swarm;
use crate::tally::histogram;

/// The one channel of the crowd begins with this.
const PREFIX: &str = "fleet-";
/// Bytes of each payload.
const PAYLOAD_BYTES: usize = 128;
/// How long memory is left to settle, so that what the handshakes took is given back.
const SETTLE: Duration = Duration::from_secs(3);

/// Hold a crowd over several gateways, one process for each, and publish to all of it.
#[derive(Args, Clone, Debug)]
pub(crate) struct Fleet {
    /// Addresses of the gateways, within 127.0.0.0/8, with commas between.
    #[arg(long, required = true, value_delimiter = ',', value_parser = socket::loopback)]
    targets: Vec<SocketAddrV4>,
    /// Process ids of the gateways, with commas between, to report their CPU and memory.
    #[arg(long, value_delimiter = ',')]
    pids: Vec<u32>,
    /// Token for WebSocket and SSE, where gateways ask for one.
    #[arg(long)]
    token: Option<String>,
    /// Key for /hub, where gateways ask for one.
    #[arg(long)]
    key: Option<String>,
    /// What carries the connections.
    #[arg(long, value_enum, default_value_t = Protocol::Ws)]
    protocol: Protocol,
    /// Connections over all gateways, all of them subscribed to one channel.
    #[arg(long, default_value_t = 150_000)]
    connections: usize,
    /// Connections begun a second over all gateways.
    #[arg(long, default_value_t = 10_000)]
    connect_rate: u64,
    /// Seconds for which they are held; more than two of the gateways' ping intervals.
    #[arg(long, default_value_t = 60.0)]
    hold: f64,
    /// Publications meanwhile, evenly spread.
    #[arg(long, default_value_t = 6)]
    publications: u64,
}

/// One process of `fleet`.
#[derive(Args, Clone, Debug)]
pub(crate) struct FleetPart {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    crowd: Crowd,
    #[arg(long, value_enum)]
    protocol: Protocol,
    /// Connections to open and hold until the input ends.
    #[arg(long)]
    connections: usize,
    /// Publications that will come.
    #[arg(long)]
    publications: usize,
}

/// What was read of the gateways and the kernel at one moment.
struct Reading {
    at: u64,
    cpu: f64,
    resident: u64,
    kernel: u64,
}

/// A running process and what it says.
struct Part {
    child: Child,
    output: BufReader<ChildStdout>,
    connections: usize,
}

impl Fleet {
    /// Runs it.
    pub(crate) fn run(&self) -> Result<Report> {
        let mut report = Report::new(format!(
            "fleet {:?} {} connections over {} gateways",
            self.protocol,
            self.connections,
            self.targets.len()
        ));
        let (empty, began) = (self.read()?, clock::now());
        let mut parts = self.start()?;
        for part in &mut parts {
            part.hear().context("joining")?;
        }
        let seconds = (clock::now() - began) as f64 / 1e9;
        let rate = self.connections as f64 / seconds;
        report.say("joined_seconds", seconds, "joined in {} s");
        report.say("connects_per_second", rate, "{} connects/s");
        thread::sleep(SETTLE);
        let full = self.read()?;
        self.say_memory(&mut report, &empty, &full);
        let published = self.publish()?;
        self.say_cpu(&mut report, &full, &self.read()?);
        let heard: Vec<Value> = parts.into_iter().map(Part::finish).collect::<Result<_>>()?;
        self.say_arrivals(&mut report, &published, &heard);
        Ok(report)
    }

    fn read(&self) -> Result<Reading> {
        let mut reading = Reading {
            at: clock::now(),
            cpu: 0.0,
            resident: 0,
            kernel: process::kernel_objects()?,
        };
        for pid in &self.pids {
            let process = Process::new(*pid);
            reading.cpu += process.cpu()?;
            reading.resident += process.memory()?.resident;
        }
        Ok(reading)
    }

    fn start(&self) -> Result<Vec<Part>> {
        let count = self.targets.len();
        let share = |index: usize| {
            self.connections * (index + 1) / count - self.connections * index / count
        };
        let targets = self.targets.iter().enumerate();
        targets
            .map(|(index, target)| self.start_part(*target, share(index)))
            .collect()
    }

    fn start_part(&self, target: SocketAddrV4, connections: usize) -> Result<Part> {
        let rate = self.connect_rate.div_ceil(self.targets.len() as u64);
        let protocol = match self.protocol {
            Protocol::Sse => "sse",
            Protocol::Ws | Protocol::Raw | Protocol::Shared => "ws",
        };
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["--json", "fleet-part", "--prefix", PREFIX])
            .args(["--target", &target.to_string(), "--protocol", protocol])
            .args(["--connections", &connections.to_string()])
            .args(["--connect-rate", &rate.to_string()])
            .args(["--publications", &self.publications.to_string()]);
        if let Some(token) = &self.token {
            command.args(["--token", token]);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("starting a process of the fleet")?;
        let output = child.stdout.take().context("its output is piped")?;
        Ok(Part {
            child,
            output: BufReader::new(output),
            connections,
        })
    }

    /// Publishes over the whole time for which the crowd is held.
    fn publish(&self) -> Result<Published> {
        let from = clock::now() + SECOND / 2;
        let to = from + nanos(self.hold);
        let published = publisher::run(&Publishing {
            target: self.targets[0],
            key: self.key.clone(),
            channels: crate::plan::channels(PREFIX, 1),
            payload_bytes: PAYLOAD_BYTES,
            connections: 1,
            batch: 1,
            pace: Pace::Rate(self.publications as f64 / self.hold),
            from,
            // Before the one that would come at the very end.
            to: to - SECOND / 100,
        })?;
        clock::sleep_until(to);
        Ok(published)
    }

    fn say_memory(&self, report: &mut Report, empty: &Reading, full: &Reading) {
        let each =
            |after: u64, before: u64| (after as f64 - before as f64) / self.connections as f64;
        if !self.pids.is_empty() {
            let bytes = each(full.resident, empty.resident);
            report.say("bytes_per_connection", bytes, "gateways {} B a connection");
        }
        let kernel = each(full.kernel, empty.kernel);
        // On loopback both ends are this machine's.
        report.say(
            "kernel_bytes_per_connection",
            kernel,
            "the kernel {} B for both ends",
        );
    }

    fn say_cpu(&self, report: &mut Report, from: &Reading, to: &Reading) {
        if self.pids.is_empty() {
            return;
        }
        let seconds = (to.at - from.at) as f64 / 1e9;
        let percent = (to.cpu - from.cpu) / seconds * 100.0;
        report.say("held_seconds", seconds, "held for {} s");
        report.say("cpu_percent", percent, "gateways {} % of a core meanwhile");
    }

    fn say_arrivals(&self, report: &mut Report, published: &Published, heard: &[Value]) {
        let sum = |name: &str| {
            let numbers = heard.iter().filter_map(|part| part[name].as_u64());
            numbers.sum::<u64>()
        };
        let expected = published.count * self.connections as u64;
        let deliveries = sum("deliveries");
        report.say("pings", sum("pings") as f64, "{} pings answered");
        report.say("closed", sum("closed") as f64, "{} closed");
        report.say(
            "missing",
            expected.saturating_sub(deliveries - sum("duplicated")) as f64,
            "{} missing",
        );
        report.say("duplicated", sum("duplicated") as f64, "{} duplicated");
        report.set("deliveries", json!(deliveries));
        report.set("refused", json!(published.refused));
        let mut spread = histogram();
        for number in 0..published.count as usize {
            let rows = heard.iter().map(|part| &part["rows"][number]);
            if let Some(last) = to_the_last(rows) {
                spread.saturating_record(last);
            }
        }
        report.spread("last_", "to the last of all", &spread);
        report.troubles(&published.first_refusal);
        for trouble in heard.iter().filter_map(|part| part["trouble"].as_str()) {
            report.troubles([&trouble.to_owned()]);
        }
    }
}

/// From the intended time of a publication to its last arrival over all parts: rows of intended time and last arrival.
fn to_the_last<'a>(rows: impl Iterator<Item = &'a Value>) -> Option<u64> {
    let arrivals = rows.filter_map(|row| Some((row[0].as_u64()?, row[1].as_u64()?)));
    let arrivals = arrivals.filter(|(sent, _)| *sent > 0);
    arrivals.map(|(sent, last)| last.saturating_sub(sent)).max()
}

impl Part {
    /// Its next line.
    fn hear(&mut self) -> Result<Value> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        let said: Value = serde_json::from_str(&line)
            .with_context(|| format!("a process of {} connections ended", self.connections))?;
        if let Some(trouble) = said["failed"].as_str() {
            bail!("{trouble}");
        }
        Ok(said)
    }

    /// Ends its input and hears its report.
    fn finish(mut self) -> Result<Value> {
        drop(self.child.stdin.take());
        self.hear()
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // Without input it ends by itself; with an error elsewhere nobody waits for that. It is our own child.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl FleetPart {
    /// Runs it.
    pub(crate) fn run(&self) -> Result<Report> {
        socket::require_files(self.connections)?;
        let mut plan = self
            .crowd
            .plan(&self.server, self.protocol, self.connections, 1);
        plan.publications = self.publications;
        let swarm = match Swarm::start(plan)?.joined_or_why() {
            Ok(swarm) => swarm,
            Err(error) => {
                say_line(&json!({"failed": format!("{}: {error:#}", self.server.target)}))?;
                return Err(error);
            }
        };
        say_line(&json!({"joined": swarm.joined()}))?;
        // Its end is the sign to stop.
        std::io::stdin().read_to_end(&mut Vec::new())?;
        let (pings, closed) = (swarm.pings(), swarm.ended());
        let tally = swarm.finish()?;
        let rows: Vec<Value> = tally
            .rows()
            .map(|(sent, last, copies)| json!([sent, last, copies]))
            .collect();
        ensure!(rows.len() == self.publications, "a row a publication");
        let mut report = Report::new("fleet-part");
        report
            .set("deliveries", json!(tally.deliveries))
            .set("duplicated", json!(tally.duplicates))
            .set("pings", json!(pings))
            .set("closed", json!(closed))
            .set("rows", json!(rows))
            .set("trouble", json!(tally.first_trouble));
        Ok(report)
    }
}

fn say_line(value: &Value) -> Result<()> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{value}")?;
    Ok(output.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_all_is_the_last_of_the_slowest() {
        let rows = [json!([100, 150, 3]), json!([100, 400, 3]), json!([0, 0, 0])];
        assert_eq!(to_the_last(rows.iter()), Some(300));
        assert_eq!(to_the_last([json!([0, 0, 0])].iter()), None);
    }
}
