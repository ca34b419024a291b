//! The services: their upstreams from `UPSTREAMS` or from `[services.<name>]` of `CONFIG_FILE`, and what the latter says
//! of each. What it does not say is as the variables have it.

use std::collections::BTreeMap;
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::place::{Key, Place, Value};
use super::policies::defaults;
use super::reader::Reader;
use super::upstreams::{self, NAME_RULE, is_service_name};
use crate::proxy::{
    Address, Balance, CachePolicy, HashKey, Policy, RESERVED_NAMES, ServiceConfig, Share,
    UpstreamConfig,
};

/// The keys of a service.
const KEYS: &str = "upstreams, balance, hash_on, timeout, connect_timeout, total_timeout, connections_max, http2_connections_max, \
                    slow_start, breaker, retries, rate_limit, streams_max, idle_timeout, message_bytes_max, cache, share, heartbeat, health, identity";
const URL_RULE: &str = "must be an http, https or h2c URL (http://host[:port][/base]), or a table as { url = \"http://host\", weight = 2 }";
const WEIGHT_MAX: u64 = 1000;

/// The services as far as they are known.
pub(super) struct Services {
    defaults: Policy,
    named: BTreeMap<String, ServiceConfig>,
    /// How answers are kept where that is on.
    cache: CachePolicy,
}

impl Default for Services {
    fn default() -> Self {
        Self {
            defaults: defaults(),
            named: BTreeMap::new(),
            cache: CachePolicy {
                default_ttl: Duration::from_secs(5),
                body_bytes_max: 262_144,
            },
        }
    }
}

impl Services {
    /// Those of `UPSTREAMS`; what is wrong with it goes to the reader.
    pub(super) fn new(reader: &mut Reader) -> Self {
        let mut policy = defaults();
        policy.balance = reader
            .text("LOAD_BALANCING")
            .and_then(balance)
            .unwrap_or_default();
        policy.timeout = Duration::from_millis(reader.integer("HTTP_PROXY_TIMEOUT_MS"));
        let percent = reader.integer("RETRY_BUDGET_PERCENT");
        policy.retries.budget_percent = u32::try_from(percent).unwrap_or(100);
        policy.identity.required = reader.boolean("AUTH_REQUIRED");
        let cache = CachePolicy {
            default_ttl: Duration::from_millis(reader.integer("CACHE_DEFAULT_TTL_MS")),
            body_bytes_max: reader.size("CACHE_MAX_BODY_BYTES"),
        };
        policy.cache = reader.boolean("CACHE_ENABLED").then_some(cache);
        let mut services = Self {
            cache,
            named: BTreeMap::new(),
            defaults: policy,
        };
        for (name, addresses) in upstreams::services(reader) {
            let service = ServiceConfig {
                name: name.clone(),
                upstreams: addresses.into_iter().map(UpstreamConfig::new).collect(),
                policy: services.defaults.clone(),
            };
            services.named.insert(name, service);
        }
        services
    }

    /// All of them, by name.
    pub(super) fn into_vec(self) -> Vec<ServiceConfig> {
        self.named.into_values().collect()
    }

    /// Whether there is any.
    pub(super) fn is_empty(&self) -> bool {
        self.named.is_empty()
    }
}

/// The words for ways to choose.
pub(super) fn balance(word: &str) -> Option<Balance> {
    Some(match word {
        "least-load" => Balance::LeastLoad,
        "round-robin" => Balance::RoundRobin,
        "weighted" => Balance::Weighted,
        "random" => Balance::Random,
        "hash" => Balance::Hash(HashKey::default()),
        "sticky" => Balance::Sticky,
        _ => return None,
    })
}

fn share(word: &str) -> Option<Share> {
    match word {
        "all" => Some(Share::All),
        "user" => Some(Share::User),
        _ => None,
    }
}

fn hash_key(text: &str) -> Option<HashKey> {
    Some(match text {
        "address" => HashKey::Address,
        "user" => HashKey::User,
        "path" => HashKey::Path,
        text => {
            let name = text.strip_prefix("header:")?;
            http::HeaderName::from_bytes(name.as_bytes()).ok()?;
            HashKey::Field(name.to_ascii_lowercase())
        }
    })
}

