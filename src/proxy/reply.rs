//! What is written to the client before a body: heads of upstreams' answers, and answers of our own.

use std::io::Write as _;

use http::StatusCode;

use super::Proxy;
use super::course::Asked;
use super::download::Form;
use super::error::{ProxyError, Told};
use super::fields::{write_date, write_response};
use super::pages::Pages;
use super::removed::Removed;
use crate::http1::{self, Framing, ResponseHead};
use crate::model::put_decimal;
use crate::telemetry::proxy::{Carried, Method};

/// Writes the head of an upstream's answer.
pub(super) fn head(
    head: &ResponseHead<'_>,
    (asked, proxy): (&Asked, &Proxy),
    form: Form,
    out: &mut Vec<u8>,
) {
    status_line(head, out);
    let is_dropped = |lower: &[u8]| asked.replaces(lower) || proxy.removed.has(lower);
    write_response(head, is_dropped, out);
    write_date(head, |lower| proxy.removed.has(lower), out);
    proxy.pages.add(asked.audience, out);
    out.extend_from_slice(&asked.lines);
    if asked.carried == Carried::Sse {
        out.extend_from_slice(b"cache-control: no-cache\r\nx-accel-buffering: no\r\n");
    }
    let is_chunked = match form {
        Form::Same => matches!(head.body, Framing::Chunked(_)),
        Form::Chunks => true,
        Form::Bare => false,
    };
    if is_chunked {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    if !asked.keeps_alive {
        out.extend_from_slice(b"connection: close\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes an interim answer (RFC 9110 section 15.2).
pub(super) fn interim(head: &ResponseHead<'_>, removed: &Removed, out: &mut Vec<u8>) {
    status_line(head, out);
    write_response(head, |lower| removed.has(lower), out);
    out.extend_from_slice(b"\r\n");
}

/// Writes the answer to a WebSocket's handshake.
pub(super) fn switched(
    head: &ResponseHead<'_>,
    (asked, removed): (&Asked, &Removed),
    out: &mut Vec<u8>,
) {
    status_line(head, out);
    let is_dropped = |lower: &[u8]| asked.replaces(lower) || removed.has(lower);
    write_response(head, is_dropped, out);
    out.extend_from_slice(&asked.lines);
    out.extend_from_slice(b"connection: upgrade\r\nupgrade: websocket\r\n\r\n");
}

fn status_line(head: &ResponseHead<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    put_decimal(head.status.into(), out);
    out.push(b' ');
    out.extend_from_slice(head.reason.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// An answer of our own, head and body, with its status.
pub(super) fn error(
    error: &ProxyError,
    (asked, pages): (&Asked, &Pages),
    keeps_alive: bool,
) -> (u16, Vec<u8>) {
    let Told {
        status,
        content_type,
        body,
    } = error.told(asked.accepts_problems);
    let reason = StatusCode::from_u16(status).ok();
    let reason = reason.and_then(|status| status.canonical_reason());
    let mut out = Vec::with_capacity(1024 + body.len());
    // A vector takes every write.
    let _ = write!(
        out,
        "HTTP/1.1 {status} {}\r\ndate: {}\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n{}",
        reason.unwrap_or_default(),
        http1::date(),
        body.len(),
        error.fields()
    );
    pages.write_own(asked.audience, asked.is_encrypted, &mut out);
    out.extend_from_slice(&asked.lines);
    if !keeps_alive {
        out.extend_from_slice(b"connection: close\r\n");
    }
    out.extend_from_slice(b"\r\n");
    if asked.method != Method::Head {
        out.extend_from_slice(&body);
    }
    (status, out)
}
