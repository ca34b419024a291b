//! Verifies JSON Web Tokens (RFC 7519) into an [`Identity`], and mints them.
//!
//! A token chooses among the keys that are configured (`key`) but never brings its own. No claim is required; a claim that
//! is there must be right: a wrong type is an error, never "as if absent".

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use jsonwebtoken::{Algorithm, AlgorithmFamily, EncodingKey, Header};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::adopted::Adopted;
use super::ended::EndedLogins;
use super::issuers::Issued;
use super::key::Key;
use super::known::{Known, Span};
use super::token::{Claim, SignedClaims, TokenClaims};
use super::{AuthError, Config, Identity};
use crate::model::SessionId;

/// The most bytes of a token: what still fits a request's head beside other headers.
pub(super) const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// Verifies and mints tokens. Make one and share it: its keys are prepared once.
pub struct Verifier {
    config: Config,
    /// The keys of the configuration.
    own: Vec<Key>,
    /// A secret that came later, for a node that was given none.
    adopted: Adopted,
    /// The keys of issuers elsewhere.
    issued: Vec<Issued>,
    /// How often the keys of issuers were replaced.
    generation: AtomicUsize,
    known: Known,
    ended: EndedLogins,
}

/// What a signature stands for.
struct Signed<'a> {
    claims: Box<RawValue>,
    /// When the key ends that made it.
    key_end: Option<u64>,
    /// The issuer whose key it is, when it has a name.
    issuer: Option<&'a str>,
}

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
            adopted: Adopted::default(),
            issued: config.key_sources.iter().map(Issued::new).collect(),
            generation: AtomicUsize::new(0),
            known: Known::default(),
            ended: EndedLogins::default(),
        }
    }

    /// These sessions have ended: what was minted for logins among them opens none of the [doors](super::guard_hub) any more.
    pub fn end_logins(&self, ended: &[SessionId]) {
        self.ended.note(ended);
    }

    /// Whether the login of a token stands, as far as this node knows.
    ///
    /// # Errors
    /// [`AuthError::LoginEnded`] when it does not.
    pub(super) fn check_login(&self, identity: &Identity) -> Result<(), AuthError> {
        match identity.login_session {
            Some(login) if self.ended.has(login) => Err(AuthError::LoginEnded),
            _ => Ok(()),
        }
    }

    /// The rules.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Whether there is any key by which a token could be valid.
    pub fn has_keys(&self) -> bool {
        !self.own.is_empty()
            || !self.issued.is_empty()
            || self.adopted.secret().is_some()
            || self.adopted.is_awaited()
    }

    /// Whether it cannot mint.
    pub fn lacks_secret(&self) -> bool {
        self.config.secrets.is_empty() && self.adopted.secret().is_none()
    }

    /// A secret will come, where the configuration has none: until then nobody is told that a token is wrong which it may have
    /// signed.
    pub fn await_secret(&self) {
        if self.config.secrets.is_empty() {
            self.adopted.expect();
        }
    }

    /// Takes a secret to sign with, where the configuration has none. The one before verifies as well, the one before that
    /// no more.
    pub fn adopt_secret(&self, secret: &[u8]) {
        let is_needed = self.config.secrets.is_empty();
        if is_needed && self.adopted.take(secret, &self.config.algorithms) {
            self.forget_verified();
        }
    }

    /// Whether there are issuers elsewhere, whose keys change.
    pub fn has_issuers(&self) -> bool {
        !self.issued.is_empty()
    }

    /// The issuers elsewhere.
    pub(super) fn issued(&self) -> &[Issued] {
        &self.issued
    }

    /// The issuer elsewhere whose key may have signed this token, by what the token says itself.
    fn issued_for(&self, token: &str) -> Option<&Issued> {
        let names_itself = self.issued.iter().any(|one| one.source.issuer.is_some());
        let issuer = names_itself.then(|| named_issuer(token)).flatten();
        self.issued.iter().find(|one| one.is_for(issuer.as_deref()))
    }

    /// Puts these in the place of an issuer's keys.
    pub(super) fn replace_issued(&self, issued: &Issued, keys: Vec<Key>) {
        issued.keys.store(Some(Arc::new(keys)));
        self.forget_verified();
    }

    /// Some tokens may have been verified by a key that is gone.
    fn forget_verified(&self) {
        self.known.clear();
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Another number after each change of keys: what was verified before may not be valid any more.
    pub fn generation(&self) -> usize {
        self.generation.load(Ordering::Acquire)
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
                if let Some(issued) = token.and_then(|token| self.issued_for(token)) {
                    issued.freshness.ask().await;
                }
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
        self.verify_until(token, now_unix_seconds)
            .map(|(identity, _)| identity)
    }

    /// The same, and from which Unix second on that may not hold any more: by its own end, leeway counted, or its key's.
    ///
    /// # Errors
    /// As [`Verifier::verify`].
    pub fn verify_until(
        &self,
        token: &str,
        now_unix_seconds: u64,
    ) -> Result<(Identity, u64), AuthError> {
        let (identity, span) = self.read(token, now_unix_seconds)?;
        Ok((identity, span.until))
    }

    /// Signs claims with the first secret and the first algorithm; the configured issuer and audience are filled in
    /// where the claims name none, so that what is minted here is valid here.
    ///
    /// # Errors
    /// [`AuthError::NoKey`] without a secret.
    pub fn mint(&self, claims: &TokenClaims) -> Result<String, AuthError> {
        let adopted = self.adopted.secret();
        let own = self.config.secrets.first().map(|secret| &**secret);
        let secret = own.or_else(|| adopted.as_ref().map(|adopted| &*adopted.bytes));
        let secret = secret.ok_or(AuthError::NoKey)?;
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

    /// Who a token stands for, and when.
    fn read(&self, token: &str, now: u64) -> Result<(Identity, Span), AuthError> {
        let signed = self.signed_claims(token, now)?;
        let claims: SignedClaims<'_> = serde_json::from_str(signed.claims.get())
            .map_err(|_| AuthError::Malformed("its claims are no JSON object of single claims"))?;
        let span = self.check_times(&claims, now)?;
        self.check_parties(&claims, signed.issuer)?;
        let identity = claims.identity(self.config.leeway)?;
        let until = span.until.min(signed.key_end.unwrap_or(u64::MAX));
        Ok((identity, Span { until, ..span }))
    }

    /// The claims, once a key has been found that signed them.
    fn signed_claims(&self, token: &str, now: u64) -> Result<Signed<'_>, AuthError> {
        if !self.has_keys() {
            return Err(AuthError::NoKey);
        }
        let (algorithm, id) = header(token)?;
        let issuer = self.issued_for(token);
        let issued = issuer.map(|issuer| issuer.keys.load());
        let issued = issued.as_ref().and_then(|keys| keys.as_deref());
        let issued = issued.map(Vec::as_slice);
        let name = issuer.and_then(|issuer| issuer.source.issuer.as_deref());
        let adopted = self.adopted.secret();
        let shared = || adopted.iter().flat_map(|secret| secret.keys());
        let keys = || {
            let own = self.own.iter().chain(shared()).map(|key| (key, None));
            let issued = issued.unwrap_or_default().iter();
            own.chain(issued.map(|key| (key, name)))
        };
        let mut refusal = None;
        for (key, issuer) in keys().filter(|(key, _)| key.fits(algorithm, id.as_deref(), now)) {
            match key.verify(token) {
                Ok(claims) => {
                    let key_end = key.end();
                    return Ok(Signed {
                        claims,
                        key_end,
                        issuer,
                    });
                }
                Err(AuthError::BadSignature) => refusal = Some(AuthError::BadSignature),
                Err(error) => return Err(error),
            }
        }
        let is_public = algorithm.family() != AlgorithmFamily::Hmac;
        Err(match refusal {
            _ if self.adopted.is_awaited() && self.may_sign(algorithm) => {
                AuthError::SecretUnavailable
            }
            Some(refusal) => refusal,
            None if issuer.is_some() && is_public => match issued {
                Some(_) => AuthError::UnknownKey,
                None => AuthError::KeysUnavailable,
            },
            None if keys().any(|(key, _)| key.knows(algorithm)) => AuthError::BadSignature,
            None if is_public && !self.issued.is_empty() => AuthError::WrongIssuer,
            None => AuthError::WrongAlgorithm,
        })
    }

    /// Whether a secret of ours could sign with this.
    fn may_sign(&self, algorithm: Algorithm) -> bool {
        algorithm.family() == AlgorithmFamily::Hmac && self.config.algorithms.contains(&algorithm)
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

    /// `of` is the issuer whose key signed: it speaks for itself only. Of keys without such a name, `JWT_ISSUER` says
    /// whose tokens they sign.
    fn check_parties(&self, claims: &SignedClaims<'_>, of: Option<&str>) -> Result<(), AuthError> {
        let issuer = claims.issuer()?;
        let expected = of.or(self.config.issuer.as_deref());
        if expected.is_some() && expected != issuer.as_deref() {
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

/// Whom a token names as its issuer, before anybody has verified that.
fn named_issuer(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Named {
        iss: Option<String>,
    }
    let claims = token.split('.').nth(1)?;
    let named: Named = serde_json::from_slice(&decode_base64(claims)?).ok()?;
    named.iss
}

fn decode_base64(text: &str) -> Option<Vec<u8>> {
    use base64::Engine;
    base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(text)
        .ok()
}

#[cfg(test)]
mod tests;
