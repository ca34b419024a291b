//! A script that runs in the server, known there by the hash of its text.

use std::sync::OnceLock;

use sha1::{Digest as _, Sha1};

/// A script. Its keys are declared, its text never changes while the process lives.
#[derive(Debug)]
pub struct Script {
    text: &'static str,
    takes_many: bool,
    sha: OnceLock<String>,
    sharded: OnceLock<(String, String)>,
}

impl Script {
    /// The script of this text.
    pub const fn new(text: &'static str) -> Self {
        Self {
            text,
            takes_many: false,
            sha: OnceLock::new(),
            sharded: OnceLock::new(),
        }
    }

    /// One that takes the keys and the arguments of any number of commands, of which the first argument of the first is for
    /// all. It answers each of them in an array: with a text, or with an array that has only what went wrong.
    pub const fn of_many(text: &'static str) -> Self {
        Self {
            text,
            takes_many: true,
            sha: OnceLock::new(),
            sharded: OnceLock::new(),
        }
    }

    pub(super) const fn takes_many(&self) -> bool {
        self.takes_many
    }

    /// What runs.
    pub const fn text(&self) -> &'static str {
        self.text
    }

    /// What runs where publications reach only the subscribers of one server.
    pub(super) fn text_for(&'static self, is_sharded: bool) -> &'static str {
        match is_sharded {
            true => &self.sharded().0,
            false => self.text,
        }
    }

    /// The name under which the server knows it: the SHA-1 of the text, in hexadecimal.
    pub(super) fn sha(&'static self, is_sharded: bool) -> &'static str {
        match is_sharded {
            true => &self.sharded().1,
            false => self.sha.get_or_init(|| digest(self.text)),
        }
    }

    fn sharded(&'static self) -> &'static (String, String) {
        self.sharded.get_or_init(|| {
            let text = self.text.replace("'PUBLISH'", "'SPUBLISH'");
            let sha = digest(&text);
            (text, sha)
        })
    }
}

fn digest(text: &str) -> String {
    let digest = Sha1::digest(text.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_the_one_that_redis_gives() {
        static SCRIPT: Script = Script::new("return 1");
        assert_eq!(
            SCRIPT.sha(false),
            "e0e1f9fabfc9d4800c877a703b823ac0578ff8db"
        );
    }

    #[test]
    fn a_sharded_server_has_another_word_for_publishing() {
        static SCRIPT: Script = Script::new("redis.call('PUBLISH', KEYS[1], 'PUBLISHED')");
        assert_eq!(
            SCRIPT.text_for(true),
            "redis.call('SPUBLISH', KEYS[1], 'PUBLISHED')"
        );
        assert_ne!(SCRIPT.sha(true), SCRIPT.sha(false));
    }
}
