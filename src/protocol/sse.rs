//! Server-sent events (WHATWG HTML section 9.2): events, ids, and the response head of a socket that we took over.
//!
//! An id is a position, so that the standard `Last-Event-ID` is all that a browser needs to go on after a reconnect. For
//! one channel it is `<epoch>:<offset>` and part of the frame that all subscribers share. For several it is a line of
//! each connection's own: `1.<hash>.<position>,<position>,…`, where `1` is the version, the hash is of the channel list
//! (16 hexadecimal digits), and the positions stand in the order of the request, `-` for a channel without history.

use std::borrow::Cow;

use http::HeaderMap;
use http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, TRANSFER_ENCODING,
};
use serde::Deserialize;

use super::plain::{self, JsonSink, Sink};
use super::{ClaimedPosition, Connected, json_text};
use crate::model::{ChannelKey, Epoch, Position, Publication};

/// The most bytes of an id, with which servers and proxies on the way back still take the request's head.
pub const ID_BYTES_MAX: usize = 2048;

/// What ids of several channels begin with. Another layout gets another number.
const ID_VERSION: &str = "1";

/// A `Last-Event-ID` that was not made for these channels, or not by us. The client cannot catch up and is told so with
/// a `gap`: a 4xx would end an `EventSource` for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the last event id cannot be read")]
pub struct Unreadable;

/// The hash of a request's channels, in their order: what an id of several channels is bound to. The same on every node
/// and in every version (FNV-1a of 64 bits). No secret: who forges one misleads only themselves.
pub fn channels_hash(channels: &[ChannelKey]) -> u64 {
    let separated = channels
        .iter()
        .flat_map(|channel| channel.name().bytes().chain([0]));
    separated.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Reads a `Last-Event-ID`: one position for each of the request's channels, in their order; `None` for a channel that
/// had no history.
///
/// # Errors
/// When it is not an id for these channels. What it says is not checked further: an epoch may be long gone.
pub fn parse_last_event_id(
    id: &str,
    channels: &[ChannelKey],
) -> Result<Vec<Option<ClaimedPosition>>, Unreadable> {
    if id.len() > ID_BYTES_MAX {
        return Err(Unreadable);
    }
    if let [_] = channels {
        return parse_position(id).map(|position| vec![Some(position)]);
    }
    let (version, rest) = id.split_once('.').ok_or(Unreadable)?;
    let (hash, positions) = rest.split_once('.').ok_or(Unreadable)?;
    if version != ID_VERSION || hash != format!("{:016x}", channels_hash(channels)) {
        return Err(Unreadable);
    }
    let positions = positions
        .split(',')
        .map(|position| match position {
            "-" => Ok(None),
            position => parse_position(position).map(Some),
        })
        .collect::<Result<Vec<_>, _>>()?;
    match positions.len() == channels.len() {
        true => Ok(positions),
        false => Err(Unreadable),
    }
}

fn parse_position(text: &str) -> Result<ClaimedPosition, Unreadable> {
    let (epoch, offset) = text.split_once(':').ok_or(Unreadable)?;
    // `parse` would take a plus sign.
    if !offset.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Unreadable);
    }
    Ok(ClaimedPosition {
        epoch: Some(Epoch::parse(epoch).ok_or(Unreadable)?),
        offset: offset.parse().map_err(|_| Unreadable)?,
    })
}

/// Appends the id line of one event for a connection of several channels. It stands before the shared frame. Nothing is
/// appended where it would pass [`ID_BYTES_MAX`]: the client then keeps its last id, and hears of what is too old for it.
pub fn event_id(positions: &[Option<Position>], channels_hash: u64, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(b"id: ");
    out.extend_from_slice(ID_VERSION.as_bytes());
    out.push(b'.');
    hex16(channels_hash, out);
    for (index, position) in positions.iter().enumerate() {
        out.push(if index == 0 { b'.' } else { b',' });
        match position {
            Some(position) => write_position(*position, out),
            None => out.push(b'-'),
        }
    }
    match out.len() - start - "id: ".len() <= ID_BYTES_MAX {
        true => out.push(b'\n'),
        false => out.truncate(start),
    }
}

fn hex16(value: u64, out: &mut Vec<u8>) {
    out.extend(
        (0..16)
            .rev()
            .map(|digit| b"0123456789abcdef"[(value >> (4 * digit) & 15) as usize]),
    );
}

fn write_position(position: Position, out: &mut Vec<u8>) {
    position
        .epoch
        .with_str(|text| out.extend_from_slice(text.as_bytes()));
    out.push(b':');
    json_text::unsigned(position.offset, out);
}

/// Appends the id line of a stream of one channel; nothing in a channel without history.
pub fn id_line(position: Option<Position>, out: &mut Vec<u8>) {
    if let Some(position) = position {
        out.extend_from_slice(b"id: ");
        write_position(position, out);
        out.push(b'\n');
    }
}

