//! The one clock of a measurement: CLOCK_MONOTONIC in nanoseconds, which every process of the machine shares, so that
//! the floor's reader process can judge the stamps of its writer. It says nothing about the time of day.

use std::thread;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds in a second.
pub(crate) const SECOND: u64 = 1_000_000_000;

/// Nanoseconds since the machine started.
pub(crate) fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * SECOND + time.tv_nsec as u64
}

/// Sleeps until `at`; returns at once when that has passed, so a late sender catches up instead of slowing its rate.
pub(crate) fn sleep_until(at: u64) {
    let now = now();
    if at > now {
        thread::sleep(Duration::from_nanos(at - now));
    }
}

/// Nanoseconds as milliseconds, for reports.
pub(crate) fn ms(nanos: u64) -> f64 {
    nanos as f64 / 1e6
}

/// Seconds given on the command line as nanoseconds.
pub(crate) fn nanos(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}
