//! A script that runs in the server, known there by the hash of its text.

use std::sync::OnceLock;

use sha1::{Digest as _, Sha1};

/// A script. Its keys are declared, its text never changes while the process lives.
#[derive(Debug)]
pub struct Script {
    text: &'static str,
    sha: OnceLock<String>,
}

impl Script {
    /// The script of this text.
    pub const fn new(text: &'static str) -> Self {
        Self {
            text,
            sha: OnceLock::new(),
        }
    }

    /// What runs.
    pub const fn text(&self) -> &'static str {
        self.text
    }

    /// The name under which the server knows it: the SHA-1 of the text, in hexadecimal.
    pub(super) fn sha(&'static self) -> &'static str {
        self.sha.get_or_init(|| {
            let digest = Sha1::digest(self.text.as_bytes());
            digest.iter().map(|byte| format!("{byte:02x}")).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_the_one_that_redis_gives() {
        static SCRIPT: Script = Script::new("return 1");
        assert_eq!(SCRIPT.sha(), "e0e1f9fabfc9d4800c877a703b823ac0578ff8db");
    }
}