/// A publication without event name, so that `onmessage` gets it. With `epoch` it has an id line, for streams of one
/// channel.
pub(super) fn publication(
    channel: &ChannelKey,
    publication: &Publication,
    epoch: Option<Epoch>,
    out: &mut Vec<u8>,
) {
    out.reserve(130 + channel.name().len() + publication.data.len());
    let position = epoch.map(|epoch| Position::new(epoch, publication.offset));
    id_line(position.filter(|position| position.offset > 0), out);
    if channel.is_shared() {
        return upstream_event(channel, publication.data.as_bytes(), out);
    }
    data_line(out, |sink| {
        sink.map(|sink| {
            sink.plain_entry("channel", channel.name());
            sink.key("data");
            sink.payload(&publication.data);
            if publication.offset > 0 {
                sink.unsigned_entry("offset", publication.offset);
            }
        });
    });
}

/// One event of an upstream, as it stands in a stream that many share.
#[derive(Deserialize)]
struct UpstreamEvent<'a> {
    #[serde(borrow, default)]
    event: Option<Cow<'a, str>>,
    #[serde(borrow)]
    data: Cow<'a, str>,
    #[serde(default)]
    retry: Option<u64>,
    /// In the place of an event: some may be missing here.
    #[serde(default)]
    gap: bool,
}

/// The event as the upstream sent it, but for its id, which is ours. What is none says nothing: an id alone.
fn upstream_event(channel: &ChannelKey, json: &[u8], out: &mut Vec<u8>) {
    if let Ok(event) = serde_json::from_slice::<UpstreamEvent<'_>>(json) {
        if event.gap {
            return gap(channel, None, None, None, out);
        }
        if let Some(name) = event.event {
            out.extend_from_slice(b"event: ");
            out.extend_from_slice(name.as_bytes());
            out.push(b'\n');
        }
        if let Some(retry) = event.retry {
            retry_line(retry, out);
        }
        for line in event.data.split('\n') {
            out.extend_from_slice(b"data: ");
            out.extend_from_slice(line.as_bytes());
            out.push(b'\n');
        }
    }
    out.push(b'\n');
}

/// A gap; `id` is given for streams of one channel.
pub(super) fn gap(
    channel: &ChannelKey,
    dropped: Option<u64>,
    position: Option<Position>,
    id: Option<Position>,
    out: &mut Vec<u8>,
) {
    id_line(id, out);
    out.extend_from_slice(b"event: gap\n");
    data_line(out, |sink| plain::gap(sink, channel, dropped, position));
}

/// Appends the first event of a stream: `connected`, with the milliseconds after which a browser comes back when the
/// stream breaks off.
pub fn connected(connected: &Connected, retry_ms: u64, out: &mut Vec<u8>) {
    retry_line(retry_ms, out);
    out.extend_from_slice(b"event: connected\n");
    data_line(out, |sink| {
        plain::connected(sink, "SSE connection established", connected);
    });
}

/// Appends a new time to come back after, in milliseconds; no event.
pub fn retry(retry_ms: u64, out: &mut Vec<u8>) {
    retry_line(retry_ms, out);
    out.push(b'\n');
}

/// Appends a comment: it keeps proxies awake and no page hears of it.
pub fn comment(out: &mut Vec<u8>) {
    out.extend_from_slice(b":\n\n");
}

fn retry_line(retry_ms: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"retry: ");
    json_text::unsigned(retry_ms, out);
    out.push(b'\n');
}

/// One line of data and the blank line that ends the event.
fn data_line(out: &mut Vec<u8>, write: impl FnOnce(&mut JsonSink<'_>)) {
    out.extend_from_slice(b"data: ");
    write(&mut JsonSink { out });
    out.extend_from_slice(b"\n\n");
}

/// Appends the response head of a stream on an HTTP/1.1 socket that we own from then on (RFC 9112). `extra` are further
/// headers (CORS, request id, `Date`); [`HeaderMap`] holds no value with a line end, and a header that the stream itself
/// sets or that would frame the body is left out.
pub fn response_head(extra: &HeaderMap, out: &mut Vec<u8>) {
    out.extend_from_slice(
        b"HTTP/1.1 200 OK\r\n\
        content-type: text/event-stream\r\n\
        cache-control: no-cache, no-transform\r\n\
        x-accel-buffering: no\r\n\
        connection: close\r\n",
    );
    for (name, value) in extra.iter().filter(|(name, _)| !is_ours(name)) {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

fn is_ours(name: &HeaderName) -> bool {
    [
        CONTENT_TYPE,
        CACHE_CONTROL,
        CONNECTION,
        CONTENT_LENGTH,
        TRANSFER_ENCODING,
    ]
    .contains(name)
        || name == "x-accel-buffering"
}

#[cfg(test)]
#[path = "sse_tests.rs"]
mod tests;
