//! A request's head, held to what every server between client and upstream must read alike.

use std::mem::MaybeUninit;

use super::{Field, Framing, entries};

/// The longest request target. Longer ones are no address that this server gives out.
const TARGET_BYTES_MAX: usize = 8 * 1024;

/// Why a head may reach nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// Not HTTP/1.
    #[error("malformed head")]
    Malformed,
    /// More than there are slots: over [`FIELDS_MAX`](super::FIELDS_MAX), where those are of [`slots`](super::slots).
    #[error("too many header fields")]
    TooManyFields,
    /// A version of HTTP that is not spoken here.
    #[error("unknown version")]
    Version,
    /// Not exactly one valid `Host`, or not the one that the target names (RFC 9112 section 3.2).
    #[error("bad host")]
    BadHost,
    /// `CONNECT`: this is no tunnel.
    #[error("CONNECT")]
    Connect,
    /// `TRACE` gives a client's credentials back to whoever made it ask.
    #[error("TRACE")]
    Trace,
    /// The target is over its limit.
    #[error("target too long")]
    TargetTooLong,
    /// Two ways to tell where the body ends, or one that is no way (section 6.3).
    #[error("ambiguous length")]
    AmbiguousLength,
    /// A transfer coding other than `chunked` (section 6.1).
    #[error("unknown transfer coding")]
    Coding,
}

/// A request's head.
#[derive(Debug)]
pub struct RequestHead<'a> {
    /// As it came; methods are told apart by case.
    pub method: &'a str,
    /// Path and query, or `*`.
    pub target: &'a str,
    /// Whether it is HTTP/1.0.
    pub is_old: bool,
    /// Empty only where HTTP/1.0 leaves it out.
    pub host: &'a str,
    /// All fields, in order.
    pub fields: &'a [Field<'a>],
    /// Where the body ends.
    pub body: Framing,
    /// Whether the connection can carry another request. Behind the handshake of a WebSocket it cannot: who takes that to be
    /// accepted sends frames, and what looks like a request among them is none (CVE-2026-2833).
    pub keeps_alive: bool,
}

impl<'a> RequestHead<'a> {
    /// Reads a whole head, as [`HeadScan`](super::HeadScan) found it.
    ///
    /// # Errors
    /// With what is wrong with it; its connection must not be read any further.
    pub fn parse(
        head: &'a [u8],
        slots: &'a mut [MaybeUninit<Field<'a>>],
    ) -> Result<Self, HeadError> {
        let mut request = httparse::Request::new(&mut []);
        match request.parse_with_uninit_headers(head, slots) {
            Ok(httparse::Status::Complete(length)) if length == head.len() => {}
            Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooManyFields),
            Err(httparse::Error::Version) if names_a_version(head) => {
                return Err(HeadError::Version);
            }
            _ => return Err(HeadError::Malformed),
        }
        let fields: &'a [Field<'a>] = request.headers;
        let method = request.method.ok_or(HeadError::Malformed)?;
        match method {
            "CONNECT" => return Err(HeadError::Connect),
            "TRACE" => return Err(HeadError::Trace),
            _ => {}
        }
        let is_old = request.version == Some(0);
        let (authority, target) = target(request.path.ok_or(HeadError::Malformed)?)?;
        let seen = Seen::of(fields)?;
        let host = host(seen.host, authority, is_old)?;
        Ok(Self {
            method,
            target,
            is_old,
            host,
            fields,
            body: framing(&seen, fields, is_old)?,
            keeps_alive: keeps_alive(&seen, fields, is_old),
        })
    }

    /// The first field of this name.
    pub fn field(&self, name: &str) -> Option<&'a [u8]> {
        let mut fields = self.fields.iter();
        fields
            .find(|field| field.name.eq_ignore_ascii_case(name))
            .map(|field| field.value)
    }
}

/// Whether the request line is one of HTTP, of whatever version.
fn names_a_version(head: &[u8]) -> bool {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let version = words.nth(2).and_then(|word| word.strip_prefix(b"HTTP/"));
    let is_version = |version: &[u8]| matches!(version, [major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit());
    words.next().is_none() && version.is_some_and(is_version)
}

/// The fields that say where a request belongs and where it ends.
#[derive(Default)]
struct Seen<'a> {
    host: Option<&'a [u8]>,
    length: Option<&'a [u8]>,
    has_coding: bool,
    has_connection: bool,
    has_upgrade: bool,
}

