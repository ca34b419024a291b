//! The plain protocol in JSON: one object in each text frame.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::Sink;
use super::request::{self, Field, Fields, Name};
use crate::model::Payload;
use crate::protocol::payload::{self, PayloadError};
use crate::protocol::{DecodeError, Request, json_text};

/// Decodes a client's text message.
///
/// # Errors
/// When it is no JSON object, or a field of the command is missing, of the wrong type or out of range. The error has the
/// code and the words that the client is told, and the command's id where that could be read.
pub fn decode(text: &str) -> Result<Request, DecodeError> {
    match serde_json::from_str(text) {
        Ok(fields) => request::request::<Json<'_>>(&fields),
        Err(fault) if fault.is_data() => {
            let message = "Invalid JSON: a message must be an object";
            Err(request::bad_request(None, message))
        }
        Err(_) => Err(request::bad_request(None, "Invalid JSON")),
    }
}

/// One field's value: valid JSON.
#[derive(Clone, Copy)]
struct Json<'a>(&'a str);

impl<'a> Field<'a> for Json<'a> {
    fn is_null(self) -> bool {
        self.0 == "null"
    }

    fn text(self) -> Option<Cow<'a, str>> {
        let body = self.0.strip_prefix('"')?.strip_suffix('"')?;
        match body.contains('\\') {
            true => serde_json::from_str(self.0).map(Cow::Owned).ok(),
            false => Some(Cow::Borrowed(body)),
        }
    }

    fn unsigned(self) -> Option<u64> {
        self.0.parse().ok()
    }

    fn signed(self) -> Option<i64> {
        self.0.parse().ok()
    }

    fn boolean(self) -> Option<bool> {
        self.0.parse().ok()
    }

    fn fields(self) -> Option<Fields<Self>> {
        serde_json::from_str(self.0).ok()
    }

    fn payload(self) -> Result<Payload, PayloadError> {
        payload::from_valid_json(self.0)
    }
}

impl<'de> Deserialize<'de> for Fields<Json<'de>> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<Json<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Fields::default();
        while let Some(KnownName(name)) = map.next_key()? {
            match name {
                Some(name) => fields.set(name, Json(map.next_value::<&RawValue>()?.get())),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(fields)
    }
}

/// A key, looked up without being copied.
struct KnownName(Option<Name>);

impl<'de> Deserialize<'de> for KnownName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(KnownNameVisitor)
    }
}

struct KnownNameVisitor;

impl Visitor<'_> for KnownNameVisitor {
    type Value = KnownName;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, text: &str) -> Result<KnownName, E> {
        Ok(KnownName(Name::parse(text)))
    }
}

/// Writes JSON on one line.
pub(in crate::protocol) struct JsonSink<'a> {
    pub(in crate::protocol) out: &'a mut Vec<u8>,
}

impl JsonSink<'_> {
    /// A comma, unless this is the first of its map or list.
    fn separate(&mut self) {
        if !matches!(self.out.last(), Some(b'{' | b'[')) {
            self.out.push(b',');
        }
    }
}

impl Sink for JsonSink<'_> {
    fn map(&mut self, body: impl FnOnce(&mut Self)) {
        self.out.push(b'{');
        body(self);
        self.out.push(b'}');
    }

    fn map_of<T>(
        &mut self,
        items: impl ExactSizeIterator<Item = T>,
        mut each: impl FnMut(&mut Self, T),
    ) {
        self.map(|sink| items.for_each(|item| each(sink, item)));
    }

    fn list_of<T>(
        &mut self,
        items: impl ExactSizeIterator<Item = T>,
        mut each: impl FnMut(&mut Self, T),
    ) {
        self.out.push(b'[');
        for item in items {
            self.separate();
            each(self, item);
        }
        self.out.push(b']');
    }

    fn key(&mut self, name: &str) {
        self.separate();
        self.plain_text(name);
        self.out.push(b':');
    }

    fn text(&mut self, text: &str) {
        json_text::string(text, self.out);
    }

    fn plain_text(&mut self, text: &str) {
        self.out.push(b'"');
        self.out.extend_from_slice(text.as_bytes());
        self.out.push(b'"');
    }

    fn unsigned(&mut self, value: u64) {
        json_text::unsigned(value, self.out);
    }

    fn signed(&mut self, value: i64) {
        json_text::signed(value, self.out);
    }

    fn float(&mut self, value: f64) {
        json_text::float(value, self.out);
    }

    fn boolean(&mut self, value: bool) {
        let word: &[u8] = if value { b"true" } else { b"false" };
        self.out.extend_from_slice(word);
    }

    fn null(&mut self) {
        self.out.extend_from_slice(b"null");
    }

    fn payload(&mut self, payload: &Payload) {
        self.out.extend_from_slice(payload.as_bytes());
    }
}
