//! A running swarm: the reader threads of one plan, seen and steered from outside.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use crate::clock::{self, SECOND};
use crate::gauge::Gauge;
use crate::plan::Plan;
use crate::reader::{self, Order, Share};
use crate::tally::Tally;

struct Thread {
    gauge: Arc<Gauge>,
    orders: Sender<Order>,
    handle: JoinHandle<Result<Tally>>,
}

/// See the head of the file. Dropped, its threads end and its connections close.
pub(crate) struct Swarm {
    threads: Vec<Thread>,
    connections: usize,
}

impl Swarm {
    /// Starts the reader threads, which begin to connect at once.
    pub(crate) fn start(plan: Plan) -> Result<Self> {
        let (connections, count) = (
            plan.connections,
            plan.threads.clamp(1, plan.connections.max(1)),
        );
        let plan = Arc::new(plan);
        let threads = (0..count)
            .map(|index| start_one(&plan, share(&plan, index, count)))
            .collect::<Result<_>>()?;
        Ok(Swarm {
            threads,
            connections,
        })
    }

    /// Waits until every connection is live. An error when any fails or none joins for ten seconds.
    pub(crate) fn wait_joined(&self) -> Result<()> {
        let (mut seen, mut seen_at) = (0, clock::now());
        loop {
            let joined = self.joined();
            if joined >= self.connections {
                return Ok(());
            }
            if joined > seen {
                (seen, seen_at) = (joined, clock::now());
            }
            let failed = self.total(|gauge| gauge.failed.load(Relaxed));
            if failed > 0 || clock::now() - seen_at > 10 * SECOND {
                return Err(anyhow!(
                    "{joined} of {} connections joined, {failed} failed",
                    self.connections
                ));
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// [`Swarm::wait_joined`], and when it fails, what the connections met first.
    pub(crate) fn joined_or_why(self) -> Result<Self> {
        match self.wait_joined() {
            Ok(()) => Ok(self),
            Err(error) => match self.finish()?.first_trouble {
                Some(trouble) => Err(error.context(trouble)),
                None => Err(error),
            },
        }
    }

    /// Connections that have become live.
    pub(crate) fn joined(&self) -> usize {
        self.total(|gauge| gauge.joined.load(Relaxed))
    }

    /// Live connections that have ended since.
    pub(crate) fn ended(&self) -> usize {
        self.total(|gauge| gauge.ended.load(Relaxed))
    }

    /// From the first connection begun to the last one live, in seconds.
    pub(crate) fn joining_seconds(&self) -> f64 {
        let stamps = |counter: fn(&Gauge) -> &AtomicU64| {
            self.threads
                .iter()
                .map(move |t| counter(&t.gauge).load(Relaxed))
        };
        let began = stamps(|gauge| &gauge.began_at).min().unwrap_or(0);
        let joined = stamps(|gauge| &gauge.joined_at).max().unwrap_or(0);
        joined.saturating_sub(began) as f64 / 1e9
    }

    /// Publications received so far.
    pub(crate) fn deliveries(&self) -> u64 {
        self.threads
            .iter()
            .map(|thread| thread.gauge.deliveries.load(Relaxed))
            .sum()
    }

    /// Answers received so far.
    pub(crate) fn answers(&self) -> u64 {
        self.threads
            .iter()
            .map(|thread| thread.gauge.answers.load(Relaxed))
            .sum()
    }

    /// Protocol pings answered so far.
    pub(crate) fn pings(&self) -> u64 {
        self.threads
            .iter()
            .map(|thread| thread.gauge.pings.load(Relaxed))
            .sum()
    }

    /// A view of the deliveries for a thread of its own.
    pub(crate) fn counter(&self) -> Counter {
        Counter {
            gauges: self
                .threads
                .iter()
                .map(|thread| Arc::clone(&thread.gauge))
                .collect(),
        }
    }

    /// Waits until `wanted` deliveries have come, or until nothing has come for `quiet`. True in the first case.
    pub(crate) fn wait_deliveries(&self, wanted: u64, quiet: Duration) -> bool {
        wait_for(|| self.deliveries(), wanted, quiet)
    }

    /// Lets each live connection send `bytes`, `rate` connections a second, and waits for as many answers.
    pub(crate) fn send_each(&self, bytes: &[u8], rate: u64) -> Result<()> {
        let before = self.answers();
        let wanted = (self.joined() - self.ended()) as u64;
        let rate = rate.div_ceil(self.threads.len() as u64);
        self.tell(&Order::SendEach {
            bytes: bytes.into(),
            rate,
        });
        if !wait_for(|| self.answers(), before + wanted, Duration::from_secs(5)) {
            bail!(
                "{} of {wanted} messages were answered",
                self.answers() - before
            );
        }
        Ok(())
    }

    /// Reads the stalled connections once, so that [`Swarm::ended`] counts those that the server closed.
    pub(crate) fn check_stalled(&self) {
        self.tell(&Order::CheckStalled);
        thread::sleep(Duration::from_millis(500));
    }

    /// Closes everything and hands back the books.
    pub(crate) fn finish(self) -> Result<Tally> {
        self.tell(&Order::Stop);
        let mut books = self
            .threads
            .into_iter()
            .map(|thread| match thread.handle.join() {
                Ok(tally) => tally,
                Err(_) => bail!("a reader thread panicked"),
            });
        let mut all = books.next().context("a swarm has at least one thread")??;
        for tally in books {
            all.merge(tally?);
        }
        Ok(all)
    }

    fn tell(&self, order: &Order) {
        // A thread that has ended already has nothing to be told; `finish` reports why it did.
        self.threads
            .iter()
            .for_each(|thread| drop(thread.orders.send(order.clone())));
    }

    fn total(&self, counter: fn(&Gauge) -> usize) -> usize {
        self.threads
            .iter()
            .map(|thread| counter(&thread.gauge))
            .sum()
    }
}

/// Sees how many publications a swarm has received.
#[derive(Clone)]
pub(crate) struct Counter {
    gauges: Vec<Arc<Gauge>>,
}

impl Counter {
    /// Publications received so far.
    pub(crate) fn deliveries(&self) -> u64 {
        self.gauges
            .iter()
            .map(|gauge| gauge.deliveries.load(Relaxed))
            .sum()
    }
}

/// Waits until `count` is `wanted`, or has not risen for `quiet`. True in the first case.
fn wait_for(count: impl Fn() -> u64, wanted: u64, quiet: Duration) -> bool {
    let (mut seen, mut seen_at) = (count(), clock::now());
    loop {
        let now = count();
        if now >= wanted {
            return true;
        }
        if now > seen {
            (seen, seen_at) = (now, clock::now());
        } else if clock::now() - seen_at > quiet.as_nanos() as u64 {
            return false;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn start_one(plan: &Arc<Plan>, share: Share) -> Result<Thread> {
    let gauge = Arc::new(Gauge::default());
    let (orders, inbox) = channel();
    let (plan, theirs) = (Arc::clone(plan), Arc::clone(&gauge));
    let handle = thread::Builder::new()
        .name(format!("reader-{}", share.first))
        .spawn(move || reader::run(&plan, share, &theirs, &inbox))?;
    Ok(Thread {
        gauge,
        orders,
        handle,
    })
}

fn share(plan: &Plan, index: usize, count: usize) -> Share {
    let first = plan.connections * index / count;
    let connections = plan.connections * (index + 1) / count - first;
    Share {
        first,
        connections,
        connect_rate: plan.connect_rate.div_ceil(count as u64),
        in_flight_max: plan.in_flight_max.div_ceil(count).max(1),
    }
}
