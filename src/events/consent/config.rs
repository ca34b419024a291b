//! Whom to ask, and how much at once.

use std::time::Duration;

use http::header::HeaderName;

use crate::outbound::Endpoint;

/// What the text of `CONNECT_HEADERS` must be.
pub const HEADERS_RULE: &str = "names of header fields with commas between, or - for none";

/// Back ends that are asked. `Debug` shows no secret.
#[derive(Clone)]
pub struct ConsentConfig {
    /// `CONNECT_URL`.
    pub connect: Option<Endpoint>,
    /// `SUBSCRIBE_URL`.
    pub subscribe: Option<Endpoint>,
    /// `PUBLISH_URL`.
    pub publish: Option<Endpoint>,
    /// What signs the questions (`WEBHOOK_SECRET`).
    pub secret: Box<[u8]>,
    /// Fields of a client's request that `CONNECT_URL` is told (`CONNECT_HEADERS`).
    pub headers: Box<[HeaderName]>,
    /// How long a question may take, its wait for a turn included (`CONSENT_TIMEOUT_MS`).
    pub timeout: Duration,
    /// The most questions under way to one URL (`CONSENT_CONCURRENCY`).
    pub concurrency: usize,
    /// The most that wait for a turn (`CONSENT_QUEUE`).
    pub queue_max: usize,
}

impl ConsentConfig {
    /// Whether anybody is asked anything.
    pub const fn asks(&self) -> bool {
        self.connect.is_some() || self.subscribe.is_some() || self.publish.is_some()
    }
}

impl std::fmt::Debug for ConsentConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConsentConfig")
            .field("connect", &self.connect)
            .field("subscribe", &self.subscribe)
            .field("publish", &self.publish)
            .finish_non_exhaustive()
    }
}
