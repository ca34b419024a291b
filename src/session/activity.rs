//! Which sessions were used, until it is written: the one thing that is written behind.
//!
//! A session is used with every request, and nobody waits to hear that it was. What a node that dies has not written
//! are the last `BATCH_WRITE_INTERVAL_MS` of use, by which a session may end early.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, PoisonError};

use super::{Store, UnixTime, Used};
use crate::model::{SessionId, UserId};

/// The most sessions that wait to be written: about 5 MB. What finds no room is written when the session is used again.
const SESSIONS_MAX: usize = 65_536;
/// The most that are written at once, so that other work of the store is not kept waiting.
const BATCH_MAX: usize = 1000;

/// When each session was last used, of those that were since the last write.
#[derive(Debug, Default)]
pub(super) struct Activity {
    used: Mutex<HashMap<SessionId, (UserId, UnixTime)>>,
}

impl Activity {
    /// A session was used.
    pub(super) fn saw(&self, session: SessionId, user: &UserId, now: UnixTime) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = used.len() >= SESSIONS_MAX;
        match used.entry(session) {
            Entry::Occupied(mut used) => {
                let (_, at) = used.get_mut();
                *at = now.max(*at);
            }
            Entry::Vacant(used) if !is_full => {
                used.insert((user.clone(), now));
            }
            Entry::Vacant(_) => {}
        }
    }

    /// Writes what there is. What the store does not take waits for the next time. Answers those that are gone, although
    /// somebody uses them.
    pub(super) async fn flush(&self, store: &dyn Store) -> Vec<(SessionId, UserId)> {
        let used = std::mem::take(&mut *self.used.lock().unwrap_or_else(PoisonError::into_inner));
        let used = used
            .into_iter()
            .map(|(session, (user, at))| Used { session, user, at });
        let used: Vec<Used> = used.collect();
        let mut ended = Vec::new();
        for batch in used.chunks(BATCH_MAX) {
            match store.touch(batch.to_vec()).await {
                Ok(gone) => {
                    let gone = batch.iter().filter(|used| gone.contains(&used.session));
                    ended.extend(gone.map(|used| (used.session, used.user.clone())));
                }
                Err(error) => {
                    tracing::debug!(%error, sessions = batch.len(), "their use is written later");
                    for Used { session, user, at } in batch {
                        self.saw(*session, user, *at);
                    }
                }
            }
        }
        ended
    }
}
