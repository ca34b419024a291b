//! Clients of whom Redis is to be told whether they are present, and who waits for that. Each is there once.

use std::collections::VecDeque;
use std::sync::Mutex;

use hashbrown::HashMap;
use tokio::sync::{Notify, oneshot};

use super::{Answer, BrokerError, ChannelKey, ClientId, give_back, give_back_line, lock};

/// The most clients of a batch. Each node has one on its way, so many nodes at once must not keep the server busy for as
/// long as a command may take: what is not answered in time is said again.
const BATCH_MAX: usize = 256;

/// A client in a channel.
pub(super) type Key = (ChannelKey, ClientId);

/// Who waits for a client's turn.
pub(super) type Waiters = Vec<oneshot::Sender<Result<(), BrokerError>>>;

/// A client whose turn has come, and who waits for it.
pub(super) type Entry = (Key, Waiters);

/// The clients in the order in which they came. Not bounded by itself: a client is in it once for each of its channels, and
/// those are bounded.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    state: Mutex<State>,
    added: Notify,
}

#[derive(Debug, Default)]
struct State {
    order: VecDeque<Key>,
    waiters: HashMap<Key, Waiters>,
}

impl State {
    fn add(&mut self, key: Key) -> &mut Waiters {
        if !self.waiters.contains_key(&key) {
            self.order.push_back(key.clone());
        }
        self.waiters.entry(key).or_default()
    }
}

impl Outbox {
    /// Puts a client in. What comes of it can be awaited; it is done all the same when nobody does.
    pub(super) fn add(&self, key: Key) -> Answer<'static, ()> {
        let (tell, told) = oneshot::channel();
        lock(&self.state).add(key).push(tell);
        self.added.notify_one();
        Box::pin(async move { told.await.unwrap_or(Err(BrokerError::Unavailable)) })
    }

    /// Puts clients in for whom nobody waits.
    pub(super) fn add_all(&self, keys: impl Iterator<Item = Key>) {
        let mut state = lock(&self.state);
        for key in keys {
            state.add(key);
        }
        self.added.notify_one();
    }

    /// Gives back the room of a crowd that had its turn.
    pub(super) fn give_back(&self) {
        let mut state = lock(&self.state);
        give_back(&mut state.waiters);
        give_back_line(&mut state.order);
    }

    /// Takes those who are there, as many as fit a batch; waits until there is one.
    pub(super) async fn next(&self) -> Vec<Entry> {
        loop {
            let batch = self.take();
            if !batch.is_empty() {
                return batch;
            }
            self.added.notified().await;
        }
    }

    fn take(&self) -> Vec<Entry> {
        let mut state = lock(&self.state);
        let State { order, waiters } = &mut *state;
        let count = order.len().min(BATCH_MAX);
        let batch = order.drain(..count).map(|key| {
            let waiters = waiters.remove(&key).unwrap_or_default();
            (key, waiters)
        });
        batch.collect()
    }
}

/// Tells who waited.
pub(super) fn tell(waiters: &mut Waiters, answer: Result<(), BrokerError>) {
    for waiter in waiters.drain(..) {
        // Whoever asked may have stopped waiting.
        let _ = waiter.send(answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, client: u128) -> Key {
        (
            ChannelKey::new(name).expect("a name"),
            ClientId::from_bits(client),
        )
    }

    #[test]
    fn a_client_is_there_once_and_all_who_wait_are_told() {
        let outbox = Outbox::default();
        let waiting = [outbox.add(key("a", 1)), outbox.add(key("a", 1))];
        outbox.add_all([key("a", 1), key("b", 1)].into_iter());
        let mut batch = outbox.take();
        let keys: Vec<_> = batch.iter().map(|(key, _)| key.clone()).collect();
        assert_eq!(keys, [key("a", 1), key("b", 1)]);
        assert!(outbox.take().is_empty());
        tell(&mut batch[0].1, Ok(()));
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let runtime = runtime.expect("a runtime");
        for told in waiting {
            assert_eq!(runtime.block_on(told), Ok(()));
        }
    }

    #[test]
    fn a_batch_is_bounded() {
        let outbox = Outbox::default();
        outbox.add_all((0..600).map(|client| key("a", client)));
        let counts: Vec<_> = (0..4).map(|_| outbox.take().len()).collect();
        assert_eq!(counts, [BATCH_MAX, BATCH_MAX, 600 - 2 * BATCH_MAX, 0]);
    }
}
