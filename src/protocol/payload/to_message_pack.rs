//! A payload becomes MessagePack, for subscribers who speak it.
//!
//! Cannot fail: a payload is valid JSON. What MessagePack and Rust's strings cannot hold becomes what JavaScript's own
//! `TextEncoder` and `JSON.parse` make of it: half a surrogate pair U+FFFD, `1e999` infinity.

use crate::model::Payload;
use crate::protocol::packed::{array_head, float, map_head, signed, text, unsigned};

/// Appends the payload in MessagePack. `lens` is scratch memory that can be used again.
///
/// Two passes: MessagePack says how long a container is before its elements, JSON does not say it at all.
pub fn to_message_pack(payload: &Payload, lens: &mut Vec<u32>, out: &mut Vec<u8>) {
    let json = payload.as_bytes();
    lens.clear();
    if json.iter().any(|byte| matches!(byte, b'[' | b'{')) {
        container_lens(json, lens);
    }
    let mut lens = lens.iter().copied();
    let mut rest = json;
    while let Some((&first, tail)) = rest.split_first() {
        rest = match first {
            b'[' => {
                array_head(lens.next().unwrap_or(0), out);
                tail
            }
            b'{' => {
                map_head(lens.next().unwrap_or(0), out);
                tail
            }
            b'"' => string(tail, out),
            b'-' | b'0'..=b'9' => number(rest, out),
            b't' | b'f' | b'n' => word(rest, out),
            _ => tail,
        };
    }
}

/// How many elements or entries each container has, in the order in which they open.
fn container_lens(json: &[u8], lens: &mut Vec<u32>) {
    // The container that is open, its parents, and whether it has an element yet; as deep as the door allows.
    let mut open: Vec<usize> = Vec::with_capacity(super::DEPTH_MAX);
    let mut before = b' ';
    let mut bytes = json.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'[' | b'{' => {
                open.push(lens.len());
                lens.push(0);
            }
            b',' => add_one(&open, lens),
            b']' | b'}' => {
                if !matches!(before, b'[' | b'{') {
                    add_one(&open, lens);
                }
                open.pop();
            }
            b'"' => super::skip_string(&mut bytes),
            b' ' | b'\t' | b'\r' | b'\n' => continue,
            _ => {}
        }
        before = byte;
    }
}

fn add_one(open: &[usize], lens: &mut [u32]) {
    if let Some(len) = open.last().and_then(|&at| lens.get_mut(at)) {
        *len += 1;
    }
}

/// A string, from behind its opening quote; what follows it.
fn string<'a>(json: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
    let mut bytes = json.iter();
    super::skip_string(&mut bytes);
    let rest = bytes.as_slice();
    let quoted = &json[..json.len() - rest.len()];
    let body = quoted.strip_suffix(b"\"").unwrap_or(quoted);
    if body.contains(&b'\\') {
        let mut plain = Vec::with_capacity(body.len());
        unescape(body, &mut plain);
        text(&plain, out);
    } else {
        text(body, out);
    }
    rest
}

fn unescape(mut body: &[u8], out: &mut Vec<u8>) {
    while let Some(at) = body.iter().position(|&byte| byte == b'\\') {
        out.extend_from_slice(&body[..at]);
        let Some((&kind, rest)) = body[at + 1..].split_first() else {
            return;
        };
        body = rest;
        match kind {
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'u' => body = unicode_escape(rest, out),
            same => out.push(same),
        }
    }
    out.extend_from_slice(body);
}

/// A `\u` escape, from behind its `u`; takes the second half of a pair with it. What follows.
fn unicode_escape<'a>(body: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
    let (first, rest) = hex4(body);
    let mut decoded = (char::from_u32(first), rest);
    if let (0xD800..0xDC00, [b'\\', b'u', tail @ ..]) = (first, rest) {
        let (second, rest) = hex4(tail);
        if (0xDC00..0xE000).contains(&second) {
            let scalar = 0x1_0000 + ((first - 0xD800) << 10) + (second - 0xDC00);
            decoded = (char::from_u32(scalar), rest);
        }
    }
    let char = decoded.0.unwrap_or(char::REPLACEMENT_CHARACTER);
    out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
    decoded.1
}

/// Four hexadecimal digits and what follows them.
fn hex4(body: &[u8]) -> (u32, &[u8]) {
    let (digits, rest) = body.split_at(body.len().min(4));
    let value = digits.iter().fold(0, |value, &digit| {
        value << 4 | char::from(digit).to_digit(16).unwrap_or(0)
    });
    (value, rest)
}

/// A number and what follows it.
fn number<'a>(json: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
    let is_part = |byte: &u8| matches!(byte, b'+' | b'-' | b'.' | b'e' | b'E' | b'0'..=b'9');
    let len = json
        .iter()
        .position(|byte| !is_part(byte))
        .unwrap_or(json.len());
    let (digits, rest) = json.split_at(len);
    let digits = std::str::from_utf8(digits).unwrap_or_default();
    if let Ok(value) = digits.parse::<u64>() {
        unsigned(value, out);
    } else if let Ok(value) = digits.parse::<i64>() {
        signed(value, out);
    } else {
        float(digits.parse().unwrap_or_default(), out);
    }
    rest
}

/// `true`, `false` or `null`, and what follows it.
fn word<'a>(json: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
    let (marker, len) = match json.first() {
        Some(b't') => (0xc3, 4),
        Some(b'f') => (0xc2, 5),
        _ => (0xc0, 4),
    };
    out.push(marker);
    &json[json.len().min(len)..]
}
