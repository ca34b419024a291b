//! Which upstream of a route is asked.
//!
//! First who may be: an upstream whose breaker waits for a probe gets one; those that are well, have room, and were not
//! asked for this request before. When none is well, all are taken to be: an answer is worth a try. Then one of them,
//! as the route's [`Balance`] says.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::breaker::Pass;
use super::endpoint::Endpoint;
use super::table::{Member, Route};
use super::{Balance, hash};
use crate::model::Moment;
use crate::telemetry::proxy as counts;

/// What one request's choice depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish<'a> {
    /// Now.
    pub(super) now: Moment,
    /// Upstreams that were asked already.
    pub(super) tried: &'a [usize],
    /// The hash of what the route is hashed by, or the number that a sticky client's cookie names.
    pub(super) key: u64,
}

impl Route {
    /// An upstream for one request; none when all have as much to do as they may.
    pub(super) fn choose(&self, wish: &Wish<'_>) -> Option<(Arc<Endpoint>, Pass)> {
        let all = &self.members;
        let most = self.policy.connections_max;
        let are_free =
            |member: &Member| member.endpoint.is_free(wish.now) && !member.endpoint.is_full(most);
        if wish.tried.is_empty() && all.iter().all(are_free) {
            let index = self.pick(all.len(), |index| &all[index], wish);
            return Some((all.get(index)?.endpoint.clone(), Pass::Free));
        }
        self.choose_among_the_well(wish)
    }

    /// Whether there is an upstream that nothing speaks against, and that was not asked yet.
    pub(super) fn has_another(&self, wish: &Wish<'_>) -> bool {
        let mut endpoints = self.members.iter().map(|member| &member.endpoint);
        endpoints.any(|endpoint| {
            !wish.tried.contains(&endpoint.id)
                && endpoint.is_free(wish.now)
                && !endpoint.is_full(self.policy.connections_max)
        })
    }

    fn choose_among_the_well(&self, wish: &Wish<'_>) -> Option<(Arc<Endpoint>, Pass)> {
        let most = self.policy.connections_max;
        let mut others: Vec<&Member> = self
            .members
            .iter()
            .filter(|member| !member.endpoint.is_full(most))
            .collect();
        let is_new = |member: &&Member| !wish.tried.contains(&member.endpoint.id);
        if others.iter().any(is_new) {
            others.retain(is_new);
        }
        let probed = others.iter().find(|member| {
            let endpoint = &member.endpoint;
            endpoint.is_healthy()
                && !endpoint.breaker.is_closed()
                && endpoint.breaker.admit(wish.now) == Some(Pass::Probe)
        });
        if let Some(member) = probed {
            return Some((member.endpoint.clone(), Pass::Probe));
        }
        let well: Vec<&Member> = others
            .iter()
            .copied()
            .filter(|member| member.endpoint.is_free(wish.now))
            .collect();
        if well.is_empty() && !others.is_empty() {
            counts::failed_open();
        } else {
            others = well;
        }
        let index = self.pick(others.len(), |index| others[index], wish);
        Some((others.get(index)?.endpoint.clone(), Pass::Free))
    }

    fn pick<'m>(
        &self,
        count: usize,
        member: impl Fn(usize) -> &'m Member,
        wish: &Wish<'_>,
    ) -> usize {
        let part = |index: usize| self.part(member(index), wish.now);
        match &self.policy.balance {
            _ if count < 2 => 0,
            Balance::RoundRobin => {
                let index = self.turn.fetch_add(1, Relaxed) % count;
                let warmth = member(index)
                    .endpoint
                    .warmth(wish.now, self.policy.slow_start);
                match warmth < 1.0 && rand::random::<f64>() > warmth {
                    true => (index + 1) % count,
                    false => index,
                }
            }
            Balance::Random if self.policy.slow_start.is_zero() => rand::random_range(0..count),
            Balance::Random | Balance::Weighted => by_part(count, part),
            Balance::Hash(_) => highest(count, &member, wish.key),
            Balance::Sticky => (0..count)
                .find(|index| member(*index).endpoint.token == wish.key)
                .unwrap_or_else(|| self.least_loaded(count, &member, wish.now)),
            Balance::LeastLoad => self.least_loaded(count, &member, wish.now),
        }
    }

    /// A member's part of the requests: its weight, or less in its slow start.
    fn part(&self, member: &Member, now: Moment) -> f64 {
        f64::from(member.weight) * member.endpoint.warmth(now, self.policy.slow_start)
    }

    /// The better one of two at random (power of two choices).
    fn least_loaded<'m>(
        &self,
        count: usize,
        member: &impl Fn(usize) -> &'m Member,
        now: Moment,
    ) -> usize {
        let cost = |index: usize| {
            let member = member(index);
            member.endpoint.cost(now) / self.part(member, now)
        };
        let one = rand::random_range(0..count);
        let other = (one + rand::random_range(1..count)) % count;
        if cost(one) <= cost(other) { one } else { other }
    }
}

