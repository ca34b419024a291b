//! What the auth room can be told.

use std::time::Duration;

use super::{KeySources, PublicKeys};

/// Keys and rules of tokens. `Debug` shows no secret.
#[derive(Clone)]
pub struct Config {
    /// Secrets that verify HMAC tokens; the first one signs (`JWT_SECRET`, `SECRET_KEY`).
    pub secrets: Vec<Box<[u8]>>,
    /// A secret that verifies until a second (Unix time) and never signs: the one before (`JWT_PREVIOUS_SECRET`).
    pub previous_secret: Option<(Box<[u8]>, u64)>,
    /// Keys of issuers elsewhere (`JWT_PUBLIC_KEY`).
    pub public_keys: PublicKeys,
    /// Where issuers elsewhere show their keys (`JWKS_URL`).
    pub key_sources: KeySources,
    /// The algorithms of secrets that are accepted: some of `HS256`, `HS384`, `HS512`; the first one signs (`ALGORITHM`).
    pub algorithms: Vec<jsonwebtoken::Algorithm>,
    /// `JWT_LEEWAY_SECONDS`.
    pub leeway: Duration,
    /// `JWT_AUDIENCE`: when set, tokens must name it.
    pub audience: Option<String>,
    /// `JWT_ISSUER`: when set, tokens must name it.
    pub issuer: Option<String>,
    /// `HUB_API_KEY`: what a back end shows at `/hub`.
    pub hub_api_key: Option<Box<str>>,
    /// `ADMIN_API_KEY`: what an operator shows at `/admin`.
    pub admin_api_key: Option<Box<str>>,
    /// Whether credentials are needed (`AUTH_REQUIRED`).
    pub required: bool,
}

impl Default for Config {
    /// Open: no secrets, no keys, nothing required. For tests and for development without a configuration.
    fn default() -> Self {
        Self {
            secrets: Vec::new(),
            previous_secret: None,
            public_keys: PublicKeys::default(),
            key_sources: KeySources::default(),
            algorithms: vec![jsonwebtoken::Algorithm::HS256],
            leeway: Duration::ZERO,
            audience: None,
            issuer: None,
            hub_api_key: None,
            admin_api_key: None,
            required: false,
        }
    }
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("secrets", &self.secrets.len())
            .field("public_keys", &self.public_keys)
            .field("key_sources", &self.key_sources)
            .field("algorithms", &self.algorithms)
            .field("audience", &self.audience)
            .field("issuer", &self.issuer)
            .field("required", &self.required)
            .finish_non_exhaustive()
    }
}
