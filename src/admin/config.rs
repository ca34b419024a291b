//! What the admin room can be told.

use std::time::Duration;

use crate::telemetry::process::ProcessStats;

/// The page and the limits of `/_pressure`.
#[derive(Debug, Clone)]
pub struct Config {
    /// What the node is for: `development`, `test` or `production`.
    pub stage: &'static str,
    /// Whether `/` serves the demo page: in development only.
    pub page: bool,
    /// Loop delay over which the node is under pressure (`UNDER_PRESSURE_MAX_EVENT_LOOP_DELAY_MS`).
    pub loop_delay_max: Duration,
    /// Resident memory over which it is (`UNDER_PRESSURE_MAX_RSS_BYTES`); `None` is no limit.
    pub resident_bytes_max: Option<u64>,
    /// Memory that is no file's over which it is (`UNDER_PRESSURE_MAX_HEAP_USED_BYTES`); `None` is no limit.
    pub heap_bytes_max: Option<u64>,
}

impl Config {
    /// Whether a node with this loop delay and this much memory is under pressure.
    pub fn is_exceeded(&self, loop_delay: Duration, process: &ProcessStats) -> bool {
        let is_over = |most: Option<u64>, bytes: Option<u64>| {
            most.zip(bytes).is_some_and(|(most, bytes)| bytes > most)
        };
        loop_delay > self.loop_delay_max
            || is_over(self.resident_bytes_max, process.resident_bytes)
            || is_over(self.heap_bytes_max, process.heap_bytes)
    }
}

impl Default for Config {
    /// No page, a second of loop delay, any memory.
    fn default() -> Self {
        Self {
            stage: "test",
            page: false,
            loop_delay_max: Duration::from_secs(1),
            resident_bytes_max: None,
            heap_bytes_max: None,
        }
    }
}
