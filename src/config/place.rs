//! Where we are in `CONFIG_FILE` (TOML), and what is wrong there. Every value is read through here, so that a fault always
//! has the file, the line, the path, what stands there and the rule. An unknown key is a fault: a mistyped limit is not
//! a limit that nobody set.

use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use super::fault::Fault;
use super::value;

pub(super) type Key<'i> = Spanned<std::borrow::Cow<'i, str>>;
pub(super) type Value<'i> = Spanned<DeValue<'i>>;

/// Where we are in the file, and what was wrong so far.
pub(super) struct Place<'t> {
    pub(super) file: &'t str,
    pub(super) text: &'t str,
    pub(super) faults: Vec<Fault>,
}

impl Place<'_> {
    pub(super) fn boolean(&mut self, path: &str, value: &Value<'_>, to: &mut bool) {
        match value.get_ref() {
            DeValue::Boolean(on) => *to = *on,
            _ => self.wrong(value, path, "must be true or false"),
        }
    }

    pub(super) fn integer(
        &mut self,
        path: &str,
        value: &Value<'_>,
        least: u64,
        most: u64,
    ) -> Option<u64> {
        let number = match value.get_ref() {
            DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        };
        let number = number.filter(|number| (least..=most).contains(number));
        if number.is_none() {
            let rule = format!("must be a whole number from {least} to {most}");
            self.wrong(value, path, &rule);
        }
        number
    }

    pub(super) fn duration(&mut self, path: &str, value: &Value<'_>, to: &mut Duration) {
        // Ten years: beyond it, sums with the present time would have to be watched.
        const MOST: Duration = Duration::from_secs(3650 * 86_400);
        let duration = value.get_ref().as_str().and_then(value::duration);
        match duration.filter(|duration| !duration.is_zero() && *duration <= MOST) {
            Some(duration) => *to = duration,
            None => self.wrong(
                value,
                path,
                "must be a duration as \"250ms\", \"300s\", \"5m\", \"2h\" or \"1d\", at most ten years",
            ),
        }
    }

    /// A text that this accepts; otherwise the rule is broken.
    pub(super) fn text<T>(
        &mut self,
        path: &str,
        value: &Value<'_>,
        rule: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let text = value.get_ref().as_str().and_then(read);
        if text.is_none() {
            self.wrong(value, path, rule);
        }
        text
    }

    /// The entries of a list.
    pub(super) fn list<'v, 'i>(
        &mut self,
        path: &str,
        value: &'v Value<'i>,
        rule: &str,
    ) -> &'v [Value<'i>] {
        match value.get_ref() {
            DeValue::Array(list) => list,
            _ => {
                self.wrong(value, path, rule);
                &[]
            }
        }
    }

    /// The rows of a table.
    pub(super) fn table<'v, 'i>(
        &mut self,
        path: &str,
        value: &'v Value<'i>,
        rule: &str,
    ) -> impl Iterator<Item = (&'v Key<'i>, &'v Value<'i>)> + use<'v, 'i> {
        let table = match value.get_ref() {
            DeValue::Table(table) => Some(table),
            _ => {
                self.wrong(value, path, rule);
                None
            }
        };
        table.into_iter().flatten()
    }

    pub(super) fn choice<T: Copy>(
        &mut self,
        path: &str,
        value: &Value<'_>,
        choices: &[(&str, T)],
        to: &mut T,
    ) {
        let said = value.get_ref().as_str();
        match choices.iter().find(|(word, _)| Some(*word) == said) {
            Some((_, choice)) => *to = *choice,
            None => {
                let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
                self.wrong(value, path, &format!("must be one of {}", words.join(", ")));
            }
        }
    }

    pub(super) fn wrong(&mut self, value: &Value<'_>, path: &str, rule: &str) {
        let written = match value.get_ref() {
            DeValue::Table(_) => None,
            _ => self
                .text
                .get(value.span())
                .map(|text| text.trim_matches('"').to_owned()),
        };
        self.fault(value.span().start, path, written, rule.to_owned());
    }

    pub(super) fn unknown(&mut self, key: &Key<'_>, path: &str, known: &str) {
        let rule = format!("is not known here; known are: {known}");
        self.fault(key.span().start, path, None, rule);
    }

    pub(super) fn fault(&mut self, start: usize, path: &str, value: Option<String>, rule: String) {
        let line = self.text.as_bytes()[..start.min(self.text.len())]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count()
            + 1;
        let place = format!("{} line {line}: {path}", self.file);
        let name = place.trim_end_matches([' ', ':']).to_owned();
        self.faults.push(Fault { name, value, rule });
    }
}
