//! What the proxy answers itself, byte for byte as the Fastify gateway: one table from causes to the wire.

use serde::Serialize;

use crate::limits::Decision;
use crate::model::BodyError;

/// Why a request gets no upstream's answer, by who is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ProxyError {
    /// The client asked for what is no route.
    #[error("no such route")]
    NotFound(String, String),
    /// The client's path cannot be forwarded safely.
    #[error("the path is not valid")]
    BadPath,
    /// The client's request cannot be said in the upstream's version of HTTP.
    #[error("the request cannot be passed on over HTTP/2")]
    Unsayable,
    /// The client's request has been here before, many times.
    #[error("the request goes in a circle")]
    Looping,
    /// The client asked a door of WebSockets for something else.
    #[error("no WebSocket handshake")]
    NotWebSocket,
    /// The client asked for a WebSocket where there is none.
    #[error("there is no WebSocket at this path")]
    NoWebSocket,
    /// The page that asks may not.
    #[error("the origin is not allowed")]
    Origin,
    /// The node has too much to do for another stream.
    #[error("the node is under pressure")]
    UnderPressure,
    /// The client showed no valid token.
    #[error("no valid token")]
    Unauthorized,
    /// The keys that the client's token is verified with are not here yet.
    #[error("no keys to verify the token with yet")]
    Unverifiable,
    /// The client's role is not one that may.
    #[error("the role may not")]
    Forbidden,
    /// The client's address asks too often.
    #[error("too many requests")]
    TooMany(Decision),
    /// The client has as many streams open as it may.
    #[error("too many streams are open")]
    TooManyStreams,
    /// The client's body failed on its way.
    #[error("the request's body failed: {0}")]
    Body(BodyError),
    /// Nobody configured such a service.
    #[error("unknown service")]
    UnknownService(String),
    /// The upstream cannot be reached, or broke off.
    #[error("the upstream failed")]
    Unavailable,
    /// Every upstream has as much to do as it may.
    #[error("all upstreams have enough to do")]
    Overloaded,
    /// The client wants what stands in the cache and nothing else, and there is nothing (RFC 9111 section 5.2.1.7).
    #[error("nothing in the cache")]
    NotCached,
    /// The upstream does not open a stream that many would share.
    #[error("the upstream answered {0} in the place of a stream")]
    Refused(u16),
    /// The upstream took too long.
    #[error("the upstream timed out")]
    TimedOut,
}

/// The form of errors about upstreams.
#[derive(Serialize)]
struct Short<'a> {
    error: &'static str,
    message: &'a str,
}

/// The form of Fastify.
#[derive(Serialize)]
struct Framework<'a> {
    #[serde(rename = "statusCode")]
    status_code: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    error: &'static str,
    message: &'a str,
}

/// The form of its 404, whose fields stand in another order.
#[derive(Serialize)]
struct NotFound<'a> {
    message: &'a str,
    error: &'static str,
    #[serde(rename = "statusCode")]
    status_code: u16,
}

/// Most bytes of a path or a name that are repeated to whoever sent them.
const REPEATED_BYTES_MAX: usize = 256;

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(REPEATED_BYTES_MAX)]
}

/// The form that RFC 9457 gave problems, for who accepts it.
#[derive(Serialize)]
struct Problem<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'a str,
    status: u16,
    detail: String,
}

/// What is answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) status: u16,
    /// Of the body, without `content-type: `.
    pub(super) content_type: &'static str,
    pub(super) body: Vec<u8>,
}

impl ProxyError {
    /// As the client understands it: in the form of RFC 9457 where it asks for that, in Fastify's otherwise.
    pub(super) fn told(&self, as_problem: bool) -> Told {
        let (status, body) = self.answer();
        if !as_problem {
            return Told {
                status,
                content_type: "application/json; charset=utf-8",
                body,
            };
        }
        let reason = http::StatusCode::from_u16(status).ok();
        let problem = Problem {
            kind: match self {
                // Of the registry of problem types; draft-ietf-httpapi-ratelimit-headers-10 section 7.
                Self::TooMany(_) | Self::TooManyStreams => {
                    "https://iana.org/assignments/http-problem-types#quota-exceeded"
                }
                _ => "about:blank",
            },
            title: reason
                .and_then(|reason| reason.canonical_reason())
                .unwrap_or_default(),
            status,
            detail: self.to_string(),
        };
        Told {
            status,
            content_type: "application/problem+json",
            body: json(&problem),
        }
    }

