//! The table of variables. Parser, `fanfare check`, `fanfare --help`, `.env.example` and the table of
//! `docs/OPERATIONS.md` all read it: a new variable is one row here, and one line where its room's values are made
//! (`rooms`).

use super::upstreams;
use super::value::{self, Normalise};
use crate::relay::WORKERS_MAX;

/// What a variable's value may be.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// true/1/yes/y/on/t or false/0/no/n/off/f.
    Boolean,
    /// A whole number from … to ….
    Integer(u64, u64),
    /// A text that is made one form by a function; with the rule in words.
    Text(Normalise, &'static str),
}

/// What holds when a variable is not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DefaultValue {
    /// This value.
    Value(&'static str),
    /// A value that follows from the machine or from other variables; said in words.
    Computed(&'static str),
    /// Nothing.
    Unset,
}

/// A chapter of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    Server,
    Authentication,
    Sessions,
    Events,
    Connections,
    Streams,
    Publications,
    Fleet,
    Upstreams,
    Operations,
}

impl Group {
    pub(super) const ALL: [Self; 10] = [
        Self::Server,
        Self::Authentication,
        Self::Sessions,
        Self::Events,
        Self::Connections,
        Self::Streams,
        Self::Publications,
        Self::Fleet,
        Self::Upstreams,
        Self::Operations,
    ];

    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Server => "Server",
            Self::Authentication => "Authentication",
            Self::Sessions => "Users and sessions",
            Self::Events => "Events for back ends",
            Self::Connections => "Connections",
            Self::Streams => "Server-sent events",
            Self::Publications => "Channels and publications",
            Self::Fleet => "Several nodes",
            Self::Upstreams => "Upstreams",
            Self::Operations => "Operations",
        }
    }
}

/// One variable.
#[derive(Debug, Clone, Copy)]
pub(super) struct Variable {
    pub(super) name: &'static str,
    /// Read when the name itself is not set, in this order.
    pub(super) aliases: &'static [&'static str],
    pub(super) group: Group,
    pub(super) kind: Kind,
    pub(super) default: DefaultValue,
    /// Empty for what has none.
    pub(super) unit: &'static str,
    /// One sentence.
    pub(super) doc: &'static str,
    /// What it costs at worst, where it bounds memory.
    pub(super) memory: &'static str,
    /// Whether its value is never shown.
    pub(super) secret: bool,
}

const fn row(
    group: Group,
    name: &'static str,
    kind: Kind,
    default: DefaultValue,
    unit: &'static str,
    doc: &'static str,
) -> Variable {
    Variable {
        name,
        aliases: &[],
        group,
        kind,
        default,
        unit,
        doc,
        memory: "",
        secret: false,
    }
}

impl Variable {
    const fn alias(mut self, aliases: &'static [&'static str]) -> Self {
        self.aliases = aliases;
        self
    }

    const fn memory(mut self, memory: &'static str) -> Self {
        self.memory = memory;
        self
    }

    const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// The rule for its value, as the rest of a sentence that begins with its name.
    pub(super) fn rule(&self) -> String {
        match self.kind {
            Boolean => "must be true/1/yes/y/on/t or false/0/no/n/off/f".to_owned(),
            Integer(least, most) => {
                format!("must be a whole number from {least} to {most}")
            }
            Text(_, rule) => format!("must be {rule}"),
        }
    }

    /// The default in words.
    pub(super) fn default_text(&self) -> &'static str {
        match self.default {
            Value(value) => value,
            Computed(words) => words,
            Unset => "unset",
        }
    }
}

/// The row of a variable.
pub(super) fn variable(name: &str) -> Option<&'static Variable> {
    VARIABLES.iter().find(|variable| variable.name == name)
}

use DefaultValue::{Computed, Unset, Value};
use Group::{
    Authentication, Connections, Events, Fleet, Operations, Publications, Server, Sessions,
    Streams, Upstreams,
};
use Kind::{Boolean, Integer, Text};

const ANY: Kind = Text(value::any, "a text");
/// A day in milliseconds: the most that an interval may be.
const DAY_MS: u64 = 86_400_000;
/// The most of a bound in bytes: 1 TiB.
const BYTES: u64 = 1 << 40;
/// The most of a bound in things.
const MANY: u64 = 1_000_000_000;

