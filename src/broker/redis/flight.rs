//! Recoveries that ask for the same part of the same stream share a read.
//!
//! Whoever asks while a read is under way waits for the next one, which all who wait share: an answer is never older than
//! its question. So a thousand clients that come back together cost two reads a page, not a thousand.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;

use super::{Answer, BrokerError, ChannelKey, Inner, Position, ReadLimit, Recovery, lock};

type Asked = (ChannelKey, Position, ReadLimit);
type Waiter = oneshot::Sender<Result<Recovery, BrokerError>>;

/// The reads under way, and who waits for the next of each.
#[derive(Debug, Default)]
pub(super) struct Flights {
    waiting: Mutex<HashMap<Asked, Vec<Waiter>>>,
}

/// A limit of few different values, so that readers with almost as much room ask for the same.
fn rounded(limit: ReadLimit) -> ReadLimit {
    let down = |number: usize| number.checked_ilog2().map_or(0, |bits| 1 << bits);
    ReadLimit {
        publications: down(limit.publications),
        bytes: down(limit.bytes),
    }
}

impl Inner {
    /// What came after a position.
    pub(super) fn recover_together(
        self: &Arc<Self>,
        channel: &ChannelKey,
        since: Position,
        limit: ReadLimit,
    ) -> Answer<'static, Recovery> {
        let asked = (channel.clone(), since, rounded(limit));
        let (tell, told) = oneshot::channel();
        match lock(&self.flights.waiting).entry(asked.clone()) {
            Entry::Occupied(mut waiting) => waiting.get_mut().push(tell),
            Entry::Vacant(vacant) => {
                vacant.insert(Vec::new());
                let flight = self.clone().fly(asked, vec![tell]);
                self.redis.spawn(Box::pin(flight));
            }
        }
        Box::pin(async move { told.await.unwrap_or(Err(BrokerError::Unavailable)) })
    }

    async fn fly(self: Arc<Self>, asked: Asked, mut waiters: Vec<Waiter>) {
        while !waiters.is_empty() {
            let (channel, since, limit) = &asked;
            let recovery = self.recover_alone(channel, *since, *limit).await;
            for waiter in waiters {
                let _ = waiter.send(recovery.clone());
            }
            let mut waiting = lock(&self.flights.waiting);
            let next = waiting.get_mut(&asked).map(std::mem::take);
            waiters = next.unwrap_or_default();
            if waiters.is_empty() {
                waiting.remove(&asked);
            }
        }
    }

    async fn recover_alone(
        &self,
        channel: &ChannelKey,
        since: Position,
        limit: ReadLimit,
    ) -> Result<Recovery, BrokerError> {
        let read = self.read(channel, Some(since), limit).await?;
        Ok(match read.stands {
            true => Recovery::Recovered(read.page),
            false => Recovery::Lost {
                top: read.page.top,
                fork: read.fork,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn almost_the_same_limit_is_the_same() {
        let limit = |publications, bytes| {
            rounded(ReadLimit {
                publications,
                bytes,
            })
        };
        assert_eq!(limit(500, 200_000), limit(300, 131_072));
        assert_eq!(
            limit(1, 0),
            ReadLimit {
                publications: 1,
                bytes: 0
            }
        );
    }
}
