//! What becomes of header fields on their way through, in both directions.
//!
//! A field passes as it came, byte for byte, unless it is hop-by-hop (RFC 9110 7.6.1), named by `Connection` (except
//! protected names, which a sender could otherwise make us take away from the other side), has an underscore in its name,
//! which back ends read as if it were a dash, or is what only we may say (`X-User-Id`, `X-User-Role`, `X-Forwarded-*` of
//! strangers) or what is for us alone (`X-API-Key`, `X-Admin-Key`). `Trailer` and `TE: trailers` stay: trailers pass.

use std::io::Write as _;
use std::net::IpAddr;

use super::address::Client;
use crate::http1::{Field, Framing, RequestHead, ResponseHead, entries, has_entry};

/// Longest id of a caller that is kept.
const ID_BYTES_MAX: usize = 128;
/// Names that are looked at in lower case; all known ones are shorter.
const NAME_BYTES_MAX: usize = 32;
/// What `Via` calls us.
const VIA: &[u8] = b"1.1 fanfare";
/// So many times through a gateway is a loop.
const VIA_MAX: usize = 8;

/// What a name means on the way to an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Passes.
    Plain,
    /// Ends here.
    Hop,
    /// Is written anew, by us.
    Ours,
    /// Passes where a trusted proxy says it.
    Forwarded(Option<Forwarded>),
}

/// What proxies say of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Forwarded {
    Standard,
    For,
    Proto,
    Host,
    Port,
}

fn kind(name: &str) -> Kind {
    let mut buffer = [0; NAME_BYTES_MAX];
    let lower = lower(name, &mut buffer);
    match lower {
        b"host" | b"x-request-id" | b"x-correlation-id" | b"x-api-key" | b"x-admin-key"
        | b"x-user-id" | b"x-user-role" | b"x-real-ip" => Kind::Ours,
        b"forwarded" => Kind::Forwarded(Some(Forwarded::Standard)),
        b"x-forwarded-for" => Kind::Forwarded(Some(Forwarded::For)),
        b"x-forwarded-proto" => Kind::Forwarded(Some(Forwarded::Proto)),
        b"x-forwarded-host" => Kind::Forwarded(Some(Forwarded::Host)),
        b"x-forwarded-port" => Kind::Forwarded(Some(Forwarded::Port)),
        lower if lower.starts_with(b"x-forwarded-") => Kind::Forwarded(None),
        lower if is_hop_by_hop(lower) => Kind::Hop,
        _ if name.as_bytes().contains(&b'_') => Kind::Hop,
        _ => Kind::Plain,
    }
}

/// The name in lower case; of a long one its beginning.
fn lower<'a>(name: &str, buffer: &'a mut [u8; NAME_BYTES_MAX]) -> &'a [u8] {
    let length = name.len().min(NAME_BYTES_MAX);
    let lower = &mut buffer[..length];
    lower.copy_from_slice(&name.as_bytes()[..length]);
    lower.make_ascii_lowercase();
    lower
}

fn is_hop_by_hop(lower: &[u8]) -> bool {
    matches!(
        lower,
        b"connection"
            | b"keep-alive"
            | b"te"
            | b"transfer-encoding"
            | b"upgrade"
            | b"http2-settings"
            | b"proxy-connection"
            | b"proxy-authenticate"
            | b"proxy-authorization"
            | b"proxy-authentication-info"
    )
}

/// Names that `Connection` cannot take away.
fn is_protected(lower: &[u8]) -> bool {
    matches!(
        lower,
        b"host"
            | b"authorization"
            | b"cookie"
            | b"set-cookie"
            | b"content-length"
            | b"content-type"
            | b"content-encoding"
            | b"cache-control"
            | b"via"
            | b"forwarded"
            | b"x-real-ip"
            | b"x-request-id"
            | b"x-correlation-id"
            | b"traceparent"
            | b"tracestate"
            | b"trailer"
    ) || [&b"x-forwarded-"[..], b"x-user-", b"sec-websocket-"]
        .iter()
        .any(|prefix| lower.starts_with(prefix))
}

/// What `Connection` names and is no option of the connection itself. Nearly always nothing.
fn nominated<'a>(fields: &'a [Field<'a>]) -> Vec<&'a [u8]> {
    entries(fields, "connection")
        .filter(|name| {
            let is_option = [&b"keep-alive"[..], b"close", b"upgrade"]
                .iter()
                .any(|option| name.eq_ignore_ascii_case(option));
            let name = std::str::from_utf8(name).unwrap_or_default();
            !is_option && !is_protected(lower(name, &mut [0; NAME_BYTES_MAX]))
        })
        .collect()
}

fn is_nominated(nominated: &[&[u8]], name: &str) -> bool {
    nominated
        .iter()
        .any(|one| one.eq_ignore_ascii_case(name.as_bytes()))
}

/// Whether a request has been through a gateway so often that it goes in a circle.
pub(super) fn is_looping(head: &RequestHead<'_>) -> bool {
    let ours = entries(head.fields, "via").filter(|entry| entry.ends_with(b" fanfare"));
    ours.count() >= VIA_MAX
}

/// Who asks, as the upstream is told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Introduction<'a> {
    pub(super) client: &'a Client,
    /// The lines of the ids.
    pub(super) ids: &'a [u8],
    /// User and role of a verified token.
    pub(super) identity: Option<(&'a str, &'a str)>,
    /// Whether an entry `bearer.…` of `Sec-WebSocket-Protocol` was the token, and goes no further.
    pub(super) hides_bearer: bool,
    /// Whether it asks for a WebSocket.
    pub(super) upgrades: bool,
    /// Whether it gets `Forwarded`, too.
    pub(super) tells_forwarded: bool,
}

