//! Tokens, good and bad.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::hub::SECRET;

/// Unix time in this many seconds.
pub(crate) fn in_seconds(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(now.expect("a clock").as_secs()).expect("a time") + seconds
}

/// A good token of these claims. One without `exp` lasts an hour.
pub(crate) fn token(claims: Value) -> String {
    signed(Algorithm::HS256, SECRET, claims)
}

/// A good token of this user.
pub(crate) fn token_of(user: &str) -> String {
    token(json!({"sub": user}))
}

pub(crate) fn signed(algorithm: Algorithm, secret: &str, mut claims: Value) -> String {
    let claims_of = claims.as_object_mut().expect("claims");
    claims_of
        .entry("exp")
        .or_insert_with(|| json!(in_seconds(3600)));
    let key = EncodingKey::from_secret(secret.as_bytes());
    encode(&Header::new(algorithm), &claims, &key).expect("a token")
}

/// A token that nobody signed.
pub(crate) fn unsigned(claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!(
        "{}.{}.",
        part(&json!({"alg": "none", "typ": "JWT"})),
        part(claims)
    )
}
