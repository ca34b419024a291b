//! A command: its words, and what is made of several that one script can take together.

use bytes::Bytes;
use fred::types::Value;

use super::lane::Answer;
use super::{CallError, Script, refused};

/// A command: its words.
#[derive(Debug, Clone)]
pub struct Command {
    name: &'static str,
    script: Option<&'static Script>,
    /// How many of the words are keys of the script.
    keys: usize,
    words: Vec<Bytes>,
}

impl Command {
    /// A plain command.
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            script: None,
            keys: 0,
            words: Vec::new(),
        }
    }

    /// A script with its keys; its arguments follow with [`Command::word`].
    pub fn script(script: &'static Script, keys: &[&Bytes]) -> Self {
        let mut words = Vec::with_capacity(keys.len() + 10);
        words.extend(keys.iter().copied().cloned());
        Self {
            name: "EVALSHA",
            script: Some(script),
            keys: keys.len(),
            words,
        }
    }

    /// Adds a word.
    #[must_use]
    pub fn word(mut self, word: impl Into<Bytes>) -> Self {
        self.words.push(word.into());
        self
    }

    /// Adds a number.
    #[must_use]
    pub fn number(self, number: u64) -> Self {
        self.word(number.to_string())
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
    pub fn keys(&self) -> &[Bytes] {
        &self.words[..self.keys]
    }

    /// Its words behind the keys.
    pub fn arguments(&self) -> &[Bytes] {
        &self.words[self.keys..]
    }

    /// What decides which server it is for: its first key, or channel.
    pub(super) fn key(&self) -> &[u8] {
        self.words.first().map_or(&[], |word| word)
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
    let count = commands
        .iter()
        .map(|command| command.words.len())
        .sum::<usize>();
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
    let keys = commands
        .iter()
        .flat_map(|command| &command.words[..command.keys]);
    words.extend(keys.cloned().map(Value::Bytes));
    let arguments = commands
        .iter()
        .flat_map(|command| &command.words[command.keys..]);
    words.extend(arguments.cloned().map(Value::Bytes));
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
        Command::script(script, &[&Bytes::from_static(key.as_bytes())]).word(word)
    }

    fn text(text: &str) -> Value {
        Value::from(text.to_owned())
    }

    #[test]
    fn commands_of_a_script_that_takes_many_become_one() {
        let (a, b) = (command(&MANY, "a", "1"), command(&MANY, "b", "2"));
        assert!(a.joins(&b));
        assert!(!a.joins(&command(&ONE, "c", "3")));
        assert!(!command(&ONE, "c", "3").joins(&command(&ONE, "d", "4")));
        assert!(!Command::new("GET").joins(&Command::new("GET")));
        let (name, words) = words(&[&a, &b], false);
        assert_eq!(name, "EVALSHA");
        let words: Vec<_> = words.iter().filter_map(Value::as_string).collect();
        assert_eq!(words, [MANY.sha(false), "2", "a", "b", "1", "2"]);
    }

    #[test]
    fn each_has_its_part_of_the_answer() {
        let fine = Value::Array(vec![text("epoch"), text("1"), Value::Integer(0)]);
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
