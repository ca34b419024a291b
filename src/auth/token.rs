//! JSON Web Tokens (RFC 7519): verifies them into an [`Identity`], and mints them.
//!
//! Only HMAC algorithms, and only the configured ones: a token chooses among them but never brings its own, so neither
//! `none` nor a confusion of key types is possible. No claim is required; a claim that is there must be right: a wrong
//! type is an error, never "as if absent". Public keys and key sets (`JWKS_URL`) are not here yet.

use std::sync::Arc;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, EncodingKey, Header, Validation};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::{AuthError, Config, Grants, Identity, Pattern};
use crate::model::{ChannelKey, Payload, Scope, SessionId};

/// The most bytes of a token: what still fits a request's head beside other headers.
const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// The most bytes of a user's name, as of a channel's: a user stands in channel names (`#<user>`).
const USER_BYTES_MAX: usize = 255;
/// The most bytes of a role.
const ROLE_BYTES_MAX: usize = 64;
/// The most bytes of `info`: it is kept for every connection and sent with every join.
const INFO_BYTES_MAX: usize = 4 * 1024;
/// How deep `info` may be nested, as every payload.
const INFO_DEPTH_MAX: usize = 64;
/// The most channels that a token subscribes to.
const CHANNELS_MAX: usize = 100;
/// The most patterns of one list of `grants`; they are walked through on every permission check.
const PATTERNS_MAX: usize = 100;

/// What a token is minted from: the claims of `docs/PROTOCOL.md`, absent ones left out.
#[derive(Debug, Clone, Default, Serialize)]
pub struct TokenClaims {
    /// The user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sub: Option<String>,
    /// The user again, as clients of the FastAPI gateway read it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// `user`, `publisher`, `admin` or one of the operator's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// The login session that it is minted for: with the session, the token ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub login_session: Option<String>,
    /// Unix seconds at which it ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exp: Option<u64>,
    /// Unix seconds at which it begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nbf: Option<u64>,
    /// Who made it. [`Verifier::mint`] fills in the configured issuer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iss: Option<String>,
    /// Whom it is for. [`Verifier::mint`] fills in the configured audience.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aud: Option<String>,
    /// Any JSON, shown in presence and join.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub info: Option<serde_json::Value>,
    /// Channels to be subscribed to at connect.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub channels: Vec<String>,
    /// What it may do; without, the namespace decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grants: Option<GrantClaims>,
}

/// `grants` as a token has them: exact names, or prefixes ending in `*`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GrantClaims {
    /// Channels to subscribe to.
    pub subscribe: Vec<String>,
    /// Channels to publish to.
    pub publish: Vec<String>,
    /// Channels whose history may be read.
    pub history: Vec<String>,
    /// Channels whose presence may be read.
    pub presence: Vec<String>,
}

