//! Who a client is and what it may do.
//!
//! `claims`, `permission` and `credentials` are pure; `verifier` verifies and mints JSON Web Tokens (RFC 7519) by its
//! `key`s, `guard` watches the doors of back ends and operators, `pass` is what an operator's browser keeps. The present time
//! is an argument. Only `key_set` does I/O and reads a clock: it keeps the keys of issuers elsewhere.

mod adopted;
mod claims;
mod config;
mod credentials;
mod ended;
mod error;
mod guard;
mod issuers;
mod key;
mod key_set;
mod known;
mod pass;
mod permission;
mod supplement;
mod token;
mod verifier;

pub use claims::{Grants, Identity, Pattern};
pub use config::Config;
pub use credentials::{bearer, client_token};
pub use error::AuthError;
pub use guard::{AdminAccess, HubCaller, guard_admin, guard_hub};
pub use issuers::{KEY_SOURCES_RULE, KeySource, KeySources, KeySourcesError};
/// The signature algorithms.
pub use jsonwebtoken::Algorithm;
pub use key::{PUBLIC_KEYS_RULE, PublicKeys, PublicKeysError};
pub use key_set::keep_keys;
pub use pass::{PASS_SECONDS, admin_pass, guard_admin_pass};
pub use permission::{Action, may};
pub use supplement::{Supplement, SupplementFields};
pub use token::{GrantClaims, TokenClaims};
pub use verifier::{Verifier, sign};
