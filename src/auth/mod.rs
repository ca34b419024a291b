//! Who a client is and what it may do.
//!
//! `claims` and `permission` are pure; `token` verifies and mints JSON Web Tokens (RFC 7519).

mod claims;
mod config;

pub use claims::{Grants, Identity, Pattern};
pub use config::Config;
