//! A publication that came whole, answered without the router: nearly every request of a busy back end is one, and half
//! of what it costs lies between the socket and the handler.
//!
//! Taken is only what needs nothing beside publishing. Everything else goes on to the router, which knows more forms of
//! a request and says what is wrong with one: pages of other origins, requests with an id, wrong ones.

use std::pin::Pin;
use std::sync::Arc;

use http::Response;
use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};

use super::item::Item;
use super::{ApiState, body, consent, publish};
use crate::http1::RequestHead;
use crate::telemetry::http::{Route, Stopwatch};

/// Fields of a request that change nothing here, or are looked at.
const KNOWN_FIELDS: [&str; 17] = [
    "host",
    "content-length",
    "content-type",
    "authorization",
    "accept",
    "accept-encoding",
    "accept-language",
    "user-agent",
    // Node's own `fetch` says so; a page of another origin sends its origin, too.
    "sec-fetch-mode",
    "priority",
    "connection",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-real-ip",
];

/// Types of a body that are read as JSON without a second look.
const PLAIN_TYPES: [&str; 4] = [
    "application/json",
    "application/json; charset=utf-8",
    "application/json;charset=utf-8",
    "application/x-www-form-urlencoded",
];

/// The answer, when it comes: the server says that it is JSON.
type Reply = Pin<Box<dyn Future<Output = Response<Vec<u8>>>>>;

impl ApiState {
    /// Looks at a whole request. What it gives answers it, but for what the connection's owner adds to an answer; `None`
    /// leaves it to the router.
    pub fn reply(self: &Arc<Self>, head: &RequestHead<'_>, body: &[u8]) -> Option<Reply> {
        let fits = self.config.body_bytes_max == 0 || body.len() <= self.config.body_bytes_max;
        let is_ours = head.method == "POST" && head.target == "/hub/publish";
        if !is_ours || !fits || !is_plain(head) {
            return None;
        }
        let watch = Stopwatch::start(Route::Publish);
        let caller = (self.guard)(&credentials(head)?).ok()?;
        let item = body::parse::<Item<'_>>(body).ok()?;
        let publish = publish::single(self, &item).ok()?;
        let publisher = consent::publisher_of(self, caller);
        let state = Arc::clone(self);
        Some(Box::pin(async move {
            let response = match publish::one(&state, publisher.as_ref(), publish).await {
                Ok(json) => Response::new(json),
                Err(error) => error.response(false),
            };
            watch.stop(response.status().as_u16());
            response
        }))
    }
}

/// Whether nothing in the head asks for more than publishing.
fn is_plain(head: &RequestHead<'_>) -> bool {
    head.fields.iter().all(|field| {
        let is = |known: &&&str| field.name.eq_ignore_ascii_case(known);
        match KNOWN_FIELDS.iter().find(is) {
            Some(&"content-type") => {
                let is = |plain: &&str| field.value.eq_ignore_ascii_case(plain.as_bytes());
                PLAIN_TYPES.iter().any(is)
            }
            Some(&"accept") => !field.value.windows(7).any(|part| part == b"problem"),
            known => known.is_some(),
        }
    })
}

/// What the guard looks at; `None` when there is more than one, which is for the router to judge.
fn credentials(head: &RequestHead<'_>) -> Option<HeaderMap> {
    let mut shown = HeaderMap::new();
    let is_shown = |name: &str| name.eq_ignore_ascii_case(AUTHORIZATION.as_str());
    for field in head.fields.iter().filter(|field| is_shown(field.name)) {
        let value = HeaderValue::from_bytes(field.value).ok()?;
        if shown.insert(AUTHORIZATION, value).is_some() {
            return None;
        }
    }
    Some(shown)
}
