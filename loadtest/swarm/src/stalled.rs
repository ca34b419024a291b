//! `swarm stalled`: many subscribers of a flooded channel that never read, and a few good ones on another channel.
//! The good ones' latency calm and under the flood says whether stalled readers slow others; the server's memory over
//! the flood says whether its bounds hold.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::Args;
use hdrhistogram::Histogram;
use serde_json::json;

use crate::args::{Crowd, Server};
use crate::clock::{self, SECOND, nanos};
use crate::http::{self, HttpConnection};
use crate::plan::{Behaviour, Plan, Protocol};
use crate::process::Process;
use crate::publisher::{self, Pace, Published, Publishing};
use crate::report::Report;
use crate::socket;
use crate::swarm::Swarm;
use crate::tally::Window;

/// Flood subscribers that never read and watch the others.
#[derive(Args, Clone, Debug)]
pub(crate) struct Stalled {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    crowd: Crowd,
    /// Subscribers that never read.
    #[arg(long, default_value_t = 1_000)]
    stalled: usize,
    /// Subscribers of another channel that do.
    #[arg(long, default_value_t = 100)]
    good: usize,
    /// Publications a second to the good ones, calm and under flood.
    #[arg(long, default_value_t = 100.0)]
    rate: f64,
    /// Publications a second to the stalled ones.
    #[arg(long, default_value_t = 500.0)]
    flood_rate: f64,
    /// Bytes of each payload of the flood.
    #[arg(long, default_value_t = 1_024)]
    flood_bytes: usize,
    /// Name of the flooded channel: its namespace decides the policy for slow consumers.
    #[arg(long, default_value = "swarm-flood")]
    flood_channel: String,
    /// Name of a gauge in the server's /metrics that tells its buffered bytes.
    #[arg(long)]
    queue_metric: Option<String>,
    /// Seconds of the calm phase.
    #[arg(long, default_value_t = 10.0)]
    calm: f64,
    /// Seconds of the flood.
    #[arg(long, default_value_t = 30.0)]
    duration: f64,
}

/// One look at the server during the flood.
struct Sample {
    resident: u64,
    queued: Option<f64>,
}

impl Stalled {
    /// Runs it.
    pub(crate) fn run(&self) -> Result<Report> {
        socket::require_files(self.stalled + self.good)?;
        let process = self
            .server
            .process()
            .context("stalled needs --pid: it watches the server's memory")?;
        let stalled = Swarm::start(self.plan_of_the_stalled())?.joined_or_why()?;
        let mut report = Report::new(format!(
            "stalled {} readers under flood, {} good ones",
            self.stalled, self.good
        ));
        let calm = self.good_phase(self.calm, || Ok(()))?;
        report.spread("calm_", "calm", &calm);

        let flood = self.publishing(
            vec![self.flood_channel.clone()],
            self.flood_bytes,
            self.flood_rate,
            self.duration + 1.0,
        );
        let flood = thread::spawn(move || publisher::run(&flood));
        let mut samples = Vec::new();
        let under = self.good_phase(self.duration, || {
            samples.push(self.sample(process)?);
            Ok(())
        })?;
        let flood = flood
            .join()
            .map_err(|_| anyhow!("the publisher panicked"))?
            .context("the flood")?;
        report.spread("flood_", "under flood", &under);
        let p99 = |spread: &Histogram<u64>| spread.value_at_quantile(0.99) as f64;
        report.say(
            "p99_ratio",
            p99(&under) / p99(&calm),
            "p99 {} times the calm one",
        );
        stalled.check_stalled();
        say_samples(&mut report, &samples);
        say_flood(&mut report, &flood);
        report.say(
            "stalled_closed",
            stalled.ended() as f64,
            "{} stalled connections closed by the server",
        );
        stalled.finish()?;
        Ok(report)
    }

    fn plan_of_the_stalled(&self) -> Plan {
        let mut plan = self.crowd.plan(&self.server, Protocol::Ws, self.stalled, 1);
        plan.channels = [self.flood_channel.clone()].into();
        plan.behaviour = Behaviour::Stall;
        // Little room in the kernel, so that the server's own buffers fill at once.
        plan.receive_bytes = Some(4_096);
        plan
    }

