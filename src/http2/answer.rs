//! An answer's head in HTTP/1 as one of HTTP/2.

use bytes::Bytes;
use http::header::SEC_WEBSOCKET_ACCEPT;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use super::is_of_connection;
use crate::http1::{Field, ResponseHead};

/// Fields whose value is another one in each message. A compressor that remembers them (RFC 7541 section 2.3.2) works for
/// nothing, and forgets what will come again: so it is told that they are never to be.
static ONCE: [HeaderName; 3] = [
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("x-correlation-id"),
    HeaderName::from_static("traceparent"),
];

/// Names that a gateway writes into every request: to know them costs less than to make them.
static GATEWAYS: [HeaderName; 7] = [
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-port"),
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static("x-user-id"),
    HeaderName::from_static("x-user-role"),
];

/// A head that is longer than this is not kept for the sake of its values, which a compressor may remember for long
/// (RFC 7541 section 4.1): they are copied.
const SHARED_BYTES_MAX: usize = 4096;

/// The head, without what belongs to one connection; where a WebSocket was asked for and none is opened, a success becomes a
/// refusal, which has no body. `None` when it cannot be one: a bug of ours, or nonsense of an
/// upstream that HTTP/1 lets pass.
pub(super) fn translate(
    head: &ResponseHead<'_>,
    bytes: &Bytes,
    is_websocket: bool,
) -> Option<Response<()>> {
    let is_switched = head.status == 101;
    if is_switched && !is_websocket {
        return None;
    }
    if is_websocket && (200..300).contains(&head.status) {
        return Some(unaccepted());
    }
    let status = if is_switched { 200 } else { head.status };
    let mut fields = fields_of(head.fields, bytes)?;
    if is_switched {
        fields.remove(SEC_WEBSOCKET_ACCEPT);
    }
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(status).ok()?;
    *response.headers_mut() = fields;
    Some(response)
}

/// To a client that asked for a WebSocket any success says that the stream is one (RFC 8441 section 5, RFC 9110 section
/// 9.3.6). Who answers so over HTTP/1 has heard a GET.
fn unaccepted() -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::BAD_REQUEST;
    response
}

