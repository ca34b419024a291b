//! What becomes of header fields on their way through, in both directions.
//!
//! Removed before anything of ours is added: hop-by-hop fields (RFC 9110 7.6.1) and whatever `Connection` names, except
//! protected names, which a sender could otherwise make us take away from the other side; names with an underscore,
//! which back ends read as if it were a dash; what only we may say (`X-User-Id`, `X-User-Role`) and what is for us alone
//! (`X-API-Key`, `X-Admin-Key`). `Trailer` and `TE: trailers` stay: trailers pass.

use std::io::Write as _;
use std::net::IpAddr;

use http::header::{CONNECTION, HOST, TE, TRAILER, VIA};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::address::Client;

pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(super) const X_CORRELATION_ID: HeaderName = HeaderName::from_static("x-correlation-id");
pub(super) const X_USER_ID: HeaderName = HeaderName::from_static("x-user-id");
pub(super) const X_USER_ROLE: HeaderName = HeaderName::from_static("x-user-role");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Longest id of a caller that is kept.
const ID_BYTES_MAX: usize = 128;

/// Makes a request's fields ready for an upstream, all but `Host`.
pub(super) fn prepare_request(headers: &mut HeaderMap, client: &Client) {
    let takes_trailers = headers
        .get(TE)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"trailers"));
    remove(headers, |name| {
        is_for_upstream(name, client.is_behind_trusted)
    });
    if takes_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    add_forwarded(headers, client);
    headers.append(VIA, HeaderValue::from_static("1.1 fanfare"));
}

/// Makes an answer's fields ready for the client.
pub(super) fn prepare_response(headers: &mut HeaderMap) {
    remove(headers, |name| {
        !is_hop_by_hop(name) && !name.starts_with("x-internal-") && name != "x-db-query-count"
    });
}

/// Removes what `stays` says no to, and what `Connection` names.
fn remove(headers: &mut HeaderMap, stays: impl Fn(&str) -> bool) {
    let mut gone: Vec<HeaderName> = Vec::new();
    let named = headers.get_all(CONNECTION).iter();
    for token in named.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')) {
        // "keep-alive" and "close" are nearly all that ever stands there.
        let token = token.trim_ascii();
        if token.eq_ignore_ascii_case(b"keep-alive") || token.eq_ignore_ascii_case(b"close") {
            continue;
        }
        gone.extend(
            HeaderName::from_bytes(token)
                .ok()
                .filter(|name| !is_protected(name.as_str())),
        );
    }
    gone.extend(headers.keys().filter(|name| !stays(name.as_str())).cloned());
    for name in gone {
        headers.remove(name);
    }
}

fn is_for_upstream(name: &str, is_behind_trusted: bool) -> bool {
    let is_ours = match name {
        // We answer "100 Continue" ourselves as soon as somebody reads the body.
        "expect" | "x-api-key" | "x-admin-key" | "x-user-id" | "x-user-role" | "forwarded"
        | "x-real-ip" => true,
        _ => !is_behind_trusted && name.starts_with("x-forwarded-"),
    };
    !is_ours && !is_hop_by_hop(name) && !name.as_bytes().contains(&b'_')
}

fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "te"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-authentication-info"
    )
}

/// Names that `Connection` cannot take away.
fn is_protected(name: &str) -> bool {
    matches!(
        name,
        "host"
            | "authorization"
            | "cookie"
            | "set-cookie"
            | "content-length"
            | "content-type"
            | "content-encoding"
            | "cache-control"
            | "via"
            | "forwarded"
            | "x-real-ip"
            | "x-request-id"
            | "x-correlation-id"
            | "traceparent"
            | "tracestate"
    ) || name == TRAILER.as_str()
        || name.starts_with("x-forwarded-")
        || name.starts_with("x-user-")
}

