//! Which WebSockets have which session, in memory: what a node that is alone knows of its own sockets.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::Connection;
use crate::model::{ClientId, UserId};

/// The connections by client, and the clients by user. Bounded by `MAX_CONNECTIONS`: each is one socket's.
#[derive(Debug, Default)]
pub(super) struct Connections {
    /// A lock held for a look-up, never while anything waits.
    maps: Mutex<Maps>,
}

#[derive(Debug, Default)]
struct Maps {
    connections: HashMap<ClientId, Connection>,
    clients: HashMap<UserId, Vec<ClientId>>,
}

impl Connections {
    pub(super) fn add(&self, connection: Connection) {
        let mut maps = self.maps.lock().unwrap_or_else(PoisonError::into_inner);
        let clients = maps.clients.entry(connection.user.clone()).or_default();
        if !clients.contains(&connection.client) {
            clients.push(connection.client);
        }
        maps.connections.insert(connection.client, connection);
    }

    pub(super) fn remove(&self, client: ClientId) {
        let mut maps = self.maps.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(connection) = maps.connections.remove(&client) else {
            return;
        };
        if let Some(clients) = maps.clients.get_mut(&connection.user) {
            clients.retain(|other| *other != client);
            if clients.is_empty() {
                maps.clients.remove(&connection.user);
            }
        }
    }

    /// Those of a user, the newest first.
    pub(super) fn of(&self, user: &str) -> Vec<Connection> {
        let maps = self.maps.lock().unwrap_or_else(PoisonError::into_inner);
        let clients = maps.clients.get(user).map_or(&[][..], Vec::as_slice);
        let connection = |client| maps.connections.get(client).cloned();
        clients.iter().rev().filter_map(connection).collect()
    }
}
