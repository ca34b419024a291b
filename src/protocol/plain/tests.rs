//! The plain protocol against the words of its contract, in both formats.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::model::{
    ChannelKey, ClientId, Epoch, ErrorCode, Member, Origin, Payload, Position, Publication,
};
use crate::protocol::payload::{from_json, from_message_pack};
use crate::protocol::{ClaimedPosition, Command, Connected, DecodeError, Request};

const EPOCH: &str = "AAAAAAAAAAAAAAAAAAAAAQ";
const CLIENT: &str = "00000000-0000-0000-0000-000000000007";

fn channel(name: &str) -> ChannelKey {
    ChannelKey::new(name).expect("a name")
}

fn payload(json: &str) -> Payload {
    from_json(json.as_bytes()).expect(json)
}

fn position(offset: u64) -> Position {
    Position::new(Epoch::from_bits(1), offset)
}

fn publication(offset: u64, data: &str, user: Option<&str>) -> Publication {
    Publication {
        offset,
        data: payload(data),
        origin: user.map(|user| Origin {
            client: ClientId::from_bits(7),
            user: Arc::from(user),
        }),
        key: None,
    }
}

/// JSON as it is, and the same message in MessagePack.
fn decode_both(json: &str) -> Result<Request, DecodeError> {
    let from_json = decode_json(json);
    if let Ok(value) = serde_json::from_str::<Value>(json) {
        let packed = rmp_serde::to_vec(&value).expect("MessagePack");
        assert_eq!(decode_message_pack(&packed), from_json, "{json}");
    }
    from_json
}

fn check(json: &str, id: Option<CommandId>, command: Command) {
    assert_eq!(decode_both(json), Ok(Request { id, command }), "{json}");
}

fn check_refused(json: &str, id: Option<CommandId>, message: &str) {
    let wanted = DecodeError {
        id,
        code: ErrorCode::BadRequest,
        message: message.to_owned(),
    };
    assert_eq!(decode_both(json), Err(wanted), "{json}");
}

fn integer(id: i64) -> Option<CommandId> {
    Some(CommandId::Integer(id))
}

