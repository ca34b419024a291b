//! Grafana's dashboard, made from the table of metrics: a panel for each metric that exists, with what it means and what
//! to do when it moves. This test holds `deploy/grafana/dashboards/fanfare.json` to that; after a change of the table
//! `FANFARE_UPDATE_DOCS=1 cargo test --test dashboard` writes it anew.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use fanfare::telemetry::table::{ALIASES, Kind, METRICS, Metric};
use serde_json::{Value, json};

/// Rows of the dashboard below the overview, with the metrics that stand in each; what none names stands in the last.
const ROWS: [(&str, &[&str]); 5] = [
    (
        "Clients",
        &[
            "fanfare_connections",
            "fanfare_subscriptions",
            "fanfare_channels",
            "fanfare_closes_total",
            "fanfare_handshake_refusals_total",
            "fanfare_commands_total",
        ],
    ),
    (
        "Publications",
        &[
            "fanfare_publications_total",
            "fanfare_deliveries_total",
            "fanfare_delivered_bytes_total",
            "fanfare_fan_out_seconds",
            "fanfare_pending_bytes",
            "fanfare_drops_total",
            "fanfare_gaps_total",
            "fanfare_holes_total",
        ],
    ),
    (
        "HTTP and upstreams",
        &[
            "fanfare_http_requests_total",
            "fanfare_http_request_duration_seconds",
            "gateway_http_request_duration_seconds",
            "gateway_websocket_connections",
            "fanfare_upstream_connections_total",
            "fanfare_upstream_retries_total",
            "fanfare_upstream_breaker_opened_total",
            "fanfare_upstream_failed_open_total",
            "fanfare_events_total",
            "fanfare_consents_total",
            "fanfare_consent_duration_seconds",
        ],
    ),
    (
        "Processes",
        &[
            "fanfare_loop_delay_seconds",
            "fanfare_process_cpu_seconds",
            "fanfare_process_resident_bytes",
            "fanfare_process_open_fds",
            "fanfare_process_max_fds",
            "fanfare_process_threads",
            "fanfare_log_lines_dropped_total",
        ],
    ),
    ("Fleet", &[]),
];

/// The numbers at the top: what one looks at first. Title, unit, query, and from where on it is red.
const OVERVIEW: [(&str, &str, &str, Option<f64>); 6] = [
    (
        "Connections",
        "short",
        "sum(fanfare_connections{instance=~\"$instance\"})",
        None,
    ),
    (
        "Nodes",
        "short",
        "count(fanfare_uptime_seconds{instance=~\"$instance\"})",
        None,
    ),
    (
        "Publications",
        "cps",
        "sum(rate(fanfare_publications_total{instance=~\"$instance\"}[$__rate_interval]))",
        None,
    ),
    (
        "Deliveries",
        "cps",
        "sum(rate(fanfare_deliveries_total{instance=~\"$instance\"}[$__rate_interval]))",
        None,
    ),
    (
        "Loop delay, p99",
        "s",
        "histogram_quantile(0.99, sum by (le) (rate(fanfare_loop_delay_seconds_bucket{instance=~\"$instance\"}[$__rate_interval])))",
        Some(0.05),
    ),
    (
        "Nodes without broker",
        "short",
        "count(fanfare_broker_ready{instance=~\"$instance\"} == 0) or vector(0)",
        Some(1.0),
    ),
];

/// Grafana's grid is this wide.
const GRID: u64 = 24;
/// A panel for a metric: three beside each other.
const WIDTH: u64 = 8;
const HEIGHT: u64 = 7;

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/grafana/dashboards/fanfare.json")
}

/// Panels laid from left to right and from top to bottom.
#[derive(Default)]
struct Board {
    panels: Vec<Value>,
    x: u64,
    y: u64,
    line: u64,
}

impl Board {
    fn put(&mut self, (width, height): (u64, u64), mut panel: Value) {
        if self.x + width > GRID {
            self.break_line();
        }
        panel["id"] = json!(self.panels.len() + 1);
        panel["gridPos"] = json!({"x": self.x, "y": self.y, "w": width, "h": height});
        self.panels.push(panel);
        self.x += width;
        self.line = self.line.max(height);
    }

    fn break_line(&mut self) {
        self.y += self.line;
        self.x = 0;
        self.line = 0;
    }

