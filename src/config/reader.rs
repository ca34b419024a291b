//! Reads every variable of the table by its kind, remembers where it came from, and collects what is wrong.

use std::collections::{BTreeMap, BTreeSet};

use super::fault::{Fault, MASK};
use super::variable::{DefaultValue, Kind, NOT_YET, OUR_PREFIXES, VARIABLES, Variable, variable};
use super::{dotenv, value};

/// Where a value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Nobody set it.
    Default,
    /// The environment, under this name.
    Environment(&'static str),
    /// The file `.env`, under this name.
    DotEnv(&'static str),
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Environment(name) => write!(f, "environment ({name})"),
            Self::DotEnv(name) => write!(f, ".env ({name})"),
        }
    }
}

/// A variable as it was resolved; for `fanfare check`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// Its name.
    pub name: &'static str,
    /// Its value; secrets masked, empty when there is none.
    pub value: String,
    /// What the default is, in words where it is computed.
    pub default: &'static str,
    /// Where the value came from.
    pub source: Source,
}

enum Read {
    Boolean(bool),
    Integer(u64),
    Text(String),
}

/// The variables as read. Rooms ask for values by name; a name that is not in the table is a mistake of ours and
/// panics, which every start would show.
pub(super) struct Reader {
    values: BTreeMap<&'static str, (Read, Source)>,
    pub(super) faults: Vec<Fault>,
    pub(super) warnings: Vec<String>,
}

impl Reader {
    /// Reads the environment first and the text of `.env` for what it does not set. An empty value is none.
    pub(super) fn new(environment: &BTreeMap<String, String>, dotenv: &str) -> Self {
        let (pairs, faults) = dotenv::parse(dotenv);
        let mut reader = Self {
            values: BTreeMap::new(),
            faults,
            warnings: Vec::new(),
        };
        let file: BTreeMap<String, String> = pairs.into_iter().collect();
        for variable in VARIABLES {
            reader.read(variable, environment, &file);
        }
        reader.look_for_strangers(environment, &file);
        reader
    }

    fn read(
        &mut self,
        variable: &'static Variable,
        environment: &BTreeMap<String, String>,
        file: &BTreeMap<String, String>,
    ) {
        let sources = [
            (environment, Source::Environment as fn(_) -> _),
            (file, Source::DotEnv as fn(_) -> _),
        ];
        for (values, source) in sources {
            for name in std::iter::once(variable.name).chain(variable.aliases.iter().copied()) {
                if let Some(text) = values.get(name).filter(|text| !text.trim().is_empty()) {
                    self.set(variable, name, text, source(name));
                    return;
                }
            }
        }
        if let DefaultValue::Value(text) = variable.default
            && let Some(read) = parse(variable.kind, text)
        {
            self.values.insert(variable.name, (read, Source::Default));
        }
    }

    fn set(&mut self, variable: &'static Variable, name: &str, text: &str, source: Source) {
        if text.contains('\u{fffd}') {
            self.faults
                .push(Fault::new(name, None, "must be valid UTF-8"));
        }
        let text_as_read = if variable.secret { text } else { text.trim() };
        if let Some(read) = parse(variable.kind, text_as_read) {
            self.values.insert(variable.name, (read, source));
            return;
        }
        let shown = if variable.secret { MASK } else { text };
        self.faults
            .push(Fault::new(name, Some(shown), variable.rule()));
        // The default stands in, so that the other rules can be checked as well.
        if let DefaultValue::Value(text) = variable.default
            && let Some(read) = parse(variable.kind, text)
        {
            self.values.insert(variable.name, (read, source));
        }
    }

    fn look_for_strangers(
        &mut self,
        environment: &BTreeMap<String, String>,
        file: &BTreeMap<String, String>,
    ) {
        let set: BTreeSet<&str> = environment
            .iter()
            .chain(file)
            .filter(|(_, value)| !value.trim().is_empty())
            .map(|(name, _)| name.as_str())
            .collect();
        let known = |name: &str| {
            VARIABLES
                .iter()
                .any(|row| row.name == name || row.aliases.contains(&name))
        };
        for name in set {
            let not_yet = NOT_YET.iter().find(|not_yet| not_yet.name == name);
            if let Some(refusal) = not_yet.and_then(|not_yet| not_yet.refusal) {
                self.faults.push(Fault::new(name, None, refusal));
            } else if not_yet.is_some() {
                self.warnings
                    .push(format!("{name} is set, but has no effect in this version"));
            } else if !known(name) && OUR_PREFIXES.iter().any(|ours| name.starts_with(ours)) {
                self.warnings
                    .push(format!("{name} is set, but there is no such variable"));
            }
        }
    }

