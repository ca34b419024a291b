//! The doors of back ends (`/hub`) and operators (`/admin`): a key or a token.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{AuthError, Identity, Verifier, bearer};
use crate::model::Role;

/// What an operator wants at `/admin`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdminAccess {
    /// Look at the dashboard and its statistics: any valid token will do.
    Read,
    /// Change something, or read what is not for everybody: the role `admin`.
    Write,
}

/// Who uses `/hub`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HubCaller {
    /// A back end with `HUB_API_KEY`.
    BackEnd,
    /// Somebody with a token of the role `publisher` or `admin`.
    Token(Arc<Identity>),
    /// Anybody, where everything is open.
    Anybody,
}

/// Who may use `/hub`: a back end that shows `HUB_API_KEY`, or a token with the role `publisher` or `admin`. Open only
/// where no credentials are required and no `HUB_API_KEY` is set.
///
/// `authorization` is the header's value.
///
/// # Errors
/// Why not.
pub fn guard_hub(
    verifier: &Verifier,
    authorization: Option<&str>,
    now_unix_seconds: u64,
) -> Result<HubCaller, AuthError> {
    let key = verifier.config().hub_api_key.as_deref();
    if key.is_none() && !verifier.config().required {
        return Ok(HubCaller::Anybody);
    }
    let shown = authorization.and_then(bearer).ok_or(AuthError::Missing)?;
    if key.is_some_and(|key| is_same(key, shown)) {
        return Ok(HubCaller::BackEnd);
    }
    let identity = verifier.identify(Some(shown), now_unix_seconds)?;
    verifier.check_login(&identity)?;
    require_role(&identity, &[Role::PUBLISHER, Role::ADMIN])?;
    Ok(HubCaller::Token(identity))
}

/// Whether an operator may use `/admin`: `X-Admin-Key` shows `ADMIN_API_KEY` (where that is set), or `Authorization` a
/// valid token, which needs the role `admin` for [`AdminAccess::Write`]. Where no credentials are required, reading is
/// open; writing never is. Answers whose token it was, if any.
///
/// # Errors
/// Why not.
pub fn guard_admin(
    verifier: &Verifier,
    admin_key: Option<&str>,
    authorization: Option<&str>,
    access: AdminAccess,
    now_unix_seconds: u64,
) -> Result<Option<Arc<Identity>>, AuthError> {
    let config = verifier.config();
    if access == AdminAccess::Read && !config.required {
        return Ok(None);
    }
    if let (Some(key), Some(shown)) = (config.admin_api_key.as_deref(), admin_key)
        && is_same(key, shown)
    {
        return Ok(None);
    }
    let token = match authorization.and_then(bearer) {
        Some(token) => token,
        None if admin_key.is_some() => return Err(AuthError::WrongKey),
        None => return Err(AuthError::Missing),
    };
    let identity = verifier.identify(Some(token), now_unix_seconds)?;
    verifier.check_login(&identity)?;
    if access == AdminAccess::Write {
        require_role(&identity, &[Role::ADMIN])?;
    }
    Ok(Some(identity))
}

fn require_role(identity: &Identity, roles: &[&str]) -> Result<(), AuthError> {
    if roles.iter().any(|role| identity.has_role(role)) {
        Ok(())
    } else {
        Err(AuthError::NotAllowed)
    }
}

