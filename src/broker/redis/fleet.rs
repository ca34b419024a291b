//! The nodes of the fleet: leases, what each says of itself, and how many subscribers it has where.
//!
//! A node writes only what changed since it last told it; when its lease turns out to be gone, everything is told again.

use std::collections::HashMap;

use bytes::Bytes;

use super::{
    ActiveChannel, BrokerError, ChannelKey, Command, Inner, LEASE, NodeInfo, Value, broker_error,
    envelope, keys, lock, millis, read, scripts,
};
use crate::model::Scope;
use crate::redis::Script;

/// The most counts of one command: a script must not hold up the server.
const COUNTS_MAX: usize = 250;

/// The most commands that are sent before the answers to earlier ones are there.
const PART_MAX: usize = 1024;

/// What this node told the fleet of its subscribers.
pub(super) type Told = HashMap<ChannelKey, u64>;

/// What became of a node's lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lease {
    /// The node has it.
    Held,
    /// It ended, and others have cleaned up, or are about to.
    GivenUp,
    /// Redis knows nothing of it.
    Lost,
}

impl Inner {
    /// Renews the lease. When the fleet, or Redis itself, had forgotten this node, its members join again.
    pub(super) async fn announce(
        &self,
        node: &NodeInfo,
        channels: Vec<ActiveChannel>,
    ) -> Result<(), BrokerError> {
        let (name, is_announced) = self.presence.name();
        let lease = self.renew_lease(&name, is_announced, node).await?;
        if self.presence.take_doubt() || lease != Lease::Held {
            tracing::warn!(
                "the fleet or redis may have forgotten members of this node; they join again"
            );
            lock(&self.told).clear();
            self.begin_anew(lease == Lease::GivenUp);
            let former = name;
            let (name, _) = self.presence.name();
            self.renew_lease(&name, false, node).await?;
            self.forget_former(&former).await;
        }
        self.tell_counts(channels).await
    }

    /// Answers whether the node is still one of the fleet.
    async fn renew_lease(
        &self,
        name: &str,
        is_announced: bool,
        node: &NodeInfo,
    ) -> Result<Lease, BrokerError> {
        let keys = &self.keys;
        let keys = [&keys.leases(), &keys.infos(), &keys.given_up()];
        let lease = Command::script(&scripts::ANNOUNCE, &keys)
            .word(name)
            .number(millis(LEASE))
            .word(envelope::pack_node(node))
            .number(u64::from(is_announced));
        let answer = self.redis.call_one(lease).await;
        let answer = answer.inspect_err(|_| self.was_refused());
        let lease = match answer.map_err(broker_error)? {
            Value::Integer(1) => Lease::Held,
            Value::Integer(2) => Lease::GivenUp,
            _ => Lease::Lost,
        };
        if lease == Lease::Held {
            self.presence.announced(name);
        }
        Ok(lease)
    }

    /// The lease of this node could not be renewed, or nobody else's be looked at. It may be so for all of them though they are
    /// connected (a server without room, or one that stands still), so nobody's end counts before they had time again.
    pub(super) fn was_refused(&self) {
        *lock(&self.heard_since) = None;
        *lock(&self.refused_at) = Some(self.redis.now());
    }

    /// Asks by this script, of leases, which nodes there are. While leases cannot be renewed, or could not a moment ago, one
    /// that ended says nothing: then those count that were known last.
    pub(super) fn ask_nodes<K: AsRef<[u8]>>(&self, script: &'static Script, keys: &[K]) -> Command {
        let refused_at = *lock(&self.refused_at);
        let now = self.redis.now();
        let is_lenient = refused_at.is_some_and(|at| now.duration_since(at) < LEASE);
        Command::script(script, keys).number(u64::from(is_lenient))
    }

    /// Of what the node was before, only the members are left, for whoever looks after its lease: it counts once.
    async fn forget_former(&self, name: &str) {
        let [counts, names] = self.keys.counts_of(name);
        let info = Command::new("HDEL").word(self.keys.infos()).word(name);
        let counts = Command::new("DEL").word(counts).word(names);
        for answer in self.redis.call(vec![info, counts]).await {
            if let Err(error) = answer {
                tracing::debug!(%error, "what this node was before counts until its lease ends");
            }
        }
    }

