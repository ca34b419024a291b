//! What becomes of header fields on their way through, in both directions.
//!
//! A field passes as it came, byte for byte, unless it is hop-by-hop (RFC 9110 7.6.1), named by `Connection` (except
//! protected names, which a sender could otherwise make us take away from the other side), has an underscore in its name,
//! which back ends read as if it were a dash, or is what only we may say (`X-User-Id`, `X-User-Role`, `X-Forwarded-*` of
//! strangers) or what is for us alone (`X-API-Key`, `X-Admin-Key`). `Trailer` and `TE: trailers` stay: trailers pass.

use super::address::Client;
use super::introduction::Said;
use super::kinds::{
    Kind, NAME_BYTES_MAX, is_hop_by_hop, is_nominated, is_of_head, kind, lower, nominated,
};
use super::line::line;
use crate::http1::{Field, Framing, RequestHead, ResponseHead, entries, has_entry, put_date};

/// What `Via` says of us, by the version in which we were asked (RFC 9110 section 7.6.3).
const VIA_1_0: &[u8] = b"1.0 fanfare";
const VIA_1_1: &[u8] = b"1.1 fanfare";
const VIA_2_0: &[u8] = b"2.0 fanfare";
/// So many times through a gateway is a loop.
const VIA_MAX: usize = 8;

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
    /// Whether it was asked in HTTP/2.
    pub(super) is_http2: bool,
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
    let via = match (intro.is_http2, head.is_old) {
        (true, _) => VIA_2_0,
        (false, true) => VIA_1_0,
        (false, false) => VIA_1_1,
    };
    line(out, b"via", via);
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

/// That it went through a gateway, of a request that stands for many.
pub(super) fn write_via(out: &mut Vec<u8>) {
    line(out, b"via", VIA_1_1);
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

fn without_bearer(protocols: &[u8]) -> Vec<u8> {
    let kept: Vec<&[u8]> = protocols
        .split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|protocol| !protocol.starts_with(b"bearer."))
        .collect();
    kept.join(&b", "[..])
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

/// Says of an answer when it came, where its upstream does not (RFC 9110 section 6.6.1) and it may be said.
pub(super) fn write_date(
    head: &ResponseHead<'_>,
    is_removed: impl Fn(&[u8]) -> bool,
    out: &mut Vec<u8>,
) {
    let mut fields = head.fields.iter();
    let is_told = fields.any(|field| field.name.eq_ignore_ascii_case("date"));
    if !is_told && !is_removed(b"date") {
        out.extend_from_slice(b"date: ");
        put_date(out);
        out.extend_from_slice(b"\r\n");
    }
}

/// Writes the fields behind an answer's body as the client gets them, and the empty line: nothing that would not pass before
/// it, nor what has to be known before the body comes (RFC 9110 section 6.5.1).
pub(super) fn write_response_trailers(
    fields: &[Field<'_>],
    is_removed: impl Fn(&[u8]) -> bool,
    out: &mut Vec<u8>,
) {
    for field in fields {
        let mut buffer = [0; NAME_BYTES_MAX];
        let lower = lower(field.name, &mut buffer);
        if !is_hop_by_hop(lower) && !is_of_head(lower) && !is_removed(lower) {
            line(out, field.name.as_bytes(), field.value);
        }
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
#[path = "fields_tests.rs"]
mod tests;
