//! RESP3, the server's protocol: commands are written, answers and what the server pushes are read. No I/O.
//!
//! <https://redis.io/docs/latest/develop/reference/protocol-spec/>

use bytes::{Buf as _, Bytes, BytesMut};

use super::value::Value;
use crate::model::put_decimal;

/// How deep an answer may be nested: `COMMAND DOCS` is the deepest that a server has, with less than this.
const DEPTH_MAX: usize = 32;

/// The longest frame: several times what anybody asks for at once.
const FRAME_BYTES_MAX: usize = 256 << 20;

/// The longest of a server that has not yet greeted: whoever it is.
const GREETING_BYTES_MAX: usize = 64 << 10;

/// The most parts of one frame: the members of a set, several times over.
const PARTS_MAX: usize = 4 << 20;

/// A buffer of more than this is given back when it is empty.
pub(super) const KEPT_BYTES: usize = 1 << 20;

/// The longest first line of a part: an error may say something.
const LINE_BYTES_MAX: usize = 64 << 10;

/// Begins a command of so many words.
pub(super) fn begin(text: &mut Vec<u8>, words: usize) {
    line(text, b'*', words);
}

/// Writes a word of a command.
pub(super) fn word(text: &mut Vec<u8>, word: &[u8]) {
    line(text, b'$', word.len());
    text.extend_from_slice(word);
    text.extend_from_slice(b"\r\n");
}

/// Writes a number that is a word of a command.
pub(super) fn number(text: &mut Vec<u8>, number: usize) {
    let mut digits = Vec::new();
    put_decimal(number as u64, &mut digits);
    word(text, &digits);
}

fn line(text: &mut Vec<u8>, kind: u8, number: usize) {
    text.push(kind);
    put_decimal(number as u64, text);
    text.extend_from_slice(b"\r\n");
}

/// What a server sends.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// The answer to a command.
    Answer(Value),
    /// What was published in a channel that is subscribed to.
    Message { channel: Bytes, payload: Bytes },
    /// Anything else that no command asked for, or that only confirms a subscription.
    Push,
}

/// What is no RESP3, or more of it than anybody asked for. Nothing that comes behind it can be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it does not speak RESP3")]
pub(super) struct Garbled;

/// Makes frames of what comes, in whatever pieces it does.
#[derive(Debug)]
pub(super) struct Reader {
    /// Where the next piece is put.
    pub(super) buffer: BytesMut,
    /// How much of it is known to be of the next frame.
    known: usize,
    /// How many values are still to come until that is whole.
    open: usize,
    /// How many there are in all.
    parts: usize,
    /// How long it may be.
    longest: usize,
}

impl Reader {
    pub(super) fn new() -> Self {
        Self {
            buffer: BytesMut::new(),
            known: 0,
            open: 1,
            parts: 1,
            longest: GREETING_BYTES_MAX,
        }
    }

    /// From now on it may be as long as anything that is asked for.
    pub(super) fn trust(&mut self) {
        self.longest = FRAME_BYTES_MAX;
    }

    /// The next frame, when it is whole.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, Garbled> {
        while self.open > 0 {
            if !self.pass()? {
                return Ok(None);
            }
        }
        let length = std::mem::take(&mut self.known);
        (self.open, self.parts) = (1, 1);
        let mut frame = Parts {
            left: self.buffer.split_to(length).freeze(),
        };
        if self.buffer.is_empty() && self.buffer.capacity() > KEPT_BYTES {
            self.buffer = BytesMut::new();
        }
        frame.frame().map(Some)
    }

    /// Goes on behind one more part of the frame, without its members; whether all of it is there.
    fn pass(&mut self) -> Result<bool, Garbled> {
        let left = self.buffer.get(self.known..).unwrap_or_default();
        let Some(end) = end_of_line(left)? else {
            return Ok(false);
        };
        let Some((&kind, line)) = left.get(..end).and_then(<[u8]>::split_first) else {
            return Err(Garbled);
        };
        let mut length = end + 2;
        let members = match Kind::of(kind)? {
            Kind::Line => 0,
            Kind::Text => {
                length += count(line)?.map_or(0, |bytes| bytes + 2);
                0
            }
            Kind::Members(each) => count(line)?.unwrap_or(0) * each,
            // It is no value itself: what it belongs to comes behind it.
            Kind::Attributes => count(line)?.unwrap_or(0) * 2 + 1,
        };
        if self.known + length > self.longest || self.parts + members > PARTS_MAX {
            return Err(Garbled);
        }
        if left.len() < length {
            return Ok(false);
        }
        self.known += length;
        self.parts += members;
        self.open = self.open + members - 1;
        Ok(true)
    }
}

