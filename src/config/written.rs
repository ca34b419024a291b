//! A service as `CONFIG_FILE` says it: what `fanfare check` prints, and what read again gives the same. One thing the file
//! cannot say: that answers are kept for no time, as `CACHE_DEFAULT_TTL_MS=0` does.

use std::fmt::{self, Display, Write as _};
use std::time::Duration;

use crate::proxy::{
    Balance, BreakerPolicy, CachePolicy, HashKey, HealthPolicy, IdentityRule, Policy, RateKey,
    RatePolicy, RetryPolicy, ServiceConfig, Share, StreamsPolicy, UpstreamConfig,
};

/// The keys of a service with their values, a line each, as they stand in the configuration file. What is not there
/// is left out.
pub fn written(service: &ServiceConfig) -> String {
    // Every field by its name, so that none can be forgotten here.
    let Policy {
        balance,
        timeout,
        connect_timeout,
        total_timeout,
        breaker,
        retries,
        identity,
        connections_max,
        http2_connections_max,
        slow_start,
        cache,
        share,
        heartbeat,
        rate,
        streams,
        idle_timeout,
        message_bytes_max,
        health,
    } = &service.policy;
    let mut lines = Lines::default();
    lines.add("upstreams", list(service.upstreams.iter().map(upstream)));
    lines.add("balance", quoted(balance_word(balance)));
    if let Balance::Hash(key) = balance {
        lines.add("hash_on", hash_word(key));
    }
    lines.add("timeout", duration(*timeout));
    lines.add("connect_timeout", duration(*connect_timeout));
    lines.add_some("total_timeout", total_timeout.map(duration));
    let limit = (*connections_max < usize::MAX).then_some(connections_max);
    lines.add_some("connections_max", limit);
    lines.add("http2_connections_max", http2_connections_max);
    let slow_start = Some(*slow_start).filter(|time| !time.is_zero());
    lines.add_some("slow_start", slow_start.map(duration));
    lines.add("breaker", breaker_table(breaker));
    lines.add("retries", retries_table(retries));
    lines.add("identity", identity_table(identity));
    lines.add(
        "cache",
        cache.map_or_else(|| "false".to_owned(), cache_table),
    );
    let share = share.map(|share| match share {
        Share::All => "all",
        Share::User => "user",
    });
    lines.add_some("share", share.map(quoted));
    lines.add_some("heartbeat", heartbeat.map(duration));
    lines.add_some("rate_limit", rate.map(rate_table));
    lines.add_some("streams_max", streams.map(streams_table));
    lines.add_some("idle_timeout", idle_timeout.map(duration));
    lines.add_some("message_bytes_max", message_bytes_max.as_ref());
    lines.add_some("health", health.as_ref().map(health_table));
    lines.0
}

#[derive(Default)]
struct Lines(String);

impl Lines {
    fn add(&mut self, key: &str, value: impl Display) {
        // A text takes every write.
        let _ = writeln!(self.0, "{key} = {value}");
    }

    fn add_some(&mut self, key: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.add(key, value);
        }
    }
}

/// The word for a way to choose.
fn balance_word(balance: &Balance) -> &'static str {
    match balance {
        Balance::LeastLoad => "least-load",
        Balance::RoundRobin => "round-robin",
        Balance::Weighted => "weighted",
        Balance::Random => "random",
        Balance::Hash(_) => "hash",
        Balance::Sticky => "sticky",
    }
}

fn hash_word(key: &HashKey) -> String {
    match key {
        HashKey::Address => quoted("address"),
        HashKey::User => quoted("user"),
        HashKey::Path => quoted("path"),
        HashKey::Field(name) => quoted(&format!("header:{name}")),
    }
}

fn upstream(upstream: &UpstreamConfig) -> String {
    let url = quoted(&upstream.address.url);
    match upstream.weight {
        1 => url,
        weight => format!("{{ url = {url}, weight = {weight} }}"),
    }
}