/// Fields as HTTP/2 has them.
pub(super) fn fields(fields: &[Field<'_>]) -> Option<HeaderMap> {
    map(fields, |value| HeaderValue::from_bytes(value).ok())
}

/// The same of fields that stand in these bytes: their values are not copied where the head is short.
pub(super) fn fields_of(fields: &[Field<'_>], bytes: &Bytes) -> Option<HeaderMap> {
    if bytes.len() > SHARED_BYTES_MAX {
        return self::fields(fields);
    }
    let range = bytes.as_ptr_range();
    map(fields, |value| match range.contains(&value.as_ptr()) {
        true => HeaderValue::from_maybe_shared(bytes.slice_ref(value)).ok(),
        // Only what is empty stands nowhere.
        false => HeaderValue::from_bytes(value).ok(),
    })
}

/// A name, which is known where we wrote it ourselves.
fn name_of(name: &str) -> Option<HeaderName> {
    let known = match name {
        "x-forwarded-for" => &GATEWAYS[0],
        "x-forwarded-proto" => &GATEWAYS[1],
        "x-forwarded-host" => &GATEWAYS[2],
        "x-forwarded-port" => &GATEWAYS[3],
        "x-real-ip" => &GATEWAYS[4],
        "x-user-id" => &GATEWAYS[5],
        "x-user-role" => &GATEWAYS[6],
        "x-request-id" => &ONCE[0],
        "x-correlation-id" => &ONCE[1],
        "via" => &http::header::VIA,
        name => return HeaderName::from_bytes(name.as_bytes()).ok(),
    };
    Some(known.clone())
}

fn map(fields: &[Field<'_>], value_of: impl Fn(&[u8]) -> Option<HeaderValue>) -> Option<HeaderMap> {
    let mut map = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = name_of(field.name)?;
        if !is_of_connection(name.as_str().as_bytes()) {
            let mut value = value_of(field.value)?;
            value.set_sensitive(ONCE.contains(&name));
            map.append(name, value);
        }
    }
    Some(map)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::slots;

    fn check(head: &str, is_websocket: bool, expected: Option<(u16, &[(&str, &str)])>) {
        let mut slots = slots();
        let bytes = Bytes::copy_from_slice(head.as_bytes());
        let head = ResponseHead::parse(&bytes, &mut slots, false).expect("a head");
        let translated = translate(&head, &bytes, is_websocket);
        let found = translated.as_ref().map(|response| {
            let fields = response.headers().iter();
            let fields: Vec<(&str, &str)> = fields
                .map(|(name, value)| (name.as_str(), value.to_str().expect("text")))
                .collect();
            (response.status().as_u16(), fields)
        });
        let expected = expected.map(|(status, fields)| (status, fields.to_vec()));
        assert_eq!(found, expected);
    }

    #[test]
    fn what_never_comes_again_is_not_remembered() {
        let mut slots = slots();
        let head =
            b"HTTP/1.1 200 OK\r\nx-request-id: a\r\nX-Other: b\r\nX-Correlation-Id: c\r\n\r\n";
        let head = ResponseHead::parse(head, &mut slots, false).expect("a head");
        let fields = fields(head.fields).expect("fields");
        let remembered = |name: &str| !fields[name].is_sensitive();
        assert_eq!(
            ["x-request-id", "x-other", "x-correlation-id"].map(remembered),
            [false, true, false]
        );
    }

    #[test]
    fn names_that_are_known_are_what_they_would_be_anyway() {
        for name in GATEWAYS.iter().chain(&ONCE).chain([&http::header::VIA]) {
            assert_eq!(name_of(name.as_str()).as_ref(), Some(name));
        }
        assert_eq!(name_of("X-Other"), Some(HeaderName::from_static("x-other")));
        assert_eq!(name_of("a b"), None);
    }

    #[test]
    fn values_are_the_same_copied_or_not() {
        for length in [10, 2 * SHARED_BYTES_MAX] {
            let text = format!(
                "HTTP/1.1 200 OK\r\nx-a: {}\r\nx-b:\r\n\r\n",
                "y".repeat(length)
            );
            let bytes = Bytes::from(text);
            let mut slots = slots();
            let head = ResponseHead::parse(&bytes, &mut slots, false).expect("a head");
            let shared = fields_of(head.fields, &bytes);
            assert_eq!(shared, fields(head.fields));
            let value = shared.expect("fields")["x-a"].as_bytes().as_ptr();
            assert_eq!(bytes.as_ptr_range().contains(&value), length == 10);
        }
    }

    #[test]
    fn what_belongs_to_a_connection_of_http1_stays_there() {
        check(
            "HTTP/1.1 200 OK\r\nX-A: b\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\
             keep-alive: timeout=5\r\n\r\n",
            false,
            Some((200, &[("x-a", "b")])),
        );
        check(
            "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n",
            false,
            Some((103, &[("link", "x")])),
        );
    }

    #[test]
    fn a_websocket_is_answered_200_and_nothing_else_switches() {
        let head = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                    sec-websocket-accept: x\r\nsec-websocket-protocol: fanfare.json\r\n\r\n";
        check(
            head,
            true,
            Some((200, &[("sec-websocket-protocol", "fanfare.json")])),
        );
        check(head, false, None);
    }

    #[test]
    fn a_success_that_opens_no_websocket_is_a_refusal() {
        for (status, expected) in [(200, 400), (204, 400), (103, 103), (302, 302), (404, 404)] {
            let head = format!("HTTP/1.1 {status} X\r\nx-a: b\r\ncontent-length: 0\r\n\r\n");
            let all = [("x-a", "b"), ("content-length", "0")];
            let fields = if expected == 400 { &[][..] } else { &all };
            check(&head, true, Some((expected, fields)));
        }
    }
}