/// A service as it is being read.
struct Draft {
    /// As faults call it.
    path: String,
    service: ServiceConfig,
    hash_key: Option<HashKey>,
    /// How its answers are kept, should they be.
    cache: CachePolicy,
}

impl Place<'_> {
    /// What `[services]` says, into `services`.
    pub(super) fn services(&mut self, tables: &DeTable<'_>, services: &mut Services) {
        for (key, value) in tables {
            let name = key.get_ref().as_ref();
            let path = format!("services.{name}");
            if !is_service_name(name) {
                self.fault(key.span().start, &path, None, NAME_RULE.to_owned());
            }
            if RESERVED_NAMES.contains(&name) {
                let rule = "must have another name: this one is taken".to_owned();
                self.fault(key.span().start, &path, None, rule);
            }
            let DeValue::Table(table) = value.get_ref() else {
                self.wrong(value, &path, "must be a table");
                continue;
            };
            let service = self.service(path, name, (value, table), services);
            services.named.insert(name.to_owned(), service);
        }
    }

    fn service(
        &mut self,
        path: String,
        name: &str,
        (value, table): (&Value<'_>, &DeTable<'_>),
        services: &mut Services,
    ) -> ServiceConfig {
        let known = services.named.remove(name);
        let mut draft = Draft {
            service: ServiceConfig {
                name: name.to_owned(),
                upstreams: Vec::new(),
                policy: services.defaults.clone(),
            },
            path,
            hash_key: None,
            cache: services.cache,
        };
        for (key, value) in table {
            let path = format!("{}.{}", draft.path, key.get_ref());
            self.service_key(&path, key, value, &mut draft);
        }
        match (known, table.contains_key("upstreams")) {
            (Some(_), true) => {
                let rule = "must have its upstreams in one place: UPSTREAMS names some too";
                self.wrong(value, &draft.path, rule);
            }
            (Some(known), false) => draft.service.upstreams = known.upstreams,
            (None, true) => {}
            (None, false) => {
                let rule = "must have upstreams, here or in UPSTREAMS";
                self.wrong(value, &draft.path, rule);
            }
        }
        self.check_service(value, &mut draft);
        draft.service
    }

    fn service_key(&mut self, path: &str, key: &Key<'_>, value: &Value<'_>, draft: &mut Draft) {
        let policy = &mut draft.service.policy;
        match key.get_ref().as_ref() {
            "upstreams" => draft.service.upstreams = self.upstreams(path, value),
            "balance" => {
                let rule = "must be one of least-load, round-robin, weighted, random, hash, sticky";
                if let Some(balance) = self.text(path, value, rule, balance) {
                    policy.balance = balance;
                }
            }
            "hash_on" => {
                let rule = "must be address, user, path or header:<name>";
                draft.hash_key = self.text(path, value, rule, hash_key);
            }
            "timeout" => self.duration(path, value, &mut policy.timeout),
            "connect_timeout" => self.duration(path, value, &mut policy.connect_timeout),
            "total_timeout" => policy.total_timeout = self.optional_duration(path, value),
            "connections_max" => {
                if let Some(most) = self.integer(path, value, 1, 1_000_000_000) {
                    policy.connections_max = usize::try_from(most).unwrap_or(usize::MAX);
                }
            }
            "http2_connections_max" => {
                if let Some(most) = self.integer(path, value, 1, 10_000) {
                    policy.http2_connections_max = usize::try_from(most).unwrap_or(usize::MAX);
                }
            }
            "slow_start" => self.duration(path, value, &mut policy.slow_start),
            "breaker" => self.breaker(path, value, &mut policy.breaker),
            "retries" => self.retries(path, value, &mut policy.retries),
            "rate_limit" => policy.rate = self.rate(path, value),
            "streams_max" => policy.streams = self.streams(path, value),
            "idle_timeout" => policy.idle_timeout = self.optional_duration(path, value),
            "message_bytes_max" => {
                policy.message_bytes_max = self.integer(path, value, 125, 1 << 40);
            }
            "cache" => policy.cache = self.cache(path, value, draft.cache),
            "share" => {
                let rule = "must be \"all\" or \"user\"";
                policy.share = self.text(path, value, rule, share);
            }
            "heartbeat" => policy.heartbeat = self.optional_duration(path, value),
            "health" => self.health(path, value, policy),
            "identity" => self.identity(path, value, &mut policy.identity),
            _ => self.unknown(key, path, KEYS),
        }
    }

    /// What must hold between a service's keys. Not that there is a secret: without one in the configuration tokens are
    /// verified with the one that the store keeps, so whoever has an account here can be let in.
    fn check_service(&mut self, value: &Value<'_>, draft: &mut Draft) {
        let policy = &mut draft.service.policy;
        match (&mut policy.balance, draft.hash_key.take()) {
            (Balance::Hash(key), Some(said)) => *key = said,
            (_, Some(_)) => {
                let rule = "must have balance = \"hash\" when it has hash_on";
                self.wrong(value, &draft.path, rule);
            }
            _ => {}
        }
        let is_even = matches!(
            policy.balance,
            Balance::RoundRobin | Balance::Random | Balance::Sticky
        );
        let has_weights = draft.service.upstreams.iter().any(|one| one.weight > 1);
        let is_fixed = matches!(policy.balance, Balance::Hash(_) | Balance::Sticky);
        let retries = &policy.retries;
        let rules = [
            (
                is_even && has_weights,
                "must have balance least-load, weighted or hash when it has weights",
            ),
            (
                is_fixed && !policy.slow_start.is_zero(),
                "must have no slow_start when its balance is hash or sticky: those ask whom they must",
            ),
            (
                policy.breaker.open_max < policy.breaker.open,
                "must have a breaker.open_max that is at least breaker.open",
            ),
            (
                retries
                    .try_timeout
                    .is_some_and(|most| most > policy.timeout),
                "must have a retries.try_timeout that is at most timeout",
            ),
        ];
        for (is_broken, rule) in rules {
            if is_broken {
                self.wrong(value, &draft.path, rule);
            }
        }
    }

    fn upstreams(&mut self, path: &str, value: &Value<'_>) -> Vec<UpstreamConfig> {
        let list = self.list(path, value, "must be a list of at least one upstream");
        let mut upstreams: Vec<UpstreamConfig> = Vec::with_capacity(list.len());
        for one in list {
            let Some(upstream) = self.upstream(path, one) else {
                continue;
            };
            if upstreams
                .iter()
                .any(|known| known.address.is_same(&upstream.address))
            {
                self.wrong(
                    one,
                    path,
                    "must not have an upstream twice; give it a weight",
                );
            }
            upstreams.push(upstream);
        }
        if matches!(value.get_ref(), DeValue::Array(list) if list.is_empty()) {
            self.wrong(value, path, "must be a list of at least one upstream");
        }
        upstreams
    }

    fn upstream(&mut self, path: &str, value: &Value<'_>) -> Option<UpstreamConfig> {
        let DeValue::Table(table) = value.get_ref() else {
            let address = self.text(path, value, URL_RULE, Address::parse)?;
            return Some(UpstreamConfig::new(address));
        };
        let (mut address, mut weight) = (None, 1);
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "url" => address = self.text(path, value, URL_RULE, Address::parse),
                "weight" => weight = self.integer(path, value, 1, WEIGHT_MAX)?,
                _ => self.unknown(key, &format!("{path}.{}", key.get_ref()), "url, weight"),
            }
        }
        if !table.contains_key("url") {
            self.wrong(value, path, URL_RULE);
        }
        let weight = u32::try_from(weight).unwrap_or(1);
        address.map(|address| UpstreamConfig { address, weight })
    }
}

#[cfg(test)]
#[path = "services_tests.rs"]
mod tests;
