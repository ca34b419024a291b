//! What is embedded in the binary: the pages, the client module, and how such a file is answered.

use std::fmt::Write as _;
use std::sync::LazyLock;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
    HeaderMap, HeaderValue, IF_NONE_MATCH, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderName, StatusCode};
use sha2::{Digest as _, Sha256};

use super::AdminState;

/// One embedded file and the headers that go with it.
pub(super) struct File {
    text: &'static str,
    headers: HeaderMap,
}

static PAGE: LazyLock<File> = LazyLock::new(|| {
    // A developer may try another node's address.
    File::new_page(
        include_str!("page/index.html"),
        "'self' ws: wss: http: https:",
    )
});

/// The module may be imported by pages of any origin: it is public and holds nothing.
static MODULE: LazyLock<File> = LazyLock::new(|| {
    let text = include_str!("page/fanfare.js");
    File::new_public(text, "text/javascript; charset=utf-8")
});

static TYPES: LazyLock<File> = LazyLock::new(|| {
    let text = include_str!("page/fanfare.d.ts");
    File::new_public(text, "text/plain; charset=utf-8")
});

/// The demo page.
pub(super) fn demo(_: &AdminState, request: &Request) -> Response {
    PAGE.response(request)
}

/// The client module, in production too.
pub(super) fn module(_: &AdminState, request: &Request) -> Response {
    MODULE.response(request)
}

/// Its types.
pub(super) fn types(_: &AdminState, request: &Request) -> Response {
    TYPES.response(request)
}

impl File {
    fn new(text: &'static str, media_type: &'static str, cache: &'static str) -> Self {
        let mut file = Self {
            text,
            headers: HeaderMap::new(),
        };
        file.add(CONTENT_TYPE, media_type);
        file.add(CACHE_CONTROL, cache);
        file.add(X_CONTENT_TYPE_OPTIONS, "nosniff");
        // Half the digest is plenty to tell two versions apart.
        let digest = STANDARD.encode(&Sha256::digest(text)[..16]);
        file.add(ETAG, &format!("\"{digest}\""));
        file
    }

    /// A page that may connect to these sources (CSP level 3 section 6.1.2).
    pub(super) fn new_page(text: &'static str, connect: &str) -> Self {
        let mut file = Self::new(text, "text/html; charset=utf-8", "no-cache");
        file.add(CONTENT_SECURITY_POLICY, &policy(text, connect));
        file.add(REFERRER_POLICY, "no-referrer");
        file
    }

    /// For pages of any origin, kept five minutes: a deploy reaches everybody soon, and the tag saves the bytes.
    fn new_public(text: &'static str, media_type: &'static str) -> Self {
        let mut file = Self::new(text, media_type, "public, max-age=300");
        file.add(ACCESS_CONTROL_ALLOW_ORIGIN, "*");
        file.add(
            HeaderName::from_static("cross-origin-resource-policy"),
            "cross-origin",
        );
        file
    }

    fn add(&mut self, name: HeaderName, value: &str) {
        let value = HeaderValue::from_str(value).expect("ours, and visible ASCII");
        self.headers.insert(name, value);
    }

    /// 200 with the text, or 304 when the caller has it.
    pub(super) fn response(&self, request: &Request) -> Response {
        let is_known = request
            .headers()
            .get(IF_NONE_MATCH)
            .and_then(|tags| tags.to_str().ok())
            .is_some_and(|tags| self.has_tag(tags));
        let mut response = Response::new(Body::empty());
        if is_known {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        } else {
            *response.body_mut() = Body::from(self.text);
        }
        response.headers_mut().clone_from(&self.headers);
        response
    }

    /// The text with this status, whatever the caller has.
    pub(super) fn response_as(&self, status: StatusCode) -> Response {
        let mut response = Response::new(Body::from(self.text));
        *response.status_mut() = status;
        response.headers_mut().clone_from(&self.headers);
        response.headers_mut().remove(ETAG);
        response
    }

    /// Whether a list of entity tags (RFC 9110 section 13.1.2) holds ours, weak or not.
    fn has_tag(&self, tags: &str) -> bool {
        let ours = self.headers.get(ETAG).and_then(|tag| tag.to_str().ok());
        tags.split(',').map(str::trim).any(|tag| {
            tag == "*" || ours.is_some_and(|ours| tag.strip_prefix("W/").unwrap_or(tag) == ours)
        })
    }
}

/// The page may run and style only what it was built with, load the module from here, send forms home, and connect to
/// `connect`.
fn policy(html: &str, connect: &str) -> String {
    let mut policy = String::from("default-src 'none'; img-src 'self' data:; base-uri 'none'");
    policy.push_str("; form-action 'self'; frame-ancestors 'none'");
    let _ = write!(policy, "; connect-src {connect}; script-src 'self'");
    push_hashes(&mut policy, html, "script");
    policy.push_str("; style-src 'self'");
    push_hashes(&mut policy, html, "style");
    policy
}

/// Appends the hash of each inline element of this name (CSP level 3 section 2.3.1: the text between the tags).
fn push_hashes(policy: &mut String, html: &str, element: &str) {
    let (open, close) = (format!("<{element}"), format!("</{element}>"));
    let mut rest = html;
    while let Some((_, after)) = rest.split_once(&open) {
        let Some((_, after)) = after.split_once('>') else {
            return;
        };
        let Some((text, after)) = after.split_once(&close) else {
            return;
        };
        let _ = write!(
            policy,
            " 'sha256-{}'",
            STANDARD.encode(Sha256::digest(text))
        );
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_names_what_stands_in_the_page() {
        let html = "<style>a{}</style><script type=\"module\">go()</script>";
        let policy = policy(html, "'self'");
        let hash = STANDARD.encode(Sha256::digest("go()"));
        assert!(
            policy.contains(&format!("script-src 'self' 'sha256-{hash}'")),
            "{policy}"
        );
        assert!(!policy.contains("unsafe"));
    }

    #[test]
    fn the_real_page_has_a_policy_that_is_a_header() {
        assert!(PAGE.headers.contains_key(CONTENT_SECURITY_POLICY));
    }

    #[test]
    fn the_module_stays_under_5_kilobytes() {
        assert!(MODULE.text.len() < 5_000, "{}", MODULE.text.len());
    }

    #[test]
    fn tags_match_in_a_list_and_weak() {
        let tag = MODULE.headers[ETAG].to_str().expect("ASCII");
        for tags in [
            tag.to_owned(),
            format!("\"x\", {tag}"),
            format!("W/{tag}"),
            "*".to_owned(),
        ] {
            assert!(MODULE.has_tag(&tags), "{tags}");
        }
        assert!(!MODULE.has_tag("\"x\""));
    }
}
