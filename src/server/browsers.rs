//! What the router's answers say to browsers: which pages may read them (CORS, section 3.2 of the Fetch standard), and
//! what must not be done with them.

use std::sync::{Arc, LazyLock};

use axum::body::Body;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, STRICT_TRANSPORT_SECURITY, VARY,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};

/// Pages that may read answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Origins {
    /// Those of the node itself only.
    #[default]
    Own,
    /// All.
    Any,
    /// These, too.
    These(Arc<[String]>),
}

/// What browsers are told. `config` fills it; defaults stand there.
#[derive(Debug, Clone, Default)]
pub struct Browsers {
    /// Which pages may read answers (`ALLOW_ORIGINS`).
    pub origins: Origins,
    /// Whether they may send cookies along (`ALLOW_CREDENTIALS`).
    pub credentials: bool,
    /// The methods that they may use (`ALLOW_METHODS`).
    pub methods: String,
    /// The fields that they may send (`ALLOW_HEADERS`).
    pub headers: String,
    /// The fields that they may read (`EXPOSE_HEADERS`).
    pub exposed: String,
    /// Whether answers carry fields that keep browsers from misusing them (`SECURITY_HEADERS`).
    pub hardens: bool,
}

/// What keeps an answer from being taken for something else, or shown inside of something else. As the tenant gateway
/// sends them; over TLS [`ALWAYS_ENCRYPTED`] too.
const SECURITY: [(HeaderName, &str); 10] = [
    (http::header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (http::header::X_FRAME_OPTIONS, "SAMEORIGIN"),
    (http::header::REFERRER_POLICY, "no-referrer"),
    (http::header::X_DNS_PREFETCH_CONTROL, "off"),
    (http::header::X_XSS_PROTECTION, "0"),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
    (CROSS_ORIGIN_RESOURCE_POLICY, "same-origin"),
    (HeaderName::from_static("origin-agent-cluster"), "?1"),
    (HeaderName::from_static("x-download-options"), "noopen"),
    (
        HeaderName::from_static("x-permitted-cross-domain-policies"),
        "none",
    ),
];

const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-resource-policy");

/// For a year (RFC 6797).
const ALWAYS_ENCRYPTED: &str = "max-age=31536000; includeSubDomains";

/// How long a browser may remember what it may do, in seconds.
const PREFLIGHT_AGE: &str = "600";

impl Origins {
    /// Those that are allowed beside the node's own; `*` is any.
    pub fn listed(&self) -> &[String] {
        static ANY: LazyLock<[String; 1]> = LazyLock::new(|| ["*".to_owned()]);
        match self {
            Self::Own => &[],
            Self::Any => &*ANY,
            Self::These(origins) => origins,
        }
    }
}

impl Browsers {
    /// What origin a page has to be told about, if any.
    pub(super) fn origin(&self, fields: &HeaderMap) -> Option<HeaderValue> {
        let origin = fields.get(ORIGIN)?;
        match &self.origins {
            Origins::Own => None,
            Origins::Any => Some(HeaderValue::from_static("*")),
            Origins::These(origins) => {
                let is_allowed = origins
                    .iter()
                    .any(|one| one.as_bytes() == origin.as_bytes());
                is_allowed.then(|| origin.clone())
            }
        }
    }

    /// The answer to a browser that asks beforehand what a page may do.
    pub(super) fn preflight(&self, head: &Parts) -> Option<Response<Body>> {
        let asks = head.method == Method::OPTIONS
            && head.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        let origin = self.origin(&head.headers).filter(|_| asks)?;
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let fields = response.headers_mut();
        for (name, text) in [
            (ACCESS_CONTROL_ALLOW_METHODS, &*self.methods),
            (ACCESS_CONTROL_ALLOW_HEADERS, &*self.headers),
            (ACCESS_CONTROL_MAX_AGE, PREFLIGHT_AGE),
        ] {
            set(fields, name, text);
        }
        self.tell_origin(Some(origin), fields);
        Some(response)
    }

    /// Puts into an answer's fields what is not there; `origin` is what [`Browsers::origin`] said of its request.
    pub(super) fn tell(
        &self,
        origin: Option<HeaderValue>,
        is_encrypted: bool,
        fields: &mut HeaderMap,
    ) {
        self.tell_origin(origin, fields);
        if !self.hardens {
            return;
        }
        // A browser heeds it over TLS only (RFC 6797 section 8.1), so nobody is told who came without.
        if is_encrypted && !fields.contains_key(STRICT_TRANSPORT_SECURITY) {
            let value = HeaderValue::from_static(ALWAYS_ENCRYPTED);
            fields.insert(STRICT_TRANSPORT_SECURITY, value);
        }
        let is_shared = fields.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN);
        for (name, text) in SECURITY {
            // What a page of elsewhere may read it may load.
            let text = match name == CROSS_ORIGIN_RESOURCE_POLICY && is_shared {
                true => "cross-origin",
                false => text,
            };
            if !fields.contains_key(&name) {
                fields.insert(name, HeaderValue::from_static(text));
            }
        }
    }

    /// The lines of what an answer of the node is given for a page of this origin, one of those in the list, or of none.
    pub fn lines(&self, origin: Option<&str>, is_encrypted: bool) -> Vec<u8> {
        let mut fields = HeaderMap::new();
        self.tell(value(origin), is_encrypted, &mut fields);
        lines(&fields)
    }

    /// The same for somebody else's answer: only whether the page may read it.
    pub fn origin_lines(&self, origin: Option<&str>) -> Vec<u8> {
        let mut fields = HeaderMap::new();
        self.tell_origin(value(origin), &mut fields);
        lines(&fields)
    }

    fn tell_origin(&self, origin: Option<HeaderValue>, fields: &mut HeaderMap) {
        if matches!(self.origins, Origins::These(_)) {
            // Whether there is one in the answer depends on who asks.
            fields.append(VARY, HeaderValue::from_static("Origin"));
        }
        let Some(origin) = origin else { return };
        if fields.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN) {
            return;
        }
        fields.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if self.credentials {
            set(fields, ACCESS_CONTROL_ALLOW_CREDENTIALS, "true");
        }
        set(fields, ACCESS_CONTROL_EXPOSE_HEADERS, &self.exposed);
    }
}

