//! What the admin room can be told.

use std::time::Duration;

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
}

impl Config {
    /// Whether a node with this loop delay and this much memory is under pressure.
    pub fn is_exceeded(&self, loop_delay: Duration, resident_bytes: Option<u64>) -> bool {
        let is_large = self
            .resident_bytes_max
            .zip(resident_bytes)
            .is_some_and(|(most, bytes)| bytes > most);
        loop_delay > self.loop_delay_max || is_large
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
        }
    }
}
