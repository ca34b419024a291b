//! Counts what back ends are asked, and measures how long they take.

use std::sync::LazyLock;
use std::time::Duration;

use ::metrics::{Counter, Histogram, counter, histogram};

use super::metrics::label;
use super::table::name;

label! {
    /// About what.
    Matter {
        /// Whether a client may connect.
        Connect = "connect",
        /// Whether it may subscribe.
        Subscribe = "subscribe",
        /// Whether somebody may publish.
        Publish = "publish",
    }
}

label! {
    /// What became of a question.
    Fate {
        /// The answer was yes.
        Allowed = "allowed",
        /// The answer was no.
        Denied = "denied",
        /// An earlier answer still held.
        Kept = "kept",
        /// There was no answer in time.
        TimedOut = "timed_out",
        /// The back end could not be reached.
        Unreachable = "unreachable",
        /// What it said is no answer.
        Faulty = "faulty",
        /// Too many waited already.
        Full = "full",
    }
}

static COUNTERS: LazyLock<Vec<Vec<Counter>>> = LazyLock::new(|| {
    let of = |matter: &Matter| {
        let fates = Fate::ALL.iter();
        fates
            .map(
                |fate| counter!(name::CONSENTS, "ask" => matter.label(), "outcome" => fate.label()),
            )
            .collect()
    };
    Matter::ALL.iter().map(of).collect()
});

static DURATIONS: LazyLock<Vec<Histogram>> = LazyLock::new(|| {
    let of = |matter: &Matter| histogram!(name::CONSENT_DURATION, "ask" => matter.label());
    Matter::ALL.iter().map(of).collect()
});

/// Lets every series stand at 0 from now on.
pub(super) fn begin() {
    LazyLock::force(&COUNTERS);
    LazyLock::force(&DURATIONS);
}

/// A question came to this.
pub fn count(matter: Matter, fate: Fate) {
    COUNTERS[matter.index()][fate.index()].increment(1);
}

/// A back end took so long to answer, or not to.
pub fn asked(matter: Matter, elapsed: Duration) {
    DURATIONS[matter.index()].record(elapsed);
}