/// Verifies and mints tokens. Make one and share it: its keys are prepared once.
pub struct Verifier {
    config: Config,
    keys: Vec<DecodingKey>,
    validation: Validation,
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
        let keys = config
            .secrets
            .iter()
            .map(|secret| DecodingKey::from_secret(secret))
            .collect();
        Self {
            config: config.clone(),
            keys,
            validation: signature_only(&config.algorithms),
        }
    }

    /// The rules.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Who a client is, with or without a token: nobody in particular when it has none and none is required.
    ///
    /// # Errors
    /// When a token is required and missing, or the one that is shown is not valid (even where none is required).
    pub fn identify(
        &self,
        token: Option<&str>,
        now_unix_seconds: u64,
    ) -> Result<Arc<Identity>, AuthError> {
        match token {
            Some(token) => self.verify(token, now_unix_seconds).map(Arc::new),
            None if self.config.required => Err(AuthError::Missing),
            None => Ok(Identity::nobody()),
        }
    }

    /// Who a token stands for.
    ///
    /// # Errors
    /// Why it is not valid at this time.
    pub fn verify(&self, token: &str, now_unix_seconds: u64) -> Result<Identity, AuthError> {
        let json = self.signed_claims(token)?;
        let claims: SignedClaims<'_> = serde_json::from_str(json.get())
            .map_err(|_| AuthError::Malformed("its claims are no JSON object of single claims"))?;
        self.check_times(&claims, now_unix_seconds)?;
        self.check_parties(&claims)?;
        self.identity(&claims)
    }

    /// Signs claims with the first secret and the first algorithm; the configured issuer and audience are filled in
    /// where the claims name none, so that what is minted here is valid here.
    ///
    /// # Errors
    /// [`AuthError::NoKey`] without a secret.
    pub fn mint(&self, claims: &TokenClaims) -> Result<String, AuthError> {
        let secret = self.config.secrets.first().ok_or(AuthError::NoKey)?;
        let algorithm = self.validation.algorithms.first().ok_or(AuthError::NoKey)?;
        let mut claims = claims.clone();
        claims.iss = claims.iss.or_else(|| self.config.issuer.clone());
        claims.aud = claims.aud.or_else(|| self.config.audience.clone());
        let key = EncodingKey::from_secret(secret);
        jsonwebtoken::encode(&Header::new(*algorithm), &claims, &key)
            .map_err(|_| AuthError::Malformed("its claims cannot be written"))
    }

    /// The claims, once a secret has been found that signed them.
    fn signed_claims(&self, token: &str) -> Result<Box<RawValue>, AuthError> {
        if self.keys.is_empty() || self.validation.algorithms.is_empty() {
            return Err(AuthError::NoKey);
        }
        self.check_header(token)?;
        let mut refusal = AuthError::NoKey;
        for key in &self.keys {
            match jsonwebtoken::decode::<Box<RawValue>>(token, key, &self.validation) {
                // An extension that the issuer demands to be understood, and we understand none (RFC 7515, 4.1.11).
                Ok(data) if data.header.crit.is_some() => {
                    return Err(AuthError::Malformed("it has a critical extension"));
                }
                Ok(data) => return Ok(data.claims),
                Err(error) => refusal = by_fault(error.kind()),
            }
            if refusal != AuthError::BadSignature {
                break;
            }
        }
        Err(refusal)
    }

    /// The library cannot name `alg: none`, it only fails to read it; so the algorithm is looked at first.
    fn check_header(&self, token: &str) -> Result<(), AuthError> {
        #[derive(Deserialize)]
        struct Named {
            alg: String,
        }
        if token.len() > TOKEN_BYTES_MAX {
            return Err(AuthError::Malformed("it has more than 16384 bytes"));
        }
        let header = token.split('.').next().unwrap_or_default();
        let named: Named = decode_base64(header)
            .and_then(|json| serde_json::from_slice(&json).ok())
            .ok_or(AuthError::Malformed("it is no JSON Web Token"))?;
        match named.alg.parse::<Algorithm>() {
            Ok(algorithm) if self.validation.algorithms.contains(&algorithm) => Ok(()),
            _ => Err(AuthError::WrongAlgorithm),
        }
    }

    fn check_times(&self, claims: &SignedClaims<'_>, now: u64) -> Result<(), AuthError> {
        let leeway = self.config.leeway.as_secs();
        // RFC 7519, 4.1.4: not "on or after" the expiration time.
        if seconds("exp", claims.exp)?.is_some_and(|exp| now >= exp.saturating_add(leeway)) {
            return Err(AuthError::Expired);
        }
        if seconds("nbf", claims.nbf)?.is_some_and(|nbf| now.saturating_add(leeway) < nbf) {
            return Err(AuthError::NotYetValid);
        }
        Ok(())
    }

    fn check_parties(&self, claims: &SignedClaims<'_>) -> Result<(), AuthError> {
        let issuer: Option<String> = claim("iss", claims.iss, "a string")?;
        if self.config.issuer.is_some() && self.config.issuer != issuer {
            return Err(AuthError::WrongIssuer);
        }
        let audience: Option<OneOrMany> =
            claim("aud", claims.aud, "a string or a list of strings")?;
        match &self.config.audience {
            Some(ours) if !audience.is_some_and(|theirs| theirs.contains(ours)) => {
                Err(AuthError::WrongAudience)
            }
            _ => Ok(()),
        }
    }

    fn identity(&self, claims: &SignedClaims<'_>) -> Result<Identity, AuthError> {
        let user = match text(
            "sub",
            claims.sub,
            "a string of at most 255 bytes",
            USER_BYTES_MAX,
        )? {
            Some(user) => Some(user),
            None => text(
                "user_id",
                claims.user_id,
                "a string of at most 255 bytes",
                USER_BYTES_MAX,
            )?,
        };
        let role = text(
            "role",
            claims.role,
            "a string of at most 64 bytes",
            ROLE_BYTES_MAX,
        )?;
        let expires_at =
            seconds("exp", claims.exp)?.map(|exp| exp.saturating_add(self.config.leeway.as_secs()));
        Ok(Identity {
            user: Arc::from(user.unwrap_or_default()),
            role: Arc::from(role.unwrap_or_default()),
            authenticated: true,
            login_session: login_session(claims.login_session)?,
            expires_at,
            info: info(claims.info)?,
            channels: channels(claims.channels)?,
            grants: grants(claims.grants)?,
        })
    }
}

