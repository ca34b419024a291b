//! How often one address may ask, in memory and for this node alone.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::hash::RandomState;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderName, HeaderValue};

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
    limit: HeaderValue,
    policy: HeaderValue,
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
            limit: HeaderValue::from(max),
            policy: HeaderValue::try_from(policy).expect("digits"),
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

    /// Tells the client: the fields of seed 001 (`x-ratelimit-reset` in seconds), and those of
    /// draft-ietf-httpapi-ratelimit-headers-10.
    pub(super) fn tell(&self, headers: &mut HeaderMap, decision: &Decision) {
        let reset = seconds(decision.reset_after);
        let remaining = decision.remaining;
        let mut say = |name, value| headers.insert(HeaderName::from_static(name), value);
        say("x-ratelimit-limit", self.limit.clone());
        say("x-ratelimit-remaining", HeaderValue::from(remaining));
        say("x-ratelimit-reset", HeaderValue::from(reset));
        say("ratelimit-policy", self.policy.clone());
        let field = format!("\"default\";r={remaining};t={reset}");
        say("ratelimit", HeaderValue::try_from(field).expect("digits"));
        if !decision.is_allowed {
            let wait = HeaderValue::from(seconds(decision.retry_after).max(1));
            headers.insert(RETRY_AFTER, wait);
        }
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
            let mut headers = HeaderMap::new();
            limits.tell(&mut headers, &limits.check(ip, NOW));
            headers
        };
        let first = told();
        for (name, value) in [
            ("x-ratelimit-limit", "2"),
            ("x-ratelimit-remaining", "1"),
            ("x-ratelimit-reset", "30"),
            ("ratelimit-policy", "\"default\";q=2;w=60"),
            ("ratelimit", "\"default\";r=1;t=30"),
        ] {
            assert_eq!(first[name], value, "{name}");
        }
        assert!(!first.contains_key(RETRY_AFTER));
        told();
        assert_eq!(told()[RETRY_AFTER], "30");
    }
}
