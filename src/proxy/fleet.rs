//! What the nodes of a fleet do together: limits of rate (`tally`), and who of them reads a stream that many share
//! (`lease`).
//!
//! A limit is one number in Redis for each limiter, which a script moves by Redis's own clock.
//!
//! A request waits for the answer, but not for long. While Redis is away, or too slow, each node lets its own part of the
//! limit through: what the limit says, divided by the nodes that were alive last. Never more, and never an error.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use super::lease::{LEAD, RESIGN};
use super::tally::{COUNT, Limiter, Tally};
use crate::limits::{Decision, Quota};
use crate::model::Moment;
use crate::redis::{Config, Redis, Script, StartError};

/// For how long Redis is not asked after it was too slow: waiting would be all that requests do.
const DOUBT: Duration = Duration::from_secs(1);

static SCRIPTS: &[&Script] = &[&COUNT, &LEAD, &RESIGN];

/// What Redis decided; `None` when it did not.
pub(super) type Pending = Pin<Box<dyn Future<Output = Option<Decision>> + Send>>;

/// What the nodes of a fleet share.
#[derive(Debug)]
pub struct Fleet {
    pub(super) redis: Arc<Redis>,
    pub(super) prefix: String,
    /// This process.
    pub(super) name: String,
    connected: Once,
    tally: Arc<Tally>,
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
        let redis = Arc::new(Redis::new(config, String::new(), SCRIPTS)?);
        Ok(Self {
            redis,
            prefix: config.prefix.clone(),
            name: format!("{:032x}", rand::random::<u128>()),
            connected: Once::new(),
            tally: Arc::default(),
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
        (service, whose): (&str, &str),
        quota: &Quota,
        window: Duration,
        now: Moment,
    ) -> Pending {
        let key = format!("{}:ratelimit:{{{service}|{whose}}}", self.prefix);
        let (doubted_until, began) = (self.doubted_until.clone(), Instant::now());
        let undecided = move || {
            let until = now + began.elapsed() + DOUBT;
            doubted_until.store(until.as_millis(), Relaxed);
        };
        let limiter = Limiter::new(key, quota, window);
        let told = self.tally.count(&self.redis, limiter, undecided);
        Box::pin(async move { told.await.ok().flatten() })
    }
}
