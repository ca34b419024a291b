//! What the broker does by itself: changes of interest, checks of positions, and the end of dead nodes.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use super::entry::Check;
use super::interest::Interest;
use super::{
    ChannelKey, Command, Inner, LEASE, Position, ServerId, Value, lock, millis, read, scripts,
    within,
};
use crate::telemetry::fleet::node_lost;

/// How often interest is looked at without having changed, to leave channels that nobody wants any more.
const INTEREST_TICK: Duration = Duration::from_millis(250);

/// Between two checks of all positions.
const CHECK_INTERVAL: Duration = Duration::from_secs(25);

/// After so many checks every meta was looked after: ten minutes. Each has its turn, so that not all come at once.
const CHECKS_PER_RENEWAL: u64 = 24;

/// The most positions of one question.
const POSITIONS_MAX: usize = 500;

/// Between two looks for dead nodes.
const REAP_INTERVAL: Duration = Duration::from_secs(2);

/// Redis must have been there for so long before a lease that ended counts: while it was away nobody could renew.
const REAP_AFTER: Duration = LEASE;

/// Sends changes of interest to a server, one batch after the other, for as long as it is one.
pub(super) async fn change_interest(inner: Arc<Inner>, server: ServerId, interest: Arc<Interest>) {
    while !interest.has_ended() {
        // Whatever changes while a batch is on its way is part of the next.
        within(&*inner.redis, INTEREST_TICK, interest.changed.notified()).await;
        while let Some(change) = interest.next_change(inner.redis.now()) {
            let sent = inner
                .redis
                .subscribe(server, change.added, change.removed, change.mark)
                .await;
            if let Err(error) = sent {
                // The connection is about to be lost, or the channels to be moved, and then everything is asked again.
                tracing::warn!(%error, "a change of interest was not taken");
                interest.refused(change.mark);
                break;
            }
        }
    }
}

/// Looks now and then whether every stream stands where this node is.
pub(super) async fn check_positions(inner: Arc<Inner>) {
    let mut checks = 0u64;
    loop {
        inner.redis.pause(CHECK_INTERVAL).await;
        checks += 1;
        for interest in inner.interests.all() {
            interest.ask_unknown();
            let seen = interest.seen();
            for some in seen.chunks(POSITIONS_MAX) {
                let Some(found) = positions(&inner, some).await else {
                    break;
                };
                let found = some
                    .iter()
                    .zip(found)
                    .filter_map(|((name, _, seen), found)| {
                        Some(Check {
                            name: name.clone(),
                            seen: (*seen)?,
                            found: read::copied_position(&found),
                        })
                    });
                interest.check(found.collect());
                renew(&inner, some, checks).await;
            }
        }
    }
}

/// A channel that is live, and what was seen of it.
type Seen = (String, ChannelKey, Option<Position>);

/// The copied positions of channels: one question, or on a Cluster one for each, sent together.
async fn positions(inner: &Inner, some: &[Seen]) -> Option<Vec<Value>> {
    let keys = some
        .iter()
        .map(|(_, channel, _)| inner.keys.channel(channel));
    if !inner.redis.is_cluster() {
        let mget = keys.fold(Command::new("MGET"), |mget, keys| {
            mget.word(keys.position())
        });
        return match inner.redis.call_one(mget).await {
            Ok(Value::Array(found)) => Some(found),
            _ => None,
        };
    }
    let gets = keys.map(|keys| Command::new("GET").word(keys.position()));
    let answers = inner.redis.call(gets.collect()).await;
    answers.into_iter().collect::<Result<_, _>>().ok()
}

/// A channel that is listened to keeps its epoch, published to or not. A meta that is gone is made anew, which the next check
/// finds out.
async fn renew(inner: &Inner, some: &[Seen], checks: u64) {
    let due = some.iter().filter(|(name, ..)| is_due(name, checks));
    let commands: Vec<_> = due.map(|(_, channel, _)| inner.ensure(channel)).collect();
    if !commands.is_empty() {
        inner.redis.call(commands).await;
    }
}

/// Whether it is a channel's turn at this check.
fn is_due(name: &str, checks: u64) -> bool {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish() % CHECKS_PER_RENEWAL == checks % CHECKS_PER_RENEWAL
}

/// Gives back the room of crowds that left.
fn give_back(inner: &Inner) {
    for interest in inner.interests.all() {
        interest.give_back();
    }
    inner.presence.give_back();
    inner.occupancy.give_back();
}

/// Looks whether the server is there, also when nobody asks.
pub(super) async fn look_often(inner: Arc<Inner>) {
    loop {
        inner.redis.pause(INTEREST_TICK).await;
        inner.is_ready();
    }
}

/// Takes the members of dead nodes away, and their part in occupied channels. And gives back room on the way.
pub(super) async fn reap(inner: Arc<Inner>) {
    loop {
        let is_first = lock(&inner.heard_since).is_none();
        let interval = if is_first {
            INTEREST_TICK
        } else {
            REAP_INTERVAL
        };
        inner.redis.pause(interval).await;
        give_back(&inner);
        if !inner.redis.is_connected() {
            *lock(&inner.heard_since) = None;
            continue;
        }
        let now = inner.redis.now();
        let since = *lock(&inner.heard_since).get_or_insert(now);
        if now.duration_since(since) >= REAP_AFTER {
            reap_once(&inner).await;
        }
    }
}

async fn reap_once(inner: &Inner) {
    let keys = &inner.keys;
    let keys = [
        &keys.leases(),
        &keys.reaper(),
        &keys.infos(),
        &keys.given_up(),
    ];
    let (name, _) = inner.presence.name();
    let expired = Command::script(&scripts::EXPIRED, &keys)
        .word(name)
        .number(millis(REAP_INTERVAL));
    let Ok(dead) = inner.redis.call_one(expired).await else {
        inner.was_refused();
        return;
    };
    for node in dead.into_array().iter().filter_map(Value::as_string) {
        tracing::warn!(node, "a node's lease ended; its members leave");
        if inner.take_away(&node, false).await.is_err() {
            return;
        }
        node_lost();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_channel_is_looked_after_once_in_a_round_and_few_at_a_time() {
        let names: Vec<String> = (0..2400).map(|number| format!("c{number}")).collect();
        let mut turns = vec![0; names.len()];
        for checks in 7..7 + CHECKS_PER_RENEWAL {
            let due = names
                .iter()
                .zip(&mut turns)
                .filter(|(name, _)| is_due(name, checks));
            let count = due.map(|(_, turns)| *turns += 1).count();
            assert!((50..200).contains(&count), "{count}");
        }
        assert!(turns.iter().all(|turns| *turns == 1));
    }
}