/// Every variable, by group.
#[rustfmt::skip]
pub(super) const VARIABLES: &[Variable] = &[
    row(Server, "NODE_ENV", Text(value::stage, "development, test or production"), Value("development"), "", "What the node is for. Production requires credentials and strong secrets; only development reads `.env` and shows the page at `/`.").alias(&["APP_ENV"]),
    row(Server, "HOST", Text(value::host, "an IP address or localhost"), Value("0.0.0.0"), "", "The address to listen on."),
    row(Server, "PORT", Integer(0, 65_535), Value("8080"), "", "The port to listen on; 0 lets the system choose.").alias(&["DEFAULT_PORT"]),
    row(Server, "TLS_CERT", ANY, Unset, "", "A file with the node's certificate in PEM, then those that lead to a root; with it every listener speaks TLS and nothing else. A changed file is taken within a second, and connections live on."),
    row(Server, "TLS_KEY", ANY, Unset, "", "A file with its private key in PEM."),
    row(Server, "WORKERS", Integer(1, WORKERS_MAX as u64), Computed("one for each core, at most 64"), "threads", "Worker threads; each has its own connections and delivers without sharing."),
    row(Server, "NODE_ID", Text(value::node_id, "at most 128 printable characters without blanks"), Computed("the host's name and the process id"), "", "This node's name, `gateway_id` to clients; must differ between nodes.").alias(&["POD_NAME"]),
    row(Server, "CONFIG_FILE", ANY, Unset, "", "A TOML file with the namespaces and the services (docs/OPERATIONS.md)."),
    row(Server, "HEADER_TIMEOUT_MS", Integer(1, DAY_MS), Value("10000"), "ms", "How long the head of a request may take."),
    row(Server, "BODY_TIMEOUT_MS", Integer(1, DAY_MS), Value("30000"), "ms", "How long a request's body may pause."),
    row(Server, "MAX_BODY_BYTES", Integer(0, BYTES), Value("10485760"), "bytes", "The most bytes of a request's body; 0 is no limit, except at `/hub`, where a body is held in memory and the default stays.").memory("this for each request in flight"),
    row(Server, "MAX_CONNECTIONS", Integer(1, MANY), Computed("the limit of open files less 128; half of that with upstreams"), "connections", "The most connections of the process; more are answered 503.").memory("about 1 KB each when idle"),
    row(Server, "MAX_CONNECTIONS_PER_ADDRESS", Integer(0, MANY), Value("0"), "connections", "The most connections of one address, of IPv6 of one /64, to this node; more are answered 429. Those of TRUSTED_PROXIES are not counted. 0 is no bound."),
    row(Server, "MAX_HANDSHAKES", Integer(1, MANY), Computed("4096, at most MAX_CONNECTIONS"), "connections", "The most connections that have not finished their handshake or request.").memory("about 16 KB each"),
    row(Server, "HTTP2_MAX_STREAMS", Integer(0, 10_000), Value("128"), "streams", "The most requests at once on one HTTP/2 connection of a client; each counts among MAX_CONNECTIONS, too. 0 speaks HTTP/1.1 only.").memory("at most 256 KB each, and 1 MB for each connection"),
    row(Server, "DRAIN_DELAY_MS", Integer(0, DAY_MS), Value("2000"), "ms", "At the end: how long to say \"not ready\" before the listeners close, so that balancers turn away."),
    row(Server, "DRAIN_SECONDS", Integer(0, 86_400), Value("30"), "s", "At the end: over how long the clients are closed then, with a code that says reconnect."),

    row(Authentication, "AUTH_REQUIRED", Boolean, Computed("true in production, else false"), "", "Whether clients and back ends need credentials. Without, anyone may connect, subscribe and publish."),
    row(Authentication, "JWT_SECRET", ANY, Unset, "", "The secret of HMAC tokens; required when AUTH_REQUIRED is true and no issuer elsewhere is named, at least 32 bytes in production.").secret(),
    row(Authentication, "SECRET_KEY", ANY, Unset, "", "The same by another name. When both are set, both verify and this one signs.").secret(),
    row(Authentication, "JWT_PREVIOUS_SECRET", ANY, Unset, "", "The secret before; what it signed stays good until JWT_PREVIOUS_SECRET_UNTIL.").secret(),
    row(Authentication, "JWT_PREVIOUS_SECRET_UNTIL", Text(value::unix_time, "a day (2026-12-31) or a time (2026-12-31T12:00:00Z)"), Unset, "", "Until when; a day counts from its first second."),
    row(Authentication, "JWT_PUBLIC_KEY", Text(value::public_keys, crate::auth::PUBLIC_KEYS_RULE), Unset, "", "The public keys of an issuer elsewhere, one after the other. RS256 to RS512, PS256 to PS512, ES256, ES384 and EdDSA follow from the kind of key.").secret(),
    row(Authentication, "JWKS_URL", Text(value::key_sources, crate::auth::KEY_SOURCES_RULE), Unset, "", "Where an issuer elsewhere shows its keys (RFC 7517); https in production. Or several issuers, as `https://a.example.com https://a.example.com/keys, b https://b.example.com/keys`: each is good for tokens that name it in `iss`. The keys are fetched every ten minutes, and when a token names a key that is not there.").memory("32 keys of each"),
    row(Authentication, "ALGORITHM", Text(value::algorithms, "HS256, HS384 or HS512, or several with commas between"), Value("HS256"), "", "The accepted algorithms of tokens that a secret signed; the first one signs."),
    row(Authentication, "JWT_LEEWAY_SECONDS", Integer(0, 3600), Value("0"), "s", "By how much `exp` and `nbf` of tokens may be missed, for clocks that differ."),
    row(Authentication, "JWT_AUDIENCE", ANY, Unset, "", "When set, tokens must name it in `aud`."),
    row(Authentication, "JWT_ISSUER", ANY, Unset, "", "When set, tokens must name it in `iss`."),
    row(Authentication, "ACCESS_TOKEN_EXPIRE_MINUTES", Integer(1, 5_256_000), Value("30"), "min", "How long the tokens last that are minted here."),
    row(Authentication, "HUB_API_KEY", ANY, Unset, "", "What back ends show at `/hub` as `Authorization: Bearer`. Unset, a token with the role publisher or admin is needed where AUTH_REQUIRED is true, and nothing where it is false.").secret(),
    row(Authentication, "ADMIN_API_KEY", ANY, Unset, "", "What operators show at `/admin` as `X-Admin-Key`. Unset, only tokens with the role admin open it.").secret(),
    row(Authentication, "ALLOW_ORIGINS", Text(value::origins, "* or origins (scheme://host[:port]) with commas between"), Computed("any origin; the hub's own where CONNECT_URL is told cookies"), "", "The origins of pages that may connect; others are answered 403. What is set here may also read answers (CORS): the node's own, and those of upstreams that say nothing of it; unset, no page of elsewhere may read the node's."),
    row(Authentication, "ALLOW_CREDENTIALS", Boolean, Value("false"), "", "Whether browsers may send cookies along; refused together with ALLOW_ORIGINS=*."),
    row(Authentication, "ALLOW_METHODS", Text(value::tokens, "names of methods with commas between"), Value("GET,HEAD,POST,PUT,PATCH,DELETE"), "", "The methods that pages of ALLOW_ORIGINS may use, at upstreams too."),
    row(Authentication, "ALLOW_HEADERS", Text(value::tokens, "names of header fields with commas between"), Value("authorization,content-type,x-request-id"), "", "The fields that pages of ALLOW_ORIGINS may send, to upstreams too."),
    row(Authentication, "EXPOSE_HEADERS", Text(value::tokens, "names of header fields with commas between"), Value("x-request-id"), "", "The fields of answers that pages of ALLOW_ORIGINS may read."),
    row(Authentication, "SECURITY_HEADERS", Boolean, Value("true"), "", "Whether the node's own answers, the proxy's errors among them, tell browsers not to guess types, not to show them in frames of others, and the like; publishing and connecting are spared."),

    row(Sessions, "DATA_FILE", Text(value::data_file, "the path of a file, or :memory:"), Computed("fanfare.db; :memory: when NODE_ENV is test"), "", "The SQLite file with users and sessions; it is made when there is none. With `:memory:` they are forgotten when the node ends."),
    row(Sessions, "DATABASE_URL", Text(value::database, crate::session::DATABASE_RULE), Unset, "", "A PostgreSQL database for users, in the table `hub_users`, which is made when there is none. Their sessions stay in Redis, or in DATA_FILE; users who registered there are not taken over.").secret(),
    row(Sessions, "SESSION_TIMEOUT_MINUTES", Integer(1, 5_256_000), Computed("30, or REDIS_SESSION_TIMEOUT_SECONDS"), "min", "How long a session lasts without use."),
    row(Sessions, "REDIS_SESSION_TIMEOUT_SECONDS", Integer(60, 315_360_000), Unset, "s", "The same in seconds; SESSION_TIMEOUT_MINUTES wins."),
    row(Sessions, "SINGLE_SESSION_PER_USER", Boolean, Value("true"), "", "Whether a login ends the user's other sessions and closes their sockets (4003)."),
    row(Sessions, "MAX_SESSIONS_PER_USER", Integer(1, 100_000), Value("100"), "sessions", "The most sessions of one user; a further one ends the one that was used the longest ago."),
    row(Sessions, "MAX_SESSION_BYTES", Integer(256, 1 << 30), Value("1048576"), "bytes", "The most bytes of a session's data."),
    row(Sessions, "SESSION_MAX_INACTIVE_DAYS", Integer(1, 36_500), Value("365"), "days", "Users who have not logged in for so long are removed."),
    row(Sessions, "SESSION_CHECK_INTERVAL_DAYS", Integer(1, 365), Value("1"), "days", "Between two looks for such users."),
    row(Sessions, "BATCH_WRITE_INTERVAL_MS", Integer(1, 3_600_000), Value("100"), "ms", "Between two writes of which sessions were used; nothing else is written behind.").memory("4 MB in all"),
    row(Sessions, "PASSWORD_HASH", Text(value::password_hash, crate::session::PARAMETERS_RULE), Value("argon2id:19456:2:1"), "", "How passwords are hashed: KiB of memory, passes and lanes. Older hashes are replaced when their user logs in.").memory("its KiB for each of the PASSWORD_THREADS"),
    row(Sessions, "PASSWORD_THREADS", Integer(1, 256), Computed("half of the cores, at least one"), "threads", "Threads of lowest priority that hash passwords."),
    row(Sessions, "PASSWORD_QUEUE", Integer(1, 100_000), Value("32"), "logins", "The most logins that wait for such a thread; more are answered 503. Registrations take at most half of these places.").memory("about 2 KB each"),
    row(Sessions, "LOGIN_RATE_MAX", Integer(0, 1_000_000), Value("10"), "logins", "The most logins of one user from one address in LOGIN_RATE_WINDOW_MS, ten times as many from all addresses; 0 is no limit. Each node counts for itself.").memory("2 MB in all"),
    row(Sessions, "LOGIN_ADDRESS_RATE_MAX", Integer(0, 1_000_000), Value("600"), "logins", "The most logins from one address in LOGIN_RATE_WINDOW_MS, whatever the users; 0 is no limit.").memory("1 MB in all"),
    row(Sessions, "REGISTER_RATE_MAX", Integer(0, 1_000_000), Value("600"), "users", "The most attempts to register from one address (an IPv6 network of 64 bits) in LOGIN_RATE_WINDOW_MS; more are answered 429. 0 is no limit. Each node counts for itself.").memory("1 MB in all"),
    row(Sessions, "LOGIN_RATE_WINDOW_MS", Integer(1000, DAY_MS), Value("60000"), "ms", "In which time that many come back."),

    row(Events, "WEBHOOK_URL", Text(value::endpoint, crate::outbound::ENDPOINT_RULE), Unset, "", "Where lifecycle events are posted, signed with WEBHOOK_SECRET."),
    row(Events, "WEBHOOK_SECRET", ANY, Unset, "", "What signs them, and questions too; required with WEBHOOK_URL, CONNECT_URL, SUBSCRIBE_URL and PUBLISH_URL, at least 32 bytes in production.").secret(),
    row(Events, "WEBHOOK_EVENTS", Text(value::kinds, crate::events::KINDS_RULE), Computed("all"), "", "Which of them."),
    row(Events, "EVENT_STREAM", Boolean, Value("false"), "", "Whether they are added to the stream `<REDIS_KEY_PREFIX>:events` in Redis too; needs REDIS_URL."),
    row(Events, "EVENT_STREAM_LENGTH", Integer(100, MANY), Value("100000"), "events", "About how many of them the stream keeps.").memory("about 300 bytes each, in Redis"),
    row(Events, "EVENT_QUEUE", Integer(100, MANY), Value("10000"), "events", "The most that wait for their receiver; more are dropped and counted.").memory("about 300 bytes each"),
    row(Events, "CONNECT_URL", Text(value::endpoint, crate::outbound::ENDPOINT_RULE), Unset, "", "What back end is asked before a client may connect, with signed questions; it may say who the client is. Who cannot be asked about is told to try again."),
    row(Events, "CONNECT_HEADERS", Text(value::header_names, crate::events::HEADERS_RULE), Value("cookie,origin,user-agent"), "", "The fields of a client's request that CONNECT_URL is told."),
    row(Events, "SUBSCRIBE_URL", Text(value::endpoint, crate::outbound::ENDPOINT_RULE), Unset, "", "The same before a client may subscribe to a channel, unless the namespace says `consent = false`."),
    row(Events, "PUBLISH_URL", Text(value::endpoint, crate::outbound::ENDPOINT_RULE), Unset, "", "The same before a client, or a caller of `/hub` without HUB_API_KEY, may publish; it may change the data."),
    row(Events, "CONSENT_TIMEOUT_MS", Integer(1, 60_000), Value("2000"), "ms", "How long such a question may take, its wait for a turn included."),
    row(Events, "CONSENT_CONCURRENCY", Integer(1, 10_000), Value("64"), "questions", "The most questions that are under way to one of the URLs; others wait for a turn."),
    row(Events, "CONSENT_QUEUE", Integer(0, 1_000_000), Value("1024"), "questions", "The most questions to one of the URLs that wait; who would be one more is told to try again.").memory("a message each, at most WS_MAX_MESSAGE_BYTES"),

    row(Connections, "WS_MAX_BUFFERED_BYTES", Integer(4096, BYTES), Value("2000000"), "bytes", "The most pending bytes of one connection; a frame that many share counts in full.").memory("this for each connection, within WS_TOTAL_BUFFERED_BYTES"),
    row(Connections, "WS_SOCKET_BUFFER_BYTES", Integer(4_096, 1_073_741_824), Value("131072"), "bytes", "The most bytes that the system itself keeps for one connection that does not read; beside WS_MAX_BUFFERED_BYTES, and outside the process.").memory("twice its value a connection, in the kernel"),
    row(Connections, "WS_MAX_BUFFERED_MESSAGES", Integer(64, MANY), Value("20000"), "messages", "The most pending messages of one connection.").memory("about 64 bytes each beside their bytes"),
    row(Connections, "WS_TOTAL_BUFFERED_BYTES", Integer(4096, BYTES), Computed("a quarter of the memory, at least WS_MAX_BUFFERED_BYTES for each worker"), "bytes", "The most pending bytes of the process, split evenly over the workers; a frame that many share counts once, and the slowest connections go first.").memory("this"),
    row(Connections, "WS_MAX_MESSAGE_BYTES", Integer(128, BYTES), Computed("65536, at most WS_MAX_BUFFERED_BYTES"), "bytes", "The most bytes of one message from a client; a longer one closes the connection (1009).").memory("this for each connection that is in the middle of a message"),
    row(Connections, "WS_MAX_CHANNELS", Integer(1, 1_000_000), Value("1000"), "channels", "The most channels of one connection; one more is answered with an error.").memory("about 100 bytes each"),
    row(Connections, "WS_COMMAND_RATE", Integer(0, 1_000_000_000), Value("20000"), "commands/s", "Commands of one connection in a second, which is also the burst; 0 is no limit."),
    row(Connections, "WS_PING_INTERVAL_MS", Integer(10, DAY_MS), Computed("WEBSOCKETS_PING_INTERVAL"), "ms", "Between protocol pings; wins over WEBSOCKETS_PING_INTERVAL."),
    row(Connections, "WEBSOCKETS_PING_INTERVAL", Integer(1, 86_400), Value("25"), "s", "Between protocol pings."),
    row(Connections, "WEBSOCKETS_PONG_TIMEOUT", Integer(1, 86_400), Value("30"), "s", "How long a pong may take before the connection is closed (4004)."),
    row(Connections, "WEBSOCKETS_INACTIVITY_TIMEOUT", Integer(1, 86_400), Computed("60, or twice the ping interval when that is more"), "s", "How long a client may be silent, pongs counted, before it is closed (4004); must be more than the ping interval."),
    row(Connections, "WEBSOCKETS_JSON_PING", Boolean, Value("false"), "", "Whether JSON pings are sent beside the protocol's, for clients that answer only those."),
    row(Connections, "WS_ECHO", Boolean, Value("false"), "", "Whether `/ws/echo` is served, for conformance tools and latency probes."),
    row(Connections, "INTAKE_CAPACITY", Integer(1, MANY), Value("1024"), "connections", "The most upgraded connections that wait for one worker; more are answered 503.").memory("about 1 KB each"),
    row(Connections, "INBOX_MAX_MESSAGES", Integer(1, MANY), Value("65536"), "messages", "The most publications that wait for one worker; when full, the worker re-reads what it missed.").memory("about 64 bytes each beside their bytes"),
    row(Connections, "INBOX_MAX_BYTES", Integer(4096, BYTES), Value("67108864"), "bytes", "The same in bytes.").memory("this for each worker, a publication shared between them once"),

    row(Streams, "SSE_COMMENT_INTERVAL_MS", Integer(100, DAY_MS), Value("15000"), "ms", "Between the comments that keep proxies awake."),
    row(Streams, "SSE_RETRY_MS", Integer(1, DAY_MS), Value("2000"), "ms", "After how long an EventSource comes back, before jitter."),

    row(Publications, "HISTORY_MAX_BYTES", Integer(0, BYTES), Computed("an eighth of the memory"), "bytes", "The most bytes of kept publications over all channels, without REDIS_URL; the least recently used channels' oldest go first.").memory("this"),
    row(Publications, "MAX_CHANNELS", Integer(1, MANY), Value("1000000"), "channels", "The most channels that are remembered, without REDIS_URL.").memory("about 500 bytes each"),
    row(Publications, "MAX_IDEMPOTENCY_KEYS", Integer(1, MANY), Value("200000"), "keys", "The most idempotency keys that are remembered, without REDIS_URL, five minutes each.").memory("about 500 bytes each"),
    row(Publications, "MAX_BATCH", Integer(1, 1_000_000), Value("1000"), "publications", "The most publications of one `/hub/batch`, and channels of one `/hub/broadcast`."),

    row(Fleet, "REDIS_URL", ANY, Unset, "", "The Redis server that the nodes of a fleet share, redis://[[user]:password@]host[:port][/database], or the Sentinels that know it, redis-sentinel://[[user]:password@]host[:port][/database]?sentinelServiceName=name&node=host:port, or members of a Cluster, redis-cluster://[[user]:password@]host[:port]?node=host:port; over TLS with rediss. Unset, the node is alone and keeps everything in its memory.").secret(),
    row(Fleet, "REDIS_CA_FILE", ANY, Unset, "", "A PEM file with the certificates by which a Redis server is trusted over TLS. Unset, those of the system."),
    row(Fleet, "REDIS_KEY_PREFIX", Text(value::key_prefix, "at most 128 printable characters without blanks and braces"), Value("fanfare"), "", "What every key and channel in Redis begins with, with `@` and the number of the database where `REDIS_URL` names another than 0; nodes with the same one are one fleet. Users, sessions and their events are apart: they have the names of the FastAPI gateway (`users:…`), and begin with this only where it is set, even to fanfare."),
    row(Fleet, "REDIS_WAIT_REPLICAS", Integer(0, 16), Value("0"), "replicas", "How many replicas of Redis must have a publication of a channel with history before whoever published it is answered; 503 with `\"outcome\":\"unknown\"` when they have not within half a second. Needs REDIS_URL."),
    row(Fleet, "READY_REDIS_GRACE_MS", Integer(0, DAY_MS), Value("10000"), "ms", "How long Redis may be away before `/readyz` answers 503."),

    row(Upstreams, "UPSTREAMS", ANY, Value("{}"), "", "JSON that maps names of services to lists of http, https or h2c URLs, as `{\"users\":[\"http://localhost:3001\"]}`; `/api/<name>/*`, `/sse/<name>/*` and `/ws/<name>?path=/p` are forwarded to them."),
    row(Upstreams, "UPSTREAM_HTTP2", Boolean, Value("true"), "", "Whether https upstreams are offered HTTP/2 (ALPN). Upstreams at `h2c://` URLs are asked in it without TLS, whatever stands here."),
    row(Upstreams, "UPSTREAM_CA", ANY, Unset, "", "A file with the certificates in PEM that vouch for https upstreams; unset, the system's do."),
    row(Upstreams, "LOAD_BALANCING", Text(value::balance, "least-load, round-robin, weighted, random, hash or sticky"), Value("least-load"), "", "How an upstream of a service is chosen, unless the service says otherwise."),
    row(Upstreams, "HTTP_PROXY_TIMEOUT_MS", Integer(1, DAY_MS), Value("30000"), "ms", "How long an upstream may take for the head of its answer, and pause in the body, unless the service says otherwise; streams of events may pause for ever."),
    row(Upstreams, "RETRY_BUDGET_PERCENT", Integer(0, 100), Value("20"), "%", "Which part of a service's requests may be asked of another upstream, beside three a second; unless the service says otherwise."),
    row(Upstreams, "TRUSTED_PROXIES", Text(upstreams::networks, "addresses or networks (10.0.0.0/8) with commas between"), Unset, "", "Whose `X-Forwarded-*` and `Forwarded` are believed; those of others are replaced."),
    row(Upstreams, "FORWARDED", Boolean, Value("false"), "", "Whether upstreams get `Forwarded` (RFC 7239) beside `X-Forwarded-*`."),
    row(Upstreams, "REMOVE_RESPONSE_HEADERS", Text(upstreams::patterns, "names of header fields of at most 32 letters with commas between, perhaps with a * at the end, and none that frames the answer"), Value("x-internal-*,x-db-query-count"), "", "Fields of upstreams' answers that go no further."),
    row(Upstreams, "ACCESS_LOG_PERCENT", Integer(0, 100), Value("0"), "%", "Which part of the requests to upstreams is logged, beside all that fail (499 and 5xx); 0: none at all."),
    row(Upstreams, "SSE_SHARED_HISTORY_SIZE", Integer(1, 1_000_000), Value("1000"), "events", "How many events of an upstream's stream that many share (`share` of a service) are kept for who comes back.").memory("within HISTORY_MAX_BYTES, or in Redis"),
    row(Upstreams, "SSE_SHARED_HISTORY_TTL_MS", Integer(1000, DAY_MS), Value("300000"), "ms", "For how long."),
    row(Upstreams, "RATE_LIMIT_MAX", Integer(0, 1_000_000_000), Value("200"), "requests", "The most requests of one address to upstreams in RATE_LIMIT_WINDOW_MS, all of which may come at once, over all nodes; 0 is no limit.").memory("4 MB in all"),
    row(Upstreams, "RATE_LIMIT_WINDOW_MS", Integer(1, DAY_MS), Value("60000"), "ms", "In which time that many come back."),
    row(Upstreams, "CACHE_ENABLED", Boolean, Value("false"), "", "Whether answers to GET are kept in memory as RFC 9111 has it, and given to others who ask for the same."),
    row(Upstreams, "CACHE_DEFAULT_TTL_MS", Integer(0, DAY_MS), Value("5000"), "ms", "For how long an answer is fresh that says nothing of it, where its status allows that; 0: it is not kept."),
    row(Upstreams, "CACHE_MAX_BODY_BYTES", Integer(1, BYTES), Value("262144"), "bytes", "The most bytes of a body that is kept."),
    row(Upstreams, "CACHE_MAX_TOTAL_BYTES", Integer(1, BYTES), Value("67108864"), "bytes", "The most bytes of all answers that are kept; those that are least asked for go first.").memory("this, and bodies under way"),
    row(Upstreams, "CACHE_WAIT_MS", Integer(0, DAY_MS), Value("5000"), "ms", "How long a request waits for another one's answer to the same before it asks as well."),

    row(Operations, "ENABLE_DOCS", Boolean, Computed("false in production, else true"), "", "Whether `/docs` shows the calls of `/openapi.json`."),
    row(Operations, "ENABLE_REDOC", Boolean, Computed("as ENABLE_DOCS"), "", "Whether `/redoc` shows them too, as in the FastAPI gateway: the same page."),
    row(Operations, "LOG_LEVEL", Text(value::log_level, "off, error, warn, info, debug or trace (pino's and Python's names too), or a filter as info,fanfare=debug"), Value("info"), "", "What is logged.").alias(&["LOGGING_LEVEL"]),
    row(Operations, "LOG_FORMAT", Text(value::log_format, "json or pretty"), Computed("pretty on a terminal outside production, else json"), "", "How a log line looks."),
    row(Operations, "UNDER_PRESSURE_MAX_EVENT_LOOP_DELAY_MS", Integer(1, 3_600_000), Value("1000"), "milliseconds", "How late a worker's loop may be before `/_pressure` says so and new streams and WebSockets are answered 503; four times as late, requests to upstreams too."),
    row(Operations, "UNDER_PRESSURE_MAX_RSS_BYTES", Integer(1, i64::MAX as u64), Unset, "bytes", "How much memory the process may hold before `/_pressure` says so and new streams and WebSockets are answered 503; an eighth more, requests to upstreams too."),
    row(Operations, "UNDER_PRESSURE_MAX_HEAP_USED_BYTES", Integer(1, i64::MAX as u64), Unset, "bytes", "The same for memory that no file holds: heap and stacks."),
    row(Operations, "UNDER_PRESSURE_MAX_IN_FLIGHT", Integer(1, MANY), Unset, "requests", "How many requests may be under way at `/api` before `/_pressure` says so and further ones are answered 503."),
    row(Operations, "METRICS_ENABLED", Boolean, Value("true"), "", "Whether `/metrics` is served."),
];