fn add_forwarded(headers: &mut HeaderMap, client: &Client) {
    let peer = address(client.peer);
    let client_address = if client.ip == client.peer {
        peer.clone()
    } else {
        address(client.ip)
    };
    let chain = chained(headers, &peer);
    headers.insert(X_FORWARDED_FOR, chain);
    headers.insert(X_REAL_IP, client_address);
    let host = headers.get(HOST).cloned();
    let port = host.as_ref().map_or(80, port);
    // A trusted proxy has said these already; of anybody else nothing is left.
    headers
        .entry(X_FORWARDED_PROTO)
        .or_insert_with(|| HeaderValue::from_static("http"));
    headers
        .entry(X_FORWARDED_PORT)
        .or_insert_with(|| HeaderValue::from(port));
    if let Some(host) = host {
        headers.entry(X_FORWARDED_HOST).or_insert(host);
    }
}

/// What was forwarded so far, with the peer at its end.
fn chained(headers: &HeaderMap, peer: &HeaderValue) -> HeaderValue {
    let mut before = headers.get_all(X_FORWARDED_FOR).iter().peekable();
    if before.peek().is_none() {
        return peer.clone();
    }
    let mut chain = Vec::with_capacity(64);
    for value in before.chain([peer]) {
        if !chain.is_empty() {
            chain.extend_from_slice(b", ");
        }
        chain.extend_from_slice(value.as_bytes());
    }
    HeaderValue::try_from(chain).unwrap_or_else(|_| peer.clone())
}

fn port(host: &HeaderValue) -> u16 {
    let host = host.to_str().unwrap_or_default();
    let after_literal = host.rfind(']').map_or(host, |end| &host[end..]);
    let port = after_literal.rsplit_once(':');
    port.and_then(|(_, port)| port.parse().ok()).unwrap_or(80)
}

fn address(ip: IpAddr) -> HeaderValue {
    let mut text = [0; 48];
    let mut rest = &mut text[..];
    // 39 bytes at most, and a mapped address is canonical by now.
    let _ = write!(rest, "{ip}");
    let left = rest.len();
    HeaderValue::from_bytes(&text[..48 - left]).expect("an address is ASCII")
}

/// The ids of a request: kept where the caller brought good ones (1 to 128 visible characters), made otherwise; a
/// correlation id that nobody brought is the request's.
#[derive(Debug, Clone)]
pub(super) struct Ids {
    request: HeaderValue,
    correlation: HeaderValue,
}

impl Ids {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let brought = |name| headers.get(name).filter(|id| is_kept(id)).cloned();
        let request = brought(X_REQUEST_ID).unwrap_or_else(random_id);
        Self {
            correlation: brought(X_CORRELATION_ID).unwrap_or_else(|| request.clone()),
            request,
        }
    }

    pub(super) fn set(&self, headers: &mut HeaderMap) {
        headers.insert(X_REQUEST_ID, self.request.clone());
        headers.insert(X_CORRELATION_ID, self.correlation.clone());
    }
}

fn is_kept(id: &HeaderValue) -> bool {
    (1..=ID_BYTES_MAX).contains(&id.len()) && id.to_str().is_ok()
}

