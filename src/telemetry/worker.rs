//! A worker's own tally: plain integers that its loop adds to, flushed to the recorder about once a second.
//!
//! A delivery costs one addition in the worker's own memory; no atomic, no label, no lookup. Between two flushes
//! `/metrics` is at most that much behind.

use std::time::Duration;

use ::metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use super::metrics::{CommandKind, Door, DropReason, Transport};
use super::table::name;
use super::totals::{self, Total};
use crate::model::CloseReason;

/// What one worker counts. Not shared: each worker makes its own, after the recorder is installed, and calls
/// [`flush`](Self::flush) about once a second and at its end.
///
/// `connections`, `subscriptions` and `pending_bytes` are levels: set them to what is now (or add and subtract); flush
/// adds the difference to the node's gauge. When a worker ends, set them to 0 and flush. All others only grow.
#[derive(Debug)]
pub struct WorkerCounts {
    /// Level: open connections, by [`Transport::index`].
    pub connections: [u64; Transport::COUNT],
    /// Level: subscriptions.
    pub subscriptions: u64,
    /// Level: bytes in send queues.
    pub pending_bytes: u64,
    /// Publications accepted from this worker's sockets.
    pub publications: u64,
    /// Publications put into send queues.
    pub deliveries: u64,
    /// Their bytes.
    pub delivered_bytes: u64,
    /// Gaps told.
    pub gaps: u64,
    /// Pending publications thrown away, by [`DropReason::index`].
    pub drops: [u64; DropReason::COUNT],
    /// Commands, by [`CommandKind::index`].
    pub commands: [u64; CommandKind::COUNT],
    /// Connections ended, by the number of the [`CloseReason`]; use [`closed`](Self::closed).
    closes: [u64; CloseReason::ALL.len()],
    /// What the gauges were told last.
    told: Levels,
    handles: Handles,
}

/// The levels that were flushed last.
#[derive(Debug, Default)]
struct Levels {
    connections: [u64; Transport::COUNT],
    subscriptions: u64,
    pending_bytes: u64,
}

/// Where the tally goes.
#[derive(Debug)]
struct Handles {
    connections: [Gauge; Transport::COUNT],
    subscriptions: Gauge,
    pending_bytes: Gauge,
    publications: Counter,
    deliveries: Counter,
    delivered_bytes: Counter,
    gaps: Counter,
    drops: [Counter; DropReason::COUNT],
    commands: [Counter; CommandKind::COUNT],
    closes: [Counter; CloseReason::ALL.len()],
    histograms: Histograms,
}

/// What is not tallied but observed one by one; each at most once per turn of the loop.
#[derive(Debug)]
struct Histograms {
    fan_out: Histogram,
    loop_delay: Histogram,
}

impl WorkerCounts {
    /// All zero, with handles of the recorder that is installed now.
    pub fn new() -> Self {
        Self {
            connections: [0; Transport::COUNT],
            subscriptions: 0,
            pending_bytes: 0,
            publications: 0,
            deliveries: 0,
            delivered_bytes: 0,
            gaps: 0,
            drops: [0; DropReason::COUNT],
            commands: [0; CommandKind::COUNT],
            closes: [0; CloseReason::ALL.len()],
            told: Levels::default(),
            handles: Handles::new(),
        }
    }

    /// A client sent a message.
    pub fn command(&mut self, kind: CommandKind) {
        self.commands[kind.index()] += 1;
    }

    /// A connection ended.
    pub fn closed(&mut self, reason: CloseReason) {
        self.closes[reason as usize] += 1;
    }

    /// Pending publications were thrown away.
    pub fn dropped(&mut self, reason: DropReason, publications: u64) {
        self.drops[reason.index()] += publications;
    }

    /// One batch of publications was handed to all subscribers.
    pub fn fan_out_took(&self, elapsed: Duration) {
        self.handles.histograms.fan_out.record(elapsed);
    }

    /// The loop woke up this much later than it asked.
    pub fn loop_delayed(&self, delay: Duration) {
        self.handles.histograms.loop_delay.record(delay);
    }

    /// Hands what was counted since the last flush to the recorder. Some 40 atomic additions at most.
    pub fn flush(&mut self) {
        self.add_to_totals();
        let handles = &self.handles;
        add(&handles.publications, &mut self.publications);
        add(&handles.deliveries, &mut self.deliveries);
        add(&handles.delivered_bytes, &mut self.delivered_bytes);
        add(&handles.gaps, &mut self.gaps);
        add_all(&handles.drops, &mut self.drops);
        add_all(&handles.commands, &mut self.commands);
        add_all(&handles.closes, &mut self.closes);
        let levels = handles.connections.iter().zip(self.connections);
        for ((gauge, now), told) in levels.zip(&mut self.told.connections) {
            shift(gauge, now, told);
        }
        shift(
            &handles.subscriptions,
            self.subscriptions,
            &mut self.told.subscriptions,
        );
        shift(
            &handles.pending_bytes,
            self.pending_bytes,
            &mut self.told.pending_bytes,
        );
    }

