//! How often one address may ask, in memory and for this node alone.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::hash::RandomState;
use std::io::Write as _;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::limits::{Decision, Gcra, Quota};
use crate::model::Moment;

/// Parts of the map, each behind its own lock, which is held for a look-up.
const SHARDS: usize = 16;
/// The most addresses of a shard: 65,536 in all, about 4 MB. When it is full of addresses that still count, all newcomers
/// share one limiter: the limit never falls open.
const ADDRESSES_MAX: usize = 4096;

/// The limiters of all addresses.
#[derive(Debug)]
pub(super) struct AddressLimits {
    quota: Quota,
    hasher: RandomState,
    shards: [Mutex<Shard>; SHARDS],
    policy: String,
}

#[derive(Debug, Default)]
struct Shard {
    limiters: HashMap<IpAddr, Gcra>,
    newcomers: Gcra,
    /// Not before this is it worth looking for addresses that can be forgotten.
    full_until: Moment,
}

impl AddressLimits {
    /// `max` requests in each `window`.
    pub(super) fn new(max: u32, window: Duration) -> Self {
        let policy = format!("\"default\";q={max};w={}", seconds(window));
        Self {
            quota: Quota::new(max, window),
            hasher: RandomState::new(),
            shards: Default::default(),
            policy,
        }
    }

    /// Counts a request of this address.
    pub(super) fn check(&self, ip: IpAddr, now: Moment) -> Decision {
        let key = network(ip);
        let index = self.hasher.hash_one(key) % SHARDS as u64;
        let shard = &self.shards[usize::try_from(index).unwrap_or(0)];
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        shard.limiter(key, now).check(now, 1, &self.quota)
    }

    /// Writes what the client is told: the fields of seed 001 (`x-ratelimit-reset` in seconds), and those of
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

impl Shard {
    fn limiter(&mut self, key: IpAddr, now: Moment) -> &mut Gcra {
        if self.limiters.len() >= ADDRESSES_MAX && !self.limiters.contains_key(&key) {
            if now >= self.full_until {
                self.limiters.retain(|_, limiter| !limiter.is_idle(now));
                self.full_until = now + Duration::from_secs(1);
            }
            if self.limiters.len() >= ADDRESSES_MAX {
                return &mut self.newcomers;
            }
        }
        self.limiters.entry(key).or_default()
    }
}

/// Whoever has one IPv6 address usually has all of its /64.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
        ip => ip,
    }
}

fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment::from_millis(1000);

    fn allowed(limits: &AddressLimits, ip: &str, now: Moment) -> bool {
        limits
            .check(ip.parse().expect("an address"), now)
            .is_allowed
    }

    #[test]
    fn each_address_has_its_own_limit() {
        let limits = AddressLimits::new(2, Duration::from_secs(60));
        assert!(allowed(&limits, "1.1.1.1", NOW) && allowed(&limits, "1.1.1.1", NOW));
        assert!(!allowed(&limits, "1.1.1.1", NOW));
        assert!(!allowed(&limits, "::ffff:1.1.1.1", NOW));
        assert!(allowed(&limits, "1.1.1.2", NOW));
        assert!(allowed(&limits, "1.1.1.1", NOW + Duration::from_secs(30)));
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let limits = AddressLimits::new(1, Duration::from_secs(60));
        assert!(allowed(&limits, "2001:db8::1", NOW));
        assert!(!allowed(&limits, "2001:db8::2", NOW));
        assert!(allowed(&limits, "2001:db8:0:1::1", NOW));
    }

    #[test]
    fn too_many_addresses_share_a_limit_and_are_forgotten_when_idle() {
        let limits = AddressLimits::new(1, Duration::from_secs(60));
        let addresses = 2 * SHARDS * ADDRESSES_MAX;
        let ip = |n: usize| IpAddr::from(u32::try_from(n).expect("small").to_be_bytes());
        let passed = (0..addresses).filter(|n| limits.check(ip(*n), NOW).is_allowed);
        let passed = passed.count();
        assert!(passed <= SHARDS * (ADDRESSES_MAX + 1), "{passed}");
        let later = NOW + Duration::from_secs(61);
        assert!(allowed(&limits, "200.0.0.1", later));
        assert!(!allowed(&limits, "200.0.0.1", later));
    }

    #[test]
    fn clients_are_told() {
        let limits = AddressLimits::new(2, Duration::from_secs(60));
        let ip = "1.1.1.1".parse().expect("an address");
        let told = || {
            let mut lines = Vec::new();
            limits.tell(&mut lines, &limits.check(ip, NOW));
            String::from_utf8(lines).expect("text")
        };
        let first = "x-ratelimit-limit: 2\r\nx-ratelimit-remaining: 1\r\nx-ratelimit-reset: 30\r\n\
                     ratelimit-policy: \"default\";q=2;w=60\r\nratelimit: \"default\";r=1;t=30\r\n";
        assert_eq!(told(), first);
        told();
        assert!(told().ends_with("\r\nretry-after: 30\r\n"));
    }
}
