//! Starts logs and metrics. Called once, by the start of the process, before anything is counted or logged.
//!
//! Logging never blocks a worker: lines go through a bounded queue to a thread of their own, and are dropped and
//! counted when that thread cannot keep up. Metrics are kept by the Prometheus recorder; somebody must call
//! [`Exporter::keep_up`], or histograms grow until the next scrape.

use std::ffi::OsStr;
use std::io::IsTerminal as _;

use ::metrics::{counter, gauge};
use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

use super::process::ProcessStats;
use super::table::{ALIASES, Kind, METRICS, name};
use super::{Config, LogFormat, WorkerCounts, consent, events, fleet, http, metrics, proxy};

/// Why logs or metrics could not start.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The log level is neither a level nor a filter.
    #[error("LOG_LEVEL is neither a level nor a filter: {0}")]
    LogLevel(#[from] tracing_subscriber::filter::ParseError),
    /// Somebody installed a subscriber before.
    #[error("logs were started before: {0}")]
    Logs(#[from] tracing::dispatcher::SetGlobalDefaultError),
    /// Somebody installed a recorder before.
    #[error("metrics were started before: {0}")]
    Metrics(#[from] BuildError),
}

/// Most log lines that wait for the writer: at 300 bytes a line about 5 MB.
const LOG_LINES_MAX: usize = 16_384;

/// Writes the remaining log lines when it is dropped: hold it until the end of `main`.
#[derive(Debug)]
pub struct LogGuard {
    _worker: WorkerGuard,
}

/// Renders `/metrics`. Cheap to clone.
#[derive(Clone)]
pub struct Exporter {
    /// `None` when metrics are off.
    prometheus: Option<PrometheusHandle>,
    log_lines_dropped: Option<ErrorCounter>,
}

/// Starts logs and, when they are on, metrics.
///
/// # Errors
/// When the level cannot be read, or either was started before in this process.
pub fn install(config: &Config) -> Result<(LogGuard, Exporter), SetupError> {
    let (guard, dropped) = install_logs(config)?;
    let mut exporter = Exporter::disabled();
    if config.metrics {
        exporter = install_metrics()?;
        exporter.log_lines_dropped = Some(dropped);
    }
    Ok((guard, exporter))
}

/// Starts metrics alone; for tests and tools that write no log.
///
/// # Errors
/// When they were started before in this process.
pub fn install_metrics() -> Result<Exporter, SetupError> {
    let recorder = recorder()?;
    let prometheus = recorder.handle();
    ::metrics::set_global_recorder(recorder).map_err(BuildError::from)?;
    describe();
    begin();
    gauge!(name::BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    Ok(Exporter {
        prometheus: Some(prometheus),
        log_lines_dropped: None,
    })
}

impl Exporter {
    /// One that renders nothing.
    pub const fn disabled() -> Self {
        Self {
            prometheus: None,
            log_lines_dropped: None,
        }
    }

    /// The text of `/metrics` with the process's own numbers as they are now; `None` when metrics are off.
    pub fn render(&self) -> Option<String> {
        let prometheus = self.prometheus.as_ref()?;
        ProcessStats::read().set_gauges();
        if let Some(dropped) = &self.log_lines_dropped {
            let lines = u64::try_from(dropped.dropped_lines()).unwrap_or(u64::MAX);
            counter!(name::LOG_LINES_DROPPED).absolute(lines);
        }
        Some(with_aliases(prometheus.render()))
    }

    /// Folds what was observed into buckets. To be called every few seconds: between two times each observation holds 16
    /// bytes.
    pub fn keep_up(&self) {
        if let Some(prometheus) = &self.prometheus {
            prometheus.run_upkeep();
        }
    }
}

/// A recorder with the buckets of the table; not yet installed.
pub(super) fn recorder() -> Result<PrometheusRecorder, BuildError> {
    let mut builder = PrometheusBuilder::new();
    for metric in &METRICS {
        if let Kind::Histogram(buckets) = metric.kind {
            builder =
                builder.set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), buckets)?;
        }
    }
    Ok(builder.build_recorder())
}

fn describe() {
    for metric in &METRICS {
        match metric.kind {
            Kind::Counter => ::metrics::describe_counter!(metric.name, metric.meaning),
            Kind::Gauge => ::metrics::describe_gauge!(metric.name, metric.meaning),
            Kind::Histogram(_) => ::metrics::describe_histogram!(metric.name, metric.meaning),
        }
    }
}

/// Lets what was never counted stand at 0: a counter that appears with its first event hides that event from `rate`.
fn begin() {
    // Each worker makes the same handles again for itself.
    drop(WorkerCounts::new());
    metrics::begin();
    http::begin();
    proxy::begin();
    fleet::begin();
    events::begin();
    consent::begin();
}

fn install_logs(config: &Config) -> Result<(LogGuard, ErrorCounter), SetupError> {
    let filter = EnvFilter::try_new(&config.log_level)?;
    let (writer, worker) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(LOG_LINES_MAX)
        .thread_name("log")
        .finish(std::io::stdout());
    let dropped = writer.error_counter();
    tracing::subscriber::set_global_default(subscriber(config.log_format, filter, writer))?;
    Ok((LogGuard { _worker: worker }, dropped))
}

fn subscriber(
    format: LogFormat,
    filter: EnvFilter,
    writer: NonBlocking,
) -> Box<dyn tracing::Subscriber + Send + Sync> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer);
    match format {
        LogFormat::Json => Box::new(
            builder
                .json()
                .flatten_event(true)
                .with_current_span(false)
                .with_span_list(false)
                .finish(),
        ),
        LogFormat::Pretty => {
            let no_color = std::env::var_os("NO_COLOR");
            let is_colored = is_colored(std::io::stdout().is_terminal(), no_color.as_deref());
            Box::new(builder.with_ansi(is_colored).finish())
        }
    }
}

