//! Who asks, as an upstream is told: `X-Forwarded-*`, `X-Real-IP` and `Forwarded` (RFC 7239), behind what trusted proxies say.

use std::io::Write as _;
use std::net::IpAddr;

use super::address::{Client, first, port_of, says_encrypted};
use super::kinds::Forwarded;
use super::line::line;
use crate::http1::{Field, RequestHead};
use crate::model::put_decimal;

/// What trusted proxies have said of the client already.
#[derive(Default)]
pub(super) struct Said<'a> {
    chain: Vec<u8>,
    /// The same as `Forwarded` says it.
    standard: Vec<u8>,
    proto: Option<&'a [u8]>,
    host: Option<&'a [u8]>,
    has_port: bool,
}

impl<'a> Said<'a> {
    /// A field of a trusted proxy's; what stands alone passes.
    pub(super) fn hear(&mut self, what: Option<Forwarded>, field: &Field<'a>, out: &mut Vec<u8>) {
        match what {
            Some(Forwarded::For) => {
                self.chain.extend_from_slice(field.value);
                self.chain.extend_from_slice(b", ");
                return;
            }
            Some(Forwarded::Standard) => {
                self.standard.extend_from_slice(field.value);
                self.standard.extend_from_slice(b", ");
                return;
            }
            Some(Forwarded::Proto) => {
                self.proto.get_or_insert(field.value);
            }
            Some(Forwarded::Host) => {
                self.host.get_or_insert(field.value);
            }
            Some(Forwarded::Port) => self.has_port = true,
            None => {}
        }
        line(out, field.name.as_bytes(), field.value);
    }

    /// Writes what they say, with who came to us.
    pub(super) fn write(&self, head: &RequestHead<'_>, client: &Client, out: &mut Vec<u8>) {
        out.extend_from_slice(b"x-forwarded-for: ");
        out.extend_from_slice(&self.chain);
        // Who said it in the other form alone.
        let is_standard = self.chain.is_empty() && client.standard_elements > 0;
        if is_standard && client.ip != client.peer {
            address(out, client.ip);
            out.extend_from_slice(b", ");
        }
        address(out, client.peer);
        out.extend_from_slice(b"\r\nx-real-ip: ");
        address(out, client.ip);
        out.extend_from_slice(b"\r\n");
        let scheme = client.standard_scheme(head.fields);
        let scheme = scheme.unwrap_or(client.scheme());
        if self.proto.is_none() {
            line(out, b"x-forwarded-proto", scheme.as_bytes());
        }
        let host = client.standard_host(head.fields).unwrap_or(head.host);
        if self.host.is_none() && !host.is_empty() {
            line(out, b"x-forwarded-host", host.as_bytes());
        }
        if !self.has_port {
            out.extend_from_slice(b"x-forwarded-port: ");
            put_decimal(self.port(host, scheme).into(), out);
            out.extend_from_slice(b"\r\n");
        }
    }

    /// The port that the client asked at, where nobody says it: that of the host, or the one that the scheme means. A
    /// proxy that ended TLS before us often says its scheme alone.
    fn port(&self, host: &str, scheme: &str) -> u16 {
        let host = match self.host {
            Some(host) => std::str::from_utf8(first(host)).unwrap_or_default(),
            None => host,
        };
        let is_encrypted = says_encrypted(self.proto.unwrap_or(scheme.as_bytes()));
        port_of(host).unwrap_or(if is_encrypted { 443 } else { 80 })
    }

    /// The same in the form of RFC 7239, one element behind those of trusted proxies.
    pub(super) fn write_standard(
        &self,
        head: &RequestHead<'_>,
        client: &Client,
        out: &mut Vec<u8>,
    ) {
        out.extend_from_slice(b"forwarded: ");
        out.extend_from_slice(&self.standard);
        out.extend_from_slice(b"for=");
        standard_address(out, client.peer);
        // What is left of a host that was checked has no quote and no backslash.
        if !head.host.is_empty() {
            let parts = [&b";host=\""[..], head.host.as_bytes(), b"\""];
            parts.iter().for_each(|part| out.extend_from_slice(part));
        }
        let parts = [&b";proto="[..], client.scheme().as_bytes(), b"\r\n"];
        parts.iter().for_each(|part| out.extend_from_slice(part));
    }
}

fn standard_address(out: &mut Vec<u8>, ip: IpAddr) {
    // A colon is no part of a token, so an IPv6 address is quoted, in its brackets (RFC 7239 section 6.1).
    let marks: [&[u8]; 2] = if ip.is_ipv6() {
        [b"\"[", b"]\""]
    } else {
        [b"", b""]
    };
    out.extend_from_slice(marks[0]);
    address(out, ip);
    out.extend_from_slice(marks[1]);
}

/// As it is printed. Most are of version 4: the formatter takes as long for one as for all fields of a request.
fn address(out: &mut Vec<u8>, ip: IpAddr) {
    let IpAddr::V4(ip) = ip else {
        // A vector takes every write.
        let _ = write!(out, "{ip}");
        return;
    };
    for (index, octet) in ip.octets().into_iter().enumerate() {
        if index > 0 {
            out.push(b'.');
        }
        put_decimal(octet.into(), out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_stand_as_the_standard_has_them() {
        for (ip, expected) in [
            ("2001:db8::1", "\"[2001:db8::1]\""),
            ("0.10.200.255", "0.10.200.255"),
        ] {
            let mut out = Vec::new();
            standard_address(&mut out, ip.parse().expect("an address"));
            assert_eq!(String::from_utf8(out).expect("text"), expected);
        }
    }
}
