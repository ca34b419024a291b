//! Threads, accept loops, strict HTTP/1, admission and drain; generic over what a worker does.

mod config;

pub use config::Config;
