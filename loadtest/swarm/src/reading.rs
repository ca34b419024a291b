//! The state of server and generator at one moment, and what happened between two: CPU and counts.

use anyhow::Result;
use serde_json::json;

use crate::clock;
use crate::process::{Process, machine_cpu};
use crate::report::Report;

/// One moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    at: u64,
    count: u64,
    server: Option<f64>,
    own: f64,
    machine: f64,
}

impl Reading {
    /// Now. `count` is whatever the run is about: deliveries, answers.
    pub(crate) fn take(server: Option<Process>, count: u64) -> Result<Self> {
        let server = server.map(Process::cpu).transpose()?;
        Ok(Reading {
            at: clock::now(),
            count,
            server,
            own: Process::own().cpu()?,
            machine: machine_cpu()?,
        })
    }

    /// Seconds since `earlier`.
    pub(crate) fn seconds_since(&self, earlier: &Reading) -> f64 {
        (self.at - earlier.at) as f64 / 1e9
    }

    /// Counted since `earlier`.
    pub(crate) fn count_since(&self, earlier: &Reading) -> u64 {
        self.count - earlier.count
    }

    /// Says the rate of what was counted, the server's CPU for each of it, and who was busy. A generator near a whole
    /// core for each of its threads was the limit of the run.
    pub(crate) fn report(&self, earlier: &Reading, what: &str, report: &mut Report) {
        let (seconds, count) = (self.seconds_since(earlier), self.count_since(earlier));
        let plural = if what == "delivery" {
            "deliveries"
        } else {
            what
        };
        report.say(
            &format!("{plural}_per_second"),
            count as f64 / seconds,
            &format!("{{}} {plural}/s"),
        );
        if let (Some(now), Some(then)) = (self.server, earlier.server) {
            let used = now - then;
            if count > 0 {
                let name = format!("cpu_us_per_{what}");
                report.say(&name, used * 1e6 / count as f64, "server {} us CPU each");
            }
            report.say("server_cores", used / seconds, "server {} cores");
        }
        report.say(
            "generator_cores",
            (self.own - earlier.own) / seconds,
            "generator {} cores",
        );
        let server = self.server.unwrap_or(0.0) - earlier.server.unwrap_or(0.0);
        let others = (self.machine - earlier.machine - server - (self.own - earlier.own)) / seconds;
        report.set("others_cores", json!(others.max(0.0)));
        // A tenth of a core is what a kernel and a terminal use anyway.
        let spoilt = self.server.is_some() && others > 0.1;
        report.set("spoilt", json!(spoilt));
        if spoilt {
            report.add(format!("SPOILT: others used {others:.2} cores"));
        }
        report.set("seconds", json!(seconds));
    }
}
