//! A stream's request as a head of HTTP/1 (RFC 9113 section 8.3.1).

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use h2::ext::Protocol;
use http::header::{
    CONTENT_LENGTH, COOKIE, HOST, HeaderMap, SEC_WEBSOCKET_KEY, TE, TRANSFER_ENCODING,
};
use http::request::Parts;
use http::{HeaderValue, Method};

use super::is_of_connection;

/// A request that is no request of HTTP/2: its stream is reset (section 8.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed request")]
pub(super) struct Malformed;

/// A request in HTTP/1.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Translated {
    /// Its head; the body follows as it says.
    Request {
        /// With the empty line.
        head: Vec<u8>,
        /// Whether the body goes in chunks.
        is_chunked: bool,
    },
    /// A WebSocket (RFC 8441): the head of its handshake. The bytes of the stream are its frames once it was answered.
    WebSocket {
        /// With the empty line.
        head: Vec<u8>,
    },
    /// An extended `CONNECT` for a protocol that is not known here: to be answered 501 (RFC 9220 section 3).
    UnknownProtocol,
}

/// Translates a request, of which `has_body` says whether anything follows its head.
///
/// # Errors
/// When it is malformed in a way that the head in HTTP/1 would not show.
pub(super) fn translate(parts: &Parts, has_body: bool) -> Result<Translated, Malformed> {
    check_values(&parts.headers)?;
    let protocol = parts.extensions.get::<Protocol>();
    if protocol.is_some_and(|protocol| protocol.as_str() != "websocket") {
        return Ok(Translated::UnknownProtocol);
    }
    let is_websocket = protocol.is_some();
    let mut head = Vec::with_capacity(512);
    head.extend_from_slice(match is_websocket {
        true => b"GET",
        false => parts.method.as_str().as_bytes(),
    });
    head.push(b' ');
    head.extend_from_slice(target(parts).as_bytes());
    head.extend_from_slice(b" HTTP/1.1\r\n");
    write_host(parts, &mut head)?;
    write_fields(&parts.headers, is_websocket, &mut head);
    if is_websocket {
        write_upgrade(&mut head);
        return Ok(Translated::WebSocket { head });
    }
    let is_chunked = has_body && !parts.headers.contains_key(CONTENT_LENGTH);
    if is_chunked {
        line(&mut head, b"transfer-encoding", b"chunked");
    }
    head.extend_from_slice(b"\r\n");
    Ok(Translated::Request { head, is_chunked })
}

/// No blank at either end (section 8.2.1): HTTP/1 would take it off, and another server might not.
fn check_values(fields: &HeaderMap) -> Result<(), Malformed> {
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let is_bad = |value: &HeaderValue| {
        let value = value.as_bytes();
        is_blank(value.first()) || is_blank(value.last())
    };
    match fields.values().any(is_bad) {
        true => Err(Malformed),
        false => Ok(()),
    }
}

/// A plain `CONNECT` has an authority only, and is refused for what it is.
fn target(parts: &Parts) -> &str {
    let path = parts.uri.path_and_query().map(|target| target.as_str());
    match path {
        Some(path) => path,
        None if parts.method == Method::CONNECT => "*",
        None => "/",
    }
}

/// One `Host`: the authority where there is one, which every `Host` beside it has to repeat.
fn write_host(parts: &Parts, head: &mut Vec<u8>) -> Result<(), Malformed> {
    let hosts = parts.headers.get_all(HOST);
    let Some(authority) = parts.uri.authority() else {
        hosts
            .iter()
            .for_each(|host| line(head, b"host", host.as_bytes()));
        return Ok(());
    };
    let authority = authority.as_str().as_bytes();
    let differs = |host: &HeaderValue| !host.as_bytes().eq_ignore_ascii_case(authority);
    if hosts.iter().any(differs) {
        return Err(Malformed);
    }
    line(head, b"host", authority);
    Ok(())
}

fn write_fields(fields: &HeaderMap, is_websocket: bool, head: &mut Vec<u8>) {
    for (name, value) in fields {
        let is_said_anew = is_of_connection(name.as_str().as_bytes())
            || *name == HOST
            || *name == COOKIE
            || *name == TE
            || *name == TRANSFER_ENCODING
            || (is_websocket && (*name == SEC_WEBSOCKET_KEY || *name == CONTENT_LENGTH));
        if !is_said_anew {
            line(head, name.as_str().as_bytes(), value.as_bytes());
        }
    }
    // Crumbs become one field again (section 8.2.3).
    let cookies: Vec<&[u8]> = fields
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if !cookies.is_empty() {
        line(head, b"cookie", &cookies.join(&b"; "[..]));
    }
    // Nothing else may stand in it (section 8.2.2), and h2 has seen to that.
    if fields.contains_key(TE) {
        line(head, b"te", b"trailers");
    }
}

