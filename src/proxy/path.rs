//! The path of a request, normalised once: what is routed on is what is forwarded.
//!
//! Decided here, each case explicitly:
//!
//! | in the path | becomes |
//! |---|---|
//! | a percent-encoded unreserved character (`%41`, `%2e`, `%7E`) | that character (RFC 3986 6.2.2.2) |
//! | another percent-encoding | stays, with its digits in upper case |
//! | `%` without two hexadecimal digits | 400 |
//! | `%2f`, `%5c`, `%00` and other encoded control characters, `\` | 400: upstreams disagree about what they mean |
//! | a `.` or `..` segment, encoded or not | resolved (RFC 3986 5.2.4); climbing above the service is 400 |
//! | `//` | stays: an empty segment is a segment |
//!
//! Not touched: the query.

use std::borrow::Cow;

/// The path cannot be forwarded safely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BadPath;

/// Normalises what stands behind the service's name; it begins with a slash. Nearly every path is normal already and is
/// only looked at.
pub(super) fn normalise(path: &str) -> Result<Cow<'_, str>, BadPath> {
    let bytes = path.as_bytes();
    let is_normal = !bytes.iter().any(|byte| matches!(byte, b'%' | b'\\'))
        && !bytes.windows(2).any(|pair| pair == b"/.");
    if is_normal {
        return Ok(Cow::Borrowed(path));
    }
    resolve(&decode(path)?).map(Cow::Owned)
}

fn decode(path: &str) -> Result<String, BadPath> {
    let mut plain = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find(['%', '\\']) {
        plain.push_str(&rest[..at]);
        let digits = rest.as_bytes().get(at + 1..at + 3).ok_or(BadPath)?;
        if rest.as_bytes()[at] == b'\\' {
            return Err(BadPath);
        }
        match hex_byte(digits).ok_or(BadPath)? {
            b'/' | b'\\' | 0..=0x1f | 0x7f => return Err(BadPath),
            byte if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => {
                plain.push(char::from(byte));
            }
            _ => plain.push_str(&rest[at..at + 3].to_ascii_uppercase()),
        }
        rest = &rest[at + 3..];
    }
    plain.push_str(rest);
    Ok(plain)
}

fn hex_byte(digits: &[u8]) -> Option<u8> {
    let high = char::from(digits[0]).to_digit(16)?;
    let low = char::from(digits[1]).to_digit(16)?;
    u8::try_from(high * 16 + low).ok()
}

fn resolve(path: &str) -> Result<String, BadPath> {
    let mut segments: Vec<&str> = Vec::new();
    let mut ends_in_directory = false;
    for segment in path.strip_prefix('/').unwrap_or(path).split('/') {
        ends_in_directory = matches!(segment, "." | "..");
        match segment {
            "." => {}
            ".." => {
                segments.pop().ok_or(BadPath)?;
            }
            segment => segments.push(segment),
        }
    }
    if ends_in_directory {
        segments.push("");
    }
    Ok(format!("/{}", segments.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_table_holds() {
        for (path, expected) in [
            ("/", Some("/")),
            ("/a/b", Some("/a/b")),
            ("/a//b/", Some("/a//b/")),
            ("/%41%7e%2D", Some("/A~-")),
            ("/%c3%a4%20", Some("/%C3%A4%20")),
            ("/a/../b", Some("/b")),
            ("/a/./b/.", Some("/a/b/")),
            ("/a/%2e%2E/b", Some("/b")),
            ("/a/..", Some("/")),
            ("/.hidden", Some("/.hidden")),
            ("/...", Some("/...")),
            ("/..", None),
            ("/a/../..", None),
            ("/%2e%2e/x", None),
            ("/%2f", None),
            ("/a%5Cb", None),
            ("/a\\b", None),
            ("/%00", None),
            ("/%0d%0a", None),
            ("/%", None),
            ("/%4", None),
            ("/%zz", None),
            ("/%é", None),
        ] {
            assert_eq!(normalise(path).ok().as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn a_normalised_path_is_normal() {
        for path in ["/%41/../%2e/b%20", "/a/b/../.x", "/%25%32%66"] {
            let once = normalise(path).expect("a good path").into_owned();
            assert_eq!(normalise(&once).as_deref(), Ok(&*once), "{path}");
        }
    }
}
