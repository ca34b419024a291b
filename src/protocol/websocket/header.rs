//! Reading one frame header (RFC 6455 section 5.2) and refusing what is wrong with it in itself.

use super::{Opcode, WebSocketError};

/// The most bytes of a header with a mask.
pub(super) const HEADER_BYTES_MAX: usize = 14;

/// The most payload bytes of a control frame.
pub(super) const CONTROL_BYTES_MAX: u64 = 125;

/// A client's frame header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// Whether this is the last frame of its message.
    pub(super) fin: bool,
    /// What it carries.
    pub(super) opcode: Opcode,
    /// What its payload is masked with.
    pub(super) mask: [u8; 4],
    /// How many bytes its payload has.
    pub(super) len: u64,
}

impl Header {
    /// Reads a header from the start of `input`; tells how many bytes it has. `None` when the end of `input` cuts it
    /// off. What its first two bytes already prove wrong is refused before the others are there.
    pub(super) fn parse(input: &[u8]) -> Result<Option<(Self, usize)>, WebSocketError> {
        let [first, second, rest @ ..] = input else {
            return match input.first() {
                Some(&first) => first_byte(first).map(|_| None),
                None => Ok(None),
            };
        };
        let (fin, opcode) = first_byte(*first)?;
        let short = second_byte(*second, fin, opcode)?;
        let Some((len, rest)) = length(short, rest)? else {
            return Ok(None);
        };
        let Some(&mask) = rest.first_chunk::<4>() else {
            return Ok(None);
        };
        let header = Self {
            fin,
            opcode,
            mask,
            len,
        };
        Ok(Some((header, input.len() - rest.len() + mask.len())))
    }
}

fn first_byte(byte: u8) -> Result<(bool, Opcode), WebSocketError> {
    if byte & 0x70 != 0 {
        return Err(WebSocketError::ReservedBits);
    }
    let bits = byte & 0x0F;
    let opcode = Opcode::from_bits(bits).ok_or(WebSocketError::ReservedOpcode(bits))?;
    Ok((byte & 0x80 != 0, opcode))
}

/// The seven bits of length: 126 and 127 say that more bytes follow.
fn second_byte(byte: u8, fin: bool, opcode: Opcode) -> Result<u8, WebSocketError> {
    let short = byte & 0x7F;
    if byte & 0x80 == 0 {
        Err(WebSocketError::Unmasked)
    } else if opcode.is_control() && !fin {
        Err(WebSocketError::FragmentedControl)
    } else if opcode.is_control() && u64::from(short) > CONTROL_BYTES_MAX {
        Err(WebSocketError::ControlTooLong)
    } else {
        Ok(short)
    }
}

/// The payload's length and what follows it.
fn length(short: u8, rest: &[u8]) -> Result<Option<(u64, &[u8])>, WebSocketError> {
    let (len, least, rest) = match short {
        126 => match rest.split_first_chunk() {
            Some((bytes, rest)) => (u64::from(u16::from_be_bytes(*bytes)), 126, rest),
            None => return Ok(None),
        },
        127 => match rest.split_first_chunk() {
            Some((bytes, rest)) => (u64::from_be_bytes(*bytes), 1 << 16, rest),
            None => return Ok(None),
        },
        _ => (u64::from(short), 0, rest),
    };
    if len < least {
        Err(WebSocketError::LengthNotMinimal)
    } else if len >> 63 != 0 {
        Err(WebSocketError::LengthOutOfRange)
    } else {
        Ok(Some((len, rest)))
    }
}
