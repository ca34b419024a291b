//! Answers that are good for a while, bounded by bytes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::sync::Cache;

use super::Withheld;
use super::answer::{Answer, Said};

/// The most bytes of all answers of one URL that are kept.
const BYTES_MAX: u64 = 16 << 20;
/// What an answer takes beside its texts.
const ENTRY_BYTES: usize = 256;

/// Answers by their subject. The ones that were used the least go first when it is full.
#[derive(Debug)]
pub(super) struct Kept(Cache<Arc<str>, Said>);

struct Ttl;

impl Expiry<Arc<str>, Said> for Ttl {
    fn expire_after_create(&self, _: &Arc<str>, said: &Said, _: Instant) -> Option<Duration> {
        Some(said.ttl)
    }

    fn expire_after_update(
        &self,
        _: &Arc<str>,
        said: &Said,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(said.ttl)
    }
}

impl Kept {
    pub(super) fn new() -> Self {
        let cache = Cache::builder()
            .max_capacity(BYTES_MAX)
            .weigher(|subject: &Arc<str>, said: &Said| {
                let bytes = ENTRY_BYTES + subject.len() + said.bytes();
                u32::try_from(bytes).unwrap_or(u32::MAX)
            })
            .expire_after(Ttl)
            .build();
        Self(cache)
    }

    /// What was said of this, if it still holds.
    pub(super) fn find(&self, subject: &str) -> Option<Result<Answer, Withheld>> {
        self.0.get(subject).map(|said| said.verdict)
    }

    /// Keeps an answer for as long as it says.
    pub(super) fn keep(&self, subject: Arc<str>, said: &Said) {
        if !said.ttl.is_zero() {
            self.0.insert(subject, said.clone());
        }
    }
}

impl Said {
    fn bytes(&self) -> usize {
        match &self.verdict {
            Ok(answer) => answer.supplement.as_ref().map_or(0, |one| one.bytes()),
            Err(Withheld::Denied(message)) => message.as_ref().map_or(0, |text| text.len()),
            Err(Withheld::Unavailable) => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(millis: u64, message: &str) -> Said {
        Said {
            verdict: Err(Withheld::Denied(Some(message.into()))),
            ttl: Duration::from_millis(millis),
        }
    }

    #[test]
    fn an_answer_is_kept_as_long_as_it_says() {
        let kept = Kept::new();
        kept.keep("none".into(), &said(0, "no"));
        kept.keep("long".into(), &said(3_600_000, "no"));
        kept.keep("short".into(), &said(30, "no"));
        assert_eq!(kept.find("none"), None);
        assert_eq!(kept.find("long"), Some(said(0, "no").verdict));
        let began = Instant::now();
        while kept.find("short").is_some() {
            assert!(began.elapsed() < Duration::from_secs(10), "it never ends");
            std::thread::yield_now();
        }
        assert!(began.elapsed() <= Duration::from_secs(10) && kept.find("long").is_some());
    }

    #[test]
    fn what_is_kept_has_a_bound() {
        let kept = Kept::new();
        let large = said(3_600_000, &"x".repeat(100_000));
        for number in 0..500 {
            kept.keep(number.to_string().into(), &large);
        }
        kept.0.run_pending_tasks();
        assert!(kept.0.weighted_size() <= BYTES_MAX);
        assert!(kept.0.entry_count() > 100, "and is used");
    }
}
