//! How much the node has to do, and who is turned away then: streams and WebSockets first, since they would stay; other
//! requests when it gets worse; health never.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::Duration;

use crate::admin;
use crate::proxy::Strain;
use crate::telemetry::process::ProcessStats;
use crate::transport::Levels;

/// What is looked at, and how it was last.
#[derive(Debug)]
pub(super) struct Pressure {
    levels: Arc<[Levels]>,
    limits: admin::Config,
    /// Of memory, which is looked at once a second: 0, 1 or 2, as [`Strain`] has it.
    memory: AtomicU8,
}

impl Pressure {
    /// Of workers with these levels, against these limits.
    pub(super) fn new(levels: Arc<[Levels]>, limits: admin::Config) -> Self {
        Self {
            levels,
            limits,
            memory: AtomicU8::new(0),
        }
    }

    /// Looks at the memory. Reads files of the system.
    pub(super) fn look(&self) {
        if self.limits.resident_bytes_max.is_some() || self.limits.heap_bytes_max.is_some() {
            let stats = ProcessStats::read();
            let an_eighth = |most: u64| most / 8;
            let resident = of(
                stats.resident_bytes,
                self.limits.resident_bytes_max,
                an_eighth,
            );
            let heap = of(stats.heap_bytes, self.limits.heap_bytes_max, an_eighth);
            self.memory.store(resident.max(heap) as u8, Relaxed);
        }
    }

    /// How much there is to do. Costs a load for each worker.
    pub(super) fn strain(&self) -> Strain {
        let memory = match self.memory.load(Relaxed) {
            0 => Strain::None,
            1 => Strain::Streams,
            _ => Strain::Requests,
        };
        let late = self.levels.iter().map(Levels::loop_delay).max();
        memory.max(of_delay(late, self.limits.loop_delay_max))
    }
}

/// Of a loop that is so late. One stall of the machine is no reason to turn requests away.
fn of_delay(late: Option<Duration>, most: Duration) -> Strain {
    let three_times = |most: u64| most.saturating_mul(3);
    of(late.map(nanos), Some(nanos(most)), three_times)
}

/// Over the limit streams are too much; over the limit and as much again as `more` says, everything is.
fn of(value: Option<u64>, most: Option<u64>, more: impl Fn(u64) -> u64) -> Strain {
    match (value, most) {
        (Some(value), Some(most)) if value > most.saturating_add(more(most)) => Strain::Requests,
        (Some(value), Some(most)) if value > most => Strain::Streams,
        _ => Strain::None,
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_loop_turns_streams_away_and_a_very_late_one_everything() {
        let most = Duration::from_millis(100);
        for (late, expected) in [
            (0, Strain::None),
            (100, Strain::None),
            (101, Strain::Streams),
            (400, Strain::Streams),
            (401, Strain::Requests),
        ] {
            let late = Duration::from_millis(late);
            assert_eq!(of_delay(Some(late), most), expected, "{late:?}");
        }
        assert_eq!(of_delay(None, most), Strain::None);
    }

    #[test]
    fn streams_go_first_and_then_everything() {
        for (value, expected) in [
            (Some(800), Strain::None),
            (Some(801), Strain::Streams),
            (Some(900), Strain::Streams),
            (Some(901), Strain::Requests),
            (None, Strain::None),
        ] {
            assert_eq!(of(value, Some(800), |most| most / 8), expected, "{value:?}");
        }
        assert_eq!(of(Some(u64::MAX), None, |most| most), Strain::None);
    }
}
