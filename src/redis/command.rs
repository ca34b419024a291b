//! A command: its words, and what is made of several that one script can take together.

use std::fmt;
use std::io::Write as _;
use std::iter;

use bytes::{Bytes, BytesMut};
use fred::types::Value;

use super::lane::Answer;
use super::{CallError, Script, refused};

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
    pub fn number(self, number: u64) -> Self {
        self.formatted(format_args!("{number}"))
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
        words_of(self.part(Part::Keys)).collect()
    }

    /// Its words behind the keys.
    pub fn arguments(&self) -> Vec<Bytes> {
        let parts = [Part::Shared, Part::Own].into_iter();
        parts.flat_map(|which| words_of(self.part(which))).collect()
    }

    /// What decides which server it is for: its first key, or channel.
    pub(super) fn key(&self) -> &[u8] {
        self.ends.first().map_or(&[], |end| &self.text[..*end])
    }

    /// Some of its words: where they stand in the text, and how long each is.
    fn part(&self, which: Part) -> (&[u8], impl Iterator<Item = usize>) {
        let count = self.ends.len();
        let shared = usize::from(self.script.is_some_and(Script::takes_many));
        let first_own = (self.keys + shared).min(count);
        let (from, to) = match which {
            Part::Keys => (0, self.keys),
            Part::Shared => (self.keys, first_own),
            Part::Own => (first_own, count),
        };
        let begin = from.checked_sub(1).map_or(0, |last| self.ends[last]);
        let end = to.checked_sub(1).map_or(0, |last| self.ends[last]);
        let (ends, text) = (&self.ends[from..to], &self.text[begin..end]);
        let begins = iter::once(begin).chain(ends.iter().copied());
        let lengths = ends.iter().zip(begins).map(|(end, begin)| end - begin);
        (text, lengths)
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

/// Words of a script's call.
#[derive(Debug, Clone, Copy)]
enum Part {
    Keys,
    /// The argument that is for all who are part of the same call.
    Shared,
    /// The other arguments.
    Own,
}

fn words_of<'a>(
    (mut text, lengths): (&'a [u8], impl Iterator<Item = usize> + 'a),
) -> impl Iterator<Item = Bytes> + 'a {
    lengths.map(move |length| {
        let (word, rest) = text.split_at(length);
        text = rest;
        Bytes::copy_from_slice(word)
    })
}

/// What is sent: a name and words.
pub(super) type Words = (&'static str, Vec<Value>);

/// Commands that become one: all of the same script, or one alone. A script is called by its name.
pub(super) fn words(commands: &[&Command], is_sharded: bool) -> Words {
    words_as(commands, is_sharded, false)
}

/// One command, with the text of its script.
pub(super) fn words_in_full(command: &Command, is_sharded: bool) -> Words {
    words_as(&[command], is_sharded, true)
}

fn words_as(commands: &[&Command], is_sharded: bool, is_full: bool) -> Words {
    let count: usize = commands.iter().map(|command| command.ends.len()).sum();
    let mut words = Vec::with_capacity(count + 2);
    let Some(first) = commands.first() else {
        return ("", words);
    };
    let name = match first.script {
        None if is_sharded && first.name == "PUBLISH" => "SPUBLISH",
        None => first.name,
        Some(script) => {
            let (name, text) = match is_full {
                true => ("EVAL", script.text_for(is_sharded)),
                false => ("EVALSHA", script.sha(is_sharded)),
            };
            let keys: usize = commands.iter().map(|command| command.keys).sum();
            words.push(Value::from_static_str(text));
            words.push(Value::Integer(i64::try_from(keys).unwrap_or(i64::MAX)));
            name
        }
    };
    let length = commands.iter().map(|command| command.text.len()).sum();
    let mut text = BytesMut::with_capacity(length);
    let mut lengths = Vec::with_capacity(count);
    let keys = commands.iter().map(|command| command.part(Part::Keys));
    let own = commands.iter().map(|command| command.part(Part::Own));
    for (part, its_lengths) in keys.chain([first.part(Part::Shared)]).chain(own) {
        text.extend_from_slice(part);
        lengths.extend(its_lengths);
    }
    // Shared by its words.
    let mut text = text.freeze();
    words.extend(
        lengths
            .into_iter()
            .map(|length| Value::Bytes(text.split_to(length))),
    );
    (name, words)
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
            let why = words[0].as_str().unwrap_or_default();
            Err(refused(&why))
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
        let (name, words) = words(&[&a, &b], false);
        assert_eq!(name, "EVALSHA");
        let words: Vec<_> = words.iter().filter_map(Value::as_string).collect();
        assert_eq!(words, [MANY.sha(false), "2", "a", "b", "all", "1", "2"]);
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
