//! The chunked coding (RFC 9112 section 7.1), followed byte by byte and strictly: digits, CR LF, bounded.

use super::BodyFault;

/// The most digits of a size: 2^60 bytes.
const DIGITS_MAX: u8 = 15;
/// The most bytes of all extensions of a body; nobody uses any.
const EXTENSION_BYTES_MAX: u16 = 4096;
/// The most bytes of the trailer section.
const TRAILER_BYTES_MAX: u16 = 16 * 1024;

/// How far a chunked body was followed.
#[derive(Debug, Clone, Copy)]
pub struct Chunks {
    at: At,
    /// Bytes of the present chunk that are still to come, or its size while that is read.
    left: u64,
    digits: u8,
    extension: u16,
    trailer: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Size,
    Extension,
    SizeEnd,
    Data,
    DataEnd,
    DataLineFeed,
    TrailerStart,
    Trailer,
    TrailerEnd,
    LastLineFeed,
    Done,
}

impl Chunks {
    pub(super) const fn new() -> Self {
        Self {
            at: At::Size,
            left: 0,
            digits: 0,
            extension: 0,
            trailer: 0,
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.at == At::Done
    }

    /// Whether the last chunk's line has ended, and the empty line behind the trailer section is still to come.
    pub(super) fn is_in_trailers(&self) -> bool {
        matches!(
            self.at,
            At::TrailerStart | At::Trailer | At::TrailerEnd | At::LastLineFeed
        )
    }

    /// How many of the bytes, from the first on, are of one kind; and whether they are data of the body. The trailer section
    /// is a kind of its own, with the empty line at its end.
    pub(super) fn run(&mut self, bytes: &[u8]) -> Result<(usize, bool), BodyFault> {
        if self.at == At::Data {
            let run = usize::try_from(self.left).unwrap_or(usize::MAX);
            let run = run.min(bytes.len());
            self.left -= run as u64;
            if self.left == 0 {
                self.at = At::DataEnd;
            }
            return Ok((run, true));
        }
        for (index, byte) in bytes.iter().enumerate() {
            let was_at = self.at;
            self.step(*byte)?;
            let begins_trailers = was_at == At::SizeEnd && self.is_in_trailers();
            if matches!(self.at, At::Data | At::Done) || begins_trailers {
                return Ok((index + 1, false));
            }
        }
        Ok((bytes.len(), false))
    }

    fn step(&mut self, byte: u8) -> Result<(), BodyFault> {
        self.at = match (self.at, byte) {
            (At::Size, b'\r') if self.digits > 0 => At::SizeEnd,
            (At::Size, b';' | b' ' | b'\t') if self.digits > 0 => At::Extension,
            (At::Size, digit) => {
                let digit = char::from(digit).to_digit(16).ok_or(BodyFault)?;
                if self.digits == DIGITS_MAX {
                    return Err(BodyFault);
                }
                self.digits += 1;
                self.left = self.left << 4 | u64::from(digit);
                At::Size
            }
            (At::Extension, b'\r') => At::SizeEnd,
            (At::Extension, byte) => {
                self.extension += 1;
                if !is_text(byte) || self.extension > EXTENSION_BYTES_MAX {
                    return Err(BodyFault);
                }
                At::Extension
            }
            (At::SizeEnd, b'\n') if self.left > 0 => At::Data,
            (At::SizeEnd, b'\n') => At::TrailerStart,
            (At::DataEnd, b'\r') => At::DataLineFeed,
            (At::DataLineFeed, b'\n') => {
                self.digits = 0;
                At::Size
            }
            (At::TrailerStart, b'\r') => At::LastLineFeed,
            (At::Trailer, b'\r') => At::TrailerEnd,
            (At::TrailerStart | At::Trailer, byte) => {
                self.trailer += 1;
                let folds = self.at == At::TrailerStart && matches!(byte, b' ' | b'\t');
                if !is_text(byte) || folds || self.trailer > TRAILER_BYTES_MAX {
                    return Err(BodyFault);
                }
                At::Trailer
            }
            (At::TrailerEnd, b'\n') => At::TrailerStart,
            (At::LastLineFeed, b'\n') => At::Done,
            _ => return Err(BodyFault),
        };
        Ok(())
    }
}

fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}
