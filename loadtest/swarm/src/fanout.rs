//! `swarm fanout`: publications by HTTP to many subscribers; latency, time to the last subscriber, the server's CPU
//! for each delivery.

use std::net::SocketAddrV4;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::Args;
use serde_json::json;

use crate::args::{Crowd, Server};
use crate::clock::{self, SECOND, nanos};
use crate::plan::Protocol;
use crate::probe::{self, Probed};
use crate::publisher::{self, Behind, Pace, Published, Publishing};
use crate::reading::Reading;
use crate::report::Report;
use crate::socket;
use crate::swarm::Swarm;
use crate::tally::{Tally, Window};
use crate::upstream::Upstream;

/// Publish to many subscribers and measure what arrives.
#[derive(Args, Clone, Debug)]
pub(crate) struct Fanout {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    crowd: Crowd,
    /// What carries the publications to subscribers.
    #[arg(long, value_enum, default_value_t = Protocol::Ws)]
    protocol: Protocol,
    /// Subscribers, spread evenly over the channels.
    #[arg(long, default_value_t = 1_000)]
    subscribers: usize,
    /// Channels, which publications take in turn.
    #[arg(long, default_value_t = 1)]
    channels: usize,
    /// Publications a second over all channels, sent at their intended times whatever the server does.
    #[arg(long, default_value_t = 100.0, conflicts_with = "burst")]
    rate: f64,
    /// Publish as fast as requests are answered.
    #[arg(long)]
    burst: bool,
    /// Publications in one request; above 1 by /hub/batch.
    #[arg(long, default_value_t = 1)]
    batch: usize,
    /// Requests unanswered on each HTTP connection in a burst.
    #[arg(long, default_value_t = 16)]
    pipeline: usize,
    /// HTTP connections that publish; by default 8, in a burst 1.
    #[arg(long)]
    publishers: Option<usize>,
    /// Where publications go, when that is another node of the fleet than the subscribers'.
    #[arg(long, value_parser = socket::loopback)]
    publish_to: Option<SocketAddrV4>,
    /// Be an upstream on this address: publish in a stream of events that the hub shares among all subscribers, which listen at
    /// /sse/swarm/events. The hub needs the service `swarm` with that upstream and `share = "all"`.
    #[arg(long, value_parser = socket::loopback, conflicts_with_all = ["burst", "batch", "channels", "publish_to"])]
    upstream: Option<SocketAddrV4>,
    /// In a burst, most publications that are published and not delivered. Below the server's bound for a connection,
    /// or the policy for slow consumers is measured.
    #[arg(long, default_value_t = 2_000)]
    behind: u64,
    /// Bytes of each payload.
    #[arg(long, default_value_t = 128)]
    bytes: usize,
    /// Seconds of publishing that are not measured.
    #[arg(long, default_value_t = 2.0)]
    warmup: f64,
    /// Seconds that are measured.
    #[arg(long, default_value_t = 10.0)]
    duration: f64,
    /// Read the stamp of every n-th delivery only; by default all, in a burst every 64th.
    #[arg(long)]
    sample: Option<u32>,
    /// Meanwhile measure a quiet second channel and /healthz.
    #[arg(long)]
    probe: bool,
}

/// Everything that was observed.
struct Observed {
    before: Reading,
    after: Reading,
    published: Published,
    probed: Option<Probed>,
    expected: u64,
    ended: usize,
    tally: Tally,
}

impl Fanout {
    /// Runs it.
    pub(crate) fn run(&self) -> Result<Report> {
        socket::require_files(self.subscribers)?;
        let window = Window::closed();
        let upstream = self.upstream.map(Upstream::listen).transpose()?;
        let protocol = match upstream {
            Some(_) => Protocol::Shared,
            None => self.protocol,
        };
        let mut plan = self
            .crowd
            .plan(&self.server, protocol, self.subscribers, self.channels);
        plan.window = window.clone();
        plan.sample_every = self.sample.unwrap_or(if self.burst { 64 } else { 1 });
        if plan.sample_every == 1 && !self.burst {
            plan.publications =
                (self.rate * (self.warmup + self.duration)) as usize + self.batch + 1;
        }
        let swarm = Swarm::start(plan)?.joined_or_why()?;
        let observed = self.observe(swarm, &window, upstream.as_ref())?;
        let mut report = self.report(&observed);
        if let Some(upstream) = &upstream {
            let connections = upstream.connections() as f64;
            report.say(
                "upstream_connections",
                connections,
                "{} connections to the upstream",
            );
        }
        Ok(report)
    }

