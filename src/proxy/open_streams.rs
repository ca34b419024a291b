//! How many streams somebody has open at once at one service: event streams and WebSockets, each kind for itself, on this
//! node.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::RateKey;
use super::address::Client;
use super::error::ProxyError;
use super::rate::Whose;
use super::table::Route;
use crate::auth::Identity;
use crate::telemetry::proxy::Carried;

/// Who has how many. There are no more entries than open streams, and of those no more than connections.
#[derive(Debug, Default)]
pub(super) struct OpenStreams(Mutex<HashMap<Key, u32>>);

type Key = (Whose, Kind);

/// What a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Events,
    WebSocket,
}

impl Route {
    /// A place among the streams that somebody may have open; none for what is no stream, or where they are not counted.
    pub(super) fn stream_permit(
        &self,
        carried: Carried,
        client: &Client,
        identity: Option<&Identity>,
    ) -> Result<Option<StreamPermit>, ProxyError> {
        let Some(policy) = self.policy.streams else {
            return Ok(None);
        };
        let (kind, most) = match carried {
            Carried::Http => return Ok(None),
            Carried::Sse => (Kind::Events, policy.sse_max),
            Carried::Ws => (Kind::WebSocket, policy.ws_max),
        };
        let user = identity.filter(|_| policy.by == RateKey::User);
        let whose = match user {
            Some(identity) => Whose::User(identity.user.clone()),
            None => Whose::address(client.ip),
        };
        let permit = self.open.open(whose, kind, most);
        permit.map(Some).ok_or(ProxyError::TooManyStreams)
    }
}

impl OpenStreams {
    /// Counts one more of somebody's, unless that has so many already.
    fn open(self: &Arc<Self>, whose: Whose, kind: Kind, most: u32) -> Option<StreamPermit> {
        let key = (whose, kind);
        let mut open = self.lock();
        let count = open.get(&key).copied().unwrap_or_default();
        if count >= most {
            return None;
        }
        open.insert(key.clone(), count + 1);
        drop(open);
        let streams = self.clone();
        Some(StreamPermit { streams, key })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One stream that is open: it counts as long as this lives.
#[derive(Debug)]
pub struct StreamPermit {
    streams: Arc<OpenStreams>,
    key: Key,
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        let mut open = self.streams.lock();
        if let Entry::Occupied(mut entry) = open.entry(self.key.clone()) {
            match entry.get() {
                0 | 1 => _ = entry.remove(),
                count => _ = entry.insert(count - 1),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_own_count_for_each_kind_and_gets_it_back() {
        let streams = Arc::new(OpenStreams::default());
        let whose = |ip: &str| Whose::address(ip.parse().expect("an address"));
        let open = |ip: &str, kind| streams.open(whose(ip), kind, 2);
        let first = open("1.1.1.1", Kind::Events).expect("the first");
        let second = open("1.1.1.1", Kind::Events).expect("the second");
        assert!(open("1.1.1.1", Kind::Events).is_none());
        let others = [
            open("1.1.1.1", Kind::WebSocket),
            open("1.1.1.2", Kind::Events),
        ];
        assert!(others.iter().all(Option::is_some));
        drop(first);
        let third = open("1.1.1.1", Kind::Events);
        assert!(third.is_some() && open("1.1.1.1", Kind::Events).is_none());
        drop((second, third, others));
        assert!(streams.lock().is_empty(), "nobody is remembered");
        assert!(streams.open(whose("1.1.1.1"), Kind::Events, 0).is_none());
    }
}
