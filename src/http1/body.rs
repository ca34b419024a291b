//! Where a body ends (RFC 9112 section 6.3).

use super::chunks::Chunks;

/// How a body is framed, and how far it was followed.
#[derive(Debug, Clone, Copy)]
pub enum Framing {
    /// By a length: so many bytes are still to come. 0 is no body, or its end.
    Length(u64),
    /// By chunks.
    Chunked(Chunks),
    /// By the end of the connection; answers only.
    UntilClose,
}

/// A body that breaks its framing. What follows on its connection cannot be told apart any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the body breaks its framing")]
pub struct BodyFault;

/// A piece of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// So many bytes, from the first on.
    pub length: usize,
    /// Whether they are the body's own, and not its framing.
    pub is_data: bool,
}

impl Framing {
    /// No body.
    pub const NONE: Self = Self::Length(0);

    /// By chunks, from the first on.
    pub const fn chunked() -> Self {
        Self::Chunked(Chunks::new())
    }

    /// Whether the body has ended. One that the connection ends never has.
    pub fn is_done(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunks) => chunks.is_done(),
            Self::UntilClose => false,
        }
    }

    /// Whether what comes next are the fields behind a chunked body, or their empty line. A run ends where they begin.
    pub fn is_in_trailers(&self) -> bool {
        matches!(self, Self::Chunked(chunks) if chunks.is_in_trailers())
    }

    /// The next piece of the body in these bytes, which are not empty; `None` when it has ended.
    ///
    /// # Errors
    /// When the bytes break the framing.
    pub fn run(&mut self, bytes: &[u8]) -> Result<Option<Run>, BodyFault> {
        if self.is_done() {
            return Ok(None);
        }
        let (length, is_data) = match self {
            Self::Length(left) => {
                let length = usize::try_from(*left).unwrap_or(usize::MAX);
                let length = length.min(bytes.len());
                *left -= length as u64;
                (length, true)
            }
            Self::Chunked(chunks) => chunks.run(bytes)?,
            Self::UntilClose => (bytes.len(), true),
        };
        Ok(Some(Run { length, is_data }))
    }

    /// How many of these bytes belong to the body, its framing included, and how many of those are its data.
    ///
    /// # Errors
    /// When the bytes break the framing.
    pub fn follow(&mut self, bytes: &[u8]) -> Result<(usize, u64), BodyFault> {
        self.follow_while(bytes, |_| true)
    }

    /// The same up to where the trailer section begins; nothing of that.
    ///
    /// # Errors
    /// When the bytes break the framing.
    pub fn follow_to_trailers(&mut self, bytes: &[u8]) -> Result<(usize, u64), BodyFault> {
        self.follow_while(bytes, |body| !body.is_in_trailers())
    }

    fn follow_while(
        &mut self,
        bytes: &[u8],
        goes_on: impl Fn(&Self) -> bool,
    ) -> Result<(usize, u64), BodyFault> {
        let (mut used, mut data) = (0, 0);
        while used < bytes.len() && goes_on(self) {
            let Some(run) = self.run(&bytes[used..])? else {
                break;
            };
            used += run.length;
            data += if run.is_data { run.length as u64 } else { 0 };
        }
        Ok((used, data))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What of a chunked body's bytes is its data, however they are cut; `None` when its framing is broken.
    fn data(text: &str, cut: usize) -> Option<(String, usize)> {
        let mut framing = Framing::chunked();
        let (mut data, mut used) = (String::new(), 0);
        for piece in text.as_bytes().chunks(cut) {
            let mut at = 0;
            while at < piece.len() {
                let Some(run) = framing.run(&piece[at..]).ok()? else {
                    return Some((data, used));
                };
                if run.is_data {
                    data.push_str(std::str::from_utf8(&piece[at..at + run.length]).ok()?);
                }
                at += run.length;
                used += run.length;
            }
        }
        framing.is_done().then_some((data, used))
    }

    #[test]
    fn chunked_bodies_are_followed_to_their_end() {
        for (text, expected, rest) in [
            ("0\r\n\r\n", "", ""),
            ("3\r\nabc\r\n0\r\n\r\nGET", "abc", "GET"),
            ("A\r\n0123456789\r\n1\r\nx\r\n00\r\n\r\n", "0123456789x", ""),
            ("1;a=b;c=\"d\"\r\nx\r\n0;e\r\n\r\n", "x", ""),
            ("1\r\nx\r\n0\r\nx-sum: 1\r\nb: 2\r\n\r\nrest", "x", "rest"),
        ] {
            for cut in 1..=text.len() {
                let (found, used) = data(text, cut).expect(text);
                assert_eq!(
                    (&*found, &text[used..]),
                    (expected, rest),
                    "{text:?} by {cut}"
                );
            }
        }
    }

    #[test]
    fn chunked_bodies_that_another_could_read_differently_are_refused() {
        for bad in [
            "\r\n",
            "x\r\n",
            "+1\r\nx\r\n",
            "-1\r\n",
            "0x1\r\nx",
            " 1\r\nx",
            "1\nx\r\n",
            "1\rx",
            "1\r\nxy\r\n",
            "1\r\nx\n",
            "1\r\nx\r\r",
            "3\r\nabc0\r\n\r\n",
            "1\r\nx\r\n0\r\n\n",
            "0\r\nx: 1\n\r\n",
            "0\r\n x: 1\r\n\r\n",
            "1;a\nb\r\nx\r\n",
            "1;a\0\r\nx",
            "1000000000000000\r\nx",
            ";\r\n",
            "0\r\nx\0: 1\r\n\r\n",
        ] {
            for cut in 1..=bad.len() {
                assert_eq!(data(bad, cut), None, "{bad:?} by {cut}");
            }
        }
        let endless = format!("1;{}\r\nx", "a".repeat(5000));
        assert_eq!(data(&endless, 100), None);
        let endless = format!("0\r\nx: {}\r\n\r\n", "a".repeat(20_000));
        assert_eq!(data(&endless, 100), None);
    }

    #[test]
    fn what_stands_before_the_trailers_is_told_from_them() {
        let text = b"1\r\nx\r\n0\r\nx-sum: 1\r\n\r\n";
        let (before, trailers) = text.split_at(text.len() - 12);
        let mut framing = Framing::chunked();
        assert_eq!(framing.follow_to_trailers(text), Ok((before.len(), 1)));
        assert!(framing.is_in_trailers() && !framing.is_done());
        assert_eq!(framing.follow_to_trailers(trailers), Ok((0, 0)));
        assert_eq!(framing.follow(trailers), Ok((trailers.len(), 0)));
        assert!(framing.is_done() && !framing.is_in_trailers());
    }

    #[test]
    fn lengths_are_counted() {
        let mut framing = Framing::Length(5);
        assert_eq!(framing.follow(b"abc"), Ok((3, 3)));
        assert!(!framing.is_done());
        assert_eq!(framing.follow(b"defg"), Ok((2, 2)));
        assert!(framing.is_done());
        assert_eq!(framing.follow(b"g"), Ok((0, 0)));
    }
}
