//! Every metric that exists: name, type, labels, meaning, and what to do when it moves.
//!
//! The one list. It feeds the descriptions that `/metrics` carries, the buckets of the histograms and the test that
//! holds `docs/METRICS.md` to the code. A metric that is not in it is a defect.

/// What kind of number a metric is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Only grows, from 0 at the start of the process.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts of observations by upper bound, with their sum and number.
    Histogram(&'static [f64]),
}

impl Kind {
    /// The word of the exposition format.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// One metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metric {
    /// The name on `/metrics`.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// The label names. Each has a closed list of values: never a channel, a user or a path.
    pub labels: &'static [&'static str],
    /// What it counts.
    pub meaning: &'static str,
    /// What an operator does when it moves.
    pub advice: &'static str,
}

/// Seconds from 10 us to 1 s: a fan-out to one subscriber takes microseconds, one to 10,000 about 50 ms.
const FAN_OUT_BUCKETS: &[f64] = &[
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025,
    0.05, 0.1, 0.25, 1.0,
];
/// Seconds from 0.1 ms to 5 s: a healthy loop is under 5 ms late, a blocked one over a second.
const LOOP_DELAY_BUCKETS: &[f64] = &[
    0.000_1, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0,
];
/// Seconds from 50 us to 5 s: the memory broker answers in microseconds, a broker that is away after 2 s.
const HTTP_BUCKETS: &[f64] = &[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5, 5.0,
];

/// Names, so that the callers and the table cannot drift apart.
pub(super) mod name {
    pub(in crate::telemetry) const CONNECTIONS: &str = "fanfare_connections";
    pub(in crate::telemetry) const SUBSCRIPTIONS: &str = "fanfare_subscriptions";
    pub(in crate::telemetry) const CHANNELS: &str = "fanfare_channels";
    pub(in crate::telemetry) const PENDING_BYTES: &str = "fanfare_pending_bytes";
    pub(in crate::telemetry) const PUBLICATIONS: &str = "fanfare_publications_total";
    pub(in crate::telemetry) const DELIVERIES: &str = "fanfare_deliveries_total";
    pub(in crate::telemetry) const DELIVERED_BYTES: &str = "fanfare_delivered_bytes_total";
    pub(in crate::telemetry) const FAN_OUT: &str = "fanfare_fan_out_seconds";
    pub(in crate::telemetry) const DROPS: &str = "fanfare_drops_total";
    pub(in crate::telemetry) const GAPS: &str = "fanfare_gaps_total";
    pub(in crate::telemetry) const HOLES: &str = "fanfare_holes_total";
    pub(in crate::telemetry) const CLOSES: &str = "fanfare_closes_total";
    pub(in crate::telemetry) const REFUSALS: &str = "fanfare_handshake_refusals_total";
    pub(in crate::telemetry) const COMMANDS: &str = "fanfare_commands_total";
    pub(in crate::telemetry) const HTTP_REQUESTS: &str = "fanfare_http_requests_total";
    pub(in crate::telemetry) const HTTP_DURATION: &str = "fanfare_http_request_duration_seconds";
    pub(in crate::telemetry) const LOOP_DELAY: &str = "fanfare_loop_delay_seconds";
    pub(in crate::telemetry) const BROKER_READY: &str = "fanfare_broker_ready";
    pub(in crate::telemetry) const DRAINING: &str = "fanfare_draining";
    pub(in crate::telemetry) const LOG_LINES_DROPPED: &str = "fanfare_log_lines_dropped_total";
    pub(in crate::telemetry) const BUILD_INFO: &str = "fanfare_build_info";
    pub(in crate::telemetry) const UPTIME: &str = "fanfare_uptime_seconds";
    pub(in crate::telemetry) const CERTIFICATE_READS: &str = "fanfare_certificate_reads_total";
    pub(in crate::telemetry) const RESIDENT_BYTES: &str = "fanfare_process_resident_bytes";
    pub(in crate::telemetry) const OPEN_FDS: &str = "fanfare_process_open_fds";
    pub(in crate::telemetry) const MAX_FDS: &str = "fanfare_process_max_fds";
    pub(in crate::telemetry) const CPU_SECONDS: &str = "fanfare_process_cpu_seconds";
    pub(in crate::telemetry) const THREADS: &str = "fanfare_process_threads";
    pub(in crate::telemetry) const GATEWAY_DURATION: &str = "gateway_http_request_duration_seconds";
    pub(in crate::telemetry) const GATEWAY_WEB_SOCKETS: &str = "gateway_websocket_connections";
    pub(in crate::telemetry) const CACHE_REQUESTS: &str = "fanfare_cache_requests_total";
    pub(in crate::telemetry) const UPSTREAM_CONNECTIONS: &str =
        "fanfare_upstream_connections_total";
    pub(in crate::telemetry) const UPSTREAM_RETRIES: &str = "fanfare_upstream_retries_total";
    pub(in crate::telemetry) const BREAKER_OPENED: &str = "fanfare_upstream_breaker_opened_total";
    pub(in crate::telemetry) const EVENTS: &str = "fanfare_events_total";
    pub(in crate::telemetry) const CONSENTS: &str = "fanfare_consents_total";
    pub(in crate::telemetry) const CONSENT_DURATION: &str = "fanfare_consent_duration_seconds";
    pub(in crate::telemetry) const FAILED_OPEN: &str = "fanfare_upstream_failed_open_total";
    pub(in crate::telemetry) const UPSTREAM_HEALTH_CHANGES: &str =
        "fanfare_upstream_health_changes_total";
    pub(in crate::telemetry) const SHARED_SOURCES: &str = "fanfare_shared_sources";
    pub(in crate::telemetry) const FLEET_NODES: &str = "fanfare_fleet_nodes";
    pub(in crate::telemetry) const FLEET_NODES_LOST: &str = "fanfare_fleet_nodes_lost_total";
    pub(in crate::telemetry) const SETTINGS_DIFFER: &str = "fanfare_settings_differ";
    pub(in crate::telemetry) const LIMITED_ALONE: &str = "fanfare_requests_limited_alone_total";
    pub(in crate::telemetry) const RELOADS: &str = "fanfare_reloads_total";
}

