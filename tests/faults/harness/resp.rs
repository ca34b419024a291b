//! RESP, as far as the proxy and the comparison need it: where a frame ends, and what it says. Knows both versions.

/// One frame. Maps and sets are lists here.
#[derive(Debug, PartialEq)]
pub(crate) enum Frame<'b> {
    /// A status, a number, an error, a boolean: the line behind the type.
    Line(u8, &'b [u8]),
    Text(&'b [u8]),
    Nothing,
    List(Vec<Frame<'b>>),
    /// What a RESP3 server says unasked.
    Push(Vec<Frame<'b>>),
}

impl<'b> Frame<'b> {
    /// The frame at the beginning of these bytes, and how long it is; `None` when there is more to come.
    pub(crate) fn read(bytes: &'b [u8]) -> Option<(Self, usize)> {
        let end = bytes.windows(2).position(|two| two == b"\r\n")?;
        let (kind, line) = bytes[..end].split_first().expect("a type");
        let after = end + 2;
        let count = || -> Option<usize> { std::str::from_utf8(line).ok()?.parse().ok() };
        match kind {
            b'$' | b'=' | b'!' => match count() {
                None => Some((Self::Nothing, after)),
                Some(length) => {
                    let text = bytes.get(after..after + length)?;
                    bytes.get(after + length..after + length + 2)?;
                    Some((Self::Text(text), after + length + 2))
                }
            },
            b'*' | b'~' | b'>' | b'%' => {
                let Some(count) = count() else {
                    return Some((Self::Nothing, after));
                };
                let count = count * if *kind == b'%' { 2 } else { 1 };
                let (frames, length) = Self::read_some(&bytes[after..], count)?;
                let frame = match kind {
                    b'>' => Self::Push(frames),
                    _ => Self::List(frames),
                };
                Some((frame, after + length))
            }
            b'_' => Some((Self::Nothing, after)),
            b'+' | b'-' | b':' | b',' | b'#' | b'(' => Some((Self::Line(*kind, line), after)),
            other => panic!("no RESP: {:?}", char::from(*other)),
        }
    }

    fn read_some(bytes: &'b [u8], count: usize) -> Option<(Vec<Self>, usize)> {
        let (mut frames, mut at) = (Vec::new(), 0);
        for _ in 0..count {
            let (frame, length) = Self::read(&bytes[at..])?;
            frames.push(frame);
            at += length;
        }
        Some((frames, at))
    }

    pub(crate) fn text(&self) -> Option<&'b str> {
        match self {
            Self::Text(text) | Self::Line(_, text) => std::str::from_utf8(text).ok(),
            _ => None,
        }
    }

    pub(crate) fn list(&self) -> &[Self] {
        match self {
            Self::List(list) | Self::Push(list) => list,
            _ => &[],
        }
    }

    /// The pub/sub channel of a message that is pushed.
    pub(crate) fn message_of(&self) -> Option<&'b str> {
        let Self::Push(parts) = self else {
            return None;
        };
        match parts.first()?.text()? {
            "message" | "smessage" => parts.get(1)?.text(),
            _ => None,
        }
    }
}

#[test]
fn frames_end_where_they_end() {
    let bytes = b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\nhi\r\n+OK\r\n";
    let (frame, length) = Frame::read(bytes).expect("a frame");
    assert_eq!(frame.message_of(), Some("c"));
    assert_eq!(&bytes[length..], b"+OK\r\n");
    for end in 0..length {
        assert_eq!(Frame::read(&bytes[..end]), None, "{end}");
    }
}
