//! TLS (RFC 8446, RFC 5246): certificates for clients, trust in upstreams, and the one type of socket that is plain or
//! encrypted.
//!
//! [`Acceptor`] holds the node's certificate and takes a new one while connections live on; [`Connector`] says whom to
//! believe behind us. [`Stream`] is what server and proxy read and write, a socket of tokio's; a worker, whose sockets
//! tokio does not know, drives a [`Layer`] over its own. Where no TLS is configured none of this costs more than a
//! branch.
//!
//! One provider of cryptography (aws-lc) is named everywhere: with two compiled in, rustls chooses none.

mod acceptor;
mod connector;
mod layer;
mod own;
mod pem;
mod pipe;
mod stream;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

pub use acceptor::{Acceptor, Renewed};
pub use connector::{Connector, untrusted};
pub use layer::Layer;
pub use pem::TlsError;
pub use pipe::{FarEnd, Pipe, Pulled};
pub use stream::Stream;

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