/// How the parts are written that begin with a byte.
enum Kind {
    /// In the first line.
    Line,
    /// Behind the first line, which has its length.
    Text,
    /// Behind the first line, which has their number; so many values each.
    Members(usize),
    /// Pairs of them, before what they belong to.
    Attributes,
}

impl Kind {
    const fn of(first: u8) -> Result<Self, Garbled> {
        Ok(match first {
            b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(' => Self::Line,
            b'$' | b'=' | b'!' => Self::Text,
            b'*' | b'~' | b'>' => Self::Members(1),
            b'%' => Self::Members(2),
            b'|' => Self::Attributes,
            _ => return Err(Garbled),
        })
    }
}

/// Where the first line ends, when it is there.
fn end_of_line(text: &[u8]) -> Result<Option<usize>, Garbled> {
    let within = text.get(..LINE_BYTES_MAX).unwrap_or(text);
    match memchr::memchr(b'\r', within) {
        Some(end) => match text.get(end + 1) {
            Some(b'\n') => Ok(Some(end)),
            Some(_) => Err(Garbled),
            None => Ok(None),
        },
        None if within.len() < text.len() => Err(Garbled),
        None => Ok(None),
    }
}

/// A length or a number of members; -1 means that there is nothing.
fn count(line: &[u8]) -> Result<Option<usize>, Garbled> {
    if line == b"-1" {
        return Ok(None);
    }
    let number = integer(line)?;
    let number = usize::try_from(number).map_err(|_| Garbled)?;
    match number <= FRAME_BYTES_MAX {
        true => Ok(Some(number)),
        false => Err(Garbled),
    }
}

fn integer(line: &[u8]) -> Result<i64, Garbled> {
    let (digits, sign) = match line.split_first() {
        Some((b'-', digits)) => (digits, -1),
        Some((b'+', digits)) => (digits, 1),
        _ => (line, 1),
    };
    if digits.is_empty() {
        return Err(Garbled);
    }
    digits.iter().try_fold(0i64, |number, digit| {
        let digit = i64::from(digit.wrapping_sub(b'0'));
        let next = number.checked_mul(10).filter(|_| digit < 10);
        // On the side of the sign, which has one number more than the other.
        next.and_then(|next| next.checked_add(sign * digit))
            .ok_or(Garbled)
    })
}

/// A frame that is there as a whole, from front to back.
struct Parts {
    left: Bytes,
}

impl Parts {
    fn frame(&mut self) -> Result<Frame, Garbled> {
        while self.left.first() == Some(&b'|') {
            let (_, line) = self.line()?;
            self.pairs(count(&line)?.unwrap_or(0), 0)?;
        }
        if self.left.first() != Some(&b'>') {
            return self.value(0).map(Frame::Answer);
        }
        let (_, line) = self.line()?;
        if count(&line)? != Some(3) {
            return Ok(Frame::Push);
        }
        Ok(match (self.value(0)?, self.value(0)?, self.value(0)?) {
            (Value::Bytes(kind), Value::Bytes(channel), Value::Bytes(payload))
                if matches!(&*kind, b"message" | b"smessage") =>
            {
                Frame::Message { channel, payload }
            }
            _ => Frame::Push,
        })
    }

