//! What the embedded broker can be told.

/// Bounds of what the memory broker keeps.
#[derive(Debug, Clone)]
pub struct Config {
    /// The most bytes of kept publications over all channels, each counted with what keeping it costs
    /// (`HISTORY_MAX_BYTES`). At the edge the channel that was published to the longest ago gives up its oldest
    /// publications; who needed one of them is told that it is lost.
    pub history_bytes_max: usize,
    /// The most channels that are remembered (`MAX_CHANNELS`). At the edge an idle channel is forgotten before its time;
    /// when none is idle, a new one is refused as full. An empty one with a short name costs about 500 bytes.
    pub channels_max: usize,
    /// The most idempotency keys that are remembered (`MAX_IDEMPOTENCY_KEYS`), about 500 bytes each at worst. At the edge the
    /// oldest is forgotten before its five minutes: only a retry that late would publish again.
    pub idempotency_keys_max: usize,
}
