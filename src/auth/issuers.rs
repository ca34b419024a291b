//! Issuers elsewhere: where each shows its keys, and whose tokens those may verify.

use std::str::FromStr;

use arc_swap::ArcSwapOption;

use super::key::Key;
use super::key_set::Freshness;
use crate::outbound::Endpoint;

/// The most issuers.
const ISSUERS_MAX: usize = 8;

/// What the text of `JWKS_URL` must be.
pub const KEY_SOURCES_RULE: &str = "a URL (https://host[:port]/path), or up to 8 issuers with commas between, each its name as in `iss`, a blank \
     and its URL";

/// Where an issuer shows its keys (RFC 7517).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySource {
    /// As its tokens name it in `iss`; `None` for the only one, whose name is `JWT_ISSUER`'s matter.
    pub issuer: Option<Box<str>>,
    /// Where.
    pub url: Endpoint,
}

/// The issuers of `JWKS_URL`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeySources(Vec<KeySource>);

/// The text names none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{KEY_SOURCES_RULE}")]
pub struct KeySourcesError;

impl KeySources {
    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &KeySource> {
        self.0.iter()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromStr for KeySources {
    type Err = KeySourcesError;

    fn from_str(text: &str) -> Result<Self, KeySourcesError> {
        let mut sources: Vec<KeySource> = Vec::new();
        for entry in text.split(',') {
            let words: Vec<&str> = entry.split_whitespace().collect();
            let (issuer, url) = match words[..] {
                [url] => (None, url),
                [issuer, url] => (Some(issuer.into()), url),
                _ => return Err(KeySourcesError),
            };
            let url = url.parse().map_err(|_| KeySourcesError)?;
            if sources.iter().any(|source| source.issuer == issuer) {
                return Err(KeySourcesError);
            }
            sources.push(KeySource { issuer, url });
        }
        let has_nameless = sources.iter().any(|source| source.issuer.is_none());
        match sources.len() {
            1 => Ok(Self(sources)),
            2..=ISSUERS_MAX if !has_nameless => Ok(Self(sources)),
            _ => Err(KeySourcesError),
        }
    }
}

/// An issuer's keys, as they were fetched last.
pub(super) struct Issued {
    pub(super) source: KeySource,
    /// `None` until they were fetched.
    pub(super) keys: ArcSwapOption<Vec<Key>>,
    pub(super) freshness: Freshness,
}

impl Issued {
    pub(super) fn new(source: &KeySource) -> Self {
        Self {
            source: source.clone(),
            keys: ArcSwapOption::empty(),
            freshness: Freshness::default(),
        }
    }

    /// Whether its keys may verify a token that names this issuer.
    pub(super) fn is_for(&self, issuer: Option<&str>) -> bool {
        let own = self.source.issuer.as_deref();
        own.is_none() || own == issuer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_url_or_several_issuers_by_name() {
        let one: KeySources = "https://a.example.com/keys".parse().expect("one");
        assert!(one.iter().all(|source| source.issuer.is_none()) && !one.is_empty());
        let text = "https://a.example.com https://a.example.com/keys, b http://b/keys?x=1";
        let two: KeySources = text.parse().expect("two");
        let names: Vec<_> = two.iter().map(|source| source.issuer.as_deref()).collect();
        assert_eq!(names, [Some("https://a.example.com"), Some("b")]);
        let urls: Vec<_> = two.iter().map(|source| source.url.is_secure()).collect();
        assert_eq!(urls, [true, false]);
        let many: Vec<String> = (0..9).map(|n| format!("i{n} https://i{n}/")).collect();
        for text in [
            "",
            ",",
            "a",
            "a b",
            "https://a/, https://b/",
            "a https://a/, https://b/",
            "a https://a/, a https://b/",
            "a https://a/ more",
            "a https://a/,",
            &many.join(","),
        ] {
            assert!(text.parse::<KeySources>().is_err(), "{text}");
        }
    }
}
