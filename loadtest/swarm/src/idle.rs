//! `swarm idle`: what a connection costs that does nothing: the server's memory for each, also after some traffic,
//! and the CPU of its pings.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::json;

use crate::args::{Crowd, Server};
use crate::clock::{self, nanos};
use crate::frame;
use crate::plan::Protocol;
use crate::process::{Memory, Process};
use crate::publisher::{self, Behind, Pace, Publishing};
use crate::report::Report;
use crate::socket;
use crate::swarm::Swarm;

/// Publications that each connection receives with `--after-traffic`.
const PUBLICATIONS: u64 = 100;
/// Bytes of the message that each WebSocket sends with `--after-traffic`.
const MESSAGE_BYTES: usize = 60_000;

/// Hold idle connections and measure the server's memory and CPU.
#[derive(Args, Clone, Debug)]
pub(crate) struct Idle {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    crowd: Crowd,
    /// What carries the connections.
    #[arg(long, value_enum, default_value_t = Protocol::Ws)]
    protocol: Protocol,
    /// Idle connections, each with one subscription.
    #[arg(long, default_value_t = 18_000)]
    connections: usize,
    /// Channels over which they are spread.
    #[arg(long, default_value_t = 100)]
    channels: usize,
    /// Seconds to wait before memory is read, so that what the handshakes took is given back.
    #[arg(long, default_value_t = 3.0)]
    settle: f64,
    /// Then measure the server's CPU for that many seconds while pings are answered.
    #[arg(long, default_value_t = 0.0)]
    pings_for: f64,
    /// Then publish 100 times to each connection, let each WebSocket send one message of 60,000 bytes, and read the
    /// memory again.
    #[arg(long)]
    after_traffic: bool,
    /// Messages a second with --after-traffic.
    #[arg(long, default_value_t = 1_000)]
    message_rate: u64,
}

impl Idle {
    /// Runs it.
    pub(crate) fn run(&self) -> Result<Report> {
        socket::require_files(self.connections)?;
        let process = self
            .server
            .process()
            .context("idle needs --pid: it measures the server's memory")?;
        let before = process.memory()?;
        let plan = self
            .crowd
            .plan(&self.server, self.protocol, self.connections, self.channels);
        let swarm = Swarm::start(plan)?.joined_or_why()?;
        self.settle();
        let mut report = Report::new(format!(
            "idle {:?} {} connections",
            self.protocol, self.connections
        ));
        self.say_memory(&mut report, "", before, process.memory()?);
        if self.pings_for > 0.0 {
            self.watch_pings(&swarm, process, &mut report)?;
        }
        if self.after_traffic {
            self.traffic(&swarm, &mut report)?;
            self.settle();
            self.say_memory(&mut report, "after_traffic_", before, process.memory()?);
        }
        let ended = swarm.ended();
        let trouble = swarm.finish()?.first_trouble;
        report.say("closed", ended as f64, "{} closed");
        report.troubles(&trouble);
        Ok(report)
    }

    fn settle(&self) {
        thread::sleep(Duration::from_secs_f64(self.settle));
    }

    fn say_memory(&self, report: &mut Report, prefix: &str, before: Memory, after: Memory) {
        let each =
            |after: u64, before: u64| (after as f64 - before as f64) / self.connections as f64;
        let when = prefix.replace('_', " ");
        let bytes = each(after.resident, before.resident);
        report.say(
            &format!("{prefix}bytes_per_connection"),
            bytes,
            &format!("{when}{{}} B a connection"),
        );
        let anonymous = each(after.anonymous, before.anonymous);
        report.say(
            &format!("{prefix}anonymous_bytes_per_connection"),
            anonymous,
            "{} B of it heap and stack",
        );
        report.set("rss_before_mb", json!(before.resident as f64 / 1e6));
        report.say(
            &format!("{prefix}rss_mb"),
            after.resident as f64 / 1e6,
            "server {} MB",
        );
    }

    fn watch_pings(&self, swarm: &Swarm, process: Process, report: &mut Report) -> Result<()> {
        let (cpu, pings, at) = (process.cpu()?, swarm.pings(), clock::now());
        clock::sleep_until(at + nanos(self.pings_for));
        let seconds = (clock::now() - at) as f64 / 1e9;
        let percent = (process.cpu()? - cpu) / seconds * 100.0;
        report.say("idle_cpu_percent", percent, "{} % of a core while idle");
        report.say(
            "pings_per_second",
            (swarm.pings() - pings) as f64 / seconds,
            "{} pings/s",
        );
        Ok(())
    }

    fn traffic(&self, swarm: &Swarm, report: &mut Report) -> Result<()> {
        let (before, wanted) = (swarm.deliveries(), PUBLICATIONS * self.connections as u64);
        let published = publisher::run(&self.publishing(swarm))?;
        ensure!(
            published.refused == 0,
            "publishing was refused: {:?}",
            published.first_refusal
        );
        swarm.wait_deliveries(before + wanted, Duration::from_secs(3));
        let each = (swarm.deliveries() - before) as f64 / self.connections as f64;
        report.say("publications_each", each, "after {} publications each");
        if self.protocol == Protocol::Ws {
            swarm
                .send_each(&message(), self.message_rate)
                .context("the 60,000-byte messages")?;
            report.add(format!("and one message of {MESSAGE_BYTES} B from each"));
        }
        Ok(())
    }

    fn publishing(&self, swarm: &Swarm) -> Publishing {
        let behind = Behind {
            counter: swarm.counter(),
            subscribers_per_publication: (self.connections / self.channels.max(1)) as u64,
            max: 50 * self.channels as u64 + swarm.deliveries(),
        };
        Publishing {
            target: self.server.target,
            key: self.server.key.clone(),
            channels: crate::plan::channels(&self.crowd.prefix, self.channels),
            payload_bytes: 128,
            connections: 1,
            batch: 1,
            pace: Pace::Burst {
                pipeline: 8,
                behind: Some(behind),
                count_max: PUBLICATIONS * self.channels as u64,
            },
            from: clock::now(),
            to: clock::now() + nanos(120.0),
        }
    }
}

/// A JSON ping, padded: small in meaning, large on the wire, and answered.
fn message() -> Vec<u8> {
    let pad = "x".repeat(MESSAGE_BYTES - r#"{"type":"ping","pad":""}"#.len());
    frame::masked(
        frame::TEXT,
        format!(r#"{{"type":"ping","pad":"{pad}"}}"#).as_bytes(),
    )
}
