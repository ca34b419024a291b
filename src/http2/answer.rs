//! An answer's head in HTTP/1 as one of HTTP/2.

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

/// The head, without what belongs to one connection. `None` when it cannot be one: a bug of ours, or nonsense of an
/// upstream that HTTP/1 lets pass.
pub(super) fn translate(head: &ResponseHead<'_>, is_websocket: bool) -> Option<Response<()>> {
    let is_switched = head.status == 101;
    if is_switched && !is_websocket {
        return None;
    }
    let status = if is_switched { 200 } else { head.status };
    let mut fields = fields(head.fields)?;
    if is_switched {
        fields.remove(SEC_WEBSOCKET_ACCEPT);
    }
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(status).ok()?;
    *response.headers_mut() = fields;
    Some(response)
}

/// Fields as HTTP/2 has them.
pub(super) fn fields(fields: &[Field<'_>]) -> Option<HeaderMap> {
    let mut map = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let once = ONCE.iter().find(|name| *name == field.name);
        let name = match once {
            Some(name) => name.clone(),
            None => HeaderName::from_bytes(field.name.as_bytes()).ok()?,
        };
        if !is_of_connection(name.as_str().as_bytes()) {
            let mut value = HeaderValue::from_bytes(field.value).ok()?;
            value.set_sensitive(once.is_some());
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
        let head = ResponseHead::parse(head.as_bytes(), &mut slots, false).expect("a head");
        let translated = translate(&head, is_websocket);
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
}
