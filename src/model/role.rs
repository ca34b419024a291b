//! What a role may be called that an operator names, in a namespace or for a user.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The most bytes of a role.
pub const ROLE_BYTES_MAX: usize = 64;

/// What says in a namespace who may, and is no role.
const WORDS: [&str; 3] = ["nobody", "authenticated", "anyone"];

/// A role: `user`, `publisher`, `admin` or one of the operator's own. Roles are compared letter by letter.
#[derive(Clone, PartialEq, Eq)]
pub struct Role(Arc<str>);

/// Why a text is no role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be a role of 1 to 64 bytes, without control characters or white space at its ends, and none of nobody, authenticated, anyone"
)]
pub struct RoleError;

impl Role {
    /// The role that may everything.
    pub const ADMIN: &str = "admin";
    /// The role of back ends that publish with a token.
    pub const PUBLISHER: &str = "publisher";

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Role {
    type Err = RoleError;

    fn from_str(text: &str) -> Result<Self, RoleError> {
        let is_role = (1..=ROLE_BYTES_MAX).contains(&text.len())
            && text.trim() == text
            && !text.contains(char::is_control)
            && !WORDS.contains(&text);
        is_role.then(|| Self(text.into())).ok_or(RoleError)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_a_short_text_that_can_be_seen() {
        let longest = "x".repeat(ROLE_BYTES_MAX);
        for text in [
            "admin",
            "Team Lead",
            "https://example.com/editor",
            "é",
            &longest,
        ] {
            let role: Role = text.parse().expect(text);
            assert_eq!(role.as_str(), text);
        }
        let longer = "x".repeat(ROLE_BYTES_MAX + 1);
        for text in [
            "",
            " ",
            "a ",
            "\na",
            "a\0b",
            "nobody",
            "authenticated",
            "anyone",
            &longer,
        ] {
            assert_eq!(text.parse::<Role>(), Err(RoleError), "{text:?}");
        }
    }
}
