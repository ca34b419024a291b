//! Values become the rooms' own configurations.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::Stage;
use super::machine::Machine;
use super::reader::Reader;
use super::{rules, upstreams, value};
use crate::model::{HistoryPolicy, NodeId};
use crate::relay::WORKERS_MAX;
use crate::session::SessionLimits;
use crate::telemetry::LogFormat;
use crate::{
    admin, api, auth, broker, client, events, proxy, redis, server, session, telemetry, transport,
};

/// Files of the process that are no connections: listeners, logs, polls, standard streams.
const FILES_RESERVED: u64 = 128;
/// Fewer connections than this are a limit of files that nobody meant for a server.
const CONNECTIONS_FEW: u64 = 256;
/// What a computed default of messages and publications is at most.
pub(super) const MESSAGE_BYTES: u64 = 65_536;

/// Fills in the defaults that follow from the machine or from other variables.
pub(super) fn compute_defaults(reader: &mut Reader, machine: &Machine, stage: Stage) {
    let production = stage == Stage::Production;
    reader.default_boolean("AUTH_REQUIRED", production);
    reader.default_boolean("ENABLE_DOCS", !production);
    reader.default_boolean("ENABLE_REDOC", reader.boolean("ENABLE_DOCS"));
    reader.default_integer("WORKERS", machine.cores.clamp(1, WORKERS_MAX) as u64);
    let node = format!("{}-{}", machine.host_name, machine.process_id);
    reader.default_text(
        "NODE_ID",
        &value::node_id(&node).unwrap_or_else(|| "node".to_owned()),
    );
    let pretty = machine.is_terminal && !production;
    reader.default_text("LOG_FORMAT", if pretty { "pretty" } else { "json" });

    let buffered = reader.integer("WS_MAX_BUFFERED_BYTES");
    let for_all_workers = buffered.saturating_mul(reader.integer("WORKERS"));
    reader.default_integer(
        "WS_TOTAL_BUFFERED_BYTES",
        (machine.memory_bytes / 4).max(for_all_workers),
    );
    reader.default_integer("WS_MAX_MESSAGE_BYTES", buffered.min(MESSAGE_BYTES));
    reader.default_integer("HISTORY_MAX_BYTES", machine.memory_bytes / 8);

    let in_test = stage == Stage::Test;
    reader.default_text("DATA_FILE", if in_test { ":memory:" } else { "fanfare.db" });
    let alias = reader.integer("REDIS_SESSION_TIMEOUT_SECONDS").div_ceil(60);
    reader.default_integer(
        "SESSION_TIMEOUT_MINUTES",
        if alias > 0 { alias } else { 30 },
    );
    let threads = (machine.cores / 2).clamp(1, 256) as u64;
    reader.default_integer("PASSWORD_THREADS", threads);

    let ping_millis = reader.integer("WEBSOCKETS_PING_INTERVAL") * 1000;
    reader.default_integer("WS_PING_INTERVAL_MS", ping_millis);
    let twice = reader.integer("WS_PING_INTERVAL_MS").div_ceil(500);
    reader.default_integer("WEBSOCKETS_INACTIVITY_TIMEOUT", twice.clamp(60, 86_400));
}

/// The same for the most connections, once it is known whether there are upstreams.
pub(super) fn default_connections(reader: &mut Reader, machine: &Machine, has_upstreams: bool) {
    let files = machine.open_files.saturating_sub(FILES_RESERVED);
    // A request to an upstream takes two.
    let connections = (files / (1 + u64::from(has_upstreams))).max(1);
    if connections < CONNECTIONS_FEW && !reader.is_set("MAX_CONNECTIONS") {
        reader.warn(format!(
            "the limit of open files is {}, so MAX_CONNECTIONS is {connections}; raise `ulimit -n` (LimitNOFILE in \
             systemd, --ulimit nofile in Docker)",
            machine.open_files
        ));
    }
    reader.default_integer("MAX_CONNECTIONS", connections);
    let handshakes = reader.integer("MAX_CONNECTIONS").min(4096);
    reader.default_integer("MAX_HANDSHAKES", handshakes);
}