    /// The first line: its first byte, and what follows.
    fn line(&mut self) -> Result<(u8, Bytes), Garbled> {
        let end = end_of_line(&self.left)?.ok_or(Garbled)?;
        let mut line = self.left.split_to(end);
        self.left.advance(2);
        let kind = *line.first().ok_or(Garbled)?;
        line.advance(1);
        Ok((kind, line))
    }

    /// The text behind the first line.
    fn text(&mut self, line: &[u8]) -> Result<Option<Bytes>, Garbled> {
        let Some(length) = count(line)? else {
            return Ok(None);
        };
        if self.left.get(length..length + 2) != Some(b"\r\n") {
            return Err(Garbled);
        }
        let text = self.left.split_to(length);
        self.left.advance(2);
        Ok(Some(text))
    }

    fn value(&mut self, depth: usize) -> Result<Value, Garbled> {
        if depth > DEPTH_MAX {
            return Err(Garbled);
        }
        let (kind, line) = self.line()?;
        let or_null = |text: Option<Bytes>| text.map_or(Value::Null, Value::Bytes);
        Ok(match kind {
            b'+' | b',' | b'(' => Value::Bytes(line),
            b'-' => Value::Error(line),
            b'_' => Value::Null,
            b':' => Value::Integer(integer(&line)?),
            b'#' => Value::Integer(i64::from(&*line == b"t")),
            b'$' => or_null(self.text(&line)?),
            // Its first four bytes say what kind of text it is.
            b'=' => or_null(
                self.text(&line)?
                    .map(|text| text.slice(text.len().min(4)..)),
            ),
            b'!' => Value::Error(self.text(&line)?.unwrap_or_default()),
            b'*' | b'~' | b'>' => match count(&line)? {
                Some(count) => Value::Array(self.members(count, depth)?),
                None => Value::Null,
            },
            b'%' => Value::Map(self.pairs(count(&line)?.unwrap_or(0), depth)?),
            b'|' => {
                self.pairs(count(&line)?.unwrap_or(0), depth)?;
                self.value(depth + 1)?
            }
            _ => return Err(Garbled),
        })
    }

    // The frame is whole, so that as many members as a line says are there: none takes less than three bytes.
    fn members(&mut self, count: usize, depth: usize) -> Result<Vec<Value>, Garbled> {
        (0..count).map(|_| self.value(depth + 1)).collect()
    }

