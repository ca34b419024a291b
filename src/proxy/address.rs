//! Who a client is behind the proxies that are trusted.

use std::net::{IpAddr, SocketAddr};

use crate::http1::{Field, forwarded_pair, is_host};
use crate::model::contains;

/// How a request came.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    /// The socket's other end.
    pub peer: SocketAddr,
    /// Whether TLS carries it.
    pub is_encrypted: bool,
    /// Whether it came on a stream of HTTP/2.
    pub is_http2: bool,
}

/// Where a request came from, as rooms outside are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The client's address, behind the proxies that are trusted.
    pub ip: IpAddr,
    /// Whether the client itself speaks TLS.
    pub is_secure: bool,
    /// The host that the client asked, perhaps with its port, where a trusted proxy says so.
    pub authority: Option<String>,
}

/// Where a request came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Client {
    /// The other end of the socket.
    pub(super) peer: IpAddr,
    /// The client itself, as far as it is known: the last hop that no trusted proxy is.
    pub(super) ip: IpAddr,
    /// Whether the peer is a trusted proxy, so that what it says of the client is believed.
    pub(super) is_behind_trusted: bool,
    /// Whether TLS carries the peer's connection.
    pub(super) is_encrypted: bool,
    /// How many elements of `Forwarded`, from the last one, trusted proxies have written: what stands before them anybody may
    /// have. 0 where `X-Forwarded-For` says who the client is: then the proxies may not know `Forwarded`, and it may be the
    /// client's own.
    pub(super) standard_elements: usize,
}