pub(super) fn server(reader: &Reader) -> server::Config {
    let host = reader.text("HOST").and_then(|host| host.parse().ok());
    server::Config {
        tls: None,
        host: host.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        port: u16::try_from(reader.integer("PORT")).unwrap_or(8080),
        workers: reader.size("WORKERS"),
        connections_max: reader.size("MAX_CONNECTIONS"),
        address_connections_max: reader.size("MAX_CONNECTIONS_PER_ADDRESS"),
        trusted: trusted(reader),
        handshakes_max: reader.size("MAX_HANDSHAKES"),
        header_timeout: millis(reader, "HEADER_TIMEOUT_MS"),
        body_timeout: millis(reader, "BODY_TIMEOUT_MS"),
        body_bytes_max: reader.size("MAX_BODY_BYTES"),
        http2_streams_max: u32::try_from(reader.integer("HTTP2_MAX_STREAMS")).unwrap_or(u32::MAX),
        browsers: browsers(reader),
        drain_delay: millis(reader, "DRAIN_DELAY_MS"),
        drain_window: seconds(reader, "DRAIN_SECONDS"),
    }
}

fn browsers(reader: &Reader) -> server::Browsers {
    let list = |name| {
        let entries: Vec<&str> = value::list(reader.text(name).unwrap_or_default()).collect();
        entries.join(", ")
    };
    server::Browsers {
        origins: match (reader.text("ALLOW_ORIGINS"), origins(reader)) {
            (None, _) => server::Origins::Own,
            (Some(_), None) => server::Origins::Any,
            (Some(_), Some(origins)) => server::Origins::These(origins),
        },
        credentials: reader.boolean("ALLOW_CREDENTIALS"),
        methods: list("ALLOW_METHODS"),
        headers: list("ALLOW_HEADERS"),
        exposed: list("EXPOSE_HEADERS"),
        hardens: reader.boolean("SECURITY_HEADERS"),
    }
}

pub(super) fn transport(reader: &Reader) -> transport::Config {
    transport::Config {
        node: node(reader),
        auth_required: reader.boolean("AUTH_REQUIRED"),
        origins: connecting(reader),
        credentials: reader.boolean("ALLOW_CREDENTIALS"),
        pending_bytes_max: reader.size("WS_MAX_BUFFERED_BYTES"),
        pending_messages_max: reader.size("WS_MAX_BUFFERED_MESSAGES"),
        socket_buffer_bytes: reader.size("WS_SOCKET_BUFFER_BYTES"),
        total_pending_bytes_max: reader.size("WS_TOTAL_BUFFERED_BYTES"),
        message_bytes_max: reader.size("WS_MAX_MESSAGE_BYTES"),
        intake_capacity: reader.size("INTAKE_CAPACITY"),
        inbox_messages_max: reader.size("INBOX_MAX_MESSAGES"),
        inbox_bytes_max: reader.size("INBOX_MAX_BYTES"),
        echo: reader.boolean("WS_ECHO"),
        sse_comment_interval: millis(reader, "SSE_COMMENT_INTERVAL_MS"),
        sse_retry: millis(reader, "SSE_RETRY_MS"),
    }
}

fn node(reader: &Reader) -> NodeId {
    NodeId::new(reader.text("NODE_ID").unwrap_or("node"))
}

fn origins(reader: &Reader) -> Option<Arc<[String]>> {
    let origins = reader.text("ALLOW_ORIGINS").filter(|text| *text != "*")?;
    Some(value::list(origins).map(str::to_owned).collect())
}

/// The origins of pages that may connect to the hub: where who comes is known by what a browser adds of itself, without a
/// list none but its own.
fn connecting(reader: &Reader) -> Option<Arc<[String]>> {
    match reader.text("ALLOW_ORIGINS") {
        None if rules::knows_browsers(reader) => Some([].into()),
        _ => origins(reader),
    }
}