/// Writes the fields behind a request's body as an upstream gets them, and the empty line. Some put them together with
/// those of the head, so nothing passes here that would not there, nor what says where a message ends, belongs or comes from
/// (RFC 9110 section 6.5.1).
pub(super) fn write_trailers(fields: &[Field<'_>], out: &mut Vec<u8>) {
    for field in fields {
        let mut buffer = [0; NAME_BYTES_MAX];
        let passes = kind(field.name) == Kind::Plain && !is_of_head(lower(field.name, &mut buffer));
        if passes {
            line(out, field.name.as_bytes(), field.value);
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// Names that are no trailers': whoever reads them acts before the body has come.
fn is_of_head(lower: &[u8]) -> bool {
    matches!(
        lower,
        b"authorization"
            | b"cookie"
            | b"set-cookie"
            | b"age"
            | b"cache-control"
            | b"date"
            | b"expect"
            | b"expires"
            | b"max-forwards"
            | b"origin"
            | b"pragma"
            | b"range"
            | b"trailer"
            | b"traceparent"
            | b"tracestate"
            | b"vary"
            | b"via"
            | b"content-disposition"
            | b"content-encoding"
            | b"content-length"
            | b"content-location"
            | b"content-range"
            | b"content-type"
    ) || [&b"if-"[..], b"sec-", b"access-control-"]
        .iter()
        .any(|prefix| lower.starts_with(prefix))
}

/// Writes a request's fields as an upstream gets them, all but `Host`, and the empty line.
pub(super) fn write_request(head: &RequestHead<'_>, intro: &Introduction<'_>, out: &mut Vec<u8>) {
    let nominated = nominated(head.fields);
    let mut said = Said::default();
    for field in head.fields {
        match kind(field.name) {
            Kind::Plain if !nominated.is_empty() && is_nominated(&nominated, field.name) => {}
            Kind::Plain
                if intro.hides_bearer
                    && field.name.eq_ignore_ascii_case("sec-websocket-protocol") =>
            {
                let kept = without_bearer(field.value);
                if !kept.is_empty() {
                    line(out, field.name.as_bytes(), &kept);
                }
            }
            Kind::Plain => line(out, field.name.as_bytes(), field.value),
            Kind::Forwarded(what) if intro.client.is_behind_trusted => said.hear(what, field, out),
            Kind::Forwarded(_) | Kind::Hop | Kind::Ours => {}
        }
    }
    if has_entry(head.fields, "te", "trailers") {
        out.extend_from_slice(b"te: trailers\r\n");
    }
    if matches!(head.body, Framing::Chunked(_)) {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    if intro.upgrades {
        out.extend_from_slice(b"connection: Upgrade\r\nupgrade: websocket\r\n");
    }
    said.write(head, intro.client, out);
    if intro.tells_forwarded {
        said.write_standard(head, intro.client, out);
    }
    if let Some((user, role)) = intro.identity {
        write_identity(user, role, out);
    }
    out.extend_from_slice(intro.ids);
    write_via(out);
    out.extend_from_slice(b"\r\n");
}

/// Who asks, as far as that is known.
pub(super) fn write_identity(user: &str, role: &str, out: &mut Vec<u8>) {
    for (name, text) in [(&b"x-user-id"[..], user), (b"x-user-role", role)] {
        if !text.is_empty() {
            line(out, name, text.as_bytes());
        }
    }
}

/// That it went through a gateway.
pub(super) fn write_via(out: &mut Vec<u8>) {
    line(out, b"via", VIA);
}

/// Whether an answer is a stream of events as plain text.
pub(super) fn is_event_stream(head: &ResponseHead<'_>) -> bool {
    const EVENTS: &[u8] = b"text/event-stream";
    let field = |name: &str| {
        let mut fields = head.fields.iter();
        let found = fields.find(|field| field.name.eq_ignore_ascii_case(name));
        found.map(|field| field.value)
    };
    let kind = field("content-type").unwrap_or_default();
    let kind = kind.get(..EVENTS.len()).unwrap_or_default();
    kind.eq_ignore_ascii_case(EVENTS) && field("content-encoding").is_none()
}

fn line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn without_bearer(protocols: &[u8]) -> Vec<u8> {
    let kept: Vec<&[u8]> = protocols
        .split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|protocol| !protocol.starts_with(b"bearer."))
        .collect();
    kept.join(&b", "[..])
}

/// What trusted proxies have said of the client already.
#[derive(Default)]
struct Said {
    chain: Vec<u8>,
    /// The same as `Forwarded` says it.
    standard: Vec<u8>,
    proto: bool,
    host: bool,
    port: bool,
}

impl Said {
    fn hear(&mut self, what: Option<Forwarded>, field: &Field<'_>, out: &mut Vec<u8>) {
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
            Some(Forwarded::Proto) => self.proto = true,
            Some(Forwarded::Host) => self.host = true,
            Some(Forwarded::Port) => self.port = true,
            None => {}
        }
        line(out, field.name.as_bytes(), field.value);
    }

    fn write(&self, head: &RequestHead<'_>, client: &Client, out: &mut Vec<u8>) {
        out.extend_from_slice(b"x-forwarded-for: ");
        out.extend_from_slice(&self.chain);
        address(out, client.peer);
        out.extend_from_slice(b"\r\nx-real-ip: ");
        address(out, client.ip);
        out.extend_from_slice(b"\r\n");
        if !self.proto {
            line(out, b"x-forwarded-proto", client.scheme().as_bytes());
        }
        if !self.host && !head.host.is_empty() {
            line(out, b"x-forwarded-host", head.host.as_bytes());
        }
        if !self.port {
            let port = port(head.host).unwrap_or(if client.is_encrypted { 443 } else { 80 });
            out.extend_from_slice(b"x-forwarded-port: ");
            put_number(out, port);
            out.extend_from_slice(b"\r\n");
        }
    }

    /// The same in the form of RFC 7239, one element behind those of trusted proxies.
    fn write_standard(&self, head: &RequestHead<'_>, client: &Client, out: &mut Vec<u8>) {
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
        put_number(out, octet.into());
    }
}

/// A number as it is printed.
pub(super) fn put_number(out: &mut Vec<u8>, number: u16) {
    let mut digits = [0; 5];
    let (mut rest, mut from) = (number, digits.len());
    loop {
        from -= 1;
        digits[from] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            return out.extend_from_slice(&digits[from..]);
        }
    }
}

fn port(host: &str) -> Option<u16> {
    let after_literal = host.rfind(']').map_or(host, |end| &host[end..]);
    let port = after_literal.rsplit_once(':');
    port.and_then(|(_, port)| port.parse().ok())
}

/// Writes an answer's fields as the client gets them, without the empty line. `replaced` tells which names are said anew, or
/// not at all.
pub(super) fn write_response(
    head: &ResponseHead<'_>,
    replaced: impl Fn(&[u8]) -> bool,
    out: &mut Vec<u8>,
) {
    let nominated = nominated(head.fields);
    for field in head.fields {
        let mut buffer = [0; NAME_BYTES_MAX];
        let lower = lower(field.name, &mut buffer);
        if !is_hop_by_hop(lower)
            && !replaced(lower)
            && (nominated.is_empty() || !is_nominated(&nominated, field.name))
        {
            line(out, field.name.as_bytes(), field.value);
        }
    }
}

/// The lines of a request's ids: kept where the caller brought good ones (1 to 128 visible characters), made otherwise;
/// a correlation id that nobody brought is the request's.
pub(super) fn ids(head: &RequestHead<'_>) -> Vec<u8> {
    let mut made = uuid::Uuid::encode_buffer();
    let brought = |name| head.field(name).filter(|id| is_kept(id));
    let request = brought("x-request-id").unwrap_or_else(|| random_id(&mut made));
    let correlation = brought("x-correlation-id").unwrap_or(request);
    let mut lines = Vec::with_capacity(64 + request.len() + correlation.len());
    line(&mut lines, b"x-request-id", request);
    line(&mut lines, b"x-correlation-id", correlation);
    lines
}

/// The request's id in these lines.
pub(super) fn request_id(lines: &[u8]) -> &str {
    let lines = std::str::from_utf8(lines).unwrap_or_default();
    let first = lines.split("\r\n").next().unwrap_or_default();
    first.strip_prefix("x-request-id: ").unwrap_or_default()
}

fn is_kept(id: &[u8]) -> bool {
    (1..=ID_BYTES_MAX).contains(&id.len()) && id.iter().all(|byte| (b' '..=b'~').contains(byte))
}

/// From this thread's generator: the system's costs a call each time, and an id is no secret.
fn random_id(text: &mut [u8; 45]) -> &[u8] {
    let id = uuid::Builder::from_random_bytes(rand::random()).into_uuid();
    id.hyphenated().encode_lower(text).as_bytes()
}

#[cfg(test)]
#[path = "fields_tests.rs"]
mod tests;
