//! What the proxy room can be told.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{RatePolicy, ServiceConfig};
use crate::tls::Connector;

/// Names under which other things are served at `/ws` and `/sse`.
pub const RESERVED_NAMES: [&str; 3] = ["connect", "health", "echo"];

/// Services, whom to believe, and for how long to wait. `config` fills it; defaults and units stand there.
#[derive(Debug, Clone)]
pub struct Config {
    /// The services, checked (`UPSTREAMS` and `CONFIG_FILE`).
    pub services: Vec<ServiceConfig>,
    /// Networks whose `X-Forwarded-*` are believed: an address and the bits of it that count (`TRUSTED_PROXIES`).
    pub trusted: Vec<(IpAddr, u8)>,
    /// Requests under way at `/api` over which the others are turned away (`UNDER_PRESSURE_MAX_IN_FLIGHT`).
    pub inflight_max: usize,
    /// Whether upstreams get `Forwarded` (RFC 7239) beside `X-Forwarded-*` (`FORWARDED`).
    pub tells_forwarded: bool,
    /// Names of fields of answers, in lower case, that go no further; one that ends in `*` is a beginning
    /// (`REMOVE_RESPONSE_HEADERS`).
    pub removed: Vec<String>,
    /// Which part of the requests is logged, in percent, beside all failures; 0: none at all (`ACCESS_LOG_PERCENT`).
    pub access_percent: u32,
    /// How long a client may pause in its body, or take nothing of an answer (`BODY_TIMEOUT_MS`).
    pub body_timeout: Duration,
    /// The most bytes of a request's body (`MAX_BODY_BYTES`); `u64::MAX` is no limit.
    pub body_bytes_max: u64,
    /// Origins of pages that may open WebSockets (`ALLOW_ORIGINS`); `None` is any.
    pub origins: Option<Arc<[String]>>,
    /// Between pings to clients of WebSockets (`WS_PING_INTERVAL_MS`).
    pub ping_interval: Duration,
    /// How long a sign of life may take after one (`WEBSOCKETS_PONG_TIMEOUT`).
    pub pong_timeout: Duration,
    /// Requests of one address to all services that have no limit of their own (`RATE_LIMIT_MAX`,
    /// `RATE_LIMIT_WINDOW_MS`); 0 is no limit.
    pub rate: RatePolicy,
    /// How answers are kept (`CACHE_ENABLED`); none where they are not.
    pub cache: CacheConfig,
    /// What begins TLS with upstreams (`UPSTREAM_CA`); there where any address is https.
    pub connector: Option<Connector>,
}

/// How upstreams' answers are kept.
#[derive(Debug, Clone, Copy)]
pub struct CacheConfig {
    /// The most bytes of all (`CACHE_MAX_TOTAL_BYTES`).
    pub total_bytes_max: u64,
    /// How long a request waits for the answer to another one (`CACHE_WAIT_MS`).
    pub wait_max: Duration,
}

/// Where one upstream is: an `http`, `https` or `h2c` URL taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The URL, without a trailing slash.
    pub url: String,
    /// The host, an IPv6 address without its brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Whether TLS carries it (`https`).
    pub is_encrypted: bool,
    /// Whether it speaks HTTP/2 from the first byte on, without TLS (`h2c`, RFC 9113 section 3.3).
    pub is_http2: bool,
    /// What stands before every path: empty, or beginning with a slash and not ending in one.
    pub base: String,
}

impl Address {
    /// Takes a URL apart: `http`, `https` or `h2c`, a host, perhaps a port and a path, and nothing else.
    pub fn parse(url: &str) -> Option<Self> {
        let url = url.trim().trim_end_matches('/');
        let uri: http::Uri = url.parse().ok()?;
        let authority = uri.authority()?;
        let host = authority.host();
        let is_encrypted = uri.scheme_str() == Some("https");
        let is_http2 = uri.scheme_str() == Some("h2c");
        let is_plain = (is_encrypted || is_http2 || uri.scheme_str() == Some("http"))
            && uri.query().is_none()
            && !url.contains(['#', '@', '\\'])
            && !host.is_empty();
        // A port that is no number reads as none.
        let port = match authority.as_str()[host.len()..].strip_prefix(':') {
            Some(port) => port.parse().ok().filter(|port| *port > 0)?,
            None => default_port(is_encrypted),
        };
        is_plain.then(|| Self {
            url: url.to_owned(),
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
            is_encrypted,
            is_http2,
            base: uri.path().trim_end_matches('/').to_owned(),
        })
    }
}

impl Address {
    /// Whether both name the same upstream, however they are spelled (RFC 3986 section 6.2).
    pub fn is_same(&self, other: &Self) -> bool {
        let place = |one: &Self| (one.port, one.is_encrypted, one.is_http2);
        place(self) == place(other)
            && self.host.eq_ignore_ascii_case(&other.host)
            && self.base == other.base
    }

    /// The port that its scheme means where none is named.
    pub(super) fn default_port(&self) -> u16 {
        default_port(self.is_encrypted)
    }
}

fn default_port(is_encrypted: bool) -> u16 {
    if is_encrypted { 443 } else { 80 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        for (url, host, port, base) in [
            ("http://a", "a", 80, ""),
            ("http://a:3001/", "a", 3001, ""),
            ("http://a.b:1/base/path//", "a.b", 1, "/base/path"),
            ("http://[::1]:8080/x", "::1", 8080, "/x"),
            ("https://a", "a", 443, ""),
            ("https://a:8443/x", "a", 8443, "/x"),
            ("h2c://a/x", "a", 80, "/x"),
        ] {
            let address = Address::parse(url).expect(url);
            let found = (&*address.host, address.port, &*address.base);
            assert_eq!(found, (host, port, base), "{url}");
        }
    }

    #[test]
    fn what_is_no_plain_http_url_is_refused() {
        for url in [
            "",
            "a",
            "a:80",
            "/a",
            "ftp://a",
            "http://",
            "http://:80",
            "http://a:0",
            "http://a:99999",
            "http://a:x",
            "http://u@a",
            "http://a?x",
            "http://a/#x",
            "http://a b",
        ] {
            assert_eq!(Address::parse(url), None, "{url}");
        }
    }
}
