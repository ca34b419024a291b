//! What the sessions and the callers share: the servers of the moment, and who is told of a change.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};

use super::examine::Verdict;
use super::server::Server;
use super::target::Target;
use super::topology::{Topology, View};
use super::{Config, Listener, Script, cluster, lane, session};

/// What the sessions and the callers share.
pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) target: Target,
    /// What came of the last attempt to connect.
    pub(super) verdict: watch::Sender<Verdict>,
    pub(super) topology: RwLock<Topology>,
    /// Somebody has heard that the Cluster is another than it was.
    pub(super) look: Notify,
    /// Until the end: it may hold what holds this.
    pub(super) listener: RwLock<Option<Arc<dyn Listener>>>,
    pub(super) marks: String,
    pub(super) scripts: &'static [&'static Script],
    pub(super) handle: Handle,
    /// How many connections have ended.
    pub(super) generation: AtomicU64,
    /// How many servers there were.
    pub(super) ids: AtomicU32,
}

impl Shared {
    pub(super) fn listener(&self) -> Option<Arc<dyn Listener>> {
        let listener = self.listener.read().unwrap_or_else(PoisonError::into_inner);
        listener.clone()
    }

    pub(super) fn set_listener(&self, listener: Option<Arc<dyn Listener>>) {
        let mut place = self
            .listener
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *place = listener;
    }

    pub(super) fn topology(&self) -> RwLockReadGuard<'_, Topology> {
        self.topology.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn servers(&self) -> Vec<Arc<Server>> {
        self.topology().servers.clone()
    }

    pub(super) fn server_of(&self, key: &[u8]) -> Option<Arc<Server>> {
        self.topology().server_of(key).cloned()
    }

    pub(super) fn server_at(&self, address: &str) -> Option<Arc<Server>> {
        self.topology().server_at(address).cloned()
    }

    pub(super) fn new_server(&self, address: String, target: Target) -> Arc<Server> {
        let id = self.ids.fetch_add(1, Ordering::Relaxed) + 1;
        Server::new(id, address, target)
    }

    /// From now on it looks like this, unless this view is older than the last one. Called from one task only.
    pub(super) fn adopt(self: &Arc<Self>, view: &View) {
        let before = self.servers();
        let after = {
            let topology = self.topology();
            // When nobody is connected, the Cluster may be another one, which counts from the beginning.
            let is_old = view.epoch < topology.epoch
                && before
                    .iter()
                    .any(|server| server.commands.client().is_some());
            let after = Topology::of(view, &topology, |host| {
                self.new_server(host.to_string(), cluster::target_of(&self.target, host))
            });
            if is_old || after.is_same(&topology) {
                return;
            }
            after
        };
        let masters = after.servers.iter().map(|server| server.address.as_str());
        let masters: Vec<&str> = masters.collect();
        tracing::info!(?masters, "the masters of the redis cluster");
        self.change(after);
    }

    /// Tells of other servers, then gives up those that are none any more and connects to the new ones.
    pub(super) fn change(self: &Arc<Self>, after: Topology) {
        let servers = after.servers.clone();
        let before = {
            let mut topology = self
                .topology
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *topology, after)
        };
        if let Some(listener) = self.listener() {
            listener.moved();
        }
        let is_in =
            |some: &[Arc<Server>], server: &Server| some.iter().any(|one| one.id == server.id);
        for server in before
            .servers
            .iter()
            .filter(|server| !is_in(&servers, server))
        {
            server.give_up();
            self.generation.fetch_add(1, Ordering::Release);
        }
        for server in servers
            .iter()
            .filter(|server| !is_in(&before.servers, server))
        {
            self.begin(server);
        }
    }

    /// Connects to a server from now on.
    pub(super) fn begin(self: &Arc<Self>, server: &Arc<Server>) {
        // It ends by itself, when what was sent is answered.
        self.handle
            .spawn(session::command_sessions(self.clone(), server.clone()));
        let tasks = [
            self.handle.spawn(lane::run(self.clone(), server.clone())),
            self.handle
                .spawn(lane::run_kept(self.clone(), server.clone())),
            self.handle
                .spawn(session::message_sessions(self.clone(), server.clone())),
        ];
        for task in tasks {
            server.own(task.abort_handle());
        }
    }
}
