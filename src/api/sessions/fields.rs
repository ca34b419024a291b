//! The fields of a body, and what is wrong with them: all of it at once, as `{"loc","msg","type"}` each.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Serialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::SessionError;
use crate::model::Payload;
use crate::protocol::payload;
use crate::session::{NameError, UserName};

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct FieldError {
    loc: Vec<Cow<'static, str>>,
    msg: String,
    r#type: &'static str,
}

impl FieldError {
    fn of_body(msg: impl Into<String>, kind: &'static str) -> Self {
        Self {
            loc: vec!["body".into()],
            msg: msg.into(),
            r#type: kind,
        }
    }

    fn of(name: &'static str, msg: impl Into<String>, kind: &'static str) -> Self {
        Self {
            loc: vec!["body".into(), name.into()],
            ..Self::of_body(msg, kind)
        }
    }
}

/// The fields of a JSON object. Each is taken by its name and rule; what breaks its rule is remembered, and
/// [`check`](Fields::check) tells all of it. Fields that nobody takes are passed over.
pub(super) struct Fields<'a> {
    values: BTreeMap<Cow<'a, str>, &'a RawValue>,
    errors: Vec<FieldError>,
}

impl<'a> Fields<'a> {
    /// Reads a body.
    ///
    /// # Errors
    /// 422 when it is no JSON object.
    pub(super) fn parse(body: &'a [u8]) -> Result<Self, SessionError> {
        let refused = |error| Err(SessionError::invalid(vec![error]));
        match body.trim_ascii_start().first() {
            None => return refused(FieldError::of_body("Field required", "missing")),
            Some(b'{') => {}
            Some(_) if serde_json::from_slice::<&RawValue>(body).is_ok() => {
                let msg = "Input should be a valid dictionary or object to extract fields from";
                return refused(FieldError::of_body(msg, "model_attributes_type"));
            }
            Some(_) => {}
        }
        match serde_json::from_slice(body) {
            Ok(values) => Ok(Self {
                values,
                errors: Vec::new(),
            }),
            Err(error) => refused(FieldError::of_body(
                format!("JSON decode error: {error}"),
                "json_invalid",
            )),
        }
    }

    /// A text that has to be there, of 1 to so many bytes. Empty when it breaks its rule.
    pub(super) fn text(&mut self, name: &'static str, bytes_max: usize) -> String {
        let Some(text) = self.any_text(name, true) else {
            return String::new();
        };
        if text.is_empty() {
            let msg = "String should have at least 1 character";
            self.errors
                .push(FieldError::of(name, msg, "string_too_short"));
        } else if text.len() > bytes_max {
            let msg = format!("String should have at most {bytes_max} bytes");
            self.errors
                .push(FieldError::of(name, msg, "string_too_long"));
        } else {
            return text;
        }
        String::new()
    }

    /// The same without control characters.
    pub(super) fn plain_text(&mut self, name: &'static str, bytes_max: usize) -> String {
        let text = self.text(name, bytes_max);
        if text.contains(char::is_control) {
            self.errors.push(invisible(name));
        }
        text
    }

    /// A text that may be absent, null or empty, all of which are none.
    pub(super) fn optional_text(&mut self, name: &'static str, bytes_max: usize) -> Option<String> {
        let text = self.any_text(name, false).filter(|text| !text.is_empty())?;
        if text.len() > bytes_max {
            let msg = format!("String should have at most {bytes_max} bytes");
            self.errors
                .push(FieldError::of(name, msg, "string_too_long"));
        } else if text.contains(char::is_control) {
            self.errors.push(invisible(name));
        }
        Some(text)
    }

    /// A text that may be absent and is made something else, or breaks the rule that the error tells.
    pub(super) fn optional_parsed<T: std::str::FromStr<Err: std::fmt::Display>>(
        &mut self,
        name: &'static str,
    ) -> Option<T> {
        let text = self.any_text(name, false).filter(|text| !text.is_empty())?;
        self.made(name, &text)
    }

    /// A text that has to be there and is made something else, or breaks the rule that the error tells.
    pub(super) fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(
        &mut self,
        name: &'static str,
    ) -> Option<T> {
        let text = self.any_text(name, true)?;
        self.made(name, &text)
    }

    fn made<T: std::str::FromStr<Err: std::fmt::Display>>(
        &mut self,
        name: &'static str,
        text: &str,
    ) -> Option<T> {
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                let msg = format!("Value error, {error}");
                self.errors.push(FieldError::of(name, msg, "value_error"));
                None
            }
        }
    }

    /// The name of somebody who registers.
    pub(super) fn new_name(&mut self, name: &'static str) -> Option<UserName> {
        let text = self.any_text(name, true)?;
        let error = match UserName::for_account(&text) {
            Ok(user) => return Some(user),
            Err(error @ NameError::Empty) => FieldError::of(
                name,
                format!("String should have at least 1 character ({error})"),
                "string_too_short",
            ),
            Err(error @ NameError::TooLong) => FieldError::of(
                name,
                format!("String is too long ({error})"),
                "string_too_long",
            ),
            Err(error @ (NameError::Invisible | NameError::Step)) => {
                FieldError::of(name, format!("Value error, {error}"), "value_error")
            }
        };
        self.errors.push(error);
        None
    }

    /// A JSON object that has to be there, made one line. Its own names are texts: in `{"\ud800":1}`, which is JSON, one is
    /// half a character, and nobody could tell it from another.
    pub(super) fn object(&mut self, name: &'static str) -> Option<Payload> {
        let Some(raw) = self.values.get(name).copied() else {
            self.errors
                .push(FieldError::of(name, "Field required", "missing"));
            return None;
        };
        if !raw.get().trim_start().starts_with('{') {
            let msg = "Input should be a valid dictionary";
            self.errors.push(FieldError::of(name, msg, "dict_type"));
            return None;
        }
        let object = payload::from_raw(raw).map_err(|error| error.to_string());
        let named = object.and_then(|object| match names_are_texts(raw) {
            Ok(()) => Ok(object),
            Err(error) => Err(format!("a name is no text: {error}")),
        });
        match named {
            Ok(object) => Some(object),
            Err(error) => {
                let msg = format!("Value error, {error}");
                self.errors.push(FieldError::of(name, msg, "value_error"));
                None
            }
        }
    }

    /// Whether every field kept its rule.
    ///
    /// # Errors
    /// 422 with every fault.
    pub(super) fn check(self) -> Result<(), SessionError> {
        match self.errors.is_empty() {
            true => Ok(()),
            false => Err(SessionError::invalid(self.errors)),
        }
    }

    fn any_text(&mut self, name: &'static str, is_required: bool) -> Option<String> {
        let Some(raw) = self.values.get(name).copied() else {
            if is_required {
                self.errors
                    .push(FieldError::of(name, "Field required", "missing"));
            }
            return None;
        };
        if !is_required && raw.get() == "null" {
            return None;
        }
        let text = serde_json::from_str(raw.get()).ok();
        if text.is_none() {
            let msg = "Input should be a valid string";
            self.errors.push(FieldError::of(name, msg, "string_type"));
        }
        text
    }
}

/// Whether the names of an object can be read. Those of objects inside are its values' own affair.
fn names_are_texts(object: &RawValue) -> Result<(), serde_json::Error> {
    serde_json::from_str::<BTreeMap<Cow<'_, str>, IgnoredAny>>(object.get()).map(drop)
}

fn invisible(name: &'static str) -> FieldError {
    let msg = "Value error, must not have control characters";
    FieldError::of(name, msg, "value_error")
}
