//! What pages of other origins are told about answers (CORS, section 3.2 of the Fetch standard), as the server tells it for
//! its own. The lines are made once, by whoever knows what they say.
//!
//! An upstream's answer passes with what it says itself; where it says nothing of it, a page that is allowed may read it.
//! Answers to requests without `Origin` are not looked at.

use crate::http1::{Framing, RequestHead};

/// Which pages there are, and what they are told.
#[derive(Debug, Clone, Default)]
pub struct Pages {
    /// The origins that are allowed; `*` is any.
    origins: Box<[String]>,
    /// For the page of each of them, and behind these for all others.
    told: Box<[Told]>,
}

/// Lines of heads for one kind of pages, each with its end.
#[derive(Debug, Clone, Default)]
pub struct Told {
    /// Of an upstream's answer that says nothing of pages.
    pub passed: Vec<u8>,
    /// Of an answer of the proxy's own.
    pub own: Vec<u8>,
    /// The same where TLS carries it.
    pub own_encrypted: Vec<u8>,
}

/// Whose page asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Audience {
    /// Nobody's: the request has no `Origin`, or none is allowed anyhow.
    Nobody,
    /// That of an origin that is not allowed.
    Stranger,
    /// That of the origin with this number.
    Allowed(usize),
}

impl Pages {
    /// The origins that are allowed (`*` is any), and what a page of one, or of none of them, is told.
    pub fn new(origins: &[String], told: impl Fn(Option<&str>) -> Told) -> Self {
        let allowed = origins.iter().map(|origin| told(Some(origin)));
        Self {
            told: allowed.chain([told(None)]).collect(),
            origins: origins.into(),
        }
    }

    /// Whose page sent a request.
    pub(super) fn audience(&self, head: &RequestHead<'_>) -> Audience {
        if self.origins.is_empty() {
            return Audience::Nobody;
        }
        let Some(origin) = head.field("origin") else {
            return Audience::Nobody;
        };
        let mut origins = self.origins.iter();
        let found = origins.position(|one| one == "*" || one.as_bytes() == origin);
        found.map_or(Audience::Stranger, Audience::Allowed)
    }

    /// Whether the server answers this: a browser asks beforehand for a page that is allowed.
    pub(super) fn are_asked(&self, head: &RequestHead<'_>) -> bool {
        asks_beforehand(head) && matches!(self.audience(head), Audience::Allowed(_))
    }

    /// Whether an upstream answers this without a token: a browser, which never sends one then, asks beforehand, and the
    /// node knows of no pages. What else comes along is no browser's.
    pub(super) fn leave_to_upstream(&self, head: &RequestHead<'_>) -> bool {
        let is_there = |name| head.field(name).is_some();
        self.origins.is_empty()
            && asks_beforehand(head)
            && matches!(head.body, Framing::Length(0))
            && is_there("origin")
            && !is_there("authorization")
            && !is_there("cookie")
    }

    /// Writes the lines of an answer of our own.
    pub(super) fn write_own(&self, audience: Audience, is_encrypted: bool, out: &mut Vec<u8>) {
        let Some(told) = self.told(audience) else {
            return;
        };
        out.extend_from_slice(match is_encrypted {
            true => &told.own_encrypted,
            false => &told.own,
        });
    }

    /// Adds to the head of an upstream's answer, of which `out` holds nothing but the lines so far, what is not said there.
    pub(super) fn add(&self, audience: Audience, out: &mut Vec<u8>) {
        if audience != Audience::Nobody
            && !says_of_pages(out)
            && let Some(told) = self.told(audience)
        {
            out.extend_from_slice(&told.passed);
        }
    }

    fn told(&self, audience: Audience) -> Option<&Told> {
        match audience {
            Audience::Allowed(number) => self.told.get(number),
            Audience::Nobody | Audience::Stranger => self.told.last(),
        }
    }
}

/// Whether a browser asks what a page may do, before that does it.
fn asks_beforehand(head: &RequestHead<'_>) -> bool {
    head.method == "OPTIONS" && head.field("access-control-request-method").is_some()
}

/// Whether one of these lines says what pages may do.
fn says_of_pages(lines: &[u8]) -> bool {
    const BEGINNING: &[u8] = b"access-control-";
    let mut lines = lines.split(|byte| *byte == b'\n');
    lines.any(|line| {
        let beginning = line.get(..BEGINNING.len());
        beginning.is_some_and(|beginning| beginning.eq_ignore_ascii_case(BEGINNING))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(origins: &[&str], origin: &str, lines: &str) -> String {
        let origins: Vec<String> = origins.iter().map(|one| (*one).to_owned()).collect();
        let pages = Pages::new(&origins, |origin| Told {
            passed: format!("for: {}\r\n", origin.unwrap_or("others")).into(),
            ..Told::default()
        });
        let text = format!("GET / HTTP/1.1\r\nhost: a\r\n{origin}\r\n");
        let mut slots = crate::http1::slots();
        let head = RequestHead::parse(text.as_bytes(), &mut slots).expect("a good head");
        let mut out = lines.as_bytes().to_vec();
        pages.add(pages.audience(&head), &mut out);
        String::from_utf8_lossy(&out[lines.len()..]).into_owned()
    }

    #[test]
    fn what_is_not_said_is_added_for_whom_it_concerns() {
        let (silent, says) = (
            "a: access-control-\r\n",
            "a: b\r\nAccess-Control-Max-Age: 1\r\n",
        );
        for (origins, origin, lines, expected) in [
            (&["a", "b"][..], "origin: b\r\n", silent, "for: b\r\n"),
            (&["a", "b"], "origin: c\r\n", silent, "for: others\r\n"),
            (&["a", "b"], "origin: b\r\n", says, ""),
            (&["a", "b"], "", silent, ""),
            (&["*"], "origin: c\r\n", silent, "for: *\r\n"),
            (&[], "origin: a\r\n", silent, ""),
        ] {
            assert_eq!(
                added(origins, origin, lines),
                expected,
                "{origins:?} {origin}"
            );
        }
    }
}