/// One at random, each as often as its part says.
fn by_part(count: usize, part: impl Fn(usize) -> f64) -> usize {
    let sum: f64 = (0..count).map(&part).sum();
    let mut left = rand::random::<f64>() * sum;
    for index in 0..count {
        left -= part(index);
        if left < 0.0 {
            return index;
        }
    }
    count - 1
}

/// Rendezvous hashing by weight: a member that goes or comes moves only the keys that are its own.
fn highest<'m>(count: usize, member: &impl Fn(usize) -> &'m Member, key: u64) -> usize {
    /// 2^53: as many steps between 0 and 1 as an `f64` has.
    const STEPS: f64 = 9_007_199_254_740_992.0;
    #[expect(clippy::cast_precision_loss, reason = "53 bits are left")]
    let score = |index: usize| {
        let member = member(index);
        let hash = hash::join(key, member.endpoint.token) >> 11;
        let uniform = (hash as f64 + 0.5) / STEPS;
        -f64::from(member.weight) / uniform.ln()
    };
    let better = |best: usize, index: usize| match score(index) > score(best) {
        true => index,
        false => best,
    };
    (0..count).reduce(better).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::proxy::HashKey;
    use crate::proxy::attempt::Attempt;
    use crate::proxy::table::Table;
    use crate::proxy::table::tests::config;
    use crate::telemetry::proxy::Carried;

    const NOW: Moment = Moment::from_millis(100_000);

    fn route_of(config: crate::proxy::ServiceConfig) -> Arc<Route> {
        let table = Table::new(&[config]);
        table.service("s").expect("it was put there").clone()
    }

    fn route(count: u16, balance: Balance) -> Arc<Route> {
        let ports: Vec<u16> = (1..=count).collect();
        route_of(config(&ports, balance))
    }

    fn port(route: &Route, tried: &[usize], key: u64) -> u16 {
        let now = NOW;
        let chosen = route.choose(&Wish { now, tried, key });
        chosen.expect("an upstream").0.address.port
    }

    fn chosen(route: &Route, tried: &[usize]) -> u16 {
        port(route, tried, 0)
    }

    /// How often each port is chosen of a thousand times.
    fn counts(route: &Route) -> BTreeMap<u16, u32> {
        let mut counts = BTreeMap::new();
        for key in 0..1000_u64 {
            let key = hash::of(&key.to_be_bytes());
            *counts.entry(port(route, &[], key)).or_default() += 1;
        }
        counts
    }

    fn break_it(route: &Route, index: usize) {
        (0..5).for_each(|_| {
            let breaker = &route.members[index].endpoint.breaker;
            breaker.failed(Pass::Free, NOW, || 100);
        });
    }

    fn every_balance() -> [Balance; 6] {
        [
            Balance::LeastLoad,
            Balance::RoundRobin,
            Balance::Weighted,
            Balance::Random,
            Balance::Hash(HashKey::Address),
            Balance::Sticky,
        ]
    }

    #[test]
    fn round_robin_goes_round() {
        let route = route(3, Balance::RoundRobin);
        let ports: Vec<u16> = (0..6).map(|_| chosen(&route, &[])).collect();
        assert_eq!(ports, [1, 2, 3, 1, 2, 3]);
    }

    #[test]
    fn the_least_loaded_of_two_is_taken() {
        let route = route(2, Balance::LeastLoad);
        let busy = route.members[0].endpoint.clone();
        let _held: Vec<Attempt> = (0..3)
            .map(|_| Attempt::begin(busy.clone(), Pass::Free, Carried::Http, NOW))
            .collect();
        assert!((0..50).all(|_| chosen(&route, &[]) == 2));
    }

    #[test]
    fn weights_count() {
        for balance in [Balance::Weighted, Balance::Hash(HashKey::Address)] {
            let mut config = config(&[1, 2], balance.clone());
            config.upstreams[0].weight = 9;
            let counts = counts(&route_of(config));
            assert!((850..950).contains(&counts[&1]), "{balance:?} {counts:?}");
        }
    }

    #[test]
    fn a_hash_stays_where_it_is_when_another_upstream_goes() {
        let (three, two) = (
            route(3, Balance::Hash(HashKey::Address)),
            route(2, Balance::Hash(HashKey::Address)),
        );
        for key in (0..200_u64).map(|key| hash::of(&key.to_be_bytes())) {
            let before = port(&three, &[], key);
            assert_eq!(before, port(&three, &[], key));
            if before != 3 {
                assert_eq!(before, port(&two, &[], key));
            }
        }
        let spread = counts(&three);
        assert!(spread.values().all(|count| *count > 250), "{spread:?}");
    }

    #[test]
    fn a_sticky_client_stays_while_its_upstream_is_well() {
        let route = route(3, Balance::Sticky);
        let token = route.members[1].endpoint.token;
        assert!((0..50).all(|_| port(&route, &[], token) == 2));
        break_it(&route, 1);
        assert!((0..50).all(|_| port(&route, &[], token) != 2));
    }

    #[test]
    fn a_retry_goes_elsewhere_where_there_is_an_elsewhere() {
        for balance in every_balance() {
            let three = route(3, balance);
            let ids: Vec<usize> = three.members.iter().map(|one| one.endpoint.id).collect();
            assert!((0..50).all(|_| chosen(&three, &ids[..2]) == 3));
        }
        let one = route(1, Balance::Random);
        let id = one.members[0].endpoint.id;
        assert_eq!(chosen(&one, &[id]), 1);
        let now = NOW;
        assert!(!one.has_another(&Wish {
            now,
            tried: &[id],
            key: 0
        }));
    }

    #[test]
    fn a_broken_upstream_is_left_alone_and_all_broken_fail_open() {
        for balance in every_balance() {
            let route = route(2, balance.clone());
            break_it(&route, 0);
            assert_eq!(counts(&route).keys().collect::<Vec<_>>(), [&2]);
            break_it(&route, 1);
            // A sticky client without a cookie, and all keys of a hash, are anywhere.
            assert_eq!(counts(&route).len(), 2, "{balance:?}");
        }
    }

    #[test]
    fn one_that_is_ill_is_left_alone_and_gets_no_probe() {
        let route = route(2, Balance::Random);
        break_it(&route, 0);
        route.members[0].endpoint.found(false, NOW);
        let now = NOW + Duration::from_secs(3600);
        let wish = Wish {
            now,
            tried: &[],
            key: 0,
        };
        for _ in 0..50 {
            let (endpoint, pass) = route.choose(&wish).expect("an upstream");
            assert_eq!((endpoint.address.port, pass), (2, Pass::Free));
        }
    }

    #[test]
    fn one_with_enough_to_do_is_passed_over_and_all_full_is_nobody() {
        let mut config = config(&[1, 2], Balance::RoundRobin);
        config.policy.connections_max = 1;
        let route = route_of(config);
        let begin = |index: usize| {
            let endpoint = route.members[index].endpoint.clone();
            Attempt::begin(endpoint, Pass::Free, Carried::Http, NOW)
        };
        let first = begin(0);
        assert!((0..20).all(|_| chosen(&route, &[]) == 2));
        let _second = begin(1);
        let wish = Wish {
            now: NOW,
            tried: &[],
            key: 0,
        };
        assert!(route.choose(&wish).is_none());
        drop(first);
        assert_eq!(chosen(&route, &[]), 1);
    }

    #[test]
    fn a_slow_start_gets_little() {
        for balance in [
            Balance::LeastLoad,
            Balance::RoundRobin,
            Balance::Weighted,
            Balance::Random,
        ] {
            let mut config = config(&[1, 2], balance.clone());
            config.policy.slow_start = Duration::from_secs(100);
            let route = route_of(config);
            route.members[0].endpoint.begin_slowly(NOW);
            let counts = counts(&route);
            let cold = counts.get(&1).copied().unwrap_or_default();
            assert!(cold < 200, "{balance:?} {counts:?}");
        }
    }
}
