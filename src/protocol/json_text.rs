//! The scalars of JSON (RFC 8259), written straight into a buffer.

pub(super) use crate::model::put_decimal as unsigned;

/// Appends a string with its quotes. Control characters, quotes and backslashes are escaped; so the text holds no line
/// end.
pub(super) fn string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|&byte| needs_escape(byte)) {
        out.extend_from_slice(&rest[..at]);
        escape(rest[at], out);
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

/// How many bytes a string takes at most, quotes and escapes among them.
pub(super) fn string_bytes(text: &str) -> usize {
    let bytes = |&byte: &u8| if needs_escape(byte) { 6 } else { 1 };
    2 + text.as_bytes().iter().map(bytes).sum::<usize>()
}

const fn needs_escape(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

fn escape(byte: u8, out: &mut Vec<u8>) {
    let short = match byte {
        b'"' => b'"',
        b'\\' => b'\\',
        8 => b'b',
        12 => b'f',
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        _ => {
            let digit = |value: u8| b"0123456789abcdef"[usize::from(value & 15)];
            return out.extend_from_slice(&[
                b'\\',
                b'u',
                b'0',
                b'0',
                digit(byte >> 4),
                digit(byte),
            ]);
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// Appends an integer.
pub(super) fn signed(value: i64, out: &mut Vec<u8>) {
    if value < 0 {
        out.push(b'-');
    }
    unsigned(value.unsigned_abs(), out);
}

/// Appends a finite number in the fewest digits that read back the same; `null` for one that is not finite.
pub(super) fn float(value: f64, out: &mut Vec<u8>) {
    // Writing into a `Vec` cannot fail.
    let _ = serde_json::to_writer(out, &value);
}

/// The same for a single: as few digits as a single needs.
pub(super) fn float32(value: f32, out: &mut Vec<u8>) {
    let _ = serde_json::to_writer(out, &value);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).expect("UTF-8")
    }

    proptest! {
        #[test]
        fn writes_what_serde_json_writes(text in any::<String>(), control in "[\0-\x22\\\\\x7f]{0,9}", unsigned_value in any::<u64>(), signed_value in any::<i64>()) {
            for text in [text, control] {
                prop_assert_eq!(written(|out| string(&text, out)), serde_json::to_string(&text).expect("a string"));
            }
            prop_assert_eq!(written(|out| unsigned(unsigned_value, out)), unsigned_value.to_string());
            prop_assert_eq!(written(|out| signed(signed_value, out)), signed_value.to_string());
        }
    }

    #[test]
    fn writes_the_edges_of_integers() {
        assert_eq!(written(|out| unsigned(0, out)), "0");
        assert_eq!(written(|out| unsigned(u64::MAX, out)), u64::MAX.to_string());
        assert_eq!(written(|out| signed(i64::MIN, out)), i64::MIN.to_string());
    }
}
