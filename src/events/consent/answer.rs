//! What a back end says, read strictly: what cannot be read allows nothing.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Withheld;
use crate::auth::{AuthError, Supplement, SupplementFields};
use crate::model::Payload;
use crate::protocol::payload;
use crate::telemetry::consent::Matter;

/// The longest that an answer is good for.
const TTL_MAX: Duration = Duration::from_secs(3600);
/// The most bytes of the text that a client is told with a no.
const MESSAGE_BYTES_MAX: usize = 255;

/// A yes, and what it says beside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// Of a client that connects.
    pub(super) supplement: Option<Arc<Supplement>>,
    /// To be published instead.
    pub(super) data: Option<Payload>,
}

/// What was said, and for how long it holds for others who ask the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) verdict: Result<Answer, Withheld>,
    pub(super) ttl: Duration,
}

/// The body of an answer.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written<'a> {
    allow: bool,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    ttl: f64,
    #[serde(borrow, default)]
    user: Option<&'a RawValue>,
    #[serde(borrow, default)]
    roles: Option<&'a RawValue>,
    #[serde(borrow, default)]
    info: Option<&'a RawValue>,
    #[serde(borrow, default)]
    channels: Option<&'a RawValue>,
    #[serde(borrow, default)]
    expires_at: Option<&'a RawValue>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

/// Reads an answer with its status. 401 and 403 are a no, whatever is said with them.
///
/// # Errors
/// Why it cannot be taken for an answer.
pub(super) fn read(matter: Matter, status: u16, body: &[u8]) -> Result<Said, String> {
    match status {
        200 => {}
        401 | 403 => {
            return Ok(Said {
                verdict: Err(Withheld::Denied(None)),
                ttl: Duration::ZERO,
            });
        }
        other => return Err(format!("it was answered {other}")),
    }
    let written: Written<'_> =
        serde_json::from_slice(body).map_err(|error| format!("its answer is wrong: {error}"))?;
    let ttl = ttl(written.ttl).ok_or("its ttl is no number of seconds")?;
    if !written.allow {
        let message = written.message.map(|text| shortened(&text));
        let verdict = Err(Withheld::Denied(message));
        return Ok(Said { verdict, ttl });
    }
    let supplement = written.supplement();
    let answer = match matter {
        Matter::Connect if written.data.is_some() => {
            return Err("only an answer about a publication may have data".to_owned());
        }
        Matter::Connect => Answer {
            supplement: Some(Arc::new(supplement.map_err(in_words)?)),
            data: None,
        },
        _ if written.has_supplement() => {
            let rule = "only an answer about a new client may have user, roles, info, channels or expires_at";
            return Err(rule.to_owned());
        }
        Matter::Subscribe if written.data.is_some() => {
            return Err("only an answer about a publication may have data".to_owned());
        }
        Matter::Subscribe | Matter::Publish => Answer {
            supplement: None,
            data: data(written.data)?,
        },
    };
    // What replaces one publication must not replace the next.
    let ttl = match answer.data {
        Some(_) => Duration::ZERO,
        None => ttl,
    };
    Ok(Said {
        verdict: Ok(answer),
        ttl,
    })
}

impl Written<'_> {
    fn has_supplement(&self) -> bool {
        let fields = [
            self.user,
            self.roles,
            self.info,
            self.channels,
            self.expires_at,
        ];
        fields.iter().any(Option::is_some)
    }

    fn supplement(&self) -> Result<Supplement, AuthError> {
        Supplement::read(SupplementFields {
            user: self.user,
            roles: self.roles,
            info: self.info,
            channels: self.channels,
            expires_at: self.expires_at,
        })
    }
}

fn data(raw: Option<&RawValue>) -> Result<Option<Payload>, String> {
    let data = raw.map(payload::from_raw).transpose();
    data.map_err(|error| format!("its data is {error}"))
}

fn ttl(seconds: f64) -> Option<Duration> {
    let is_time = seconds.is_finite() && seconds >= 0.0;
    is_time.then(|| Duration::from_secs_f64(seconds.min(TTL_MAX.as_secs_f64())))
}

fn in_words(error: AuthError) -> String {
    match error {
        AuthError::BadClaim { claim, rule } => format!("its {claim} must be {rule}"),
        other => other.to_string(),
    }
}

