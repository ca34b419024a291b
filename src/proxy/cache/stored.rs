//! One answer that is kept: how long it is fresh, whom it may be given to, and what is written of it.

use std::io::Write as _;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_cache_semantics::{CacheOptions, CachePolicy};
use tokio::time::Instant;

use super::directives::Directives;
use super::lines;
use crate::http1::parse_date;

/// Answers of these may be kept for a while although nobody said for how long (RFC 9110 section 15.1), but for 206, which is
/// never kept.
const KEPT_BY_DEFAULT: [u16; 11] = [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501];
/// A longer freshness is as good as this.
const LIFETIME_MAX: Duration = Duration::from_secs(365 * 24 * 3600);
/// What a 304 repeats of an answer (RFC 9110 section 15.4.5).
const TOLD_WITH_304: [&[u8]; 7] = [
    b"cache-control",
    b"content-location",
    b"date",
    b"etag",
    b"expires",
    b"last-modified",
    b"vary",
];

/// The head of an answer that may be kept, as it came: without what belongs to one connection or one request.
#[derive(Debug, Clone)]
pub(in crate::proxy) struct Head {
    pub(super) status: u16,
    pub(super) reason: Box<str>,
    /// Its fields, without `Content-Length` and `Age`.
    pub(super) lines: Vec<u8>,
    /// `Age` as it came.
    pub(super) age: Duration,
}

/// How it was asked for.
#[derive(Debug, Clone, Copy)]
pub(in crate::proxy) struct Asking<'a> {
    /// The fields that went to the upstream.
    pub(in crate::proxy) lines: &'a [u8],
    /// Whether it stands for somebody: with credentials or a cookie.
    pub(in crate::proxy) is_personal: bool,
    /// When the upstream was asked.
    pub(in crate::proxy) since: Instant,
    /// When the head of its answer came.
    pub(in crate::proxy) at: Instant,
}

/// An answer that is kept.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) head: Head,
    pub(super) body: Bytes,
    /// How old it was then.
    age: Duration,
    at: Instant,
    lifetime: Duration,
    /// It is never given stale.
    must_revalidate: bool,
    /// It is not given stale because a client would take it so; only as itself says (RFC 9111 section 5.2.2.10).
    refuses_stale: bool,
    if_error: Duration,
    while_revalidate: Duration,
    /// It says that it may be given to others than who asked for it, even if that one showed credentials.
    pub(super) is_for_all: bool,
}

/// What a kept answer is to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// It is the answer.
    Fresh,
    /// It is, and the upstream is asked beside for a newer one.
    WhileRevalidating,
    /// The upstream is asked first.
    Stale,
}

impl Head {
    /// A head of this status with these lines, and with `Age` as it came.
    pub(in crate::proxy) fn new(
        status: u16,
        reason: &str,
        lines: Vec<u8>,
        age: Option<&[u8]>,
    ) -> Self {
        let age = age.and_then(|age| std::str::from_utf8(age).ok());
        let seconds = age.and_then(|age| age.trim().parse::<u64>().ok());
        Self {
            status,
            reason: reason.into(),
            lines,
            age: Duration::from_secs(seconds.unwrap_or_default()).min(LIFETIME_MAX),
        }
    }

    /// Whether it may be kept, with how long it is fresh: `default_ttl` where it does not say. The body comes later.
    pub(super) fn keep(self, asking: &Asking<'_>, default_ttl: Duration) -> Option<Stored> {
        let directives = Directives::of(&self.lines);
        let is_for_all = ["public", "s-maxage", "must-revalidate"]
            .iter()
            .any(|name| directives.has(name));
        let varies_by_all = lines::joined(&self.lines, "vary").contains(&b'*');
        let sets_cookie = lines::field(&self.lines, "set-cookie").is_some();
        if sets_cookie || varies_by_all || (asking.is_personal && !is_for_all) {
            return None;
        }
        let lifetime = self.lifetime(&directives, asking, default_ttl)?;
        let stored = Stored {
            age: self.initial_age(asking),
            at: asking.at,
            lifetime,
            must_revalidate: ["must-revalidate", "proxy-revalidate", "no-cache"]
                .iter()
                .any(|name| directives.has(name)),
            refuses_stale: directives.has("s-maxage"),
            if_error: directives.seconds("stale-if-error").unwrap_or_default(),
            while_revalidate: directives
                .seconds("stale-while-revalidate")
                .unwrap_or_default(),
            is_for_all,
            body: Bytes::new(),
            head: self,
        };
        // Of no use for a single request.
        let is_useless = stored.lifetime <= stored.age
            && !stored.has_validator()
            && stored.if_error.max(stored.while_revalidate).is_zero();
        (!is_useless).then_some(stored)
    }

