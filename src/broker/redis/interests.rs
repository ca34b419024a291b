//! Which server has which of the channels that this node wants. With one server that is simple; in a Cluster slots move and
//! masters change, and the channels go with them.

use std::sync::{Arc, PoisonError, RwLock};

use hashbrown::HashMap;
use tokio::sync::oneshot;

use super::interest::{Ears, Interest};
use super::orders::{Order, Orders};
use crate::broker::{BrokerError, Control, Sink, Start};
use crate::model::ChannelKey;
use crate::redis::{Connections, ServerId};

/// The interest in channels of every server.
pub(super) struct Interests {
    by_server: RwLock<HashMap<ServerId, Arc<Interest>>>,
    ears: Arc<Ears>,
}

impl Interests {
    pub(super) fn new(control: String) -> Self {
        let ears = Arc::new(Ears {
            control,
            ..Ears::default()
        });
        // What no server has yet waits there, and is moved when one does.
        let nowhere = Arc::new(Interest::new(ears.clone()));
        Self {
            by_server: RwLock::new(HashMap::from([(ServerId::NOWHERE, nowhere)])),
            ears,
        }
    }

    /// The first sink stays.
    pub(super) fn attach(&self, sink: Arc<dyn Sink>) {
        let _ = self.ears.sink.set(sink);
    }

    /// That of a server; `None` of one that is none any more.
    pub(super) fn of(&self, server: ServerId) -> Option<Arc<Interest>> {
        let by_server = self
            .by_server
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        by_server.get(&server).cloned()
    }

    /// Those of all servers.
    pub(super) fn all(&self) -> Vec<Arc<Interest>> {
        let by_server = self
            .by_server
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        by_server.values().cloned().collect()
    }

    /// Whether all connections stand, and one brings orders.
    pub(super) fn is_ready(&self) -> bool {
        let by_server = self
            .by_server
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let mut known = by_server.iter().filter(|(id, _)| **id != ServerId::NOWHERE);
        by_server.len() > 1
            && known.all(|(_, interest)| interest.is_ready())
            && !self.ears.orders.is_new()
    }

    /// Which orders came.
    pub(super) fn orders(&self) -> &Orders {
        &self.ears.orders
    }

    /// What stands of them was read: see [`Orders::read`].
    pub(super) fn orders_read(&self, life: u64, stand: &[Order]) {
        let execute = |control: &Control| self.ears.execute(control);
        self.ears.orders.read(life, stand, execute);
    }

    /// See [`Interest::add`].
    pub(super) fn add(
        &self,
        redis: &dyn Connections,
        name: String,
        channel: &ChannelKey,
        keeps_history: bool,
    ) -> Option<oneshot::Receiver<Result<Start, BrokerError>>> {
        // Held until the channel is in its place: nothing moves meanwhile.
        let by_server = self
            .by_server
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let interest = place(&by_server, redis.server_of(&name))?;
        interest.add(name, channel, keeps_history, redis.now())
    }

    /// See [`Interest::remove`].
    pub(super) fn remove(
        &self,
        redis: &dyn Connections,
        name: &str,
    ) -> Option<oneshot::Receiver<()>> {
        let by_server = self
            .by_server
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        place(&by_server, redis.server_of(name))?.remove(name)
    }

    /// Other servers have other channels. Answers the interest in servers that are new.
    pub(super) fn moved(&self, redis: &dyn Connections) -> Vec<(ServerId, Arc<Interest>)> {
        let mut by_server = self
            .by_server
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let servers = redis.servers();
        let mut moving = Vec::new();
        for (id, interest) in &*by_server {
            moving.extend(interest.depart(|name| redis.server_of(name) != *id));
        }
        by_server.retain(|id, interest| {
            let stays = *id == ServerId::NOWHERE || servers.contains(id);
            if !stays {
                interest.end();
            }
            stays
        });
        let mut new = Vec::new();
        for id in servers {
            by_server.entry(id).or_insert_with(|| {
                let interest = Arc::new(Interest::new(self.ears.clone()));
                new.push((id, interest.clone()));
                interest
            });
        }
        let controlling = redis.server_of(&self.ears.control);
        for (id, interest) in &*by_server {
            interest.want_control(*id == controlling);
        }
        for (name, entry) in moving {
            if let Some(interest) = place(&by_server, redis.server_of(&name)) {
                interest.arrive(name, entry);
            }
        }
        new
    }

    /// The data may be another; and messages may be missing, or none are.
    pub(super) fn changed(&self, lacks_messages: bool) {
        match self.ears.sink.get() {
            Some(sink) if lacks_messages => sink.hole(None),
            Some(sink) => sink.changed(),
            None => {}
        }
    }
}

/// The interest in a server, or in nobody.
fn place(by_server: &HashMap<ServerId, Arc<Interest>>, server: ServerId) -> Option<&Arc<Interest>> {
    by_server
        .get(&server)
        .or_else(|| by_server.get(&ServerId::NOWHERE))
}
