//! Commands as they are sent: one behind the other, in one text.

use super::resp;
use super::{Command, Script};

/// Commands that are sent together.
#[derive(Debug, Default)]
pub(super) struct Pipeline {
    text: Vec<u8>,
    commands: usize,
}

impl Pipeline {
    /// One command.
    pub(super) fn of(command: &Command) -> Self {
        let mut pipeline = Self::default();
        pipeline.add(&[command], false);
        pipeline
    }

    /// A command of words.
    pub(super) fn of_words(words: &[&str]) -> Self {
        let mut pipeline = Self::default();
        pipeline.add_words(words.iter().copied());
        pipeline
    }

    /// How many commands.
    pub(super) const fn commands(&self) -> usize {
        self.commands
    }

    /// What is written, and of how many commands it is.
    pub(super) fn into_text(self) -> (Vec<u8>, usize) {
        (self.text, self.commands)
    }

    /// Adds a command of words.
    pub(super) fn add_words<'a>(&mut self, words: impl ExactSizeIterator<Item = &'a str>) {
        resp::begin(&mut self.text, words.len());
        for word in words {
            resp::word(&mut self.text, word.as_bytes());
        }
        self.commands += 1;
    }

    /// Adds commands that become one: all of the same script, or one alone. A script is called by its name.
    pub(super) fn add(&mut self, commands: &[&Command], is_sharded: bool) {
        let call = |script: &'static Script| ("EVALSHA", script.sha(is_sharded));
        self.add_as(commands, is_sharded, call);
    }

    /// Adds one command, with the text of its script.
    pub(super) fn add_in_full(&mut self, command: &Command, is_sharded: bool) {
        let call = |script: &'static Script| ("EVAL", script.text_for(is_sharded));
        self.add_as(&[command], is_sharded, call);
    }

    fn add_as(
        &mut self,
        commands: &[&Command],
        is_sharded: bool,
        call: impl Fn(&'static Script) -> (&'static str, &'static str),
    ) {
        let Some(first) = commands.first() else {
            return;
        };
        let text = &mut self.text;
        let own = commands.iter().map(|command| command.own_words().len());
        let keys: usize = commands
            .iter()
            .map(|command| command.key_words().len())
            .sum();
        let words = keys + first.shared_words().len() + own.sum::<usize>();
        match first.called() {
            None => {
                let name = match first.name() {
                    "PUBLISH" if is_sharded => "SPUBLISH",
                    name => name,
                };
                resp::begin(text, words + 1);
                resp::word(text, name.as_bytes());
            }
            Some(script) => {
                let (name, script) = call(script);
                resp::begin(text, words + 3);
                resp::word(text, name.as_bytes());
                resp::word(text, script.as_bytes());
                resp::number(text, keys);
            }
        }
        let keys = commands.iter().flat_map(|command| command.key_words());
        let own = commands.iter().flat_map(|command| command.own_words());
        for word in keys.chain(first.shared_words()).chain(own) {
            resp::word(text, word);
        }
        self.commands += 1;
    }
}
