//! What goes on beside the calls: writes behind which sessions were used, and throws away what nobody uses.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at, sleep};

use super::activity::Activity;
use super::sessions::announce;
use super::store::BEAT_INTERVAL;
use super::{Config, Store, StoreError, Swept, UnixTime};
use crate::broker::{Broker, Control};
use crate::model::SessionId;

/// Between two sweeps of expired sessions. Nobody sees one that has expired; a sweep gives back its room.
const SWEEP_INTERVAL: Duration = Duration::from_secs(300);

/// Between two questions for the secret of tokens, while the store is away.
const SECRET_PAUSE: Duration = Duration::from_millis(200);

/// Seconds before each look for a session that may have begun: longer together than a command may be under way.
const UNHELD_PAUSES: [u64; 5] = [0, 1, 2, 4, 8];

/// Begins all of it; it ends with the runtime.
pub(super) fn begin(
    runtime: &Runtime,
    store: &Arc<dyn Store>,
    broker: &Arc<dyn Broker>,
    activity: &Arc<Activity>,
    config: &Config,
) {
    runtime.spawn(write_behind(
        store.clone(),
        broker.clone(),
        activity.clone(),
        config.write_interval,
    ));
    runtime.spawn(adopt(store.clone()));
    runtime.spawn(live(store.clone()));
    runtime.spawn(sweep_expired(store.clone()));
    runtime.spawn(sweep_inactive(
        store.clone(),
        config.inactive_max,
        config.check_interval,
    ));
}

/// Once, as soon as the store is there.
async fn adopt(store: Arc<dyn Store>) {
    loop {
        match store.adopt_users().await {
            Ok(0) => return,
            Ok(users) => return tracing::info!(users, "took over users of another system"),
            Err(error) => tracing::debug!(%error, "users of another system are not taken over yet"),
        }
        sleep(SECRET_PAUSE).await;
    }
}

/// Asks until there is an answer: a secret of 256 random bits, in hexadecimal.
pub(super) async fn find_secret(store: &dyn Store) -> String {
    let candidate = format!(
        "{:032x}{:032x}",
        rand::random::<u128>(),
        rand::random::<u128>()
    );
    loop {
        match store.shared_secret(&candidate).await {
            Ok(secret) => return secret,
            Err(error) => tracing::debug!(%error, "the secret of tokens is not here yet"),
        }
        sleep(SECRET_PAUSE).await;
    }
}

/// Finds the secret, and looks after it: a store that was emptied, or rolled back, gets it again. Where a node that came
/// in between has put another one there, that is what all sign with: the sessions of before are gone with the old one.
pub(super) async fn keep_secret(store: Arc<dyn Store>, found: impl Fn(&str)) {
    let mut ours = find_secret(&*store).await;
    found(&ours);
    loop {
        sleep(BEAT_INTERVAL).await;
        match store.shared_secret(&ours).await {
            Ok(theirs) if theirs != ours => {
                found(&theirs);
                ours = theirs;
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "the secret of tokens is not looked after"),
        }
    }
}

/// Ends a session that began perhaps, and perhaps only now: the order may wait in a connection that was given up. So one that
/// is not there is looked for a few times; what is not found by then ends without use.
pub(super) async fn end_unheld(store: Arc<dyn Store>, session: SessionId) {
    for pause in UNHELD_PAUSES {
        sleep(Duration::from_secs(pause)).await;
        if store.end_session(session).await == Ok(true) {
            return;
        }
    }
}

/// A session that is used and gone has sockets that did not hear of its end: the order was lost, or nobody knew that it had
/// ended. They close now.
async fn write_behind(
    store: Arc<dyn Store>,
    broker: Arc<dyn Broker>,
    activity: Arc<Activity>,
    every: Duration,
) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        for (session, user) in activity.flush(&*store).await {
            let order = Control::EndSessions(user, [session].into());
            if let Err(error) = broker.control(order).await {
                tracing::debug!(%error, "sockets of a session that ended stay open for now");
            }
        }
    }
}

/// Says again and again that this process lives, and with it its sockets.
async fn live(store: Arc<dyn Store>) {
    let mut ticks = interval(BEAT_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // First, for the life is dated by it.
        let looked = store.look_at_clock().await;
        let beaten = store.beat(store.now()).await;
        if let Err(error) = looked.and(beaten) {
            tracing::debug!(%error, "the store does not hear that this node lives");
        }
    }
}

async fn sweep_expired(store: Arc<dyn Store>) {
    let mut ticks = interval_at(Instant::now() + SWEEP_INTERVAL, SWEEP_INTERVAL);
    loop {
        ticks.tick().await;
        // No user is that inactive.
        try_to_sweep(&*store, UnixTime::from_millis(0)).await;
    }
}

async fn sweep_inactive(store: Arc<dyn Store>, inactive_max: Duration, every: Duration) {
    // Not at once: Redis may not be there yet, and an operator may be bringing users in.
    let mut ticks = interval_at(Instant::now() + SWEEP_INTERVAL, every);
    loop {
        ticks.tick().await;
        try_to_sweep(&*store, store.now().before(inactive_max)).await;
    }
}

async fn try_to_sweep(store: &dyn Store, inactive_since: UnixTime) {
    if let Err(error) = sweep(store, inactive_since).await {
        tracing::warn!(%error, "cannot sweep what nobody uses");
    }
}

/// Throws away sessions that have expired, and users without any who have not logged in since then.
pub(super) async fn sweep(
    store: &dyn Store,
    inactive_since: UnixTime,
) -> Result<Swept, StoreError> {
    let swept = store.sweep(store.now(), inactive_since).await?;
    for user in &swept.users {
        announce(store, "user:inactive_cleanup", user, &[("username", user)]);
    }
    let (sessions, users) = (swept.sessions, swept.users.len());
    if sessions > 0 || users > 0 {
        tracing::info!(sessions, users, "swept what nobody uses");
    }
    Ok(swept)
}
