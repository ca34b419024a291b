//! The tables within a service of `CONFIG_FILE`: breaker, retries, health, identity; and what holds without them.

use std::time::Duration;

use toml::de::DeValue;

use super::place::{Place, Value};
use crate::proxy::{
    Balance, BreakerPolicy, CachePolicy, HealthPolicy, IdentityRule, Policy, RateKey, RatePolicy,
    RetryPolicy, StreamsPolicy,
};

const STATUS_RULE: &str = "must be statuses from 400 to 599, as [502, 503, 504]";

/// What every service has that the file says nothing of.
pub(super) fn defaults() -> Policy {
    Policy {
        balance: Balance::LeastLoad,
        timeout: Duration::from_secs(30),
        connect_timeout: Duration::from_secs(3),
        total_timeout: None,
        // As the systems that Fanfare stands in for have it.
        breaker: BreakerPolicy {
            failures: 5,
            window: Duration::from_secs(10),
            percent: 0,
            success_percent: 0,
            requests_min: 50,
            open: Duration::from_secs(15),
            open_max: Duration::from_secs(60),
            probes: 1,
        },
        retries: RetryPolicy {
            tries: 3,
            statuses: vec![502, 503, 504],
            non_idempotent: false,
            budget_percent: 20,
            try_timeout: None,
        },
        identity: IdentityRule::default(),
        connections_max: usize::MAX,
        http2_connections_max: 64,
        slow_start: Duration::ZERO,
        cache: None,
        share: None,
        heartbeat: None,
        rate: None,
        streams: None,
        idle_timeout: None,
        message_bytes_max: None,
        health: None,
    }
}

const RATE_KEYS: [(&str, RateKey); 2] = [("address", RateKey::Address), ("user", RateKey::User)];

