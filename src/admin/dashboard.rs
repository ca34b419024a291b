//! `/admin`: the dashboard's page, and how a browser gets in.
//!
//! A browser cannot send a key or a token with the address that somebody types. So `GET /admin?token=` once, or the form
//! that is shown to who has neither, leaves a cookie that no script can read and no other site can use, and leads to the
//! address without the token.

use std::sync::LazyLock;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, LOCATION, SET_COOKIE};
use http::{Extensions, HeaderMap, StatusCode};

use super::gate::{self, COOKIE_NAME};
use super::page::File;
use super::{AdminState, stats};
use crate::http1::forwarded_pair;
use crate::model::Encrypted;

/// The most bytes of a login's form: a token has at most 16 KiB.
const FORM_BYTES_MAX: usize = 20 * 1024;

static DASHBOARD: LazyLock<File> =
    LazyLock::new(|| File::new_page(include_str!("page/dashboard.html"), "'self'"));

const LOGIN_TEXT: &str = include_str!("page/login.html");

static LOGIN: LazyLock<File> = LazyLock::new(|| File::new_page(LOGIN_TEXT, "'none'"));

/// The same page after a wrong key or token.
static LOGIN_AGAIN: LazyLock<File> = LazyLock::new(|| {
    let text = LOGIN_TEXT.replace("role=\"alert\" hidden", "role=\"alert\"");
    // Once in the life of the process, as the other pages are part of it.
    File::new_page(text.leak(), "'none'")
});

/// The page, for who may look; with `?token=`, the login.
pub(super) async fn page(state: &AdminState, request: Request) -> Response {
    let Some(token) = parameter(request.uri().query().unwrap_or_default()) else {
        return look(state, &request);
    };
    let (head, _) = request.into_parts();
    let caller = Caller::new(&head.headers, &head.extensions);
    admit(state, caller, &token).await
}

fn look(state: &AdminState, request: &Request) -> Response {
    if gate::may_look(state, request.headers()) {
        return DASHBOARD.response(request);
    }
    match wants_html(request.headers()) {
        true => LOGIN.response_as(StatusCode::UNAUTHORIZED),
        false => stats::refused(),
    }
}

/// The form's answer: `token=` in the body, a key or a token.
pub(super) async fn login(state: &AdminState, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let caller = Caller::new(&head.headers, &head.extensions);
    match axum::body::to_bytes(body, FORM_BYTES_MAX).await {
        Ok(body) => {
            let form = String::from_utf8_lossy(&body);
            let token = parameter(&form).unwrap_or_default();
            admit(state, caller, &token).await
        }
        Err(_) => again(&head.headers),
    }
}

/// Takes the cookie away.
pub(super) fn logout(_: &AdminState, request: &Request) -> Response {
    lead_to_page(Caller::new(request.headers(), request.extensions()), "", 0)
}

async fn admit(state: &AdminState, caller: Caller<'_>, shown: &str) -> Response {
    match state.gate.pass(shown.trim()).await {
        Some((pass, seconds)) => lead_to_page(caller, &pass, seconds),
        None => again(caller.fields),
    }
}

fn again(fields: &HeaderMap) -> Response {
    match wants_html(fields) {
        true => LOGIN_AGAIN.response_as(StatusCode::UNAUTHORIZED),
        false => stats::refused(),
    }
}

/// To the page, with this pass. A redirect of a navigation that began on another site (a link in a chat) would not carry
/// the strict cookie: there, an answer of our own leads on.
fn lead_to_page(caller: Caller<'_>, pass: &str, seconds: u64) -> Response {
    let is_from_elsewhere = caller
        .fields
        .get("sec-fetch-site")
        .is_some_and(|site| site == "cross-site");
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let secure = if caller.is_encrypted { "; Secure" } else { "" };
    let cookie = format!(
        "{COOKIE_NAME}={pass}; Path=/admin; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}"
    );
    // A pass is base64url and dots, so it always stands in a field.
    if let Ok(cookie) = HeaderValue::try_from(cookie) {
        headers.insert(SET_COOKIE, cookie);
    }
    if is_from_elsewhere {
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("text/html; charset=utf-8"),
        );
        let page = "<!doctype html><meta http-equiv=\"refresh\" content=\"0;url=/admin\">";
        *response.body_mut() = Body::from(page);
    } else {
        headers.insert(LOCATION, HeaderValue::from_static("/admin"));
        *response.status_mut() = StatusCode::SEE_OTHER;
    }
    response
}

/// Who asks, as far as the answer depends on it.
#[derive(Clone, Copy)]
struct Caller<'a> {
    fields: &'a HeaderMap,
    /// Whether the browser's connection is TLS: ours, or that of whoever ended it before us. A lie only harms the liar's
    /// own cookie.
    is_encrypted: bool,
}

impl<'a> Caller<'a> {
    fn new(fields: &'a HeaderMap, extensions: &Extensions) -> Self {
        let scheme = fields.get("x-forwarded-proto");
        let is_https = |scheme: &HeaderValue| scheme.as_bytes().eq_ignore_ascii_case(b"https");
        let standard = fields
            .get("forwarded")
            .and_then(|value| value.to_str().ok());
        let proto = standard.and_then(|value| forwarded_pair(value.split(',').next()?, "proto"));
        let says_https = match scheme {
            Some(scheme) => is_https(scheme),
            None => proto.is_some_and(|proto| proto.eq_ignore_ascii_case("https")),
        };
        Self {
            fields,
            is_encrypted: extensions.get::<Encrypted>().is_some() || says_https,
        }
    }
}

fn wants_html(fields: &HeaderMap) -> bool {
    let accept = fields.get(ACCEPT).and_then(|value| value.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/html"))
}

/// `token` of a query or a form.
fn parameter(pairs: &str) -> Option<String> {
    form_urlencoded::parse(pairs.as_bytes())
        .find(|(name, _)| name == "token")
        .map(|(_, value)| value.into_owned())
}
