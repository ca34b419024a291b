//! Which settings must be alike on all nodes of a fleet, and their fingerprints, by which the nodes find out.
//!
//! A fingerprint is the beginning of an HMAC-SHA-256 of names and values with a fixed label as its key. Secrets are among
//! them, so only 16 bits are told, of all that a group has together.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::reader::Reader;
use crate::auth::sign;
use crate::model::{Fingerprints, Namespaces, SettingsGroup};

/// What the hash is keyed with, so that it is no hash of anything else.
const LABEL: &[u8] = b"fanfare: settings that are alike on all nodes";

/// The variables of a group.
const fn variables(group: SettingsGroup) -> &'static [&'static str] {
    match group {
        // The namespaces, which follow from a file.
        SettingsGroup::Channels => &[],
        SettingsGroup::Events => &[
            "WEBHOOK_URL",
            "WEBHOOK_EVENTS",
            "EVENT_STREAM",
            "EVENT_STREAM_LENGTH",
            "CONNECT_URL",
            "CONNECT_HEADERS",
            "SUBSCRIBE_URL",
            "PUBLISH_URL",
        ],
        SettingsGroup::Keys => &["HUB_API_KEY", "ADMIN_API_KEY", "WEBHOOK_SECRET"],
        SettingsGroup::Sessions => &[
            "SESSION_TIMEOUT_MINUTES",
            "SINGLE_SESSION_PER_USER",
            "MAX_SESSIONS_PER_USER",
            "MAX_SESSION_BYTES",
            "SESSION_MAX_INACTIVE_DAYS",
            "PASSWORD_HASH",
        ],
        SettingsGroup::Tokens => &[
            "AUTH_REQUIRED",
            "JWT_SECRET",
            "SECRET_KEY",
            "JWT_PREVIOUS_SECRET",
            "JWT_PREVIOUS_SECRET_UNTIL",
            "JWT_PUBLIC_KEY",
            "JWKS_URL",
            "ALGORITHM",
            "JWT_LEEWAY_SECONDS",
            "JWT_AUDIENCE",
            "JWT_ISSUER",
            "ACCESS_TOKEN_EXPIRE_MINUTES",
        ],
    }
}

/// The fingerprints of these settings.
pub(super) fn fingerprints(reader: &Reader, namespaces: &Namespaces) -> Fingerprints {
    let mut fingerprints = Fingerprints::default();
    for group in SettingsGroup::ALL {
        let mut text = format!("{group}\n");
        for name in variables(group) {
            let value = reader.exact(name).unwrap_or_default();
            // With the length, so that no value can be taken for another with what follows it.
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{name} {} {value}", value.len());
        }
        let _ = match group {
            // Every field of them, also those to come: nodes of different versions are not compared.
            SettingsGroup::Channels => write!(text, "{namespaces:?}"),
            // The same one may have different addresses.
            SettingsGroup::Sessions => write!(text, "{}", reader.is_set("DATABASE_URL")),
            _ => Ok(()),
        };
        if let Some(fingerprint) = fingerprint(text.as_bytes()) {
            fingerprints.set(group, fingerprint);
        }
    }
    fingerprints
}

fn fingerprint(text: &[u8]) -> Option<u16> {
    let hash = BASE64_URL_SAFE_NO_PAD.decode(sign(LABEL, text)?).ok()?;
    hash.first_chunk().copied().map(u16::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::variable::{VARIABLES, variable};
    use crate::model::Namespace;

    fn of(variables: &[(&str, &str)], namespace: Namespace) -> Fingerprints {
        let variables = variables.iter();
        let environment: BTreeMap<_, _> = variables
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let namespaces = Namespaces::new(namespace, BTreeMap::new());
        fingerprints(&Reader::new(&environment, ""), &namespaces)
    }

    fn check_differs(variables: &[(&str, &str)], expected: SettingsGroup) {
        let open = || Namespace::default_for(true);
        let differing = of(&[], open()).differing(&of(variables, open()));
        assert_eq!(differing, [expected], "{variables:?}");
    }

    #[test]
    fn what_differs_is_told_by_its_group() {
        let secret = "a secret of more than thirty-two bytes";
        check_differs(&[("WEBHOOK_EVENTS", "connect")], SettingsGroup::Events);
        check_differs(&[("EVENT_STREAM", "true")], SettingsGroup::Events);
        check_differs(&[("HUB_API_KEY", secret)], SettingsGroup::Keys);
        check_differs(
            &[("SINGLE_SESSION_PER_USER", "no")],
            SettingsGroup::Sessions,
        );
        check_differs(&[("JWT_SECRET", secret)], SettingsGroup::Tokens);
        let mut small = Namespace::default_for(true);
        small.history.size = 7;
        let differing = of(&[], Namespace::default_for(true)).differing(&of(&[], small));
        assert_eq!(differing, [SettingsGroup::Channels]);
    }

    #[test]
    fn what_may_differ_is_not_looked_at() {
        let own = [
            ("NODE_ID", "a"),
            ("PORT", "1"),
            ("WORKERS", "3"),
            ("REDIS_URL", "redis://a"),
        ];
        let open = || Namespace::default_for(true);
        assert_eq!(of(&own, open()).differing(&of(&[], open())), []);
    }

    #[test]
    fn values_do_not_run_into_each_other() {
        let one = [("HUB_API_KEY", "a"), ("ADMIN_API_KEY", "bc")];
        let other = [("HUB_API_KEY", "ab"), ("ADMIN_API_KEY", "c")];
        let open = || Namespace::default_for(true);
        let differing = of(&one, open()).differing(&of(&other, open()));
        assert_eq!(differing, [SettingsGroup::Keys]);
    }

    #[test]
    fn every_secret_is_in_a_group_or_may_differ() {
        let all: Vec<_> = SettingsGroup::ALL.into_iter().flat_map(variables).collect();
        assert!(all.iter().all(|name| variable(name).is_some()), "{all:?}");
        let secrets = VARIABLES.iter().filter(|variable| variable.secret);
        let others: Vec<_> = secrets
            .map(|variable| variable.name)
            .filter(|name| !all.contains(&name))
            .collect();
        assert_eq!(others, ["DATABASE_URL", "REDIS_URL"]);
    }
}
