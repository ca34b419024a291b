//! Writes answers as JSON bytes. Channel names and epochs need no escaping: their alphabets have nothing to escape.

use axum::body::Body;
use axum::response::Response;
use http::header::{CONTENT_TYPE, HeaderValue};
use serde::Serialize;

use crate::model::{ChannelKey, Position, put_decimal};

/// 200 with this body.
pub(super) fn response(json: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(json));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Opens an object with the channel's name: `{"channel":"news"`.
pub(super) fn open_channel(out: &mut Vec<u8>, channel: &ChannelKey) {
    out.extend_from_slice(b"{\"channel\":\"");
    out.extend_from_slice(channel.name().as_bytes());
    out.push(b'"');
}

/// Appends `,"epoch":"…","offset":n`, or nothing without a position.
pub(super) fn position(out: &mut Vec<u8>, position: Option<Position>) {
    let Some(position) = position else { return };
    out.extend_from_slice(b",\"epoch\":\"");
    out.extend_from_slice(&position.epoch.characters());
    out.push(b'"');
    number(out, "offset", position.offset);
}

/// Appends `,"name":n`.
pub(super) fn number(out: &mut Vec<u8>, name: &str, value: u64) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    put_decimal(value, out);
}

/// Appends any value with escaping.
pub(super) fn value<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    // Strings and plain structs cannot fail to serialise, and writing to a Vec cannot either.
    let _ = serde_json::to_writer(out, value);
}
