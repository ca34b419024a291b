//! What the nodes of a fleet do together: limits of rate, and who of them reads a stream that many share (`lease`).
//!
//! A limit is one number in Redis for each limiter, which a script moves by Redis's own clock.
//!
//! A request waits for the answer, but not for long. While Redis is away, or too slow, each node lets its own part of the
//! limit through: what the limit says, divided by the nodes that were alive last. Never more, and never an error.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Once};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::lease::{LEAD, RESIGN};
use crate::limits::{Decision, Quota};
use crate::model::Moment;
use crate::redis::{CallError, Command, Config, Redis, Script, StartError, Value};
use crate::telemetry::proxy as counts;

/// How long a request waits for Redis.
const ANSWER_TIME_MAX: Duration = Duration::from_millis(250);
/// For how long Redis is not asked after it was too slow: waiting would be all that requests do.
const DOUBT: Duration = Duration::from_secs(1);

/// The generic cell rate algorithm as in `limits`, in microseconds.
///
/// KEYS: the limiter. ARGV: between two requests, in which the whole limit comes back.
/// Answers `{allowed, ahead, wait}`: how far the theoretical arrival is ahead, and how long to wait.
///
/// An arrival beyond the whole was written by another clock, before a failover; it would keep a client out for as long as
/// the clocks differ.
static COUNT: Script = Script::new(
    r"local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval, whole = tonumber(ARGV[1]), tonumber(ARGV[2])
local arrival = tonumber(redis.call('GET', KEYS[1]) or '0')
arrival = math.min(math.max(arrival, now), now + whole)
local ahead = arrival + interval - now
if ahead > whole then return {0, arrival - now, ahead - whole} end
redis.call('SET', KEYS[1], string.format('%.0f', arrival + interval), 'PX', math.ceil(ahead / 1000))
return {1, ahead, 0}",
);

static SCRIPTS: &[&Script] = &[&COUNT, &LEAD, &RESIGN];

/// What Redis decided; `None` when it did not.
pub(super) type Pending = Pin<Box<dyn Future<Output = Option<Decision>> + Send>>;

/// What the nodes of a fleet share.
#[derive(Debug)]
pub struct Fleet {
    pub(super) redis: Redis,
    pub(super) prefix: String,
    /// This process.
    pub(super) name: String,
    connected: Once,
    /// The nodes that were alive when it was last known.
    nodes: Arc<AtomicUsize>,
    /// In milliseconds of [`Moment`].
    doubted_until: Arc<AtomicU64>,
}

impl Fleet {
    /// Makes ready to connect. `nodes` is kept up by somebody else.
    ///
    /// # Errors
    /// When the system gives no thread, or the certificates cannot be used.
    pub fn new(config: &Config, nodes: Arc<AtomicUsize>) -> Result<Self, StartError> {
        let redis = Redis::new(config, String::new(), SCRIPTS)?;
        Ok(Self {
            redis,
            prefix: config.prefix.clone(),
            name: format!("{:032x}", rand::random::<u128>()),
            connected: Once::new(),
            nodes,
            doubted_until: Arc::default(),
        })
    }

    /// Connects, when that was not begun yet: a node without anything to count or to share asks for nothing.
    pub(super) fn connect(&self) {
        self.connected.call_once(|| self.redis.connect());
    }

    /// Whether that was begun.
    pub(super) fn is_in_use(&self) -> bool {
        self.connected.is_completed()
    }

    /// Whether Redis is worth asking.
    pub(super) fn is_there(&self, now: Moment) -> bool {
        self.doubted_until.load(Relaxed) <= now.as_millis() && self.redis.takes_commands()
    }

    /// What one node may let through by itself.
    pub(super) fn part_of(&self, quota: &Quota, window: Duration) -> Quota {
        let nodes = u32::try_from(self.nodes.load(Relaxed)).unwrap_or(u32::MAX);
        Quota::new(quota.limit() / nodes.max(1), window)
    }

    /// Counts a request of this limiter: which service's, and whose.
    pub(super) fn count(
        &self,
        limiter: (&str, &str),
        quota: &Quota,
        window: Duration,
        now: Moment,
    ) -> Pending {
        let (service, whose) = limiter;
        let key = Bytes::from(format!("{}:ratelimit:{{{service}|{whose}}}", self.prefix));
        let window = u64::try_from(window.as_micros()).unwrap_or(u64::MAX);
        let interval = window.div_ceil(u64::from(quota.limit())).max(1);
        let whole = interval.saturating_mul(u64::from(quota.limit()));
        let command = Command::script(&COUNT, &[&key])
            .number(interval)
            .number(whole);
        let answer = self.redis.call_one(command);
        let doubted_until = self.doubted_until.clone();
        Box::pin(async move {
            let answer = timeout(ANSWER_TIME_MAX, answer).await;
            let decision = match &answer {
                Ok(Ok(value)) => read(value, interval, whole),
                Ok(Err(CallError::Refused(why))) => {
                    tracing::warn!(why, "redis refuses to count requests");
                    None
                }
                _ => None,
            };
            if decision.is_none() {
                counts::limited_alone();
                doubted_until.store((now + DOUBT).as_millis(), Relaxed);
            }
            decision
        })
    }
}

fn read(value: &Value, interval: u64, whole: u64) -> Option<Decision> {
    let Value::Array(parts) = value else {
        return None;
    };
    let number = |index: usize| parts.get(index)?.as_u64();
    let (allowed, ahead, wait) = (number(0)?, number(1)?, number(2)?);
    let remaining = whole.saturating_sub(ahead) / interval;
    Some(Decision {
        is_allowed: allowed == 1,
        remaining: u32::try_from(remaining).unwrap_or(u32::MAX),
        reset_after: Duration::from_micros(ahead),
        retry_after: Duration::from_micros(wait),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_the_script_become_decisions() {
        let answer = |allowed, ahead, wait| {
            let parts = [allowed, ahead, wait].map(Value::Integer);
            read(&Value::Array(parts.into()), 500, 1000)
        };
        let allowed = answer(1, 500, 0).expect("a decision");
        assert_eq!((allowed.is_allowed, allowed.remaining), (true, 1));
        assert_eq!(allowed.reset_after, Duration::from_micros(500));
        let refused = answer(0, 900, 400).expect("a decision");
        assert_eq!((refused.is_allowed, refused.remaining), (false, 0));
        assert_eq!(refused.retry_after, Duration::from_micros(400));
        assert_eq!(read(&Value::Null, 500, 1000), None);
        assert_eq!(
            read(&Value::Array(vec![Value::Integer(1)]), 500, 1000),
            None
        );
    }
}
