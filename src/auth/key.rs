//! Keys that verify tokens.
//!
//! Each key knows the algorithms that it may be used with, and what a token says of itself never widens that: a public key
//! verifies no HMAC, and a secret no RSA signature. So there is no confusion of key types, and no `none`.

use std::str::FromStr;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, Validation};
use serde_json::value::RawValue;

use super::AuthError;

/// The most keys of a set: a token without `kid` may be tried with each.
const SET_KEYS_MAX: usize = 32;
/// The size of an uncompressed point of P-256 and of P-384 (SEC 1, 2.3.3).
const P256_POINT: usize = 65;
const P384_POINT: usize = 97;

const RSA: [Algorithm; 6] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

/// A key, and what it is good for.
#[derive(Clone)]
pub(super) struct Key {
    decoding: DecodingKey,
    validation: Validation,
    /// What tokens call it (`kid`); one without a name is tried for every token.
    id: Option<Box<str>>,
    /// Unix seconds from which on it verifies nothing.
    until: Option<u64>,
}

impl Key {
    fn new(decoding: DecodingKey, algorithms: &[Algorithm]) -> Self {
        Self {
            validation: signature_only(decoding.family(), algorithms),
            decoding,
            id: None,
            until: None,
        }
    }

    /// A secret; of the algorithms those count that are HMAC.
    pub(super) fn secret(secret: &[u8], algorithms: &[Algorithm]) -> Self {
        Self::new(DecodingKey::from_secret(secret), algorithms)
    }

    /// The same until that second, for a key that is being replaced.
    pub(super) fn until(mut self, unix_seconds: u64) -> Self {
        self.until = Some(unix_seconds);
        self
    }

    /// Whether there is any algorithm that it may be used with.
    pub(super) fn is_useful(&self) -> bool {
        !self.validation.algorithms.is_empty()
    }

    /// When it ends.
    pub(super) const fn end(&self) -> Option<u64> {
        self.until
    }

    /// Whether it could have signed a token of this header at this time.
    pub(super) fn fits(&self, algorithm: Algorithm, id: Option<&str>, now: u64) -> bool {
        let is_named = match (&self.id, id) {
            (Some(own), Some(named)) => **own == *named,
            _ => true,
        };
        is_named && self.knows(algorithm) && self.until.is_none_or(|until| now < until)
    }

    /// Whether it is a key for this algorithm.
    pub(super) fn knows(&self, algorithm: Algorithm) -> bool {
        self.validation.algorithms.contains(&algorithm)
    }

    /// The claims, when this key signed them.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn verify(&self, token: &str) -> Result<Box<RawValue>, AuthError> {
        use jsonwebtoken::errors::ErrorKind;
        let decoded =
            jsonwebtoken::decode::<Box<RawValue>>(token, &self.decoding, &self.validation);
        match decoded {
            // An extension that the issuer demands to be understood, and we understand none (RFC 7515, 4.1.11).
            Ok(data) if data.header.crit.is_some() => {
                Err(AuthError::Malformed("it has a critical extension"))
            }
            Ok(data) => Ok(data.claims),
            Err(error) => Err(match error.kind() {
                ErrorKind::InvalidSignature => AuthError::BadSignature,
                ErrorKind::InvalidAlgorithm
                | ErrorKind::InvalidAlgorithmName
                | ErrorKind::MissingAlgorithm
                | ErrorKind::UnsupportedAlgorithm => AuthError::WrongAlgorithm,
                _ => AuthError::Malformed("it is no JSON Web Token"),
            }),
        }
    }
}

/// Times and parties are checked elsewhere by a given time, not by the library, which reads the clock itself, requires
/// `exp`, has a leeway of its own and refuses every `aud` that nobody asked for.
fn signature_only(family: AlgorithmFamily, algorithms: &[Algorithm]) -> Validation {
    let mut validation = Validation::new(Algorithm::HS256);
    let own = algorithms.iter().copied();
    validation.algorithms = own
        .filter(|algorithm| algorithm.family() == family)
        .collect();
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation
}

