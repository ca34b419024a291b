//! One way out: a bounded queue and the task behind it, which tells batches until they are taken.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

use super::{Event, Kinds};
use crate::outbound::Outbound;
use crate::telemetry::events::{Fate, Way, count};

/// The most events of one batch.
const BATCH_MAX: usize = 100;
/// Pauses between attempts: from … to …, doubling, with jitter.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));
/// How often a batch is told that is refused, as by 400: what is refused so often is never taken.
const REFUSALS_MAX: u32 = 5;

/// What became of telling a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// It was taken.
    Taken,
    /// It cannot be told now.
    Later,
    /// It was understood and not wanted.
    Refused,
}

/// Where batches are told.
pub(super) trait Sink: Send + Sync + 'static {
    /// Tells a batch once.
    fn tell<'a>(
        &'a self,
        batch: &'a [Arc<Event>],
    ) -> Pin<Box<dyn Future<Output = Told> + Send + 'a>>;
}

enum Message {
    Event(Arc<Event>),
    /// Everything before this was told.
    Empty(oneshot::Sender<()>),
}

/// The near end of a way out.
#[derive(Debug)]
pub(super) struct Outlet {
    way: Way,
    kinds: Kinds,
    queue: mpsc::Sender<Message>,
}

impl Outlet {
    /// Starts the task.
    pub(super) fn start(
        way: Way,
        kinds: Kinds,
        capacity: usize,
        sink: impl Sink,
        outbound: &Outbound,
    ) -> Self {
        let (queue, messages) = mpsc::channel(capacity);
        outbound.spawn(work(way, sink, messages));
        Self { way, kinds, queue }
    }

    pub(super) const fn kinds(&self) -> Kinds {
        self.kinds
    }

    /// Takes an event in, when it is wanted and there is room.
    pub(super) fn tell(&self, event: &Arc<Event>) {
        if !self.kinds.contains(event.kind()) {
            return;
        }
        if self.queue.try_send(Message::Event(event.clone())).is_err() {
            count(self.way, Fate::Dropped, 1);
        }
    }

    /// Waits until everything is told that was taken in before.
    pub(super) async fn is_empty(&self) {
        let (tell, told) = oneshot::channel();
        if self.queue.send(Message::Empty(tell)).await.is_ok() {
            let _ = told.await;
        }
    }
}

async fn work(way: Way, sink: impl Sink, mut messages: mpsc::Receiver<Message>) {
    let mut received = Vec::with_capacity(BATCH_MAX);
    while messages.recv_many(&mut received, BATCH_MAX).await > 0 {
        let mut batch = Vec::with_capacity(received.len());
        let mut waiting = Vec::new();
        for message in received.drain(..) {
            match message {
                Message::Event(event) => batch.push(event),
                Message::Empty(tell) => waiting.push(tell),
            }
        }
        if !batch.is_empty() {
            tell(way, &sink, &batch).await;
        }
        for tell in waiting {
            // Whoever waited may have gone.
            let _ = tell.send(());
        }
    }
}

/// Tells a batch until it is taken, or refused too often.
async fn tell(way: Way, sink: &impl Sink, batch: &[Arc<Event>]) {
    let (first, last) = PAUSES;
    let (mut pause, mut refusals) = (first, 0);
    let size = batch.len() as u64;
    loop {
        match sink.tell(batch).await {
            Told::Taken => return count(way, Fate::Told, size),
            Told::Later => {}
            Told::Refused => refusals += 1,
        }
        if refusals >= REFUSALS_MAX {
            tracing::error!(
                events = size,
                "events are refused again and again: they are dropped"
            );
            return count(way, Fate::Dropped, size);
        }
        count(way, Fate::Repeated, size);
        sleep(pause.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await;
        pause = (pause * 2).min(last);
    }
}
