//! `fanfare token`: mints a token for development.

use std::io::Write;
use std::time::{Duration, SystemTime};

use super::CliError;
use crate::auth::{GrantClaims, TokenClaims, Verifier};
use crate::config::{self, Settings};

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// The user
    #[arg(long)]
    sub: Option<String>,
    /// A role: user, publisher, admin or one of your own; may be given several times
    #[arg(long)]
    role: Vec<String>,
    /// How long it lasts, as 30m or 12h [default: ACCESS_TOKEN_EXPIRE_MINUTES]
    #[arg(long, value_name = "DURATION")]
    ttl: Option<String>,
    /// A channel to be subscribed to at connect; may be given several times
    #[arg(long, value_name = "CHANNEL")]
    channel: Vec<String>,
    /// JSON that presence and join show
    #[arg(long, value_name = "JSON")]
    info: Option<String>,
    /// A channel, or a prefix ending in *, that may be subscribed to; with any grant, nothing else is allowed
    #[arg(long, value_name = "PATTERN")]
    grant_subscribe: Vec<String>,
    /// The same for publishing
    #[arg(long, value_name = "PATTERN")]
    grant_publish: Vec<String>,
    /// The same for reading history
    #[arg(long, value_name = "PATTERN")]
    grant_history: Vec<String>,
    /// The same for reading presence
    #[arg(long, value_name = "PATTERN")]
    grant_presence: Vec<String>,
}

/// Prints the token.
pub(super) fn run(options: &Options, out: &mut dyn Write) -> Result<(), CliError> {
    let settings = Settings::from_process()?;
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let ttl = match &options.ttl {
        Some(text) => parse_ttl(text)?,
        None => settings.token_ttl,
    };
    let verifier = Verifier::new(&settings.auth);
    let token = verifier.mint(&claims(options, now.saturating_add(ttl.as_secs()))?)?;
    // What would be refused at the door is refused here: a bad channel name, an info that is too large.
    verifier.verify(&token, now)?;
    writeln!(out, "{token}")?;
    Ok(())
}

fn parse_ttl(text: &str) -> Result<Duration, CliError> {
    config::duration(text)
        .filter(|ttl| ttl.as_secs() > 0)
        .ok_or_else(|| CliError::Argument {
            argument: "--ttl",
            rule: "must be a duration of at least 1s, as 300s, 30m, 12h or 7d".to_owned(),
        })
}

fn claims(options: &Options, exp: u64) -> Result<TokenClaims, CliError> {
    let info = options
        .info
        .as_deref()
        .map(serde_json::from_str)
        .transpose()
        .map_err(|error| CliError::Argument {
            argument: "--info",
            rule: format!("must be JSON: {error}"),
        })?;
    let grants = GrantClaims {
        subscribe: options.grant_subscribe.clone(),
        publish: options.grant_publish.clone(),
        history: options.grant_history.clone(),
        presence: options.grant_presence.clone(),
    };
    Ok(TokenClaims {
        sub: options.sub.clone(),
        role: options.role.first().cloned(),
        roles: match &options.role[..] {
            [] | [_] => Vec::new(),
            several => several.to_vec(),
        },
        exp: Some(exp),
        info,
        channels: options.channel.clone(),
        grants: (grants != GrantClaims::default()).then_some(grants),
        ..TokenClaims::default()
    })
}
