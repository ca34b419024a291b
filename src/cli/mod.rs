//! The command line: `serve` (the default), `check`, `token`, `pub`, `sub`, `health`, `migrate`, `seed`.
//!
//! What `serve` does is handed in, so that this room does not know the composition root. Everything else is small
//! enough to live here: `pub`, `sub` and `health` are clients of a running hub, `check` and `token` need none.

mod check;
mod data;
mod dial;
mod encrypted;
mod hub;
mod subscriber;
mod token;

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::auth::AuthError;
use crate::config::{self, ConfigError, Settings};

/// A real-time fan-out hub: publish once, every subscriber has it, over WebSocket and SSE.
#[derive(Debug, Parser)]
#[command(name = "fanfare", version, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the hub (what happens without a command)
    Serve,
    /// Print the resolved configuration; ends with 1 and every fault when there is one
    Check,
    /// Mint a token for development with the configured secret
    Token(token::Options),
    /// Publish to a channel of a running hub
    Pub(hub::PublishOptions),
    /// Print the publications of channels of a running hub, a line each: channel, offset, data
    Sub(subscriber::Options),
    /// Ask whether the hub on the configured port is alive; for container checks
    Health(hub::HealthOptions),
    /// Make the file of users and sessions, or bring its tables up to date
    Migrate,
    /// Make an admin and print the password, unless there is a user of that name
    Seed(data::SeedOptions),
}

/// What helps.
const fn advice(error: &AuthError) -> &'static str {
    match error {
        AuthError::NoKey => "; set JWT_SECRET",
        _ => "",
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum CliError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No token could be minted.
    #[error("{0}{advice}", advice = advice(.0))]
    Token(#[from] AuthError),
    /// An argument is not what it must be.
    #[error("{argument} {rule}")]
    Argument {
        argument: &'static str,
        rule: String,
    },
    /// The hub cannot be reached.
    #[error("cannot reach {url}: {cause}")]
    Unreachable { url: String, cause: String },
    /// The hub said no.
    #[error("{url} answered {status}: {body}")]
    Refused {
        url: String,
        status: u16,
        body: String,
    },
    /// The hub ended the subscription for good.
    #[error("the hub closed the connection: {code} {reason}")]
    Closed { code: u16, reason: String },
    /// The hub refused or ended each subscription.
    #[error("no channel is left to follow")]
    NoChannel,
    /// The data file cannot be opened.
    #[error(transparent)]
    File(#[from] crate::session::OpenError),
    /// The database cannot be used.
    #[error(transparent)]
    Database(#[from] crate::session::DatabaseError),
    /// Redis is not there, or cannot be meant.
    #[error("{0}")]
    Redis(String),
    /// What is kept cannot be read or changed.
    #[error(transparent)]
    Store(#[from] crate::session::StoreError),
    /// A password could not be hashed.
    #[error(transparent)]
    Password(#[from] crate::session::PasswordError),
    /// Nobody reads what we print.
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
}

/// Reads the command line and does what it says; `serve` runs the hub. Help, version and usage errors print
/// themselves.
pub fn run<E: Display>(
    arguments: impl IntoIterator<Item = OsString>,
    serve: impl FnOnce(Settings) -> Result<(), E>,
) -> ExitCode {
    let parsed = command()
        .try_get_matches_from(arguments)
        .and_then(|matches| Arguments::from_arg_matches(&matches));
    let command = match parsed {
        Ok(arguments) => arguments.command.unwrap_or(Command::Serve),
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    // Not locked: while `serve` runs, the logs are written from other threads.
    let out = &mut io::stdout();
    let done = match command {
        Command::Serve => return run_serve(serve),
        Command::Check => check::run(&Settings::from_process(), out),
        Command::Token(options) => token::run(&options, out),
        Command::Pub(options) => hub::publish(&options, out),
        Command::Sub(options) => subscriber::run(&options, out),
        Command::Health(options) => hub::health(&options, out),
        Command::Migrate => data::migrate(out),
        Command::Seed(options) => data::seed(&options, out),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // `fanfare sub news | head -1` is no failure.
        Err(CliError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error),
    }
}

fn command() -> clap::Command {
    Arguments::command().after_help(config::help())
}

fn run_serve<E: Display>(serve: impl FnOnce(Settings) -> Result<(), E>) -> ExitCode {
    match Settings::from_process() {
        Ok(settings) => match serve(settings) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&format_args!("{error:#}")),
        },
        Err(error) => fail(&error),
    }
}

fn fail(error: &dyn Display) -> ExitCode {
    let _ = writeln!(io::stderr(), "fanfare: {error}");
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn help_tells_the_variables() {
        let help = command().render_help().to_string();
        assert!(
            help.contains("WS_MAX_BUFFERED_BYTES [2000000 bytes]"),
            "{help}"
        );
    }
}
