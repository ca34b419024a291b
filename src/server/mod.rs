//! Threads, accept loops, TLS, strict HTTP/1 and HTTP/2, admission and drain; generic over what a worker does.
//!
//! [`run`] starts one thread per worker, each with its own runtime, listener and connections: nothing is shared between
//! them but counters. A connection is served by hyper and the router until a handler answers 101; then its socket goes
//! to the [`Worker`]. Whoever holds a socket holds its permit, so the most connections of the process hold for all.

mod accept;
mod answer;
mod body;
mod browsers;
mod config;
mod connection;
mod course;
mod drain;
mod encrypted;
mod linger;
mod link;
mod listen;
mod local;
mod multiplexed;
mod place;
mod replies;
mod request_id;
mod run;
mod service;
mod strict;
mod worker;

pub use browsers::{Browsers, Origins};
pub use config::Config;
pub use drain::Drain;
pub use run::{Hooks, Outcome, ServerError, run};
pub use worker::{Caller, Carrier, Reply, Slot, Worker};
