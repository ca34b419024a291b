//! Header fields as the lines that go over the wire, `name: value` and CR LF each: what is stored is written as it is.

/// The fields of these lines, in order; the empty line at the end of a head is none.
pub(super) fn fields(lines: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    lines.split(|byte| *byte == b'\n').filter_map(|line| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let colon = line.iter().position(|byte| *byte == b':')?;
        Some((&line[..colon], line[colon + 1..].trim_ascii()))
    })
}

/// The first field of this name.
pub(super) fn field<'a>(lines: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let mut fields = fields(lines);
    fields
        .find(|(found, _)| found.eq_ignore_ascii_case(name.as_bytes()))
        .map(|(_, value)| value)
}

/// The values of all fields of this name, joined as one list (RFC 9110 section 5.3).
pub(super) fn joined(lines: &[u8], name: &str) -> Vec<u8> {
    let values = fields(lines).filter(|(found, _)| found.eq_ignore_ascii_case(name.as_bytes()));
    let values: Vec<&[u8]> = values.map(|(_, value)| value).collect();
    values.join(&b", "[..])
}

/// Appends a field.
pub(super) fn push(lines: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    for part in [name, b": ", value, b"\r\n"] {
        lines.extend_from_slice(part);
    }
}

/// The lines without the fields that `is_dropped` says, by their names in lower case.
pub(super) fn without(lines: &[u8], is_dropped: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut kept = Vec::with_capacity(lines.len());
    for (name, value) in fields(lines) {
        if !is_dropped(&name.to_ascii_lowercase()) {
            push(&mut kept, name, value);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &[u8] = b"A: 1\r\nb:  x:y \r\na: 2\r\n\r\n";

    #[test]
    fn lines_are_read_as_fields() {
        let found: Vec<_> = fields(LINES).collect();
        let expected: [(&[u8], &[u8]); 3] = [(b"A", b"1"), (b"b", b"x:y"), (b"a", b"2")];
        assert_eq!(found, expected);
        assert_eq!(field(LINES, "B"), Some(&b"x:y"[..]));
        assert_eq!(joined(LINES, "a"), b"1, 2");
        assert_eq!(joined(LINES, "c"), b"");
    }

    #[test]
    fn fields_are_left_out_by_name() {
        assert_eq!(without(LINES, |name| name == b"a"), b"b: x:y\r\n");
    }
}
