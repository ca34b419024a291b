//! The proxy wing over real sockets: the built binary between clients and upstreams of the tests' own, bytes where bytes
//! matter.

#[allow(
    dead_code,
    unused_imports,
    reason = "the hub's suite uses all of it, this one a part"
)]
#[path = "../hub/support/mod.rs"]
mod support;

mod bad_upstreams;
mod browsers;
mod cache;
mod choosing;
mod encrypted;
mod http;
mod http2;
mod http2_bounds;
mod http2_connections;
mod http2_upstreams;
mod http2_websocket;
mod identity;
mod open_streams;
mod phases;
mod pressure;
mod reload;
mod retries;
mod services;
mod shared;
mod shims;
mod streams;
mod strict;
mod ticker;
mod upstream;
mod websocket;

use support::{Hub, hub, hub_with};
use upstream::Upstream;

/// A node with the service `example` on these upstreams, without a rate limit.
async fn node(upstreams: &[&Upstream], variables: &[(&str, &str)]) -> Hub {
    let urls: Vec<String> = upstreams.iter().map(|one| one.url()).collect();
    let services = serde_json::json!({ "example": urls }).to_string();
    let mut all = vec![("UPSTREAMS", services.as_str()), ("RATE_LIMIT_MAX", "0")];
    all.extend(variables);
    hub(&all).await
}

/// A node with the service `example` on these upstreams, as its configuration file has it: with these lines beside.
async fn node_with(upstreams: &[&Upstream], lines: &str, variables: &[(&str, &str)]) -> Hub {
    let mut all = vec![("RATE_LIMIT_MAX", "0")];
    all.extend(variables);
    hub_with(&service(upstreams, lines), &all).await
}

/// The file's text for the service `example`.
fn service(upstreams: &[&Upstream], lines: &str) -> String {
    let urls: Vec<String> = upstreams.iter().map(|one| one.url()).collect();
    format!("[services.example]\nupstreams = {urls:?}\n{lines}\n")
}