    /// Before the recorder takes the tallies away.
    fn add_to_totals(&self) {
        totals::add(Total::Publications, self.publications);
        totals::add(Total::Deliveries, self.deliveries);
        totals::add(Total::DeliveredBytes, self.delivered_bytes);
        totals::add(Total::Gaps, self.gaps);
        totals::add(Total::Drops, self.drops.iter().sum());
        totals::shift(
            [self.told.subscriptions, self.told.pending_bytes],
            [self.subscriptions, self.pending_bytes],
        );
    }
}

impl Default for WorkerCounts {
    fn default() -> Self {
        Self::new()
    }
}

impl Handles {
    fn new() -> Self {
        Self {
            connections: std::array::from_fn(
                |index| gauge!(name::CONNECTIONS, "transport" => Transport::ALL[index].label()),
            ),
            subscriptions: gauge!(name::SUBSCRIPTIONS),
            pending_bytes: gauge!(name::PENDING_BYTES),
            publications: counter!(name::PUBLICATIONS, "door" => Door::WebSocket.label()),
            deliveries: counter!(name::DELIVERIES),
            delivered_bytes: counter!(name::DELIVERED_BYTES),
            gaps: counter!(name::GAPS),
            drops: std::array::from_fn(
                |index| counter!(name::DROPS, "reason" => DropReason::ALL[index].label()),
            ),
            commands: std::array::from_fn(
                |index| counter!(name::COMMANDS, "type" => CommandKind::ALL[index].label()),
            ),
            closes: close_counters(),
            histograms: Histograms {
                fan_out: histogram!(name::FAN_OUT),
                loop_delay: histogram!(name::LOOP_DELAY),
            },
        }
    }
}

/// By the number of the reason, which is not its place in [`CloseReason::ALL`].
fn close_counters() -> [Counter; CloseReason::ALL.len()] {
    let mut counters = std::array::from_fn(|_| Counter::noop());
    for reason in CloseReason::ALL {
        counters[reason as usize] = counter!(name::CLOSES, "reason" => reason.label());
    }
    counters
}

/// Moves a tally into its counter.
fn add(counter: &Counter, tally: &mut u64) {
    if *tally > 0 {
        counter.increment(std::mem::take(tally));
    }
}

fn add_all(counters: &[Counter], tallies: &mut [u64]) {
    for (counter, tally) in counters.iter().zip(tallies) {
        add(counter, tally);
    }
}

/// Moves a gauge that all workers share by what this worker's level changed.
#[expect(clippy::cast_precision_loss, reason = "levels stay far below 2^53")]
fn shift(gauge: &Gauge, now: u64, told: &mut u64) {
    if now > *told {
        gauge.increment((now - *told) as f64);
    } else if now < *told {
        gauge.decrement((*told - now) as f64);
    }
    *told = now;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::setup::recorder;

    /// What `/metrics` would say after `count` counted.
    fn rendered(count: impl FnOnce()) -> String {
        let recorder = recorder().expect("the buckets are not empty");
        ::metrics::with_local_recorder(&recorder, count);
        recorder.handle().render()
    }

    #[test]
    fn flush_adds_what_came_since_the_last_flush() {
        let text = rendered(|| {
            let mut counts = WorkerCounts::new();
            counts.deliveries += 3;
            counts.closed(CloseReason::MessageTooBig);
            counts.flush();
            counts.deliveries += 4;
            counts.command(CommandKind::Ping);
            counts.flush();
            counts.flush();
        });
        assert!(text.contains("fanfare_deliveries_total 7\n"), "{text}");
        assert!(text.contains(r#"fanfare_closes_total{reason="message_too_big"} 1"#));
        assert!(text.contains(r#"fanfare_commands_total{type="ping"} 1"#));
    }

    #[test]
    fn levels_of_two_workers_add_up_and_go_when_a_worker_ends() {
        let text = rendered(|| {
            let (mut one, mut two) = (WorkerCounts::new(), WorkerCounts::new());
            one.connections[Transport::WebSocket.index()] = 5;
            two.connections[Transport::WebSocket.index()] = 7;
            two.pending_bytes = 100;
            one.flush();
            two.flush();
            one.connections[Transport::WebSocket.index()] = 2;
            two.pending_bytes = 0;
            one.flush();
            two.flush();
        });
        assert!(
            text.contains(r#"fanfare_connections{transport="ws"} 9"#),
            "{text}"
        );
        assert!(text.contains("fanfare_pending_bytes 0\n"));
    }

    #[test]
    fn every_close_reason_has_its_own_counter() {
        let text = rendered(|| {
            let mut counts = WorkerCounts::new();
            for reason in CloseReason::ALL {
                counts.closed(reason);
            }
            counts.flush();
        });
        for reason in CloseReason::ALL {
            let line = format!("fanfare_closes_total{{reason=\"{}\"}} 1\n", reason.label());
            assert!(text.contains(&line), "{line}");
        }
    }
}
