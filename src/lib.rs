//! Fanfare: a real-time fan-out hub.
//!
//! Publish once, by HTTP or from a socket, and every subscriber of the channel has it, over whichever protocol it is
//! connected; and a client that was away catches up, or is told plainly that it cannot.
//!
//! The rooms of this crate, upper before lower. An upper room may name a lower one, never back; rooms on one line do
//! not know each other. `tests/architecture.rs` holds that.
//!
//! ```text
//! cli
//! app                       the composition root: the only file that names concrete parts together
//! config                    environment and file become the rooms' own configurations
//! server                    threads, accept loops, strict HTTP, admission, drain
//! transport | api | proxy | admin
//!                           sockets and streams | HTTP for back ends | to upstreams | page, health, metrics
//! client | relay | events   one client's conversation (sans-IO) | joins the workers to the broker
//! auth | session            claims, permissions, token verification | users and their login sessions
//! http2                     the same exchanges over HTTP/2
//! hub | protocol | broker | limits | http1
//! redis | outbound          connections to Redis | what the node asks of others over HTTP
//! tls                       certificates and encrypted sockets
//! telemetry                 metrics and logs
//! model                     the shared nouns
//! ```
//!
//! `docs/ARCHITECTURE.md` tells the same with reasons.

pub mod admin;
pub mod api;
pub mod app;
pub mod auth;
pub mod broker;
pub mod cli;
pub mod client;
pub mod config;
pub mod events;
pub mod http1;
pub mod http2;
pub mod hub;
pub mod limits;
pub mod model;
pub mod outbound;
pub mod protocol;
pub mod proxy;
pub mod redis;
pub mod relay;
pub mod server;
pub mod session;
pub mod telemetry;
pub mod tls;
pub mod transport;
