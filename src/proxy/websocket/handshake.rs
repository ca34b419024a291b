//! The handshake (RFC 6455 section 4): what a client must bring, and what the upstream must answer.

use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::super::error::ProxyError;
use super::super::path::normalise;
use crate::http1::{Framing, RequestHead, ResponseHead, entries, has_entry};

/// What a client asked for.
#[derive(Debug)]
pub(in crate::proxy) struct Handshake {
    accept: String,
    protocols: Vec<String>,
}

impl Handshake {
    /// The handshake of this request, when it is one.
    pub(in crate::proxy) fn of(head: &RequestHead<'_>) -> Option<Self> {
        let is_handshake = head.method == "GET"
            && !head.is_old
            && matches!(head.body, Framing::Length(0))
            && has_entry(head.fields, "upgrade", "websocket")
            && has_entry(head.fields, "connection", "upgrade")
            && head.field("sec-websocket-version") == Some(b"13");
        // 16 bytes in base64.
        let key = head.field("sec-websocket-key")?;
        let is_key = key.len() == 24 && key.ends_with(b"==");
        (is_handshake && is_key).then(|| Self {
            accept: derive_accept_key(key),
            protocols: entries(head.fields, "sec-websocket-protocol")
                .map(|protocol| String::from_utf8_lossy(protocol).into_owned())
                .collect(),
        })
    }

    /// Whether a 101 of an upstream accepts it, and with a subprotocol that was offered.
    pub(in crate::proxy) fn is_answered_by(&self, head: &ResponseHead<'_>) -> bool {
        let mut keys = entries(head.fields, "sec-websocket-accept");
        let accepts = keys.next() == Some(self.accept.as_bytes()) && keys.next().is_none();
        let mut chosen = entries(head.fields, "sec-websocket-protocol");
        let chosen = (chosen.next(), chosen.next());
        let is_offered = match chosen {
            (None, _) => true,
            (Some(one), None) => self
                .protocols
                .iter()
                .any(|offered| offered.as_bytes() == one),
            _ => false,
        };
        accepts
            && is_offered
            && has_entry(head.fields, "upgrade", "websocket")
            && has_entry(head.fields, "connection", "upgrade")
    }
}

/// Path and query for the upstream, from `path` of the client's query: `/` without one. It may hold a query of its own;
/// its path is normalised as any other.
pub(in crate::proxy) fn upstream_target(query: Option<&str>) -> Result<String, ProxyError> {
    let pairs = query.unwrap_or_default().split('&');
    let Some(path) = pairs
        .into_iter()
        .find_map(|pair| pair.strip_prefix("path="))
    else {
        return Ok("/".to_owned());
    };
    let decoded = decode(path).ok_or(ProxyError::BadPath)?;
    let (path, query) = match decoded.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (&*decoded, None),
    };
    if !path.starts_with('/') {
        return Err(ProxyError::BadPath);
    }
    let path = normalise(path).map_err(|_| ProxyError::BadPath)?;
    Ok(match query {
        Some(query) => format!("{path}?{query}"),
        None => path.into_owned(),
    })
}

