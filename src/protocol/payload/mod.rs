//! The door: what is published becomes a [`Payload`] here, one JSON value on one line and not too deep, or is refused.
//!
//! Behind it nobody parses a payload again. The other way, [`to_message_pack`], cannot fail.

mod from_message_pack;
mod to_message_pack;

pub use from_message_pack::from_message_pack;
pub use to_message_pack::to_message_pack;

use serde_json::value::RawValue;

pub use super::packed::MessagePackFault;
use crate::model::Payload;

/// How deep arrays and objects may nest.
pub const DEPTH_MAX: usize = 64;

/// Why data cannot be published. The text is what the publisher is told, behind the name of the field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// No JSON text (RFC 8259), and where that shows: line and column, from 1.
    #[error("not valid JSON at line {line} column {column}")]
    NotJson {
        /// The line.
        line: usize,
        /// The column.
        column: usize,
    },
    /// Not UTF-8, from this byte on.
    #[error("not valid UTF-8 at byte {0}")]
    NotUtf8(usize),
    /// Over [`DEPTH_MAX`].
    #[error("nested deeper than {DEPTH_MAX}")]
    TooDeep,
    /// No MessagePack, or MessagePack that JSON cannot say.
    #[error("{what}{}{path}", if path.is_empty() { "" } else { " at " })]
    MessagePack {
        /// What was found.
        what: MessagePackFault,
        /// Where, as in `.items[3].price`; empty at the top.
        path: String,
    },
}

impl PayloadError {
    fn message_pack(what: MessagePackFault) -> Self {
        Self::MessagePack {
            what,
            path: String::new(),
        }
    }
}

/// The payload of a JSON text, space around it allowed.
///
/// # Errors
/// When it is no UTF-8, no JSON, or nested too deep.
pub fn from_json(json: &[u8]) -> Result<Payload, PayloadError> {
    let text =
        std::str::from_utf8(json).map_err(|fault| PayloadError::NotUtf8(fault.valid_up_to()))?;
    let raw: &RawValue = serde_json::from_str(text).map_err(|fault| PayloadError::NotJson {
        line: fault.line(),
        column: fault.column(),
    })?;
    from_raw(raw)
}

/// The payload of a JSON value that serde has seen already: copied once, without CR and LF.
///
/// # Errors
/// When it is nested too deep.
pub fn from_raw(raw: &RawValue) -> Result<Payload, PayloadError> {
    from_valid_json(raw.get())
}

/// The same for text that is known to be one JSON value.
pub(super) fn from_valid_json(json: &str) -> Result<Payload, PayloadError> {
    let json = json.as_bytes();
    check_depth(json)?;
    // Raw control characters are no JSON inside strings, so every CR and LF here stands between tokens.
    if count(json, is_line_end) > 0 {
        let one_line: Vec<u8> = json
            .iter()
            .copied()
            .filter(|&byte| !is_line_end(byte))
            .collect();
        return Ok(Payload::from_plain_json(one_line));
    }
    Ok(Payload::from_plain_json(bytes::Bytes::copy_from_slice(
        json,
    )))
}

#[inline]
const fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

/// How many bytes are such. Without branches, and in parts whose counts fit into a byte: so many bytes are looked at in one step.
fn count(json: &[u8], is_such: impl Fn(u8) -> bool) -> usize {
    let parts = json.chunks(usize::from(u8::MAX));
    let counts = parts.map(|part| part.iter().map(|&byte| u8::from(is_such(byte))).sum::<u8>());
    counts.map(usize::from).sum()
}

/// Refuses valid JSON that nests deeper than [`DEPTH_MAX`].
fn check_depth(json: &[u8]) -> Result<(), PayloadError> {
    // Most payloads have fewer brackets than that in all.
    let openers = count(json, |byte| matches!(byte, b'[' | b'{'));
    if openers <= DEPTH_MAX || depth(json) <= DEPTH_MAX {
        Ok(())
    } else {
        Err(PayloadError::TooDeep)
    }
}

/// How deep valid JSON nests: 0 for a scalar.
fn depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0usize, 0);
    let mut bytes = json.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => skip_string(&mut bytes),
            _ => {}
        }
    }
    deepest
}

/// Moves behind the closing quote of a string.
fn skip_string(bytes: &mut std::slice::Iter<'_, u8>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => _ = bytes.next(),
            b'"' => return,
            _ => {}
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
