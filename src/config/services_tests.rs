//! What the file can say of services, and what it cannot.

use super::*;
use crate::config::file;
use crate::model::Namespace;
use crate::proxy::{
    BreakerPolicy, CachePolicy, HealthPolicy, IdentityRule, RateKey, RatePolicy, RetryPolicy,
    StreamsPolicy,
};

fn read_with(text: &str, mut services: Services) -> (Vec<ServiceConfig>, Vec<String>) {
    let base = Namespace::default_for(false);
    let (_, faults) = file::parse("fanfare.toml", text, &base, &mut services);
    let faults = faults.iter().map(ToString::to_string).collect();
    (services.into_vec(), faults)
}

/// Services of the file alone.
fn read(text: &str) -> (Vec<ServiceConfig>, Vec<String>) {
    read_with(text, Services::default())
}

fn policy(text: &str) -> Policy {
    let (services, faults) = read(&format!("[services.a]\nupstreams = [\"http://x\"]\n{text}"));
    assert_eq!(faults, [""; 0], "{text}");
    services[0].policy.clone()
}

const EVERY_KEY: &str = r#"
[services.a]
upstreams = ["http://x:1/b/", { url = "http://y", weight = 3 }]
balance = "hash"
hash_on = "header:X-Tenant"
timeout = "10s"
connect_timeout = "500ms"
total_timeout = "1m"
connections_max = 100
http2_connections_max = 8
breaker = { failures = 3, window = "5s", percent = 50, success_percent = 90, requests_min = 9, open = "2m", probes = 2 }
retries = { tries = 2, statuses = [500], non_idempotent = true, budget_percent = 5, try_timeout = "1s" }
health = { path = "/up?x", interval = "1s", timeout = "2s", healthy = 1, unhealthy = 2 }
share = "user"
heartbeat = "15s"
rate_limit = { max = 7, window = "1s", by = "user" }
streams_max = { ws = 2, by = "user" }
idle_timeout = "10m"
message_bytes_max = 1048576
identity = { roles = ["admin"] }
"#;

/// What `check` prints can be taken for the file: it says the same.
#[test]
fn what_is_written_is_read_as_the_same() {
    let mut texts = vec![
        EVERY_KEY.to_owned(),
        "[services.a]\nupstreams = [\"http://x\"]".to_owned(),
    ];
    for keys in [
        "balance = \"least-load\"",
        "balance = \"round-robin\"",
        "balance = \"weighted\"",
        "balance = \"random\"",
        "balance = \"sticky\"",
        "balance = \"hash\"",
        "balance = \"hash\"\nhash_on = \"user\"",
        "balance = \"hash\"\nhash_on = \"path\"",
        "slow_start = \"1m\"",
        "share = \"all\"",
        "cache = true",
        "cache = { ttl = \"1500ms\", max_body_bytes = 7 }",
        "streams_max = { sse = 3 }",
        "rate_limit = { max = 0 }",
        "identity = { required = true, roles = [\"a \\\"b\\\" \\\\ \\u0007\", \"é\"] }",
    ] {
        texts.push(format!("[services.a]\nupstreams = [\"http://x\"]\n{keys}"));
    }
    for text in texts {
        let (services, faults) = read(&text);
        assert_eq!(faults, [""; 0], "{text}");
        let again = format!("[services.a]\n{}", crate::config::written(&services[0]));
        let (same, faults) = read(&again);
        assert_eq!(faults, [""; 0], "{again}");
        assert_eq!(same, services, "{again}");
    }
}

#[test]
fn reads_every_key() {
    let (services, faults) = read(EVERY_KEY);
    assert_eq!(faults, [""; 0]);
    let service = services.first().expect("the service");
    let upstreams: Vec<_> = service
        .upstreams
        .iter()
        .map(|one| (&*one.address.url, one.weight))
        .collect();
    assert_eq!(upstreams, [("http://x:1/b", 1), ("http://y", 3)]);
    let expected = Policy {
        balance: Balance::Hash(HashKey::Field("x-tenant".to_owned())),
        timeout: Duration::from_secs(10),
        connect_timeout: Duration::from_millis(500),
        total_timeout: Some(Duration::from_secs(60)),
        breaker: BreakerPolicy {
            failures: 3,
            window: Duration::from_secs(5),
            percent: 50,
            open: Duration::from_secs(120),
            success_percent: 90,
            requests_min: 9,
            open_max: Duration::from_secs(120),
            probes: 2,
        },
        retries: RetryPolicy {
            tries: 2,
            statuses: vec![500],
            non_idempotent: true,
            budget_percent: 5,
            try_timeout: Some(Duration::from_secs(1)),
        },
        identity: IdentityRule {
            required: true,
            roles: vec!["admin".to_owned()],
        },
        connections_max: 100,
        http2_connections_max: 8,
        slow_start: Duration::ZERO,
        cache: None,
        share: Some(Share::User),
        heartbeat: Some(Duration::from_secs(15)),
        rate: Some(RatePolicy {
            max: 7,
            window: Duration::from_secs(1),
            by: RateKey::User,
        }),
        streams: Some(StreamsPolicy {
            sse_max: u32::MAX,
            ws_max: 2,
            by: RateKey::User,
        }),
        idle_timeout: Some(Duration::from_secs(600)),
        message_bytes_max: Some(1 << 20),
        health: Some(HealthPolicy {
            path: "/up?x".to_owned(),
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(2),
            healthy: 1,
            unhealthy: 2,
        }),
    };
    assert_eq!(service.policy, expected);
}