    async fn tell_counts(&self, channels: Vec<ActiveChannel>) -> Result<(), BrokerError> {
        let counts: Told = channels
            .into_iter()
            .map(|active| (active.channel, active.subscribers))
            .collect();
        let changes = changes(&lock(&self.told), &counts);
        if changes.is_empty() {
            return Ok(());
        }
        let (name, _) = self.presence.name();
        let [counts_of, names] = self.keys.counts_of(&name);
        let commands = changes.chunks(COUNTS_MAX).map(|some| {
            some.iter().fold(
                Command::script(&scripts::COUNT, &[&counts_of, &names]),
                |command, (channel, count)| command.word(keys::tag(channel)).number(*count),
            )
        });
        let answers = self.redis.call(commands.collect()).await;
        let answers: Result<Vec<_>, _> = answers.into_iter().collect();
        // Told in part: nothing is lost by telling it again.
        answers.map_err(broker_error)?;
        *lock(&self.told) = counts;
        Ok(())
    }

    /// Takes this node and its members out of the fleet.
    pub(super) async fn withdraw(&self) -> Result<(), BrokerError> {
        self.occupancy.end();
        let name = self.leave_all();
        self.take_away(&name, true).await
    }

    /// Takes away all members of a node and its part in occupied channels, as Redis knows them, then forgets it: when it says
    /// so itself, or its lease ended. A leave that could not be said is among them; when this fails as well, whoever looks
    /// after the lease does it.
    pub(super) async fn take_away(&self, node: &str, is_own: bool) -> Result<(), BrokerError> {
        let channels = self.channels_in(self.keys.channels_of(node)).await?;
        self.take_away_from(node, channels).await?;
        self.vacate_all(node, is_own).await?;
        let forget = self.forget(node).number(u64::from(is_own));
        self.redis
            .call_one(forget)
            .await
            .map(drop)
            .map_err(broker_error)
    }

    /// Takes away a node's members from channels, some of each at a time.
    async fn take_away_from(
        &self,
        node: &str,
        channels: Vec<ChannelKey>,
    ) -> Result<(), BrokerError> {
        let began = self.redis.generation();
        let mut rest: Vec<_> = channels
            .into_iter()
            .map(|channel| (channel, "0".to_owned()))
            .collect();
        while !rest.is_empty() {
            let part: Vec<_> = rest.drain(..rest.len().min(PART_MAX)).collect();
            let commands = part
                .iter()
                .map(|(channel, cursor)| self.leave_node_command(channel, node, cursor));
            let answers = self.redis.call(commands.collect()).await;
            for ((channel, _), answer) in part.into_iter().zip(answers) {
                let next = answer.map_err(broker_error)?.as_string();
                rest.extend(next.filter(|next| next != "0").map(|next| (channel, next)));
            }
            // A cursor is of the server that gave it: another one would pass over members.
            if self.redis.generation() != began {
                return Err(BrokerError::Unavailable);
            }
        }
        Ok(())
    }

    /// The channels whose tags are in a set.
    pub(super) async fn channels_in(&self, set: Bytes) -> Result<Vec<ChannelKey>, BrokerError> {
        let members = Command::new("SMEMBERS").word(set);
        let tags = self.redis.call_one(members).await.map_err(broker_error)?;
        let tags = tags.into_array();
        let tags = tags.iter().filter_map(Value::as_string);
        Ok(tags.filter_map(|tag| keys::channel_of(&tag)).collect())
    }

    /// Sends commands, some at a time: all of them could be more than may wait. `hear` gets each answer, and which command's it
    /// is.
    pub(super) async fn call_in_parts(
        &self,
        mut commands: Vec<Command>,
        mut hear: impl FnMut(usize, Value),
    ) -> Result<(), BrokerError> {
        let mut at = 0;
        while !commands.is_empty() {
            let part = commands.drain(..commands.len().min(PART_MAX)).collect();
            let mut failed = None;
            for answer in self.redis.call(part).await {
                match answer {
                    Ok(answer) => hear(at, answer),
                    Err(error) => failed = Some(error),
                }
                at += 1;
            }
            if let Some(error) = failed {
                return Err(broker_error(error));
            }
        }
        Ok(())
    }

