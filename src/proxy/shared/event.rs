//! A stream of events, taken apart (HTML, 9.2.6), and one event as it stands in a channel.

use serde::{Deserialize, Serialize};

/// The most bytes of one event; a longer one is left out.
const EVENT_BYTES_MAX: usize = 60 * 1024;

/// One event.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Event {
    /// Its name; without it `message`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) event: Option<String>,
    /// Its lines.
    pub(super) data: String,
    /// After how many milliseconds to come back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) retry: Option<u64>,
    /// The upstream's own id, as it stood when the event came; clients get positions of ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<String>,
}

/// Takes a stream apart as it comes.
#[derive(Debug, Default)]
pub(super) struct Parser {
    line: Vec<u8>,
    after_return: bool,
    has_begun: bool,
    present: Event,
    has_data: bool,
    /// Bytes of the present event; beyond [`EVENT_BYTES_MAX`] it is left out.
    bytes: usize,
    /// The last id that the upstream gave.
    last_id: Option<String>,
    /// Events that were left out.
    pub(super) left_out: u64,
}

impl Parser {
    /// One that goes on after this id.
    pub(super) fn after(last_id: Option<String>) -> Self {
        Self {
            last_id,
            ..Self::default()
        }
    }

    /// The last id that the upstream gave.
    pub(super) fn last_id(&self) -> Option<&str> {
        self.last_id.as_deref().filter(|id| !id.is_empty())
    }

    /// More of the stream; appends the events that it ends.
    pub(super) fn feed(&mut self, bytes: &[u8], events: &mut Vec<Event>) {
        for byte in bytes {
            let after_return = std::mem::replace(&mut self.after_return, *byte == b'\r');
            match byte {
                b'\n' if after_return => {}
                b'\n' | b'\r' => self.end_line(events),
                byte => {
                    self.bytes += 1;
                    if self.bytes <= EVENT_BYTES_MAX {
                        self.line.push(*byte);
                    }
                }
            }
        }
    }

    fn end_line(&mut self, events: &mut Vec<Event>) {
        let line = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&line);
        let mut text = &*text;
        if !std::mem::replace(&mut self.has_begun, true) {
            text = text.strip_prefix('\u{feff}').unwrap_or(text);
        }
        if !text.is_empty() {
            self.take_line(text);
            // Used again by the next line.
            self.line = line;
            self.line.clear();
            return;
        }
        let mut event = std::mem::take(&mut self.present);
        let has_data = std::mem::take(&mut self.has_data);
        if std::mem::take(&mut self.bytes) > EVENT_BYTES_MAX {
            self.left_out += 1;
        } else if has_data {
            event.id.clone_from(&self.last_id);
            events.push(event);
        }
    }

    fn take_line(&mut self, line: &str) {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "event" => self.present.event = Some(value.to_owned()).filter(|name| !name.is_empty()),
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.present.data.push('\n');
                }
                self.present.data.push_str(value);
            }
            "id" if !value.contains('\0') => self.last_id = Some(value.to_owned()),
            "retry" if value.bytes().all(|byte| byte.is_ascii_digit()) => {
                self.present.retry = value.parse().ok();
            }
            // Comments, and what nobody knows.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The events of a text, however it is cut.
    fn parsed(text: &str) -> Vec<Event> {
        let of = |cut: usize| {
            let (mut parser, mut events) = (Parser::default(), Vec::new());
            let pieces = text.as_bytes().chunks(cut);
            pieces.for_each(|piece| parser.feed(piece, &mut events));
            events
        };
        let whole = of(text.len());
        (1..5).for_each(|cut| assert_eq!(of(cut), whole, "{text:?} by {cut}"));
        whole
    }

    fn event(event: Option<&str>, data: &str, retry: Option<u64>, id: Option<&str>) -> Event {
        Event {
            event: event.map(str::to_owned),
            data: data.to_owned(),
            retry,
            id: id.map(str::to_owned),
        }
    }

    #[test]
    fn events_are_told_apart_as_browsers_do() {
        for (text, expected) in [
            ("data: a\n\n", vec![event(None, "a", None, None)]),
            ("\u{feff}data:a\r\n\r\n", vec![event(None, "a", None, None)]),
            (
                "data: a\rdata:  b\r\r",
                vec![event(None, "a\n b", None, None)],
            ),
            ("data\n\n", vec![event(None, "", None, None)]),
            (
                "event: x\nretry: 5\nid: 7\ndata: a\n\n",
                vec![event(Some("x"), "a", Some(5), Some("7"))],
            ),
            (
                "id: 1\ndata: a\n\ndata: b\n\n",
                vec![
                    event(None, "a", None, Some("1")),
                    event(None, "b", None, Some("1")),
                ],
            ),
            (": a comment\n\n", vec![]),
            (
                "event: x\n\ndata: a\n\n",
                vec![event(None, "a", None, None)],
            ),
            ("retry: x\ndata: a\n\n", vec![event(None, "a", None, None)]),
            ("data: cut off\n", vec![]),
        ] {
            assert_eq!(parsed(text), expected, "{text:?}");
        }
    }

    #[test]
    fn an_id_of_an_event_without_data_counts() {
        let (mut parser, mut events) = (Parser::after(Some("1".to_owned())), Vec::new());
        assert_eq!(parser.last_id(), Some("1"));
        parser.feed(b"id: 2\n\n", &mut events);
        assert_eq!((parser.last_id(), events.len()), (Some("2"), 0));
    }

    #[test]
    fn an_event_that_is_too_long_is_left_out_and_the_next_is_not() {
        let (mut parser, mut events) = (Parser::default(), Vec::new());
        let long = format!("data: {}\n\n", "x".repeat(1 << 20));
        parser.feed(long.as_bytes(), &mut events);
        parser.feed(b"data: short\n\n", &mut events);
        assert_eq!((events.len(), parser.left_out), (1, 1));
        assert!(parser.line.capacity() < 2 * EVENT_BYTES_MAX, "bounded");
    }
}
