//! `swarm connect`: how many connections the server takes a second, from the TCP handshake to its first message, or
//! to the answer to a subscription.

use anyhow::Result;
use clap::Args;

use crate::args::{Crowd, Server};
use crate::plan::Protocol;
use crate::process::Process;
use crate::reading::Reading;
use crate::report::Report;
use crate::socket;
use crate::swarm::Swarm;

/// Connect as fast as the server takes it.
#[derive(Args, Clone, Debug)]
pub(crate) struct Connect {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    crowd: Crowd,
    /// What carries the connections.
    #[arg(long, value_enum, default_value_t = Protocol::Ws)]
    protocol: Protocol,
    /// Connections. At 18,000 the client's search for free ports is what is measured.
    #[arg(long, default_value_t = 5_000)]
    connections: usize,
    /// Each also subscribes to a channel before it counts (SSE always does).
    #[arg(long)]
    subscribe: bool,
}

impl Connect {
    /// Runs it. The option `--connect-rate` does not count here: the bound is `--in-flight`.
    pub(crate) fn run(&self) -> Result<Report> {
        socket::require_files(self.connections)?;
        let channels = if self.subscribe || self.protocol == Protocol::Sse {
            1
        } else {
            0
        };
        let mut plan = self
            .crowd
            .plan(&self.server, self.protocol, self.connections, channels);
        plan.connect_rate = 0;
        let before = self.server.process().map(Process::cpu).transpose()?;
        let from = Reading::take(None, 0)?;
        let swarm = Swarm::start(plan)?.joined_or_why()?;
        let to = Reading::take(None, 0)?;
        let seconds = swarm.joining_seconds();
        let mut report = Report::new(format!(
            "connect {:?} {} connections",
            self.protocol, self.connections
        ));
        report.say(
            "connects_per_second",
            self.connections as f64 / seconds,
            "{} connects/s",
        );
        if let (Some(process), Some(before)) = (self.server.process(), before) {
            let each = (process.cpu()? - before) * 1e6 / self.connections as f64;
            report.say("cpu_us_per_connect", each, "server {} us CPU each");
        }
        report.say("seconds", seconds, "in {} s");
        report.say(
            "wall_seconds",
            to.seconds_since(&from),
            "{} s with starting and ending",
        );
        swarm.finish()?;
        Ok(report)
    }
}