    /// None where it may not be kept at all (RFC 9111 section 3).
    fn lifetime(
        &self,
        directives: &Directives,
        asking: &Asking<'_>,
        default_ttl: Duration,
    ) -> Option<Duration> {
        let request = Request::get("/").body(()).ok()?;
        let (mut request, ()) = request.into_parts();
        request.headers = header_map(asking.lines, &Directives::of(asking.lines));
        if asking.is_personal {
            // A token in the query, or one that went no further, is a credential like any other.
            let any = HeaderValue::from_static("-");
            request.headers.insert(http::header::AUTHORIZATION, any);
        }
        let response = Response::builder().status(self.status).body(()).ok()?;
        let (mut response, ()) = response.into_parts();
        response.headers = header_map(&self.lines, directives);
        let now = SystemTime::now();
        let options = CacheOptions {
            // What is not said is the operator's to say, not to be guessed.
            cache_heuristic: 0.0,
            immutable_min_time_to_live: Duration::ZERO,
            ..CacheOptions::default()
        };
        let policy = CachePolicy::new_options(&request, &response, now, options);
        if !policy.is_storable() {
            return None;
        }
        let says = ["max-age", "s-maxage", "no-cache"]
            .iter()
            .any(|name| directives.has(name))
            || response.headers.contains_key(http::header::EXPIRES)
            || (directives.is_empty() && response.headers.contains_key(http::header::PRAGMA));
        let lifetime = match says {
            true => policy.time_to_live(now),
            false if KEPT_BY_DEFAULT.contains(&self.status) => default_ttl,
            false => Duration::ZERO,
        };
        Some(lifetime.min(LIFETIME_MAX))
    }

    /// RFC 9111 section 4.2.3.
    fn initial_age(&self, asking: &Asking<'_>) -> Duration {
        let date = lines::field(&self.lines, "date").and_then(parse_date);
        let apparent = date.and_then(|date| SystemTime::now().duration_since(date).ok());
        let corrected = self.age + asking.at.saturating_duration_since(asking.since);
        apparent
            .unwrap_or_default()
            .min(LIFETIME_MAX)
            .max(corrected)
    }
}

impl Stored {
    /// The same with a body.
    pub(super) fn with_body(mut self, body: Vec<u8>) -> Self {
        self.body = body.into();
        self
    }

    /// The same after a 304 with this head: what that says stands instead of what stood there (RFC 9111 section 4.3.4). None
    /// when it may not be kept any longer.
    pub(super) fn renewed(
        &self,
        head: &Head,
        asking: &Asking<'_>,
        default_ttl: Duration,
    ) -> Option<Self> {
        let is_of_the_body =
            |name: &[u8]| name.starts_with(b"content-") && name != b"content-location";
        let news = lines::without(&head.lines, is_of_the_body);
        let is_said_anew =
            |name: &[u8]| lines::fields(&news).any(|(found, _)| found.eq_ignore_ascii_case(name));
        let mut merged = lines::without(&self.head.lines, is_said_anew);
        merged.extend_from_slice(&news);
        let head = Head {
            lines: merged,
            age: head.age,
            ..self.head.clone()
        };
        let mut renewed = head.keep(asking, default_ttl)?;
        renewed.body = self.body.clone();
        Some(renewed)
    }

    /// How old it is now.
    pub(super) fn age(&self, now: Instant) -> Duration {
        self.age + now.saturating_duration_since(self.at)
    }

    /// For how long it is fresh.
    pub(super) fn fresh_for(&self, now: Instant) -> Duration {
        self.lifetime.saturating_sub(self.age(now))
    }

