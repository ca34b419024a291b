//! Reads the command line, hands over, and returns the exit code.

use std::process::ExitCode;

use fanfare::config::Settings;

fn main() -> ExitCode {
    fanfare::cli::run(std::env::args_os(), serve)
}

fn serve(_settings: Settings) -> anyhow::Result<()> {
    anyhow::bail!("the parts that serve are not joined yet")
}
