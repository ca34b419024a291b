//! What a token must be, case by case.

use std::time::Duration;

use super::*;
use crate::auth::Pattern;
use crate::model::{ChannelKey, ErrorCode};

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
const OTHER: &[u8] = b"another-secret-of-at-least-32-bytes";
const NOW: u64 = 1_800_000_000;

fn config() -> Config {
    Config {
        secrets: vec![SECRET.into()],
        required: true,
        ..Config::default()
    }
}

fn encode(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text)
}

/// A token over exactly this JSON, which need not be what our own claims can say.
fn signed_as(header: &str, algorithm: Algorithm, secret: &[u8], claims: &str) -> String {
    let message = format!("{}.{}", encode(header), encode(claims));
    let key = EncodingKey::from_secret(secret);
    let signature =
        jsonwebtoken::crypto::sign(message.as_bytes(), &key, algorithm).expect("an HMAC key");
    format!("{message}.{signature}")
}

fn signed(claims: &str) -> String {
    signed_as(
        r#"{"alg":"HS256","typ":"JWT"}"#,
        Algorithm::HS256,
        SECRET,
        claims,
    )
}

fn verify(claims: &str) -> Result<Identity, AuthError> {
    Verifier::new(&config()).verify(&signed(claims), NOW)
}

fn refused_claim(claims: &str) -> &'static str {
    match verify(claims) {
        Err(AuthError::BadClaim { claim, .. }) => claim,
        other => panic!("{claims}: {other:?}"),
    }
}

#[test]
fn reads_every_claim() {
    let identity = verify(
        r##"{"sub":"ann","user_id":"x","role":"user","exp":1800000060,"nbf":1800000000,"iss":"me","aud":["a","b"],
            "info": {"name": "Ann \" [x]\\", "n": 1.0},
            "channels":["news","room#ann","news"],
            "grants":{"subscribe":["chat:*"],"publish":["chat:1"]},"unknown":[1]}"##,
    )
    .expect("valid");
    assert_eq!(&*identity.user, "ann", "sub goes before user_id");
    assert_eq!(&*identity.role, "user");
    assert!(identity.authenticated);
    assert_eq!(identity.expires_at, Some(1_800_000_060));
    let info = identity.info.expect("info");
    assert_eq!(
        info.as_bytes(),
        br#"{"name":"Ann \" [x]\\","n":1.0}"#,
        "made plain and otherwise as it was signed"
    );
    let names: Vec<&str> = identity.channels.iter().map(ChannelKey::name).collect();
    assert_eq!(names, ["news", "room#ann"], "once each");
    let grants = identity.grants.expect("grants");
    assert!(grants.subscribe[0].matches("chat:7"));
    assert_eq!(grants.publish, [Pattern::new("chat:1")]);
    assert!(grants.history.is_empty());
}

