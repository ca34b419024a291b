//! Events as a signed `POST`.
//!
//! The body is `{"events":[…]}`. `X-Fanfare-Signature` is `t=<Unix seconds>,v1=<HMAC-SHA256 in base64url without padding>` of
//! `<Unix seconds>.<body>` with `WEBHOOK_SECRET`, so that a receiver can refuse what is forged and what is old.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{HeaderName, HeaderValue};

use super::outlet::{Sink, Told};
use super::{Event, WebhookConfig};
use crate::auth::sign;
use crate::outbound::{Call, Endpoint, Outbound};

/// How long a receiver may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// What is read of its answer; nobody looks at it.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

const SIGNATURE: HeaderName = HeaderName::from_static("x-fanfare-signature");

/// A receiver.
pub(super) struct Webhook {
    url: Endpoint,
    secret: Box<[u8]>,
    outbound: Arc<Outbound>,
}

impl Webhook {
    pub(super) fn new(config: &WebhookConfig, outbound: Arc<Outbound>) -> Self {
        Self {
            url: config.url.clone(),
            secret: config.secret.clone(),
            outbound,
        }
    }

    async fn post(&self, batch: &[Arc<Event>]) -> Told {
        let events: Vec<String> = batch.iter().map(|event| event.write()).collect();
        let body = format!(r#"{{"events":[{}]}}"#, events.join(","));
        let call = signed(&self.url, &self.secret, body, TIMEOUT, ANSWER_BYTES_MAX);
        let Some(call) = call else {
            tracing::error!("a webhook cannot be signed");
            return Told::Refused;
        };
        match self.outbound.send(call).await {
            Ok(answer) => judge(answer.status, &self.url),
            Err(error) => {
                tracing::warn!(%error, url = %self.url, "a webhook was not taken");
                Told::Later
            }
        }
    }
}

impl Sink for Webhook {
    fn tell<'a>(
        &'a self,
        batch: &'a [Arc<Event>],
    ) -> Pin<Box<dyn Future<Output = Told> + Send + 'a>> {
        Box::pin(self.post(batch))
    }
}

/// A signed `POST` of JSON; `None` when the library cannot sign.
pub(super) fn signed(
    url: &Endpoint,
    secret: &[u8],
    body: String,
    timeout: Duration,
    answer_bytes_max: usize,
) -> Option<Call> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let signature = signature(secret, now.unwrap_or_default().as_secs(), &body)?;
    let call = Call::post(url, body, timeout, answer_bytes_max);
    Some(call.header(SIGNATURE, signature))
}

fn signature(secret: &[u8], unix_seconds: u64, body: &str) -> Option<HeaderValue> {
    let signature = sign(secret, format!("{unix_seconds}.{body}").as_bytes())?;
    HeaderValue::from_str(&format!("t={unix_seconds},v1={signature}")).ok()
}

/// What a status means: time-outs, too many requests and the receiver's own faults pass, other refusals do not.
fn judge(status: u16, url: &Endpoint) -> Told {
    let told = match status {
        200..=299 => return Told::Taken,
        408 | 425 | 429 | 500.. => Told::Later,
        _ => Told::Refused,
    };
    tracing::warn!(status, %url, "a webhook was not taken");
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_receiver_says_decides_whether_it_is_told_again() {
        let url: Endpoint = "http://localhost/".parse().expect("a URL");
        for (status, expected) in [
            (200, Told::Taken),
            (204, Told::Taken),
            (301, Told::Refused),
            (400, Told::Refused),
            (404, Told::Refused),
            (408, Told::Later),
            (429, Told::Later),
            (500, Told::Later),
            (503, Told::Later),
        ] {
            assert_eq!(judge(status, &url), expected, "{status}");
        }
    }

    #[test]
    fn the_signature_is_of_time_and_body() {
        // printf '7.{}' | openssl dgst -sha256 -hmac secret -binary | basenc --base64url
        let signed = signature(b"secret", 7, "{}").expect("a header");
        assert_eq!(signed, "t=7,v1=dqrZQp9BeIKRgWKhkoo4dp__ZcwHtr-jRKycX7HjRI4");
        assert_ne!(signature(b"secret", 8, "{}"), Some(signed.clone()));
        assert_ne!(signature(b"secre", 7, "{}"), Some(signed));
    }
}