    /// Publishes to fresh good subscribers for some seconds; `tick` is called five times a second meanwhile.
    fn good_phase(
        &self,
        seconds: f64,
        mut tick: impl FnMut() -> Result<()>,
    ) -> Result<Histogram<u64>> {
        let window = Window::closed();
        let mut plan = self.crowd.plan(&self.server, Protocol::Ws, self.good, 1);
        plan.window = window.clone();
        let channels = plan.channels.to_vec();
        let swarm = Swarm::start(plan)?.joined_or_why()?;
        let publishing = self.publishing(channels, 128, self.rate, seconds);
        // The first second is warm-up.
        window.set(
            publishing.from + SECOND.min(publishing.to - publishing.from),
            publishing.to,
        );
        let to = publishing.to;
        let publisher = thread::spawn(move || publisher::run(&publishing));
        while clock::now() < to {
            tick()?;
            thread::sleep(Duration::from_millis(200));
        }
        let published = publisher
            .join()
            .map_err(|_| anyhow!("the publisher panicked"))??;
        swarm.wait_deliveries(published.count * self.good as u64, Duration::from_secs(2));
        Ok(swarm.finish()?.latency)
    }

    fn publishing(
        &self,
        channels: Vec<String>,
        payload_bytes: usize,
        rate: f64,
        seconds: f64,
    ) -> Publishing {
        let from = clock::now() + SECOND / 5;
        Publishing {
            target: self.server.target,
            key: self.server.key.clone(),
            channels: channels.into(),
            payload_bytes,
            connections: 1,
            batch: 1,
            pace: Pace::Rate(rate),
            from,
            to: from + nanos(seconds),
        }
    }

    fn sample(&self, process: Process) -> Result<Sample> {
        let queued = match &self.queue_metric {
            Some(name) => Some(self.metric(name)?),
            None => None,
        };
        Ok(Sample {
            resident: process.memory()?.resident,
            queued,
        })
    }

    /// The sum of all series of that name.
    fn metric(&self, name: &str) -> Result<f64> {
        let mut connection = HttpConnection::open(self.server.target, true)?;
        let (status, body) = connection.call(&http::get(self.server.target, "/metrics"))?;
        let text = String::from_utf8_lossy(&body);
        let series = text.lines().filter(|line| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with([' ', '{']))
        });
        let values: Vec<f64> = series
            .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
            .collect();
        anyhow::ensure!(
            status == 200 && !values.is_empty(),
            "/metrics ({status}) has no {name}"
        );
        Ok(values.iter().sum())
    }
}

/// Flat means: the last quarter's highest is not above the second quarter's by more than noise; the reader judges.
fn say_samples(report: &mut Report, samples: &[Sample]) {
    let highest =
        |part: &[Sample]| part.iter().map(|sample| sample.resident).max().unwrap_or(0) as f64 / 1e6;
    let quarter = samples.len() / 4;
    report.say(
        "rss_start_mb",
        highest(&samples[..1.min(samples.len())]),
        "server {} MB at the start",
    );
    report.say("rss_max_mb", highest(samples), "{} MB at most");
    report.say(
        "rss_second_quarter_mb",
        highest(&samples[quarter..2 * quarter]),
        "{} MB in the second quarter",
    );
    report.say(
        "rss_last_quarter_mb",
        highest(&samples[3 * quarter..]),
        "{} MB in the last",
    );
    let over_time: Vec<u64> = samples.iter().map(|sample| sample.resident).collect();
    report.set("rss_over_time", json!(over_time));
    if let Some(queued) = samples
        .iter()
        .filter_map(|sample| sample.queued)
        .reduce(f64::max)
    {
        report.say("queued_bytes_max", queued, "{} B buffered at most");
    }
}

fn say_flood(report: &mut Report, flood: &Published) {
    report.say(
        "flood_publications",
        flood.count as f64,
        "{} publications of flood",
    );
    report.say("refused", flood.refused as f64, "{} refused");
    report.troubles(&flood.first_refusal);
}
