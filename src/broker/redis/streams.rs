//! Channels with history: publishing, reading, and the lives of their keys. And those without, which are only published in.

use std::time::Duration;

use super::policies::{REMEMBERED, meta_ttl};
use super::{
    BrokerError, ChannelKey, Command, Inner, Position, Publish, ReadLimit, broker_error, envelope,
    garbled, millis, read, scripts,
};
use crate::model::{Epoch, HistoryPolicy};

/// How much longer than publications would be kept the meta of a channel lives that nothing was published in: much longer than
/// the pauses after which whoever listens renews it.
const EMPTY_META_TTL: Duration = Duration::from_secs(3600);

fn fresh_epoch() -> impl AsRef<[u8]> {
    Epoch::from_bits(rand::random()).characters()
}

impl Inner {
    pub(super) fn history(&self, channel: &ChannelKey) -> Option<&HistoryPolicy> {
        let policy = &self.namespaces.of(channel).history;
        policy.is_on().then_some(policy)
    }

    /// Asks where a stream stands; makes the meta of one that has none.
    pub(super) fn ensure(&self, channel: &ChannelKey) -> Command {
        let keys = self.keys.channel(channel);
        let policy = &self.namespaces.of(channel).history;
        let script_keys = [keys.meta(), keys.stream(), keys.position()];
        Command::script(&scripts::ENSURE, &script_keys)
            .word(fresh_epoch())
            .number(meta_ttl(policy))
            .number(millis(policy.ttl + EMPTY_META_TTL))
    }

    /// What a publish is answered with.
    pub(super) fn kind(&self, publish: &Publish) -> read::Kind {
        match self.history(&publish.channel) {
            Some(_) => read::Kind::Kept,
            None if publish.idempotency_key.is_some() => read::Kind::Once,
            None => read::Kind::Plain,
        }
    }

    pub(super) fn publish(&self, publish: &Publish) -> Command {
        let (origin, key) = (publish.origin.as_ref(), publish.key.as_deref());
        let once = publish.idempotency_key.as_deref();
        let Some(policy) = self.history(&publish.channel) else {
            return self.publish_unkept(publish);
        };
        let keys = self.keys.channel(&publish.channel);
        let [meta, stream, position] = [keys.meta(), keys.stream(), keys.position()];
        // Only then the one of that: a slot that is being moved refuses keys of which some are there and some not.
        let command = match once.map(|once| keys.idempotency(once)) {
            None => Command::script(&scripts::PUBLISH, &[meta, stream, position]),
            Some(once) => Command::script(&scripts::PUBLISH, &[meta, stream, position, &once]),
        };
        command
            .word(fresh_epoch())
            .word(&*self.policies.word(policy, once.is_some()))
            .word(envelope::pack_rest(origin, key))
            .word(publish.data.as_bytes())
            .awaiting_replicas()
    }

    /// The same in a channel without history.
    fn publish_unkept(&self, publish: &Publish) -> Command {
        let (origin, key) = (publish.origin.as_ref(), publish.key.as_deref());
        let envelopes = self.keys.envelopes(&publish.channel);
        let envelope = envelope::pack_unkept(origin, key, &publish.data);
        let Some(once) = publish.idempotency_key.as_deref() else {
            return Command::new("PUBLISH").word(envelopes).word(envelope);
        };
        let once = self.keys.channel(&publish.channel).idempotency(once);
        Command::script(&scripts::PUBLISH_ONCE, &[once])
            .word(envelopes)
            .word(envelope)
            .number(millis(REMEMBERED))
    }

    /// Reads a part of a stream. An answer that was asked for before a connection ended is discarded: the server behind it
    /// may have lost what it told.
    pub(super) async fn read(
        &self,
        channel: &ChannelKey,
        since: Option<Position>,
        limit: ReadLimit,
    ) -> Result<read::Read, BrokerError> {
        let began = self.redis.generation();
        let read = self.read_once(channel, since, limit).await?;
        match self.redis.generation() == began {
            true => Ok(read),
            false => Err(BrokerError::Unavailable),
        }
    }

    async fn read_once(
        &self,
        channel: &ChannelKey,
        since: Option<Position>,
        limit: ReadLimit,
    ) -> Result<read::Read, BrokerError> {
        let policy = self.history(channel).ok_or(BrokerError::NoHistory)?;
        let command = || {
            let keys = self.keys.channel(channel);
            let epoch = since.map(|since| since.epoch.to_string());
            Command::script(&scripts::READ, &[keys.meta(), keys.stream()])
                .number(since.map_or(0, |since| since.offset))
                .number(limit.publications.clamp(1, 1_000_000_000) as u64)
                .number(limit.bytes.min(1 << 50) as u64)
                .number(u64::from(policy.size))
                .word(epoch.unwrap_or_default())
        };
        let within_limit = |mut read: read::Read| {
            // The script tells whether there is more by what it reads.
            if limit.publications == 0 {
                read.page.more = !read.page.publications.is_empty();
                read.page.publications.clear();
            }
            read
        };
        let answer = self.redis.call_one(command()).await.map_err(broker_error)?;
        if let Some(read) = read::page(answer) {
            return Ok(within_limit(read));
        }
        // There is no meta: one is made, so that no epoch is ever empty.
        self.redis
            .call_one(self.ensure(channel))
            .await
            .map_err(broker_error)?;
        let answer = self.redis.call_one(command()).await.map_err(broker_error)?;
        read::page(answer).map(within_limit).ok_or_else(garbled)
    }
}