/// A variable of the systems that Fanfare stands in for that has no effect in this version.
pub(super) struct NotYet {
    pub(super) name: &'static str,
    /// Why a node that is told so must not start; `None` where a warning is enough.
    pub(super) refusal: Option<&'static str>,
}

const fn ignored(name: &'static str) -> NotYet {
    NotYet {
        name,
        refusal: None,
    }
}

const fn refused(name: &'static str, why: &'static str) -> NotYet {
    NotYet {
        name,
        refusal: Some(why),
    }
}

/// Where ignoring would make the operator believe in something that is not there (other nodes, encryption), the node
/// refuses to start.
#[rustfmt::skip]
pub(super) const NOT_YET: &[NotYet] = &[
    refused("LISTEN", "is set, but this version has one listener only, HOST and PORT"),
    ignored("RATE_LIMIT_TIERS"),
    ignored("TRACING_ENABLED"),
    ignored("TRACING_ENDPOINT"),
];

/// Names that begin so are ours: one that no row has is mistyped or of another version, and worth a warning.
pub(super) const OUR_PREFIXES: [&str; 14] = [
    "WS_",
    "WEBSOCKETS_",
    "JWT_",
    "SSE_",
    "INBOX_",
    "DRAIN_",
    "TLS_",
    "CACHE_",
    "SESSION_",
    "WEBHOOK_",
    "EVENT_",
    "CONSENT_",
    "PASSWORD_",
    "LOGIN_",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_stands_twice() {
        let mut names: Vec<&str> = VARIABLES
            .iter()
            .flat_map(|variable| variable.aliases.iter().copied().chain([variable.name]))
            .chain(NOT_YET.iter().map(|not_yet| not_yet.name))
            .collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn every_default_keeps_its_own_rule() {
        for variable in VARIABLES {
            let Value(default) = variable.default else {
                continue;
            };
            let fits = match variable.kind {
                Boolean => value::boolean(default).is_some(),
                Integer(least, most) => default
                    .parse()
                    .is_ok_and(|number| (least..=most).contains(&number)),
                Text(normalise, _) => normalise(default).as_deref() == Some(default),
            };
            assert!(fits, "{}", variable.name);
        }
    }

    #[test]
    fn every_row_says_what_it_is() {
        for variable in VARIABLES {
            assert!(
                variable.doc.ends_with('.') && !variable.doc.contains('|'),
                "{}",
                variable.name
            );
            assert!(
                !variable.secret || variable.default == Unset,
                "{}",
                variable.name
            );
        }
    }
}
