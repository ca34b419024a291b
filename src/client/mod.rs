//! SANS-IO: one client's conversation.

mod config;

pub use config::Config;
