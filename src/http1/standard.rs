//! `Forwarded` (RFC 7239): what one element of it says. Whether to believe it is for others to know.

/// What an element of `Forwarded` says by this name (RFC 7239 section 4), without the quotes it may stand in. A name that
/// hides an address, as `_hidden`, is what it is.
pub fn forwarded_pair<'a>(element: &'a str, name: &str) -> Option<&'a str> {
    element.split(';').find_map(|pair| {
        let (said, value) = pair.split_once('=')?;
        let is_it = said.trim().eq_ignore_ascii_case(name);
        is_it.then(|| value.trim().trim_matches('"'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_found_by_their_names() {
        let element = " For=\"[2001:db8::1]:80\"; proto=https;host = a.b ;by=";
        for (name, expected) in [
            ("for", Some("[2001:db8::1]:80")),
            ("PROTO", Some("https")),
            ("host", Some("a.b")),
            ("by", Some("")),
            ("secret", None),
        ] {
            assert_eq!(forwarded_pair(element, name), expected, "{name}");
        }
        assert_eq!(forwarded_pair("for", "for"), None);
    }
}