/// Public keys as an operator writes them: one or more in PEM, one after the other (RFC 7468, `PUBLIC KEY`). Line ends may
/// be written as `\n`, since a `.env` file has one line for each variable.
#[derive(Clone, Default)]
pub struct PublicKeys(Vec<Key>);

/// The text has no public key, or something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{PUBLIC_KEYS_RULE}")]
pub struct PublicKeysError;

/// What the text must be.
pub const PUBLIC_KEYS_RULE: &str = "one or more public keys in PEM (BEGIN PUBLIC KEY: RSA of at least 2048 bits, P-256, P-384 or \
     Ed25519), line ends as they are or as \\n";

impl PublicKeys {
    pub(super) fn keys(&self) -> &[Key] {
        &self.0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::fmt::Debug for PublicKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("PublicKeys").field(&self.0.len()).finish()
    }
}

impl FromStr for PublicKeys {
    type Err = PublicKeysError;

    fn from_str(text: &str) -> Result<Self, PublicKeysError> {
        const END: &str = "-----END ";
        let text = text.replace("\\n", "\n");
        let mut keys = Vec::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            let end = rest.find(END).ok_or(PublicKeysError)?;
            let line = rest[end..].find('\n').map_or(rest.len(), |line| end + line);
            keys.push(from_pem(&rest[..line]).ok_or(PublicKeysError)?);
            rest = rest[line..].trim_start();
        }
        match keys.is_empty() || keys.len() > SET_KEYS_MAX {
            true => Err(PublicKeysError),
            false => Ok(Self(keys)),
        }
    }
}

/// A private key is refused although it holds a public one: it does not belong here.
fn from_pem(pem: &str) -> Option<Key> {
    let label = pem.trim_start().strip_prefix("-----BEGIN ")?;
    if !label.starts_with("PUBLIC KEY-----") && !label.starts_with("RSA PUBLIC KEY-----") {
        return None;
    }
    let pem = pem.as_bytes();
    if let Ok(key) = DecodingKey::from_rsa_pem(pem) {
        return Some(Key::new(key, &RSA));
    }
    if let Ok(key) = DecodingKey::from_ed_pem(pem) {
        return Some(Key::new(key, &[Algorithm::EdDSA]));
    }
    let key = DecodingKey::from_ec_pem(pem).ok()?;
    let algorithm = match key.try_get_as_bytes().ok()?.len() {
        P256_POINT => Algorithm::ES256,
        P384_POINT => Algorithm::ES384,
        _ => return None,
    };
    Some(Key::new(key, &[algorithm]))
}

/// The keys of a JSON Web Key Set (RFC 7517, 5) that verify signatures. What it has beside them is passed over, as the RFC
/// says: secrets, keys for encryption, types that are not known here. `None` when it is no key set.
pub(super) fn from_set(json: &[u8]) -> Option<Vec<Key>> {
    #[derive(serde::Deserialize)]
    struct Set<'a> {
        #[serde(borrow)]
        keys: Vec<&'a RawValue>,
    }
    let set: Set<'_> = serde_json::from_slice(json).ok()?;
    let keys = set.keys.iter().filter_map(|json| from_jwk(json.get()));
    Some(keys.take(SET_KEYS_MAX).collect())
}