pub(super) fn client(reader: &Reader) -> client::Config {
    client::Config {
        ping_interval: millis(reader, "WS_PING_INTERVAL_MS"),
        pong_timeout: seconds(reader, "WEBSOCKETS_PONG_TIMEOUT"),
        inactivity_timeout: seconds(reader, "WEBSOCKETS_INACTIVITY_TIMEOUT"),
        json_ping: reader.boolean("WEBSOCKETS_JSON_PING"),
        channels_max: reader.size("WS_MAX_CHANNELS"),
        command_rate: u32::try_from(reader.integer("WS_COMMAND_RATE")).unwrap_or(u32::MAX),
    }
}

pub(super) fn auth(reader: &Reader) -> auth::Config {
    // SECRET_KEY first: the first one signs. The same secret under both names is one.
    let mut secrets: Vec<Box<[u8]>> = ["SECRET_KEY", "JWT_SECRET"]
        .iter()
        .filter_map(|name| reader.text(name))
        .map(|secret| secret.as_bytes().into())
        .collect();
    secrets.dedup();
    let owned = |name: &str| reader.text(name).map(str::to_owned);
    let seconds_of = |name| reader.text(name).and_then(|text| text.parse().ok());
    let previous = reader.text("JWT_PREVIOUS_SECRET");
    auth::Config {
        secrets,
        previous_secret: previous
            .map(|secret| secret.as_bytes().into())
            .zip(seconds_of("JWT_PREVIOUS_SECRET_UNTIL")),
        public_keys: reader
            .text("JWT_PUBLIC_KEY")
            .and_then(|text| text.parse().ok())
            .unwrap_or_default(),
        key_sources: reader
            .text("JWKS_URL")
            .and_then(|text| text.parse().ok())
            .unwrap_or_default(),
        algorithms: value::list(reader.text("ALGORITHM").unwrap_or_default())
            .filter_map(|name| name.parse().ok())
            .collect(),
        leeway: seconds(reader, "JWT_LEEWAY_SECONDS"),
        audience: owned("JWT_AUDIENCE"),
        issuer: owned("JWT_ISSUER"),
        hub_api_key: reader.text("HUB_API_KEY").map(Into::into),
        admin_api_key: reader.text("ADMIN_API_KEY").map(Into::into),
        required: reader.boolean("AUTH_REQUIRED"),
    }
}

pub(super) fn events(reader: &Reader) -> events::Config {
    let queue_max = reader.size("EVENT_QUEUE");
    let url = reader.text("WEBHOOK_URL").and_then(|url| url.parse().ok());
    let secret = reader.text("WEBHOOK_SECRET").unwrap_or_default();
    let kinds = reader
        .text("WEBHOOK_EVENTS")
        .and_then(|kinds| kinds.parse().ok());
    let prefix = reader.text("REDIS_KEY_PREFIX").unwrap_or_default();
    events::Config {
        webhook: url.map(|url| events::WebhookConfig {
            url,
            secret: secret.as_bytes().into(),
            kinds: kinds.unwrap_or(events::Kinds::ALL),
            queue_max,
        }),
        stream: redis(reader)
            .filter(|_| reader.boolean("EVENT_STREAM"))
            .map(|redis| events::StreamConfig {
                redis,
                key: format!("{prefix}:events"),
                length: reader.integer("EVENT_STREAM_LENGTH"),
                queue_max,
            }),
        consent: consent(reader),
    }
}

/// `None` where nobody is asked.
fn consent(reader: &Reader) -> Option<events::ConsentConfig> {
    let url = |name| reader.text(name).and_then(|url| url.parse().ok());
    let secret = reader.text("WEBHOOK_SECRET").unwrap_or_default();
    let headers = value::list(reader.text("CONNECT_HEADERS").unwrap_or_default());
    let config = events::ConsentConfig {
        connect: url("CONNECT_URL"),
        subscribe: url("SUBSCRIBE_URL"),
        publish: url("PUBLISH_URL"),
        secret: secret.as_bytes().into(),
        headers: headers
            .filter(|name| *name != "-")
            .filter_map(|name| name.parse().ok())
            .collect(),
        timeout: millis(reader, "CONSENT_TIMEOUT_MS"),
        concurrency: reader.size("CONSENT_CONCURRENCY"),
        queue_max: reader.size("CONSENT_QUEUE"),
    };
    config.asks().then_some(config)
}

