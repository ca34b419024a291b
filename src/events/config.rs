//! What the events room can be told.

use std::str::FromStr;

use super::{ConsentConfig, Kind};
use crate::outbound::Endpoint;

/// Which kinds of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kinds(u8);

/// What the text of [`Kinds`] must be.
pub const KINDS_RULE: &str = "connect, disconnect, subscribe, unsubscribe, channel_occupied or channel_vacated, or several with commas \
     between";

impl Kinds {
    /// None.
    pub const NONE: Self = Self(0);
    /// All.
    pub const ALL: Self = Self((1 << Kind::ALL.len()) - 1);

    const fn bit(kind: Kind) -> u8 {
        1 << kind as u8
    }

    /// Whether a kind is among them.
    pub const fn contains(self, kind: Kind) -> bool {
        self.0 & Self::bit(kind) != 0
    }

    /// These and those.
    #[must_use]
    pub const fn with(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }
}

/// The text names something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{KINDS_RULE}")]
pub struct KindsError;

impl FromStr for Kinds {
    type Err = KindsError;

    fn from_str(text: &str) -> Result<Self, KindsError> {
        let mut kinds = Self::NONE;
        for name in text
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
        {
            let known = Kind::ALL.into_iter().find(|kind| kind.name() == name);
            let kind = known.ok_or(KindsError)?;
            kinds = kinds.with(Self(Self::bit(kind)));
        }
        match kinds {
            Self::NONE => Err(KindsError),
            kinds => Ok(kinds),
        }
    }
}

/// Where events go.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// A webhook.
    pub webhook: Option<WebhookConfig>,
    /// A stream in Redis.
    pub stream: Option<StreamConfig>,
    /// Who is asked.
    pub consent: Option<ConsentConfig>,
}

/// A webhook. `Debug` shows no secret.
#[derive(Clone)]
pub struct WebhookConfig {
    /// `WEBHOOK_URL`.
    pub url: Endpoint,
    /// What signs the bodies (`WEBHOOK_SECRET`).
    pub secret: Box<[u8]>,
    /// `WEBHOOK_EVENTS`.
    pub kinds: Kinds,
    /// The most events that wait (`EVENT_QUEUE`).
    pub queue_max: usize,
}

impl std::fmt::Debug for WebhookConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebhookConfig")
            .field("url", &self.url)
            .field("kinds", &self.kinds)
            .finish_non_exhaustive()
    }
}

/// A stream in Redis.
#[derive(Debug, Clone)]
pub struct StreamConfig {
    /// The server.
    pub redis: crate::redis::Config,
    /// The stream's key.
    pub key: String,
    /// About how many events it keeps (`EVENT_STREAM_LENGTH`).
    pub length: u64,
    /// The most events that wait (`EVENT_QUEUE`).
    pub queue_max: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_named_one_by_one() {
        let kinds: Kinds = "connect, channel_vacated".parse().expect("kinds");
        for kind in Kind::ALL {
            let expected = matches!(kind, Kind::Connect | Kind::ChannelVacated);
            assert_eq!(kinds.contains(kind), expected, "{kind:?}");
            assert!(Kinds::ALL.contains(kind) && !Kinds::NONE.contains(kind));
        }
        let names: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        assert_eq!(names.join(",").parse(), Ok(Kinds::ALL));
        for text in ["", ",", "connects", "connect disconnect", "CONNECT"] {
            assert_eq!(text.parse::<Kinds>(), Err(KindsError), "{text}");
        }
    }
}
