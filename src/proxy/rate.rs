//! How often somebody may ask: limiters by address or user, in the memory of this node. What the nodes of a fleet count
//! together is in `fleet`.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::hash::RandomState;
use std::io::Write as _;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::{RateKey, RatePolicy};
use crate::limits::{Decision, Gcra, Quota};
use crate::model::{Moment, UserId, counted_as};

/// Parts of the map, each behind its own lock, which is held for a look-up.
const SHARDS: usize = 16;
/// The most limiters of a shard: 65,536 in all, about 4 MB. When it is full of those that still count, all newcomers
/// share one: the limit never falls open.
const LIMITERS_MAX: usize = 4096;

/// Whose requests a limiter counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Whose {
    /// An address; of IPv6 a /64: whoever has one address usually has all of it.
    Network(IpAddr),
    /// A user.
    User(UserId),
}

impl Whose {
    /// Those of an address.
    pub(super) fn address(ip: IpAddr) -> Self {
        Self::Network(counted_as(ip))
    }

    /// As a part of a key.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Network(ip) => format!("ip:{ip}"),
            Self::User(user) => format!("user:{user}"),
        }
    }
}

/// The limiters of a service, or of all services that have none of their own.
#[derive(Debug)]
pub(super) struct Limits {
    rate: RatePolicy,
    quota: Quota,
    /// Against the whole limit.
    whole: Shards,
    /// Against this node's part, while the fleet cannot be asked: what was used up of it says nothing about the whole.
    part: OnceLock<Shards>,
    policy: String,
}

#[derive(Debug, Default)]
struct Shards {
    hasher: RandomState,
    shards: [Mutex<Shard>; SHARDS],
}

#[derive(Debug, Default)]
struct Shard {
    limiters: HashMap<Whose, Gcra>,
    newcomers: Gcra,
    /// Not before this is it worth looking for those that can be forgotten.
    full_until: Moment,
}

impl Limits {
    /// Limits of this rate.
    pub(super) fn new(rate: RatePolicy) -> Self {
        let policy = format!("\"default\";q={};w={}", rate.max, seconds(rate.window));
        Self {
            rate,
            quota: Quota::new(rate.max, rate.window),
            whole: Shards::default(),
            part: OnceLock::new(),
            policy,
        }
    }

    /// The same behind a pointer; none where nothing is limited.
    pub(super) fn of(rate: RatePolicy) -> Option<Arc<Self>> {
        (rate.max > 0).then(|| Arc::new(Self::new(rate)))
    }

    /// The rate.
    pub(super) const fn rate(&self) -> &RatePolicy {
        &self.rate
    }

    /// The same as a quota.
    pub(super) const fn quota(&self) -> &Quota {
        &self.quota
    }

    /// Whether users are counted, where they are known.
    pub(super) fn is_by_user(&self) -> bool {
        self.rate.by == RateKey::User
    }

    /// Counts a request.
    pub(super) fn check(&self, whose: &Whose, now: Moment) -> Decision {
        self.whole.check(whose, &self.quota, now)
    }

    /// Counts a request against a part of the limit.
    pub(super) fn check_part(&self, whose: &Whose, quota: &Quota, now: Moment) -> Decision {
        self.part
            .get_or_init(Shards::default)
            .check(whose, quota, now)
    }

    /// Writes what the client is told: the fields of the Fastify gateway (`x-ratelimit-reset` in seconds), and those of
    /// draft-ietf-httpapi-ratelimit-headers-10.
    pub(super) fn tell(&self, out: &mut Vec<u8>, decision: &Decision) {
        let (limit, policy) = (self.quota.limit(), &self.policy);
        let (remaining, reset) = (decision.remaining, seconds(decision.reset_after));
        // A vector takes every write.
        let _ = write!(
            out,
            "x-ratelimit-limit: {limit}\r\nx-ratelimit-remaining: {remaining}\r\nx-ratelimit-reset: {reset}\r\n\
             ratelimit-policy: {policy}\r\nratelimit: \"default\";r={remaining};t={reset}\r\n"
        );
        if !decision.is_allowed {
            let wait = seconds(decision.retry_after).max(1);
            let _ = write!(out, "retry-after: {wait}\r\n");
        }
    }

    /// Whether a field of this name, in lower case, is told here and nowhere else.
    pub(super) fn is_told(lower: &[u8]) -> bool {
        matches!(
            lower,
            b"x-ratelimit-limit"
                | b"x-ratelimit-remaining"
                | b"x-ratelimit-reset"
                | b"ratelimit-policy"
                | b"ratelimit"
        )
    }
}

