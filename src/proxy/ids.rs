//! The ids of a request: `X-Request-Id` and `X-Correlation-Id`, which upstream and client are told alike.

use super::line::line;
use crate::http1::RequestHead;

/// Longest id of a caller that is kept.
const ID_BYTES_MAX: usize = 128;

/// The lines of a request's ids: kept where the caller brought good ones (1 to 128 visible characters), made otherwise;
/// a correlation id that nobody brought is the request's.
pub(super) fn ids(head: &RequestHead<'_>) -> Vec<u8> {
    let mut made = uuid::Uuid::encode_buffer();
    let brought = |name| head.field(name).filter(|id| is_kept(id));
    let request = brought("x-request-id").unwrap_or_else(|| random_id(&mut made));
    let correlation = brought("x-correlation-id").unwrap_or(request);
    let mut lines = Vec::with_capacity(64 + request.len() + correlation.len());
    line(&mut lines, b"x-request-id", request);
    line(&mut lines, b"x-correlation-id", correlation);
    lines
}

/// The request's id in these lines.
pub(super) fn request_id(lines: &[u8]) -> &str {
    let lines = std::str::from_utf8(lines).unwrap_or_default();
    let first = lines.split("\r\n").next().unwrap_or_default();
    first.strip_prefix("x-request-id: ").unwrap_or_default()
}

fn is_kept(id: &[u8]) -> bool {
    (1..=ID_BYTES_MAX).contains(&id.len()) && id.iter().all(|byte| (b' '..=b'~').contains(byte))
}

/// From this thread's generator: the system's costs a call each time, and an id is no secret.
fn random_id(text: &mut [u8; 45]) -> &[u8] {
    let id = uuid::Builder::from_random_bytes(rand::random()).into_uuid();
    id.hyphenated().encode_lower(text).as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::slots;

    #[test]
    fn ids_are_kept_when_they_are_good() {
        let long = "x".repeat(129);
        for (brought, kept) in [
            ("abc", true),
            ("", false),
            (&*long, false),
            ("\u{e4}", false),
        ] {
            let text = format!("GET / HTTP/1.1\r\nhost: a\r\nx-request-id: {brought}\r\n\r\n");
            let mut slots = slots();
            let head = RequestHead::parse(text.as_bytes(), &mut slots).expect("a good head");
            let lines = String::from_utf8(ids(&head)).expect("text");
            let values: Vec<&str> = lines
                .lines()
                .filter_map(|line| line.split(": ").nth(1))
                .collect();
            assert_eq!(values[0], values[1]);
            assert_eq!(values[0] == brought, kept, "{brought}");
            assert!(kept || values[0].len() == 36, "{lines}");
        }
    }
}
