//! Requests that Redis counts: those of one limiter that come while it is asked for an earlier one wait, and are counted
//! together. So a limiter has one question under way, however many requests there are, and the count stays exact: a
//! question takes as many as there are requests, or as many as there still are, and who came first gets them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::limits::{Decision, Quota};
use crate::redis::{CallError, Command, Redis, Script, Value};

/// How long a request waits for Redis.
const ANSWER_TIME_MAX: Duration = Duration::from_millis(250);

/// The generic cell rate algorithm as in `limits`, in microseconds, for several requests of one moment.
///
/// KEYS: the limiter. ARGV: the time between two requests, the time in which the whole limit comes back, how many requests
/// there are. Answers `{how many are allowed, how far the theoretical arrival was ahead}`.
///
/// An arrival beyond the whole was written by another clock, before a failover; it would keep a client out for as long as
/// the clocks differ.
pub(super) static COUNT: Script = Script::new(
    r"local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval, whole, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local arrival = tonumber(redis.call('GET', KEYS[1]) or '0')
arrival = math.min(math.max(arrival, now), now + whole)
local ahead = arrival - now
local taken = math.min(wanted, math.floor((whole - ahead) / interval))
if taken > 0 then
  local after = ahead + taken * interval
  redis.call('SET', KEYS[1], string.format('%.0f', now + after), 'PX', math.ceil(after / 1000))
end
return {taken, ahead}",
);

/// A limiter, as Redis has it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Limiter {
    key: Bytes,
    /// Microseconds between two requests.
    interval: u64,
    /// Microseconds in which the whole limit comes back.
    whole: u64,
}

impl Limiter {
    /// The limiter of this key, with so many requests in each window.
    pub(super) fn new(key: String, quota: &Quota, window: Duration) -> Self {
        let window = u64::try_from(window.as_micros()).unwrap_or(u64::MAX);
        let interval = window.div_ceil(u64::from(quota.limit())).max(1);
        Self {
            key: key.into(),
            interval,
            whole: interval.saturating_mul(u64::from(quota.limit())),
        }
    }

    fn question(&self, requests: usize) -> Command {
        Command::script(&COUNT, &[&self.key])
            .number(self.interval)
            .number(self.whole)
            .number(u64::try_from(requests).unwrap_or(u64::MAX))
    }

    /// What is decided of each of `requests`, the first ones first; `None` when that is no answer of the script.
    fn decisions(&self, answer: &Value, requests: usize) -> Option<Vec<Decision>> {
        let Value::Array(parts) = answer else {
            return None;
        };
        let [taken, ahead] = parts.as_slice() else {
            return None;
        };
        let (taken, ahead) = (taken.as_u64()?, ahead.as_u64()?);
        Some(
            (1..=requests as u64)
                .map(|at| self.decision(at, taken, ahead))
                .collect(),
        )
    }

    /// Of the request that is the `at`th, counted from 1.
    fn decision(&self, at: u64, taken: u64, ahead: u64) -> Decision {
        let is_allowed = at <= taken;
        let ahead = ahead.saturating_add(self.interval.saturating_mul(at.min(taken)));
        let remaining = self.whole.saturating_sub(ahead) / self.interval;
        let wait = match is_allowed {
            true => 0,
            false => ahead
                .saturating_add(self.interval)
                .saturating_sub(self.whole),
        };
        Decision {
            is_allowed,
            remaining: u32::try_from(remaining).unwrap_or(u32::MAX),
            reset_after: Duration::from_micros(ahead),
            retry_after: Duration::from_micros(wait),
        }
    }
}

/// Who waits for a decision, and since when.
#[derive(Debug)]
struct Waiting {
    since: Instant,
    tell: oneshot::Sender<Option<Decision>>,
}

/// The limiters of which Redis is asked at this moment, each with who waits for the next question.
#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<HashMap<Limiter, Vec<Waiting>>>);

impl Tally {
    /// Counts one request. `undecided` is called whenever Redis did not say.
    pub(super) fn count(
        self: &Arc<Self>,
        redis: &Arc<Redis>,
        limiter: Limiter,
        undecided: impl Fn() + Send + 'static,
    ) -> oneshot::Receiver<Option<Decision>> {
        let (tell, told) = oneshot::channel();
        let since = Instant::now();
        if self.join(&limiter, Waiting { since, tell }) {
            let (tally, asked) = (self.clone(), redis.clone());
            redis.runtime().spawn(async move {
                tally.ask_on(&asked, &limiter, undecided).await;
            });
        }
        told
    }

