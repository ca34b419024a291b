//! What the connections to Redis tell: who comes and goes, and what was published.

use std::sync::Arc;

use bytes::Bytes;

use super::{Inner, read, upkeep};
use crate::redis::{Listener, ServerId};

/// What the connections tell goes to the interest.
pub(super) struct Ears(pub(super) Arc<Inner>);

impl Listener for Ears {
    fn moved(&self) {
        for (server, interest) in self.0.interests.moved(&*self.0.redis) {
            let work = upkeep::change_interest(self.0.clone(), server, interest);
            self.0.redis.spawn(Box::pin(work));
        }
    }

    fn connected(&self, server: ServerId) {
        if let Some(interest) = self.0.interests.of(server) {
            interest.connected();
        }
    }

    fn lost(&self, server: ServerId) {
        if let Some(interest) = self.0.interests.of(server) {
            interest.lost();
        }
    }

    fn message(&self, server: ServerId, channel: &str, payload: Bytes) {
        if let Some(interest) = self.0.interests.of(server) {
            interest.message(channel, &payload);
        }
    }

    fn passed(&self, server: ServerId, mark: u64) {
        let Some(interest) = self.0.interests.of(server) else {
            return;
        };
        let to_read = interest.passed(mark, self.0.redis.now());
        self.0.read_orders();
        if to_read.is_empty() {
            return;
        }
        let inner = self.0.clone();
        let commands = to_read.iter().map(|one| inner.ensure(&one.channel));
        let answers = inner.redis.call(commands.collect());
        self.0.redis.spawn(Box::pin(async move {
            for (one, answer) in to_read.iter().zip(answers.await) {
                interest.read(&one.name, one.life, read::start(answer));
            }
        }));
    }

    fn changed(&self, lacks_messages: bool) {
        self.0.presence.doubt();
        self.0.interests.changed(lacks_messages);
        self.0.interests.orders().doubt();
        self.0.read_orders();
    }
}
