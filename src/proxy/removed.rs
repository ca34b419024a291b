//! Which fields of upstreams' answers are nobody else's business.

/// Names, and beginnings of names.
#[derive(Debug, Clone, Default)]
pub(super) struct Removed {
    names: Box<[Box<[u8]>]>,
    beginnings: Box<[Box<[u8]>]>,
}

impl Removed {
    /// Fields of these names in lower case; one that ends in `*` is a beginning.
    pub(super) fn new(patterns: &[String]) -> Self {
        let (beginnings, names): (Vec<&String>, Vec<&String>) =
            patterns.iter().partition(|pattern| pattern.ends_with('*'));
        let bytes = |text: &str| text.trim_end_matches('*').as_bytes().into();
        Self {
            names: names.into_iter().map(|name| bytes(name)).collect(),
            beginnings: beginnings.into_iter().map(|name| bytes(name)).collect(),
        }
    }

    /// Whether a field of this name, in lower case, goes no further.
    pub(super) fn has(&self, lower: &[u8]) -> bool {
        self.beginnings.iter().any(|one| lower.starts_with(one))
            || self.names.iter().any(|one| lower == &**one)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_beginnings() {
        let removed = Removed::new(&["x-internal-*".to_owned(), "server".to_owned()]);
        for (name, expected) in [
            ("x-internal-service-name", true),
            ("x-internal-", true),
            ("x-internal", false),
            ("server", true),
            ("server-timing", false),
        ] {
            assert_eq!(removed.has(name.as_bytes()), expected, "{name}");
        }
        assert!(!Removed::default().has(b"x"));
    }
}