fn breaker_table(breaker: &BreakerPolicy) -> String {
    let BreakerPolicy {
        failures,
        window,
        percent,
        success_percent,
        requests_min,
        open,
        open_max,
        probes,
    } = *breaker;
    let [window, open, open_max] = [window, open, open_max].map(duration);
    format!(
        "{{ failures = {failures}, window = {window}, percent = {percent}, success_percent = {success_percent}, \
         requests_min = {requests_min}, open = {open}, open_max = {open_max}, probes = {probes} }}"
    )
}

fn retries_table(retries: &RetryPolicy) -> String {
    let RetryPolicy {
        tries,
        statuses,
        non_idempotent,
        budget_percent,
        try_timeout,
    } = retries;
    let statuses = list(statuses.iter());
    let try_timeout = try_timeout.map_or_else(String::new, |time| {
        format!(", try_timeout = {}", duration(time))
    });
    format!(
        "{{ tries = {tries}, statuses = {statuses}, non_idempotent = {non_idempotent}, \
         budget_percent = {budget_percent}{try_timeout} }}"
    )
}

fn identity_table(identity: &IdentityRule) -> String {
    let IdentityRule { required, roles } = identity;
    let roles = list(roles.iter().map(|role| quoted(role)));
    format!("{{ required = {required}, roles = {roles} }}")
}

fn cache_table(cache: CachePolicy) -> String {
    let CachePolicy {
        default_ttl,
        body_bytes_max,
    } = cache;
    let ttl = duration(default_ttl);
    format!("{{ ttl = {ttl}, max_body_bytes = {body_bytes_max} }}")
}

fn rate_table(rate: RatePolicy) -> String {
    let RatePolicy { max, window, by } = rate;
    let (window, by) = (duration(window), key_word(by));
    format!("{{ max = {max}, window = {window}, by = {by} }}")
}

fn streams_table(streams: StreamsPolicy) -> String {
    let StreamsPolicy {
        sse_max,
        ws_max,
        by,
    } = streams;
    let of = |name: &str, most: u32| match most {
        u32::MAX => String::new(),
        most => format!("{name} = {most}, "),
    };
    let (sse, ws, by) = (of("sse", sse_max), of("ws", ws_max), key_word(by));
    format!("{{ {sse}{ws}by = {by} }}")
}

fn health_table(health: &HealthPolicy) -> String {
    let HealthPolicy {
        path,
        interval,
        timeout,
        healthy,
        unhealthy,
    } = health;
    let path = quoted(path);
    let [interval, timeout] = [*interval, *timeout].map(duration);
    format!(
        "{{ path = {path}, interval = {interval}, timeout = {timeout}, healthy = {healthy}, unhealthy = {unhealthy} }}"
    )
}

fn key_word(by: RateKey) -> String {
    quoted(match by {
        RateKey::Address => "address",
        RateKey::User => "user",
    })
}

/// In the largest unit of which it is a whole number; no larger than minutes, for hours are read less well.
fn duration(time: Duration) -> String {
    let millis = time.as_millis();
    quoted(&match (millis % 1000, millis % 60_000) {
        (_, 0) if millis > 0 => format!("{}m", millis / 60_000),
        (0, _) => format!("{}s", millis / 1000),
        _ => format!("{millis}ms"),
    })
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    /// Escapes what may not stand in one by itself.
    struct Escaped<'a>(&'a str);
    impl Display for Escaped<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.chars().try_for_each(|c| match c {
                '"' | '\\' => write!(f, "\\{c}"),
                c if c.is_control() => write!(f, "\\u{:04X}", u32::from(c)),
                c => f.write_char(c),
            })
        }
    }
    format!("\"{}\"", Escaped(text))
}

fn list(parts: impl Iterator<Item = impl Display>) -> String {
    let parts: Vec<String> = parts.map(|part| part.to_string()).collect();
    format!("[{}]", parts.join(", "))
}