    /// Forgets a node; whether it says so itself is to be added.
    pub(super) fn forget(&self, node: &str) -> Command {
        let [counts, names] = self.keys.counts_of(node);
        let channels = self.keys.channels_of(node);
        let keys = [
            &self.keys.leases(),
            &self.keys.infos(),
            &channels,
            &counts,
            &names,
            &self.keys.occupied_by(node),
        ];
        Command::script(&scripts::FORGET, &keys).word(node)
    }

    async fn others(&self) -> Result<Vec<String>, BrokerError> {
        let alive = self.ask_nodes(&scripts::ALIVE, &[&self.keys.leases()]);
        let alive = self.redis.call_one(alive).await.map_err(broker_error)?;
        let (name, _) = self.presence.name();
        let nodes = alive.into_array().into_iter();
        Ok(nodes
            .filter_map(|node| node.as_string())
            .filter(|node| *node != name)
            .collect())
    }

    pub(super) async fn channels_elsewhere(
        &self,
        prefix: &str,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Vec<ActiveChannel>, BrokerError> {
        let tag = |name: &str| keys::tag_of(&Scope::default(), name);
        let from = match cursor {
            Some(cursor) if cursor >= prefix => format!("({}", tag(cursor)),
            _ => format!("[{}", tag(prefix)),
        };
        // No name has a byte above those of ASCII.
        let to = format!("({}\u{7f}", tag(prefix));
        let others = self.others().await?;
        let commands = others.iter().map(|node| {
            let [counts, names] = self.keys.counts_of(node);
            Command::script(&scripts::CHANNELS, &[&counts, &names])
                .word(from.clone())
                .word(to.clone())
                .number(limit.min(1_000_000) as u64)
        });
        let answers = self.redis.call(commands.collect()).await;
        let mut found = Vec::new();
        for answer in answers {
            read::active_channels(answer.map_err(broker_error)?, &mut found);
        }
        Ok(found)
    }

    pub(super) async fn subscribers_elsewhere(
        &self,
        channel: &ChannelKey,
    ) -> Result<u64, BrokerError> {
        let others = self.others().await?;
        let commands = others.iter().map(|node| {
            let [counts, _] = self.keys.counts_of(node);
            Command::new("HGET").word(counts).word(keys::tag(channel))
        });
        let answers = self.redis.call(commands.collect()).await;
        let mut subscribers = 0;
        for answer in answers {
            subscribers += read::number(&answer.map_err(broker_error)?).unwrap_or(0);
        }
        Ok(subscribers)
    }
}

/// What is to be told, so that who knows `told` knows `counts`; 0 where there is nobody any more.
fn changes(told: &Told, counts: &Told) -> Vec<(ChannelKey, u64)> {
    let gone = told.keys().filter(|channel| !counts.contains_key(channel));
    let gone = gone.map(|channel| (channel.clone(), 0));
    let new = counts
        .iter()
        .filter(|(channel, count)| told.get(channel) != Some(count))
        .map(|(channel, count)| (channel.clone(), *count));
    gone.chain(new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(counts: &[(&str, u64)]) -> Told {
        let counts = counts.iter();
        counts
            .map(|(name, count)| (ChannelKey::new(name).expect("a name"), *count))
            .collect()
    }

    #[test]
    fn only_what_changed_is_told() {
        let (before, after) = (
            told(&[("a", 1), ("b", 2), ("c", 3)]),
            told(&[("b", 2), ("c", 4), ("d", 1)]),
        );
        let mut changes = changes(&before, &after);
        changes.sort();
        let expected: Vec<_> = [("a", 0), ("c", 4), ("d", 1)]
            .map(|(name, count)| (ChannelKey::new(name).expect("a name"), count))
            .to_vec();
        assert_eq!(changes, expected);
    }
}
