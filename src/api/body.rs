//! Reads a request's body and the JSON in it.
//!
//! `curl -d` sends `application/x-www-form-urlencoded`; nobody is punished for that. Only what is clearly no JSON text
//! is refused by its type.

use axum::body::{Body, HttpBody as _};
use axum::extract::Request;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http_body_util::BodyExt as _;
use serde::Deserialize;

use super::ApiError;
use crate::model::{BodyError, ErrorCode};

/// Types that are never JSON, by their beginning.
const REFUSED_TYPES: [&str; 6] = [
    "multipart/",
    "image/",
    "audio/",
    "video/",
    "application/xml",
    "text/xml",
];

/// The whole body, at most `bytes_max` of it (0 is no limit). A body that came in one piece is not copied.
///
/// # Errors
/// 413 over the limit, 415 for a type or encoding that is not read here, 408 when it stopped coming, 400 when it ended
/// early.
pub(super) async fn read(request: Request, bytes_max: usize) -> Result<Bytes, ApiError> {
    let bytes_max = if bytes_max == 0 {
        usize::MAX
    } else {
        bytes_max
    };
    check_type(request.headers())?;
    let mut body = request.into_body();
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(too_large(bytes_max));
    }
    let first = next(&mut body).await?.unwrap_or_default();
    if first.len() > bytes_max {
        return Err(too_large(bytes_max));
    }
    if body.is_end_stream() {
        return Ok(first);
    }
    let mut whole = BytesMut::from(&first[..]);
    while let Some(piece) = next(&mut body).await? {
        if whole.len() + piece.len() > bytes_max {
            return Err(too_large(bytes_max));
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole.freeze())
}

/// The JSON object in a body, borrowed from it.
///
/// # Errors
/// 400 that says what and at which line and column.
pub(super) fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, ApiError> {
    match body.trim_ascii_start().first() {
        None => {
            return Err(ApiError::bad_request(
                "the body is empty, a JSON object is expected",
            ));
        }
        // Derived structs would also be read from an array.
        Some(b'[') => {
            return Err(ApiError::bad_request(
                "the body is an array, a JSON object is expected",
            ));
        }
        Some(_) => {}
    }
    serde_json::from_slice(body).map_err(|error| unreadable(&error))
}

/// What serde says, as an error of ours.
pub(super) fn unreadable(error: &serde_json::Error) -> ApiError {
    ApiError::bad_request(format!("the body cannot be read: {error}"))
}

/// The next piece of data; `None` at the end. Trailers are skipped.
async fn next(body: &mut Body) -> Result<Option<Bytes>, ApiError> {
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(|error| broken(&error))?.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

/// The server's own bounds on bodies come through as errors of the body.
fn broken(error: &axum::Error) -> ApiError {
    let code = match BodyError::find(error) {
        Some(BodyError::TooLarge) => ErrorCode::TooLarge,
        Some(BodyError::TimedOut) => ErrorCode::RequestTimeout,
        Some(BodyError::Broken) | None => ErrorCode::BadRequest,
    };
    ApiError::new(code, format!("the body ended early: {error}")).ending_connection()
}

fn too_large(bytes_max: usize) -> ApiError {
    let message = format!("the body is larger than {bytes_max} bytes");
    ApiError::new(ErrorCode::TooLarge, message).ending_connection()
}

fn check_type(headers: &HeaderMap) -> Result<(), ApiError> {
    if let Some(coding) = headers.get(CONTENT_ENCODING)
        && !coding.as_bytes().eq_ignore_ascii_case(b"identity")
    {
        let message = "compressed bodies are not read here; send it without Content-Encoding";
        return Err(ApiError::new(ErrorCode::UnsupportedMediaType, message));
    }
    let Some(media_type) = headers.get(CONTENT_TYPE).map(|value| value.as_bytes()) else {
        return Ok(());
    };
    let is_refused = |refused: &str| {
        media_type
            .get(..refused.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(refused.as_bytes()))
    };
    if REFUSED_TYPES.into_iter().any(is_refused) {
        let message = "the body must be JSON (Content-Type: application/json)";
        return Err(ApiError::new(ErrorCode::UnsupportedMediaType, message));
    }
    Ok(())
}
