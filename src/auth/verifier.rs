//! Verifies JSON Web Tokens (RFC 7519) into an [`Identity`], and mints them.
//!
//! A token chooses among the keys that are configured (`key`) but never brings its own. No claim is required; a claim that
//! is there must be right: a wrong type is an error, never "as if absent".

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;
use jsonwebtoken::{Algorithm, AlgorithmFamily, EncodingKey, Header};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::key::Key;
use super::key_set::Freshness;
use super::known::{Known, Span};
use super::token::{Claim, SignedClaims, TokenClaims};
use super::{AuthError, Config, Identity};

/// The most bytes of a token: what still fits a request's head beside other headers.
pub(super) const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// Verifies and mints tokens. Make one and share it: its keys are prepared once.
pub struct Verifier {
    config: Config,
    /// The keys of the configuration.
    own: Vec<Key>,
    /// A secret that came later, for a node that was given none.
    adopted: OnceLock<Adopted>,
    /// The keys of the issuer's set; `None` until it was fetched.
    issued: ArcSwapOption<Vec<Key>>,
    known: Known,
    pub(super) freshness: Freshness,
}

struct Adopted {
    secret: Box<[u8]>,
    key: Key,
}

/// What a signature stands for: the claims, and when the key ends that made it.
type Signed = (Box<RawValue>, Option<u64>);

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Verifier {
    /// A verifier by these rules.
    pub fn new(config: &Config) -> Self {
        let algorithms = &config.algorithms;
        let secrets = config
            .secrets
            .iter()
            .map(|secret| Key::secret(secret, algorithms));
        let previous = config
            .previous_secret
            .iter()
            .map(|(secret, until)| Key::secret(secret, algorithms).until(*until));
        let public = config.public_keys.keys().iter().cloned();
        let keys = secrets.chain(previous).chain(public);
        Self {
            config: config.clone(),
            own: keys.filter(Key::is_useful).collect(),
            adopted: OnceLock::new(),
            issued: ArcSwapOption::empty(),
            known: Known::default(),
            freshness: Freshness::default(),
        }
    }

    /// The rules.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Whether there is any key by which a token could be valid.
    pub fn has_keys(&self) -> bool {
        !self.own.is_empty() || self.adopted.get().is_some() || self.config.key_set.is_some()
    }

    /// Whether it cannot mint.
    pub fn lacks_secret(&self) -> bool {
        self.signing_secret().is_none()
    }

    /// Takes a secret to sign with, once, where the configuration has none.
    pub fn adopt_secret(&self, secret: &[u8]) {
        if self.config.secrets.is_empty() {
            let key = Key::secret(secret, &self.config.algorithms);
            let secret = secret.into();
            // A second one would not verify what the first one signed.
            let _ = self.adopted.set(Adopted { secret, key });
        }
    }

    /// Puts these in the place of the issuer's keys.
    pub(super) fn replace_issued(&self, keys: Vec<Key>) {
        self.issued.store(Some(Arc::new(keys)));
        // Some of them may have been verified by a key that is gone.
        self.known.clear();
    }

    /// Who a client is, with or without a token: nobody in particular when it has none and none is required. A token that
    /// was verified lately is not verified again.
    ///
    /// # Errors
    /// When a token is required and missing, or the one that is shown is not valid (even where none is required).
    pub fn identify(
        &self,
        token: Option<&str>,
        now_unix_seconds: u64,
    ) -> Result<Arc<Identity>, AuthError> {
        let token = match token {
            Some(token) => token,
            None if self.config.required => return Err(AuthError::Missing),
            None => return Ok(Identity::nobody()),
        };
        let generation = match self.known.find(token, now_unix_seconds) {
            Ok(identity) => return Ok(identity),
            Err(generation) => generation,
        };
        let (identity, span) = self.read(token, now_unix_seconds)?;
        let identity = Arc::new(identity);
        self.known.add(token, &identity, span, generation);
        Ok(identity)
    }

    /// The same; when the token names a key that its issuer may have only now, the issuer is asked first, for some seconds
    /// at most.
    ///
    /// # Errors
    /// As [`Verifier::identify`].
    pub async fn identify_or_ask(
        &self,
        token: Option<&str>,
        now_unix_seconds: u64,
    ) -> Result<Arc<Identity>, AuthError> {
        match self.identify(token, now_unix_seconds) {
            Err(AuthError::UnknownKey | AuthError::KeysUnavailable) => {
                self.freshness.ask().await;
                self.identify(token, now_unix_seconds)
            }
            answer => answer,
        }
    }

    /// Who a token stands for. It is verified each time.
    ///
    /// # Errors
    /// Why it is not valid at this time.
    pub fn verify(&self, token: &str, now_unix_seconds: u64) -> Result<Identity, AuthError> {
        self.read(token, now_unix_seconds)
            .map(|(identity, _)| identity)
    }

    /// Signs claims with the first secret and the first algorithm; the configured issuer and audience are filled in
    /// where the claims name none, so that what is minted here is valid here.
    ///
    /// # Errors
    /// [`AuthError::NoKey`] without a secret.
    pub fn mint(&self, claims: &TokenClaims) -> Result<String, AuthError> {
        let secret = self.signing_secret().ok_or(AuthError::NoKey)?;
        let mut algorithms = self.config.algorithms.iter();
        let algorithm = algorithms
            .find(|algorithm| algorithm.family() == AlgorithmFamily::Hmac)
            .ok_or(AuthError::NoKey)?;
        let mut claims = claims.clone();
        claims.iss = claims.iss.or_else(|| self.config.issuer.clone());
        claims.aud = claims.aud.or_else(|| self.config.audience.clone());
        let key = EncodingKey::from_secret(secret);
        jsonwebtoken::encode(&Header::new(*algorithm), &claims, &key)
            .map_err(|_| AuthError::Malformed("its claims cannot be written"))
    }

    fn signing_secret(&self) -> Option<&[u8]> {
        let own = self.config.secrets.first().map(|secret| &**secret);
        own.or_else(|| self.adopted.get().map(|adopted| &*adopted.secret))
    }

    /// Who a token stands for, and when.
    fn read(&self, token: &str, now: u64) -> Result<(Identity, Span), AuthError> {
        let (json, key_end) = self.signed_claims(token, now)?;
        let claims: SignedClaims<'_> = serde_json::from_str(json.get())
            .map_err(|_| AuthError::Malformed("its claims are no JSON object of single claims"))?;
        let span = self.check_times(&claims, now)?;
        self.check_parties(&claims)?;
        let identity = claims.identity(self.config.leeway)?;
        let until = span.until.min(key_end.unwrap_or(u64::MAX));
        Ok((identity, Span { until, ..span }))
    }

    /// The claims, once a key has been found that signed them.
    fn signed_claims(&self, token: &str, now: u64) -> Result<Signed, AuthError> {
        let issued = self.issued.load();
        let issued = issued.as_deref().map(Vec::as_slice);
        let adopted = self.adopted.get().map(|adopted| &adopted.key);
        let keys = || {
            let issued = issued.unwrap_or_default();
            self.own.iter().chain(adopted).chain(issued)
        };
        let has_issuer = self.config.key_set.is_some();
        if keys().next().is_none() && !has_issuer {
            return Err(AuthError::NoKey);
        }
        let (algorithm, id) = header(token)?;
        let mut refusal = None;
        for key in keys().filter(|key| key.fits(algorithm, id.as_deref(), now)) {
            match key.verify(token) {
                Ok(claims) => return Ok((claims, key.end())),
                Err(AuthError::BadSignature) => refusal = Some(AuthError::BadSignature),
                Err(error) => return Err(error),
            }
        }
        let is_public = algorithm.family() != AlgorithmFamily::Hmac;
        Err(match refusal {
            Some(refusal) => refusal,
            None if has_issuer && is_public => match issued {
                Some(_) => AuthError::UnknownKey,
                None => AuthError::KeysUnavailable,
            },
            None if keys().any(|key| key.knows(algorithm)) => AuthError::BadSignature,
            None => AuthError::WrongAlgorithm,
        })
    }

    fn check_times(&self, claims: &SignedClaims<'_>, now: u64) -> Result<Span, AuthError> {
        let leeway = self.config.leeway.as_secs();
        let end = claims.seconds(Claim::Exp)?;
        let until = end.map_or(u64::MAX, |end| end.saturating_add(leeway));
        // RFC 7519, 4.1.4: not "on or after" the expiration time.
        if now >= until {
            return Err(AuthError::Expired);
        }
        let from = claims.seconds(Claim::Nbf)?.unwrap_or(0);
        if now.saturating_add(leeway) < from {
            return Err(AuthError::NotYetValid);
        }
        let from = from.saturating_sub(leeway);
        Ok(Span { from, until })
    }

    fn check_parties(&self, claims: &SignedClaims<'_>) -> Result<(), AuthError> {
        let issuer = claims.issuer()?;
        if self.config.issuer.is_some() && self.config.issuer != issuer {
            return Err(AuthError::WrongIssuer);
        }
        let is_for = claims.audience()?;
        match &self.config.audience {
            Some(ours) if !is_for.contains(ours) => Err(AuthError::WrongAudience),
            _ => Ok(()),
        }
    }
}

