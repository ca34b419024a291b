//! Makes the `data` of a request plain: one JSON value on one line, nested at most 64 deep.
//!
//! `serde_json` has checked by now that it is one JSON value; it checks neither depth nor line ends.

use bytes::Bytes;
use serde_json::value::RawValue;

use super::ApiError;
use crate::model::Payload;

/// Deepest nesting of arrays and objects: what every client's parser takes.
const DEPTH_MAX: usize = 64;

/// Copies a value into a payload of its own: a slice of the body would keep the whole body (and the read buffer that
/// it is a slice of) alive for as long as history keeps the publication.
///
/// # Errors
/// 400 when it is nested too deep.
pub(super) fn plain(data: &RawValue) -> Result<Payload, ApiError> {
    let json = data.get().as_bytes();
    let openers = json
        .iter()
        .filter(|byte| matches!(byte, b'[' | b'{'))
        .count();
    // So many openers are needed to nest deeper; counting them first spares nearly every payload the closer look.
    if openers > DEPTH_MAX && depth(json) > DEPTH_MAX {
        let message = format!("data is nested deeper than {DEPTH_MAX} levels");
        return Err(ApiError::bad_request(message));
    }
    if json.iter().any(|byte| matches!(byte, b'\r' | b'\n')) {
        // JSON has no raw line ends inside strings, so these are white space between tokens.
        let line: Vec<u8> = json
            .iter()
            .copied()
            .filter(|byte| !matches!(byte, b'\r' | b'\n'))
            .collect();
        return Ok(Payload::from_plain_json(line));
    }
    Ok(Payload::from_plain_json(Bytes::copy_from_slice(json)))
}

/// How deep arrays and objects nest.
fn depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest, mut is_string, mut is_escaped) = (0usize, 0, false, false);
    for byte in json {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = is_string,
            b'"' => is_string = !is_string,
            _ if is_string => {}
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str) -> Result<String, ApiError> {
        let raw: &RawValue = serde_json::from_str(json).expect("JSON");
        plain(raw).map(|payload| String::from_utf8_lossy(payload.as_bytes()).into_owned())
    }

    #[test]
    fn line_ends_between_tokens_go_and_all_else_stays() {
        assert_eq!(
            check("{\r\n \"a\\n\" : [1,\n2]\n}").expect("plain"),
            "{ \"a\\n\" : [1,2]}"
        );
        assert_eq!(check("\"x\"").expect("plain"), "\"x\"");
    }

    #[test]
    fn sixty_four_levels_pass_and_one_more_does_not() {
        let nested = |levels| "[".repeat(levels) + &"]".repeat(levels);
        assert!(check(&nested(64)).is_ok());
        assert!(check(&nested(65)).is_err());
        assert!(check(&nested(10_000)).is_err());
    }

    #[test]
    fn brackets_in_strings_and_side_by_side_are_no_depth() {
        assert!(check(&format!("\"{}\\\"[\"", "[".repeat(100))).is_ok());
        assert!(check(&format!("[{}1]", "[],".repeat(100))).is_ok());
    }
}
