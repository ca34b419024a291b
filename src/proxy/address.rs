//! Who a client is behind the proxies that are trusted.

use std::net::{IpAddr, SocketAddr};

use crate::http1::Field;
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The client's address, behind the proxies that are trusted.
    pub ip: IpAddr,
    /// Whether the client itself speaks TLS.
    pub is_secure: bool,
    /// Whether a trusted proxy brought it, so that what it says of the client is believed.
    pub is_behind_trusted: bool,
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
}

impl Client {
    /// Of the peer's connection.
    pub(super) const fn scheme(&self) -> &'static str {
        if self.is_encrypted { "https" } else { "http" }
    }
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
        };
    }
    let mut ip = peer;
    let entries = |name: &'static str| {
        let fields = fields.iter().rev();
        let fields = fields.filter(move |field| field.name.eq_ignore_ascii_case(name));
        fields.flat_map(|field| std::str::from_utf8(field.value).unwrap_or("?").rsplit(','))
    };
    // The older form goes first: whoever writes only that leaves what a client wrote in the other one.
    let has_older = entries("x-forwarded-for").next().is_some();
    let name = if has_older {
        "x-forwarded-for"
    } else {
        "forwarded"
    };
    for entry in entries(name) {
        let hop = if has_older {
            Some(entry)
        } else {
            for_of(entry)
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
    }
}

/// The `for` of an element of `Forwarded` (RFC 7239 section 5.2). Those that hide behind a name are no address.
fn for_of(element: &str) -> Option<&str> {
    element.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        let is_for = name.trim().eq_ignore_ascii_case("for");
        is_for.then(|| value.trim().trim_matches('"'))
    })
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
