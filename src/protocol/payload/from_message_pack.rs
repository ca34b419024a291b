//! MessagePack becomes JSON, where JSON can say it.

use rmp::Marker;

use super::{DEPTH_MAX, MessagePackFault, PayloadError};
use crate::model::Payload;
use crate::protocol::json_text;

/// The payload of one MessagePack value. What a header declares is never trusted: memory grows with what is there.
///
/// # Errors
/// When the bytes are not one whole value, when JSON cannot say it, or when it is nested too deep. Names the place.
pub fn from_message_pack(bytes: &[u8]) -> Result<Payload, PayloadError> {
    let mut transcoder = Transcoder {
        input: Cursor { rest: bytes },
        out: Vec::with_capacity(bytes.len() + bytes.len() / 4),
    };
    transcoder.value(0)?;
    match transcoder.input.rest {
        [] => Ok(Payload::from_plain_json(transcoder.out)),
        _ => Err(PayloadError::message_pack(MessagePackFault::Trailing)),
    }
}

/// Splits one whole value off the front: it and what follows. `None` when it is cut off or no MessagePack. Needs no
/// stack for depth and looks into nothing but markers and lengths.
pub(in crate::protocol) fn skip_value(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut cursor = Cursor { rest: bytes };
    let mut values = 1u64;
    while values > 0 {
        values -= 1;
        match cursor.head().ok()? {
            Head::Array(len) => values += u64::from(len),
            Head::Map(len) => values += 2 * u64::from(len),
            Head::Text(len) | Head::Binary(len) => drop(cursor.take(len as usize).ok()?),
            Head::Extension(len) => drop(cursor.take(len as usize + 1).ok()?),
            _ => {}
        }
    }
    Some(bytes.split_at(bytes.len() - cursor.rest.len()))
}

/// A value's head: a scalar, or how much follows.
enum Head {
    Nil,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float32(f32),
    Float64(f64),
    Text(u32),
    Binary(u32),
    Extension(u32),
    Array(u32),
    Map(u32),
}

struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], MessagePackFault> {
        let (taken, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or(MessagePackFault::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], MessagePackFault> {
        let (taken, rest) = self
            .rest
            .split_first_chunk()
            .ok_or(MessagePackFault::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn u8(&mut self) -> Result<u8, MessagePackFault> {
        self.array().map(u8::from_be_bytes)
    }

    fn u16(&mut self) -> Result<u16, MessagePackFault> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, MessagePackFault> {
        self.array().map(u32::from_be_bytes)
    }

    fn head(&mut self) -> Result<Head, MessagePackFault> {
        Ok(match Marker::from_u8(self.u8()?) {
            Marker::Null => Head::Nil,
            Marker::True => Head::Bool(true),
            Marker::False => Head::Bool(false),
            Marker::FixPos(value) => Head::Unsigned(value.into()),
            Marker::U8 => Head::Unsigned(self.u8()?.into()),
            Marker::U16 => Head::Unsigned(self.u16()?.into()),
            Marker::U32 => Head::Unsigned(self.u32()?.into()),
            Marker::U64 => Head::Unsigned(u64::from_be_bytes(self.array()?)),
            Marker::FixNeg(value) => Head::Signed(value.into()),
            Marker::I8 => Head::Signed(i8::from_be_bytes(self.array()?).into()),
            Marker::I16 => Head::Signed(i16::from_be_bytes(self.array()?).into()),
            Marker::I32 => Head::Signed(i32::from_be_bytes(self.array()?).into()),
            Marker::I64 => Head::Signed(i64::from_be_bytes(self.array()?)),
            Marker::F32 => Head::Float32(f32::from_be_bytes(self.array()?)),
            Marker::F64 => Head::Float64(f64::from_be_bytes(self.array()?)),
            marker => self.sized_head(marker)?,
        })
    }

    fn sized_head(&mut self, marker: Marker) -> Result<Head, MessagePackFault> {
        Ok(match marker {
            Marker::FixStr(len) => Head::Text(len.into()),
            Marker::Str8 => Head::Text(self.u8()?.into()),
            Marker::Str16 => Head::Text(self.u16()?.into()),
            Marker::Str32 => Head::Text(self.u32()?),
            Marker::FixArray(len) => Head::Array(len.into()),
            Marker::Array16 => Head::Array(self.u16()?.into()),
            Marker::Array32 => Head::Array(self.u32()?),
            Marker::FixMap(len) => Head::Map(len.into()),
            Marker::Map16 => Head::Map(self.u16()?.into()),
            Marker::Map32 => Head::Map(self.u32()?),
            Marker::Bin8 => Head::Binary(self.u8()?.into()),
            Marker::Bin16 => Head::Binary(self.u16()?.into()),
            Marker::Bin32 => Head::Binary(self.u32()?),
            Marker::FixExt1 => Head::Extension(1),
            Marker::FixExt2 => Head::Extension(2),
            Marker::FixExt4 => Head::Extension(4),
            Marker::FixExt8 => Head::Extension(8),
            Marker::FixExt16 => Head::Extension(16),
            Marker::Ext8 => Head::Extension(self.u8()?.into()),
            Marker::Ext16 => Head::Extension(self.u16()?.into()),
            Marker::Ext32 => Head::Extension(self.u32()?),
            _ => return Err(MessagePackFault::Reserved),
        })
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
                let text = self.text(len)?;
                json_text::string(text, &mut self.out);
            }
            Head::Binary(_) => return Err(MessagePackFault::Binary),
            Head::Extension(_) => return Err(MessagePackFault::Extension),
            Head::Nil | Head::Array(_) | Head::Map(_) => self.out.extend_from_slice(b"null"),
        }
        Ok(())
    }

    fn text(&mut self, len: u32) -> Result<&'a str, MessagePackFault> {
        let bytes = self.input.take(len as usize)?;
        std::str::from_utf8(bytes).map_err(|_| MessagePackFault::NotUtf8)
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
            Head::Text(len) => self.text(len),
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
