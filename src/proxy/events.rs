//! Where one event of a stream ends and the next has not begun: the only place where a comment of ours can stand
//! (HTML, 9.2.5).

/// A comment: it keeps proxies between us and the client awake, and no `EventSource` tells anybody of it.
pub(super) const HEARTBEAT: &[u8] = b":\n\n";

/// Follows the bytes of a stream of events.
#[derive(Debug, Clone, Copy)]
pub(super) struct Boundary {
    /// The present line is empty so far.
    at_line_start: bool,
    /// The line before was empty, or there was none.
    after_blank: bool,
    /// A carriage return came last: a line feed would belong to it.
    after_return: bool,
}

impl Default for Boundary {
    fn default() -> Self {
        Self {
            at_line_start: true,
            after_blank: true,
            after_return: false,
        }
    }
}

impl Boundary {
    /// More of the stream.
    pub(super) fn follow(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                b'\n' if self.after_return => {}
                b'\n' | b'\r' => {
                    self.after_blank = self.at_line_start;
                    self.at_line_start = true;
                }
                _ => {
                    self.at_line_start = false;
                    self.after_blank = false;
                }
            }
            self.after_return = *byte == b'\r';
        }
    }

    /// Whether nothing of an event has come since the last one ended.
    pub(super) const fn is_here(&self) -> bool {
        self.after_blank && self.at_line_start && !self.after_return
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_end_with_an_empty_line_however_lines_end() {
        for (text, expected) in [
            ("", true),
            ("data: 1\n\n", true),
            ("data: 1\r\n\r\n", true),
            ("data: 1\n\n\n", true),
            (":\n\n", true),
            ("data: 1\n", false),
            ("data: 1", false),
            ("data: 1\r\n", false),
            ("data: 1\n\nd", false),
            ("data: 1\n\ndata: 2\n", false),
            ("data: 1\r\r", false), // a line feed may follow
            ("data: 1\r\n\r", false),
        ] {
            for cut in 1..=text.len().max(1) {
                let mut boundary = Boundary::default();
                for piece in text.as_bytes().chunks(cut) {
                    boundary.follow(piece);
                }
                assert_eq!(boundary.is_here(), expected, "{text:?} by {cut}");
            }
        }
    }
}
