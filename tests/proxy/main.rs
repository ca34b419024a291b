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
mod choosing;
mod encrypted;
mod http;
mod identity;
mod shims;
mod streams;
mod strict;
mod upstream;
mod websocket;

use support::{Hub, hub};
use upstream::Upstream;

/// A node with the service `example` on these upstreams, without a rate limit.
async fn node(upstreams: &[&Upstream], variables: &[(&str, &str)]) -> Hub {
    let urls: Vec<String> = upstreams.iter().map(|one| one.url()).collect();
    let services = serde_json::json!({ "example": urls }).to_string();
    let mut all = vec![("UPSTREAMS", services.as_str()), ("RATE_LIMIT_MAX", "0")];
    all.extend(variables);
    hub(&all).await
}