    fn row(&mut self, title: &str) {
        self.break_line();
        self.put(
            (GRID, 1),
            json!({"type": "row", "title": title, "collapsed": false, "panels": []}),
        );
        self.break_line();
    }
}

fn source() -> Value {
    json!({"type": "prometheus", "uid": "${source}"})
}

fn target(index: usize, query: &str, legend: &str) -> Value {
    let letter = char::from(b'A' + u8::try_from(index).expect("a few queries"));
    json!({"refId": letter, "datasource": source(), "expr": query, "legendFormat": legend})
}

fn stat((title, unit, query, red): (&str, &str, &str, Option<f64>)) -> Value {
    let mut steps = vec![json!({"color": "green", "value": null})];
    steps.extend(red.map(|from| json!({"color": "red", "value": from})));
    json!({
        "type": "stat",
        "title": title,
        "datasource": source(),
        "targets": [target(0, query, "")],
        "fieldConfig": {
            "defaults": {"unit": unit, "thresholds": {"mode": "absolute", "steps": steps}},
            "overrides": [],
        },
        "options": {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value", "graphMode": "area"},
    })
}

fn graph(title: &str, about: &str, unit: &str, queries: &[(String, &str)]) -> Value {
    let targets: Vec<Value> = queries
        .iter()
        .enumerate()
        .map(|(index, (query, legend))| target(index, query, legend))
        .collect();
    json!({
        "type": "timeseries",
        "title": title,
        "description": about,
        "datasource": source(),
        "targets": targets,
        "fieldConfig": {
            "defaults": {"unit": unit, "min": 0, "custom": {"fillOpacity": 10, "showPoints": "never"}},
            "overrides": [],
        },
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom"},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
    })
}

/// What is asked for one metric, and the text of each line.
fn queries(name: &str, kind: Kind, labels: &[&str]) -> Vec<(String, &'static str)> {
    let only = "{instance=~\"$instance\"}";
    let by = match labels {
        [] => "instance".to_owned(),
        labels => labels.join(", "),
    };
    // A label each is a line; with more the names stand for themselves.
    let legend = match labels {
        [] => "{{instance}}",
        _ => "",
    };
    let rate = |name: &str| format!("rate({name}{only}[$__rate_interval])");
    match kind {
        // Seconds of a process that only grow, though they are a gauge: cores in use.
        Kind::Gauge if name.ends_with("_cpu_seconds") => vec![(rate(name), legend)],
        Kind::Gauge => vec![(format!("sum by ({by}) ({name}{only})"), legend)],
        // Some two hundred, most of which stay 0.
        Kind::Counter if labels.contains(&"route") => {
            vec![(format!("sum by ({by}) ({}) > 0", rate(name)), legend)]
        }
        Kind::Counter => vec![(format!("sum by ({by}) ({})", rate(name)), legend)],
        Kind::Histogram(_) => [(0.5, "p50"), (0.99, "p99"), (0.999, "p99.9")]
            .map(|(quantile, legend)| {
                let buckets = rate(&format!("{name}_bucket"));
                let query = format!("histogram_quantile({quantile}, sum by (le) ({buckets}))");
                (query, legend)
            })
            .into(),
    }
}

fn unit(name: &str, kind: Kind) -> &'static str {
    match kind {
        _ if name.ends_with("_cpu_seconds") => "short",
        Kind::Counter if name.ends_with("_bytes_total") => "Bps",
        Kind::Counter => "cps",
        _ if name.ends_with("_seconds") => "s",
        _ if name.ends_with("_bytes") => "bytes",
        _ => "short",
    }
}

fn panel(metric: &Metric) -> Value {
    let about = format!("{} {}", metric.meaning, metric.advice);
    graph(
        metric.name,
        &about,
        unit(metric.name, metric.kind),
        &queries(metric.name, metric.kind, metric.labels),
    )
}

fn metric(name: &str) -> &'static Metric {
    let found = METRICS.iter().find(|metric| metric.name == name);
    found.unwrap_or_else(|| panic!("a row names {name}, which is no metric"))
}