#[test]
fn what_is_not_said_is_as_ever() {
    assert_eq!(policy(""), defaults());
    assert_eq!(
        policy("slow_start = \"9s\"").slow_start,
        Duration::from_secs(9)
    );
    for (word, expected) in [
        ("least-load", Balance::LeastLoad),
        ("round-robin", Balance::RoundRobin),
        ("weighted", Balance::Weighted),
        ("random", Balance::Random),
        ("hash", Balance::Hash(HashKey::Address)),
        ("sticky", Balance::Sticky),
    ] {
        assert_eq!(policy(&format!("balance = \"{word}\"")).balance, expected);
    }
}

/// The file's text behind `[services.a]` and its upstreams, and how the fault begins after the file's name.
#[rustfmt::skip]
const FAULTS: &[(&str, &str)] = &[
    ("retires = {}", "3: services.a.retires is not known here; known are: upstreams, balance"),
    ("balance = \"fair\"", "3: services.a.balance=\"fair\" must be one of least-load"),
    ("hash_on = \"user\"", "1: services.a must have balance = \"hash\""),
    ("balance = \"hash\"\nhash_on = \"moon\"", "4: services.a.hash_on=\"moon\" must be address"),
    ("balance = \"hash\"\nhash_on = \"header:a b\"", "4: services.a.hash_on=\"header:a b\" must be address"),
    ("timeout = \"0s\"", "3: services.a.timeout=\"0s\" must be a duration"),
    ("connections_max = 0", "3: services.a.connections_max=\"0\" must be a whole number from 1"),
    ("http2_connections_max = 0", "3: services.a.http2_connections_max=\"0\" must be a whole number from 1"),
    ("breaker = 5", "3: services.a.breaker=\"5\" must be a table"),
    ("breaker = { percent = 101 }", "3: services.a.breaker.percent=\"101\" must be a whole number from 0 to 100"),
    ("breaker = { requests_min = 0 }", "3: services.a.breaker.requests_min=\"0\" must be a whole number from 1"),
    ("streams_max = { by = \"user\" }", "3: services.a.streams_max must have sse, ws or both"),
    ("streams_max = { ws = 0 }", "3: services.a.streams_max.ws=\"0\" must be a whole number from 1"),
    ("message_bytes_max = 124", "3: services.a.message_bytes_max=\"124\" must be a whole number from 125"),
    ("streams_max = 3", "3: services.a.streams_max=\"3\" must be a table as"),
    ("breaker = { failure = 1 }", "3: services.a.breaker.failure is not known here"),
    ("breaker = { open = \"9s\", open_max = \"1s\" }", "1: services.a must have a breaker.open_max"),
    ("retries = { tries = 0 }", "3: services.a.retries.tries=\"0\" must be a whole number from 1"),
    ("retries = { statuses = [200] }", "3: services.a.retries.statuses=\"200\" must be a whole number from 400"),
    ("retries = { statuses = 502 }", "3: services.a.retries.statuses=\"502\" must be statuses"),
    ("retries = { try_timeout = \"1h\" }", "1: services.a must have a retries.try_timeout"),
    ("health = { path = \"up\" }", "3: services.a.health.path=\"up\" must be a path"),
    ("health = { every = \"1s\" }", "3: services.a.health.every is not known here"),
    ("rate_limit = { window = \"1s\" }", "3: services.a.rate_limit must have a max"),
    ("cache = 5", "3: services.a.cache=\"5\" must be true, false or a table"),
    ("cache = { max = 5 }", "3: services.a.cache.max is not known here"),
    ("share = true", "3: services.a.share=\"true\" must be \"all\" or"),
    ("rate_limit = 5", "3: services.a.rate_limit=\"5\" must be a table"),
    ("rate_limit = { max = 5, by = \"moon\" }", "3: services.a.rate_limit.by=\"moon\" must be one of address, user"),
    ("identity = { required = false, roles = [\"a\"] }", "3: services.a.identity must be required"),
    ("identity = { roles = [3] }", "3: services.a.identity.roles=\"3\" must be a list of roles"),
    ("balance = \"sticky\"\nslow_start = \"1s\"", "1: services.a must have no slow_start"),
];

