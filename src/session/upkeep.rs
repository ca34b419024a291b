//! What goes on beside the calls: writes behind which sessions were used, and throws away what nobody uses.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at};

use super::activity::Activity;
use super::sessions::announce;
use super::{Config, Store, UnixTime};

/// Between two sweeps of expired sessions. Nobody sees one that has expired; a sweep gives back its room.
const SWEEP_INTERVAL: Duration = Duration::from_secs(300);

/// Begins all of it; it ends with the runtime.
pub(super) fn begin(
    runtime: &Runtime,
    store: &Arc<dyn Store>,
    activity: &Arc<Activity>,
    config: &Config,
) {
    runtime.spawn(write_behind(
        store.clone(),
        activity.clone(),
        config.write_interval,
    ));
    runtime.spawn(sweep_expired(store.clone()));
    runtime.spawn(sweep_inactive(
        store.clone(),
        config.inactive_max,
        config.check_interval,
    ));
}

async fn write_behind(store: Arc<dyn Store>, activity: Arc<Activity>, every: Duration) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        activity.flush(&*store).await;
    }
}

async fn sweep_expired(store: Arc<dyn Store>) {
    let mut ticks = interval_at(Instant::now() + SWEEP_INTERVAL, SWEEP_INTERVAL);
    loop {
        ticks.tick().await;
        // No user is that inactive.
        sweep(&*store, UnixTime::from_millis(0)).await;
    }
}

async fn sweep_inactive(store: Arc<dyn Store>, inactive_max: Duration, every: Duration) {
    // Not at once: Redis may not be there yet, and an operator may be bringing users in.
    let mut ticks = interval_at(Instant::now() + SWEEP_INTERVAL, every);
    loop {
        ticks.tick().await;
        sweep(&*store, UnixTime::now().before(inactive_max)).await;
    }
}

async fn sweep(store: &dyn Store, inactive_since: UnixTime) {
    let swept = match store.sweep(UnixTime::now(), inactive_since).await {
        Ok(swept) => swept,
        Err(error) => {
            tracing::warn!(%error, "cannot sweep what nobody uses");
            return;
        }
    };
    for user in &swept.users {
        announce(store, "user:inactive_cleanup", user, &[("username", user)]);
    }
    let (sessions, users) = (swept.sessions, swept.users.len());
    if sessions > 0 || users > 0 {
        tracing::info!(sessions, users, "swept what nobody uses");
    }
}
