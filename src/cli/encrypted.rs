//! `fanfare health` of a node of this machine that speaks TLS. Its certificate names the outside, not this machine's
//! loopback, and may be vouched for by nobody that this machine knows: so exactly that certificate is expected.

use std::io::Write;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::CliError;
use super::hub::{ANSWER_BYTES_MAX, ANSWER_TIMEOUT, local_authority, runtime};
use crate::config::Settings;
use crate::tls::{Acceptor, Connector};

const REQUEST: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

/// Ends well when the hub says that it is alive.
pub(super) fn health(
    settings: &Settings,
    acceptor: &Acceptor,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    let authority = local_authority(settings);
    let url = format!("https://{authority}/healthz");
    let connector = Connector::for_own(acceptor);
    let exchange =
        async { tokio::time::timeout(ANSWER_TIMEOUT, exchange(&authority, &connector)).await };
    let answer = runtime()?.block_on(exchange);
    let answer = answer
        .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
        .map_err(|error| CliError::Unreachable {
            url: url.clone(),
            cause: error.to_string(),
        })?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    match status {
        Some(200..=299) => Ok(writeln!(out, "{body}")?),
        status => Err(CliError::Refused {
            url,
            status: status.unwrap_or_default(),
            body: body.to_owned(),
        }),
    }
}

async fn exchange(authority: &str, connector: &Connector) -> std::io::Result<String> {
    let socket = TcpStream::connect(authority).await?;
    let mut stream = connector.connect("localhost", socket).await?;
    stream.write_all(REQUEST).await?;
    stream.flush().await?;
    let mut answer = Vec::new();
    let mut bounded = stream.take(ANSWER_BYTES_MAX as u64);
    bounded.read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
