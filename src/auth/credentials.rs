//! Where credentials stand in a request. Pure: strings in, a string out; nothing is verified here.

use std::borrow::Cow;

/// What a `Sec-WebSocket-Protocol` entry that carries a token begins with.
const PROTOCOL_PREFIX: &str = "bearer.";

/// The token of a client that connects: from `Authorization: Bearer`, else from a `Sec-WebSocket-Protocol` entry
/// `bearer.<token>`, else from `token` in the query. A header is harder to leak than a query, so it wins; an empty
/// token is none.
///
/// `query` is the part of the URL after `?`; `protocols` are the values of the `Sec-WebSocket-Protocol` headers.
pub fn client_token<'a>(
    query: Option<&'a str>,
    authorization: Option<&'a str>,
    protocols: impl IntoIterator<Item = &'a str>,
) -> Option<Cow<'a, str>> {
    authorization
        .and_then(bearer)
        .or_else(|| protocols.into_iter().find_map(protocol_token))
        .map(Cow::Borrowed)
        .or_else(|| query.and_then(query_token))
}

/// The token of an `Authorization` header. The scheme's case does not matter (RFC 9110, 11.1).
pub fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

fn protocol_token(header: &str) -> Option<&str> {
    header
        .split(',')
        .filter_map(|entry| entry.trim().strip_prefix(PROTOCOL_PREFIX))
        .find(|token| !token.is_empty())
}

fn query_token(query: &str) -> Option<Cow<'_, str>> {
    query
        .split('&')
        .filter_map(|pair| pair.strip_prefix("token="))
        .find(|token| !token.is_empty())
        .map(percent_decoded)
}

/// A JSON Web Token needs no percent-encoding, but encoders exist that encode its dots. What does not decode stays as
/// it is and fails as a token.
fn percent_decoded(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let decoded = after.get(..2).filter(|_| first == b'%').and_then(hex_byte);
        bytes.push(decoded.unwrap_or(first));
        rest = if decoded.is_some() {
            &after[2..]
        } else {
            after
        };
    }
    String::from_utf8(bytes).map_or(Cow::Borrowed(text), Cow::Owned)
}

fn hex_byte(digits: &[u8]) -> Option<u8> {
    let high = char::from(digits[0]).to_digit(16)?;
    let low = char::from(digits[1]).to_digit(16)?;
    u8::try_from(high * 16 + low).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_token_in_each_of_its_three_places() {
        let none: [&str; 0] = [];
        assert_eq!(
            client_token(Some("a=1&token=q.u.e"), None, none).as_deref(),
            Some("q.u.e")
        );
        assert_eq!(
            client_token(None, Some("bearer  h.e.a"), none).as_deref(),
            Some("h.e.a")
        );
        assert_eq!(
            client_token(None, None, ["fanfare.json", "x, bearer.p.r.o"]).as_deref(),
            Some("p.r.o")
        );
        assert_eq!(client_token(None, None, none), None);
    }

    #[test]
    fn the_header_wins_over_the_protocol_and_that_over_the_query() {
        let query = Some("token=query");
        let protocols = ["bearer.protocol"];
        assert_eq!(
            client_token(query, Some("Bearer header"), protocols).as_deref(),
            Some("header")
        );
        assert_eq!(
            client_token(query, Some("Basic eA=="), protocols).as_deref(),
            Some("protocol")
        );
    }

    #[test]
    fn an_empty_token_is_none() {
        assert_eq!(
            client_token(Some("token="), Some("Bearer "), ["bearer."]),
            None
        );
        assert_eq!(
            client_token(Some("xtoken=a"), Some("Bearer"), ["nobearer.x"]),
            None
        );
    }

    #[test]
    fn decodes_percent_and_survives_what_is_no_encoding() {
        for (query, token) in [
            ("token=a%2Eb", "a.b"),
            ("token=a%2", "a%2"),
            ("token=%zz%", "%zz%"),
            ("token=%ff", "%ff"),
            ("token=%C3%A4", "ä"),
            ("token=%+1", "%+1"),
        ] {
            assert_eq!(
                client_token(Some(query), None, []).as_deref(),
                Some(token),
                "{query}"
            );
        }
    }
}