impl Shards {
    fn check(&self, whose: &Whose, quota: &Quota, now: Moment) -> Decision {
        let index = self.hasher.hash_one(whose) % SHARDS as u64;
        let shard = &self.shards[usize::try_from(index).unwrap_or(0)];
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        shard.limiter(whose, now).check(now, 1, quota)
    }
}

impl Shard {
    fn limiter(&mut self, whose: &Whose, now: Moment) -> &mut Gcra {
        if self.limiters.len() >= LIMITERS_MAX && !self.limiters.contains_key(whose) {
            if now >= self.full_until {
                self.limiters.retain(|_, limiter| !limiter.is_idle(now));
                self.full_until = now + Duration::from_secs(1);
            }
            if self.limiters.len() >= LIMITERS_MAX {
                return &mut self.newcomers;
            }
        }
        self.limiters.entry(whose.clone()).or_default()
    }
}

fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment::from_millis(1000);

    fn limits(max: u32) -> Limits {
        Limits::new(RatePolicy {
            max,
            window: Duration::from_secs(60),
            by: RateKey::Address,
        })
    }

    fn check(limits: &Limits, ip: IpAddr, now: Moment) -> Decision {
        limits.check(&Whose::address(ip), now)
    }

    fn allowed(limits: &Limits, ip: &str, now: Moment) -> bool {
        check(limits, ip.parse().expect("an address"), now).is_allowed
    }

    #[test]
    fn each_address_has_its_own_limit() {
        let limits = limits(2);
        assert!(allowed(&limits, "1.1.1.1", NOW) && allowed(&limits, "1.1.1.1", NOW));
        assert!(!allowed(&limits, "1.1.1.1", NOW));
        assert!(!allowed(&limits, "::ffff:1.1.1.1", NOW));
        assert!(allowed(&limits, "1.1.1.2", NOW));
        assert!(allowed(&limits, "1.1.1.1", NOW + Duration::from_secs(30)));
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let limits = limits(1);
        assert!(allowed(&limits, "2001:db8::1", NOW));
        assert!(!allowed(&limits, "2001:db8::2", NOW));
        assert!(allowed(&limits, "2001:db8:0:1::1", NOW));
    }

    #[test]
    fn too_many_addresses_share_a_limit_and_are_forgotten_when_idle() {
        let limits = limits(1);
        let addresses = 2 * SHARDS * LIMITERS_MAX;
        let ip = |n: usize| IpAddr::from(u32::try_from(n).expect("small").to_be_bytes());
        let passed = (0..addresses).filter(|n| check(&limits, ip(*n), NOW).is_allowed);
        let passed = passed.count();
        assert!(passed <= SHARDS * (LIMITERS_MAX + 1), "{passed}");
        let later = NOW + Duration::from_secs(61);
        assert!(allowed(&limits, "200.0.0.1", later));
        assert!(!allowed(&limits, "200.0.0.1", later));
    }

    #[test]
    fn clients_are_told() {
        let limits = limits(2);
        let ip = "1.1.1.1".parse().expect("an address");
        let told = || {
            let mut lines = Vec::new();
            limits.tell(&mut lines, &check(&limits, ip, NOW));
            String::from_utf8(lines).expect("text")
        };
        let first = "x-ratelimit-limit: 2\r\nx-ratelimit-remaining: 1\r\nx-ratelimit-reset: 30\r\n\
                     ratelimit-policy: \"default\";q=2;w=60\r\nratelimit: \"default\";r=1;t=30\r\n";
        assert_eq!(told(), first);
        told();
        assert!(told().ends_with("\r\nretry-after: 30\r\n"));
    }

    #[test]
    fn a_user_is_no_address_and_a_part_of_the_limit_is_less() {
        let limits = limits(4);
        let user = Whose::User(UserId::from("1.1.1.1"));
        let part = Quota::new(2, Duration::from_secs(60));
        let passed = (0..9).filter(|_| limits.check_part(&user, &part, NOW).is_allowed);
        assert_eq!(passed.count(), 2);
        assert!(
            limits.check(&user, NOW).is_allowed,
            "the whole is another matter"
        );
        assert!(allowed(&limits, "1.1.1.1", NOW));
        assert_eq!(user.text(), "user:1.1.1.1");
        let ip = "2001:db8::1".parse().expect("an address");
        assert_eq!(Whose::address(ip).text(), "ip:2001:db8::");
    }
}
