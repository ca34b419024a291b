//! `swarm recover`: many clients of one channel come back at once, each with a position from which it missed as many
//! publications, on one or more nodes: how long until the last one has everything.

use std::net::SocketAddrV4;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::{Value, json};

use crate::args::{Crowd, Server};
use crate::clock;
use crate::frame;
use crate::http::{HttpConnection, post_head};
use crate::plan::Protocol;
use crate::report::Report;
use crate::socket;
use crate::swarm::Swarm;

/// The longest wait without any progress.
const QUIET: std::time::Duration = std::time::Duration::from_secs(5);

/// Subscriptions a second: more than can be sent.
const AT_ONCE: u64 = 1_000_000;

/// Let clients recover what they missed, all at once.
#[derive(Args, Clone, Debug)]
pub(crate) struct Recover {
    #[command(flatten)]
    crowd: Crowd,
    /// Addresses of the nodes, within 127.0.0.0/8, with commas between; the clients are spread over them.
    #[arg(long, required = true, value_delimiter = ',', value_parser = socket::loopback)]
    targets: Vec<SocketAddrV4>,
    /// Token for WebSocket, where nodes ask for one.
    #[arg(long)]
    token: Option<String>,
    /// Key for /hub, where nodes ask for one.
    #[arg(long)]
    key: Option<String>,
    /// Clients over all nodes.
    #[arg(long, default_value_t = 5_000)]
    connections: usize,
    /// Publications that each of them missed; the channel must keep that many.
    #[arg(long, default_value_t = 99)]
    missed: usize,
    /// Bytes of each payload.
    #[arg(long, default_value_t = 128)]
    bytes: usize,
}

impl Recover {
    /// Runs it.
    pub(crate) fn run(&self) -> Result<Report> {
        socket::require_files(self.connections)?;
        let channel = format!("{}0", self.crowd.prefix);
        let position = self.publish(&channel)?;
        let swarms = self.connect()?;
        let recover =
            json!({"type": "subscribe", "id": 1, "channel": channel, "recover": position});
        let command = frame::masked(frame::TEXT, recover.to_string().as_bytes());
        let began = clock::now();
        // All of a node at once, and node after node, which is soon enough: sending is a small part of it.
        for swarm in &swarms {
            swarm.send_each(&command, AT_ONCE).context("subscribing")?;
        }
        for (swarm, connections) in swarms.iter().zip(self.shares()) {
            swarm.wait_deliveries((connections * self.missed) as u64, QUIET);
        }
        let seconds = (clock::now() - began) as f64 / 1e9;
        let deliveries: u64 = swarms.iter().map(Swarm::deliveries).sum();
        let ended: usize = swarms.iter().map(Swarm::ended).sum();
        let tallies: Vec<_> = swarms
            .into_iter()
            .map(Swarm::finish)
            .collect::<Result<_>>()?;
        let trouble = tallies.into_iter().find_map(|tally| tally.first_trouble);
        let mut report = Report::new(format!(
            "recover {} clients on {} nodes, {} missed each",
            self.connections,
            self.targets.len(),
            self.missed
        ));
        let expected = (self.connections * self.missed) as u64;
        report
            .say("seconds", seconds, "all caught up after {} s")
            .say(
                "missing",
                expected.saturating_sub(deliveries) as f64,
                "{} missing",
            )
            .say(
                "duplicated",
                deliveries.saturating_sub(expected) as f64,
                "{} twice",
            )
            .say("closed", ended as f64, "{} closed");
        report.troubles(&trouble);
        Ok(report)
    }

    /// Publishes what will have been missed, in the channel's first node. Answers the position before it.
    fn publish(&self, channel: &str) -> Result<Value> {
        let target = self.targets[0];
        let mut connection = HttpConnection::open(target, true)?;
        let data = "x".repeat(self.bytes.saturating_sub(2));
        let body = json!({"channel": channel, "data": data}).to_string();
        let mut position = None;
        for _ in 0..=self.missed {
            let mut request = post_head(target, "/hub/publish", self.key.as_deref(), body.len());
            request.push_str(&body);
            connection.send(request.as_bytes(), 1)?;
            let mut answer = Value::Null;
            while connection
                .receive(|got| answer = serde_json::from_slice(got.body).unwrap_or_default())?
                == 0
            {}
            ensure!(answer["offset"].is_u64(), "publishing: {answer}");
            position.get_or_insert(json!({"epoch": answer["epoch"], "offset": answer["offset"]}));
        }
        position.context("nothing was published")
    }

    fn shares(&self) -> Vec<usize> {
        let (all, count) = (self.connections, self.targets.len());
        let share = |index: usize| all * (index + 1) / count - all * index / count;
        (0..count).map(share).collect()
    }

    fn connect(&self) -> Result<Vec<Swarm>> {
        let parts = self.targets.iter().zip(self.shares());
        let swarms = parts.map(|(target, connections)| {
            let server = Server {
                target: *target,
                token: self.token.clone(),
                key: None,
                pid: None,
            };
            let plan = self.crowd.plan(&server, Protocol::Ws, connections, 0);
            Swarm::start(plan)?.joined_or_why()
        });
        swarms.collect()
    }
}