/// Times and parties are checked here by the given time, not by the library, which reads the clock itself, requires
/// `exp`, has a leeway of its own and refuses every `aud` that nobody asked for.
fn signature_only(algorithms: &[Algorithm]) -> Validation {
    let mut validation = Validation::new(Algorithm::HS256);
    validation.algorithms = algorithms
        .iter()
        .copied()
        .filter(|algorithm| algorithm.family() == AlgorithmFamily::Hmac)
        .collect();
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation
}

fn by_fault(kind: &ErrorKind) -> AuthError {
    match kind {
        ErrorKind::InvalidSignature => AuthError::BadSignature,
        ErrorKind::InvalidAlgorithm
        | ErrorKind::InvalidAlgorithmName
        | ErrorKind::MissingAlgorithm
        | ErrorKind::UnsupportedAlgorithm => AuthError::WrongAlgorithm,
        _ => AuthError::Malformed("it is no JSON Web Token"),
    }
}

fn decode_base64(text: &str) -> Option<Vec<u8>> {
    use base64::Engine;
    base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(text)
        .ok()
}

/// The claims as they stand in the token: each is read on its own, so that an error can name it. A claim that is there
/// twice is an error of the whole.
#[derive(Default, Deserialize)]
#[serde(default)]
struct SignedClaims<'a> {
    #[serde(borrow, deserialize_with = "present")]
    sub: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    user_id: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    role: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    login_session: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    exp: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    nbf: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    iss: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    aud: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    info: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    channels: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    grants: Option<&'a RawValue>,
}

/// `null` is there: `"exp": null` must not mean "never ends".
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn contains(&self, name: &str) -> bool {
        match self {
            Self::One(one) => one == name,
            Self::Many(many) => many.iter().any(|one| one == name),
        }
    }
}

fn claim<T: DeserializeOwned>(
    claim: &'static str,
    json: Option<&RawValue>,
    rule: &'static str,
) -> Result<Option<T>, AuthError> {
    json.map(|json| serde_json::from_str(json.get()))
        .transpose()
        .map_err(|_| AuthError::BadClaim { claim, rule })
}

fn text(
    name: &'static str,
    json: Option<&RawValue>,
    rule: &'static str,
    bytes_max: usize,
) -> Result<Option<String>, AuthError> {
    let text: Option<String> = claim(name, json, rule)?;
    match text {
        Some(text) if text.len() > bytes_max => Err(AuthError::BadClaim { claim: name, rule }),
        text => Ok(text),
    }
}

