//! The answer to a path that nobody serves, in the form of the Node gateway's framework, or of RFC 9457 where asked.

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::StatusCode;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use serde::Serialize;

use crate::telemetry::http::{Route, Stopwatch};

/// Most bytes of the path that are repeated to whoever sent it.
const PATH_BYTES_MAX: usize = 256;

/// As that framework writes it, field by field.
#[derive(Serialize)]
struct NotFound<'a> {
    message: &'a str,
    error: &'static str,
    #[serde(rename = "statusCode")]
    status_code: u16,
}

/// RFC 9457.
#[derive(Serialize)]
struct Problem<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: &'a str,
    error: &'static str,
}

/// The fallback of the whole process: `{"message":"Route GET:/nope not found","error":"Not Found","statusCode":404}`.
/// Also for a known path with another method, as there. The query is not repeated: it may hold a token.
pub async fn not_found(request: Request) -> Response {
    let watch = Stopwatch::start(Route::Unmatched);
    watch.stop(StatusCode::NOT_FOUND.as_u16());
    answer(&request)
}

pub(super) fn answer(request: &Request) -> Response {
    let path = request.uri().path();
    let path = &path[..path.floor_char_boundary(PATH_BYTES_MAX)];
    let message = format!("Route {}:{path} not found", request.method());
    let is_problem = request
        .headers()
        .get(ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("application/problem+json"));
    let (media_type, body) = if is_problem {
        let problem = Problem {
            r#type: "about:blank",
            title: "Not Found",
            status: 404,
            detail: &message,
            error: "not_found",
        };
        ("application/problem+json", serde_json::to_vec(&problem))
    } else {
        let not_found = NotFound {
            message: &message,
            error: "Not Found",
            status_code: 404,
        };
        ("application/json", serde_json::to_vec(&not_found))
    };
    let mut response = Response::new(Body::from(body.unwrap_or_default()));
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}
