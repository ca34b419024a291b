//! MessagePack becomes JSON, where JSON can say it.

use super::{DEPTH_MAX, PayloadError};
use crate::model::Payload;
use crate::protocol::json_text;
use crate::protocol::packed::{Cursor, Head, MessagePackFault};

/// The payload of one MessagePack value. What a header declares is never trusted: memory grows with what is there.
///
/// # Errors
/// When the bytes are not one whole value, when JSON cannot say it, or when it is nested too deep. Names the place.
pub fn from_message_pack(bytes: &[u8]) -> Result<Payload, PayloadError> {
    let mut transcoder = Transcoder {
        input: Cursor::new(bytes),
        out: Vec::with_capacity(bytes.len() + bytes.len() / 4),
    };
    transcoder.value(0)?;
    match transcoder.input.rest() {
        [] => Ok(Payload::from_plain_json(transcoder.out)),
        _ => Err(PayloadError::message_pack(MessagePackFault::Trailing)),
    }
}

struct Transcoder<'a> {
    input: Cursor<'a>,
    out: Vec<u8>,
}

impl<'a> Transcoder<'a> {
    /// One value inside `depth` arrays and maps. Recursion ends at [`DEPTH_MAX`].
    fn value(&mut self, depth: usize) -> Result<(), PayloadError> {
        match self.input.head().map_err(PayloadError::message_pack)? {
            Head::Array(_) | Head::Map(_) if depth == DEPTH_MAX => Err(PayloadError::TooDeep),
            Head::Array(len) => self.array(len, depth),
            Head::Map(len) => self.map(len, depth),
            head => self.scalar(&head).map_err(PayloadError::message_pack),
        }
    }

    fn scalar(&mut self, head: &Head) -> Result<(), MessagePackFault> {
        match *head {
            Head::Bool(true) => self.out.extend_from_slice(b"true"),
            Head::Bool(false) => self.out.extend_from_slice(b"false"),
            Head::Unsigned(value) => json_text::unsigned(value, &mut self.out),
            Head::Signed(value) => json_text::signed(value, &mut self.out),
            Head::Float32(value) if value.is_finite() => json_text::float32(value, &mut self.out),
            Head::Float64(value) if value.is_finite() => json_text::float(value, &mut self.out),
            Head::Float32(_) | Head::Float64(_) => return Err(MessagePackFault::NotFinite),
            Head::Text(len) => {
                let text = self.input.text(len)?;
                json_text::string(text, &mut self.out);
            }
            Head::Binary(_) => return Err(MessagePackFault::Binary),
            Head::Extension(_) => return Err(MessagePackFault::Extension),
            Head::Nil | Head::Array(_) | Head::Map(_) => self.out.extend_from_slice(b"null"),
        }
        Ok(())
    }

    fn array(&mut self, len: u32, depth: usize) -> Result<(), PayloadError> {
        self.out.push(b'[');
        for index in 0..len {
            if index > 0 {
                self.out.push(b',');
            }
            self.value(depth + 1)
                .map_err(|fault| within(fault, &format!("[{index}]")))?;
        }
        self.out.push(b']');
        Ok(())
    }

    fn map(&mut self, len: u32, depth: usize) -> Result<(), PayloadError> {
        self.out.push(b'{');
        for index in 0..len {
            if index > 0 {
                self.out.push(b',');
            }
            let key = self.key().map_err(PayloadError::message_pack)?;
            json_text::string(key, &mut self.out);
            self.out.push(b':');
            self.value(depth + 1)
                .map_err(|fault| within(fault, &format!(".{}", shortened(key))))?;
        }
        self.out.push(b'}');
        Ok(())
    }

    fn key(&mut self) -> Result<&'a str, MessagePackFault> {
        match self.input.head()? {
            Head::Text(len) => self.input.text(len),
            _ => Err(MessagePackFault::KeyNotString),
        }
    }
}

/// A key as a path shows it: the publisher's own text, but not all of a long one.
fn shortened(key: &str) -> &str {
    &key[..key.floor_char_boundary(32)]
}

/// Puts the step that led to a fault before its path.
fn within(fault: PayloadError, step: &str) -> PayloadError {
    match fault {
        PayloadError::MessagePack { what, path } => PayloadError::MessagePack {
            what,
            path: format!("{step}{path}"),
        },
        fault => fault,
    }
}
