//! The connections as a trait: so that the broker itself, not a copy of it, runs in a model of a fleet (`tests/forks`),
//! whose servers, network and clock are the model's own.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{CallError, Command, Listener, Pending, Redis, ServerId, StartError, Value};

/// What somebody waits for who lends something to it.
pub type Borrowing<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Connections to the servers of one fleet, the tasks that wait for them, and the clock that those go by. [`Redis`] is the
/// real thing; each call is described there.
pub trait Connections: Send + Sync + fmt::Debug {
    /// Connects, and tells `listener` from now on. To be called once.
    fn listen(&self, listener: Arc<dyn Listener>);

    /// Ends all connections and every task that was spawned.
    fn end(&self);

    /// Asks whether the server lets this node do what it must: see [`Redis::examine`].
    fn examine<'a>(
        &'a self,
        probe: Command,
        channel: &'a str,
    ) -> Borrowing<'a, Result<(), StartError>>;

    /// Sends commands in their order, and behind those of earlier calls.
    fn call(&self, commands: Vec<Command>) -> Pending<Vec<Result<Value, CallError>>>;

    /// Sends one command.
    fn call_one(&self, command: Command) -> Pending<Result<Value, CallError>> {
        let answers = self.call(vec![command]);
        Box::pin(async move { answers.await.pop().unwrap_or(Err(CallError::NotSent)) })
    }

    /// Changes what this node is subscribed to on a server, then sets a mark.
    fn subscribe(
        &self,
        server: ServerId,
        added: Vec<String>,
        removed: Vec<String>,
        mark: u64,
    ) -> Borrowing<'_, Result<(), CallError>>;

    /// The servers of the moment.
    fn servers(&self) -> Vec<ServerId>;

    /// Which of them has a key or channel.
    fn server_of(&self, key: &str) -> ServerId;

    /// Changes whenever a connection ends.
    fn generation(&self) -> u64;

    /// Whether all connections stand.
    fn is_connected(&self) -> bool;

    /// Whether keys are spread over several servers.
    fn is_cluster(&self) -> bool;

    /// Runs a task until it ends, or [`Connections::end`].
    fn spawn(&self, task: Pending<()>);

    /// Over after so long. To be awaited by spawned tasks only.
    fn pause(&self, length: Duration) -> Pending<()>;

    /// What time it is.
    fn now(&self) -> Instant;
}

impl Connections for Redis {
    fn listen(&self, listener: Arc<dyn Listener>) {
        self.listen(listener);
    }

    fn end(&self) {
        self.end();
    }

    fn examine<'a>(
        &'a self,
        probe: Command,
        channel: &'a str,
    ) -> Borrowing<'a, Result<(), StartError>> {
        Box::pin(self.examine(probe, channel))
    }

    fn call(&self, commands: Vec<Command>) -> Pending<Vec<Result<Value, CallError>>> {
        self.call(commands)
    }

    fn subscribe(
        &self,
        server: ServerId,
        added: Vec<String>,
        removed: Vec<String>,
        mark: u64,
    ) -> Borrowing<'_, Result<(), CallError>> {
        Box::pin(self.subscribe(server, added, removed, mark))
    }

    fn servers(&self) -> Vec<ServerId> {
        self.servers()
    }

    fn server_of(&self, key: &str) -> ServerId {
        self.server_of(key)
    }

    fn generation(&self) -> u64 {
        self.generation()
    }

    fn is_connected(&self) -> bool {
        self.is_connected()
    }

    fn is_cluster(&self) -> bool {
        self.is_cluster()
    }

    fn spawn(&self, task: Pending<()>) {
        self.runtime().spawn(task);
    }

    fn pause(&self, length: Duration) -> Pending<()> {
        // Made when it is first polled: then the timer is the runtime's.
        Box::pin(async move { tokio::time::sleep(length).await })
    }

    fn now(&self) -> Instant {
        Instant::now()
    }
}
