//! The plain protocol in MessagePack: one map in each binary frame, with the fields of the JSON.

use std::borrow::Cow;

use super::Sink;
use super::request::{self, Field, Fields, Name};
use crate::model::Payload;
use crate::protocol::packed::{self, Cursor, Head, MessagePackFault};
use crate::protocol::payload::{self, PayloadError};
use crate::protocol::{DecodeError, Request};

/// Decodes a client's binary message. Memory and stack do not depend on what the bytes declare.
///
/// # Errors
/// When it is no MessagePack map, or as [`super::decode_json`].
pub fn decode(bytes: &[u8]) -> Result<Request, DecodeError> {
    match Packed(bytes).map() {
        Ok(Some(fields)) => request::request(&fields),
        Ok(None) => {
            let message = "Invalid MessagePack: a message must be a map";
            Err(request::bad_request(None, message))
        }
        Err(_) => Err(request::bad_request(None, "Invalid MessagePack")),
    }
}

/// One field's value: the bytes of one value, its contents unread.
#[derive(Clone, Copy)]
struct Packed<'a>(&'a [u8]);

impl<'a> Packed<'a> {
    /// The known fields of a map; `None` for what is no map.
    fn map(self) -> Result<Option<Fields<Self>>, MessagePackFault> {
        let mut cursor = Cursor::new(self.0);
        let Head::Map(len) = cursor.head()? else {
            return Ok(None);
        };
        let mut fields = Fields::default();
        for _ in 0..len {
            let key = Self(cursor.value()?);
            let value = Self(cursor.value()?);
            if let Some(name) = key.str().and_then(Name::parse) {
                fields.set(name, value);
            }
        }
        match cursor.rest() {
            [] => Ok(Some(fields)),
            _ => Err(MessagePackFault::Trailing),
        }
    }

    fn head(self) -> Option<Head> {
        Cursor::new(self.0).head().ok()
    }

    fn str(self) -> Option<&'a str> {
        let mut cursor = Cursor::new(self.0);
        match cursor.head().ok()? {
            Head::Text(len) => cursor.text(len).ok(),
            _ => None,
        }
    }
}

impl<'a> Field<'a> for Packed<'a> {
    fn is_null(self) -> bool {
        matches!(self.head(), Some(Head::Nil))
    }

    fn text(self) -> Option<Cow<'a, str>> {
        self.str().map(Cow::Borrowed)
    }

    fn unsigned(self) -> Option<u64> {
        match self.head()? {
            Head::Unsigned(value) => Some(value),
            Head::Signed(value) => value.try_into().ok(),
            Head::Float64(value) => whole(value).and_then(|value| value.try_into().ok()),
            _ => None,
        }
    }

    fn signed(self) -> Option<i64> {
        match self.head()? {
            Head::Unsigned(value) => value.try_into().ok(),
            Head::Signed(value) => Some(value),
            Head::Float64(value) => whole(value),
            _ => None,
        }
    }

    fn boolean(self) -> Option<bool> {
        match self.head()? {
            Head::Bool(value) => Some(value),
            _ => None,
        }
    }

    fn fields(self) -> Option<Fields<Self>> {
        self.map().ok().flatten()
    }

    fn payload(self) -> Result<Payload, PayloadError> {
        payload::from_message_pack(self.0)
    }
}

/// The integer that a double is. JavaScript's encoders write integers over 32 bits as doubles; up to 2^53 that is exact.
fn whole(value: f64) -> Option<i64> {
    (value.fract() == 0.0 && value.abs() <= 9_007_199_254_740_992.0).then_some(value as i64)
}

/// Writes MessagePack. `lens` is scratch memory for payloads.
pub(in crate::protocol) struct PackedSink<'a> {
    out: &'a mut Vec<u8>,
    lens: &'a mut Vec<u32>,
    /// How many entries the open map has so far.
    entries: u8,
}

impl<'a> PackedSink<'a> {
    pub(in crate::protocol) fn new(out: &'a mut Vec<u8>, lens: &'a mut Vec<u32>) -> Self {
        Self {
            out,
            lens,
            entries: 0,
        }
    }
}

impl Sink for PackedSink<'_> {
    fn map(&mut self, body: impl FnOnce(&mut Self)) {
        let outside = std::mem::take(&mut self.entries);
        let head = self.out.len();
        packed::map_head(0, self.out);
        body(self);
        debug_assert!(self.entries < 16, "a map of {} entries", self.entries);
        self.out[head] |= self.entries & 15;
        self.entries = outside;
    }

    fn map_of<T>(
        &mut self,
        items: impl ExactSizeIterator<Item = T>,
        mut each: impl FnMut(&mut Self, T),
    ) {
        let outside = self.entries;
        packed::map_head(items.len() as u32, self.out);
        for item in items {
            self.entries = 0;
            each(self, item);
        }
        self.entries = outside;
    }

    fn list_of<T>(
        &mut self,
        items: impl ExactSizeIterator<Item = T>,
        mut each: impl FnMut(&mut Self, T),
    ) {
        packed::array_head(items.len() as u32, self.out);
        for item in items {
            each(self, item);
        }
    }

    fn key(&mut self, name: &str) {
        self.entries += 1;
        self.text(name);
    }

    fn text(&mut self, text: &str) {
        packed::text(text.as_bytes(), self.out);
    }

    fn plain_text(&mut self, text: &str) {
        self.text(text);
    }

    fn unsigned(&mut self, value: u64) {
        packed::unsigned(value, self.out);
    }

    fn signed(&mut self, value: i64) {
        packed::signed(value, self.out);
    }

    fn float(&mut self, value: f64) {
        packed::float(value, self.out);
    }

    fn boolean(&mut self, value: bool) {
        self.out.push(if value { 0xc3 } else { 0xc2 });
    }

    fn null(&mut self) {
        self.out.push(0xc0);
    }

    fn payload(&mut self, payload: &Payload) {
        payload::to_message_pack(payload, self.lens, self.out);
    }
}
