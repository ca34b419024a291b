//! WebSocket and SSE: a worker's loop over its sockets.

mod config;

pub use config::Config;
