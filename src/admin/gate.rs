//! Who may look at, or change, what stands under `/admin`, and the cookie by which a browser goes on doing so.

use std::future::Future;
use std::pin::Pin;

use http::HeaderMap;
use http::header::{AUTHORIZATION, COOKIE};

use super::AdminState;

/// The cookie that holds a browser's pass. It is sent to `/admin` only.
pub(super) const COOKIE_NAME: &str = "fanfare_admin";

/// What a request shows of who sends it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Shown<'a> {
    /// `X-Admin-Key`.
    pub key: Option<&'a str>,
    /// `Authorization`, the whole value.
    pub authorization: Option<&'a str>,
    /// The pass of a login.
    pub pass: Option<&'a str>,
}

/// Who may look: `app` joins it to `auth`.
pub trait Gate: Send + Sync {
    /// Whether this opens the dashboard and its figures.
    fn may_look(&self, shown: Shown<'_>) -> bool;

    /// Whether this may change something: never by a pass, which any page of this origin could use.
    fn may_change(&self, shown: Shown<'_>) -> bool;

    /// The pass for who shows this key or token, and for how many seconds a browser keeps it; none for nobody.
    fn pass<'a>(&'a self, key_or_token: &'a str) -> Pass<'a>;
}

/// What [`Gate::pass`] gives, when whoever issued a token was asked for a key that is not here.
pub type Pass<'a> = Pin<Box<dyn Future<Output = Option<(String, u64)>> + Send + 'a>>;

/// Whether a request with these fields may look.
pub(super) fn may_look(state: &AdminState, fields: &HeaderMap) -> bool {
    state.gate.may_look(shown(fields))
}

/// Whether a request with these fields may change something.
pub(super) fn may_change(state: &AdminState, fields: &HeaderMap) -> bool {
    state.gate.may_change(shown(fields))
}

fn shown(fields: &HeaderMap) -> Shown<'_> {
    let text = |name: &str| fields.get(name).and_then(|value| value.to_str().ok());
    Shown {
        key: text("x-admin-key"),
        authorization: text(AUTHORIZATION.as_str()),
        pass: pass_of(fields),
    }
}

/// The pass that a browser shows: our cookie's value (RFC 6265 section 5.4). HTTP/2 may bring several fields.
pub fn pass_of(fields: &HeaderMap) -> Option<&str> {
    let fields = fields.get_all(COOKIE).iter();
    let mut pairs = fields
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'));
    pairs.find_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        (name == COOKIE_NAME && !value.is_empty()).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cookie_is_found_among_others_and_in_any_field() {
        let check = |values: &[&'static str], expected| {
            let mut map = HeaderMap::new();
            for value in values {
                map.append(COOKIE, http::HeaderValue::from_static(value));
            }
            assert_eq!(pass_of(&map), expected, "{values:?}");
        };
        check(&[], None);
        check(&["fanfare_admin=a.b.c"], Some("a.b.c"));
        check(&["x=1; fanfare_admin=a=b; y=2"], Some("a=b"));
        check(&["x=1", "fanfare_admin=t"], Some("t"));
        check(&["xfanfare_admin=1; fanfare_admin="], None);
    }
}
