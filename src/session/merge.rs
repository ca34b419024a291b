//! Merges fields into a session's data: the top level only, as values, without reading into them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::value::RawValue;

/// The fields of an object in the order of their names, values untouched.
type Fields<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

/// `data` with each of `fields` in the place of the one of the same name; both are JSON objects. `None` when one of
/// them is not, or has a name that is no text (`"\ud800"` is JSON, and half a character).
pub(super) fn merged(data: &str, fields: &str) -> Option<String> {
    let mut merged: Fields<'_> = serde_json::from_str(data).ok()?;
    let fields: Fields<'_> = serde_json::from_str(fields).ok()?;
    merged.extend(fields);
    serde_json::to_string(&merged).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_fields_and_keeps_the_others() {
        let data = r#"{"api_key":null,"conversation":[]}"#;
        assert_eq!(
            merged(data, r#"{"api_key":"sk"}"#).as_deref(),
            Some(r#"{"api_key":"sk","conversation":[]}"#)
        );
        assert_eq!(merged(data, "{}").as_deref(), Some(data));
    }

    #[test]
    fn values_stay_as_they_were_written() {
        let odd =
            r#"{"a":[],"big":12345678901234567890123,"e":1e400,"nested":{"x":{}},"t":"\u00e4\/"}"#;
        assert_eq!(merged("{}", odd).as_deref(), Some(odd));
        assert_eq!(merged(odd, "{}").as_deref(), Some(odd));
    }

    #[test]
    fn null_is_a_value_and_an_object_is_replaced_as_a_whole() {
        assert_eq!(
            merged(r#"{"a":{"b":1},"c":2}"#, r#"{"a":{"d":1},"c":null}"#).as_deref(),
            Some(r#"{"a":{"d":1},"c":null}"#)
        );
    }

    #[test]
    fn a_name_in_two_spellings_is_one_field() {
        assert_eq!(
            merged(r#"{"\u0061":1}"#, r#"{"a":2,"a":3}"#).as_deref(),
            Some(r#"{"a":3}"#)
        );
    }

    #[test]
    fn what_is_no_object_is_not_merged() {
        for (data, fields) in [
            ("{}", "[]"),
            ("1", "{}"),
            ("{}", ""),
            ("{}", "{"),
            ("{}", r#"{"\ud800":1}"#),
            (r#"{"\udc00":1}"#, "{}"),
        ] {
            assert_eq!(merged(data, fields), None, "{data} {fields}");
        }
    }
}