impl<'a> Seen<'a> {
    fn of(fields: &'a [Field<'a>]) -> Result<Self, HeadError> {
        let mut seen = Self::default();
        for field in fields {
            // By length first: most fields are none of these.
            match field.name.len() {
                4 if field.name.eq_ignore_ascii_case("host") => {
                    let another = seen.host.replace(field.value);
                    another.map_or(Ok(()), |_| Err(HeadError::BadHost))?;
                }
                14 if field.name.eq_ignore_ascii_case("content-length") => {
                    // Even the same twice: others join them to a list.
                    let another = seen.length.replace(field.value);
                    another.map_or(Ok(()), |_| Err(HeadError::AmbiguousLength))?;
                }
                17 if field.name.eq_ignore_ascii_case("transfer-encoding") => {
                    seen.has_coding = true;
                }
                10 if field.name.eq_ignore_ascii_case("connection") => seen.has_connection = true,
                7 if field.name.eq_ignore_ascii_case("upgrade") => seen.has_upgrade = true,
                _ => {}
            }
        }
        Ok(seen)
    }
}

/// The authority that an absolute target names, and its path and query.
fn target(text: &str) -> Result<(Option<&str>, &str), HeadError> {
    if text.len() > TARGET_BYTES_MAX {
        return Err(HeadError::TargetTooLong);
    }
    if text.starts_with('/') || text == "*" {
        return match text.contains('#') {
            true => Err(HeadError::Malformed),
            false => Ok((None, text)),
        };
    }
    let (scheme, rest) = text.split_once("://").ok_or(HeadError::Malformed)?;
    if !["http", "https"]
        .iter()
        .any(|known| scheme.eq_ignore_ascii_case(known))
    {
        return Err(HeadError::Malformed);
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, target) = rest.split_at(end);
    match target {
        "" => Ok((Some(authority), "/")),
        target if target.starts_with('/') && !target.contains('#') => Ok((Some(authority), target)),
        _ => Err(HeadError::Malformed),
    }
}

fn host<'a>(
    host: Option<&'a [u8]>,
    authority: Option<&str>,
    is_old: bool,
) -> Result<&'a str, HeadError> {
    let host = match host {
        Some(host) if is_host(host) => std::str::from_utf8(host).map_err(|_| HeadError::BadHost)?,
        None if is_old => "",
        _ => return Err(HeadError::BadHost),
    };
    match authority {
        Some(authority) if !authority.eq_ignore_ascii_case(host) => Err(HeadError::BadHost),
        _ => Ok(host),
    }
}

fn framing(seen: &Seen<'_>, fields: &[Field<'_>], is_old: bool) -> Result<Framing, HeadError> {
    match (seen.has_coding, seen.length) {
        (false, None) => Ok(Framing::NONE),
        (false, Some(length)) => parse_length(length)
            .map(Framing::Length)
            .ok_or(HeadError::AmbiguousLength),
        (true, Some(_)) => Err(HeadError::AmbiguousLength),
        (true, None) if is_old => Err(HeadError::AmbiguousLength),
        (true, None) => {
            let mut codings = entries(fields, "transfer-encoding");
            match (codings.next(), codings.next()) {
                (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => {
                    Ok(Framing::chunked())
                }
                _ => Err(HeadError::Coding),
            }
        }
    }
}

/// Digits only (RFC 9110 section 8.6): no sign, no blank, no list.
pub(super) fn parse_length(value: &[u8]) -> Option<u64> {
    let is_digits = !value.is_empty() && value.len() <= 19 && value.iter().all(u8::is_ascii_digit);
    let digits = value.iter().filter(|_| is_digits);
    is_digits.then(|| digits.fold(0, |length, digit| length * 10 + u64::from(digit - b'0')))
}

fn keeps_alive(seen: &Seen<'_>, fields: &[Field<'_>], is_old: bool) -> bool {
    if seen.has_upgrade && super::has_entry(fields, "upgrade", "websocket") {
        return false;
    }
    if !seen.has_connection {
        return !is_old;
    }
    match is_old {
        true => super::has_entry(fields, "connection", "keep-alive"),
        false => !super::has_entry(fields, "connection", "close"),
    }
}

