//! What an operator's browser keeps after the login at `/admin`, since a page cannot send `X-Admin-Key` by itself.

use jsonwebtoken::Algorithm;
use sha2::{Digest, Sha256};

use super::guard::is_same;
use super::{AuthError, Config, TokenClaims, Verifier};

/// How long a pass that was made from `ADMIN_API_KEY` is good: a working day.
pub const PASS_SECONDS: u64 = 8 * 60 * 60;

/// Whom a pass is from and for, so that no token of a hub is ever taken for one, nor the reverse.
const PARTY: &str = "fanfare-admin";

/// The pass of an operator who shows `ADMIN_API_KEY` or a valid token: a token signed with a key that is derived from
/// `ADMIN_API_KEY`, so that every node with the same key takes it and the key itself is nowhere kept; or the token that
/// was shown.
///
/// # Errors
/// When it is neither.
pub fn admin_pass(
    verifier: &Verifier,
    shown: &str,
    now_unix_seconds: u64,
) -> Result<String, AuthError> {
    let config = verifier.config();
    if let Some(key) = config.admin_api_key.as_deref()
        && is_same(key, shown)
    {
        let claims = TokenClaims {
            role: Some("admin".into()),
            exp: Some(now_unix_seconds + PASS_SECONDS),
            ..TokenClaims::default()
        };
        return passes(key).mint(&claims);
    }
    verifier.verify(shown, now_unix_seconds)?;
    Ok(shown.to_owned())
}

/// Whether a pass still opens the dashboard. It opens nothing that changes anything.
///
/// # Errors
/// Why not.
pub fn guard_admin_pass(
    verifier: &Verifier,
    pass: &str,
    now_unix_seconds: u64,
) -> Result<(), AuthError> {
    let by_key = verifier.config().admin_api_key.as_deref().map(passes);
    if by_key.is_some_and(|passes| passes.verify(pass, now_unix_seconds).is_ok()) {
        return Ok(());
    }
    verifier.verify(pass, now_unix_seconds).map(drop)
}

/// What signs and verifies the passes of this key.
fn passes(key: &str) -> Verifier {
    let secret = Sha256::new_with_prefix(b"fanfare admin pass\0").chain_update(key);
    Verifier::new(&Config {
        secrets: vec![Box::from(secret.finalize().as_slice())],
        algorithms: vec![Algorithm::HS256],
        issuer: Some(PARTY.into()),
        audience: Some(PARTY.into()),
        required: true,
        ..Config::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn verifier(admin_key: &str) -> Verifier {
        Verifier::new(&Config {
            secrets: vec![Box::from(*b"0123456789abcdef0123456789abcdef")],
            admin_api_key: Some(admin_key.into()),
            required: true,
            ..Config::default()
        })
    }

    #[test]
    fn the_key_gives_a_pass_that_ends() {
        let ours = verifier("admin-key");
        let pass = admin_pass(&ours, "admin-key", NOW).expect("a pass");
        assert!(!pass.contains("admin-key"));
        assert_eq!(guard_admin_pass(&ours, &pass, NOW), Ok(()));
        let end = NOW + PASS_SECONDS;
        assert!(guard_admin_pass(&ours, &pass, end).is_err());
        assert!(guard_admin_pass(&verifier("another"), &pass, NOW).is_err());
        assert!(
            ours.verify(&pass, NOW).is_err(),
            "it is no token of the hub"
        );
    }

    #[test]
    fn a_token_is_its_own_pass_as_long_as_it_is_valid() {
        let ours = verifier("admin-key");
        let claims = TokenClaims {
            exp: Some(NOW + 10),
            ..TokenClaims::default()
        };
        let token = ours.mint(&claims).expect("a secret is set");
        assert_eq!(admin_pass(&ours, &token, NOW).as_ref(), Ok(&token));
        assert_eq!(guard_admin_pass(&ours, &token, NOW), Ok(()));
        assert!(guard_admin_pass(&ours, &token, NOW + 10).is_err());
    }

    #[test]
    fn what_is_neither_gives_none() {
        let ours = verifier("admin-key");
        for shown in ["", "admin-ke", "admin-keyy", "a.b.c"] {
            assert!(admin_pass(&ours, shown, NOW).is_err(), "{shown}");
            assert!(guard_admin_pass(&ours, shown, NOW).is_err(), "{shown}");
        }
    }
}