#[test]
fn a_token_may_have_several_roles() {
    for (claims, role, all) in [
        (r#"{"role":"user"}"#, "user", &["user"][..]),
        (r#"{"roles":"editor"}"#, "editor", &["editor"]),
        (
            r#"{"roles":["editor","clerk","editor"]}"#,
            "editor",
            &["editor", "clerk"],
        ),
        (
            r#"{"role":"user","roles":["editor","user",""]}"#,
            "user",
            &["user", "editor"],
        ),
        (r#"{"role":"","roles":["editor"]}"#, "editor", &["editor"]),
        (r#"{"roles":[]}"#, "", &[]),
    ] {
        let identity = verify(claims).expect("valid");
        assert_eq!(&*identity.role, role, "{claims}");
        assert_eq!(identity.roles().collect::<Vec<_>>(), all, "{claims}");
        assert!(all.iter().all(|role| identity.has_role(role)), "{claims}");
        assert!(
            !identity.has_role("admin") && !identity.has_role(""),
            "{claims}"
        );
    }
}

#[test]
fn requires_no_claim() {
    let identity = verify("{}").expect("valid");
    assert!(identity.authenticated && identity.user.is_empty() && identity.role.is_empty());
    assert_eq!(identity.expires_at, None);
    assert!(identity.grants.is_none() && identity.info.is_none() && identity.channels.is_empty());
}

#[test]
fn takes_the_user_from_either_claim() {
    assert_eq!(&*verify(r#"{"user_id":"bob"}"#).expect("valid").user, "bob");
    assert!(verify(r#"{"info":null}"#).expect("valid").info.is_none());
}

#[test]
fn takes_only_the_pinned_algorithms() {
    let verifier = Verifier::new(&config());
    let none = |alg: &str, signature: &str| {
        format!(
            "{}.{}.{signature}",
            encode(&format!(r#"{{"alg":"{alg}"}}"#)),
            encode("{}")
        )
    };
    let good = signed("{}");
    let signature = good.rsplit('.').next().expect("three parts");
    for alg in [
        "none", "None", "NONE", "", "RS256", "ES256", "HS512", "EdDSA", "hs256",
    ] {
        for signature in ["", signature] {
            assert_eq!(
                verifier.verify(&none(alg, signature), NOW),
                Err(AuthError::WrongAlgorithm),
                "{alg}"
            );
        }
    }
    let strong = signed_as(r#"{"alg":"HS384"}"#, Algorithm::HS384, SECRET, "{}");
    assert_eq!(
        verifier.verify(&strong, NOW),
        Err(AuthError::WrongAlgorithm),
        "rightly signed, but not by an accepted algorithm"
    );
    let both = Verifier::new(&Config {
        algorithms: vec![Algorithm::HS256, Algorithm::HS384],
        ..config()
    });
    assert!(both.verify(&strong, NOW).is_ok() && both.verify(&good, NOW).is_ok());
}

#[test]
fn an_algorithm_of_public_keys_can_not_even_be_configured() {
    let verifier = Verifier::new(&Config {
        algorithms: vec![Algorithm::RS256],
        ..config()
    });
    assert_eq!(verifier.verify(&signed("{}"), NOW), Err(AuthError::NoKey));
    assert_eq!(
        verifier.mint(&TokenClaims::default()),
        Err(AuthError::NoKey)
    );
}

#[test]
fn refuses_what_somebody_else_signed_or_changed() {
    let verifier = Verifier::new(&config());
    let forged = signed_as(r#"{"alg":"HS256"}"#, Algorithm::HS256, OTHER, "{}");
    assert_eq!(verifier.verify(&forged, NOW), Err(AuthError::BadSignature));
    let good = signed(r#"{"sub":"ann"}"#);
    let parts: Vec<&str> = good.split('.').collect();
    let changed = format!("{}.{}.{}", parts[0], encode(r#"{"sub":"bob"}"#), parts[2]);
    assert_eq!(verifier.verify(&changed, NOW), Err(AuthError::BadSignature));
    let unsigned = format!("{}.{}.", parts[0], parts[1]);
    assert_eq!(
        verifier.verify(&unsigned, NOW),
        Err(AuthError::BadSignature)
    );
}

#[test]
fn tries_every_secret_and_signs_with_the_first() {
    let old = Verifier::new(&config());
    let both = Verifier::new(&Config {
        secrets: vec![OTHER.into(), SECRET.into()],
        ..config()
    });
    let minted = both.mint(&TokenClaims::default()).expect("secrets");
    assert!(both.verify(&signed("{}"), NOW).is_ok() && both.verify(&minted, NOW).is_ok());
    assert_eq!(old.verify(&minted, NOW), Err(AuthError::BadSignature));
}

#[test]
fn without_a_secret_nothing_is_valid() {
    let verifier = Verifier::new(&Config::default());
    assert_eq!(verifier.verify(&signed("{}"), NOW), Err(AuthError::NoKey));
    assert_eq!(verifier.verify("", NOW), Err(AuthError::NoKey));
    assert_eq!(
        verifier.mint(&TokenClaims::default()),
        Err(AuthError::NoKey)
    );
}

#[test]
fn until_the_secret_comes_no_token_is_wrong_that_it_may_have_signed() {
    let pem = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC KEY-----\n";
    for public_keys in ["", pem] {
        let verifier = Verifier::new(&Config {
            public_keys: public_keys.parse().unwrap_or_default(),
            previous_secret: Some((OTHER.into(), NOW + 10)),
            required: true,
            ..Config::default()
        });
        verifier.await_secret();
        let token = signed("{}");
        assert_eq!(
            verifier.verify(&token, NOW),
            Err(AuthError::SecretUnavailable)
        );
        assert_eq!(AuthError::SecretUnavailable.code(), ErrorCode::Unavailable);
        // What it cannot have signed is as wrong as ever.
        let stronger = signed_as(r#"{"alg":"HS512"}"#, Algorithm::HS512, SECRET, "{}");
        assert_eq!(
            verifier.verify(&stronger, NOW),
            Err(AuthError::WrongAlgorithm)
        );
        let previous = signed_as(r#"{"alg":"HS256"}"#, Algorithm::HS256, OTHER, "{}");
        assert!(verifier.verify(&previous, NOW).is_ok());
        verifier.adopt_secret(b"a-secret-of-the-store-of-32-bytes");
        assert_eq!(verifier.verify(&token, NOW), Err(AuthError::BadSignature));
    }
}

#[test]
fn a_secret_of_the_store_that_changes_verifies_once_more() {
    let verifier = Verifier::new(&Config {
        required: true,
        ..Config::default()
    });
    let mint = || verifier.mint(&TokenClaims::default());
    let identify = |token: &str| verifier.identify(Some(token), NOW).map(drop);
    assert_eq!(mint(), Err(AuthError::NoKey));
    verifier.adopt_secret(SECRET);
    let first = mint().expect("a secret");
    assert_eq!(identify(&first), Ok(()));
    let generation = verifier.generation();
    verifier.adopt_secret(SECRET);
    assert_eq!(verifier.generation(), generation, "nothing has changed");
    verifier.adopt_secret(OTHER);
    assert_ne!(verifier.generation(), generation);
    let second = mint().expect("a secret");
    assert_eq!((identify(&first), identify(&second)), (Ok(()), Ok(())));
    verifier.adopt_secret(b"a-third-secret-of-at-least-32-bytes");
    let third = mint().expect("a secret");
    assert_eq!(identify(&first), Err(AuthError::BadSignature));
    assert_eq!((identify(&second), identify(&third)), (Ok(()), Ok(())));
    // Whoever was given a secret needs no other.
    let given = Verifier::new(&config());
    given.await_secret();
    given.adopt_secret(OTHER);
    assert_eq!(given.verify(&second, NOW), Err(AuthError::BadSignature));
}

#[test]
fn a_token_signed_with_the_empty_secret_is_forged() {
    let signed_by_nothing = signed_as(r#"{"alg":"HS256"}"#, Algorithm::HS256, b"", "{}");
    assert_eq!(
        Verifier::new(&config()).verify(&signed_by_nothing, NOW),
        Err(AuthError::BadSignature)
    );
}

#[test]
fn what_is_no_token_is_malformed() {
    let verifier = Verifier::new(&config());
    let good = signed("{}");
    let long = format!("{good}{}", "A".repeat(TOKEN_BYTES_MAX));
    for token in [
        "",
        ".",
        "..",
        "a.b.c",
        "not a token",
        "ä.ö.ü",
        &good.replace('.', ""),
        &format!("{good}.x"),
        &format!("{good}="),
        &long,
        &signed("[]"),
        &signed("7"),
        &signed("not json"),
        &signed(r#"{"sub":"a","sub":"b"}"#),
        &signed_as(
            r#"{"alg":"HS256","crit":["b64"],"b64":false}"#,
            Algorithm::HS256,
            SECRET,
            "{}",
        ),
        &signed_as("{}", Algorithm::HS256, SECRET, "{}"),
    ] {
        assert!(
            matches!(verifier.verify(token, NOW), Err(AuthError::Malformed(_))),
            "{token}: {:?}",
            verifier.verify(token, NOW)
        );
    }
}

#[test]
fn checks_exp_and_nbf_against_the_given_time() {
    for (claims, expected) in [
        (r#"{"exp":1799999999}"#, Some(AuthError::Expired)),
        (r#"{"exp":1800000000}"#, Some(AuthError::Expired)),
        (r#"{"exp":1800000000.9}"#, Some(AuthError::Expired)),
        (r#"{"exp":1800000001}"#, None),
        (r#"{"exp":1e300}"#, None),
        (r#"{"exp":0}"#, Some(AuthError::Expired)),
        (r#"{"exp":-5}"#, Some(AuthError::Expired)),
        (r#"{"nbf":1800000001}"#, Some(AuthError::NotYetValid)),
        (r#"{"nbf":1800000000}"#, None),
        (r#"{"nbf":1e300}"#, Some(AuthError::NotYetValid)),
    ] {
        assert_eq!(verify(claims).err(), expected, "{claims}");
    }
}

#[test]
fn leeway_helps_slow_and_fast_clocks_alike() {
    let verifier = Verifier::new(&Config {
        leeway: Duration::from_secs(5),
        ..config()
    });
    let check = |claims: &str| verifier.verify(&signed(claims), NOW);
    let late = check(r#"{"exp":1799999996}"#).expect("within the leeway");
    assert_eq!(
        late.expires_at,
        Some(1_800_000_001),
        "the connection lives as long"
    );
    assert_eq!(check(r#"{"exp":1799999995}"#), Err(AuthError::Expired));
    assert!(check(r#"{"nbf":1800000005}"#).is_ok());
    assert_eq!(check(r#"{"nbf":1800000006}"#), Err(AuthError::NotYetValid));
}

#[test]
fn audience_and_issuer_count_only_when_configured() {
    let strict = Verifier::new(&Config {
        audience: Some("hub".into()),
        issuer: Some("login".into()),
        ..config()
    });
    for (claims, expected) in [
        (r#"{"iss":"login","aud":"hub"}"#, None),
        (r#"{"iss":"login","aud":["x","hub"]}"#, None),
        (
            r#"{"iss":"login","aud":"hub2"}"#,
            Some(AuthError::WrongAudience),
        ),
        (
            r#"{"iss":"login","aud":[]}"#,
            Some(AuthError::WrongAudience),
        ),
        (r#"{"iss":"login"}"#, Some(AuthError::WrongAudience)),
        (
            r#"{"iss":"else","aud":"hub"}"#,
            Some(AuthError::WrongIssuer),
        ),
        (r#"{"aud":"hub"}"#, Some(AuthError::WrongIssuer)),
    ] {
        assert_eq!(
            strict.verify(&signed(claims), NOW).err(),
            expected,
            "{claims}"
        );
        assert!(verify(claims).is_ok(), "{claims}: nobody asked");
    }
    assert!(
        strict
            .mint(&TokenClaims::default())
            .and_then(|token| strict.verify(&token, NOW))
            .is_ok(),
        "what is minted here is valid here"
    );
}

#[test]
fn a_claim_of_the_wrong_type_is_an_error_and_named() {
    for (claims, name) in [
        (r#"{"exp":"1900000000"}"#, "exp"),
        (r#"{"exp":null}"#, "exp"),
        (r#"{"nbf":true}"#, "nbf"),
        (r#"{"iss":["a"]}"#, "iss"),
        (r#"{"aud":{"a":1}}"#, "aud"),
        (r#"{"sub":7}"#, "sub"),
        (r#"{"sub":null,"user_id":"ann"}"#, "sub"),
        (r#"{"user_id":7}"#, "user_id"),
        (r#"{"role":["admin"]}"#, "role"),
        (r#"{"roles":{"a":["admin"]}}"#, "roles"),
        (r#"{"roles":["admin",7]}"#, "roles"),
        (r#"{"roles":null}"#, "roles"),
        (r#"{"channels":"news"}"#, "channels"),
        (r#"{"channels":["a b"]}"#, "channels"),
        (r#"{"channels":[""]}"#, "channels"),
        (r#"{"channels":["~own"]}"#, "channels"),
        (r#"{"grants":null}"#, "grants"),
        (r#"{"grants":["news"]}"#, "grants"),
        (r#"{"grants":{"subscribe":"news"}}"#, "grants"),
        (r#"{"grants":{"read":["news"]}}"#, "grants"),
        (r#"{"grants":{"subscribe":["a*b"]}}"#, "grants"),
        (r#"{"grants":{"publish":[""]}}"#, "grants"),
    ] {
        assert_eq!(refused_claim(claims), name, "{claims}");
    }
}

#[test]
fn every_claim_is_bounded() {
    let list = |count: usize| {
        let names: Vec<String> = (0..count).map(|i| format!("\"c{i}\"")).collect();
        format!("[{}]", names.join(","))
    };
    let of = |claim: &str, value: &str| format!(r#"{{"{claim}":{value}}}"#);
    let string = |count: usize| format!("\"{}\"", "x".repeat(count));
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let grants = |count: usize| format!(r#"{{"history":{}}}"#, list(count));
    for (claim, fits, too_much) in [
        ("sub", string(255), string(256)),
        ("role", string(64), string(65)),
        ("roles", string(64), string(65)),
        ("roles", list(100), list(101)),
        ("info", string(4094), string(4095)),
        ("info", nested(64), nested(65)),
        (
            "info",
            "[".to_owned() + &" ".repeat(9000) + "]",
            nested(5000),
        ),
        ("channels", list(100), list(101)),
        ("grants", grants(100), grants(101)),
    ] {
        assert!(verify(&of(claim, &fits)).is_ok(), "{claim}");
        assert_eq!(refused_claim(&of(claim, &too_much)), claim);
    }
}

#[test]
fn identifies_clients_with_and_without_a_token() {
    let required = Verifier::new(&config());
    let open = Verifier::new(&Config {
        required: false,
        ..config()
    });
    assert_eq!(required.identify(None, NOW), Err(AuthError::Missing));
    assert_eq!(open.identify(None, NOW), Ok(Identity::nobody()));
    assert!(
        open.identify(Some("x"), NOW).is_err(),
        "a bad token is refused even where none is needed"
    );
    assert!(required.identify(Some(&signed("{}")), NOW).is_ok());
}

#[test]
fn neither_errors_nor_debug_show_a_secret() {
    let verifier = Verifier::new(&Config {
        hub_api_key: Some("the-hub-key".into()),
        admin_api_key: Some("the-admin-key".into()),
        ..config()
    });
    let secret = std::str::from_utf8(SECRET).expect("text");
    let shown = format!("{verifier:?}");
    for hidden in [secret, "the-hub-key", "the-admin-key"] {
        assert!(!shown.contains(hidden), "{shown}");
    }
    for claims in [
        r#"{"sub":{"very":"private"}}"#,
        r#"{"private":1,"private":2}"#,
        r#"{"exp":"private"}"#,
        "private",
    ] {
        let token = signed(claims);
        let error = verifier.verify(&token, NOW).err();
        let text = error.map(|error| format!("{error} {error:?}"));
        if let Some(text) = text {
            assert!(
                !text.contains("private") && !text.contains(&token),
                "{text}"
            );
        }
    }
}

#[test]
fn tells_clients_which_kind_of_refusal_it_is() {
    assert_eq!(AuthError::Missing.code(), ErrorCode::Unauthorized);
    assert_eq!(AuthError::Expired.code(), ErrorCode::InvalidToken);
    assert_eq!(AuthError::NotAllowed.code(), ErrorCode::Forbidden);
}

#[test]
fn a_token_that_is_known_ends_with_the_key_that_signed_it() {
    let verifier = Verifier::new(&Config {
        previous_secret: Some((OTHER.into(), NOW + 10)),
        ..config()
    });
    let header = r#"{"alg":"HS256","typ":"JWT"}"#;
    let token = signed_as(header, Algorithm::HS256, OTHER, r#"{"sub":"ann"}"#);
    for (now, is_good) in [(NOW, true), (NOW + 9, true), (NOW + 10, false)] {
        let identified = verifier.identify(Some(&token), now);
        assert_eq!(identified.is_ok(), is_good, "{now}: {identified:?}");
    }
}