pub(super) fn session(reader: &Reader) -> session::Config {
    let days = |name| Duration::from_secs(reader.integer(name) * 86_400);
    let rate = |name| u32::try_from(reader.integer(name)).unwrap_or(u32::MAX);
    let hash = reader.text("PASSWORD_HASH").unwrap_or_default();
    session::Config {
        data_file: reader.text("DATA_FILE").unwrap_or_default().to_owned(),
        may_forget: !reader.is_set("DATA_FILE") && reader.text("NODE_ENV") != Some("production"),
        redis: redis(reader),
        // The names of the FastAPI gateway's keys, unless the operator gave a prefix.
        redis_prefix: match reader.text("REDIS_KEY_PREFIX") {
            Some(prefix) if reader.is_set("REDIS_KEY_PREFIX") => format!("{prefix}:"),
            _ => String::new(),
        },
        database: reader.text("DATABASE_URL").and_then(|url| url.parse().ok()),
        limits: SessionLimits {
            timeout: Duration::from_secs(reader.integer("SESSION_TIMEOUT_MINUTES") * 60),
            per_user_max: reader.size("MAX_SESSIONS_PER_USER"),
            data_bytes_max: reader.size("MAX_SESSION_BYTES"),
        },
        is_single: reader.boolean("SINGLE_SESSION_PER_USER"),
        password_hash: hash.parse().unwrap_or_default(),
        password_threads: reader.size("PASSWORD_THREADS"),
        password_waiting_max: reader.size("PASSWORD_QUEUE"),
        login_rate_max: rate("LOGIN_RATE_MAX"),
        login_address_rate_max: rate("LOGIN_ADDRESS_RATE_MAX"),
        register_rate_max: rate("REGISTER_RATE_MAX"),
        login_rate_window: millis(reader, "LOGIN_RATE_WINDOW_MS"),
        write_interval: millis(reader, "BATCH_WRITE_INTERVAL_MS"),
        inactive_max: days("SESSION_MAX_INACTIVE_DAYS"),
        check_interval: days("SESSION_CHECK_INTERVAL_DAYS"),
    }
}

pub(super) fn telemetry(reader: &Reader) -> telemetry::Config {
    telemetry::Config {
        log_level: reader.text("LOG_LEVEL").unwrap_or("info").to_owned(),
        log_format: match reader.text("LOG_FORMAT") {
            Some("pretty") => LogFormat::Pretty,
            _ => LogFormat::Json,
        },
        metrics: reader.boolean("METRICS_ENABLED"),
    }
}

pub(super) fn admin(reader: &Reader, stage: Stage) -> admin::Config {
    admin::Config {
        stage: match stage {
            Stage::Development => "development",
            Stage::Test => "test",
            Stage::Production => "production",
        },
        page: stage == Stage::Development,
        loop_delay_max: millis(reader, "UNDER_PRESSURE_MAX_EVENT_LOOP_DELAY_MS"),
        resident_bytes_max: if_set(reader, "UNDER_PRESSURE_MAX_RSS_BYTES"),
        heap_bytes_max: if_set(reader, "UNDER_PRESSURE_MAX_HEAP_USED_BYTES"),
    }
}

pub(super) fn api(reader: &Reader) -> api::Config {
    /// What the row of `MAX_BODY_BYTES` says of 0.
    const BODY_BYTES: usize = 10_485_760;
    api::Config {
        body_bytes_max: match reader.size("MAX_BODY_BYTES") {
            0 => BODY_BYTES,
            bytes => bytes,
        },
        batch_max: reader.size("MAX_BATCH"),
        docs: reader.boolean("ENABLE_DOCS"),
        redoc: reader.boolean("ENABLE_REDOC"),
    }
}