    /// Whether somebody set it.
    pub(super) fn is_set(&self, name: &str) -> bool {
        self.values
            .get(name)
            .is_some_and(|(_, source)| *source != Source::Default)
    }

    /// A variable that is on or off.
    pub(super) fn boolean(&self, name: &str) -> bool {
        matches!(self.get(name), Some(Read::Boolean(true)))
    }

    /// A number.
    pub(super) fn integer(&self, name: &str) -> u64 {
        match self.get(name) {
            Some(Read::Integer(number)) => *number,
            _ => 0,
        }
    }

    /// A number of bytes or things in memory.
    pub(super) fn size(&self, name: &str) -> usize {
        usize::try_from(self.integer(name)).unwrap_or(usize::MAX)
    }

    /// A text; `None` when unset.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        match self.get(name) {
            Some(Read::Text(text)) => Some(text),
            _ => None,
        }
    }

    fn get(&self, name: &str) -> Option<&Read> {
        assert!(
            variable(name).is_some(),
            "{name} does not stand in the table"
        );
        self.values.get(name).map(|(read, _)| read)
    }

    /// Gives a variable with a computed default its value, where nobody set it.
    pub(super) fn default_boolean(&mut self, name: &'static str, computed: bool) {
        self.default_to(name, Read::Boolean(computed));
    }

    /// The same for a number.
    pub(super) fn default_integer(&mut self, name: &'static str, computed: u64) {
        self.default_to(name, Read::Integer(computed));
    }

    /// The same for a text.
    pub(super) fn default_text(&mut self, name: &'static str, computed: &str) {
        self.default_to(name, Read::Text(computed.to_owned()));
    }

    fn default_to(&mut self, name: &'static str, read: Read) {
        self.values.entry(name).or_insert((read, Source::Default));
    }

    /// Notes that a variable breaks a rule; the value is shown unless it is secret.
    pub(super) fn fault(&mut self, name: &str, rule: impl Into<String>) {
        let shown = self.shown(name);
        let value = (!shown.is_empty()).then_some(shown.as_str());
        self.faults.push(Fault::new(name, value, rule));
    }

    /// Notes what an operator should know.
    pub(super) fn warn(&mut self, warning: impl Into<String>) {
        self.warnings.push(warning.into());
    }

    fn shown(&self, name: &str) -> String {
        let is_secret = variable(name).is_none_or(|variable| variable.secret);
        match self.exact(name) {
            Some(_) if is_secret => MASK.to_owned(),
            exact => exact.unwrap_or_default(),
        }
    }

    /// A value as it was read, secrets too: not to be shown.
    pub(super) fn exact(&self, name: &str) -> Option<String> {
        let (read, _) = self.values.get(name)?;
        Some(match read {
            Read::Boolean(on) => on.to_string(),
            Read::Integer(number) => number.to_string(),
            Read::Text(text) => text.clone(),
        })
    }

    /// Every variable with its value and source, in the order of the table.
    pub(super) fn resolved(&self) -> Vec<Resolved> {
        VARIABLES
            .iter()
            .map(|variable| Resolved {
                name: variable.name,
                value: self.shown(variable.name),
                default: variable.default_text(),
                source: self
                    .values
                    .get(variable.name)
                    .map_or(Source::Default, |(_, source)| *source),
            })
            .collect()
    }
}

/// Numbers and switches may carry a trailing comment even in the environment: not every tool that hands over an env
/// file strips it. Texts may not: they may contain a `#`, and secrets count to the last blank.
fn parse(kind: Kind, text: &str) -> Option<Read> {
    let bare = dotenv::without_comment(text).trim();
    match kind {
        Kind::Boolean => value::boolean(bare).map(Read::Boolean),
        Kind::Integer(least, most) => {
            let is_plain = bare.bytes().all(|byte| byte.is_ascii_digit());
            let number = bare.parse().ok().filter(|_| is_plain)?;
            (least..=most)
                .contains(&number)
                .then_some(Read::Integer(number))
        }
        Kind::Text(normalise, _) => normalise(text).map(Read::Text),
    }
}
