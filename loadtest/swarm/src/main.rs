//! Load generator for a real-time fan-out hub: tens of thousands of WebSocket or SSE subscribers from one process,
//! cheap enough that the hub and not the generator is measured. It speaks the hub's own protocol (`/ws/connect`,
//! `/sse/connect`, `/hub`), connects to loopback only, and every run is bounded in time and count. `loadtest/README.md`
//! says which call gives which figure. Linux only.

mod args;
mod bridge;
mod clock;
mod commands;
mod connect;
mod connection;
mod conversation;
mod fanout;
mod fleet;
mod floor;
mod frame;
mod gauge;
mod http;
mod idle;
mod payload;
mod plan;
mod probe;
mod process;
mod publisher;
mod reader;
mod reading;
mod recover;
mod report;
mod request;
mod socket;
mod sse;
mod stalled;
mod swarm;
mod tally;
mod upstream;

use clap::{Parser, Subcommand};

/// Load generator for a real-time fan-out hub on loopback.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// Print one JSON object to standard output, and the line for people to standard error.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    work: Work,
}

#[derive(Subcommand)]
enum Work {
    Fanout(fanout::Fanout),
    Idle(idle::Idle),
    Connect(connect::Connect),
    Stalled(stalled::Stalled),
    Commands(commands::Commands),
    Bridge(bridge::Bridge),
    Fleet(fleet::Fleet),
    /// A process of `fleet`; not to be called by hand.
    #[command(hide = true)]
    FleetPart(fleet::FleetPart),
    Recover(recover::Recover),
    Floor(floor::Floor),
    /// The reading process of `floor`; not to be called by hand.
    #[command(hide = true)]
    FloorReader(floor::FloorReader),
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let report = match cli.work {
        Work::Fanout(work) => work.run(),
        Work::Idle(work) => work.run(),
        Work::Connect(work) => work.run(),
        Work::Stalled(work) => work.run(),
        Work::Commands(work) => work.run(),
        Work::Bridge(work) => work.run(),
        Work::Fleet(work) => work.run(),
        Work::FleetPart(work) => work.run(),
        Work::Recover(work) => work.run(),
        Work::Floor(work) => work.run(),
        Work::FloorReader(work) => work.run(),
    }?;
    report.print(cli.json);
    Ok(())
}