    /// Status and JSON body.
    fn answer(&self) -> (u16, Vec<u8>) {
        match self {
            Self::NotFound(method, path) => {
                let message = format!("Route {method}:{} not found", cut(path));
                let body = NotFound {
                    message: &message,
                    error: "Not Found",
                    status_code: 404,
                };
                (404, json(&body))
            }
            Self::UnknownService(name) => {
                let name = cut(name);
                let message = format!("No upstream configured for service: {name}");
                short(404, "unknown_service", &message)
            }
            Self::Unavailable => short(502, "upstream_unavailable", "Failed to reach upstream"),
            Self::TimedOut => short(504, "upstream_timeout", "Upstream request timed out"),
            Self::NotCached => {
                let message = "Nothing is kept of this, and the upstream was not to be asked";
                short(504, "not_cached", message)
            }
            Self::Looping => short(508, "loop_detected", "The request goes in a circle"),
            Self::NotWebSocket => {
                let message = "A WebSocket handshake of version 13 is needed here";
                short(426, "upgrade_required", message)
            }
            Self::NoWebSocket => {
                let message = "There is no WebSocket at this path";
                framework(400, None, "Bad Request", message)
            }
            Self::Origin => short(403, "forbidden", "This origin is not allowed"),
            Self::TooMany(decision) => {
                let wait = wait_in_words(decision.retry_after.as_secs_f64().ceil());
                let message = format!("Rate limit exceeded, retry in {wait}");
                framework(429, None, "Too Many Requests", &message)
            }
            Self::TooManyStreams => {
                framework(429, None, "Too Many Requests", "Too many streams are open")
            }
            Self::UnderPressure => {
                let (code, error) = ("FST_UNDER_PRESSURE", "Service Unavailable");
                framework(503, Some(code), error, error)
            }
            Self::Refused(status) => {
                let message = "The upstream does not open this stream";
                short(*status, "upstream_refused", message)
            }
            Self::Overloaded => {
                let message = "Every upstream has as much to do as it may";
                short(503, "upstream_overloaded", message)
            }
            Self::Unverifiable => {
                let message = "The keys of tokens are not here yet";
                framework(503, None, "Service Unavailable", message)
            }
            Self::Forbidden => framework(403, None, "Forbidden", "This role may not"),
            Self::Unauthorized => framework(401, None, "Unauthorized", "Invalid or missing token"),
            Self::BadPath => {
                let message = "The path is not a valid url component";
                framework(400, Some("FST_ERR_BAD_URL"), "Bad Request", message)
            }
            Self::Unsayable => {
                let message = "The request cannot be passed on over HTTP/2";
                framework(400, None, "Bad Request", message)
            }
            Self::Body(error) => broken_body(*error),
        }
    }

    /// The lines of the fields that belong to the status.
    pub(super) const fn fields(&self) -> &'static str {
        match self {
            Self::NotWebSocket => {
                "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
            }
            Self::Unauthorized => "www-authenticate: Bearer\r\n",
            Self::UnderPressure | Self::TooManyStreams => "retry-after: 10\r\n",
            Self::Overloaded | Self::Unverifiable => "retry-after: 1\r\n",
            _ => "",
        }
    }
}

/// A client's body that failed on its way.
fn broken_body(error: BodyError) -> (u16, Vec<u8>) {
    match error {
        BodyError::TooLarge => {
            let code = Some("FST_ERR_CTP_BODY_TOO_LARGE");
            framework(413, code, "Payload Too Large", "Request body is too large")
        }
        BodyError::TimedOut => {
            let message = "Request body did not arrive in time";
            framework(408, None, "Request Timeout", message)
        }
        BodyError::Broken => framework(400, None, "Bad Request", "Request body is broken"),
    }
}

