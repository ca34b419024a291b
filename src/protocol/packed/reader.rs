//! Reading MessagePack value by value, without trust in what it declares.

use rmp::Marker;

use super::MessagePackFault;

/// A value's head: a scalar, or how much follows.
#[derive(Debug, Clone, Copy)]
pub(in crate::protocol) enum Head {
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

/// Reads MessagePack from the front.
pub(in crate::protocol) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(in crate::protocol) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What is not read yet.
    pub(in crate::protocol) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The text of a [`Head::Text`].
    pub(in crate::protocol) fn text(&mut self, len: u32) -> Result<&'a str, MessagePackFault> {
        let bytes = self.take(len as usize)?;
        std::str::from_utf8(bytes).map_err(|_| MessagePackFault::NotUtf8)
    }

    /// One whole value, unread. Needs no stack for depth, and looks into nothing but markers and lengths.
    pub(in crate::protocol) fn value(&mut self) -> Result<&'a [u8], MessagePackFault> {
        let start = self.rest;
        let mut values = 1u64;
        while values > 0 {
            values -= 1;
            match self.head()? {
                Head::Array(len) => values += u64::from(len),
                Head::Map(len) => values += 2 * u64::from(len),
                Head::Text(len) | Head::Binary(len) => self.skip(len as usize)?,
                // The type stands before the data.
                Head::Extension(len) => self.skip(len as usize + 1)?,
                _ => {}
            }
        }
        Ok(&start[..start.len() - self.rest.len()])
    }

    fn skip(&mut self, len: usize) -> Result<(), MessagePackFault> {
        self.take(len).map(|_| ())
    }

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

    /// The next value's head. The contents of a text, binary or extension follow it.
    pub(in crate::protocol) fn head(&mut self) -> Result<Head, MessagePackFault> {
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