/// Decodes once. What cannot stand in a request target as it is stays encoded: blanks, controls, beyond ASCII.
fn decode(text: &str) -> Option<String> {
    let mut plain = String::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                u8::try_from(digit()? << 4 | digit()?).ok()?
            }
            b'+' => b' ',
            byte => byte,
        };
        match byte {
            b'!'..=b'~' if !b"\"<>^`{|}#".contains(&byte) => plain.push(char::from(byte)),
            byte => plain.push_str(&format!("%{byte:02X}")),
        }
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::slots;

    #[test]
    fn the_path_of_the_upstream_stands_in_the_query() {
        for (query, expected) in [
            ("", Some("/")),
            ("x=1", Some("/")),
            ("path=/a/b", Some("/a/b")),
            ("token=t&path=/a", Some("/a")),
            ("path=%2Fa%3Fb%3D1%26c%3D2", Some("/a?b=1&c=2")),
            ("path=/a%20b+c", Some("/a%20b%20c")),
            ("path=/%C3%A4", Some("/%C3%A4")),
            ("path=/a/../b", Some("/b")),
            ("path=/a%2520b", Some("/a%20b")),
            ("path=", None),
            ("path=a", None),
            ("path=http://other/", None),
            ("path=/..", None),
            ("path=/%2e%2e/x", None),
            ("path=/%252e%252e/x", None),
            ("path=/%252f", None),
            ("path=/%5C", None),
            ("path=/%zz", None),
            ("path=/%0d%0aX:1", None),
        ] {
            assert_eq!(
                upstream_target(Some(query)).ok().as_deref(),
                expected,
                "{query}"
            );
        }
        assert_eq!(upstream_target(None).as_deref(), Ok("/"));
    }

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
    const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

    fn handshake(line: &str, without: &str, with: &str) -> Option<Handshake> {
        let lines = [
            "host: a",
            "connection: keep-alive, Upgrade",
            "upgrade: WebSocket",
            "sec-websocket-version: 13",
            &format!("sec-websocket-key: {KEY}"),
        ]
        .into_iter()
        .filter(|one| without.is_empty() || !one.starts_with(without))
        .map(|one| format!("{one}\r\n"))
        .collect::<String>();
        let text = format!("{line}\r\n{lines}{with}\r\n");
        let mut slots = slots();
        let head = RequestHead::parse(text.as_bytes(), &mut slots).expect("a good head");
        Handshake::of(&head)
    }

    #[test]
    fn a_handshake_needs_all_its_parts() {
        assert!(handshake("GET / HTTP/1.1", "", "").is_some());
        for (line, without, with) in [
            ("POST / HTTP/1.1", "", ""),
            ("GET / HTTP/1.0", "", ""),
            ("GET / HTTP/1.1", "", "content-length: 1\r\n"),
            ("GET / HTTP/1.1", "connection", ""),
            ("GET / HTTP/1.1", "upgrade", ""),
            ("GET / HTTP/1.1", "upgrade", "upgrade: h2c\r\n"),
            ("GET / HTTP/1.1", "sec-websocket-version", ""),
            (
                "GET / HTTP/1.1",
                "sec-websocket-version",
                "sec-websocket-version: 8\r\n",
            ),
            ("GET / HTTP/1.1", "sec-websocket-key", ""),
            (
                "GET / HTTP/1.1",
                "sec-websocket-key",
                "sec-websocket-key: short\r\n",
            ),
        ] {
            assert!(
                handshake(line, without, with).is_none(),
                "{line} {without} {with}"
            );
        }
    }

    fn is_accepted(fields: &str) -> bool {
        let handshake = handshake("GET / HTTP/1.1", "", "sec-websocket-protocol: a, b\r\n");
        let text = format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n");
        let mut slots = slots();
        let head = ResponseHead::parse(text.as_bytes(), &mut slots, false).expect("a good head");
        handshake.expect("a handshake").is_answered_by(&head)
    }

    #[test]
    fn an_upstream_must_answer_the_very_handshake() {
        let upgrade = "upgrade: websocket\r\nconnection: Upgrade\r\n";
        let good = format!("{upgrade}sec-websocket-accept: {ACCEPT}\r\n");
        assert!(is_accepted(&good));
        assert!(is_accepted(&format!("{good}sec-websocket-protocol: b\r\n")));
        for bad in [
            upgrade.to_owned(),
            format!("sec-websocket-accept: {ACCEPT}\r\n"),
            format!("{upgrade}sec-websocket-accept: x\r\n"),
            format!("{good}sec-websocket-accept: {ACCEPT}\r\n"),
            format!("{good}sec-websocket-protocol: c\r\n"),
            format!("{good}sec-websocket-protocol: a, b\r\n"),
        ] {
            assert!(!is_accepted(&bad), "{bad}");
        }
    }
}