fn short(status: u16, error: &'static str, message: &str) -> (u16, Vec<u8>) {
    (status, json(&Short { error, message }))
}

fn framework(
    status_code: u16,
    code: Option<&'static str>,
    error: &'static str,
    message: &str,
) -> (u16, Vec<u8>) {
    let body = Framework {
        status_code,
        code,
        error,
        message,
    };
    (status_code, json(&body))
}

fn json(body: &impl Serialize) -> Vec<u8> {
    // Plain structs cannot fail to serialise.
    serde_json::to_vec(body).unwrap_or_default()
}

/// As Fastify's rate limit says how long to wait: the largest unit that fits, rounded.
fn wait_in_words(seconds: f64) -> String {
    let (unit, name) = match seconds {
        seconds if seconds >= 86_400.0 => (86_400.0, "day"),
        seconds if seconds >= 3600.0 => (3600.0, "hour"),
        seconds if seconds >= 60.0 => (60.0, "minute"),
        _ => (1.0, "second"),
    };
    let plural = if seconds >= unit * 1.5 { "s" } else { "" };
    format!("{:.0} {name}{plural}", (seconds / unit).round())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn check(error: &ProxyError, status: u16, body: &str) {
        assert_eq!(
            error.answer(),
            (status, body.as_bytes().to_vec()),
            "{error:?}"
        );
    }

    #[test]
    fn the_bodies_are_those_of_the_seed() {
        let unknown =
            r#"{"error":"unknown_service","message":"No upstream configured for service: x"}"#;
        check(&ProxyError::UnknownService("x".to_owned()), 404, unknown);
        let unavailable =
            r#"{"error":"upstream_unavailable","message":"Failed to reach upstream"}"#;
        check(&ProxyError::Unavailable, 502, unavailable);
        let timed_out = r#"{"error":"upstream_timeout","message":"Upstream request timed out"}"#;
        check(&ProxyError::TimedOut, 504, timed_out);
        let unauthorized =
            r#"{"statusCode":401,"error":"Unauthorized","message":"Invalid or missing token"}"#;
        check(&ProxyError::Unauthorized, 401, unauthorized);
        let unverifiable = r#"{"statusCode":503,"error":"Service Unavailable","message":"The keys of tokens are not here yet"}"#;
        check(&ProxyError::Unverifiable, 503, unverifiable);
        let not_found =
            r#"{"message":"Route GET:/api/x not found","error":"Not Found","statusCode":404}"#;
        let error = ProxyError::NotFound("GET".to_owned(), "/api/x".to_owned());
        check(&error, 404, not_found);
        let too_many = r#"{"statusCode":429,"error":"Too Many Requests","message":"Rate limit exceeded, retry in 1 minute"}"#;
        let decision = Decision {
            is_allowed: false,
            remaining: 0,
            reset_after: Duration::ZERO,
            retry_after: Duration::from_millis(59_500),
        };
        check(&ProxyError::TooMany(decision), 429, too_many);
        let too_large = r#"{"statusCode":413,"code":"FST_ERR_CTP_BODY_TOO_LARGE","error":"Payload Too Large","message":"Request body is too large"}"#;
        check(&ProxyError::Body(BodyError::TooLarge), 413, too_large);
    }

    #[test]
    fn waits_in_words() {
        for (seconds, words) in [
            (1.0, "1 second"),
            (30.0, "30 seconds"),
            (60.0, "1 minute"),
            (150.0, "3 minutes"),
            (7200.0, "2 hours"),
        ] {
            assert_eq!(wait_in_words(seconds), words);
        }
    }

    #[test]
    fn who_asks_for_problems_gets_them_in_the_standard_form() {
        let told = ProxyError::TimedOut.told(true);
        assert_eq!(
            (told.status, told.content_type),
            (504, "application/problem+json")
        );
        let expected = r#"{"type":"about:blank","title":"Gateway Timeout","status":504,"detail":"the upstream timed out"}"#;
        assert_eq!(told.body, expected.as_bytes());
        let seed = ProxyError::TimedOut.told(false);
        assert_eq!(seed.body, ProxyError::TimedOut.answer().1);
    }
}