/// From this thread's generator: the system's costs a call each time, and an id is no secret.
fn random_id() -> HeaderValue {
    let mut text = uuid::Uuid::encode_buffer();
    let id = uuid::Builder::from_random_bytes(rand::random()).into_uuid();
    HeaderValue::from_str(id.hyphenated().encode_lower(&mut text)).expect("a UUID is ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(is_behind_trusted: bool) -> Client {
        Client {
            peer: IpAddr::from([10, 0, 0, 1]),
            ip: IpAddr::from([9, 9, 9, 9]),
            is_behind_trusted,
        }
    }

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            headers.append(name, HeaderValue::from_str(value).expect("a value"));
        }
        headers
    }

    /// What a request's fields become; `host` is always there.
    fn forwarded(fields: &[(&str, &str)], is_behind_trusted: bool) -> HeaderMap {
        let mut headers = map(fields);
        headers.insert(HOST, HeaderValue::from_static("a.b:8080"));
        prepare_request(&mut headers, &client(is_behind_trusted));
        headers
    }

    #[test]
    fn requests_lose_what_is_not_for_the_upstream() {
        for name in [
            "Keep-Alive",
            "Proxy-Connection",
            "Proxy-Authorization",
            "Transfer-Encoding",
            "Upgrade",
            "HTTP2-Settings",
            "Expect",
            "X-API-Key",
            "X-Admin-Key",
            "X-User-Id",
            "X-User-Role",
            "Forwarded",
            "X_Forwarded_For",
            "X_User_Id",
            "any_thing",
            "TE",
            "X-Forwarded-Server",
        ] {
            let headers = forwarded(&[(name, "x")], false);
            assert!(!headers.contains_key(name), "{name}");
        }
    }

    #[test]
    fn requests_keep_the_rest() {
        let fields = [
            ("accept-encoding", "br"),
            ("authorization", "Basic x"),
            ("cookie", "a=b"),
            ("range", "bytes=0-1"),
            ("traceparent", "00-1-2-01"),
            ("trailer", "x-sum"),
            ("te", "trailers"),
            ("origin", "http://o"),
        ];
        let headers = forwarded(&fields, false);
        for (name, value) in fields {
            assert_eq!(headers[name], value, "{name}");
        }
        assert_eq!(headers[VIA], "1.1 fanfare");
    }

    #[test]
    fn what_connection_names_goes_unless_it_is_protected() {
        let headers = forwarded(
            &[
                ("connection", "close, X-Foo ,authorization"),
                ("connection", "x-forwarded-for, Cookie"),
                ("x-foo", "1"),
                ("authorization", "a"),
                ("cookie", "c"),
            ],
            false,
        );
        assert!(!headers.contains_key("x-foo") && !headers.contains_key(CONNECTION));
        assert!(headers.contains_key("authorization") && headers.contains_key("cookie"));
        assert_eq!(headers["x-forwarded-for"], "10.0.0.1");
    }

    #[test]
    fn of_strangers_nothing_is_believed() {
        let lies = [
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil"),
            ("x-forwarded-port", "1"),
            ("x-real-ip", "1.1.1.1"),
        ];
        let headers = forwarded(&lies, false);
        for (name, value) in [
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "a.b:8080"),
            ("x-forwarded-port", "8080"),
            ("x-real-ip", "9.9.9.9"),
        ] {
            assert_eq!(headers[name], value, "{name}");
            assert_eq!(headers.get_all(name).iter().count(), 1, "{name}");
        }
    }

    #[test]
    fn trusted_proxies_are_believed_and_added_to() {
        let fields = [
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-for", "9.9.9.9"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "real"),
            ("x-forwarded-port", "443"),
        ];
        let headers = forwarded(&fields, true);
        for (name, value) in [
            ("x-forwarded-for", "1.1.1.1, 9.9.9.9, 10.0.0.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "real"),
            ("x-forwarded-port", "443"),
            ("x-real-ip", "9.9.9.9"),
        ] {
            assert_eq!(headers[name], value, "{name}");
        }
    }

    #[test]
    fn answers_lose_what_is_internal() {
        let mut headers = map(&[
            ("x-internal-service-name", "s"),
            ("x-internal-anything", "s"),
            ("x-db-query-count", "3"),
            ("connection", "keep-alive, x-hop"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("content-encoding", "gzip"),
            ("set_cookie", "a"),
            ("x-foo", "1"),
        ]);
        prepare_response(&mut headers);
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-encoding", "set_cookie", "x-foo"]);
    }

    #[test]
    fn ids_are_kept_when_they_are_good() {
        let long = "x".repeat(129);
        for (brought, kept) in [
            ("abc", true),
            ("", false),
            (&*long, false),
            ("\u{e4}", false),
        ] {
            let mut headers = map(&[("x-request-id", brought)]);
            Ids::of(&headers.clone()).set(&mut headers);
            let id = headers[X_REQUEST_ID].to_str().expect("ASCII");
            assert_eq!(id == brought, kept, "{brought}");
            assert!(kept || id.len() == 36, "{id}");
            assert_eq!(headers[X_CORRELATION_ID], id);
        }
    }

    #[test]
    fn ports_are_read_from_the_host() {
        for (host, expected) in [
            ("a", 80),
            ("a:81", 81),
            ("[::1]", 80),
            ("[::1]:9", 9),
            ("a:", 80),
        ] {
            assert_eq!(port(&HeaderValue::from_static(host)), expected, "{host}");
        }
    }
}
