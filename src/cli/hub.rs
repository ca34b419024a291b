//! A small HTTP client of a running hub: `fanfare pub` and `fanfare health`.

use std::io::Write;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::dial::{Address, Trust};
use super::{CliError, encrypted};
use crate::config::Settings;

/// How long a hub may take for one answer.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// The most bytes of an answer that are read.
pub(super) const ANSWER_BYTES_MAX: usize = 1024 * 1024;
#[derive(Debug, clap::Args)]
pub(super) struct PublishOptions {
    /// The channel
    channel: String,
    /// The data: JSON; what is no JSON is published as a string
    data: String,
    /// Where the hub is [default: HOST and PORT]
    #[arg(long)]
    url: Option<String>,
    /// A token with the role publisher or admin
    #[arg(long, conflicts_with = "key")]
    token: Option<String>,
    /// The hub's key [default: HUB_API_KEY of the environment]
    #[arg(long)]
    key: Option<String>,
    #[command(flatten)]
    trust: Trust,
}

#[derive(Debug, clap::Args)]
pub(super) struct HealthOptions {
    /// Where the hub is [default: HOST and PORT]
    #[arg(long)]
    url: Option<String>,
    #[command(flatten)]
    trust: Trust,
}

/// Publishes, and prints the hub's answer.
pub(super) fn publish(options: &PublishOptions, out: &mut dyn Write) -> Result<(), CliError> {
    let data = serde_json::from_str(&options.data)
        .unwrap_or_else(|_| serde_json::Value::String(options.data.clone()));
    let body = serde_json::json!({ "channel": options.channel, "data": data });
    let from_environment = || std::env::var("HUB_API_KEY").ok();
    let credential = options
        .token
        .clone()
        .or_else(|| options.key.clone())
        .or_else(from_environment)
        .filter(|credential| !credential.is_empty());
    let hub = Address::parse(&url_or_local(options.url.as_deref())?, &options.trust)?;
    let (path, body) = ("/hub/publish", body.to_string());
    let answer = ask(&hub, Method::POST, path, credential.as_deref(), body)?;
    writeln!(out, "{answer}")?;
    Ok(())
}

/// Ends well when the hub says that it is alive.
pub(super) fn health(options: &HealthOptions, out: &mut dyn Write) -> Result<(), CliError> {
    let base = match &options.url {
        Some(url) => url.clone(),
        None => {
            let settings = Settings::from_process()?;
            if let Some(acceptor) = &settings.server.tls {
                return encrypted::health(&settings, acceptor, out);
            }
            format!("http://{}", local_authority(&settings))
        }
    };
    let hub = Address::parse(&base, &options.trust)?;
    let answer = ask(&hub, Method::GET, "/healthz", None, String::new())?;
    writeln!(out, "{answer}")?;
    Ok(())
}

/// The URL that was given, or that of the hub which these settings would start.
pub(super) fn url_or_local(url: Option<&str>) -> Result<String, CliError> {
    if let Some(url) = url {
        return Ok(url.to_owned());
    }
    let settings = Settings::from_process()?;
    let scheme = match settings.server.tls {
        Some(_) => "https",
        None => "http",
    };
    Ok(format!("{scheme}://{}", local_authority(&settings)))
}

/// The hub's address as seen from its own machine: the wildcard is no address to connect to.
pub(super) fn local_authority(settings: &Settings) -> String {
    let host = match settings.server.host {
        IpAddr::V4(ip) if ip.is_unspecified() => "127.0.0.1".to_owned(),
        IpAddr::V6(ip) if ip.is_unspecified() => "[::1]".to_owned(),
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    };
    format!("{host}:{}", settings.server.port)
}

fn ask(
    hub: &Address,
    method: Method,
    path: &'static str,
    credential: Option<&str>,
    body: String,
) -> Result<String, CliError> {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, hub.authority())
        .header(header::CONTENT_TYPE, "application/json");
    if let Some(credential) = credential {
        request = request.header(header::AUTHORIZATION, format!("Bearer {credential}"));
    }
    let request = request
        .body(Full::new(Bytes::from(body)))
        .map_err(|_| CliError::Argument {
            argument: "--token or --key",
            rule: "cannot stand in a header".to_owned(),
        })?;
    let exchange = async { tokio::time::timeout(ANSWER_TIMEOUT, exchange(hub, request)).await };
    let answer = runtime()?.block_on(exchange);
    let (status, body) = answer
        .map_err(|_| hub.unreachable("no answer in 10 s"))?
        .map_err(|cause| hub.unreachable(cause))?;
    if (200..300).contains(&status) {
        return Ok(body);
    }
    Err(CliError::Refused {
        url: format!("{}{path}", hub.url),
        status,
        body,
    })
}

async fn exchange(hub: &Address, request: Request<Full<Bytes>>) -> Result<(u16, String), String> {
    let socket = hub.dial().await.map_err(|error| error.to_string())?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(socket))
        .await
        .map_err(|error| error.to_string())?;
    let answer = async {
        let response = sender
            .send_request(request)
            .await
            .map_err(|e| in_full(&e))?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await
            .map_err(|error| error.to_string())?
            .to_bytes();
        Ok((status, String::from_utf8_lossy(&body).trim().to_owned()))
    };
    // The connection moves what the exchange says; the answer may be there before it ends.
    let moved = async {
        let _ = connection.await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        answer = answer => answer,
        () = moved => Err("the connection ended".to_owned()),
    }
}

/// The client's own text says only what went wrong; why stands in the causes.
fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// One thread is enough for one client.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime, CliError> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?)
}