fn from_jwk(json: &str) -> Option<Key> {
    let jwk: Jwk = serde_json::from_str(json).ok()?;
    if !matches!(
        jwk.common.public_key_use,
        None | Some(PublicKeyUse::Signature)
    ) {
        return None;
    }
    let able: &[Algorithm] = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => &RSA,
        AlgorithmParameters::EllipticCurve(point) => match point.curve {
            EllipticCurve::P256 => &[Algorithm::ES256],
            EllipticCurve::P384 => &[Algorithm::ES384],
            _ => return None,
        },
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
            &[Algorithm::EdDSA]
        }
        _ => return None,
    };
    // A key that names its algorithm is for no other.
    let named = match jwk.common.key_algorithm {
        Some(named) => vec![Algorithm::from_str(&named.to_string()).ok()?],
        None => able.to_vec(),
    };
    let algorithms: Vec<Algorithm> = named
        .into_iter()
        .filter(|algorithm| able.contains(algorithm))
        .collect();
    if algorithms.is_empty() {
        return None;
    }
    let mut key = Key::new(DecodingKey::from_jwk(&jwk).ok()?, &algorithms);
    key.id = jwk.common.key_id.map(Into::into);
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key and the token of RFC 7515, appendix A.3.
    const P256: &str = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0","kid":"ec"}"#;
    const SIGNED: &str = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
    /// The key of RFC 8037, appendix A.1.
    const ED25519: &str =
        r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;

    fn algorithms(jwk: &str) -> Option<Vec<Algorithm>> {
        from_jwk(jwk).map(|key| key.validation.algorithms)
    }

    #[test]
    fn verifies_the_token_of_the_standard() {
        let key = from_jwk(P256).expect("a key");
        let claims = key.verify(SIGNED).expect("signed by it");
        assert!(claims.get().contains("joe"));
        let changed = SIGNED.replace("DtEh", "DtEi");
        assert_eq!(key.verify(&changed).err(), Some(AuthError::BadSignature));
    }

    #[test]
    fn a_key_is_for_its_own_algorithms_only() {
        assert_eq!(algorithms(P256), Some(vec![Algorithm::ES256]));
        assert_eq!(algorithms(ED25519), Some(vec![Algorithm::EdDSA]));
        let with = |rest: &str| ED25519.replacen('{', &format!("{{{rest},"), 1);
        assert_eq!(
            algorithms(&with(r#""alg":"EdDSA","use":"sig""#)),
            Some(vec![Algorithm::EdDSA])
        );
        for jwk in [
            with(r#""alg":"HS256""#),
            with(r#""alg":"RS256""#),
            with(r#""use":"enc""#),
            ED25519.replace("Ed25519", "X25519"),
            P256.replace("P-256", "P-521"),
            r#"{"kty":"oct","k":"c2VjcmV0"}"#.to_owned(),
            r#"{"kty":"RSA"}"#.to_owned(),
            "7".to_owned(),
        ] {
            assert_eq!(algorithms(&jwk), None, "{jwk}");
        }
    }

    #[test]
    fn a_set_may_have_more_than_we_can_use() {
        let set = format!(r#"{{"keys":[{P256},7,{{"kty":"oct","k":"YQ"}},{ED25519}],"more":1}}"#);
        assert_eq!(from_set(set.as_bytes()).map(|keys| keys.len()), Some(2));
        let many = vec![ED25519; 1000].join(",");
        let many = format!(r#"{{"keys":[{many}]}}"#);
        let keys = from_set(many.as_bytes()).map(|keys| keys.len());
        assert_eq!(keys, Some(SET_KEYS_MAX));
        for text in ["", "[]", "{}", r#"{"keys":{}}"#] {
            assert!(from_set(text.as_bytes()).is_none(), "{text}");
        }
    }

    #[test]
    fn a_named_key_is_for_tokens_that_name_it_or_none() {
        let key = from_jwk(P256).expect("a key");
        let fits = |algorithm, id, now| key.fits(algorithm, id, now);
        assert!(fits(Algorithm::ES256, Some("ec"), 1) && fits(Algorithm::ES256, None, 1));
        assert!(!fits(Algorithm::ES256, Some("other"), 1));
        assert!(!fits(Algorithm::HS256, Some("ec"), 1));
        let ending = key.clone().until(10);
        assert!(ending.fits(Algorithm::ES256, None, 9) && !ending.fits(Algorithm::ES256, None, 10));
    }

    #[test]
    fn only_public_keys_are_taken_as_such() {
        for text in [
            "",
            "key",
            "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----",
            "-----BEGIN PUBLIC KEY-----\nAAAA",
            "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----",
        ] {
            assert!(text.parse::<PublicKeys>().is_err(), "{text}");
        }
        // The key of RFC 8037 in PEM (RFC 8410).
        let pem = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC KEY-----\n";
        for (text, count) in [
            (pem.to_owned(), 1),
            (format!("\n{pem}\n{pem}"), 2),
            (pem.replace('\n', "\\n"), 1),
        ] {
            let keys = text.parse::<PublicKeys>().expect("public keys");
            assert_eq!(keys.keys().len(), count, "{text}");
        }
    }
}
