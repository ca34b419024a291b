//! Reaches a hub: plain or over TLS, as its URL says.

use std::io;
use std::path::{Path, PathBuf};

use http::Uri;
use tokio::net::TcpStream;

use super::CliError;
use crate::tls::{Connector, Stream};

/// A hub, as a command's options name it.
#[derive(Debug)]
pub(super) struct Address {
    /// As it was given, without a slash at its end.
    pub(super) url: String,
    host: String,
    port: u16,
    connector: Option<Connector>,
}

/// Who is believed to be a hub over TLS.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Trust {
    /// A file with the certificates in PEM that vouch for a hub over https [default: the system's]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

impl Address {
    /// The hub of this URL.
    ///
    /// # Errors
    /// When that is none, or nobody could vouch for it.
    pub(super) fn parse(url: &str, trust: &Trust) -> Result<Self, CliError> {
        let refused = |argument, rule: String| CliError::Argument { argument, rule };
        let uri: Option<Uri> = url.parse().ok();
        let parts = uri.as_ref().map(|uri| (uri.scheme_str(), uri.host(), uri));
        let Some((Some(scheme @ ("http" | "https")), Some(host), uri)) = parts else {
            let rule = "must be http://host[:port] or https://host[:port]";
            return Err(refused("--url", rule.to_owned()));
        };
        // The commands know their paths; one of a proxy in front would have to stand before all of them.
        if uri
            .path_and_query()
            .is_some_and(|rest| rest.as_str() != "/")
        {
            let rule = "must be http://host[:port] or https://host[:port], without a path";
            return Err(refused("--url", rule.to_owned()));
        }
        let is_encrypted = scheme == "https";
        let connector = is_encrypted
            .then(|| connector(trust.ca.as_deref()))
            .transpose()?;
        Ok(Self {
            url: url.trim_end_matches('/').to_owned(),
            // An IPv6 address stands in brackets.
            host: host.trim_matches(['[', ']']).to_owned(),
            port: uri
                .port_u16()
                .unwrap_or(if is_encrypted { 443 } else { 80 }),
            connector,
        })
    }

    /// As a `Host` field has it.
    pub(super) fn authority(&self) -> &str {
        self.url.split_once("://").map_or("", |(_, rest)| rest)
    }

    /// A connection to it. The caller bounds its time.
    ///
    /// # Errors
    /// When there is nobody, or nobody vouches for whoever is there.
    pub(super) async fn dial(&self) -> io::Result<Stream> {
        let socket = TcpStream::connect((self.host.as_str(), self.port)).await?;
        match &self.connector {
            Some(connector) => connector.connect(&self.host, socket).await,
            None => Ok(Stream::Plain(socket)),
        }
    }

    /// That it cannot be reached, and why.
    pub(super) fn unreachable(&self, cause: impl std::fmt::Display) -> CliError {
        CliError::Unreachable {
            url: self.url.clone(),
            cause: cause.to_string(),
        }
    }
}

fn connector(roots: Option<&Path>) -> Result<Connector, CliError> {
    Connector::load(roots, false).map_err(|error| CliError::Argument {
        argument: "--ca",
        rule: format!("is of no use: {error}"),
    })
}