    /// Answers whether nobody asks of this limiter yet.
    fn join(&self, limiter: &Limiter, waiting: Waiting) -> bool {
        let mut asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match asked.get_mut(limiter) {
            Some(others) => {
                others.push(waiting);
                false
            }
            None => {
                asked.insert(limiter.clone(), vec![waiting]);
                true
            }
        }
    }

    /// Who waits now; when that is nobody, the limiter is no longer asked of.
    fn take(&self, limiter: &Limiter) -> Vec<Waiting> {
        let mut asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Entry::Occupied(mut entry) = asked.entry(limiter.clone()) else {
            return Vec::new();
        };
        let waiting = std::mem::take(entry.get_mut());
        if waiting.is_empty() {
            entry.remove();
        }
        waiting
    }

    /// Asks of this limiter for as long as anybody waits.
    async fn ask_on(&self, redis: &Redis, limiter: &Limiter, undecided: impl Fn()) {
        loop {
            let waiting = self.take(limiter);
            let Some(first) = waiting.first() else { return };
            let deadline = first.since + ANSWER_TIME_MAX;
            let question = limiter.question(waiting.len());
            let answer = timeout_at(deadline, redis.call_one(question)).await;
            if let Ok(Err(CallError::Refused(why))) = &answer {
                tracing::warn!(why, "redis refuses to count requests");
            }
            let decisions = match answer {
                Ok(Ok(value)) => limiter.decisions(&value, waiting.len()),
                _ => None,
            };
            if decisions.is_none() {
                undecided();
            }
            let mut decisions = decisions.into_iter().flatten();
            for one in waiting {
                // Whoever asked may have gone.
                let _ = one.tell.send(decisions.next());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter() -> Limiter {
        Limiter::new(
            "a".to_owned(),
            &Quota::new(2, Duration::from_millis(1)),
            Duration::from_millis(1),
        )
    }

    fn answer(parts: &[i64]) -> Value {
        Value::Array(parts.iter().copied().map(Value::Integer).collect())
    }

    #[test]
    fn who_came_first_is_let_through() {
        let decisions = limiter()
            .decisions(&answer(&[1, 500]), 2)
            .expect("decisions");
        let told = |decision: &Decision| {
            let micros = |time: Duration| time.as_micros();
            let (reset, retry) = (micros(decision.reset_after), micros(decision.retry_after));
            (decision.is_allowed, decision.remaining, reset, retry)
        };
        let told: Vec<_> = decisions.iter().map(told).collect();
        assert_eq!(told, [(true, 0, 1000, 0), (false, 0, 1000, 500)]);
        let fresh = limiter().decisions(&answer(&[2, 0]), 2).expect("decisions");
        assert_eq!((fresh[0].remaining, fresh[1].remaining), (1, 0));
        let late = limiter()
            .decisions(&answer(&[0, 900]), 1)
            .expect("a decision");
        assert_eq!(late[0].retry_after, Duration::from_micros(400));
    }

    #[test]
    fn what_the_script_does_not_say_is_no_decision() {
        for parts in [&[][..], &[1], &[1, 2, 3], &[-1, 0]] {
            assert_eq!(limiter().decisions(&answer(parts), 1), None, "{parts:?}");
        }
        assert_eq!(limiter().decisions(&Value::Null, 1), None);
    }

    #[test]
    fn one_asks_and_the_others_wait_for_the_next_question() {
        let (tally, limiter) = (Tally::default(), limiter());
        let waiting = || Waiting {
            since: Instant::now(),
            tell: oneshot::channel().0,
        };
        assert!(tally.join(&limiter, waiting()), "the first one asks");
        assert_eq!(tally.take(&limiter).len(), 1);
        assert!(!tally.join(&limiter, waiting()) && !tally.join(&limiter, waiting()));
        assert_eq!(tally.take(&limiter).len(), 2);
        assert_eq!(tally.take(&limiter).len(), 0, "nobody asks any more");
        assert!(tally.join(&limiter, waiting()));
    }
}
