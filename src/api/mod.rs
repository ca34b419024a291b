//! HTTP for back ends: `/hub`.

mod config;

pub use config::Config;