fn login_session(json: Option<&RawValue>) -> Result<Option<SessionId>, AuthError> {
    let rule = "a UUID";
    let id: Option<String> = claim("login_session", json, rule)?;
    let id = id.map(|id| id.parse()).transpose();
    id.map_err(|_| AuthError::BadClaim {
        claim: "login_session",
        rule,
    })
}

/// A NumericDate (RFC 7519, 2) may have a fraction: it is cut off. What is before 1970 is long past.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float converts saturating, and JSON has no NaN"
)]
fn seconds(name: &'static str, json: Option<&RawValue>) -> Result<Option<u64>, AuthError> {
    let date: Option<f64> = claim(name, json, "a number of seconds")?;
    Ok(date.map(|date| date as u64))
}

fn info(json: Option<&RawValue>) -> Result<Option<Payload>, AuthError> {
    let refused = AuthError::BadClaim {
        claim: "info",
        rule: "JSON of at most 4096 bytes, nested at most 64 deep",
    };
    match json.map(RawValue::get) {
        None | Some("null") => Ok(None),
        Some(json) => plain(json)
            .filter(|plain| plain.len() <= INFO_BYTES_MAX)
            .map(|plain| Some(Payload::from_plain_json(plain)))
            .ok_or(refused),
    }
}

/// Valid JSON without the white space between its tokens, so on one line; `None` when it is nested too deep. Numbers
/// and the order of keys stay as they were signed, which a way through `Value` would not keep.
fn plain(json: &str) -> Option<Vec<u8>> {
    let mut plain = Vec::with_capacity(json.len());
    let (mut in_string, mut escaped, mut depth) = (false, false, 0usize);
    for byte in json.bytes() {
        match byte {
            _ if in_string => {
                in_string = escaped || byte != b'"';
                escaped = !escaped && byte == b'\\';
            }
            b' ' | b'\t' | b'\r' | b'\n' => continue,
            b'"' => in_string = true,
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > INFO_DEPTH_MAX {
            return None;
        }
        plain.push(byte);
    }
    Some(plain)
}

fn channels(json: Option<&RawValue>) -> Result<Vec<ChannelKey>, AuthError> {
    let refused = AuthError::BadClaim {
        claim: "channels",
        rule: "a list of at most 100 channel names",
    };
    let names: Vec<String> =
        claim("channels", json, "a list of at most 100 channel names")?.unwrap_or_default();
    if names.len() > CHANNELS_MAX {
        return Err(refused);
    }
    let mut channels: Vec<ChannelKey> = Vec::with_capacity(names.len());
    for name in &names {
        let channel = ChannelKey::new(name).map_err(|_| refused)?;
        if !channels.contains(&channel) {
            channels.push(channel);
        }
    }
    Ok(channels)
}

fn grants(json: Option<&RawValue>) -> Result<Option<Box<Grants>>, AuthError> {
    let rule = "an object of lists subscribe, publish, history and presence, each of at most 100 channel names or \
                prefixes ending in *";
    let Some(claims): Option<GrantClaims> = claim("grants", json, rule)? else {
        return Ok(None);
    };
    let list = |names: &[String]| {
        patterns(names).ok_or(AuthError::BadClaim {
            claim: "grants",
            rule,
        })
    };
    Ok(Some(Box::new(Grants {
        subscribe: list(&claims.subscribe)?,
        publish: list(&claims.publish)?,
        history: list(&claims.history)?,
        presence: list(&claims.presence)?,
    })))
}

/// A pattern that can match no channel (`a*b`, a blank) is refused: it says something else than its author thinks.
fn patterns(names: &[String]) -> Option<Vec<Pattern>> {
    let is_pattern = |name: &str| match name.strip_suffix('*') {
        Some("") => true,
        Some(prefix) => ChannelKey::internal(Scope::default(), prefix).is_ok(),
        None => ChannelKey::internal(Scope::default(), name).is_ok(),
    };
    (names.len() <= PATTERNS_MAX && names.iter().all(|name| is_pattern(name)))
        .then(|| names.iter().map(|name| Pattern::new(name)).collect())
}

#[cfg(test)]
mod tests;
