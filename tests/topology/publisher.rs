//! A back end that publishes numbers through nginx, one after the other, and does not give up: what failed is sent
//! again under the same idempotency key, so that each number is in the channel once. Its last word is [`END`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::support::{DEADLINE, Hub, eventually};

/// Between two publications: some hundred a second, so that many fall into each moment of a change.
const PAUSE: Duration = Duration::from_millis(5);

/// What is published after the last number.
pub(crate) const END: &str = "end";

/// A publisher at work.
pub(crate) struct Publisher {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    task: JoinHandle<Published>,
}

/// What it did.
#[derive(Debug)]
pub(crate) struct Published {
    /// The numbers from 0 to before this were published.
    pub(crate) count: u64,
    /// Requests that were not answered 200.
    pub(crate) repeated: u64,
}

impl Publisher {
    /// Publishes 0, 1, 2, … to `channel` through `door` until it is stopped.
    pub(crate) fn start(door: Hub, channel: &'static str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let count = Arc::<AtomicU64>::default();
        let counted = count.clone();
        let task = tokio::spawn(async move {
            let mut published = Published {
                count: 0,
                repeated: 0,
            };
            while !stopped.load(Ordering::Relaxed) {
                let data = json!(published.count);
                published.repeated += publish(&door, channel, published.count, &data).await;
                published.count += 1;
                counted.store(published.count, Ordering::Relaxed);
                tokio::time::sleep(PAUSE).await;
            }
            published.repeated += publish(&door, channel, published.count, &json!(END)).await;
            published
        });
        Self { stop, count, task }
    }

    /// Waits until it has published so many more.
    pub(crate) async fn publishes(&self, more: u64) {
        let wanted = self.count.load(Ordering::Relaxed) + more;
        eventually("more publications", async || {
            (self.count.load(Ordering::Relaxed) >= wanted).then_some(())
        })
        .await;
    }

    /// Stops after the publication that is under way, and says so to the channel.
    pub(crate) async fn stop(self) -> Published {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("it publishes")
    }
}

/// Publishes what comes after so many publications, and answers how often it had to be said again.
async fn publish(door: &Hub, channel: &str, number: u64, data: &Value) -> u64 {
    let key = format!("number-{number}");
    let body = json!({"channel": channel, "data": data, "idempotency_key": key});
    let began = Instant::now();
    for repeated in 0.. {
        let answer = door.post("/hub/publish", &body).await;
        if answer.status == 200 {
            assert_eq!(answer.json()["offset"], number + 1, "{answer:?}");
            return repeated;
        }
        assert!(
            [502, 503, 504].contains(&answer.status) && began.elapsed() < DEADLINE,
            "{answer:?}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    unreachable!("numbers do not end")
}