impl Place<'_> {
    /// When an upstream is left alone.
    pub(super) fn breaker(&mut self, path: &str, value: &Value<'_>, to: &mut BreakerPolicy) {
        let rule = "must be a table as { failures = 5, window = \"10s\", open = \"15s\" }";
        let mut says_most = false;
        for (key, value) in self.table(path, value, rule) {
            let path = format!("{path}.{}", key.get_ref());
            match key.get_ref().as_ref() {
                "failures" => self.small(&path, value, 1, 10_000, &mut to.failures),
                "window" => self.duration(&path, value, &mut to.window),
                "percent" => self.small(&path, value, 0, 100, &mut to.percent),
                "success_percent" => self.small(&path, value, 0, 100, &mut to.success_percent),
                "requests_min" => self.small(&path, value, 1, 1_000_000, &mut to.requests_min),
                "open" => self.duration(&path, value, &mut to.open),
                "open_max" => {
                    says_most = true;
                    self.duration(&path, value, &mut to.open_max);
                }
                "probes" => self.small(&path, value, 1, 1000, &mut to.probes),
                _ => self.unknown(
                    key,
                    &path,
                    "failures, window, percent, success_percent, requests_min, open, open_max, probes",
                ),
            }
        }
        if !says_most {
            to.open_max = to.open_max.max(to.open);
        }
    }

    /// When another one is asked.
    pub(super) fn retries(&mut self, path: &str, value: &Value<'_>, to: &mut RetryPolicy) {
        let rule = "must be a table as { tries = 3, statuses = [502, 503, 504] }";
        for (key, value) in self.table(path, value, rule) {
            let path = format!("{path}.{}", key.get_ref());
            match key.get_ref().as_ref() {
                "tries" => self.small(&path, value, 1, 100, &mut to.tries),
                "statuses" => to.statuses = self.statuses(&path, value),
                "non_idempotent" => self.boolean(&path, value, &mut to.non_idempotent),
                "budget_percent" => self.small(&path, value, 0, 100, &mut to.budget_percent),
                "try_timeout" => to.try_timeout = self.optional_duration(&path, value),
                _ => self.unknown(
                    key,
                    &path,
                    "tries, statuses, non_idempotent, budget_percent, try_timeout",
                ),
            }
        }
    }

    fn statuses(&mut self, path: &str, value: &Value<'_>) -> Vec<u16> {
        let list = self.list(path, value, STATUS_RULE);
        list.iter()
            .filter_map(|one| self.integer(path, one, 400, 599))
            .filter_map(|status| u16::try_from(status).ok())
            .collect()
    }

    /// How it is looked at.
    pub(super) fn health(&mut self, path: &str, value: &Value<'_>, policy: &mut Policy) {
        let mut health = HealthPolicy {
            path: "/health".to_owned(),
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(5),
            healthy: 2,
            unhealthy: 3,
        };
        let rule =
            "must be a table as { path = \"/health\", interval = \"10s\", timeout = \"5s\" }";
        for (key, value) in self.table(path, value, rule) {
            let path = format!("{path}.{}", key.get_ref());
            match key.get_ref().as_ref() {
                "path" => {
                    let rule = "must be a path that begins with a slash, without blanks";
                    let is_path = |text: &str| {
                        let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic());
                        (text.starts_with('/') && is_plain).then(|| text.to_owned())
                    };
                    if let Some(text) = self.text(&path, value, rule, is_path) {
                        health.path = text;
                    }
                }
                "interval" => self.duration(&path, value, &mut health.interval),
                "timeout" => self.duration(&path, value, &mut health.timeout),
                "healthy" => self.small(&path, value, 1, 1000, &mut health.healthy),
                "unhealthy" => self.small(&path, value, 1, 1000, &mut health.unhealthy),
                _ => self.unknown(key, &path, "path, interval, timeout, healthy, unhealthy"),
            }
        }
        policy.health = Some(health);
    }

    /// How often somebody may ask.
    pub(super) fn rate(&mut self, path: &str, value: &Value<'_>) -> Option<RatePolicy> {
        let mut rate = RatePolicy {
            max: 0,
            window: Duration::from_secs(60),
            by: RateKey::Address,
        };
        let rule = "must be a table as { max = 100, window = \"1m\", by = \"address\" }";
        let mut has_max = false;
        for (key, value) in self.table(path, value, rule) {
            let path = format!("{path}.{}", key.get_ref());
            match key.get_ref().as_ref() {
                "max" => {
                    has_max = true;
                    self.small(&path, value, 0, 1_000_000_000, &mut rate.max);
                }
                "window" => self.duration(&path, value, &mut rate.window),
                "by" => self.choice(&path, value, &RATE_KEYS, &mut rate.by),
                _ => self.unknown(key, &path, "max, window, by"),
            }
        }
        if !has_max && matches!(value.get_ref(), DeValue::Table(_)) {
            self.wrong(value, path, "must have a max; 0 is no limit");
        }
        Some(rate)
    }

    /// How many streams somebody may have open.
    pub(super) fn streams(&mut self, path: &str, value: &Value<'_>) -> Option<StreamsPolicy> {
        let mut streams = StreamsPolicy {
            sse_max: u32::MAX,
            ws_max: u32::MAX,
            by: RateKey::Address,
        };
        let rule = "must be a table as { sse = 10, ws = 10, by = \"address\" }";
        for (key, value) in self.table(path, value, rule) {
            let path = format!("{path}.{}", key.get_ref());
            match key.get_ref().as_ref() {
                "sse" => self.small(&path, value, 1, 1_000_000, &mut streams.sse_max),
                "ws" => self.small(&path, value, 1, 1_000_000, &mut streams.ws_max),
                "by" => self.choice(&path, value, &RATE_KEYS, &mut streams.by),
                _ => self.unknown(key, &path, "sse, ws, by"),
            }
        }
        if let DeValue::Table(table) = value.get_ref()
            && !table.contains_key("sse")
            && !table.contains_key("ws")
        {
            self.wrong(value, path, "must have sse, ws or both");
        }
        Some(streams)
    }

    /// How answers are kept: `base` where it does not say otherwise.
    pub(super) fn cache(
        &mut self,
        path: &str,
        value: &Value<'_>,
        mut base: CachePolicy,
    ) -> Option<CachePolicy> {
        let mut is_on = true;
        if matches!(value.get_ref(), DeValue::Boolean(_)) {
            self.boolean(path, value, &mut is_on);
            return is_on.then_some(base);
        }
        let rule = "must be true, false or a table as { ttl = \"5s\", max_body_bytes = 262144 }";
        for (key, value) in self.table(path, value, rule) {
            let path = format!("{path}.{}", key.get_ref());
            match key.get_ref().as_ref() {
                "enabled" => self.boolean(&path, value, &mut is_on),
                "ttl" => self.duration(&path, value, &mut base.default_ttl),
                "max_body_bytes" => {
                    if let Some(bytes) = self.integer(&path, value, 1, 1 << 40) {
                        base.body_bytes_max = usize::try_from(bytes).unwrap_or(usize::MAX);
                    }
                }
                _ => self.unknown(key, &path, "enabled, ttl, max_body_bytes"),
            }
        }
        is_on.then_some(base)
    }

    /// Who may ask.
    pub(super) fn identity(&mut self, path: &str, value: &Value<'_>, to: &mut IdentityRule) {
        let rule = "must be a table as { required = true, roles = [\"admin\"] }";
        let mut is_said = None;
        for (key, value) in self.table(path, value, rule) {
            let path = format!("{path}.{}", key.get_ref());
            match key.get_ref().as_ref() {
                "required" => {
                    self.boolean(&path, value, &mut to.required);
                    is_said = Some(to.required);
                }
                "roles" => {
                    let rule = "must be a list of roles";
                    let list = self.list(&path, value, rule);
                    let role = |text: &str| (!text.is_empty()).then(|| text.to_owned());
                    to.roles = list
                        .iter()
                        .filter_map(|one| self.text(&path, one, rule, role))
                        .collect();
                }
                _ => self.unknown(key, &path, "required, roles"),
            }
        }
        if !to.roles.is_empty() {
            if is_said == Some(false) {
                self.wrong(value, path, "must be required when it names roles");
            }
            to.required = true;
        }
    }

    /// A duration of something that there is not otherwise.
    pub(super) fn optional_duration(&mut self, path: &str, value: &Value<'_>) -> Option<Duration> {
        let mut duration = Duration::ZERO;
        self.duration(path, value, &mut duration);
        (!duration.is_zero()).then_some(duration)
    }

    /// A whole number into a small one.
    fn small(&mut self, path: &str, value: &Value<'_>, least: u64, most: u64, to: &mut u32) {
        if let Some(number) = self.integer(path, value, least, most) {
            *to = u32::try_from(number).unwrap_or(u32::MAX);
        }
    }
}
