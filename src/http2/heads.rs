//! The head of a server's answer as one of HTTP/1.

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{Response, StatusCode};

/// What most heads of answers fit in.
const HEAD_BYTES_USUAL: usize = 512;

/// An interim answer's head in HTTP/1.
pub(super) fn interim_head(response: &Response<()>) -> Bytes {
    let mut bytes = status_line(response);
    write_fields(response, &mut bytes);
    bytes.extend_from_slice(b"\r\n");
    bytes.into()
}

/// The head in HTTP/1, and whether its body comes in chunks. The connection that it stands on is used once.
pub(super) fn head_of(response: &Response<()>, ends: bool, is_head: bool) -> (Bytes, bool) {
    let mut bytes = status_line(response);
    write_fields(response, &mut bytes);
    bytes.extend_from_slice(b"connection: close\r\n");
    let status = response.status();
    let has_none =
        is_head || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED;
    let is_told = has_none || response.headers().contains_key(CONTENT_LENGTH);
    match (is_told, ends) {
        (true, _) => {}
        (false, true) => bytes.extend_from_slice(b"content-length: 0\r\n"),
        (false, false) => bytes.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    bytes.extend_from_slice(b"\r\n");
    (bytes.into(), !is_told && !ends)
}

fn status_line(response: &Response<()>) -> Vec<u8> {
    let status = response.status();
    let parts = [
        "HTTP/1.1 ",
        status.as_str(),
        " ",
        status.canonical_reason().unwrap_or_default(),
        "\r\n",
    ];
    let mut bytes = Vec::with_capacity(HEAD_BYTES_USUAL);
    parts
        .iter()
        .for_each(|part| bytes.extend_from_slice(part.as_bytes()));
    bytes
}

fn write_fields(response: &Response<()>, bytes: &mut Vec<u8>) {
    for (name, value) in response.headers() {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;

    fn check(
        status: u16,
        fields: &[(&str, &str)],
        (ends, is_head): (bool, bool),
        expected: (&str, bool),
    ) {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(status).expect("a status");
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            let name: http::HeaderName = name.parse().expect("a name");
            map.append(name, value.parse().expect("a value"));
        }
        *response.headers_mut() = map;
        let (bytes, is_chunked) = head_of(&response, ends, is_head);
        let text = String::from_utf8(bytes.to_vec()).expect("text");
        assert_eq!((&*text, is_chunked), expected);
    }

    #[test]
    fn answers_say_in_http1_where_they_end() {
        let line = "HTTP/1.1 200 OK\r\n";
        let close = "connection: close\r\n";
        let text = |rest: &str| format!("{line}{close}{rest}\r\n");
        check(
            200,
            &[],
            (false, false),
            (&text("transfer-encoding: chunked\r\n"), true),
        );
        check(
            200,
            &[],
            (true, false),
            (&text("content-length: 0\r\n"), false),
        );
        check(200, &[], (true, true), (&text(""), false));
        let length = [("content-length", "3")];
        let told = format!("{line}content-length: 3\r\n{close}\r\n");
        check(200, &length, (false, false), (&told, false));
        check(200, &length, (true, true), (&told, false));
        let none = "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
        check(204, &[], (true, false), (none, false));
        check(
            304,
            &[],
            (false, false),
            (
                "HTTP/1.1 304 Not Modified\r\nconnection: close\r\n\r\n",
                false,
            ),
        );
    }
}