/// `uri-host [ ":" port ]` of RFC 3986: a name, an IPv4 address, or an IP literal in brackets.
pub fn is_host(host: &[u8]) -> bool {
    let (name, port) = match host.strip_prefix(b"[") {
        Some(rest) => match rest.iter().position(|byte| *byte == b']') {
            Some(end) if is_literal(&rest[..end]) => (&rest[..end], &rest[end + 1..]),
            _ => return false,
        },
        None => {
            let end = host.iter().position(|byte| *byte == b':');
            host.split_at(end.unwrap_or(host.len()))
        }
    };
    let literal = host.first() == Some(&b'[');
    !name.is_empty() && (literal || name.iter().all(|byte| is_name_byte(*byte))) && is_port(port)
}

fn is_literal(address: &[u8]) -> bool {
    address
        .iter()
        .all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.'))
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=".contains(&byte)
}

fn is_port(port: &[u8]) -> bool {
    match port.split_first() {
        None => true,
        Some((b':', digits)) => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        Some(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::slots;
    use super::*;

    #[test]
    fn hosts_are_told_from_what_is_none() {
        for good in ["a", "a.b:80", "[::1]:8080", "[::1]", "127.0.0.1:1", "a:"] {
            assert!(is_host(good.as_bytes()), "{good}");
        }
        for bad in [
            "", ":80", "a b", "a/b", "u@a", "a:b", "[::1", "[]", "a:123456", "[::1]x", "a,b",
        ] {
            assert!(!is_host(bad.as_bytes()), "{bad}");
        }
    }

    fn error(text: &str) -> Option<HeadError> {
        RequestHead::parse(text.as_bytes(), &mut slots()).err()
    }

    /// Request line, fields, and what is wrong.
    #[rustfmt::skip]
    const HEADS: &[(&str, &str, Option<HeadError>)] = &[
        ("GET / HTTP/1.1", "host: a", None),
        ("GET / HTTP/1.1", "", Some(HeadError::BadHost)),
        ("GET / HTTP/1.0", "", None),
        ("GET / HTTP/1.1", "host: a\r\nHost: a", Some(HeadError::BadHost)),
        ("GET / HTTP/1.1", "host: a b", Some(HeadError::BadHost)),
        ("GET / HTTP/1.1", "host:", Some(HeadError::BadHost)),
        ("GET http://b/ HTTP/1.1", "host: a", Some(HeadError::BadHost)),
        ("GET http://A/ HTTP/1.1", "host: a", None),
        ("GET ftp://a/ HTTP/1.1", "host: a", Some(HeadError::Malformed)),
        ("GET http://a?x HTTP/1.1", "host: a", Some(HeadError::Malformed)),
        ("GET a HTTP/1.1", "host: a", Some(HeadError::Malformed)),
        ("GET /#x HTTP/1.1", "host: a", Some(HeadError::Malformed)),
        ("OPTIONS * HTTP/1.1", "host: a", None),
        ("CONNECT a:80 HTTP/1.1", "host: a:80", Some(HeadError::Connect)),
        ("TRACE / HTTP/1.1", "host: a", Some(HeadError::Trace)),
        ("GET / HTTP/2.0", "host: a", Some(HeadError::Version)),
        ("GET /", "host: a", Some(HeadError::Malformed)),
        ("GET  / HTTP/1.1", "host: a", Some(HeadError::Malformed)),
        ("GET / HTTP/1.1 ", "host: a", Some(HeadError::Malformed)),
        ("GET / HTTP/1.1", "host : a", Some(HeadError::Malformed)),
        ("GET / HTTP/1.1", "host: a\r\n: b", Some(HeadError::Malformed)),
        ("GET / HTTP/1.1", "host: a\r\nx y: b", Some(HeadError::Malformed)),
        ("GET / HTTP/1.1", "host: a\r\nx: \0", Some(HeadError::Malformed)),
        ("GET / HTTP/1.1", "host: a\r\nx: a\rb", Some(HeadError::Malformed)),
        ("POST / HTTP/1.1", "host: a\r\ncontent-length: 5", None),
        (
            "POST / HTTP/1.1",
            "host: a\r\ncontent-length: +5",
            Some(HeadError::AmbiguousLength),
        ),
        (
            "POST / HTTP/1.1",
            "host: a\r\ncontent-length: 5, 5",
            Some(HeadError::AmbiguousLength),
        ),
        (
            "POST / HTTP/1.1",
            "host: a\r\ncontent-length: 0x5",
            Some(HeadError::AmbiguousLength),
        ),
        (
            "POST / HTTP/1.1",
            "host: a\r\ncontent-length:",
            Some(HeadError::AmbiguousLength),
        ),
        (
            "POST / HTTP/1.1",
            "host: a\r\ncontent-length: 99999999999999999999",
            Some(HeadError::AmbiguousLength),
        ),
        (
            "POST / HTTP/1.1",
            "host: a\r\ncontent-length: 5\r\ncontent-length: 5",
            Some(HeadError::AmbiguousLength),
        ),
        (
            "POST / HTTP/1.1",
            "host: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked",
            Some(HeadError::AmbiguousLength),
        ),
        (
            "POST / HTTP/1.1",
            "host: a\r\ntransfer-encoding: chunked\r\ncontent-length: 5",
            Some(HeadError::AmbiguousLength),
        ),
        (
            "POST / HTTP/1.1",
            "host: a\r\ntransfer-encoding: Chunked",
            None,
        ),
        (
            "POST / HTTP/1.0",
            "host: a\r\ntransfer-encoding: chunked",
            Some(HeadError::AmbiguousLength),
        ),
        (
            "POST / HTTP/1.1",
            "host: a\r\ntransfer-encoding: xchunked",
            Some(HeadError::Coding),
        ),
        (
            "POST / HTTP/1.1",
            "host: a\r\ntransfer-encoding: chunked, identity",
            Some(HeadError::Coding),
        ),
        (
            "POST / HTTP/1.1",
            "host: a\r\ntransfer-encoding: gzip, chunked",
            Some(HeadError::Coding),
        ),
        (
            "POST / HTTP/1.1",
            "host: a\r\ntransfer-encoding:",
            Some(HeadError::Coding),
        ),
        (
            "POST / HTTP/1.1",
            "host: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked",
            Some(HeadError::Coding),
        ),
        (
            "POST / HTTP/1.1",
            "host: a\r\ntransfer-encoding : chunked",
            Some(HeadError::Malformed),
        ),
        (
            "POST / HTTP/1.1",
            "host: a\r\ntransfer-encoding: \x0bchunked",
            Some(HeadError::Malformed),
        ),
    ];

    #[test]
    fn heads_are_refused_for_what_is_wrong_with_them() {
        for (line, fields, expected) in HEADS {
            let fields = if fields.is_empty() {
                String::new()
            } else {
                format!("{fields}\r\n")
            };
            let text = format!("{line}\r\n{fields}\r\n");
            assert_eq!(error(&text), *expected, "{text:?}");
        }
        let many: String = (0..100).map(|n| format!("x-{n}: 1\r\n")).collect();
        let text = format!("GET / HTTP/1.1\r\nhost: a\r\n{many}\r\n");
        assert_eq!(error(&text), Some(HeadError::TooManyFields));
        let target = "x".repeat(TARGET_BYTES_MAX);
        let text = format!("GET /{target} HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!(error(&text), Some(HeadError::TargetTooLong));
    }

    #[test]
    fn connections_are_kept_as_their_version_says() {
        for (version, field, expected) in [
            ("1.1", "", true),
            ("1.1", "connection: close\r\n", false),
            ("1.1", "connection: x, Close\r\n", false),
            ("1.0", "", false),
            ("1.0", "connection: keep-alive\r\n", true),
            ("1.1", "upgrade: h2c\r\n", true),
            ("1.1", "upgrade: h2c, WebSocket\r\n", false),
            ("1.1", "upgrade: x\r\nUpgrade: websocket\r\n", false),
        ] {
            let text = format!("GET / HTTP/{version}\r\nhost: a\r\n{field}\r\n");
            let mut slots = slots();
            let head = RequestHead::parse(text.as_bytes(), &mut slots).expect("a good head");
            assert_eq!(head.keeps_alive, expected, "{text:?}");
        }
    }
}
