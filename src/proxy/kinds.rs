//! What the name of a field means on its way through: whether it passes, ends here, or is for us to say.

use crate::http1::{Field, entries};

/// Names that are looked at in lower case; all known ones are shorter.
pub(super) const NAME_BYTES_MAX: usize = 32;

/// What proxies say of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Forwarded {
    Standard,
    For,
    Proto,
    Host,
    Port,
}

/// What a name means on the way to an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Passes.
    Plain,
    /// Ends here.
    Hop,
    /// Is written anew, by us.
    Ours,
    /// Passes where a trusted proxy says it.
    Forwarded(Option<Forwarded>),
}

pub(super) fn kind(name: &str) -> Kind {
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
        // What is for proxies is for us; and back ends of CGI's kind take `Proxy` for their own proxy (CVE-2016-5385).
        b"proxy" => Kind::Hop,
        lower if lower.starts_with(b"proxy-") => Kind::Hop,
        _ if name.as_bytes().contains(&b'_') => Kind::Hop,
        _ => Kind::Plain,
    }
}

/// The name in lower case; of a long one its beginning.
pub(super) fn lower<'a>(name: &str, buffer: &'a mut [u8; NAME_BYTES_MAX]) -> &'a [u8] {
    let length = name.len().min(NAME_BYTES_MAX);
    let lower = &mut buffer[..length];
    lower.copy_from_slice(&name.as_bytes()[..length]);
    lower.make_ascii_lowercase();
    lower
}

pub(super) fn is_hop_by_hop(lower: &[u8]) -> bool {
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
pub(super) fn is_protected(lower: &[u8]) -> bool {
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
pub(super) fn nominated<'a>(fields: &'a [Field<'a>]) -> Vec<&'a [u8]> {
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

pub(super) fn is_nominated(nominated: &[&[u8]], name: &str) -> bool {
    nominated
        .iter()
        .any(|one| one.eq_ignore_ascii_case(name.as_bytes()))
}

/// Names that are no trailers': whoever reads them acts before the body has come.
pub(super) fn is_of_head(lower: &[u8]) -> bool {
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