    /// For how long it has not been fresh any more.
    pub(super) fn staleness(&self, now: Instant) -> Duration {
        self.age(now).saturating_sub(self.lifetime)
    }

    /// For how long it can be of use at all: afterwards a newer one costs no more than asking whether it is still good.
    pub(super) fn useful_for(&self) -> Duration {
        let stale = self.if_error.max(self.while_revalidate);
        let known = match self.has_validator() {
            true => Duration::from_secs(3600),
            false => Duration::ZERO,
        };
        self.lifetime.saturating_sub(self.age) + stale.max(known)
    }

    /// What it is to a request with these directives.
    pub(super) fn use_for(&self, request: &Directives, now: Instant) -> Use {
        let age = self.age(now);
        if request.has("no-cache") || request.seconds("max-age").is_some_and(|most| age > most) {
            return Use::Stale;
        }
        let least = request.seconds("min-fresh").unwrap_or_default();
        if age + least < self.lifetime {
            return Use::Fresh;
        }
        let staleness = self.staleness(now);
        let may_be_stale = !self.must_revalidate && least.is_zero();
        if may_be_stale && staleness < self.while_revalidate {
            return Use::WhileRevalidating;
        }
        let accepts = request.has("max-stale")
            && request
                .seconds("max-stale")
                .is_none_or(|most| staleness <= most);
        match may_be_stale && !self.refuses_stale && accepts {
            true => Use::Fresh,
            false => Use::Stale,
        }
    }

    /// Whether it is better than an error (RFC 5861 section 4).
    pub(super) fn may_stand_in(&self, request: &Directives, now: Instant) -> bool {
        let window = request.seconds("stale-if-error").unwrap_or_default();
        let window = window.max(self.if_error);
        let staleness = self.staleness(now);
        !self.must_revalidate && staleness < window
    }

    /// Whether an upstream can be asked if it is still good.
    pub(super) fn has_validator(&self) -> bool {
        self.validator("etag").is_some() || self.validator("last-modified").is_some()
    }

    /// The value of its `ETag` or `Last-Modified`.
    pub(super) fn validator(&self, name: &str) -> Option<&[u8]> {
        lines::field(&self.head.lines, name)
    }

    /// Writes what stands before its body, but for the empty line.
    pub(super) fn write_head(&self, now: Instant, out: &mut Vec<u8>) {
        // A vector takes every write.
        let _ = write!(
            out,
            "HTTP/1.1 {} {}\r\n",
            self.head.status, self.head.reason
        );
        out.extend_from_slice(&self.head.lines);
        if self.head.status != 204 {
            let _ = write!(out, "content-length: {}\r\n", self.body.len());
        }
        let _ = write!(out, "age: {}\r\n", self.age(now).as_secs());
    }

    /// The same for who has it already.
    pub(super) fn write_not_modified(&self, now: Instant, out: &mut Vec<u8>) {
        out.extend_from_slice(b"HTTP/1.1 304 Not Modified\r\n");
        let told = lines::without(&self.head.lines, |name| !TOLD_WITH_304.contains(&name));
        out.extend_from_slice(&told);
        // A vector takes every write.
        let _ = write!(out, "age: {}\r\n", self.age(now).as_secs());
    }

    /// What it weighs in memory, about.
    pub(super) fn weight(&self) -> usize {
        512 + self.head.lines.len() + self.body.len()
    }
}

/// The fields as the library reads them, which takes directives in lower case only. Without `Age`, which is counted here.
fn header_map(lines: &[u8], directives: &Directives) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in lines::fields(lines) {
        let name = HeaderName::from_bytes(name);
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value)) {
            map.append(name, value);
        }
    }
    map.remove(http::header::AGE);
    map.remove(http::header::CACHE_CONTROL);
    if let (false, Ok(value)) = (
        directives.is_empty(),
        HeaderValue::from_str(directives.text()),
    ) {
        map.insert(http::header::CACHE_CONTROL, value);
    }
    map
}

#[cfg(test)]
#[path = "stored_tests.rs"]
mod tests;