/// The HMAC-SHA256 (RFC 2104) of a message, in base64url without padding.
pub fn sign(secret: &[u8], message: &[u8]) -> Option<String> {
    let key = EncodingKey::from_secret(secret);
    jsonwebtoken::crypto::sign(message, &key, Algorithm::HS256).ok()
}

/// The algorithm and the key's name. The library cannot name `alg: none`, it only fails to read it; so this is looked at
/// first.
fn header(token: &str) -> Result<(Algorithm, Option<String>), AuthError> {
    #[derive(Deserialize)]
    struct Named {
        alg: String,
        #[serde(default)]
        kid: Option<String>,
    }
    if token.len() > TOKEN_BYTES_MAX {
        return Err(AuthError::Malformed("it has more than 16384 bytes"));
    }
    let header = token.split('.').next().unwrap_or_default();
    let named: Named = decode_base64(header)
        .and_then(|json| serde_json::from_slice(&json).ok())
        .ok_or(AuthError::Malformed("it is no JSON Web Token"))?;
    match named.alg.parse() {
        Ok(algorithm) => Ok((algorithm, named.kid)),
        Err(_) => Err(AuthError::WrongAlgorithm),
    }
}

fn decode_base64(text: &str) -> Option<Vec<u8>> {
    use base64::Engine;
    base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(text)
        .ok()
}

#[cfg(test)]
mod tests;
