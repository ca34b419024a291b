//! What the embedded broker can be told.

/// Bounds of what the memory broker keeps.
#[derive(Debug, Clone)]
pub struct Config {
    /// The most bytes of kept publications over all channels (`HISTORY_MAX_BYTES`); the least recently used channels'
    /// oldest publications go first.
    pub history_bytes_max: usize,
    /// The most channels that are remembered (`MAX_CHANNELS`).
    pub channels_max: usize,
    /// The most idempotency keys that are remembered (`MAX_IDEMPOTENCY_KEYS`).
    pub idempotency_keys_max: usize,
}
