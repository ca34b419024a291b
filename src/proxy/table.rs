//! What a request is matched to: one value, swapped whole.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use super::budget::Budget;
use super::endpoint::Endpoint;
use super::open_streams::OpenStreams;
use super::rate::Limits;
use super::{Policy, ServiceConfig, UpstreamConfig};
use crate::model::Moment;
use crate::telemetry::proxy::Carried;

/// Every route. `/api/{service}/*`, `/sse/{service}/*` and `/ws/{service}` are the only matchers so far.
#[derive(Debug, Default)]
pub(super) struct Table {
    services: HashMap<Box<str>, Arc<Route>>,
}

/// Where a request that was matched goes, and by which rules: upstreams, policy, who may ask.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) name: String,
    pub(super) members: Vec<Member>,
    pub(super) policy: Policy,
    pub(super) turn: AtomicUsize,
    pub(super) budget: Arc<Budget>,
    /// Its own limits of rate; none where it has none, or is said to be without.
    pub(super) limits: Option<Arc<Limits>>,
    /// Who has how many streams open.
    pub(super) open: Arc<OpenStreams>,
}

/// One upstream of a route.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) weight: u32,
}

/// What a reload did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changes {
    /// Upstreams that were not there before.
    pub added: usize,
    /// Upstreams that are no longer asked; what is under way to them ends in its own time.
    pub removed: usize,
    /// Upstreams that stay, with everything that is known of them.
    pub kept: usize,
}

/// What a path asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target<'a> {
    pub(super) carried: Carried,
    pub(super) service: &'a str,
    /// What stands behind the service's name; begins with a slash.
    pub(super) rest: &'a str,
}

/// Takes a path apart; `None` for one that is not the proxy's.
pub(super) fn target(path: &str) -> Option<Target<'_>> {
    if let Some(service) = path.strip_prefix("/ws/") {
        let is_name = !service.is_empty() && !service.contains('/');
        return is_name.then_some(Target {
            carried: Carried::Ws,
            service,
            rest: "/",
        });
    }
    let (carried, tail) = if let Some(tail) = path.strip_prefix("/api/") {
        (Carried::Http, tail)
    } else {
        (Carried::Sse, path.strip_prefix("/sse/")?)
    };
    let slash = tail.find('/')?;
    let (service, rest) = tail.split_at(slash);
    (!service.is_empty()).then_some(Target {
        carried,
        service,
        rest,
    })
}

impl Table {
    /// A table of these services. What cannot stand in a `Host` field is left out; `config` lets none of that through.
    pub(super) fn new(services: &[ServiceConfig]) -> Self {
        Self::default().changed(services, Moment::default()).0
    }

    /// The table that takes this one's place. An upstream that was there before keeps its connections, its latency and
    /// the state of its breaker; one that is new begins slowly, where its service says so.
    pub(super) fn changed(&self, services: &[ServiceConfig], now: Moment) -> (Self, Changes) {
        let mut changes = Changes::default();
        let is_first = self.services.is_empty();
        let mut table = Self::default();
        for service in services {
            let before = self.services.get(&*service.name);
            let mut member = |upstream: &UpstreamConfig| {
                let known = before.and_then(|before| before.endpoint(upstream, &service.policy));
                let endpoint = match known {
                    Some(known) => {
                        changes.kept += 1;
                        known.clone()
                    }
                    None => {
                        changes.added += 1;
                        Arc::new(Endpoint::new(
                            upstream.address.clone(),
                            service.policy.breaker,
                        )?)
                    }
                };
                if known.is_none() && !is_first {
                    endpoint.begin_slowly(now);
                }
                let weight = upstream.weight.max(1);
                Some(Member { endpoint, weight })
            };
            let route = Route {
                name: service.name.clone(),
                members: service.upstreams.iter().filter_map(&mut member).collect(),
                policy: service.policy.clone(),
                turn: AtomicUsize::new(0),
                budget: before.map_or_else(Arc::default, |before| before.budget.clone()),
                limits: limits(before.map(|before| &**before), &service.policy),
                open: before.map_or_else(Arc::default, |before| before.open.clone()),
            };
            let name = service.name.as_str().into();
            table.services.insert(name, Arc::new(route));
        }
        changes.removed = self.upstream_count().saturating_sub(changes.kept);
        (table, changes)
    }

