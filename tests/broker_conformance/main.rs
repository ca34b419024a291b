//! The conformance suite of the brokers, run against each of them. The cases are in `suite.rs` and know no broker; what
//! a broker needs to be tested stands here, as a [`Harness`](suite::Harness).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fanfare::broker::memory::MemoryBroker;
use fanfare::broker::{Broker, Config};
use fanfare::model::{Moment, Namespaces};

mod recording;
mod suite;

/// The memory broker on a clock of the test's.
struct Memory {
    millis: Arc<AtomicU64>,
}

impl Memory {
    fn new() -> Self {
        Self {
            millis: Arc::new(AtomicU64::new(0)),
        }
    }
}

impl suite::Harness for Memory {
    const KIND: &str = "memory";

    async fn broker(&self, namespaces: Namespaces) -> Arc<dyn Broker> {
        let config = Config {
            history_bytes_max: 64 << 20,
            channels_max: 10_000,
            idempotency_keys_max: 10_000,
        };
        let millis = Arc::clone(&self.millis);
        let clock = move || Moment::from_millis(millis.load(Ordering::Relaxed));
        Arc::new(MemoryBroker::new(&config, Arc::new(namespaces), clock))
    }

    async fn advance(&self, by: Duration) {
        let millis = u64::try_from(by.as_millis()).expect("a test's time is short");
        self.millis.fetch_add(millis, Ordering::Relaxed);
    }
}

broker_conformance!(memory, Memory::new());
