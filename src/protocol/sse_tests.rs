//! Ids that come back, heads that cannot be broken.

use http::{HeaderValue, header};
use proptest::prelude::*;

use super::*;
use crate::model::ClientId;

fn channels(names: &[&str]) -> Vec<ChannelKey> {
    names
        .iter()
        .map(|name| ChannelKey::new(name).expect("a name"))
        .collect()
}

fn position(bits: u128, offset: u64) -> Position {
    Position::new(Epoch::from_bits(bits), offset)
}

fn claimed(position: Position) -> ClaimedPosition {
    ClaimedPosition {
        epoch: Some(position.epoch),
        offset: position.offset,
    }
}

fn id_of(positions: &[Option<Position>], hash: u64) -> String {
    let mut out = Vec::new();
    event_id(positions, hash, &mut out);
    String::from_utf8(out).expect("text")
}

/// The id inside an id line.
fn bare(line: &str) -> &str {
    line.strip_prefix("id: ")
        .and_then(|line| line.strip_suffix('\n'))
        .expect("an id line")
}

#[test]
fn an_id_of_one_channel_comes_back() {
    let one = channels(&["a"]);
    let here = position(u128::MAX, u64::MAX);
    assert_eq!(
        parse_last_event_id(&here.to_string(), &one),
        Ok(vec![Some(claimed(here))])
    );
}

#[test]
fn an_id_of_32_channels_comes_back_and_fits() {
    let names: Vec<String> = (0..32).map(|index| format!("channel-{index}")).collect();
    let many = channels(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let positions: Vec<_> = (0..32)
        .map(|index| (index != 5).then(|| position(index, u64::MAX)))
        .collect();
    let line = id_of(&positions, channels_hash(&many));
    assert!(line.len() <= ID_BYTES_MAX, "{}", line.len());
    let wanted: Vec<_> = positions
        .iter()
        .map(|position| position.map(claimed))
        .collect();
    assert_eq!(parse_last_event_id(bare(&line), &many), Ok(wanted));
}

#[test]
fn an_id_that_would_be_too_long_is_left_out() {
    assert_eq!(id_of(&[Some(position(1, u64::MAX)); 50], 1), "");
}

#[test]
fn ids_for_other_channels_or_of_other_makers_are_unreadable() {
    let many = channels(&["a", "b"]);
    let line = id_of(&[Some(position(1, 1)), None], channels_hash(&many));
    let id = bare(&line);
    assert!(parse_last_event_id(id, &many).is_ok());
    for (id, names) in [
        (id, &["b", "a"][..]),
        (id, &["a", "b", "c"]),
        (id, &["ab"]),
        (id, &[]),
        (&id.replacen('1', "2", 1), &["a", "b"]),
        (&format!("{id},-"), &["a", "b"]),
        (&id[..id.len() - 2], &["a", "b"]),
        (&format!("{id}x"), &["a", "b"]),
        ("", &["a", "b"]),
        ("1..", &["a", "b"]),
        ("", &["a"]),
        ("42", &["a"]),
        ("AAAAAAAAAAAAAAAAAAAAAQ:+1", &["a"]),
        ("AAAAAAAAAAAAAAAAAAAAAQ:", &["a"]),
        ("AAAAAAAAAAAAAAAAAAAAAQ:-1", &["a"]),
        ("AAAAAAAAAAAAAAAAAAAAAQ:18446744073709551616", &["a"]),
        ("AAAA:1", &["a"]),
        (&"ü".repeat(2000), &["a"]),
    ] {
        assert_eq!(
            parse_last_event_id(id, &channels(names)),
            Err(Unreadable),
            "{id} {names:?}"
        );
    }
}

#[test]
fn the_hash_knows_order_and_borders_and_never_changes() {
    assert_ne!(
        channels_hash(&channels(&["a", "b"])),
        channels_hash(&channels(&["b", "a"]))
    );
    assert_ne!(
        channels_hash(&channels(&["ab", "c"])),
        channels_hash(&channels(&["a", "bc"]))
    );
    // Clients bring ids back to nodes of the next version.
    assert_eq!(channels_hash(&channels(&["a", "b"])), 0xab40_d782_0d40_8076);
}

#[test]
fn the_first_event_says_when_to_come_back() {
    let first = Connected {
        client_id: ClientId::from_bits(7),
        user_id: "a\nb".into(),
        session_id: None,
        gateway_id: "g".into(),
        ping_interval: 25,
        inactivity_timeout: 60,
        expires_in: None,
        channels: vec![(channels(&["a"])[0].clone(), None)],
    };
    let mut out = Vec::new();
    connected(&first, 3000, &mut out);
    let text = String::from_utf8(out).expect("text");
    let data = text
        .strip_prefix("retry: 3000\nevent: connected\ndata: ")
        .expect("an event");
    let json: serde_json::Value =
        serde_json::from_str(data.strip_suffix("\n\n").expect("an end")).expect("JSON");
    assert_eq!(json["type"], "connected");
    assert_eq!(json["user_id"], "a\nb");
    assert_eq!(text.lines().count(), 4);
}

#[test]
fn comments_and_retries_are_no_events() {
    let mut out = Vec::new();
    comment(&mut out);
    retry(10, &mut out);
    assert_eq!(out, b":\n\nretry: 10\n\n");
}

#[test]
fn a_response_head_cannot_be_broken_by_what_is_added() {
    let mut extra = HeaderMap::new();
    extra.insert("x-request-id", HeaderValue::from_static("r1"));
    extra.insert(CONTENT_LENGTH, HeaderValue::from_static("5"));
    extra.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    extra.append(header::VARY, HeaderValue::from_static("origin"));
    extra.append(header::VARY, HeaderValue::from_static("accept"));
    let mut out = Vec::new();
    response_head(&extra, &mut out);
    let text = String::from_utf8(out).expect("text");
    assert_eq!(
        text,
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache, no-transform\r\n\
         x-accel-buffering: no\r\nconnection: close\r\nx-request-id: r1\r\nvary: origin\r\nvary: accept\r\n\r\n"
    );
    assert!(HeaderValue::from_bytes(b"a\r\nset-cookie: b").is_err());
}

proptest! {
    #[test]
    fn any_id_is_read_or_not_but_never_panics(id in "[0-9a-zA-Z:.,_\\-é]{0,120}", count in 0usize..4) {
        let _ = parse_last_event_id(&id, &channels(&["a", "b", "c", "d"][..count]));
    }
}
