//! What can be said of one service: how its upstreams are chosen, how long they may take, when they are left alone, and
//! who may ask.

use std::time::Duration;

/// One service: a name, its upstreams, and what holds for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceConfig {
    /// As it stands in paths.
    pub name: String,
    /// At least one, none twice.
    pub upstreams: Vec<UpstreamConfig>,
    /// What holds for all of them.
    pub policy: Policy,
}

/// One upstream of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamConfig {
    /// Where it is.
    pub address: super::Address,
    /// Its part of the requests, against the others' weights; at least 1.
    pub weight: u32,
}

impl UpstreamConfig {
    /// One that has no more to do than others.
    pub const fn new(address: super::Address) -> Self {
        Self { address, weight: 1 }
    }
}

/// What holds for a service. `config` fills it; defaults and bounds stand there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// How an upstream is chosen.
    pub balance: Balance,
    /// How long an upstream may take for the head of its answer, and pause in its body.
    pub timeout: Duration,
    /// How long it may take to accept a connection.
    pub connect_timeout: Duration,
    /// How long a whole exchange at `/api` may take, from the request's head to the end of the answer; `None`: as long as
    /// something moves.
    pub total_timeout: Option<Duration>,
    /// When it is left alone.
    pub breaker: BreakerPolicy,
    /// When another one is asked.
    pub retries: RetryPolicy,
    /// Who may ask.
    pub identity: IdentityRule,
    /// Requests that may be under way to one upstream; `usize::MAX` is no limit.
    pub connections_max: usize,
    /// Connections of one worker to an upstream that speaks HTTP/2; requests beyond what these take wait in line, as long as
    /// for a connection.
    pub http2_connections_max: usize,
    /// In which time an upstream that is new or well again comes to its whole part; zero: at once.
    pub slow_start: Duration,
    /// How answers are kept; `None`: not at all.
    pub cache: Option<CachePolicy>,
    /// Whether event streams of the same path are one connection to the upstream; `None`: each its own.
    pub share: Option<Share>,
    /// After which silence a stream of events at `/sse` gets a comment; `None`: never.
    pub heartbeat: Option<Duration>,
    /// How often it may be asked; `None`: as the node says for all services.
    pub rate: Option<RatePolicy>,
    /// How many event streams and WebSockets somebody may have open at once; `None`: any number.
    pub streams: Option<StreamsPolicy>,
    /// How long nobody may say anything in an event stream (the upstream) or a WebSocket (either side, pings and pongs left out)
    /// before it is ended; `None`: for ever.
    pub idle_timeout: Option<Duration>,
    /// The most payload bytes of a message of a WebSocket, of either side; `None`: any.
    pub message_bytes_max: Option<u64>,
    /// How it is found out beforehand whether an upstream is well; `None`: not at all.
    pub health: Option<HealthPolicy>,
}

/// How a service's answers are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CachePolicy {
    /// For how long, where an answer does not say (`CACHE_DEFAULT_TTL_MS`); zero: it is not kept.
    pub default_ttl: Duration,
    /// The most bytes of one body (`CACHE_MAX_BODY_BYTES`).
    pub body_bytes_max: usize,
}

/// Whose event streams of the same path and query are one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// Everybody's; the upstream is not told who listens.
    All,
    /// Those of a user with one role.
    User,
}

/// How often somebody may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RatePolicy {
    /// So many requests, all of which may come at once...
    pub max: u32,
    /// ...come back in this time.
    pub window: Duration,
    /// Whose they are.
    pub by: RateKey,
}

/// How many streams somebody may have open at once, on each node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamsPolicy {
    /// Streams of events; `u32::MAX` is no limit.
    pub sse_max: u32,
    /// WebSockets; `u32::MAX` is no limit.
    pub ws_max: u32,
    /// Whose they are.
    pub by: RateKey,
}

/// Whose requests are counted together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RateKey {
    /// Those of an address, or of an IPv6 /64.
    #[default]
    Address,
    /// Those of the user of a verified token; without one those of the address.
    User,
}

/// How it is found out whether an upstream is well: it is asked for a path again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthPolicy {
    /// Path, and query, behind the upstream's base.
    pub path: String,
    /// Between two looks.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// So many good answers (2xx or 3xx) in a row make it well.
    pub healthy: u32,
    /// So many bad ones in a row make it ill.
    pub unhealthy: u32,
}

/// How an upstream is chosen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Balance {
    /// Of two at random, the one with the lower product of latency (peak EWMA) and requests in flight, by weight.
    #[default]
    LeastLoad,
    /// One after the other.
    RoundRobin,
    /// Any, by weight.
    Weighted,
    /// Any.
    Random,
    /// The same one for the same key, on every node (rendezvous hashing, by weight).
    Hash(HashKey),
    /// The one that a cookie of ours names; without it as [`Balance::LeastLoad`].
    Sticky,
}

/// What a request is hashed by. Requests that lack it are hashed by their address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum HashKey {
    /// The client's address.
    #[default]
    Address,
    /// The user of a verified token.
    User,
    /// The path behind the service's name.
    Path,
    /// A header field, by its name in lower case.
    Field(String),
}

/// When an upstream is left alone (a circuit breaker), and how it comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerPolicy {
    /// So many failures (no connection, no answer in time, 5xx)...
    pub failures: u32,
    /// ...within this time...
    pub window: Duration,
    /// ...that are also this part of the requests of the last ten seconds, in percent...
    pub percent: u32,
    /// ...or fewer good answers than this among those of the last ten seconds, in percent, where 429 is none either; 0: that is
    /// not looked at...
    pub success_percent: u32,
    /// ...and only when there were so many answers and failures...
    pub requests_min: u32,
    /// ...open it for this long, and twice as long each time that a probe fails...
    pub open: Duration,
    /// ...but never longer than this.
    pub open_max: Duration,
    /// Requests that find out whether it is well: no more at once, and so many must succeed.
    pub probes: u32,
}

/// When another upstream is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Upstreams that are asked for one request, at most; 1 is no retry.
    pub tries: u32,
    /// Answers that are worth asking another one.
    pub statuses: Vec<u16>,
    /// Whether requests are repeated too that may do something twice.
    pub non_idempotent: bool,
    /// Retries may be this part of the requests, in percent, and three a second beside.
    pub budget_percent: u32,
    /// How long every try but the last may take; without it a try that takes too long is not repeated.
    pub try_timeout: Option<Duration>,
}

/// Who may ask.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdentityRule {
    /// Whether a valid token is needed.
    pub required: bool,
    /// The token's role must be one of these; empty: any.
    pub roles: Vec<String>,
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The breaker of the Fastify gateway: five failures in ten seconds, fifteen seconds.
    pub(in crate::proxy) const POLICY: BreakerPolicy = BreakerPolicy {
        failures: 5,
        window: Duration::from_secs(10),
        percent: 0,
        success_percent: 0,
        requests_min: 50,
        open: Duration::from_secs(15),
        open_max: Duration::from_secs(60),
        probes: 1,
    };

    /// A policy with this chooser.
    pub(in crate::proxy) fn policy(balance: Balance) -> Policy {
        Policy {
            balance,
            timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(3),
            total_timeout: None,
            breaker: POLICY,
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
}
