//! What the scripts are told of history policies, written once for each that there is and not for every publication.

use std::borrow::Cow;
use std::time::Duration;

use hashbrown::HashMap;

use super::millis;
use crate::model::{HistoryPolicy, Namespaces};

/// How long an idempotency key is remembered.
pub(super) const REMEMBERED: Duration = Duration::from_secs(300);

/// The least life of a meta: positions outlive the publications that they count.
const META_TTL_MIN: Duration = Duration::from_secs(24 * 3600);

/// The words for the policies of all namespaces.
#[derive(Debug)]
pub(super) struct Policies(HashMap<HistoryPolicy, Words>);

/// The word for publications without an idempotency key, and for those with one.
#[derive(Debug)]
struct Words {
    plain: String,
    once: String,
}

impl Policies {
    pub(super) fn of(namespaces: &Namespaces) -> Self {
        let words = |policy: &HistoryPolicy| Words {
            plain: written(policy, false),
            once: written(policy, true),
        };
        let policies = namespaces.histories();
        Self(policies.map(|policy| (*policy, words(policy))).collect())
    }

    /// What a publication is told with, which has an idempotency key or none.
    pub(super) fn word(&self, policy: &HistoryPolicy, is_once: bool) -> Cow<'_, str> {
        match self.0.get(policy) {
            Some(words) if is_once => Cow::Borrowed(&words.once),
            Some(words) => Cow::Borrowed(&words.plain),
            None => Cow::Owned(written(policy, is_once)),
        }
    }
}

/// How long the meta of a channel lives.
pub(super) fn meta_ttl(policy: &HistoryPolicy) -> u64 {
    millis((policy.ttl * 10).max(META_TTL_MIN))
}

/// `size:ttl:ttl of the meta:for how long an idempotency key is remembered`, as [`PUBLISH`](super::scripts::PUBLISH) reads it.
fn written(policy: &HistoryPolicy, is_once: bool) -> String {
    let (size, ttl) = (policy.size, millis(policy.ttl).max(1));
    let remembered = if is_once { millis(REMEMBERED) } else { 0 };
    format!("{size}:{ttl}:{}:{remembered}", meta_ttl(policy))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::{ChannelKey, Namespace};

    #[test]
    fn every_channels_policy_has_its_words() {
        let (usual, mut long) = (Namespace::default_for(true), Namespace::default_for(true));
        long.history.ttl = Duration::from_secs(24 * 3600);
        let named = BTreeMap::from([("long".to_owned(), long)]);
        let namespaces = Namespaces::new(usual, named);
        let policies = Policies::of(&namespaces);
        for (channel, plain, once) in [
            ("a", "100:300000:86400000:0", "100:300000:86400000:300000"),
            (
                "long:a",
                "100:86400000:864000000:0",
                "100:86400000:864000000:300000",
            ),
            (
                "~shared:a",
                "1000:300000:86400000:0",
                "1000:300000:86400000:300000",
            ),
        ] {
            let channel = ChannelKey::internal(Default::default(), channel).expect("a name");
            let policy = &namespaces.of(&channel).history;
            assert!(policies.0.contains_key(policy));
            assert_eq!(policies.word(policy, false), plain);
            assert_eq!(policies.word(policy, true), once);
        }
        let another = HistoryPolicy {
            size: 7,
            ttl: Duration::from_micros(1),
        };
        assert_eq!(policies.word(&another, false), "7:1:86400000:0");
    }
}
