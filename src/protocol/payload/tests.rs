//! What passes the door, and what does not.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::protocol::packed::Cursor;

fn check(json: &str, wanted: &str) {
    let payload = from_json(json.as_bytes()).expect(json);
    assert_eq!(std::str::from_utf8(payload.as_bytes()), Ok(wanted));
}

fn check_packed(bytes: &[u8], wanted: &str) {
    let payload = from_message_pack(bytes).expect(wanted);
    assert_eq!(std::str::from_utf8(payload.as_bytes()), Ok(wanted));
}

fn check_refused(bytes: &[u8], message: &str) {
    let fault = from_message_pack(bytes).expect_err(message);
    assert_eq!(fault.to_string(), message);
}

fn nested(depth: usize) -> String {
    format!("{}{}", "[".repeat(depth), "]".repeat(depth))
}

fn packed(payload: &Payload) -> Vec<u8> {
    let mut out = Vec::new();
    to_message_pack(payload, &mut Vec::new(), &mut out);
    out
}

#[test]
fn json_passes_on_one_line() {
    check(" {\"a\" : 1}\n", r#"{"a" : 1}"#);
    check("[1,\r\n 2,\n\t\"a\\nb\"]", "[1, 2,\t\"a\\nb\"]");
    check("null", "null");
    check(r#""\ud800 is half a pair""#, r#""\ud800 is half a pair""#);
}

#[test]
fn what_is_no_json_is_refused_with_the_place() {
    for json in [
        "", "{", "{'a':1}", "[1,]", "01", "nul", "1 2", "\"a\nb\"", "\"\\x\"", "NaN",
    ] {
        let fault = from_json(json.as_bytes()).expect_err(json);
        assert!(
            matches!(fault, PayloadError::NotJson { .. }),
            "{json}: {fault}"
        );
    }
    let fault = from_json(b"{\n \"a\": x}").expect_err("no value");
    assert_eq!(fault.to_string(), "not valid JSON at line 2 column 7");
    assert_eq!(from_json(b"\"\xFF\""), Err(PayloadError::NotUtf8(1)));
}

#[test]
fn depth_64_passes_and_65_does_not() {
    check(&nested(64), &nested(64));
    assert_eq!(from_json(nested(65).as_bytes()), Err(PayloadError::TooDeep));
    assert_eq!(
        from_json(nested(1_000_000).as_bytes()),
        Err(PayloadError::TooDeep)
    );
    let wide = format!("[{}]", vec!["[]"; 1000].join(","));
    check(&wide, &wide);
    let brackets_in_text = format!("\"{}\\\"{}\"", "[".repeat(99), "{".repeat(99));
    check(&brackets_in_text, &brackets_in_text);
}

#[test]
fn message_pack_depth_64_passes_and_10_000_does_not_overflow_the_stack() {
    let nested = |depth: usize| [&vec![0x91; depth - 1][..], &[0x90]].concat();
    assert!(from_message_pack(&nested(64)).is_ok());
    assert_eq!(from_message_pack(&nested(65)), Err(PayloadError::TooDeep));
    assert_eq!(
        from_message_pack(&nested(10_000)),
        Err(PayloadError::TooDeep)
    );
    assert!(Cursor::new(&nested(1_000_000)).value().is_ok());
}

#[test]
fn message_pack_becomes_json() {
    check_packed(
        b"\x83\xa1a\x01\xa1b\xc0\xa1c\x93\xc3\xff\xcb\x3f\xf8\0\0\0\0\0\0",
        r#"{"a":1,"b":null,"c":[true,-1,1.5]}"#,
    );
    check_packed(b"\xa3a\"\n", r#""a\"\n""#);
    check_packed(
        b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
        "18446744073709551615",
    );
    check_packed(b"\xca\x3d\xcc\xcc\xcd", "0.1");
}

#[test]
fn what_json_cannot_say_is_refused_with_the_place() {
    check_refused(
        b"\x81\xa5items\x92\x01\xc4\x01x",
        "binary data has no JSON form at .items[1]",
    );
    check_refused(b"\xd4\x00\x00", "an extension type has no JSON form");
    check_refused(
        b"\x91\xcb\x7f\xf8\0\0\0\0\0\0",
        "a number that is not finite has no JSON form at [0]",
    );
    check_refused(
        b"\x91\xca\x7f\x80\0\0",
        "a number that is not finite has no JSON form at [0]",
    );
    check_refused(b"\x91\x81\x01\x02", "a map key that is not a string at [0]");
    check_refused(b"\xa1\xff", "a string that is not UTF-8");
    check_refused(b"\xc1", "a MessagePack marker that is never used");
    check_refused(b"\x01\x02", "bytes follow the MessagePack value");
}

#[test]
fn declared_lengths_are_not_believed() {
    for head in [0xdb, 0xc6, 0xc9, 0xdd, 0xdf] {
        let bytes = [head, 0xff, 0xff, 0xff, 0xff, 0xa1];
        assert!(from_message_pack(&bytes).is_err(), "{head:#x}");
        assert!(Cursor::new(&bytes).value().is_err(), "{head:#x}");
    }
    check_refused(b"", "MessagePack is cut off");
    check_refused(b"\xdd\xff\xff\xff\xff\x01", "MessagePack is cut off at [1]");
}

#[test]
fn what_message_pack_cannot_hold_still_transcodes() {
    let payload =
        from_json(br#"["\ud83c\udfba","\ud800","\ud800\u0041",1e999,-0,[ ],{ }]"#).expect("valid");
    let wanted = b"\x97\xa4\xf0\x9f\x8e\xba\xa3\xef\xbf\xbd\xa4\xef\xbf\xbdA\xcb\x7f\xf0\0\0\0\0\0\0\x00\x90\x80";
    assert_eq!(packed(&payload), wanted);
}

/// Any JSON value, not deep.
pub(crate) fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i32>().prop_map(|value| Value::from(f64::from(value) / 16.0)),
        any::<String>().prop_map(Value::from),
        "[a-z]{30,34}".prop_map(Value::from),
        "[a-z]{250,260}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 60, 18, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..18).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..18).prop_map(|map| json!(map)),
        ]
    })
}

proptest! {
    #[test]
    fn json_and_message_pack_say_the_same(value in any_json(), pretty: bool) {
        let json = match pretty {
            true => serde_json::to_string_pretty(&value),
            false => serde_json::to_string(&value),
        }.expect("a value");
        let payload = from_json(json.as_bytes()).expect("valid");
        prop_assert!(!payload.as_bytes().contains(&b'\n'));
        prop_assert_eq!(&serde_json::from_slice::<Value>(payload.as_bytes()).expect("JSON"), &value);
        let packed = packed(&payload);
        prop_assert_eq!(&rmp_serde::from_slice::<Value>(&packed).expect("MessagePack"), &value);
        prop_assert_eq!(Cursor::new(&packed).value(), Ok(&*packed));
        let back = from_message_pack(&packed).expect("valid");
        prop_assert_eq!(&serde_json::from_slice::<Value>(back.as_bytes()).expect("JSON"), &value);
    }

    #[test]
    fn any_bytes_pass_as_json_or_not_at_all(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for payload in [from_message_pack(&bytes), from_json(&bytes)].into_iter().flatten() {
            let one_line = !payload.as_bytes().iter().any(|&byte| is_line_end(byte));
            prop_assert!(one_line && from_json(payload.as_bytes()).is_ok());
            rmp_serde::from_slice::<serde::de::IgnoredAny>(&packed(&payload)).expect("MessagePack");
        }
    }
}
