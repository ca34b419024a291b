//! What a request's head must hold before anything routes on it. hyper is lenient where a proxy behind or before us may
//! read the same bytes differently; here such a head is refused.
//!
//! hyper refuses by itself: bad chunked framing, differing or malformed `Content-Length`, obsolete folding, `NUL`,
//! `Transfer-Encoding` in HTTP/1.0. It hides what it repairs: of `Content-Length` beside `Transfer-Encoding` it drops the
//! former, frames by the latter and closes the connection after the answer (RFC 9112 6.1 allows that), and it takes bare
//! line feeds. Refusing those needs a scanner on the read side; [`check`] refuses what is left to see.

use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::{Method, Version};

use super::answer::Refusal;

/// The longest request target. Longer ones are no address that this server gives out.
const URI_BYTES_MAX: usize = 8 * 1024;

/// Says whether this head may reach the router, with a body of at most `body_bytes_max`.
pub(super) fn check(head: &Parts, body_bytes_max: u64) -> Result<(), Refusal> {
    check_method(&head.method)?;
    check_target(head)?;
    check_host(head)?;
    check_length(head, body_bytes_max)
}

fn check_method(method: &Method) -> Result<(), Refusal> {
    match *method {
        Method::CONNECT => Err(Refusal::Connect),
        Method::TRACE => Err(Refusal::Trace),
        _ => Ok(()),
    }
}

fn check_target(head: &Parts) -> Result<(), Refusal> {
    let target = head
        .uri
        .path_and_query()
        .map_or("", |target| target.as_str());
    if target.len() > URI_BYTES_MAX {
        return Err(Refusal::UriTooLong);
    }
    Ok(())
}

/// RFC 9112 3.2: exactly one, valid; and an absolute target must name the same.
fn check_host(head: &Parts) -> Result<(), Refusal> {
    let mut hosts = head.headers.get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) if is_host(host.as_bytes()) => host,
        (None, None) if head.version == Version::HTTP_10 => return Ok(()),
        _ => return Err(Refusal::BadHost),
    };
    match head.uri.authority() {
        Some(target)
            if !target
                .as_str()
                .as_bytes()
                .eq_ignore_ascii_case(host.as_bytes()) =>
        {
            Err(Refusal::BadHost)
        }
        _ => Ok(()),
    }
}

/// `uri-host [ ":" port ]` of RFC 3986: a name, an IPv4 address, or an IP literal in brackets.
fn is_host(host: &[u8]) -> bool {
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
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(&byte)
}

fn is_port(port: &[u8]) -> bool {
    match port.split_first() {
        None => true,
        Some((b':', digits)) => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        Some(_) => false,
    }
}

fn check_length(head: &Parts, body_bytes_max: u64) -> Result<(), Refusal> {
    let Some(length) = head.headers.get(CONTENT_LENGTH) else {
        return Ok(());
    };
    if head.headers.contains_key(TRANSFER_ENCODING) {
        return Err(Refusal::AmbiguousLength);
    }
    // hyper has refused what is no number already.
    let length = length
        .to_str()
        .ok()
        .and_then(|text| text.parse::<u64>().ok());
    match length {
        Some(length) if length <= body_bytes_max => Ok(()),
        _ => Err(Refusal::BodyTooLarge),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    #[test]
    fn hosts_are_told_from_what_is_none() {
        for good in ["a", "a.b:80", "[::1]:8080", "[::1]", "127.0.0.1:1", "a:"] {
            assert!(is_host(good.as_bytes()), "{good}");
        }
        for bad in [
            "", ":80", "a b", "a/b", "u@a", "a:b", "[::1", "[]", "a:123456", "[::1]x",
        ] {
            assert!(!is_host(bad.as_bytes()), "{bad}");
        }
    }

    fn refused(request: http::request::Builder) -> Option<Refusal> {
        let (head, ()) = request.body(()).expect("a valid request").into_parts();
        check(&head, 10).err()
    }

    #[test]
    fn heads_are_refused_for_what_is_wrong_with_them() {
        let get = || Request::get("/").header(HOST, "a");
        assert_eq!(refused(get()), None);
        assert_eq!(refused(get().header(HOST, "a")), Some(Refusal::BadHost));
        assert_eq!(refused(Request::get("/")), Some(Refusal::BadHost));
        assert_eq!(refused(Request::get("/").version(Version::HTTP_10)), None);
        assert_eq!(refused(get().uri("http://b/")), Some(Refusal::BadHost));
        assert_eq!(refused(get().uri("http://A/")), None);
        assert_eq!(refused(get().method("CONNECT")), Some(Refusal::Connect));
        assert_eq!(refused(get().method("TRACE")), Some(Refusal::Trace));
        let long = format!("/{}", "x".repeat(URI_BYTES_MAX));
        assert_eq!(refused(get().uri(long)), Some(Refusal::UriTooLong));
        assert_eq!(refused(get().header(CONTENT_LENGTH, "10")), None);
        assert_eq!(
            refused(get().header(CONTENT_LENGTH, "11")),
            Some(Refusal::BodyTooLarge)
        );
        let both = get()
            .header(CONTENT_LENGTH, "1")
            .header(TRANSFER_ENCODING, "chunked");
        assert_eq!(refused(both), Some(Refusal::AmbiguousLength));
    }
}