    fn pairs(&mut self, count: usize, depth: usize) -> Result<Vec<(Value, Value)>, Garbled> {
        (0..count)
            .map(|_| Ok((self.value(depth + 1)?, self.value(depth + 1)?)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(text: &str) -> Value {
        Value::from(text)
    }

    /// What is read of a text that comes in pieces of so many bytes.
    fn read(text: &[u8], piece: usize) -> Result<Vec<Frame>, Garbled> {
        let mut reader = Reader::new();
        let mut frames = Vec::new();
        for piece in text.chunks(piece) {
            reader.buffer.extend_from_slice(piece);
            while let Some(frame) = reader.next()? {
                frames.push(frame);
            }
        }
        Ok(frames)
    }

    /// The one answer of a text, however it comes.
    fn answer(text: &[u8]) -> Value {
        let mut told = None;
        for piece in [1, 2, 3, 7, text.len()] {
            let frames = read(text, piece).expect("it is RESP3");
            let [Frame::Answer(value)] = <[Frame; 1]>::try_from(frames).expect("one") else {
                panic!("no answer");
            };
            assert!(told.as_ref().is_none_or(|told| *told == value));
            told = Some(value);
        }
        told.expect("it was read")
    }

    #[test]
    fn a_command_is_an_array_of_texts() {
        let mut text = Vec::new();
        begin(&mut text, 3);
        word(&mut text, b"SET");
        word(&mut text, b"a\r\nb");
        number(&mut text, 12);
        assert_eq!(text, b"*3\r\n$3\r\nSET\r\n$4\r\na\r\nb\r\n$2\r\n12\r\n");
    }

    #[test]
    fn every_kind_of_answer_is_read() {
        for (told, value) in [
            (b"+OK\r\n".as_slice(), text("OK")),
            (b"-ERR no\r\n", Value::Error(Bytes::from_static(b"ERR no"))),
            (
                b"!6\r\nERR no\r\n",
                Value::Error(Bytes::from_static(b"ERR no")),
            ),
            (b":-42\r\n", Value::Integer(-42)),
            (b":-9223372036854775808\r\n", Value::Integer(i64::MIN)),
            (b":9223372036854775807\r\n", Value::Integer(i64::MAX)),
            (b"$0\r\n\r\n", text("")),
            (b"$4\r\na\r\nb\r\n", text("a\r\nb")),
            (b"=7\r\ntxt:abc\r\n", text("abc")),
            (b"_\r\n", Value::Null),
            (b"$-1\r\n", Value::Null),
            (b"*-1\r\n", Value::Null),
            (b"#t\r\n", Value::Integer(1)),
            (b"#f\r\n", Value::Integer(0)),
            (b",1.5\r\n", text("1.5")),
            (b"(123456789012345678901\r\n", text("123456789012345678901")),
            (b"*0\r\n", Value::Array(Vec::new())),
            (
                b"*2\r\n*1\r\n:1\r\n~2\r\n+a\r\n_\r\n",
                Value::Array(vec![
                    Value::Array(vec![Value::Integer(1)]),
                    Value::Array(vec![text("a"), Value::Null]),
                ]),
            ),
            (
                b"%1\r\n+key\r\n*1\r\n-ERR\r\n",
                Value::Map(vec![(
                    text("key"),
                    Value::Array(vec![Value::Error(Bytes::from_static(b"ERR"))]),
                )]),
            ),
            (b"|1\r\n+ttl\r\n:3\r\n$1\r\na\r\n", text("a")),
        ] {
            assert_eq!(answer(told), value, "{}", told.escape_ascii());
        }
    }

    #[test]
    fn what_was_published_is_told_from_what_confirms() {
        let stream = b">3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n:7\r\n>3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$2\r\nhi\r\n\
            >3\r\n$8\r\nsmessage\r\n$1\r\na\r\n$0\r\n\r\n>4\r\n$8\r\npmessage\r\n+n*\r\n$4\r\nnews\r\n$2\r\nhi\r\n>0\r\n";
        let attributed = b"|1\r\n+a\r\n+b\r\n>3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nb\r\n";
        let message = |channel: &'static str, payload: &'static str| Frame::Message {
            channel: Bytes::from_static(channel.as_bytes()),
            payload: Bytes::from_static(payload.as_bytes()),
        };
        for piece in [1, 5, stream.len()] {
            let expected = [
                Frame::Push,
                Frame::Answer(Value::Integer(7)),
                message("news", "hi"),
                message("a", ""),
                Frame::Push,
                Frame::Push,
            ];
            assert_eq!(read(stream, piece).expect("it is RESP3"), expected);
            assert_eq!(read(attributed, piece), Ok(vec![message("a", "b")]));
        }
    }

    #[test]
    fn what_is_no_resp3_is_told_at_once() {
        for text in [
            b"HTTP/1.1 400 Bad Request\r\n".as_slice(),
            b"\r\n",
            b"+OK\rx",
            b"$x\r\n",
            b"$-2\r\n",
            b"$99999999999999999999\r\n",
            b"*9223372036854775807\r\n",
            b"$1\r\nabc",
            b":\r\n",
            b":1x\r\n",
            b":9223372036854775808\r\n",
            b"$?\r\n",
        ] {
            assert_eq!(
                read(text, text.len()),
                Err(Garbled),
                "{}",
                text.escape_ascii()
            );
        }
        let deep = b"*1\r\n".repeat(DEPTH_MAX + 2);
        assert_eq!(
            read(&[&deep, b":1\r\n".as_slice()].concat(), 64),
            Err(Garbled)
        );
        let long = [b"+".as_slice(), &vec![b'a'; LINE_BYTES_MAX]].concat();
        assert_eq!(read(&long, long.len()), Err(Garbled));
        // Nothing is allocated for what only a number promises.
        assert_eq!(read(b"*4194303\r\n", 100), Ok(Vec::new()));
    }

    #[test]
    fn a_frame_has_its_bounds() {
        let text = |length: usize| {
            [
                format!("*2\r\n${length}\r\n").as_bytes(),
                &vec![b'a'; length],
            ]
            .concat()
        };
        let begun = |text: &[u8], is_trusted: bool| {
            let mut reader = Reader::new();
            if is_trusted {
                reader.trust();
            }
            reader.buffer.extend_from_slice(text);
            reader.next()
        };
        let long = text(GREETING_BYTES_MAX);
        assert_eq!(begun(&long, false), Err(Garbled));
        assert_eq!(begun(&long, true), Ok(None));
        assert_eq!(begun(b"*2\r\n$268435450\r\n", true), Err(Garbled));
        // As many parts as there may be, but not in many small arrays either.
        assert_eq!(begun(b"*4194304\r\n", true), Err(Garbled));
        let nested = b"*2097152\r\n*2097152\r\n".as_slice();
        assert_eq!(begun(nested, true), Err(Garbled));
        let mut reader = Reader::new();
        for _ in 0..3 {
            reader.buffer.extend_from_slice(b"*2\r\n:1\r\n:2\r\n");
            assert!(matches!(reader.next(), Ok(Some(Frame::Answer(_)))));
        }
        assert_eq!((reader.known, reader.open, reader.parts), (0, 1, 1));
    }

    fn written(value: &Value, text: &mut Vec<u8>) {
        match value {
            Value::Null => text.extend_from_slice(b"_\r\n"),
            Value::Integer(number) => text.extend_from_slice(format!(":{number}\r\n").as_bytes()),
            Value::Bytes(bytes) => word(text, bytes),
            Value::Error(bytes) => {
                line(text, b'!', bytes.len());
                text.extend_from_slice(bytes);
                text.extend_from_slice(b"\r\n");
            }
            Value::Array(values) => {
                line(text, b'*', values.len());
                values.iter().for_each(|value| written(value, text));
            }
            Value::Map(pairs) => {
                line(text, b'%', pairs.len());
                for (key, value) in pairs {
                    written(key, text);
                    written(value, text);
                }
            }
        }
    }

    fn values() -> impl Strategy<Value = Value> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from);
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::Integer),
            bytes().prop_map(Value::Bytes),
            bytes().prop_map(Value::Error),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            let pairs = proptest::collection::vec((inner.clone(), inner.clone()), 0..4);
            prop_oneof![
                proptest::collection::vec(inner, 0..6).prop_map(Value::Array),
                pairs.prop_map(Value::Map),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(values in proptest::collection::vec(values(), 1..5), piece in 1usize..64) {
            let mut text = Vec::new();
            values.iter().for_each(|value| written(value, &mut text));
            let expected: Vec<Frame> = values.into_iter().map(Frame::Answer).collect();
            prop_assert_eq!(read(&text, piece), Ok(expected));
        }

        #[test]
        fn nothing_that_comes_panics(text in proptest::collection::vec(any::<u8>(), 0..200), piece in 1usize..64) {
            let _ = read(&text, piece);
        }

        #[test]
        fn nothing_that_almost_is_right_panics(
            text in "([*$%>|=!:+-][0-9]{0,3}\r\n|message|[a-z]{0,4}\r\n){0,12}", piece in 1usize..64
        ) {
            let _ = read(text.as_bytes(), piece);
        }
    }
}
