//! A walker over a `text/event-stream`: cuts it at blank lines and says of each event whether it is a publication.
//! It looks for lines inside a block and so tolerates chunked framing around whole events (a chunk's size line is
//! just a line that means nothing), but not chunks that cut an event in two.

use memchr::memmem;

/// What stands at the head of the buffer.
#[derive(Debug, PartialEq)]
pub(crate) enum Event<'a> {
    /// An event without a name: its block of lines.
    Publication(&'a [u8]),
    /// `event: connected`.
    Connected,
    /// `event: gap`.
    Gap,
    /// A comment, a `retry:` of its own, or an event of another name.
    Other,
}

/// Reads the event at the head of `buffer` and how many bytes it took; nothing while its blank line has not come.
#[inline]
pub(crate) fn next(buffer: &[u8]) -> Option<(Event<'_>, usize)> {
    let end = memmem::find(buffer, b"\n\n")?;
    Some((classify(&buffer[..end]), end + 2))
}

#[inline]
fn classify(block: &[u8]) -> Event<'_> {
    // The shape of nearly all blocks, decided without a search.
    if block.starts_with(b"data: ") {
        return Event::Publication(block);
    }
    match name(block) {
        Some(b"connected") => Event::Connected,
        Some(b"gap") => Event::Gap,
        Some(_) => Event::Other,
        None if line_after(block, b"data: ").is_some() => Event::Publication(block),
        None => Event::Other,
    }
}

fn name(block: &[u8]) -> Option<&[u8]> {
    line_after(block, b"event: ").map(|name| name.trim_ascii_end())
}

/// What follows `field` on the first line that begins with it.
fn line_after<'a>(block: &'a [u8], field: &[u8]) -> Option<&'a [u8]> {
    block
        .split(|byte| *byte == b'\n')
        .find_map(|line| line.strip_prefix(field))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Event<'_>) {
        assert_eq!(
            next(text.as_bytes()),
            Some((expected, text.len())),
            "{text:?}"
        );
    }

    #[test]
    fn tells_publications_from_the_rest() {
        let block = "id: e:1\ndata: {\"channel\":\"a\"}";
        check(
            &format!("{block}\n\n"),
            Event::Publication(block.as_bytes()),
        );
        check("data: {}\n\n", Event::Publication(b"data: {}"));
        check(
            "retry: 3000\nevent: connected\ndata: {}\n\n",
            Event::Connected,
        );
        check("event: gap\ndata: {}\n\n", Event::Gap);
        check(": keep-alive\n\n", Event::Other);
        check("retry: 1000\n\n", Event::Other);
    }

    #[test]
    fn looks_through_chunked_framing() {
        let block = "\r\n1f\r\nid: e:1\ndata: {}";
        check(
            &format!("{block}\n\n"),
            Event::Publication(block.as_bytes()),
        );
    }

    #[test]
    fn waits_for_the_blank_line() {
        assert_eq!(next(b"id: e:1\ndata: {}\n"), None);
    }
}
