//! The payload of a measured publication, `{"t":<stamp>,"n":<number>,"p":"xxx…"}`, and the reading of it on arrival.
//! `t` is the *intended* send time and `n` counts publications from 0; both are written with an offset that keeps
//! their digits constant, so templates are patched in place and every frame of a run has the same length. The stamp
//! stays below 2^53, so a server that parses and prints numbers as doubles returns it unharmed.

use anyhow::{Result, ensure};
use memchr::memmem;

const STAMP_OFFSET: u64 = 1_000_000_000_000_000;
/// 92 days of uptime, after which stamps begin again; a run that lies across that moment is wrong.
const STAMP_WRAP: u64 = 8_000_000_000_000_000;
const STAMP_DIGITS: usize = 16;
const NUMBER_OFFSET: u64 = 1_000_000_000;
const NUMBER_DIGITS: usize = 10;
const STAMP_AT: usize = r#"{"t":"#.len();
const NUMBER_AT: usize = STAMP_AT + STAMP_DIGITS + r#","n":"#.len();
/// The smallest payload: the two numbers and an empty padding.
pub(crate) const BYTES_MIN: usize = NUMBER_AT + NUMBER_DIGITS + r#","p":""}"#.len();

/// When a publication should have been sent, and which one it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Stamp {
    /// Intended send time, on the generator's clock.
    pub(crate) at: u64,
    /// The publication's number within the run.
    pub(crate) number: u64,
}

/// A payload of exactly `bytes` bytes, its numbers still to be patched.
pub(crate) fn template(bytes: usize) -> Result<Vec<u8>> {
    ensure!(
        bytes >= BYTES_MIN,
        "a stamped payload has at least {BYTES_MIN} bytes, not {bytes}"
    );
    let padding = "x".repeat(bytes - BYTES_MIN);
    Ok(format!(r#"{{"t":{STAMP_OFFSET},"n":{NUMBER_OFFSET},"p":"{padding}"}}"#).into_bytes())
}

/// Writes `stamp` into the payload that begins at `payload[0]`.
pub(crate) fn patch(payload: &mut [u8], stamp: Stamp) {
    put(
        &mut payload[STAMP_AT..STAMP_AT + STAMP_DIGITS],
        STAMP_OFFSET + stamp.at % STAMP_WRAP,
    );
    put(
        &mut payload[NUMBER_AT..NUMBER_AT + NUMBER_DIGITS],
        NUMBER_OFFSET + stamp.number,
    );
}

fn put(digits: &mut [u8], mut value: u64) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// Finds the stamp in arrived bytes. It remembers where the last one stood: within a channel that place is constant.
#[derive(Default)]
pub(crate) struct StampReader {
    hint: usize,
}

impl StampReader {
    /// The stamp in `bytes`, if there is one.
    #[inline]
    pub(crate) fn read(&mut self, bytes: &[u8]) -> Option<Stamp> {
        let at = self.locate(bytes)?;
        let value = number(bytes.get(at..at + STAMP_DIGITS)?)?;
        let rest = &bytes[at + STAMP_DIGITS..];
        // A server that parses payloads may print the fields in another order.
        let digits = match rest.strip_prefix(br#","n":"#) {
            Some(digits) => digits,
            None => &bytes[memmem::find(bytes, br#""n":"#)? + 4..],
        };
        let counted = number(digits.get(..NUMBER_DIGITS)?)?;
        Some(Stamp {
            at: value.checked_sub(STAMP_OFFSET)?,
            number: counted.checked_sub(NUMBER_OFFSET)?,
        })
    }

    #[inline]
    fn locate(&mut self, bytes: &[u8]) -> Option<usize> {
        const FIELD: &[u8] = br#""t":"#;
        let end = self.hint + FIELD.len();
        if bytes.get(self.hint..end) != Some(FIELD) {
            self.hint = memmem::find(bytes, FIELD)?;
        }
        Some(self.hint + FIELD.len())
    }
}

#[inline]
fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0u64, |value, digit| {
        let digit = digit.wrapping_sub(b'0');
        (digit < 10).then(|| value * 10 + u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamped(at: u64, number: u64) -> Vec<u8> {
        let mut payload = template(128).expect("128 is enough");
        patch(&mut payload, Stamp { at, number });
        payload
    }

    #[test]
    fn has_exactly_the_bytes_asked_for_and_is_json() {
        for bytes in [BYTES_MIN, 128, 4096] {
            let payload = template(bytes).expect("large enough");
            assert_eq!(payload.len(), bytes);
            serde_json::from_slice::<serde_json::Value>(&payload).expect("valid JSON");
        }
        assert!(template(BYTES_MIN - 1).is_err());
    }

    #[test]
    fn reads_back_what_was_patched_at_any_place() {
        let mut reader = StampReader::default();
        for (envelope, number) in [
            (r#"{"type":"publication","data":"#, 0),
            (r#"{"data":"#, 7),
            ("", 4_000_000),
        ] {
            let mut bytes = envelope.as_bytes().to_vec();
            bytes.extend(stamped(123_456_789, number));
            assert_eq!(
                reader.read(&bytes),
                Some(Stamp {
                    at: 123_456_789,
                    number
                })
            );
        }
    }

    #[test]
    fn reads_fields_in_another_order() {
        let bytes = br#"{"n":1000000042,"p":"x","t":1000000000000007}"#;
        assert_eq!(
            StampReader::default().read(bytes),
            Some(Stamp { at: 7, number: 42 })
        );
    }

    #[test]
    fn says_nothing_about_foreign_payloads() {
        assert_eq!(StampReader::default().read(br#"{"t":"soon","n":1}"#), None);
        assert_eq!(StampReader::default().read(br#"{"t":12"#), None);
        assert_eq!(StampReader::default().read(b""), None);
    }
}