fn shortened(text: &str) -> Arc<str> {
    text[..text.floor_char_boundary(MESSAGE_BYTES_MAX)].into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(matter: Matter, body: &str) -> Said {
        read(matter, 200, body.as_bytes()).unwrap_or_else(|error| panic!("{body}: {error}"))
    }

    fn check_wrong(matter: Matter, body: &str, expected: &str) {
        let error = read(matter, 200, body.as_bytes()).expect_err(body);
        assert!(error.contains(expected), "{body}: {error}");
    }

    #[test]
    fn a_yes_and_a_no_and_how_long_they_hold() {
        let yes = said(Matter::Subscribe, r#"{"allow":true,"ttl":1.5}"#);
        assert_eq!(yes.verdict, Ok(Answer::default()));
        assert_eq!(yes.ttl, Duration::from_millis(1500));
        let no = said(
            Matter::Publish,
            r#"{"allow":false,"message":"closed","ttl":1e9}"#,
        );
        assert_eq!(no.verdict, Err(Withheld::Denied(Some("closed".into()))));
        assert_eq!(no.ttl, TTL_MAX);
        assert_eq!(
            said(Matter::Publish, r#"{"allow":true}"#).ttl,
            Duration::ZERO
        );
        for status in [401, 403] {
            let no = read(Matter::Connect, status, b"<html>").expect("a no");
            assert_eq!(no.verdict, Err(Withheld::Denied(None)));
            assert_eq!(no.ttl, Duration::ZERO);
        }
    }

    #[test]
    fn an_answer_with_data_is_not_kept() {
        let said = said(
            Matter::Publish,
            r#"{"allow":true,"ttl":60,"data":{"a": 1}}"#,
        );
        assert_eq!(said.ttl, Duration::ZERO);
        let data = said.verdict.expect("a yes").data.expect("data");
        assert_eq!(data.as_bytes(), br#"{"a": 1}"#);
        let long = format!(r#"{{"allow":false,"message":"{}"}}"#, "ä".repeat(500));
        let no = read(Matter::Publish, 200, long.as_bytes())
            .expect("a no")
            .verdict;
        let Err(Withheld::Denied(Some(message))) = no else {
            panic!("{no:?}");
        };
        assert_eq!(message.len(), MESSAGE_BYTES_MAX - 1);
    }

    #[test]
    fn what_is_no_answer_allows_nothing() {
        use Matter::{Connect, Publish, Subscribe};
        for status in [100, 201, 204, 301, 307, 400, 404, 429, 500, 503] {
            let answer = read(Connect, status, br#"{"allow":true}"#);
            assert!(answer.is_err(), "{status}");
        }
        for (matter, body, expected) in [
            (Connect, "", "EOF"),
            (Connect, "true", "invalid type"),
            (Connect, "{}", "missing field `allow`"),
            (Connect, r#"{"allow":1}"#, "invalid type"),
            (Connect, r#"{"allow":"true"}"#, "invalid type"),
            (
                Connect,
                r#"{"allow":false,"allow":true}"#,
                "duplicate field",
            ),
            (Connect, r#"{"allow":true} {}"#, "trailing"),
            (Connect, r#"{"allow":true,"chanels":[]}"#, "unknown field"),
            (Connect, r#"{"allow":true,"ttl":-1}"#, "ttl"),
            (Connect, r#"{"allow":true,"user":7}"#, "its user must be"),
            (
                Connect,
                r#"{"allow":true,"channels":["a b"]}"#,
                "its channels",
            ),
            (Connect, r#"{"allow":true,"data":1}"#, "data"),
            (Subscribe, r#"{"allow":true,"data":1}"#, "data"),
            (
                Connect,
                r#"{"allow":true,"roles":[7]}"#,
                "its roles must be",
            ),
            (Subscribe, r#"{"allow":true,"user":"ann"}"#, "new client"),
            (Subscribe, r#"{"allow":true,"roles":["a"]}"#, "new client"),
            (Publish, r#"{"allow":true,"info":1}"#, "new client"),
        ] {
            check_wrong(matter, body, expected);
        }
        let deep = format!(
            r#"{{"allow":true,"data":{}}}"#,
            "[".repeat(65) + &"]".repeat(65)
        );
        check_wrong(Publish, &deep, "nested deeper");
    }
}
