//! Reads the command line, hands over, and returns the exit code.

use std::process::ExitCode;

use anyhow::Context as _;
use fanfare::config::Settings;
use fanfare::server::Outcome;
use fanfare::{app, telemetry};

/// What a shell expects of a process that a second signal ended.
const EXIT_FORCED: i32 = 130;

fn main() -> ExitCode {
    fanfare::cli::run(std::env::args_os(), |settings| {
        serve(settings).map_err(|error| format!("{error:#}"))
    })
}

fn serve(settings: Settings) -> anyhow::Result<()> {
    let (guard, exporter) =
        telemetry::setup::install(&settings.telemetry).context("logs and metrics")?;
    for warning in &settings.warnings {
        tracing::warn!("{warning}");
    }
    let node = settings.transport.node.clone();
    let on_bound = move |address| tracing::info!(%address, %node, "Fanfare listens");
    let outcome = app::serve(settings, exporter, on_bound).context("serving")?;
    tracing::info!(?outcome, "Fanfare ends");
    drop(guard);
    if outcome == Outcome::Forced {
        std::process::exit(EXIT_FORCED);
    }
    Ok(())
}