impl Client {
    /// Of the peer's connection.
    pub(super) const fn scheme(&self) -> &'static str {
        if self.is_encrypted { "https" } else { "http" }
    }

    /// What the trusted proxy that the client asked says by this name in `Forwarded` (RFC 7239 section 5).
    pub(super) fn standard<'a>(&self, fields: &'a [Field<'a>], name: &str) -> Option<&'a str> {
        let outermost = self.standard_elements.checked_sub(1)?;
        forwarded_pair(entries(fields, "forwarded").nth(outermost)?, name)
    }

    /// The host that the client asked, as `Forwarded` says it.
    pub(super) fn standard_host<'a>(&self, fields: &'a [Field<'a>]) -> Option<&'a str> {
        let host = self.standard(fields, "host");
        host.filter(|host| is_host(host.as_bytes()))
    }

    /// The scheme by which it asked, as `Forwarded` says it.
    pub(super) fn standard_scheme(&self, fields: &[Field<'_>]) -> Option<&'static str> {
        let proto = self.standard(fields, "proto")?;
        let known = ["https", "http", "wss", "ws"];
        known
            .into_iter()
            .find(|scheme| proto.eq_ignore_ascii_case(scheme))
    }

    /// Whether the client's connection is encrypted: to us, or to a trusted proxy that says so.
    pub(super) fn is_secure(&self, fields: &[Field<'_>]) -> bool {
        if self.is_encrypted || !self.is_behind_trusted {
            return self.is_encrypted;
        }
        match field(fields, "x-forwarded-proto") {
            Some(proto) => says_encrypted(proto),
            None => self
                .standard_scheme(fields)
                .is_some_and(|scheme| says_encrypted(scheme.as_bytes())),
        }
    }

    /// The host that the client asked, perhaps with its port, where a trusted proxy says so.
    pub(super) fn authority(&self, fields: &[Field<'_>]) -> Option<String> {
        if !self.is_behind_trusted {
            return None;
        }
        let text = |name| std::str::from_utf8(first(field(fields, name)?)).ok();
        let told = match text("x-forwarded-host") {
            Some(host) => Some(host),
            None => self.standard_host(fields),
        };
        let told = told.filter(|host| is_host(host.as_bytes()));
        let asked = told.or_else(|| text("host").filter(|host| is_host(host.as_bytes())))?;
        // The ports of the schemes need not be said; and many a proxy names its own 80 behind one that ended TLS.
        let port = text("x-forwarded-port").and_then(|port| port.parse::<u16>().ok());
        let port = port.filter(|port| ![0, 80, 443].contains(port));
        match (port_of(asked), port) {
            (None, Some(port)) => Some(format!("{asked}:{port}")),
            _ => told.map(str::to_owned),
        }
    }
}

/// The port of a host, where it names one.
pub(super) fn port_of(host: &str) -> Option<u16> {
    let after_literal = host.rfind(']').map_or(host, |end| &host[end..]);
    let port = after_literal.rsplit_once(':');
    port.and_then(|(_, port)| port.parse().ok())
}

fn field<'a>(fields: &[Field<'a>], name: &str) -> Option<&'a [u8]> {
    let mut fields = fields.iter();
    let found = fields.find(|field| field.name.eq_ignore_ascii_case(name));
    found.map(|field| field.value)
}

/// The entries of all fields of this name, the last first.
fn entries<'a>(fields: &'a [Field<'a>], name: &'static str) -> impl Iterator<Item = &'a str> {
    let fields = fields.iter().rev();
    let fields = fields.filter(move |field| field.name.eq_ignore_ascii_case(name));
    fields.flat_map(|field| std::str::from_utf8(field.value).unwrap_or("?").rsplit(','))
}

/// Whether `X-Forwarded-Proto` of a trusted proxy says that the client's connection is encrypted.
pub(super) fn says_encrypted(proto: &[u8]) -> bool {
    let is = |scheme: &[u8]| first(proto).eq_ignore_ascii_case(scheme);
    is(b"https") || is(b"wss")
}

/// What the proxy next to the client said, where each has added to a field.
pub(super) fn first(value: &[u8]) -> &[u8] {
    let end = value.iter().position(|byte| *byte == b',');
    value[..end.unwrap_or(value.len())].trim_ascii()
}

/// The client of a request that came from `peer`.
pub(super) fn client(
    peer: IpAddr,
    is_encrypted: bool,
    fields: &[Field<'_>],
    trusted: &[(IpAddr, u8)],
) -> Client {
    let peer = peer.to_canonical();
    let is_trusted = |ip: IpAddr| trusted.iter().any(|network| contains(*network, ip));
    if !is_trusted(peer) {
        return Client {
            peer,
            ip: peer,
            is_behind_trusted: false,
            is_encrypted,
            standard_elements: 0,
        };
    }
    let (mut ip, mut standard_elements) = (peer, 0);
    // The older form goes first: whoever writes only that leaves what a client wrote in the other one.
    let has_older = entries(fields, "x-forwarded-for").next().is_some();
    let name = if has_older {
        "x-forwarded-for"
    } else {
        "forwarded"
    };
    for entry in entries(fields, name) {
        let hop = if has_older {
            Some(entry)
        } else {
            standard_elements += 1;
            forwarded_pair(entry, "for")
        };
        // What cannot be read is no hop that anybody vouches for; the last one that could be read stands.
        let Some(hop) = hop.and_then(|hop| parse(hop.trim())) else {
            break;
        };
        ip = hop;
        if !is_trusted(hop) {
            break;
        }
    }
    Client {
        peer,
        ip,
        is_behind_trusted: true,
        is_encrypted,
        standard_elements,
    }
}

/// An address, perhaps with a port or in brackets, as some proxies write it.
fn parse(hop: &str) -> Option<IpAddr> {
    let bare = hop.trim_start_matches('[');
    let ip = bare
        .parse()
        .or_else(|_| bare.split(']').next().unwrap_or("").parse())
        .or_else(|_| bare.split(':').next().unwrap_or("").parse::<IpAddr>());
    ip.ok().map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn check(peer: &str, forwarded: &[&'static str], expected: &str) {
        let trusted = [(ip("10.0.0.0"), 8), (ip("fd00::"), 8)];
        let field = |value: &&'static str| Field {
            name: "X-Forwarded-For",
            value: value.as_bytes(),
        };
        let fields: Vec<Field<'_>> = forwarded.iter().map(field).collect();
        let client = client(ip(peer), false, &fields, &trusted);
        assert_eq!(client.ip, ip(expected), "{peer} {forwarded:?}");
    }

    #[test]
    fn the_scheme_is_that_of_the_proxy_next_to_the_client() {
        for (proto, expected) in [
            ("https", true),
            ("HTTPS , http", true),
            ("wss", true),
            ("http, https", false),
            ("ws", false),
            ("", false),
            ("httpsx", false),
        ] {
            assert_eq!(says_encrypted(proto.as_bytes()), expected, "{proto}");
        }
    }

    #[test]
    fn the_client_is_the_last_hop_that_is_not_trusted() {
        check("1.2.3.4", &["5.6.7.8"], "1.2.3.4");
        check("10.0.0.1", &[], "10.0.0.1");
        check("10.0.0.1", &["5.6.7.8"], "5.6.7.8");
        check("10.0.0.1", &["6.6.6.6, 5.6.7.8, 10.9.9.9"], "5.6.7.8");
        check("10.0.0.1", &["6.6.6.6", "5.6.7.8"], "5.6.7.8");
        check("10.0.0.1", &["10.1.1.1, 10.2.2.2"], "10.1.1.1");
        check("10.0.0.1", &["6.6.6.6, unknown"], "10.0.0.1");
        check("::ffff:10.0.0.1", &["5.6.7.8:1234"], "5.6.7.8");
        check("fd00::1", &["[2001:db8::1]:80"], "2001:db8::1");
        check("fe00::1", &["5.6.7.8"], "fe00::1");
    }

    #[test]
    fn the_standard_form_says_it_where_the_older_one_does_not() {
        let trusted = [(ip("10.0.0.0"), 8)];
        let check = |fields: &[(&'static str, &'static str)], expected: &str| {
            let field = |(name, value): &(&'static str, &'static str)| Field {
                name,
                value: value.as_bytes(),
            };
            let list: Vec<Field<'_>> = fields.iter().map(field).collect();
            let client = client(ip("10.0.0.1"), false, &list, &trusted);
            assert_eq!(client.ip, ip(expected), "{fields:?}");
        };
        check(&[("Forwarded", "for=5.6.7.8;proto=https")], "5.6.7.8");
        check(
            &[("Forwarded", "for=6.6.6.6, For=\"[2001:db8::1]:80\"; by=x")],
            "2001:db8::1",
        );
        check(&[("Forwarded", "for=5.6.7.8, for=10.2.2.2")], "5.6.7.8");
        check(&[("Forwarded", "for=_hidden")], "10.0.0.1");
        check(&[("Forwarded", "proto=http")], "10.0.0.1");
        check(
            &[("Forwarded", "for=6.6.6.6"), ("X-Forwarded-For", "5.6.7.8")],
            "5.6.7.8",
        );
    }

    /// Where a client of a trusted proxy asked, as these fields say it: whether by TLS, and at which host.
    fn check_asked(fields: &[(&'static str, &'static str)], is_secure: bool, host: Option<&str>) {
        let trusted = [(ip("10.0.0.0"), 8)];
        let list: Vec<Field<'_>> = fields
            .iter()
            .map(|(name, value)| Field {
                name,
                value: value.as_bytes(),
            })
            .collect();
        for (peer, expected) in [("10.0.0.1", (is_secure, host)), ("1.2.3.4", (false, None))] {
            let client = client(ip(peer), false, &list, &trusted);
            let authority = client.authority(&list);
            let asked = (client.is_secure(&list), authority.as_deref());
            assert_eq!(asked, expected, "{peer} {fields:?}");
        }
    }

    #[test]
    fn the_standard_form_says_where_the_client_asked_too() {
        let check = |value: &'static str, is_secure, host| {
            check_asked(&[("Forwarded", value)], is_secure, host);
        };
        check("for=5.6.7.8;proto=https;host=a.b", true, Some("a.b"));
        check("host=\"a.b:8443\"; Proto=HTTPS", true, Some("a.b:8443"));
        check("for=5.6.7.8;proto=http", false, None);
        check("for=_hidden;proto=https;host=a.b", true, Some("a.b"));
        // Said by the proxies in between, of each other.
        check(
            "for=5.6.7.8;proto=https;host=a.b, for=10.2.2.2;proto=http;host=in",
            true,
            Some("a.b"),
        );
        // Said by the client itself.
        check(
            "for=1.1.1.1;proto=https;host=evil, for=5.6.7.8",
            false,
            None,
        );
        check(
            "for=1.1.1.1;proto=https;host=evil, for=unknown",
            false,
            None,
        );
        // What is none.
        check("proto=gopher;host=\"a b\"", false, None);
        check("host=\"a/b\"", false, None);
    }

    #[test]
    fn the_older_form_is_heeded_first_piece_by_piece() {
        let standard = ("forwarded", "for=5.6.7.8;proto=https;host=new");
        check_asked(
            &[standard, ("x-forwarded-proto", "http")],
            false,
            Some("new"),
        );
        check_asked(
            &[standard, ("x-forwarded-host", "old, in")],
            true,
            Some("old"),
        );
        // A proxy that writes who the client is in the older form may not know the other one: the client wrote it.
        check_asked(&[standard, ("x-forwarded-for", "5.6.7.8")], false, None);
    }

    #[test]
    fn the_port_goes_with_a_host_that_names_none() {
        for (host, port, expected) in [
            ("a.b", "8443", Some("a.b:8443")),
            ("a.b", "8443, 8000", Some("a.b:8443")),
            ("[::1]", "8443", Some("[::1]:8443")),
            ("a.b:81", "8443", Some("a.b:81")),
            ("a.b", "443", Some("a.b")),
            ("a.b", "80", Some("a.b")),
            ("a.b", "x", Some("a.b")),
            ("a b", "8443", Some("in.side:8443")),
        ] {
            let fields = [
                ("host", "in.side"),
                ("x-forwarded-host", host),
                ("x-forwarded-port", port),
            ];
            check_asked(&fields, false, expected);
        }
        check_asked(
            &[("host", "a.b"), ("x-forwarded-port", "81")],
            false,
            Some("a.b:81"),
        );
        check_asked(
            &[("host", "a.b:8000"), ("x-forwarded-port", "81")],
            false,
            None,
        );
        check_asked(&[("host", "a.b")], false, None);
    }

    #[test]
    fn ports_are_read_from_the_host() {
        for (host, expected) in [
            ("a", None),
            ("a:81", Some(81)),
            ("[::1]", None),
            ("[::1]:9", Some(9)),
            ("a:", None),
        ] {
            assert_eq!(port_of(host), expected, "{host}");
        }
    }

    #[test]
    fn networks_contain_by_their_first_bits() {
        for (network, bits, inside, expected) in [
            ("10.1.0.0", 16, "10.1.2.3", true),
            ("10.1.0.0", 16, "10.2.0.0", false),
            ("0.0.0.0", 0, "8.8.8.8", true),
            ("1.1.1.1", 32, "1.1.1.1", true),
            ("1.1.1.1", 32, "1.1.1.0", false),
            ("::", 0, "8.8.8.8", false),
        ] {
            assert_eq!(
                contains((ip(network), bits), ip(inside)),
                expected,
                "{network}/{bits}"
            );
        }
    }
}
