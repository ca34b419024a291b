//! A stream of events, taken apart (HTML, 9.2.6), and one event as it stands in a channel.

use serde::{Deserialize, Serialize};

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
    /// In the place of an event: some may be missing here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) gap: bool,
}

impl Event {
    /// Says that events may be missing here; `id` is the upstream's last one, as far as it is known.
    pub(super) fn gap(id: Option<String>) -> Self {
        Self {
            id,
            gap: true,
            ..Self::default()
        }
    }

    /// As it stands in a channel.
    pub(super) fn to_json(&self) -> Vec<u8> {
        // A plain struct of texts and numbers: that cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// Takes a stream apart as it comes.
#[derive(Debug)]
pub(super) struct Parser {
    line: Vec<u8>,
    after_return: bool,
    has_begun: bool,
    present: Event,
    has_data: bool,
    /// Bytes of the present event; with more than `bytes_max` it is left out.
    bytes: usize,
    bytes_max: usize,
    /// The last id that the upstream gave.
    last_id: Option<String>,
    /// After how many milliseconds the upstream wants to be asked again.
    retry: Option<u64>,
    /// Events that were left out.
    pub(super) left_out: u64,
}

impl Parser {
    /// One that goes on after this id. An event of more bytes, or whose JSON text has more, is left out, and a gap stands in
    /// its place.
    pub(super) fn after(last_id: Option<String>, bytes_max: usize) -> Self {
        Self {
            line: Vec::new(),
            after_return: false,
            has_begun: false,
            present: Event::default(),
            has_data: false,
            bytes: 0,
            bytes_max,
            last_id,
            retry: None,
            left_out: 0,
        }
    }

    /// After how many milliseconds the upstream wants to be asked again when its stream ends.
    pub(super) fn retry(&self) -> Option<u64> {
        self.retry
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
                // Of a comment its colon says everything, and it goes no further: it counts for no event.
                _ if self.line.first() == Some(&b':') => {}
                b':' if self.line.is_empty() => self.line.push(b':'),
                byte => {
                    self.bytes += 1;
                    // One byte at least: an empty line would end the event.
                    if self.bytes <= self.bytes_max || self.line.is_empty() {
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
        event.id.clone_from(&self.last_id);
        if std::mem::take(&mut self.bytes) > self.bytes_max {
            self.leave_out(events);
        } else if has_data {
            match event.to_json().len() > self.bytes_max {
                true => self.leave_out(events),
                false => events.push(event),
            }
        }
    }

    fn leave_out(&mut self, events: &mut Vec<Event>) {
        self.left_out += 1;
        events.push(Event::gap(self.last_id.clone()));
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
                // As it goes out, a line may be longer than it came: `data` becomes `data: ` and a line end.
                self.bytes += 3;
            }
            "id" if !value.contains('\0') => self.last_id = Some(value.to_owned()),
            "retry" if value.bytes().all(|byte| byte.is_ascii_digit()) => {
                self.present.retry = value.parse().ok();
                self.retry = self.present.retry.or(self.retry);
            }
            // Comments, and what nobody knows.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 1000;

    /// The events of a text, however it is cut.
    fn parsed(text: &str) -> Vec<Event> {
        let of = |cut: usize| {
            let (mut parser, mut events) = (Parser::after(None, MOST), Vec::new());
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
            gap: false,
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
        let (mut parser, mut events) = (Parser::after(Some("1".to_owned()), MOST), Vec::new());
        assert_eq!(parser.last_id(), Some("1"));
        parser.feed(b"id: 2\n\n", &mut events);
        assert_eq!((parser.last_id(), events.len()), (Some("2"), 0));
    }

    #[test]
    fn a_gap_stands_for_an_event_that_is_too_long() {
        let quotes = "\"".repeat(MOST / 2 + 1);
        for long in ["x".repeat(1 << 20), quotes] {
            let (mut parser, mut events) = (Parser::after(None, MOST), Vec::new());
            let text = format!("id: 1\ndata: {long}\n\ndata: short\n\n");
            parser.feed(text.as_bytes(), &mut events);
            let id = Some("1".to_owned());
            assert_eq!(events[0], Event::gap(id));
            assert_eq!(events[1], event(None, "short", None, Some("1")));
            assert_eq!((events.len(), parser.left_out), (2, 1));
            assert!(parser.line.capacity() < 4 * MOST, "bounded");
        }
    }

    #[test]
    fn comments_count_for_no_event() {
        let (mut parser, mut events) = (Parser::after(None, MOST), Vec::new());
        let comment = format!(": {}\n", "x".repeat(MOST));
        let text = format!("{comment}data: a\n{comment}data: b\n\n");
        parser.feed(text.as_bytes(), &mut events);
        assert_eq!(events, [event(None, "a\nb", None, None)]);
    }

    #[test]
    fn one_gap_stands_for_an_event_of_several_lines() {
        let (mut parser, mut events) = (Parser::after(None, MOST), Vec::new());
        let long = "x".repeat(2 * MOST);
        let text = format!("data: {long}\ndata: a\n:\ndata: b\n\ndata: c\n\n");
        parser.feed(text.as_bytes(), &mut events);
        assert_eq!(events, [Event::gap(None), event(None, "c", None, None)]);
    }

    #[test]
    fn the_last_time_to_come_back_after_counts() {
        let (mut parser, mut events) = (Parser::after(None, MOST), Vec::new());
        assert_eq!(parser.retry(), None);
        parser.feed(
            b"retry: 5\n\nretry: 7\ndata: a\n\nretry: x\n\n",
            &mut events,
        );
        assert_eq!(parser.retry(), Some(7));
    }
}
