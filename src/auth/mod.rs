//! Who a client is and what it may do.
//!
//! `claims`, `permission` and `credentials` are pure; `token` verifies and mints JSON Web Tokens (RFC 7519), `guard`
//! watches the doors of back ends and operators, `pass` is what an operator's browser keeps. Nothing here reads a clock: the present time is an argument.

mod claims;
mod config;
mod credentials;
mod error;
mod guard;
mod pass;
mod permission;
mod token;

pub use claims::{Grants, Identity, Pattern};
pub use config::Config;
pub use credentials::{bearer, client_token};
pub use error::AuthError;
pub use guard::{AdminAccess, guard_admin, guard_hub};
/// The signature algorithms; only the HMAC ones are ever accepted.
pub use jsonwebtoken::Algorithm;
pub use pass::{PASS_SECONDS, admin_pass, guard_admin_pass};
pub use permission::{Action, may};
pub use token::{GrantClaims, TokenClaims, Verifier};