fn value(origin: Option<&str>) -> Option<HeaderValue> {
    // `config` lets nothing else through.
    origin.and_then(|origin| HeaderValue::from_str(origin).ok())
}

fn lines(fields: &HeaderMap) -> Vec<u8> {
    let lines = fields.iter().flat_map(|(name, value)| {
        let parts: [&[u8]; 4] = [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"];
        parts.concat()
    });
    lines.collect()
}

fn set(fields: &mut HeaderMap, name: HeaderName, text: &str) {
    // `config` lets nothing else through.
    if let Ok(value) = HeaderValue::from_str(text)
        && !value.is_empty()
    {
        fields.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn browsers(origins: Origins) -> Browsers {
        Browsers {
            origins,
            credentials: true,
            methods: "GET, POST".to_owned(),
            headers: "authorization".to_owned(),
            exposed: "x-request-id".to_owned(),
            hardens: false,
        }
    }

    fn these() -> Origins {
        Origins::These(["https://a".to_owned()].into())
    }

    fn asked(method: &str, origin: &str) -> Parts {
        let request = http::Request::builder()
            .method(method)
            .header(ORIGIN, origin)
            .header(ACCESS_CONTROL_REQUEST_METHOD, "POST");
        request.body(()).expect("a request").into_parts().0
    }

    /// The origin that an answer to a page of `origin` allows.
    fn allowed(origins: Origins, origin: &str) -> Option<String> {
        let browsers = browsers(origins);
        let mut fields = HeaderMap::new();
        let told = browsers.origin(&asked("GET", origin).headers);
        browsers.tell(told, false, &mut fields);
        let allowed = fields.get(ACCESS_CONTROL_ALLOW_ORIGIN)?;
        assert_eq!(fields[ACCESS_CONTROL_EXPOSE_HEADERS], "x-request-id");
        Some(allowed.to_str().expect("ASCII").to_owned())
    }

    #[test]
    fn pages_of_elsewhere_may_read_where_they_are_let() {
        assert_eq!(allowed(these(), "https://a").as_deref(), Some("https://a"));
        assert_eq!(allowed(these(), "https://b"), None);
        assert_eq!(allowed(these(), "null"), None);
        assert_eq!(allowed(Origins::Own, "https://a"), None);
        assert_eq!(allowed(Origins::Any, "https://b").as_deref(), Some("*"));
    }

    #[test]
    fn cookies_may_come_only_where_the_operator_says_so() {
        for credentials in [true, false] {
            let browsers = Browsers {
                credentials,
                ..browsers(these())
            };
            let answer = browsers.preflight(&asked("OPTIONS", "https://a"));
            let told = answer.expect("an answer").into_parts().0.headers;
            let is_told = told.contains_key(ACCESS_CONTROL_ALLOW_CREDENTIALS);
            assert_eq!(is_told, credentials);
        }
    }

    #[test]
    fn a_preflight_is_answered_to_who_may() {
        let browsers = browsers(these());
        let answer = browsers.preflight(&asked("OPTIONS", "https://a"));
        let answer = answer.expect("an answer");
        assert_eq!(answer.status(), StatusCode::NO_CONTENT);
        for (name, value) in [
            (ACCESS_CONTROL_ALLOW_ORIGIN, "https://a"),
            (ACCESS_CONTROL_ALLOW_METHODS, "GET, POST"),
            (ACCESS_CONTROL_ALLOW_HEADERS, "authorization"),
            (ACCESS_CONTROL_ALLOW_CREDENTIALS, "true"),
            (VARY, "Origin"),
        ] {
            assert_eq!(answer.headers()[&name], value, "{name}");
        }
        assert!(browsers.preflight(&asked("OPTIONS", "https://b")).is_none());
        assert!(browsers.preflight(&asked("GET", "https://a")).is_none());
    }

    #[test]
    fn what_is_told_stands_in_lines_for_who_writes_them() {
        let browsers = browsers(these());
        assert_eq!(browsers.origins.listed(), ["https://a"]);
        let lines = browsers.origin_lines(Some("https://a"));
        assert_eq!(lines, browsers.lines(Some("https://a"), true));
        let text = String::from_utf8(lines).expect("text");
        let mut lines: Vec<&str> = text.split_terminator("\r\n").collect();
        lines.sort_unstable();
        let expected = [
            "access-control-allow-credentials: true",
            "access-control-allow-origin: https://a",
            "access-control-expose-headers: x-request-id",
            "vary: Origin",
        ];
        assert_eq!(lines, expected);
        assert_eq!(browsers.origin_lines(None), b"vary: Origin\r\n");
    }

    #[test]
    fn answers_are_hardened_but_for_what_they_say_themselves() {
        let browsers = Browsers {
            hardens: true,
            ..Browsers::default()
        };
        let mut fields = HeaderMap::new();
        fields.insert(
            http::header::REFERRER_POLICY,
            HeaderValue::from_static("origin"),
        );
        browsers.tell(None, false, &mut fields);
        assert_eq!(fields.len(), SECURITY.len());
        assert_eq!(fields[http::header::REFERRER_POLICY], "origin");
        assert_eq!(fields[CROSS_ORIGIN_RESOURCE_POLICY], "same-origin");
        let mut shared = HeaderMap::new();
        shared.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        browsers.tell(None, false, &mut shared);
        assert_eq!(shared[CROSS_ORIGIN_RESOURCE_POLICY], "cross-origin");
        assert!(!shared.contains_key(STRICT_TRANSPORT_SECURITY));
        browsers.tell(None, true, &mut shared);
        assert_eq!(shared[STRICT_TRANSPORT_SECURITY], ALWAYS_ENCRYPTED);
    }
}
