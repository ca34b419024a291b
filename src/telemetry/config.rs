//! What the telemetry room can be told.

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For a terminal.
    Pretty,
}

/// Logs and metrics.
#[derive(Debug, Clone)]
pub struct Config {
    /// `off`, `error`, `warn`, `info`, `debug` or `trace` (`LOG_LEVEL`), or a `tracing` filter.
    pub log_level: String,
    /// `LOG_FORMAT`.
    pub log_format: LogFormat,
    /// Whether `/metrics` is served (`METRICS_ENABLED`).
    pub metrics: bool,
}