/// The metrics of a row: those that it names, and in the last row those that no other names.
fn members(index: usize) -> Vec<&'static Metric> {
    if index + 1 < ROWS.len() {
        return ROWS[index].1.iter().map(|name| metric(name)).collect();
    }
    let named: BTreeSet<&str> = ROWS
        .iter()
        .flat_map(|(_, names)| names.iter().copied())
        .collect();
    let rest = METRICS.iter();
    rest.filter(|metric| !named.contains(metric.name)).collect()
}

fn panels() -> Vec<Value> {
    let mut board = Board::default();
    for overview in OVERVIEW {
        board.put((4, 4), stat(overview));
    }
    for (index, (title, _)) in ROWS.iter().enumerate() {
        board.row(title);
        for metric in members(index) {
            board.put((WIDTH, HEIGHT), panel(metric));
        }
    }
    board.row("Second names, which dashboards of the FastAPI gateway ask for");
    for (alias, name) in ALIASES {
        let Metric { kind, labels, .. } = *metric(name);
        let about = format!("Another name of {name}.");
        let graph = graph(
            alias,
            &about,
            unit(name, kind),
            &queries(alias, kind, labels),
        );
        board.put((WIDTH, HEIGHT), graph);
    }
    board.panels
}

fn dashboard() -> Value {
    json!({
        "uid": "fanfare",
        "title": "Fanfare",
        "tags": ["fanfare"],
        "schemaVersion": 39,
        "version": 1,
        "editable": false,
        "graphTooltip": 1,
        "refresh": "5s",
        "time": {"from": "now-30m", "to": "now"},
        "templating": {"list": [
            {
                "name": "source",
                "label": "Source",
                "type": "datasource",
                "query": "prometheus",
            },
            {
                "name": "instance",
                "label": "Node",
                "type": "query",
                "datasource": source(),
                "query": {"query": "label_values(fanfare_uptime_seconds, instance)", "refId": "instance"},
                "refresh": 2,
                "multi": true,
                "includeAll": true,
                "allValue": ".*",
                "current": {"text": "All", "value": "$__all"},
            },
        ]},
        "panels": panels(),
    })
}

#[test]
fn the_dashboard_shows_every_metric_that_exists() {
    let wanted = serde_json::to_string_pretty(&dashboard()).expect("JSON") + "\n";
    if std::env::var_os("FANFARE_UPDATE_DOCS").is_some() {
        // At once, because the other tests read it meanwhile.
        let new = file().with_extension("new");
        std::fs::write(&new, &wanted).expect("written");
        std::fs::rename(new, file()).expect("put in its place");
    }
    let found = std::fs::read_to_string(file()).unwrap_or_default();
    assert!(
        found == wanted,
        "deploy/grafana/dashboards/fanfare.json is not what the table of metrics gives; \
         FANFARE_UPDATE_DOCS=1 cargo test --test dashboard writes it"
    );
}

/// Read from the file alone, so that a fault of what makes it shows.
#[test]
fn every_query_asks_for_a_metric_and_every_metric_is_asked_for() {
    let text = std::fs::read_to_string(file()).expect("the dashboard");
    let board: Value = serde_json::from_str(&text).expect("JSON");
    let panels = board["panels"].as_array().expect("panels");
    let queries = panels
        .iter()
        .filter_map(|panel| panel["targets"].as_array())
        .flatten()
        .map(|target| target["expr"].as_str().expect("a query"));
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let asked: BTreeSet<&str> = queries
        .flat_map(|query| query.split(move |c| !is_part(c)))
        .filter(|word| word.contains('_'))
        .filter(|word| !["histogram_quantile", "__rate_interval"].contains(word))
        .map(|word| word.strip_suffix("_bucket").unwrap_or(word))
        .collect();
    let mut exist: BTreeSet<&str> = METRICS.iter().map(|metric| metric.name).collect();
    exist.extend(ALIASES.iter().map(|alias| alias.0));
    assert_eq!(asked, exist);
}

#[test]
fn no_two_panels_overlap() {
    let mut taken = BTreeSet::new();
    for panel in panels() {
        let at = |name: &str| panel["gridPos"][name].as_u64().expect("a number");
        for x in at("x")..at("x") + at("w") {
            assert!(x < GRID, "{panel}");
            for y in at("y")..at("y") + at("h") {
                assert!(taken.insert((x, y)), "{panel}");
            }
        }
    }
}
