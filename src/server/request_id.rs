//! `x-request-id` and `x-correlation-id`: names for a request by which its answer and its log lines are found again.
//!
//! A caller's ids (1 to 128 visible characters) are kept and answered; a correlation id that nobody brought is the
//! request's. Where none was brought one is made, and the handler finds it in the request's fields. The hot paths
//! (publishing, connecting) get none of ours: at tens of thousands a second they are a cost that nobody reads.

use http::{HeaderMap, HeaderName, HeaderValue};

const REQUEST: HeaderName = HeaderName::from_static("x-request-id");
const CORRELATION: HeaderName = HeaderName::from_static("x-correlation-id");

/// Longest id of a caller that is kept.
const BYTES_MAX: usize = 128;

/// Paths that get an id only when the caller brought one.
const HOT_PATHS: [&str; 6] = [
    "/hub/publish",
    "/hub/broadcast",
    "/hub/batch",
    "/ws/connect",
    "/ws/echo",
    "/sse/connect",
];

/// Whether every microsecond of a path's answers counts: nothing is said there that nobody asked for.
pub(super) fn is_hot(path: &str) -> bool {
    HOT_PATHS.contains(&path)
}

/// The ids of one request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ids {
    request: HeaderValue,
    correlation: HeaderValue,
}

impl Ids {
    /// Those that a request brought, or new ones, which are put into its fields.
    pub(super) fn of(fields: &mut HeaderMap, path: &str) -> Option<Self> {
        let brought = |name| fields.get(name).filter(|id| is_kept(id)).cloned();
        let (request, correlation) = (brought(REQUEST), brought(CORRELATION));
        if request.is_none() && correlation.is_none() && is_hot(path) {
            return None;
        }
        let request = request.unwrap_or_else(|| {
            let made = random();
            fields.insert(REQUEST, made.clone());
            made
        });
        let correlation = correlation.unwrap_or_else(|| request.clone());
        Some(Self {
            request,
            correlation,
        })
    }

    /// Puts them into an answer's fields.
    pub(super) fn tell(self, fields: &mut HeaderMap) {
        fields.insert(REQUEST, self.request);
        fields.insert(CORRELATION, self.correlation);
    }
}

/// Visible ASCII only: an id goes into fields and logs.
fn is_kept(id: &HeaderValue) -> bool {
    (1..=BYTES_MAX).contains(&id.len()) && id.to_str().is_ok()
}

/// From this thread's generator: the system's costs a call each time, and an id is no secret.
fn random() -> HeaderValue {
    let mut text = uuid::Uuid::encode_buffer();
    let id = uuid::Builder::from_random_bytes(rand::random()).into_uuid();
    HeaderValue::from_str(id.hyphenated().encode_lower(&mut text)).expect("a UUID is ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ids that are answered to a request with these.
    fn check(path: &str, request: Option<&str>, correlation: Option<&str>) -> Option<[String; 2]> {
        let mut fields = HeaderMap::new();
        for (name, id) in [(REQUEST, request), (CORRELATION, correlation)] {
            if let Some(id) = id {
                fields.insert(name, HeaderValue::from_str(id).expect("a value"));
            }
        }
        let ids = Ids::of(&mut fields, path)?;
        assert_eq!(
            fields.get(REQUEST),
            Some(&ids.request),
            "the handler finds it"
        );
        let mut answer = HeaderMap::new();
        ids.tell(&mut answer);
        let text = |name| answer[name].to_str().expect("ASCII").to_owned();
        Some([text(REQUEST), text(CORRELATION)])
    }

    #[test]
    fn keeps_a_callers_ids_and_makes_one_otherwise() {
        let both = |one: &str, other: &str| Some([one.to_owned(), other.to_owned()]);
        assert_eq!(check("/health", Some("a"), None), both("a", "a"));
        assert_eq!(check("/health", Some("a"), Some("b")), both("a", "b"));
        let [request, correlation] = check("/health", None, Some("b")).expect("ids");
        assert_eq!((request.len(), &*correlation), (36, "b"));
        for bad in [None, Some(""), Some(&*"x".repeat(129))] {
            let [request, correlation] = check("/health", bad, None).expect("ids");
            assert_eq!((request.len(), &request), (36, &correlation));
        }
    }

    #[test]
    fn hot_paths_answer_only_a_callers_own() {
        assert_eq!(check("/hub/publish", None, None), None);
        assert_eq!(check("/hub/publish", Some(""), None), None);
        let own = check("/hub/publish", Some("a"), None).expect("ids");
        assert_eq!(own, ["a", "a"]);
    }
}