/// Colours are for terminals whose owner did not say `NO_COLOR` (<https://no-color.org>), with any value but an empty one.
fn is_colored(is_terminal: bool, no_color: Option<&OsStr>) -> bool {
    is_terminal && no_color.is_none_or(OsStr::is_empty)
}

/// Repeats the lines of metrics that have another name under that name.
fn with_aliases(mut text: String) -> String {
    let mut repeated = String::new();
    for line in text.lines() {
        for (alias, name) in ALIASES {
            if let Some((head, rest)) = split_name(line, name) {
                repeated.extend([head, alias, rest, "\n"]);
            }
        }
    }
    text.push_str(&repeated);
    text
}

/// What stands before and after the metric's name, when the line is one of its lines.
fn split_name<'a>(line: &'a str, name: &str) -> Option<(&'a str, &'a str)> {
    let comment = ["# HELP ", "# TYPE "]
        .into_iter()
        .find(|comment| line.starts_with(comment))
        .map_or(0, str::len);
    let (head, line) = line.split_at(comment);
    let rest = line.strip_prefix(name)?;
    let is_whole = [" ", "{", "_bucket{", "_sum", "_count"];
    is_whole
        .iter()
        .any(|next| rest.starts_with(next))
        .then_some((head, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seed_names_stand_beside_ours() {
        let text = "# TYPE fanfare_http_requests_total counter\n\
             fanfare_http_requests_total{route=\"/hub/publish\",status=\"2xx\"} 3\n\
             fanfare_http_request_duration_seconds_sum{status=\"2xx\"} 0.5\n\
             fanfare_commands_total_other 1\n";
        let aliased = with_aliases(text.to_owned());
        assert!(aliased.starts_with(text));
        assert_eq!(
            &aliased[text.len()..],
            "# TYPE http_requests_total counter\n\
             http_requests_total{route=\"/hub/publish\",status=\"2xx\"} 3\n\
             request_latency_seconds_sum{status=\"2xx\"} 0.5\n"
        );
    }

    #[test]
    fn histograms_have_the_buckets_of_the_table() {
        let recorder = recorder().expect("the buckets are not empty");
        ::metrics::with_local_recorder(&recorder, || {
            ::metrics::histogram!(name::FAN_OUT).record(0.000_03);
        });
        let text = recorder.handle().render();
        assert!(
            text.contains("fanfare_fan_out_seconds_bucket{le=\"0.00005\"} 1"),
            "{text}"
        );
    }

    #[test]
    fn colours_are_for_terminals_that_want_them() {
        for (is_terminal, no_color, expected) in [
            (true, None, true),
            (true, Some(""), true),
            (true, Some("1"), false),
            (true, Some("0"), false),
            (false, None, false),
        ] {
            let said = no_color.map(OsStr::new);
            assert_eq!(is_colored(is_terminal, said), expected, "{no_color:?}");
        }
    }

    #[test]
    fn a_level_that_is_no_filter_is_refused() {
        let config = Config {
            log_level: "a=b=c".to_owned(),
            log_format: LogFormat::Json,
            metrics: false,
        };
        assert!(matches!(install(&config), Err(SetupError::LogLevel(_))));
    }
}
