//! What a fleet carries: its namespaces, its channels, and who subscribes to what.

use std::sync::Arc;

use super::client::{Client, Door};

/// Nothing that is published in a run goes out of retention.
pub(super) const NAMESPACES: &str = r#"
[namespaces.kept]
history = { size = 100000, ttl = "1h" }
presence = false

[namespaces.room]
history = { size = 100000, ttl = "1h" }
presence = true
join_leave = true

[namespaces.live]
history = { size = 0 }
presence = false
"#;

const KEPT: usize = 8;
pub(super) const ROOMS: usize = 4;
const LIVE: usize = 2;

/// The channels.
pub(super) fn channels() -> impl Iterator<Item = String> {
    let names =
        |name: &'static str, count| (0..count).map(move |number| format!("{name}:{number}"));
    names("kept", KEPT)
        .chain(names("room", ROOMS))
        .chain(names("live", LIVE))
}

/// Half of them over each door; half of each with several channels.
pub(super) fn clients(count: usize) -> Vec<Arc<Client>> {
    let client = |index: usize| {
        let door = match index % 2 {
            0 => Door::WebSocket,
            _ => Door::EventStream,
        };
        let number = index / 2;
        let mut channels = vec![format!("kept:{}", number % KEPT)];
        if number.is_multiple_of(2) {
            channels.push(format!("room:{}", number / 2 % ROOMS));
        }
        if number.is_multiple_of(10) {
            channels.push(format!("live:{}", number / 10 % LIVE));
        }
        let watches = door == Door::WebSocket && number.is_multiple_of(30);
        Arc::new(Client::new(door, channels, watches))
    };
    (0..count).map(client).collect()
}
