//! The shared frames of every format, letter by letter.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::model::{ClientId, Origin};
use crate::protocol::payload::from_json;

const EPOCH: &str = "AAAAAAAAAAAAAAAAAAAAAQ";

fn channel() -> ChannelKey {
    ChannelKey::new("$a@b#c").expect("a name")
}

fn publication(offset: u64) -> Publication {
    Publication {
        offset,
        data: from_json(b"{\"a\":\r\n[1]}").expect("valid"),
        origin: Some(Origin {
            client: ClientId::from_bits(7),
            user: Arc::from("a\"\n"),
        }),
        key: None,
    }
}

fn encoded(format: WireFormat, offset: u64, epoch: Option<u128>, first: bool) -> Vec<u8> {
    let mut out = Vec::new();
    let epoch = epoch.map(Epoch::from_bits);
    Encoder::default().publication(
        format,
        &channel(),
        &publication(offset),
        epoch,
        first,
        &mut out,
    );
    out
}

fn check(format: WireFormat, offset: u64, epoch: Option<u128>, first: bool, wanted: &str) {
    let out = encoded(format, offset, epoch, first);
    assert_eq!(String::from_utf8_lossy(&out), wanted);
}

#[test]
fn encodes_a_publication_in_json() {
    let from = r#""from":{"client":"00000000-0000-0000-0000-000000000007","user":"a\"\n"}"#;
    let check = |offset, epoch, first, tail: &str| {
        let out = encoded(WireFormat::Json, offset, epoch, first);
        assert_eq!(
            (out[0], out[1], usize::from(out[3])),
            (0x81, 126, out.len() - 4)
        );
        let wanted =
            format!(r#"{{"type":"publication","channel":"$a@b#c","data":{{"a":[1]}}{tail}}}"#);
        assert_eq!(String::from_utf8_lossy(&out[4..]), wanted);
    };
    check(3, Some(1), false, &format!(r#","offset":3,{from}"#));
    check(
        3,
        Some(1),
        true,
        &format!(r#","offset":3,{from},"epoch":"{EPOCH}""#),
    );
    check(0, None, true, &format!(",{from}"));
}

#[test]
fn encodes_a_publication_in_message_pack() {
    let out = encoded(WireFormat::MessagePack, 3, Some(1), true);
    assert_eq!(
        (out[0], out[1], usize::from(out[3])),
        (0x82, 126, out.len() - 4)
    );
    let packed: Value = rmp_serde::from_slice(&out[4..]).expect("MessagePack");
    let wanted = json!({
        "type": "publication", "channel": "$a@b#c", "data": {"a": [1]}, "offset": 3, "epoch": EPOCH,
        "from": {"client": "00000000-0000-0000-0000-000000000007", "user": "a\"\n"},
    });
    assert_eq!(packed, wanted);
}

#[test]
fn encodes_a_publication_as_an_event() {
    let data = r#"data: {"channel":"$a@b#c","data":{"a":[1]}"#;
    let one = format!("id: {EPOCH}:3\n{data},\"offset\":3}}\n\n");
    check(WireFormat::Sse, 3, Some(1), true, &one);
    check(WireFormat::Sse, 3, Some(1), false, &one);
    check(WireFormat::Sse, 0, None, true, &format!("{data}}}\n\n"));
    check(
        WireFormat::SseMany,
        3,
        Some(1),
        true,
        &format!("{data},\"offset\":3}}\n\n"),
    );
}

#[test]
fn encodes_gaps() {
    let gap = |format, position| {
        let mut out = Vec::new();
        Encoder::default().gap(format, &channel(), Some(2), position, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    };
    let position = Some(Position::new(Epoch::from_bits(1), 9));
    let json =
        format!(r#"{{"type":"gap","channel":"$a@b#c","dropped":2,"epoch":"{EPOCH}","offset":9}}"#);
    assert!(gap(WireFormat::Json, position).ends_with(&json));
    assert_eq!(
        gap(WireFormat::Sse, position),
        format!("id: {EPOCH}:9\nevent: gap\ndata: {json}\n\n")
    );
    assert_eq!(
        gap(WireFormat::SseMany, position),
        format!("event: gap\ndata: {json}\n\n")
    );
    let without = "event: gap\ndata: {\"type\":\"gap\",\"channel\":\"$a@b#c\",\"dropped\":2}\n\n";
    assert_eq!(gap(WireFormat::Sse, None), without);
}

#[test]
fn encodes_join_and_leave_for_sockets_alone() {
    let member = Member {
        client: ClientId::from_bits(7),
        user: Arc::from("ann"),
        info: None,
    };
    let mut out = Vec::new();
    let mut encoder = Encoder::default();
    encoder.join(WireFormat::Sse, &channel(), &member, &mut out);
    encoder.leave(WireFormat::SseMany, &channel(), &member, &mut out);
    assert!(out.is_empty());
    encoder.leave(WireFormat::MessagePack, &channel(), &member, &mut out);
    let mut wanted = json!({"channel": "$a@b#c", "client": "00000000-0000-0000-0000-000000000007", "user": "ann"});
    wanted["type"] = json!("leave");
    assert_eq!(
        rmp_serde::from_slice::<Value>(&out[2..]).expect("MessagePack"),
        wanted
    );
    out.clear();
    encoder.join(WireFormat::Json, &channel(), &member, &mut out);
    wanted["type"] = json!("join");
    assert_eq!(
        serde_json::from_slice::<Value>(&out[2..]).expect("JSON"),
        wanted
    );
}

#[test]
fn frames_follow_one_another_in_one_buffer() {
    let mut out = encoded(WireFormat::Json, 1, None, false);
    let second = encoded(WireFormat::MessagePack, 2, None, false);
    let first = out.clone();
    Encoder::default().publication(
        WireFormat::MessagePack,
        &channel(),
        &publication(2),
        None,
        false,
        &mut out,
    );
    assert_eq!(out, [first, second].concat());
}