#[test]
fn tells_service_and_line_of_what_is_wrong() {
    for (text, expected) in FAULTS {
        let text = format!("[services.a]\nupstreams = [\"http://x\"]\n{text}");
        let (_, faults) = read(&text);
        let expected = format!("fanfare.toml line {expected}");
        assert!(
            faults.len() == 1 && faults[0].starts_with(&expected),
            "{text}\n{faults:#?}"
        );
    }
}

#[test]
fn tells_what_is_wrong_with_names_and_upstreams() {
    #[rustfmt::skip]
    let faults = [
        ("[services.connect]\nupstreams = [\"http://x\"]", "1: services.connect must have another name"),
        ("[services.\"a/b\"]\nupstreams = [\"http://x\"]", "1: services.a/b must be named with"),
        ("[services]\na = 3", "2: services.a=\"3\" must be a table"),
        ("services = 3", "1: services=\"3\" must be a table"),
        ("[services.a]", "1: services.a must have upstreams"),
        ("[services.a]\nupstreams = []", "2: services.a.upstreams=\"[]\" must be a list of at least one"),
        ("[services.a]\nupstreams = \"http://x\"", "2: services.a.upstreams=\"http://x\" must be a list"),
        ("[services.a]\nupstreams = [\"ftp://x\"]", "2: services.a.upstreams=\"ftp://x\" must be an http, https or h2c URL"),
        ("[services.a]\nupstreams = [\"http://x\", \"http://x/\"]", "2: services.a.upstreams=\"http://x/\" must not"),
        ("[services.a]\nupstreams = [{ weight = 2 }]", "2: services.a.upstreams must be an http, https or h2c URL"),
        ("[services.a]\nupstreams = [{ url = \"http://x\", wait = 2 }]", "2: services.a.upstreams.wait is not known"),
        (
            "[services.a]\nbalance = \"random\"\nupstreams = [{ url = \"http://x\", weight = 2 }]",
            "1: services.a must have balance least-load, weighted or hash",
        ),
    ];
    for (text, expected) in faults {
        let (_, faults) = read(text);
        let expected = format!("fanfare.toml line {expected}");
        assert!(
            faults.len() == 1 && faults[0].starts_with(&expected),
            "{text}\n{faults:#?}"
        );
    }
}

#[test]
fn nothing_stands_in_the_file_twice() {
    for (text, expected) in [
        (
            "[services.a]\nupstreams = [\"http://x\", { url = \"http://X:80/\" }]",
            "fanfare.toml line 2: services.a.upstreams must not have an upstream twice",
        ),
        (
            "[services.a]\nupstreams = [\"http://x\"]\n[services.a]\ntimeout = \"1s\"",
            "fanfare.toml line 3=\"a\" duplicate key",
        ),
        (
            "[services.a]\nupstreams = [\"http://x\"]\nupstreams = [\"http://y\"]",
            "fanfare.toml line 3=\"upstreams\" duplicate key",
        ),
    ] {
        let (_, faults) = read(text);
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(faults[0].starts_with(expected), "{faults:?}");
    }
}

#[test]
fn upstreams_stand_in_one_place() {
    let known = || {
        let address = Address::parse("http://v").expect("a URL");
        let service = ServiceConfig {
            name: "a".to_owned(),
            upstreams: vec![UpstreamConfig::new(address)],
            policy: defaults(),
        };
        Services {
            named: BTreeMap::from([("a".to_owned(), service)]),
            ..Services::default()
        }
    };
    let (services, faults) = read_with("[services.a]\ntimeout = \"1s\"", known());
    assert_eq!(faults, [""; 0]);
    assert_eq!(services[0].upstreams[0].address.url, "http://v");
    assert_eq!(services[0].policy.timeout, Duration::from_secs(1));
    let (_, faults) = read_with("[services.a]\nupstreams = [\"http://x\"]", known());
    assert!(faults[0].contains("UPSTREAMS names some too"), "{faults:?}");
}

#[test]
fn answers_are_kept_as_the_service_says() {
    let ours = CachePolicy {
        default_ttl: Duration::from_secs(5),
        body_bytes_max: 262_144,
    };
    for (text, expected) in [
        ("", None),
        ("cache = true", Some(ours)),
        ("cache = false", None),
        ("cache = { enabled = false, ttl = \"1s\" }", None),
        (
            "cache = { ttl = \"1s\", max_body_bytes = 7 }",
            Some(CachePolicy {
                default_ttl: Duration::from_secs(1),
                body_bytes_max: 7,
            }),
        ),
    ] {
        assert_eq!(policy(text).cache, expected, "{text}");
    }
}
