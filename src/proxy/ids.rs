//! The ids of a request: `X-Request-Id` and `X-Correlation-Id`, which upstream and client are told alike.

use super::line::line;
use crate::http1::RequestHead;

/// Longest id of a caller that is kept.
const ID_BYTES_MAX: usize = 128;

/// The lines of a request's ids: kept where the caller brought good ones (1 to 128 printable characters), made otherwise;
/// of two of which one was brought, the other is the same.
pub(super) fn ids(head: &RequestHead<'_>) -> Vec<u8> {
    let mut made = uuid::Uuid::encode_buffer();
    let brought = |name| head.field(name).filter(|id| is_kept(id));
    let (request, correlation) = (brought("x-request-id"), brought("x-correlation-id"));
    let request = request.or(correlation);
    let request = request.unwrap_or_else(|| random_id(&mut made));
    let correlation = correlation.unwrap_or(request);
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

    /// The ids of a request that came with these fields.
    fn told(fields: &str) -> [String; 2] {
        let text = format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}\r\n");
        let mut slots = slots();
        let head = RequestHead::parse(text.as_bytes(), &mut slots).expect("a good head");
        let lines = String::from_utf8(ids(&head)).expect("text");
        let mut lines = lines.lines();
        ["x-request-id: ", "x-correlation-id: "].map(|name| {
            let line = lines.next().expect("a line");
            line.strip_prefix(name).expect("this id").to_owned()
        })
    }

    #[test]
    fn ids_are_kept_when_they_are_good() {
        let (longest, long) = ("x".repeat(128), "x".repeat(129));
        for (brought, kept) in [
            ("abc", true),
            ("a b", true),
            (&*longest, true),
            ("", false),
            (&*long, false),
            ("\u{e4}", false),
        ] {
            for name in ["x-request-id", "X-Correlation-ID"] {
                let [request, correlation] = told(&format!("{name}: {brought}\r\n"));
                assert_eq!(request, correlation, "only one was brought");
                assert_eq!(request == brought, kept, "{name} {brought}");
                assert!(kept || request.len() == 36, "{request}");
            }
        }
    }

    #[test]
    fn two_ids_are_two() {
        for (request, correlation, expected) in [
            ("r", "c", ["r", "c"]),
            ("r", "\u{e4}", ["r", "r"]),
            ("\u{e4}", "c", ["c", "c"]),
        ] {
            let fields = format!("x-request-id: {request}\r\nx-correlation-id: {correlation}\r\n");
            assert_eq!(told(&fields), expected);
        }
    }
}
