//! A command: its words, and what is made of several that one script can take together.

use std::fmt;
use std::io::Write as _;
use std::ops::Range;

use bytes::Bytes;

use super::lane::Answer;
use super::value::Value;
use super::{CallError, Script, refused};
use crate::model::put_decimal;

/// Room for the words of a publication.
const TEXT_BYTES: usize = 512;
const WORDS: usize = 12;

/// A command: its words.
#[derive(Debug, Clone)]
pub struct Command {
    name: &'static str,
    script: Option<&'static Script>,
    /// How many of the words are keys of the script.
    keys: usize,
    /// The words, one behind the other: an allocation of its own for each would cost more than the command.
    text: Vec<u8>,
    /// Where each of them ends.
    ends: Vec<usize>,
    awaits_replicas: bool,
}

impl Command {
    /// A plain command.
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            script: None,
            keys: 0,
            text: Vec::new(),
            ends: Vec::new(),
            awaits_replicas: false,
        }
    }

    /// A script with its keys; its arguments follow with [`Command::word`].
    pub fn script<K: AsRef<[u8]>>(script: &'static Script, keys: &[K]) -> Self {
        let command = Self {
            name: "EVALSHA",
            script: Some(script),
            keys: keys.len(),
            text: Vec::with_capacity(TEXT_BYTES),
            ends: Vec::with_capacity(WORDS),
            awaits_replicas: false,
        };
        keys.iter().fold(command, Self::word)
    }

    /// Adds a word.
    #[must_use]
    pub fn word(mut self, word: impl AsRef<[u8]>) -> Self {
        self.text.extend_from_slice(word.as_ref());
        self.ends.push(self.text.len());
        self
    }

    /// Adds a word that is written so.
    #[must_use]
    pub fn formatted(mut self, word: fmt::Arguments<'_>) -> Self {
        // Writing to a Vec cannot fail.
        let _ = self.text.write_fmt(word);
        self.ends.push(self.text.len());
        self
    }

    /// Adds a number.
    #[must_use]
    pub fn number(mut self, number: u64) -> Self {
        put_decimal(number, &mut self.text);
        self.ends.push(self.text.len());
        self
    }

    /// It is answered when as many replicas have what it wrote as the configuration says (`REDIS_WAIT_REPLICAS`); where it says
    /// none, at once. Such commands keep their order among each other.
    #[must_use]
    pub fn awaiting_replicas(self) -> Self {
        Self {
            awaits_replicas: true,
            ..self
        }
    }

    pub(super) const fn awaits_replicas(&self) -> bool {
        self.awaits_replicas
    }

    /// Its name, where it is no script.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The script that it calls.
    pub fn called(&self) -> Option<&'static Script> {
        self.script
    }

    /// The keys of the script that it calls.
    pub fn keys(&self) -> Vec<Bytes> {
        self.key_words().map(Bytes::copy_from_slice).collect()
    }

    /// Its words behind the keys.
    pub fn arguments(&self) -> Vec<Bytes> {
        let words = self.words(self.keys..self.ends.len());
        words.map(Bytes::copy_from_slice).collect()
    }

    /// What decides which server it is for: its first key, or channel.
    pub(super) fn key(&self) -> &[u8] {
        self.ends.first().map_or(&[], |end| &self.text[..*end])
    }

    /// The keys of the script that it calls.
    pub(super) fn key_words(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.words(0..self.keys)
    }

    /// The argument that is for all who are part of the same call.
    pub(super) fn shared_words(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.words(self.keys..self.first_own())
    }

    /// The other arguments.
    pub(super) fn own_words(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.words(self.first_own()..self.ends.len())
    }

    fn first_own(&self) -> usize {
        let shared = usize::from(self.script.is_some_and(Script::takes_many));
        (self.keys + shared).min(self.ends.len())
    }

    fn words(&self, which: Range<usize>) -> impl ExactSizeIterator<Item = &[u8]> {
        let mut begin = which.start.checked_sub(1).map_or(0, |last| self.ends[last]);
        self.ends[which].iter().map(move |&end| {
            let word = &self.text[begin..end];
            begin = end;
            word
        })
    }

    /// Whether the next command can be part of the same call of a script.
    pub(super) fn joins(&self, next: &Self) -> bool {
        match (self.script, next.script) {
            (Some(script), Some(other)) => script.takes_many() && std::ptr::eq(script, other),
            _ => false,
        }
    }

    /// What of an answer is this command's, when it was sent alone.
    pub(super) fn own_part(&self, answer: Answer) -> Answer {
        match self.script {
            Some(script) if script.takes_many() => {
                parts(answer, 1).pop().unwrap_or_else(too_few_parts)
            }
            _ => answer,
        }
    }
}

