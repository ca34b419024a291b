//! Publishing by HTTP, paced or as a burst. Paced publishing is open-loop: each publication has an intended time and
//! is stamped with it, whether or not the server kept up, so a stall of the server shows as latency instead of as
//! fewer publications (no coordinated omission). A burst keeps a number of requests unanswered on each connection.

use std::net::SocketAddrV4;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow};
use hdrhistogram::Histogram;

use crate::clock::{self, SECOND};
use crate::http::{Answer, HttpConnection};
use crate::payload::Stamp;
use crate::request::Requests;
use crate::swarm::Counter;
use crate::tally::histogram;

/// What is published, where and how.
#[derive(Clone)]
pub(crate) struct Publishing {
    pub(crate) target: SocketAddrV4,
    pub(crate) key: Option<String>,
    pub(crate) channels: Arc<[String]>,
    pub(crate) payload_bytes: usize,
    /// HTTP connections. A channel keeps to one of them when paced, so that its order is the generator's.
    pub(crate) connections: usize,
    /// Publications in one request: 1 is `/hub/publish`, more is `/hub/batch`.
    pub(crate) batch: usize,
    pub(crate) pace: Pace,
    /// When the first publication is intended.
    pub(crate) from: u64,
    /// When no more are begun.
    pub(crate) to: u64,
}

/// How fast.
#[derive(Clone)]
pub(crate) enum Pace {
    /// Publications a second, open-loop.
    Rate(f64),
    /// As fast as requests are answered, that many unanswered on each connection.
    Burst {
        pipeline: usize,
        behind: Option<Behind>,
        count_max: u64,
    },
}

/// Holds a burst back while the subscribers are far behind, so that it measures the server's speed at full queues
/// and not its policy for slow consumers.
#[derive(Clone)]
pub(crate) struct Behind {
    pub(crate) counter: Counter,
    pub(crate) subscribers_per_publication: u64,
    /// Most publications published and not delivered.
    pub(crate) max: u64,
}

/// What came of it.
pub(crate) struct Published {
    /// Publications sent, by number: those below this.
    pub(crate) count: u64,
    /// Requests that were not answered 200.
    pub(crate) refused: u64,
    /// The first such answer.
    pub(crate) first_refusal: Option<String>,
    /// How late publications were sent: the generator's own fault.
    pub(crate) lateness: Histogram<u64>,
}

impl Published {
    pub(crate) fn new() -> Self {
        Published {
            count: 0,
            refused: 0,
            first_refusal: None,
            lateness: histogram(),
        }
    }

    fn note(&mut self, answer: &Answer<'_>) {
        if answer.status == 200 {
            return;
        }
        self.refused += 1;
        if self.first_refusal.is_none() {
            self.first_refusal = Some(format!(
                "{} {}",
                answer.status,
                String::from_utf8_lossy(answer.body)
            ));
        }
    }

    fn merge(&mut self, other: Published) {
        self.count = self.count.max(other.count);
        self.refused += other.refused;
        self.first_refusal = self.first_refusal.take().or(other.first_refusal);
        self.lateness
            .add(other.lateness)
            .expect("all latency histograms have the same bounds");
    }
}

/// Publishes until the end of the plan and the last answer.
pub(crate) fn run(publishing: &Publishing) -> Result<Published> {
    match &publishing.pace {
        Pace::Rate(rate) => paced(publishing, *rate),
        Pace::Burst { .. } => burst(publishing),
    }
}

fn paced(publishing: &Publishing, rate: f64) -> Result<Published> {
    let mut requests = requests(publishing)?;
    let mut connections = (0..publishing.connections.max(1))
        .map(|_| HttpConnection::open(publishing.target, false))
        .collect::<Result<Vec<_>>>()?;
    let mut published = Published::new();
    let mut bytes = Vec::new();
    let batch = publishing.batch.max(1) as u64;
    loop {
        let number = published.count;
        let at = publishing.from + (number as f64 * SECOND as f64 / rate) as u64;
        if at >= publishing.to {
            break;
        }
        clock::sleep_until(at);
        published.lateness.saturating_record(clock::now() - at);
        bytes.clear();
        if batch == 1 {
            requests.put_single(&mut bytes, Stamp { at, number });
        } else {
            requests.put_batch(
                &mut bytes,
                (number..number + batch).map(|number| Stamp { at, number }),
            );
        }
        let channel = number / batch % requests.channels();
        let index = channel as usize % connections.len();
        connections[index].send(&bytes, 1)?;
        published.count += batch;
        receive_all(&mut connections, &mut published)?;
    }
    wait_for_answers(&mut connections, &mut published)?;
    Ok(published)
}

fn receive_all(connections: &mut [HttpConnection], published: &mut Published) -> Result<()> {
    for connection in connections
        .iter_mut()
        .filter(|connection| connection.unanswered > 0)
    {
        connection.receive(|answer| published.note(answer))?;
    }
    Ok(())
}

fn wait_for_answers(connections: &mut [HttpConnection], published: &mut Published) -> Result<()> {
    let deadline = clock::now() + 10 * SECOND;
    while connections
        .iter()
        .any(|connection| connection.unanswered > 0)
    {
        receive_all(connections, published)?;
        if clock::now() > deadline {
            return Err(anyhow!("publishes were not answered within ten seconds"));
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn burst(publishing: &Publishing) -> Result<Published> {
    let next = AtomicU64::new(0);
    clock::sleep_until(publishing.from);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..publishing.connections.max(1))
            .map(|_| scope.spawn(|| burst_on_one_connection(publishing, &next)))
            .collect();
        let mut all = Published::new();
        for thread in threads {
            all.merge(
                thread
                    .join()
                    .map_err(|_| anyhow!("a publisher thread panicked"))??,
            );
        }
        all.count = next.load(Relaxed);
        Ok(all)
    })
}

fn burst_on_one_connection(publishing: &Publishing, next: &AtomicU64) -> Result<Published> {
    let Pace::Burst {
        pipeline,
        behind,
        count_max,
    } = &publishing.pace
    else {
        return Ok(Published::new());
    };
    let mut requests = requests(publishing)?;
    let mut connection = HttpConnection::open(publishing.target, true)?;
    let mut published = Published::new();
    let mut bytes = Vec::new();
    let batch = publishing.batch.max(1) as u64;
    loop {
        let mut room = pipeline.saturating_sub(connection.unanswered);
        let at = clock::now();
        bytes.clear();
        let mut count = 0;
        while room > 0 && at < publishing.to && next.load(Relaxed) < *count_max {
            let number = next.fetch_add(batch, Relaxed);
            if batch == 1 {
                requests.put_single(&mut bytes, Stamp { at, number });
            } else {
                requests.put_batch(
                    &mut bytes,
                    (number..number + batch).map(|number| Stamp { at, number }),
                );
            }
            room -= 1;
            count += 1;
        }
        if count > 0 {
            connection.send(&bytes, count)?;
        }
        if connection.unanswered == 0 {
            return Ok(published);
        }
        connection.receive(|answer| published.note(answer))?;
        if let Some(behind) = behind {
            behind.wait(next.load(Relaxed), publishing.to);
        }
    }
}

impl Behind {
    fn wait(&self, published: u64, until: u64) {
        let delivered = || self.counter.deliveries() / self.subscribers_per_publication.max(1);
        while published.saturating_sub(delivered()) > self.max && clock::now() < until {
            thread::sleep(Duration::from_micros(100));
        }
    }
}

fn requests(publishing: &Publishing) -> Result<Requests> {
    Requests::new(
        publishing.target,
        publishing.key.clone(),
        &publishing.channels,
        publishing.payload_bytes,
    )
}