    fn upstream_count(&self) -> usize {
        let members = self.services.values().map(|route| route.members.len());
        members.sum()
    }

    /// The service of this name.
    pub(super) fn service(&self, name: &str) -> Option<&Arc<Route>> {
        self.services.get(name)
    }

    /// All services, in no order.
    pub(super) fn services(&self) -> impl ExactSizeIterator<Item = &Arc<Route>> {
        self.services.values()
    }
}

/// The limits of a service: those that it had before, with all that they have counted, when they are the same.
fn limits(before: Option<&Route>, policy: &Policy) -> Option<Arc<Limits>> {
    let known = before.filter(|before| before.policy.rate == policy.rate);
    match known {
        Some(known) => known.limits.clone(),
        None => policy.rate.and_then(Limits::of),
    }
}

impl Route {
    /// The upstream that is known by this address, where what holds for its breaker is the same.
    fn endpoint(&self, upstream: &UpstreamConfig, policy: &Policy) -> Option<&Arc<Endpoint>> {
        let mut endpoints = self.members.iter().map(|member| &member.endpoint);
        endpoints.find(|known| {
            known.address == upstream.address && *known.breaker.policy() == policy.breaker
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::proxy::policy::tests::policy;
    use crate::proxy::{Address, Balance};

    /// A service `s` with upstreams on these ports.
    pub(in crate::proxy) fn config(ports: &[u16], balance: Balance) -> ServiceConfig {
        let upstream = |port: &u16| UpstreamConfig {
            address: Address::parse(&format!("http://127.0.0.1:{port}")).expect("a URL"),
            weight: 1,
        };
        ServiceConfig {
            name: "s".to_owned(),
            upstreams: ports.iter().map(upstream).collect(),
            policy: policy(balance),
        }
    }

    #[test]
    fn paths_are_taken_apart() {
        let check = |path, expected: Option<(Carried, &str, &str)>| {
            let found = target(path).map(|t| (t.carried, t.service, t.rest));
            assert_eq!(found, expected, "{path}");
        };
        check("/api/a/", Some((Carried::Http, "a", "/")));
        check("/api/a//b", Some((Carried::Http, "a", "//b")));
        check("/sse/a/b/c", Some((Carried::Sse, "a", "/b/c")));
        check("/ws/a", Some((Carried::Ws, "a", "/")));
        for path in [
            "/api/a", "/api/", "/api//x", "/api", "/apis/a/", "/", "/ws/a/b", "/ws/",
        ] {
            check(path, None);
        }
    }

    #[test]
    fn what_stays_in_a_reload_is_the_very_same() {
        let before = Table::new(&[config(&[1, 2], Balance::Random)]);
        let now = Moment::from_millis(5000);
        let (after, changes) = before.changed(&[config(&[2, 3], Balance::RoundRobin)], now);
        let expected = Changes {
            added: 1,
            removed: 1,
            kept: 1,
        };
        assert_eq!(changes, expected);
        let of = |table: &Table, index: usize| {
            let route = table.service("s").expect("the service");
            route.members[index].endpoint.clone()
        };
        assert!(Arc::ptr_eq(&of(&before, 1), &of(&after, 0)));
        assert_eq!(of(&after, 1).address.port, 3);
        let minute = std::time::Duration::from_secs(60);
        assert!(
            of(&after, 1).warmth(now, minute) < 0.5,
            "the new one begins slowly"
        );
        assert!(of(&after, 0).warmth(now, minute) > 0.9);
        let budget = |table: &Table| table.service("s").expect("the service").budget.clone();
        let (budget_before, budget_after) = (budget(&before), budget(&after));
        assert!(
            Arc::ptr_eq(&budget_before, &budget_after),
            "retries are counted on"
        );
        let (nothing, changes) = after.changed(&[], now);
        assert_eq!((nothing.services().len(), changes.removed), (0, 2));
    }

    #[test]
    fn another_breaker_makes_another_upstream() {
        let before = Table::new(&[config(&[1], Balance::Random)]);
        let mut other = config(&[1], Balance::Random);
        other.policy.breaker.failures = 9;
        let (_, changes) = before.changed(&[other], Moment::default());
        assert_eq!((changes.added, changes.removed), (1, 1));
    }
}
