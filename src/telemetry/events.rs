//! Counts the events that back ends hear of.

use std::sync::LazyLock;

use ::metrics::{Counter, counter};

use super::metrics::label;
use super::table::name;

label! {
    /// By which way.
    Way {
        /// A signed request.
        Webhook = "webhook",
        /// A stream in Redis.
        Stream = "stream",
    }
}

label! {
    /// What became of an event.
    Fate {
        /// It was taken.
        Told = "told",
        /// It was not taken, and is told again.
        Repeated = "repeated",
        /// It is lost: the queue was full, or it was refused too often.
        Dropped = "dropped",
    }
}

static COUNTERS: LazyLock<[[Counter; Fate::COUNT]; Way::COUNT]> = LazyLock::new(|| {
    [Way::Webhook, Way::Stream].map(|way| {
        [Fate::Told, Fate::Repeated, Fate::Dropped]
            .map(|fate| counter!(name::EVENTS, "way" => way.label(), "outcome" => fate.label()))
    })
});

/// Lets every series stand at 0 from now on.
pub(super) fn begin() {
    LazyLock::force(&COUNTERS);
}

/// So many events.
pub fn count(way: Way, fate: Fate, events: u64) {
    COUNTERS[way.index()][fate.index()].increment(events);
}
