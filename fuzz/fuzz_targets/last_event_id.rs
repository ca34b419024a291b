//! Any text as a `Last-Event-ID`, for none to three channels; what is readable is written back and read again alike.

#![no_main]

use fanfare::model::{ChannelKey, Position};
use fanfare::protocol::sse::{channels_hash, event_id, parse_last_event_id};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|id: &str| {
    let all: Vec<ChannelKey> = ["a", "b", "c"]
        .iter()
        .filter_map(|name| ChannelKey::new(name).ok())
        .collect();
    for count in 0..=all.len() {
        let channels = &all[..count];
        // The hash is no secret; with it filled in more than the first check is reached.
        let hash = channels_hash(channels);
        for id in [id.to_owned(), format!("1.{hash:016x}.{id}")] {
            let Ok(claimed) = parse_last_event_id(&id, channels) else {
                continue;
            };
            assert_eq!(claimed.len(), count);
            if count < 2 {
                continue;
            }
            let positions: Vec<_> = claimed
                .iter()
                .map(|claimed| {
                    let claimed = claimed.as_ref()?;
                    Some(Position::new(claimed.epoch?, claimed.offset))
                })
                .collect();
            let mut line = Vec::new();
            event_id(&positions, hash, &mut line);
            let line = String::from_utf8(line).expect("text");
            assert_eq!(
                parse_last_event_id(line[4..].trim_end(), channels),
                Ok(claimed)
            );
        }
    }
});