/// What a handshake of HTTP/1 says beside (RFC 8441 section 5). Its key is ours: HTTP/2 needs none.
fn write_upgrade(head: &mut Vec<u8>) {
    let key: [u8; 16] = rand::random();
    line(head, b"connection", b"upgrade");
    line(head, b"upgrade", b"websocket");
    line(
        head,
        b"sec-websocket-key",
        BASE64_STANDARD.encode(key).as_bytes(),
    );
    head.extend_from_slice(b"\r\n");
}

fn line(head: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    head.extend_from_slice(name);
    head.extend_from_slice(b": ");
    head.extend_from_slice(value);
    head.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn parts(method: &str, uri: &str, fields: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request").into_parts().0
    }

    fn check(parts: &Parts, has_body: bool, expected: &str) {
        let head = match translate(parts, has_body).expect("a request") {
            Translated::Request { head, .. } | Translated::WebSocket { head } => head,
            Translated::UnknownProtocol => Vec::new(),
        };
        assert_eq!(String::from_utf8(head).expect("text"), expected);
    }

    #[test]
    fn requests_say_in_http1_what_they_said() {
        check(
            &parts("GET", "http://a:1/x?y", &[("accept", "*/*")]),
            false,
            "GET /x?y HTTP/1.1\r\nhost: a:1\r\naccept: */*\r\n\r\n",
        );
        let cookies = [("cookie", "a=b"), ("te", "trailers"), ("cookie", "c=d")];
        check(
            &parts("POST", "http://a/", &cookies),
            true,
            "POST / HTTP/1.1\r\nhost: a\r\ncookie: a=b; c=d\r\nte: trailers\r\n\
             transfer-encoding: chunked\r\n\r\n",
        );
        check(
            &parts("POST", "/", &[("host", "a"), ("content-length", "3")]),
            true,
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\n",
        );
        check(
            &parts("CONNECT", "a:80", &[]),
            false,
            "CONNECT * HTTP/1.1\r\nhost: a:80\r\n\r\n",
        );
    }

    #[test]
    fn a_host_beside_the_authority_has_to_repeat_it() {
        let hosts = |host| parts("GET", "http://a/", &[("host", host)]);
        assert!(translate(&hosts("A"), false).is_ok());
        assert_eq!(translate(&hosts("b"), false), Err(Malformed));
        let both = parts("GET", "http://a/", &[("host", "a"), ("host", "b")]);
        assert_eq!(translate(&both, false), Err(Malformed));
        // Nothing to hold them against: whoever reads the head refuses two.
        let none = parts("GET", "/", &[("host", "a"), ("host", "b")]);
        check(&none, false, "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n");
    }

    #[test]
    fn values_with_blanks_around_them_are_malformed() {
        for bad in [" a", "a ", "\ta", "a\t"] {
            let parts = parts("GET", "http://a/", &[("x", bad)]);
            assert_eq!(translate(&parts, false), Err(Malformed), "{bad:?}");
        }
    }

    #[test]
    fn a_websocket_becomes_a_handshake_with_a_key_of_ours() {
        let fields = [("sec-websocket-version", "13"), ("sec-websocket-key", "x")];
        let mut parts = parts("CONNECT", "https://a/ws/connect?token=t", &fields);
        parts.extensions.insert(Protocol::from_static("websocket"));
        let Ok(Translated::WebSocket { head }) = translate(&parts, true) else {
            panic!("no WebSocket");
        };
        let head = String::from_utf8(head).expect("text");
        let (before, after) = head.split_once("sec-websocket-key: ").expect("a key");
        assert_eq!(
            before,
            "GET /ws/connect?token=t HTTP/1.1\r\nhost: a\r\nsec-websocket-version: 13\r\n\
             connection: upgrade\r\nupgrade: websocket\r\n"
        );
        assert_eq!(after.len(), 24 + 4);
        parts
            .extensions
            .insert(Protocol::from_static("connect-udp"));
        assert_eq!(translate(&parts, true), Ok(Translated::UnknownProtocol));
    }
}
