//! `Cache-Control` (RFC 9111 section 5.2), of requests and answers.

use std::time::Duration;

use super::lines;

/// A longer time is as good as for ever, and a sum of some of them still a time.
const SECONDS_MAX: u64 = 365 * 24 * 3600;

/// The directives of a head, in lower case.
#[derive(Debug, Clone, Default)]
pub(super) struct Directives(String);

impl Directives {
    /// Those of these lines.
    pub(super) fn of(fields: &[u8]) -> Self {
        let text = lines::joined(fields, "cache-control");
        Self(String::from_utf8_lossy(&text).to_ascii_lowercase())
    }

    /// As they stand, in lower case.
    pub(super) fn text(&self) -> &str {
        &self.0
    }

    /// Whether there is any.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether there is one of this name, with or without an argument.
    pub(super) fn has(&self, name: &str) -> bool {
        self.all().any(|(found, _)| found == name)
    }

    /// The time that one of this name says; none where it is not there, or says none that can be read.
    pub(super) fn seconds(&self, name: &str) -> Option<Duration> {
        let (_, argument) = self.all().find(|(found, _)| *found == name)?;
        let digits = argument?.trim_matches('"');
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        // More digits than a number has are a number that is too large.
        let seconds = digits.parse().unwrap_or(SECONDS_MAX).min(SECONDS_MAX);
        is_number.then(|| Duration::from_secs(seconds))
    }

    fn all(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.0
            .split(',')
            .map(|directive| match directive.split_once('=') {
                Some((name, argument)) => (name.trim(), Some(argument.trim())),
                None => (directive.trim(), None),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_are_read_in_any_case_and_over_several_fields() {
        let directives =
            Directives::of(b"Cache-Control: No-Store, Max-Age=60\r\ncache-control: x=\"7\"\r\n");
        assert!(directives.has("no-store") && directives.has("max-age"));
        assert!(!directives.has("private"));
        assert_eq!(directives.seconds("max-age"), Some(Duration::from_secs(60)));
        assert_eq!(directives.seconds("x"), Some(Duration::from_secs(7)));
    }

    #[test]
    fn times_that_are_none_are_told_apart_from_those_that_are_long() {
        let directives = Directives::of(
            b"cache-control: a=99999999999999999999999, b=-1, c=, d, e=1x, f=18446744073709551615\r\n",
        );
        let most = Some(Duration::from_secs(SECONDS_MAX));
        assert_eq!(directives.seconds("a"), most);
        assert_eq!(directives.seconds("f"), most);
        for name in ["b", "c", "d", "e"] {
            assert_eq!(directives.seconds(name), None, "{name}");
        }
    }
}