pub(super) fn broker(reader: &Reader) -> broker::Config {
    broker::Config {
        history_bytes_max: reader.size("HISTORY_MAX_BYTES"),
        channels_max: reader.size("MAX_CHANNELS"),
        idempotency_keys_max: reader.size("MAX_IDEMPOTENCY_KEYS"),
    }
}

/// What is kept of streams of upstreams that many share.
pub(super) fn shared_history(reader: &Reader) -> HistoryPolicy {
    let size = reader.integer("SSE_SHARED_HISTORY_SIZE");
    HistoryPolicy {
        size: u32::try_from(size).unwrap_or(u32::MAX),
        ttl: millis(reader, "SSE_SHARED_HISTORY_TTL_MS"),
    }
}

/// `None` without `REDIS_URL`.
pub(super) fn redis(reader: &Reader) -> Option<redis::Config> {
    let url = reader.text("REDIS_URL")?.trim();
    let address = redis::Address::parse(url).ok()?;
    let prefix = reader.text("REDIS_KEY_PREFIX")?;
    Some(redis::Config {
        // What is published is heard by the subscribers of all databases: only names part them.
        prefix: match address.database() {
            0 => prefix.to_owned(),
            database => format!("{prefix}@{database}"),
        },
        address,
        ready_grace: millis(reader, "READY_REDIS_GRACE_MS"),
        wait_replicas: u32::try_from(reader.integer("REDIS_WAIT_REPLICAS")).unwrap_or(u32::MAX),
        ca_file: reader.text("REDIS_CA_FILE").map(PathBuf::from),
    })
}

/// The networks that say who a client is.
fn trusted(reader: &Reader) -> Vec<(IpAddr, u8)> {
    let trusted = reader.text("TRUSTED_PROXIES").unwrap_or_default();
    value::list(trusted)
        .filter_map(upstreams::network)
        .collect()
}

pub(super) fn proxy(reader: &Reader, services: Vec<proxy::ServiceConfig>) -> proxy::Config {
    proxy::Config {
        services,
        trusted: trusted(reader),
        inflight_max: if_set(reader, "UNDER_PRESSURE_MAX_IN_FLIGHT").map_or(usize::MAX, |most| {
            usize::try_from(most).unwrap_or(usize::MAX)
        }),
        tells_forwarded: reader.boolean("FORWARDED"),
        removed: value::list(reader.text("REMOVE_RESPONSE_HEADERS").unwrap_or_default())
            .filter(|pattern| *pattern != "-")
            .map(str::to_owned)
            .collect(),
        access_percent: u32::try_from(reader.integer("ACCESS_LOG_PERCENT")).unwrap_or(100),
        body_timeout: millis(reader, "BODY_TIMEOUT_MS"),
        body_bytes_max: match reader.integer("MAX_BODY_BYTES") {
            0 => u64::MAX,
            bytes => bytes,
        },
        origins: origins(reader),
        ping_interval: millis(reader, "WS_PING_INTERVAL_MS"),
        pong_timeout: seconds(reader, "WEBSOCKETS_PONG_TIMEOUT"),
        rate: proxy::RatePolicy {
            max: u32::try_from(reader.integer("RATE_LIMIT_MAX")).unwrap_or(u32::MAX),
            window: millis(reader, "RATE_LIMIT_WINDOW_MS"),
            by: proxy::RateKey::Address,
        },
        connector: None,
        cache: proxy::CacheConfig {
            total_bytes_max: reader.integer("CACHE_MAX_TOTAL_BYTES"),
            wait_max: millis(reader, "CACHE_WAIT_MS"),
        },
    }
}

fn if_set(reader: &Reader, name: &str) -> Option<u64> {
    reader.is_set(name).then(|| reader.integer(name))
}

fn millis(reader: &Reader, name: &str) -> Duration {
    Duration::from_millis(reader.integer(name))
}

fn seconds(reader: &Reader, name: &str) -> Duration {
    Duration::from_secs(reader.integer(name))
}
