//! A sink that remembers what it was handed, and waits for what is to come: a broker over a network delivers after it
//! has answered.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use fanfare::broker::{Control, Sink};
use fanfare::model::{ChannelKey, Envelope, Event, Publication};
use tokio::sync::Notify;

/// How long a delivery may take before a case fails.
const DEADLINE: Duration = Duration::from_secs(10);

/// Everything that was handed over, in order.
#[derive(Default)]
pub(crate) struct Recording {
    envelopes: Mutex<Vec<Envelope>>,
    controls: Mutex<Vec<Control>>,
    came: Notify,
}

impl Sink for Recording {
    fn deliver(&self, envelope: &Envelope) {
        lock(&self.envelopes).push(envelope.clone());
        self.came.notify_waiters();
    }

    fn hole(&self, channel: Option<&ChannelKey>) {
        panic!("no case makes a hole, but there is one in {channel:?}");
    }

    fn changed(&self) {
        panic!("no case changes the data");
    }

    fn control(&self, control: &Control) {
        lock(&self.controls).push(control.clone());
        self.came.notify_waiters();
    }
}

impl Recording {
    /// What was handed over of a channel so far.
    pub(crate) fn of(&self, channel: &ChannelKey) -> Vec<Envelope> {
        let envelopes = lock(&self.envelopes);
        let of_channel = envelopes.iter().filter(|it| it.channel == *channel);
        of_channel.cloned().collect()
    }

    /// The publications among it.
    pub(crate) fn publications(&self, channel: &ChannelKey) -> Vec<Arc<Publication>> {
        let publication = |envelope: Envelope| match envelope.event {
            Event::Publication(publication) => Some(publication),
            Event::Join(_) | Event::Leave(_) => None,
        };
        self.of(channel)
            .into_iter()
            .filter_map(publication)
            .collect()
    }

    /// The orders so far.
    pub(crate) fn controls(&self) -> Vec<Control> {
        lock(&self.controls).clone()
    }

    /// Waits until `is_there` is true of this recording; fails the case when it is not in time.
    pub(crate) async fn eventually(&self, what: &str, is_there: impl Fn(&Self) -> bool) {
        let wait = async {
            loop {
                let came = self.came.notified();
                tokio::pin!(came);
                // Listening begins before the look, so that nothing that comes between is missed.
                came.as_mut().enable();
                if is_there(self) {
                    return;
                }
                came.await;
            }
        };
        let in_time = tokio::time::timeout(DEADLINE, wait).await;
        assert!(in_time.is_ok(), "never came: {what}");
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no case panics under this lock")
}