#[test]
fn decodes_every_command() {
    let news = || channel("news");
    check(r#"{"type":"ping"}"#, None, Command::Ping);
    check(r#"{"id":-3,"type":"pong"}"#, integer(-3), Command::Pong);
    check(
        r#"{"type":"unsubscribe","channel":"news"}"#,
        None,
        Command::Unsubscribe { channel: news() },
    );
    check(
        r#"{"type":"presence","channel":"news"}"#,
        None,
        Command::Presence { channel: news() },
    );
    check(
        r#"{"type":"refresh","token":"a.b.c","id":"x"}"#,
        Some(CommandId::Text("x".into())),
        Command::Refresh {
            token: "a.b.c".into(),
        },
    );
    check(
        r#"{"type":"update_api_key","key":"k"}"#,
        None,
        Command::UpdateApiKey { key: "k".into() },
    );
    check(
        r#"{"type":"history","channel":"news","limit":4294967295}"#,
        None,
        Command::History {
            channel: news(),
            limit: Some(u32::MAX),
            since: None,
        },
    );
    check(
        r#"{"data":null,"key":"k","channel":"news","type":"publish"}"#,
        None,
        Command::Publish {
            channel: news(),
            data: payload("null"),
            key: Some("k".into()),
        },
    );
    check(
        r#"{"type":"publish","channel":"news","data":{"a":[1,2.5,"\n"]}}"#,
        None,
        Command::Publish {
            channel: news(),
            data: payload(r#"{"a":[1,2.5,"\n"]}"#),
            key: None,
        },
    );
}

#[test]
fn decodes_positions_and_takes_a_strange_epoch_for_an_unknown_one() {
    for (epoch, wanted) in [
        (json!(EPOCH), Some(Epoch::from_bits(1))),
        (json!(""), None),
        (json!("of another hub"), None),
        (Value::Null, None),
    ] {
        let recover = json!({"epoch": epoch, "offset": u64::MAX});
        let message =
            json!({"type": "subscribe", "channel": "a", "recover": recover, "presence": true});
        check(
            &message.to_string(),
            None,
            Command::Subscribe {
                channel: channel("a"),
                recover: Some(ClaimedPosition {
                    epoch: wanted,
                    offset: u64::MAX,
                }),
                presence: true,
            },
        );
    }
    let without = Command::Subscribe {
        channel: channel("a"),
        recover: None,
        presence: false,
    };
    check(
        r#"{"type":"subscribe","channel":"a"}"#,
        None,
        without.clone(),
    );
    check(
        r#"{"type":"subscribe","channel":"a","recover":null,"presence":null,"id":null}"#,
        None,
        without,
    );
}

#[test]
fn ignores_fields_that_nobody_reads_however_deep() {
    let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
    check(
        &format!(r#"{{"x":{deep},"type":"ping","t\u0079pe2":{{}}}}"#),
        None,
        Command::Ping,
    );
    check(r#"{"t\u0079pe":"p\u0069ng"}"#, None, Command::Ping);
    check(r#"{"type":"x","type":"ping"}"#, None, Command::Ping);
}

#[test]
fn an_unknown_type_is_a_command_of_its_own() {
    check(
        r#"{"type":"chat_message"}"#,
        None,
        Command::Unknown {
            kind: "chat_message".into(),
        },
    );
    let long = format!("{}ä", "x".repeat(63));
    check(
        &json!({ "type": long }).to_string(),
        None,
        Command::Unknown {
            kind: "x".repeat(63).into(),
        },
    );
}

#[test]
fn names_what_is_wrong_and_gives_the_id_back() {
    check_refused("{}", None, "Missing message type");
    check_refused(
        r#"{"type":null,"id":5}"#,
        integer(5),
        "Missing message type",
    );
    check_refused(r#"{"type":1,"id":5}"#, integer(5), "type must be a string");
    check_refused(
        r#"{"type":"subscribe","id":5}"#,
        integer(5),
        "channel is missing",
    );
    check_refused(
        r#"{"type":"subscribe","channel":7}"#,
        None,
        "channel must be a string",
    );
    check_refused(
        r#"{"type":"subscribe","channel":""}"#,
        None,
        "channel name is empty",
    );
    check_refused(
        &json!({"type": "subscribe", "channel": "x".repeat(256)}).to_string(),
        None,
        "channel name has 256 bytes, at most 255 are allowed",
    );
    check_refused(
        r#"{"type":"presence","channel":"~own"}"#,
        None,
        "channel names that begin with ~ are reserved",
    );
    check_refused(
        r#"{"type":"subscribe","channel":"a","presence":1}"#,
        None,
        "presence must be true or false",
    );
}

#[test]
fn names_what_is_wrong_in_positions_and_limits() {
    check_refused(
        r#"{"type":"subscribe","channel":"a","recover":1}"#,
        None,
        "recover must be an object",
    );
    check_refused(
        r#"{"type":"subscribe","channel":"a","recover":{}}"#,
        None,
        "recover.epoch is missing",
    );
    check_refused(
        r#"{"type":"subscribe","channel":"a","recover":{"epoch":1}}"#,
        None,
        "recover.epoch must be a string",
    );
    check_refused(
        r#"{"type":"history","channel":"a","since":{"epoch":""}}"#,
        None,
        "since.offset is missing",
    );
    for offset in ["-1", "1.5", "\"1\"", "18446744073709551616"] {
        let json = format!(
            r#"{{"type":"history","channel":"a","since":{{"epoch":"","offset":{offset}}}}}"#
        );
        check_refused(
            &json,
            None,
            "since.offset must be an integer from 0 to 18446744073709551615",
        );
    }
    for limit in ["-1", "4294967296", "true"] {
        let json = format!(r#"{{"type":"history","channel":"a","limit":{limit}}}"#);
        check_refused(&json, None, "limit must be an integer from 0 to 4294967295");
    }
}

#[test]
fn names_what_is_wrong_in_data_keys_and_ids() {
    check_refused(
        r#"{"type":"publish","channel":"a"}"#,
        None,
        "data is missing",
    );
    check_refused(
        &json!({"type": "publish", "channel": "a", "data": 1, "key": "x".repeat(256)}).to_string(),
        None,
        "key must be a string of at most 255 bytes",
    );
    check_refused(r#"{"type":"refresh"}"#, None, "token is missing");
    check_refused(
        r#"{"type":"update_api_key","key":[]}"#,
        None,
        "key must be a string",
    );
    for id in [
        json!({}),
        json!(1.5),
        json!(true),
        json!(u64::MAX),
        json!("x".repeat(65)),
    ] {
        let json = json!({"type": "ping", "id": id}).to_string();
        check_refused(
            &json,
            None,
            "id must be a 64-bit integer or a string of at most 64 bytes",
        );
    }
}

#[test]
fn what_is_no_object_is_no_message() {
    for json in [
        "",
        "{",
        "not json",
        "{\"type\":\"ping\"} x",
        "{'type':'ping'}",
        "{\"type\":}",
    ] {
        let fault = decode_json(json).expect_err(json);
        assert_eq!(fault.message, "Invalid JSON", "{json}");
    }
    for json in ["1", "null", "[]", "\"ping\"", "[{\"type\":\"ping\"}]"] {
        let fault = decode_json(json).expect_err(json);
        assert_eq!(
            fault.message, "Invalid JSON: a message must be an object",
            "{json}"
        );
    }
    let fault = decode_message_pack(b"\x93\x01\x02\x03").expect_err("a list");
    assert_eq!(
        fault.message,
        "Invalid MessagePack: a message must be a map"
    );
    for bytes in [
        &b""[..],
        b"\x81",
        b"\x81\xa4type",
        b"\xdf\xff\xff\xff\xff",
        b"\x80\x80",
        b"\xc1",
    ] {
        let fault = decode_message_pack(bytes).expect_err("broken");
        assert_eq!(fault.message, "Invalid MessagePack", "{bytes:?}");
    }
}

#[test]
fn data_that_nests_too_deep_is_refused_in_both_formats() {
    for depth in [65, 10_000] {
        let nested = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let fault = decode_json(&format!(
            r#"{{"id":1,"type":"publish","channel":"a","data":{nested}}}"#
        ));
        let fault = fault.expect_err("too deep");
        assert_eq!(
            (fault.id, &*fault.message),
            (integer(1), "data: nested deeper than 64")
        );
        let mut packed = b"\x83\xa4type\xa7publish\xa7channel\xa1a\xa4data".to_vec();
        packed.extend(vec![0x91; depth - 1]);
        packed.push(0x90);
        let fault = decode_message_pack(&packed).expect_err("too deep");
        assert_eq!(fault.message, "data: nested deeper than 64");
    }
    let fault =
        decode_message_pack(b"\x83\xa4type\xa7publish\xa7channel\xa1a\xa4data\x81\xa1k\xc4\x00");
    assert_eq!(
        fault.expect_err("binary").message,
        "data: binary data has no JSON form at .k"
    );
}

#[test]
fn takes_whole_doubles_for_integers_as_javascript_encoders_write_them() {
    let since = |offset: f64| {
        let mut bytes =
            b"\x83\xa4type\xa7history\xa7channel\xa1a\xa5since\x82\xa5epoch\xa0\xa6offset\xcb"
                .to_vec();
        bytes.extend_from_slice(&offset.to_be_bytes());
        decode_message_pack(&bytes)
    };
    let request = since(5e9).expect("whole");
    let Command::History {
        since: Some(claimed),
        ..
    } = request.command
    else {
        panic!("{request:?}");
    };
    assert_eq!(claimed.offset, 5_000_000_000);
    for offset in [1.5, -1.0, f64::NAN, f64::INFINITY, 1e300] {
        assert!(since(offset).is_err(), "{offset}");
    }
}

/// The payload of the one whole frame that these bytes are.
fn unframed(bytes: &[u8], head: u8) -> &[u8] {
    assert_eq!(bytes[0], head);
    let (len, payload) = match bytes[1] {
        126 => (
            usize::from(u16::from_be_bytes([bytes[2], bytes[3]])),
            &bytes[4..],
        ),
        len => (usize::from(len), &bytes[2..]),
    };
    assert_eq!(payload.len(), len);
    payload
}

/// Encodes in both formats; the JSON is compared letter by letter, the MessagePack by what it says.
fn check_encoded(encode: impl Fn(WireFormat, &mut Vec<u8>), wanted: &str) {
    let mut out = Vec::new();
    encode(WireFormat::Json, &mut out);
    assert_eq!(std::str::from_utf8(unframed(&out, 0x81)), Ok(wanted));
    out.clear();
    encode(WireFormat::MessagePack, &mut out);
    let packed: Value = rmp_serde::from_slice(unframed(&out, 0x82)).expect("MessagePack");
    assert_eq!(packed, serde_json::from_str::<Value>(wanted).expect("JSON"));
    out.clear();
    encode(WireFormat::Sse, &mut out);
    encode(WireFormat::SseMany, &mut out);
    assert!(out.is_empty());
}

fn check_reply(reply: &Reply, wanted: &str) {
    check_encoded(|format, out| encode_reply(format, reply, None, out), wanted);
}

fn check_push(push: &Push, wanted: &str) {
    check_encoded(|format, out| encode_push(format, push, out), wanted);
}

#[test]
fn encodes_the_small_replies() {
    let news = || channel("news");
    check_reply(
        &Reply::Subscribed {
            channel: news(),
            position: Some(position(5)),
            recovered: Some(true),
        },
        &format!(
            r#"{{"type":"subscribed","channel":"news","epoch":"{EPOCH}","offset":5,"recovered":true}}"#
        ),
    );
    check_reply(
        &Reply::Subscribed {
            channel: news(),
            position: None,
            recovered: None,
        },
        r#"{"type":"subscribed","channel":"news"}"#,
    );
    check_reply(
        &Reply::Unsubscribed { channel: news() },
        r#"{"type":"unsubscribed","channel":"news"}"#,
    );
    check_reply(
        &Reply::Published {
            channel: news(),
            position: Some(position(u64::MAX)),
        },
        &format!(
            r#"{{"type":"published","channel":"news","epoch":"{EPOCH}","offset":18446744073709551615}}"#
        ),
    );
    check_reply(
        &Reply::Pong { timestamp: 1.5 },
        r#"{"type":"pong","timestamp":1.5}"#,
    );
    check_reply(
        &Reply::Refreshed {
            expires_in: Some(60),
        },
        r#"{"type":"refreshed","expires_in":60}"#,
    );
    check_reply(
        &Reply::ApiKeyUpdated {
            api_key: "k\"".into(),
            session_id: None,
            gateway_id: "g".into(),
        },
        r#"{"type":"ack","message":"API key update acknowledged","api_key":"k\"","data":null,"session_id":null,"gateway_id":"g"}"#,
    );
    check_reply(
        &Reply::Error {
            code: ErrorCode::Forbidden,
            message: "no\n".to_owned(),
        },
        r#"{"type":"error","code":"forbidden","message":"no\n"}"#,
    );
}

#[test]
fn gives_the_id_back() {
    for (id, wanted) in [
        (CommandId::Integer(i64::MIN), "-9223372036854775808"),
        (CommandId::Text("a\"b".into()), r#""a\"b""#),
    ] {
        let reply = Reply::Unsubscribed {
            channel: channel("a"),
        };
        check_encoded(
            |format, out| encode_reply(format, &reply, Some(&id), out),
            &format!(r#"{{"type":"unsubscribed","id":{wanted},"channel":"a"}}"#),
        );
    }
}

#[test]
fn encodes_history_and_presence() {
    let publications = vec![
        Arc::new(publication(1, r#"{"a":1}"#, None)),
        Arc::new(publication(2, "[ ]", Some("ann"))),
    ];
    check_reply(
        &Reply::History {
            channel: channel("a"),
            publications,
            position: position(2),
            more: true,
        },
        &format!(
            r#"{{"type":"history","channel":"a","publications":[{{"data":{{"a":1}},"offset":1}},{{"data":[ ],"offset":2,"from":{{"client":"{CLIENT}","user":"ann"}}}}],"epoch":"{EPOCH}","offset":2,"more":true}}"#
        ),
    );
    let member = |bits, info: Option<&str>| {
        Arc::new(Member {
            client: ClientId::from_bits(bits),
            user: Arc::from("ü\u{1}"),
            info: info.map(payload),
        })
    };
    let members: Vec<_> = (0..40).map(|bits| member(bits, Some("[1]"))).collect();
    let mut out = Vec::new();
    let reply = Reply::Presence {
        channel: channel("a"),
        members,
        clients: 90,
        users: 1,
        more: true,
    };
    encode_reply(WireFormat::MessagePack, &reply, None, &mut out);
    let packed: Value = rmp_serde::from_slice(unframed(&out, 0x82)).expect("MessagePack");
    assert_eq!(
        packed["clients"].as_object().map(serde_json::Map::len),
        Some(40)
    );
    check_reply(
        &Reply::Presence {
            channel: channel("a"),
            members: vec![member(7, None)],
            clients: 1,
            users: 1,
            more: false,
        },
        &format!(
            r#"{{"type":"presence","channel":"a","clients":{{"{CLIENT}":{{"user":"ü\u0001","info":null}}}},"count":1,"users":1}}"#
        ),
    );
}

#[test]
fn encodes_pushes() {
    check_push(&Push::Ping, r#"{"type":"ping"}"#);
    check_push(
        &Push::Gap {
            channel: channel("a"),
            dropped: None,
            position: None,
        },
        r#"{"type":"gap","channel":"a","dropped":null}"#,
    );
    check_push(
        &Push::Unsubscribed {
            channel: channel("a"),
            code: 2500,
            reason: "by the API",
        },
        r#"{"type":"unsubscribed","channel":"a","code":2500,"reason":"by the API"}"#,
    );
    check_push(
        &Push::Publication {
            channel: channel("a"),
            publication: Arc::new(publication(0, "1", None)),
        },
        r#"{"type":"publication","channel":"a","data":1}"#,
    );
    let mut connected = Connected {
        client_id: ClientId::from_bits(7),
        user_id: "u".into(),
        session_id: Some("s".into()),
        gateway_id: "g".into(),
        ping_interval: 25,
        inactivity_timeout: 60,
        expires_in: None,
        channels: Vec::new(),
    };
    let head = format!(
        r#"{{"type":"connected","message":"WebSocket connection established","client_id":"{CLIENT}","user_id":"u","session_id":"s","gateway_id":"g","ping_interval":25,"inactivity_timeout":60"#
    );
    check_push(
        &Push::Connected(Box::new(connected.clone())),
        &format!("{head}}}"),
    );
    connected.expires_in = Some(9);
    connected.channels = vec![(channel("a"), Some(position(3))), (channel("b"), None)];
    check_push(
        &Push::Connected(Box::new(connected)),
        &format!(
            r#"{head},"expires_in":9,"channels":{{"a":{{"epoch":"{EPOCH}","offset":3}},"b":null}}}}"#
        ),
    );
}

proptest! {
    #[test]
    fn decoders_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), text in any::<String>()) {
        let _ = decode_message_pack(&bytes);
        let _ = decode_json(&text);
        let _ = decode_json(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn messages_of_any_shape_decode_alike_in_both_formats(
        kind in prop_oneof![Just("subscribe"), Just("publish"), Just("history"), Just("refresh"), Just("x")],
        fields in prop::collection::btree_map(
            prop_oneof![Just("id"), Just("channel"), Just("recover"), Just("limit"), Just("key"), Just("token"), Just("other")],
            crate::protocol::payload::tests::any_json(),
            0..5,
        ),
    ) {
        let mut message = json!({ "type": kind, "data": 1 });
        for (name, value) in fields {
            message[name] = value;
        }
        // Doubles differ by design: `1.0` is an integer in MessagePack alone.
        prop_assume!(!message.to_string().contains(".0"));
        let _ = decode_both(&message.to_string());
    }

    #[test]
    fn replies_with_any_text_are_whole_frames_of_either_format(
        user in any::<String>(),
        data in crate::protocol::payload::tests::any_json(),
        offset in 1u64..,
    ) {
        let publication = Arc::new(publication(offset, &data.to_string(), Some(&user)));
        let push = Push::Publication { channel: channel("a"), publication };
        let wanted = json!({
            "type": "publication", "channel": "a", "data": data, "offset": offset,
            "from": {"client": CLIENT, "user": user},
        });
        let mut out = Vec::new();
        encode_push(WireFormat::Json, &push, &mut out);
        let header = if out[1] == 127 { 10 } else if out[1] == 126 { 4 } else { 2 };
        prop_assert_eq!(&serde_json::from_slice::<Value>(&out[header..]).expect("JSON"), &wanted);
        out.clear();
        encode_push(WireFormat::MessagePack, &push, &mut out);
        let header = if out[1] == 127 { 10 } else if out[1] == 126 { 4 } else { 2 };
        prop_assert_eq!(&rmp_serde::from_slice::<Value>(&out[header..]).expect("MessagePack"), &wanted);
        prop_assert!(from_message_pack(&out[header..]).is_ok());
    }
}
