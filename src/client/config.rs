//! What the client room can be told.

use std::time::Duration;

/// Heartbeat and limits of one client's conversation.
#[derive(Debug, Clone)]
pub struct Config {
    /// Between protocol pings (`WS_PING_INTERVAL_MS`, or `WEBSOCKETS_PING_INTERVAL` seconds).
    pub ping_interval: Duration,
    /// How long a pong may take (`WEBSOCKETS_PONG_TIMEOUT` seconds).
    pub pong_timeout: Duration,
    /// How long a client may be silent, pongs counted (`WEBSOCKETS_INACTIVITY_TIMEOUT` seconds).
    pub inactivity_timeout: Duration,
    /// Whether JSON pings are sent too (`WEBSOCKETS_JSON_PING`).
    pub json_ping: bool,
    /// The most channels of one connection (`WS_MAX_CHANNELS`).
    pub channels_max: usize,
    /// Commands a second, which is also the burst (`WS_COMMAND_RATE`); 0 is no limit.
    pub command_rate: u32,
}