/// The answer of a script that took several commands, as one of each.
pub(super) fn parts(answer: Answer, count: usize) -> Vec<Answer> {
    let parts = match answer {
        Ok(Value::Array(parts)) if parts.len() == count => parts,
        Ok(_) => return vec![too_few_parts(); count],
        Err(error) => return vec![Err(error); count],
    };
    parts.into_iter().map(part).collect()
}

fn part(part: Value) -> Answer {
    match &part {
        Value::Array(words) if words.len() == 1 => {
            Err(refused(words[0].as_str().unwrap_or_default()))
        }
        _ => Ok(part),
    }
}

fn too_few_parts() -> Answer {
    Err(CallError::Unanswered(
        "an answer of another form".to_owned(),
    ))
}

#[cfg(test)]
mod tests {
    use super::super::pipeline::Pipeline;
    use super::*;

    static MANY: Script = Script::of_many("return {}");
    static ONE: Script = Script::new("return 1");

    fn command(script: &'static Script, key: &'static str, word: &'static str) -> Command {
        Command::script(script, &[key]).word(word)
    }

    fn text(text: &str) -> Value {
        Value::from(text.to_owned())
    }

    #[test]
    fn commands_of_a_script_that_takes_many_become_one() {
        let (a, b) = (command(&MANY, "a", "all"), command(&MANY, "b", "none"));
        let (a, b) = (a.word("1"), b.word("2"));
        assert!(a.joins(&b));
        assert!(!a.joins(&command(&ONE, "c", "3")));
        assert!(!command(&ONE, "c", "3").joins(&command(&ONE, "d", "4")));
        assert!(!Command::new("GET").joins(&Command::new("GET")));
        let sent = |words: &[&str]| Pipeline::of_words(words).into_text();
        let mut pipeline = Pipeline::default();
        pipeline.add(&[&a, &b], false);
        let words = ["EVALSHA", MANY.sha(false), "2", "a", "b", "all", "1", "2"];
        assert_eq!(pipeline.into_text(), sent(&words));
        let mut pipeline = Pipeline::default();
        pipeline.add_in_full(&b, false);
        let words = ["EVAL", MANY.text(), "1", "b", "none", "2"];
        assert_eq!(pipeline.into_text(), sent(&words));
        assert_eq!(b.arguments(), ["none", "2"]);
    }

    #[test]
    fn each_has_its_part_of_the_answer() {
        let fine = text("epoch:1");
        let full = Value::Array(vec![text(
            "OOM command not allowed when used memory > 'maxmemory'.",
        )]);
        let answer = Value::Array(vec![fine.clone(), full]);
        assert_eq!(
            parts(Ok(answer.clone()), 2),
            [Ok(fine), Err(CallError::OutOfMemory)]
        );
        assert!(matches!(
            parts(Ok(answer), 3)[..],
            [Err(CallError::Unanswered(_)), _, _]
        ));
        let lost = CallError::Unanswered("lost".to_owned());
        assert_eq!(parts(Err(lost.clone()), 2), [Err(lost.clone()), Err(lost)]);
    }
}