/// Compares in constant time. Digests are compared instead of the keys so that not even the key's length shows.
pub(super) fn is_same(key: &str, shown: &str) -> bool {
    Sha256::digest(key)
        .as_slice()
        .ct_eq(Sha256::digest(shown).as_slice())
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Config, TokenClaims};

    const NOW: u64 = 1_800_000_000;

    fn verifier(required: bool, key: Option<&str>) -> Verifier {
        Verifier::new(&Config {
            secrets: vec![Box::from(*b"0123456789abcdef0123456789abcdef")],
            hub_api_key: key.map(Into::into),
            admin_api_key: key.map(Into::into),
            required,
            ..Config::default()
        })
    }

    fn header(verifier: &Verifier, role: &str) -> String {
        let claims = TokenClaims {
            role: Some(role.into()),
            ..TokenClaims::default()
        };
        format!(
            "Bearer {}",
            verifier.mint(&claims).expect("a secret is set")
        )
    }

    #[test]
    fn the_hub_is_open_only_without_requirement_and_key() {
        for (required, key, expected) in [
            (false, None, Ok(HubCaller::Anybody)),
            (false, Some("hub-key"), Err(AuthError::Missing)),
            (true, None, Err(AuthError::Missing)),
            (true, Some("hub-key"), Err(AuthError::Missing)),
        ] {
            assert_eq!(guard_hub(&verifier(required, key), None, NOW), expected);
        }
    }

    #[test]
    fn the_hub_takes_its_key_or_a_role_that_publishes() {
        let verifier = verifier(true, Some("hub-key"));
        let check = |header: &str| guard_hub(&verifier, Some(header), NOW);
        assert_eq!(check("Bearer hub-key"), Ok(HubCaller::BackEnd));
        for role in ["publisher", "admin"] {
            let caller = check(&header(&verifier, role));
            let is_role = matches!(&caller, Ok(HubCaller::Token(who)) if *who.role == *role);
            assert!(is_role, "{role}: {caller:?}");
        }
        assert_eq!(
            check(&header(&verifier, "user")),
            Err(AuthError::NotAllowed)
        );
        assert_eq!(check("Basic aHViLWtleQ=="), Err(AuthError::Missing));
        for wrong in ["Bearer hub-ke", "Bearer hub-keyy", "Bearer x"] {
            assert!(
                matches!(check(wrong), Err(AuthError::Malformed(_))),
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_token_that_was_verified_lately_is_not_verified_again() {
        let verifier = verifier(true, None);
        let header = header(&verifier, "publisher");
        let caller = || match guard_hub(&verifier, Some(&header), NOW) {
            Ok(HubCaller::Token(identity)) => identity,
            other => panic!("{other:?}"),
        };
        assert!(Arc::ptr_eq(&caller(), &caller()));
    }

    #[test]
    fn the_admin_key_is_no_hub_key() {
        let verifier = Verifier::new(&Config {
            admin_api_key: Some("admin-key".into()),
            required: true,
            ..Config::default()
        });
        assert_eq!(
            guard_hub(&verifier, Some("Bearer admin-key"), NOW),
            Err(AuthError::NoKey)
        );
    }

    #[test]
    fn operators_read_with_any_token_and_write_as_admin() {
        use AdminAccess::{Read, Write};
        let verifier = verifier(true, Some("admin-key"));
        let user = header(&verifier, "user");
        let admin = header(&verifier, "admin");
        for (key, authorization, access, expected) in [
            (Some("admin-key"), None, Write, Ok(())),
            (Some("wrong"), None, Read, Err(AuthError::WrongKey)),
            (Some("wrong"), Some(&admin), Write, Ok(())),
            (None, Some(&user), Read, Ok(())),
            (None, Some(&user), Write, Err(AuthError::NotAllowed)),
            (None, Some(&admin), Write, Ok(())),
            (None, None, Read, Err(AuthError::Missing)),
        ] {
            let authorization = authorization.map(String::as_str);
            assert_eq!(
                guard_admin(&verifier, key, authorization, access, NOW).map(drop),
                expected,
                "{key:?} {access:?}"
            );
        }
    }

    #[test]
    fn without_requirement_operators_read_freely_and_still_write_as_admin() {
        let verifier = verifier(false, None);
        let check = |key, access| guard_admin(&verifier, key, None, access, NOW).map(drop);
        assert_eq!(check(None, AdminAccess::Read), Ok(()));
        assert_eq!(check(None, AdminAccess::Write), Err(AuthError::Missing));
        assert_eq!(
            check(Some(""), AdminAccess::Write),
            Err(AuthError::WrongKey),
            "an unset key is not the empty key"
        );
    }
}
