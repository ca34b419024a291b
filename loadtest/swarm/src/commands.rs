//! `swarm commands`: messages from clients instead of to them. Each connection keeps a number of commands unanswered.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::args::{Crowd, Server};
use crate::plan::{Behaviour, CommandKind, Protocol, Session};
use crate::reading::Reading;
use crate::report::Report;
use crate::socket;
use crate::swarm::Swarm;

/// Send commands over WebSocket as fast as they are answered.
#[derive(Args, Clone, Debug)]
pub(crate) struct Commands {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    crowd: Crowd,
    /// Which command.
    #[arg(long, value_enum, default_value_t = CommandKind::Ping)]
    kind: CommandKind,
    /// WebSockets that send.
    #[arg(long, default_value_t = 100)]
    connections: usize,
    /// Commands unanswered on each.
    #[arg(long, default_value_t = 8)]
    pipeline: usize,
    /// A file with a token and a session's id on each line: connections come with these in turn.
    #[arg(long)]
    sessions: Option<PathBuf>,
    /// Seconds that are not measured.
    #[arg(long, default_value_t = 1.0)]
    warmup: f64,
    /// Seconds that are measured.
    #[arg(long, default_value_t = 10.0)]
    duration: f64,
}

impl Commands {
    /// Runs it. Latency is closed-loop, from the sending of a command to its answer: it says how deep the queue is.
    pub(crate) fn run(&self) -> Result<Report> {
        socket::require_files(self.connections)?;
        let mut plan = self
            .crowd
            .plan(&self.server, Protocol::Ws, self.connections, 0);
        plan.behaviour = Behaviour::Command(self.kind, self.pipeline.max(1));
        if let Some(file) = &self.sessions {
            plan.sessions = sessions(file)?;
        }
        let swarm = Swarm::start(plan)?.joined_or_why()?;
        thread::sleep(Duration::from_secs_f64(self.warmup));
        let before = Reading::take(self.server.process(), swarm.answers())?;
        thread::sleep(Duration::from_secs_f64(self.duration));
        let after = Reading::take(self.server.process(), swarm.answers())?;
        let ended = swarm.ended();
        let tally = swarm.finish()?;
        let title = format!(
            "commands {:?} {} connections, {} in flight each",
            self.kind, self.connections, self.pipeline
        );
        let mut report = Report::new(title);
        after.report(&before, "answers", &mut report);
        report.spread("", "latency", &tally.latency);
        report.say("errors", tally.errors as f64, "{} errors").say(
            "closed",
            ended as f64,
            "{} closed",
        );
        report.troubles(&tally.first_trouble);
        Ok(report)
    }
}

/// Reads a token and a session's id from each line.
fn sessions(file: &Path) -> Result<Arc<[Session]>> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let sessions = text.lines().map(|line| {
        let (token, id) = line
            .split_once(' ')
            .with_context(|| format!("no token and session: {line}"))?;
        Ok(Session {
            token: token.to_owned(),
            id: id.trim().to_owned(),
        })
    });
    let sessions: Vec<_> = sessions.collect::<Result<_>>()?;
    ensure!(!sessions.is_empty(), "{} names nobody", file.display());
    Ok(sessions.into())
}
