//! Where a head ends. Lines end with CR LF and nothing else: what takes a bare line feed for an end of line, and what
//! does not, see different requests in the same bytes (RFC 9112 section 2.2 lets a recipient choose).

use super::HEAD_BYTES_MAX;

/// How far the lines of a head were looked at. One for each head.
#[derive(Debug, Default, Clone, Copy)]
pub struct HeadScan {
    /// Everything before it is whole lines.
    line: usize,
}

/// What the bytes hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scanned {
    /// Not yet a whole head.
    Partial,
    /// A head of so many bytes, its empty line included.
    Whole(usize),
    /// A line feed without its carriage return, or a line that begins with a blank (obsolete folding, section 5.2).
    Malformed,
    /// Over its most without an end: [`HEAD_BYTES_MAX`], where nothing else is said.
    TooLong,
}

impl HeadScan {
    /// Looks at the bytes of a head, which may have grown since the last look.
    pub fn look(&mut self, bytes: &[u8]) -> Scanned {
        self.look_up_to(bytes, HEAD_BYTES_MAX)
    }

    /// The same for a head of at most so many bytes.
    pub fn look_up_to(&mut self, bytes: &[u8], bytes_max: usize) -> Scanned {
        while let Some(length) = memchr::memchr(b'\n', &bytes[self.line..]) {
            let line = &bytes[self.line..self.line + length];
            let Some(line) = line.strip_suffix(b"\r") else {
                return Scanned::Malformed;
            };
            if matches!(line.first(), Some(b' ' | b'\t')) {
                return Scanned::Malformed;
            }
            self.line += length + 1;
            if self.line > bytes_max {
                return Scanned::TooLong;
            }
            if line.is_empty() {
                return Scanned::Whole(self.line);
            }
        }
        match bytes.len() > bytes_max {
            true => Scanned::TooLong,
            false => Scanned::Partial,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Scanned) {
        assert_eq!(
            HeadScan::default().look(text.as_bytes()),
            expected,
            "{text:?}"
        );
        // However the bytes come.
        let mut scan = HeadScan::default();
        let mut found = Scanned::Partial;
        for end in 1..=text.len() {
            found = scan.look(&text.as_bytes()[..end]);
            if found != Scanned::Partial {
                break;
            }
        }
        assert_eq!(found, expected, "{text:?} byte by byte");
    }

    #[test]
    fn heads_end_with_an_empty_line() {
        check("GET / HTTP/1.1\r\nhost: a\r\n\r\nrest", Scanned::Whole(27));
        check("GET / HTTP/1.1\r\nhost: a\r\n\r", Scanned::Partial);
        check("GET / HTTP/1.1\nhost: a\r\n\r\n", Scanned::Malformed);
        check("GET / HTTP/1.1\r\nhost: a\n\r\n", Scanned::Malformed);
        check("GET / HTTP/1.1\r\nhost: a\r\n\n", Scanned::Malformed);
        check("GET / HTTP/1.1\r\nx: a\r\n b\r\n\r\n", Scanned::Malformed);
        check("GET / HTTP/1.1\r\nx: a\r\n\tb\r\n\r\n", Scanned::Malformed);
    }

    #[test]
    fn heads_have_a_most() {
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(HEAD_BYTES_MAX));
        assert_eq!(HeadScan::default().look(long.as_bytes()), Scanned::TooLong);
        let endless = "x".repeat(HEAD_BYTES_MAX + 1);
        assert_eq!(
            HeadScan::default().look(endless.as_bytes()),
            Scanned::TooLong
        );
    }
}
