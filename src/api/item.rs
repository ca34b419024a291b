//! One publication as a request writes it: `{"channel","data","key"?,"idempotency_key"?}`.
//!
//! Read by hand and not by a derived reader: a derived one would also take an array, and would copy every string.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::ApiError;

/// Most bytes of a key.
const KEY_BYTES_MAX: usize = 255;

/// A string of the body: borrowed, unless it has escapes (PHP writes `/` as `\/`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Text<'a>(pub(super) Cow<'a, str>);

/// The keys that a publication may carry, of a single one or of a whole broadcast.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Keys {
    /// What `latest` keeps one of.
    pub(super) key: Option<Arc<str>>,
    /// What makes a retry safe.
    pub(super) idempotency_key: Option<Arc<str>>,
}

/// One publication.
#[derive(Debug)]
pub(super) struct Item<'a> {
    pub(super) channel: Text<'a>,
    pub(super) data: &'a RawValue,
    pub(super) key: Option<Text<'a>>,
    pub(super) idempotency_key: Option<Text<'a>>,
}

impl Keys {
    /// Checks the keys' rules.
    ///
    /// # Errors
    /// 400 that names the key and its rule.
    pub(super) fn new(
        key: Option<&Text<'_>>,
        idempotency_key: Option<&Text<'_>>,
    ) -> Result<Self, ApiError> {
        let shared = |text: &Text<'_>| Arc::from(&*text.0);
        if key.is_some_and(|key| key.0.len() > KEY_BYTES_MAX) {
            return Err(ApiError::bad_request("key has more than 255 bytes"));
        }
        if idempotency_key.is_some_and(|key| !(1..=KEY_BYTES_MAX).contains(&key.0.len())) {
            return Err(ApiError::bad_request(
                "idempotency_key must have 1 to 255 bytes",
            ));
        }
        Ok(Self {
            key: key.map(shared),
            idempotency_key: idempotency_key.map(shared),
        })
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Text(Cow::Owned(text.to_owned())))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Item<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ItemVisitor)
    }
}

/// The fields that there are, for the message about one that is not.
const FIELDS: &[&str] = &["channel", "data", "key", "idempotency_key"];

struct ItemVisitor;

impl<'de> Visitor<'de> for ItemVisitor {
    type Value = Item<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a publication: an object with channel and data")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut channel, mut data, mut key, mut idempotency_key) = (None, None, None, None);
        while let Some(Text(field)) = map.next_key()? {
            match &*field {
                "channel" => set(&mut channel, "channel", map.next_value()?)?,
                "data" => set(&mut data, "data", map.next_value()?)?,
                "key" => set(&mut key, "key", map.next_value()?)?,
                "idempotency_key" => {
                    set(&mut idempotency_key, "idempotency_key", map.next_value()?)?;
                }
                // A misspelt idempotency_key that is passed over would be found out at the worst time.
                other => return Err(A::Error::unknown_field(other, FIELDS)),
            }
        }
        Ok(Item {
            channel: channel.ok_or_else(|| A::Error::missing_field("channel"))?,
            data: data.ok_or_else(|| A::Error::missing_field("data"))?,
            key: key.flatten(),
            idempotency_key: idempotency_key.flatten(),
        })
    }
}

fn set<T, E: serde::de::Error>(
    field: &mut Option<T>,
    name: &'static str,
    value: T,
) -> Result<(), E> {
    match field.replace(value) {
        None => Ok(()),
        Some(_) => Err(E::duplicate_field(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str) -> Result<Item<'_>, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn borrows_what_has_no_escapes() {
        let item = check(r#"{"channel":"a","data":{"x":[1, 2]}}"#).expect("an item");
        assert!(matches!(item.channel.0, Cow::Borrowed("a")));
        assert_eq!(item.data.get(), r#"{"x":[1, 2]}"#);
        assert_eq!(item.key, None);
    }

    #[test]
    fn reads_escapes_and_null() {
        let item = check(r#"{"key":null,"data":null,"channel":"a\/b"}"#).expect("an item");
        assert_eq!(&*item.channel.0, "a/b");
        assert_eq!(item.data.get(), "null");
    }

    #[test]
    fn says_what_is_wrong() {
        for (json, expected) in [
            (r#"{"data":1}"#, "missing field `channel`"),
            (r#"{"channel":"a"}"#, "missing field `data`"),
            (
                r#"{"channel":1,"data":1}"#,
                "invalid type: integer `1`, expected a string",
            ),
            (r#"{"channel":"a","data":1,"dta":1}"#, "unknown field `dta`"),
            (
                r#"{"channel":"a","data":1,"data":2}"#,
                "duplicate field `data`",
            ),
            (
                r#"["a",1]"#,
                "invalid type: sequence, expected a publication",
            ),
        ] {
            let error = check(json).expect_err(json);
            assert!(error.starts_with(expected), "{json}: {error}");
        }
    }
}