/// Names that the FastAPI gateway gave, each a second name of one of ours. They are written when the text is
/// rendered, so that they cost nothing while counting.
pub const ALIASES: [(&str, &str); 3] = [
    ("ws_messages_total", name::COMMANDS),
    ("http_requests_total", name::HTTP_REQUESTS),
    ("request_latency_seconds", name::HTTP_DURATION),
];

const fn metric(
    name: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    meaning: &'static str,
    advice: &'static str,
) -> Metric {
    Metric {
        name,
        kind,
        labels,
        meaning,
        advice,
    }
}

/// Every metric of this process, in the order of `docs/METRICS.md`.
pub const METRICS: [Metric; 45] = [
    metric(
        name::CONNECTIONS,
        Kind::Gauge,
        &["transport"],
        "Open client connections.",
        "Near the most connections: add nodes. A cliff: look at closes by reason.",
    ),
    metric(
        name::SUBSCRIPTIONS,
        Kind::Gauge,
        &[],
        "Subscriptions of all connections.",
        "Grows while connections do not: clients subscribe without unsubscribing.",
    ),
    metric(
        name::CHANNELS,
        Kind::Gauge,
        &[],
        "Channels with a subscriber on this node.",
        "Each costs memory; compare with what the application should have.",
    ),
    metric(
        name::PENDING_BYTES,
        Kind::Gauge,
        &[],
        "Bytes in send queues that no socket has taken yet.",
        "Rising: clients read too slowly, or the network is full. Its bound is WS_TOTAL_BUFFERED_BYTES.",
    ),
    metric(
        name::PUBLICATIONS,
        Kind::Counter,
        &["door"],
        "Publications accepted, by the door they came in.",
        "The load that you send; compare with deliveries for the fan-out factor.",
    ),
    metric(
        name::DELIVERIES,
        Kind::Counter,
        &[],
        "Publications put into a subscriber's send queue.",
        "The load that the node carries; about a microsecond of one core each, less when they coalesce.",
    ),
    metric(
        name::DELIVERED_BYTES,
        Kind::Counter,
        &[],
        "Bytes of the frames delivered.",
        "Near the network's capacity: shorten publications or add nodes.",
    ),
    metric(
        name::FAN_OUT,
        Kind::Histogram(FAN_OUT_BUCKETS),
        &[],
        "Time to hand one batch of publications to all subscribers of a worker.",
        "The high end grows: channels are large or the processor is short; add workers or nodes.",
    ),
    metric(
        name::DROPS,
        Kind::Counter,
        &["reason"],
        "Pending publications thrown away because of a slow consumer.",
        "Clients are told by a gap or a close. Rising: clients are slow, or the buffer per connection is small.",
    ),
    metric(
        name::GAPS,
        Kind::Counter,
        &[],
        "Gaps told to clients.",
        "Clients lost something and know it; see drops and holes for the cause.",
    ),
    metric(
        name::HOLES,
        Kind::Counter,
        &[],
        "Times that envelopes between nodes may have been missed and were looked up in the stream.",
        "Rising: the broker's connection breaks, or a worker's inbox is full.",
    ),
    metric(
        name::CLOSES,
        Kind::Counter,
        &["reason"],
        "Connections ended, by close reason.",
        "slow_consumer, no_pong: networks. over_capacity: add nodes. internal_error: read the log, report it.",
    ),
    metric(
        name::REFUSALS,
        Kind::Counter,
        &["reason"],
        "Connections refused before they began.",
        "unauthorized: keys or clocks differ. over_capacity, handshakes: add nodes or raise the bound. per_address: a client that opens without end, or a proxy that TRUSTED_PROXIES does not name.",
    ),
    metric(
        name::COMMANDS,
        Kind::Counter,
        &["type"],
        "Messages that clients sent over WebSocket, by type.",
        "Many of type unknown or invalid: a client speaks another protocol.",
    ),
    metric(
        name::HTTP_REQUESTS,
        Kind::Counter,
        &["route", "status"],
        "HTTP requests answered, by route and class of status.",
        "4xx: a back end sends what it should not. 5xx: the broker is away or the node is full.",
    ),
    metric(
        name::HTTP_DURATION,
        Kind::Histogram(HTTP_BUCKETS),
        &["route", "status"],
        "Time from the request's head to its answer.",
        "Grows with loop delay: the node is overloaded. Grows alone: the broker is slow.",
    ),
    metric(
        name::LOOP_DELAY,
        Kind::Histogram(LOOP_DELAY_BUCKETS),
        &[],
        "How much later than asked a worker's loop woke up.",
        "Over 50 ms: the worker has more to do than one core; add workers or nodes.",
    ),
    metric(
        name::BROKER_READY,
        Kind::Gauge,
        &[],
        "1 while the broker can be reached, 0 while not.",
        "0: publishers get 503; look at the broker.",
    ),
    metric(
        name::DRAINING,
        Kind::Gauge,
        &[],
        "1 while the node drains.",
        "1 outside a deploy: somebody stopped the process.",
    ),
    metric(
        name::LOG_LINES_DROPPED,
        Kind::Counter,
        &[],
        "Log lines thrown away because the log's reader was too slow.",
        "Rising: lower LOG_LEVEL or fix what reads the log. Serving is never held up by it.",
    ),
    metric(
        name::BUILD_INFO,
        Kind::Gauge,
        &["version"],
        "Always 1; the label says which version runs.",
        "Two versions at once: a deploy is under way or was left half done.",
    ),
    metric(
        name::UPTIME,
        Kind::Gauge,
        &[],
        "Seconds since the process started.",
        "Falls: the process restarted.",
    ),
    metric(
        name::CERTIFICATE_READS,
        Kind::Counter,
        &["result"],
        "Times that changed files of `TLS_CERT` and `TLS_KEY` were read: `taken`, or `failed` and the certificate stays.",
        "Failed grows: the files are no pair, or broken; the log says why.",
    ),
    metric(
        name::RESIDENT_BYTES,
        Kind::Gauge,
        &[],
        "Resident memory of the process (Linux).",
        "Grows without connections or pending bytes growing: report it.",
    ),
    metric(
        name::OPEN_FDS,
        Kind::Gauge,
        &[],
        "Open file descriptors (Linux).",
        "Near the maximum: raise the limit (ulimit -n); accepting pauses at the edge.",
    ),
    metric(
        name::MAX_FDS,
        Kind::Gauge,
        &[],
        "The soft limit of file descriptors.",
        "Compare with the connections that you expect, plus a hundred.",
    ),
    metric(
        name::CPU_SECONDS,
        Kind::Gauge,
        &[],
        "Processor time used since the start, user and system (Linux).",
        "Its rate near the number of workers: the node is at its limit.",
    ),
    metric(
        name::THREADS,
        Kind::Gauge,
        &[],
        "Threads of the process (Linux).",
        "Constant after the start; growing threads are a defect.",
    ),
    metric(
        name::GATEWAY_DURATION,
        Kind::Histogram(HTTP_BUCKETS),
        &["tenant_id", "method", "route", "status_code"],
        "Time from the head of a proxied request to the head of its answer; `tenant_id` is empty.",
        "Grows: an upstream is slow; `/admin/stats` says which. 502, 504: it is away.",
    ),
    metric(
        name::GATEWAY_WEB_SOCKETS,
        Kind::Gauge,
        &[],
        "WebSockets that are carried to upstreams.",
        "Each takes two connections and about 8 KB.",
    ),
    metric(
        name::CACHE_REQUESTS,
        Kind::Counter,
        &["result"],
        "Requests that the cache could answer: `hit`, `collapsed` (it waited for another one's answer), `revalidated`, `stale_on_error`, `miss` (kept now), `pass` (not kept).",
        "Few hits: answers say that they are not to be kept, or vary too much; `Cache-Status` of an answer says why.",
    ),
    metric(
        name::UPSTREAM_CONNECTIONS,
        Kind::Counter,
        &[],
        "Connections to upstreams that were begun.",
        "Near the rate of requests: upstreams close their connections instead of keeping them.",
    ),
    metric(
        name::UPSTREAM_RETRIES,
        Kind::Counter,
        &["outcome"],
        "Requests that an upstream failed and another was to answer: made, or spent when the budget was.",
        "Rising: an upstream fails. spent: most of them do.",
    ),
    metric(
        name::BREAKER_OPENED,
        Kind::Counter,
        &[],
        "Times that an upstream's circuit breaker opened: five failures within ten seconds, or as its service says.",
        "The log says which upstream; it gets no requests but probes, the first after fifteen seconds.",
    ),
    metric(
        name::FAILED_OPEN,
        Kind::Counter,
        &[],
        "Requests of whose service no upstream was taken to be well, so that all were.",
        "A whole service is down.",
    ),
    metric(
        name::UPSTREAM_HEALTH_CHANGES,
        Kind::Counter,
        &["to"],
        "Times that health checks found an upstream ill, or well again.",
        "The log says which one. Both rising together: it is overloaded, or the time-out too short.",
    ),
    metric(
        name::SHARED_SOURCES,
        Kind::Gauge,
        &[],
        "Upstream streams that this node reads for all who share them.",
        "Falls while subscribers stay: an upstream closes its streams, or another node reads them now.",
    ),
    metric(
        name::FLEET_NODES,
        Kind::Gauge,
        &[],
        "Nodes of the fleet that were alive when it was last known; 1 on a node that is alone.",
        "Less than you run: some do not reach Redis. Limits of rate are divided by it while Redis is away.",
    ),
    metric(
        name::FLEET_NODES_LOST,
        Kind::Counter,
        &[],
        "Nodes that went without taking leave of the fleet, counted by the node that found it out, some ten seconds later.",
        "A process crashed or was killed, its machine failed, or it does not reach Redis. Its clients are on other nodes by now.",
    ),
    metric(
        name::SETTINGS_DIFFER,
        Kind::Gauge,
        &["group"],
        "Nodes of the fleet that have other settings than this one where all must have the same, by what they are about.",
        "Above 0 for longer than a deploy: the log names the nodes. Give all of them the same settings.",
    ),
    metric(
        name::LIMITED_ALONE,
        Kind::Counter,
        &[],
        "Requests to upstreams that a node of a fleet counted by itself, against its part of the limit.",
        "Rising: Redis is away, or takes longer than a quarter of a second.",
    ),
    metric(
        name::RELOADS,
        Kind::Counter,
        &["outcome"],
        "Times that the configuration was read again, on SIGHUP or because its file changed.",
        "failed: the file is faulty, the log says where; what was before stays.",
    ),
    metric(
        name::EVENTS,
        Kind::Counter,
        &["way", "outcome"],
        "Lifecycle events for back ends, by webhook or stream: told, repeated because they were not taken, or dropped.",
        "repeated: the receiver fails or is slow. dropped: it did so for too long, or refuses what it gets.",
    ),
    metric(
        name::CONSENTS,
        Kind::Counter,
        &["ask", "outcome"],
        "Questions to back ends whether a client may connect, subscribe or publish: allowed, denied, answered by what was kept, or nobody could say.",
        "timed_out, unreachable, faulty, full: clients are told to try again; the log says why. full: raise CONSENT_CONCURRENCY, or give answers a ttl.",
    ),
    metric(
        name::CONSENT_DURATION,
        Kind::Histogram(HTTP_BUCKETS),
        &["ask"],
        "Time that a back end took to answer such a question, or not to.",
        "Clients wait as long to connect, subscribe or publish.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// The chapter's rows, as the table says them.
    fn rows() -> String {
        use std::fmt::Write as _;
        let mut text = String::new();
        for metric in &METRICS {
            let labels = match metric.labels {
                [] => "-".to_owned(),
                labels => labels.join(", "),
            };
            let _ = writeln!(
                text,
                "| `{}` | {} | {labels} | {} | {} |",
                metric.name,
                metric.kind.as_str(),
                metric.meaning,
                metric.advice
            );
        }
        for (alias, name) in ALIASES {
            let _ = writeln!(
                text,
                "| `{alias}` | as `{name}` | as there | Another name of `{name}`. | As there. |"
            );
        }
        text
    }

    #[test]
    fn the_metrics_chapter_says_what_the_table_says() {
        let chapter = include_str!("../../docs/METRICS.md");
        let rows = rows();
        assert!(chapter.ends_with(&rows), "the rows should be:\n{rows}");
    }

    #[test]
    fn names_are_unique_and_begin_with_ours() {
        for (index, metric) in METRICS.iter().enumerate() {
            // The Fastify gateway gave the other prefix.
            let is_ours = ["fanfare_", "gateway_"]
                .iter()
                .any(|prefix| metric.name.starts_with(prefix));
            assert!(is_ours, "{}", metric.name);
            assert!(
                METRICS[..index]
                    .iter()
                    .all(|other| other.name != metric.name),
                "{} stands twice",
                metric.name
            );
        }
    }

    #[test]
    fn buckets_grow() {
        for metric in METRICS {
            if let Kind::Histogram(buckets) = metric.kind {
                assert!(buckets.is_sorted(), "{}", metric.name);
            }
        }
    }
}
