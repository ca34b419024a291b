//! One master, the two connections to it and the lane of its commands.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::client::Client;
use super::lane::Lane;
use super::target::Target;
use super::watch::Known;
use super::{CallError, Command, Pending};

/// A master, for as long as it is one. Whoever takes its place has another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerId(pub(super) u32);

impl ServerId {
    /// Of what no known server is responsible for.
    pub const NOWHERE: Self = Self(0);

    /// The server of this number, which is not 0.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }
}

/// A connection: the client of the moment.
#[derive(Default)]
pub(super) struct Link {
    client: RwLock<Option<Client>>,
}

impl Link {
    pub(super) fn client(&self) -> Option<Client> {
        let client = self.client.read().unwrap_or_else(PoisonError::into_inner);
        client.clone().filter(Client::is_open)
    }

    pub(super) fn set(&self, client: Option<Client>) {
        *self.client.write().unwrap_or_else(PoisonError::into_inner) = client;
    }
}

/// A master.
pub(super) struct Server {
    pub(super) id: ServerId,
    /// `host:port`; empty where a Sentinel tells it, or there is one server only.
    pub(super) address: String,
    pub(super) target: Target,
    pub(super) commands: Link,
    pub(super) messages: Link,
    /// What the connection for commands was told last, or the one before it.
    known: Mutex<Known>,
    pub(super) lane: Lane,
    /// That of commands which wait for replicas.
    pub(super) kept_lane: Lane,
    /// Whether fewer replicas had the last of those than were waited for.
    pub(super) lacks_replicas: AtomicBool,
    /// Whether publications reach only this server's subscribers: in a Cluster from version 7 on.
    pub(super) is_sharded: AtomicBool,
    /// That it is no master any more.
    pub(super) given_up: Notify,
    tasks: Mutex<Vec<AbortHandle>>,
}

impl Server {
    pub(super) fn new(id: u32, address: String, target: Target) -> Arc<Self> {
        Arc::new(Self {
            id: ServerId(id),
            address,
            target,
            commands: Link::default(),
            messages: Link::default(),
            known: Mutex::default(),
            lane: Lane::default(),
            kept_lane: Lane::default(),
            lacks_replicas: AtomicBool::new(false),
            is_sharded: AtomicBool::new(false),
            given_up: Notify::new(),
            tasks: Mutex::default(),
        })
    }

    pub(super) fn is_connected(&self) -> bool {
        self.commands.client().is_some() && self.messages.client().is_some()
    }

    pub(super) fn is_of_cluster(&self) -> bool {
        !self.address.is_empty()
    }

    pub(super) fn is_sharded(&self) -> bool {
        self.is_sharded.load(Ordering::Relaxed)
    }

    /// Sends commands in their order, and behind those of earlier calls that wait for replicas, or do not, as these.
    pub(super) fn call(
        &self,
        commands: Vec<Command>,
        awaits_replicas: bool,
    ) -> Pending<Vec<Result<super::Value, CallError>>> {
        let count = commands.len();
        if self.commands.client().is_none() {
            return Box::pin(std::future::ready(vec![Err(CallError::NotSent); count]));
        }
        let lane = match awaits_replicas {
            true => &self.kept_lane,
            false => &self.lane,
        };
        let told = lane.ask(commands);
        Box::pin(async move {
            let ended = || {
                vec![
                    Err(CallError::Unanswered(
                        "the connection was given up".to_owned()
                    ));
                    count
                ]
            };
            told.await.unwrap_or_else(|_| ended())
        })
    }

    /// The replication id that the connection for commands was told last.
    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What ends at once when it is no master any more.
    pub(super) fn own(&self, task: AbortHandle) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.push(task);
    }

    /// It is no master any more, or of nothing. What waits to be sent fails, what was sent may still be answered.
    pub(super) fn give_up(&self) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        for task in tasks.drain(..) {
            task.abort();
        }
        self.lane.give_up();
        self.kept_lane.give_up();
        self.commands.set(None);
        self.messages.set(None);
        self.given_up.notify_one();
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("id", &self.id)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}
