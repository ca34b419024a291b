//! The answer to a path or a method that nobody serves, in the form of the Node gateway's framework, or of RFC 9457 where asked.

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use http::{Method, StatusCode};
use serde::Serialize;

use crate::model::ErrorCode;
use crate::telemetry::http::{Route, Stopwatch};

/// Most bytes of the path that are repeated to whoever sent it.
const PATH_BYTES_MAX: usize = 256;

/// As that framework writes it, field by field.
#[derive(Serialize)]
struct Refusal<'a> {
    message: &'a str,
    error: &'a str,
    #[serde(rename = "statusCode")]
    status_code: u16,
}

/// RFC 9457.
#[derive(Serialize)]
struct Problem<'a> {
    r#type: &'static str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    error: ErrorCode,
}

/// The fallback of the whole process: `{"message":"Route GET:/nope not found","error":"Not Found","statusCode":404}`.
/// The query is not repeated: it may hold a token.
pub async fn not_found(request: Request) -> Response {
    let watch = Stopwatch::start(Route::Unmatched);
    watch.stop(StatusCode::NOT_FOUND.as_u16());
    answer(&request)
}

/// The fallback of a known path with another method; axum adds `Allow`. The framework would say 404, which tells a client
/// that there is no such path (RFC 9110 section 15.5.6).
pub(super) async fn method_not_allowed(request: Request) -> Response {
    let watch = Stopwatch::start(Route::Unmatched);
    watch.stop(StatusCode::METHOD_NOT_ALLOWED.as_u16());
    let message = format!(
        "Method {} not allowed for {}",
        method(&request),
        path(&request)
    );
    refuse(&request, ErrorCode::MethodNotAllowed, &message)
}

pub(super) fn answer(request: &Request) -> Response {
    let message = format!("Route {}:{} not found", method(request), path(request));
    refuse(request, ErrorCode::NotFound, &message)
}

/// The method as it is told. The answer to HEAD has the fields that GET's has, its length among them (RFC 9110 section
/// 9.3.2).
fn method(request: &Request) -> &Method {
    match *request.method() {
        Method::HEAD => &Method::GET,
        ref other => other,
    }
}

fn path(request: &Request) -> &str {
    let path = request.uri().path();
    &path[..path.floor_char_boundary(PATH_BYTES_MAX)]
}

fn refuse(request: &Request, code: ErrorCode, message: &str) -> Response {
    let status = StatusCode::from_u16(code.status()).unwrap_or(StatusCode::NOT_FOUND);
    let title = status.canonical_reason().unwrap_or_default();
    let is_problem = request
        .headers()
        .get(ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("application/problem+json"));
    let (media_type, body) = if is_problem {
        let problem = Problem {
            r#type: "about:blank",
            title,
            status: status.as_u16(),
            detail: message,
            error: code,
        };
        ("application/problem+json", serde_json::to_vec(&problem))
    } else {
        let refusal = Refusal {
            message,
            error: title,
            status_code: status.as_u16(),
        };
        ("application/json", serde_json::to_vec(&refusal))
    };
    let mut response = Response::new(Body::from(body.unwrap_or_default()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}
