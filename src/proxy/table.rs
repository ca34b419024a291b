//! What a request is matched to: one value, swapped whole.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::breaker::Pass;
use super::counter::Recent;
use super::endpoint::Endpoint;
use super::{Address, Balance};
use crate::model::Moment;
use crate::telemetry::proxy::{self as counts, Carried};

/// Retries may be this part of a service's requests...
const RETRIES_PART: u64 = 5;
/// ...and so many in ten seconds beside.
const RETRIES_SPARE: u64 = 30;

/// Every route. `/api/{service}/*` and `/sse/{service}/*` are the only matchers so far.
#[derive(Debug, Default)]
pub(super) struct Table {
    services: HashMap<Box<str>, Arc<Service>>,
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
    pub(super) fn new(services: &[(String, Vec<Address>)], balance: Balance) -> Self {
        let services = services
            .iter()
            .map(|(name, addresses)| {
                let endpoints = addresses.iter().cloned().filter_map(Endpoint::new);
                let service = Service {
                    name: name.clone(),
                    balance,
                    endpoints: endpoints.map(Arc::new).collect(),
                    turn: AtomicUsize::new(0),
                    requests: Recent::default(),
                    retries: Recent::default(),
                };
                (name.as_str().into(), Arc::new(service))
            })
            .collect();
        Self { services }
    }

    /// The service of this name.
    pub(super) fn service(&self, name: &str) -> Option<&Arc<Service>> {
        self.services.get(name)
    }

    /// All services, in no order.
    pub(super) fn services(&self) -> impl ExactSizeIterator<Item = &Service> {
        self.services.values().map(|service| &**service)
    }
}

/// The upstreams that stand behind one name.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) name: String,
    pub(super) endpoints: Vec<Arc<Endpoint>>,
    balance: Balance,
    turn: AtomicUsize,
    requests: Recent,
    retries: Recent,
}

impl Service {
    /// A request came.
    pub(super) fn requested(&self, now: Moment) {
        self.requests.add(now);
    }

    /// Takes a retry out of the budget, or says that it is spent.
    pub(super) fn may_retry(&self, now: Moment) -> bool {
        let most = self.requests.count(now) / RETRIES_PART + RETRIES_SPARE;
        let may = self.retries.count(now) < most;
        if may {
            self.retries.add(now);
        }
        counts::retried(may);
        may
    }

    /// An upstream for one request; not the one of id `avoid` where there is another. An upstream whose breaker waits
    /// for a probe gets one; when every breaker is open, all are taken to be well: an answer is worth a try.
    pub(super) fn choose(&self, now: Moment, avoid: Option<usize>) -> (Arc<Endpoint>, Pass) {
        let all = &self.endpoints;
        if avoid.is_none() && all.iter().all(|endpoint| endpoint.breaker.is_closed()) {
            let index = self.pick(all.len(), |index| all[index].cost(now));
            return (all[index].clone(), Pass::Free);
        }
        self.choose_among_the_well(now, avoid)
    }

    fn choose_among_the_well(&self, now: Moment, avoid: Option<usize>) -> (Arc<Endpoint>, Pass) {
        let others = || {
            let all = self.endpoints.iter();
            all.filter(|endpoint| Some(endpoint.id) != avoid)
        };
        let probed = others().find(|endpoint| {
            !endpoint.breaker.is_closed() && endpoint.breaker.admit(now) == Some(Pass::Probe)
        });
        if let Some(endpoint) = probed {
            return (endpoint.clone(), Pass::Probe);
        }
        let mut candidates: Vec<_> = others()
            .filter(|endpoint| endpoint.breaker.is_closed())
            .collect();
        if candidates.is_empty() {
            counts::failed_open();
            candidates = others().collect();
        }
        if candidates.is_empty() {
            candidates = self.endpoints.iter().collect();
        }
        let index = self.pick(candidates.len(), |index| candidates[index].cost(now));
        (candidates[index].clone(), Pass::Free)
    }

    fn pick(&self, count: usize, cost: impl Fn(usize) -> f64) -> usize {
        match self.balance {
            _ if count < 2 => 0,
            Balance::RoundRobin => self.turn.fetch_add(1, Relaxed) % count,
            Balance::Random => rand::random_range(0..count),
            Balance::LeastLoad => {
                let one = rand::random_range(0..count);
                let other = (one + rand::random_range(1..count)) % count;
                if cost(one) <= cost(other) { one } else { other }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::endpoint::Attempt;

    const NOW: Moment = Moment::from_millis(1000);

    fn service(count: usize, balance: Balance) -> Service {
        let address = |n| Address::parse(&format!("http://127.0.0.1:{n}")).expect("a URL");
        let services = [("s".to_owned(), (1..=count).map(address).collect())];
        let mut table = Table::new(&services, balance);
        let service = table.services.remove("s").expect("it was put there");
        Arc::into_inner(service).expect("nobody else has it")
    }

    fn chosen(service: &Service, avoid: Option<usize>) -> u16 {
        service.choose(NOW, avoid).0.address.port
    }

    fn break_it(service: &Service, index: usize) {
        (0..5).for_each(|_| {
            service.endpoints[index].breaker.failed(Pass::Free, NOW);
        });
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
    fn round_robin_goes_round() {
        let service = service(3, Balance::RoundRobin);
        let ports: Vec<u16> = (0..6).map(|_| chosen(&service, None)).collect();
        assert_eq!(ports, [1, 2, 3, 1, 2, 3]);
    }

    #[test]
    fn the_least_loaded_of_two_is_taken() {
        let service = service(2, Balance::LeastLoad);
        let busy = service.endpoints[0].clone();
        let _held: Vec<Attempt> = (0..3)
            .map(|_| Attempt::begin(busy.clone(), Pass::Free, Carried::Http, NOW))
            .collect();
        assert!((0..50).all(|_| chosen(&service, None) == 2));
    }

    #[test]
    fn a_retry_goes_elsewhere_where_there_is_an_elsewhere() {
        let two = service(2, Balance::Random);
        let first = two.endpoints[0].id;
        assert!((0..50).all(|_| chosen(&two, Some(first)) == 2));
        let one = service(1, Balance::Random);
        assert_eq!(chosen(&one, Some(one.endpoints[0].id)), 1);
    }

    #[test]
    fn a_broken_upstream_is_left_alone_and_all_broken_fail_open() {
        for balance in [Balance::LeastLoad, Balance::RoundRobin, Balance::Random] {
            let service = service(2, balance);
            break_it(&service, 0);
            assert!((0..50).all(|_| chosen(&service, None) == 2));
            break_it(&service, 1);
            let ports: std::collections::BTreeSet<u16> =
                (0..200).map(|_| chosen(&service, None)).collect();
            assert_eq!(ports.len(), 2, "{balance:?}");
        }
    }

    #[test]
    fn retries_are_a_fifth_of_the_requests_and_a_few() {
        let service = service(1, Balance::LeastLoad);
        (0..100).for_each(|_| service.requested(NOW));
        let retries = (0..100).filter(|_| service.may_retry(NOW)).count();
        assert_eq!(retries, 20 + 30);
    }
}
