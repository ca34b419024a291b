//! Metrics and logs.

mod config;

pub use config::{Config, LogFormat};