    fn observe(
        &self,
        swarm: Swarm,
        window: &Window,
        upstream: Option<&Upstream>,
    ) -> Result<Observed> {
        let start = clock::now() + SECOND / 2;
        let (from, to) = (
            start + nanos(self.warmup),
            start + nanos(self.warmup + self.duration),
        );
        window.set(from, to);
        let publishing = self.publishing(&swarm, start, to);
        let (upstream, rate) = (upstream.cloned(), self.rate);
        let publisher = thread::spawn(move || match upstream {
            Some(upstream) => upstream.publish(&publishing, rate),
            None => publisher::run(&publishing),
        });
        let probe = self
            .probe
            .then(|| probe::start(&self.server, &self.crowd.prefix, from, to))
            .transpose()?;
        clock::sleep_until(from);
        let before = Reading::take(self.server.process(), swarm.deliveries())?;
        clock::sleep_until(to);
        let after = Reading::take(self.server.process(), swarm.deliveries())?;
        let published = publisher
            .join()
            .map_err(|_| anyhow!("the publisher panicked"))?
            .context("publishing")?;
        let probed = probe.map(probe::Probe::finish).transpose()?;
        let expected = expected(
            published.count,
            self.subscribers as u64,
            self.channels as u64,
        );
        swarm.wait_deliveries(expected, Duration::from_secs(2));
        let ended = swarm.ended();
        Ok(Observed {
            before,
            after,
            published,
            probed,
            expected,
            ended,
            tally: swarm.finish()?,
        })
    }

    fn publishing(&self, swarm: &Swarm, from: u64, to: u64) -> Publishing {
        let pace = if self.burst {
            let behind = Behind {
                counter: swarm.counter(),
                subscribers_per_publication: (self.subscribers / self.channels.max(1)) as u64,
                max: self.behind,
            };
            Pace::Burst {
                pipeline: self.pipeline.max(1),
                behind: Some(behind),
                count_max: u64::MAX,
            }
        } else {
            Pace::Rate(self.rate)
        };
        Publishing {
            target: self.publish_to.unwrap_or(self.server.target),
            key: self.server.key.clone(),
            channels: crate::plan::channels(&self.crowd.prefix, self.channels),
            payload_bytes: self.bytes,
            connections: self.publishers.unwrap_or(if self.burst { 1 } else { 8 }),
            batch: self.batch,
            pace,
            from,
            to,
        }
    }

    fn title(&self) -> String {
        let how = match (self.burst, self.batch) {
            (false, 1) => format!("{} publications/s", self.rate),
            (false, batch) => format!("{} publications/s in batches of {batch}", self.rate),
            (true, 1) => format!("burst, {} pipelined", self.pipeline),
            (true, batch) => format!("burst, batches of {batch}"),
        };
        let Fanout {
            subscribers,
            channels,
            bytes,
            ..
        } = self;
        format!(
            "fanout {} {subscribers} subscribers, {channels} channels, {how} of {bytes} B",
            match self.upstream {
                Some(_) => "of a shared stream".to_owned(),
                None => format!("{:?}", self.protocol),
            }
        )
    }

    fn report(&self, observed: &Observed) -> Report {
        let mut report = Report::new(self.title());
        let Observed {
            before,
            after,
            published,
            tally,
            ..
        } = observed;
        after.report(before, "delivery", &mut report);
        report.spread("", "latency", &tally.latency).spread(
            "last_",
            "to the last",
            &tally.to_the_last(),
        );
        say_counts(&mut report, observed);
        let lateness = clock::ms(published.lateness.value_at_quantile(0.99));
        report.set("send_lateness_p99_ms", json!(lateness));
        if lateness > 1.0 {
            report.add(format!("the generator itself sent late: p99 {lateness} ms"));
        }
        if let Some(probed) = &observed.probed {
            report.spread("probe_", "quiet channel", &probed.channel);
            report.spread("healthz_", "/healthz", &probed.healthz);
        }
        if let Some(memory) = self
            .server
            .process()
            .and_then(|process| process.memory().ok())
        {
            report.say(
                "server_rss_mb",
                memory.resident as f64 / 1e6,
                "server {} MB",
            );
        }
        for (count, what) in [
            (observed.ended as u64, "closed"),
            (tally.gaps, "gaps"),
            (published.refused, "refused"),
        ] {
            if count > 0 {
                report.add(format!("{count} {what}"));
            }
        }
        report
            .troubles(&published.first_refusal)
            .troubles(&tally.first_trouble);
        report
    }
}

/// What came against what should have come.
fn say_counts(report: &mut Report, observed: &Observed) {
    let Observed {
        published, tally, ..
    } = observed;
    let unique = tally.deliveries - tally.duplicates;
    let missing = observed.expected.saturating_sub(unique);
    // Without rows nobody looks at each number: more than expected is all that shows.
    let duplicated = tally.duplicates + unique.saturating_sub(observed.expected);
    report.say("missing", missing as f64, "{} missing").say(
        "duplicated",
        duplicated as f64,
        "{} duplicated",
    );
    report
        .set("deliveries", json!(tally.deliveries))
        .set("publications", json!(published.count));
    report
        .set("out_of_order", json!(tally.late))
        .set("closed", json!(observed.ended));
    report
        .set("gaps", json!(tally.gaps))
        .set("refused", json!(published.refused));
}

/// Deliveries of `publications` that take `channels` in turn to `subscribers` spread over them in the same way.
fn expected(publications: u64, subscribers: u64, channels: u64) -> u64 {
    let share = |all: u64, channel: u64| all / channels + u64::from(channel < all % channels);
    (0..channels)
        .map(|channel| share(publications, channel) * share(subscribers, channel))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expects_each_publication_at_each_subscriber_of_its_channel() {
        assert_eq!(expected(10, 1_000, 1), 10_000);
        assert_eq!(expected(4, 10, 3), 2 * 4 + 3 + 3);
        assert_eq!(expected(1, 10, 500), 1);
    }
}
