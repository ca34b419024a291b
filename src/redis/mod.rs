//! Redis: connections, commands, scripts, and the watch over both.
//!
//! There are two connections to a server, and to each master of a Cluster. One carries commands, one carries what was
//! published to this node. A connection is never mended: when one ends, for whatever reason,
//! everything in flight on it fails, a new one takes its place, and who listens is told ([`Listener::lost`]). So nothing
//! is ever sent twice, and no reconnect goes unnoticed.
//!
//! Everything that waits here lives on a small runtime of this room's own. What [`Redis::call`] answers can be awaited
//! on any runtime, and commands leave in the order of the calls.
//!
//! Not here: what the keys mean (the broker).

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::watch::Sender;
use tokio::sync::{Notify, oneshot};

use crate::tls::Connector;

mod client;
mod cluster;
mod command;
mod config;
mod connections;
mod examine;
mod lane;
mod pipeline;
mod replicas;
mod resp;
mod script;
mod sentinel;
mod server;
mod session;
mod shared;
mod target;
mod topology;
mod value;
pub mod watch;

pub use command::Command;
pub use config::{Address, Config};
pub use connections::{Borrowing, Connections};
pub use examine::StartError;
use examine::Verdict;
use pipeline::Pipeline;
pub use script::Script;
use server::Server;
pub use server::ServerId;
use shared::Shared;
use target::Target;
use topology::Topology;
pub use value::Value;

/// How long one command may take.
const COMMAND_TIMEOUT: Duration = Duration::from_millis(900);

/// Why a command was not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// There is no connection: nothing was sent.
    #[error("redis cannot be reached")]
    NotSent,
    /// It was sent, or may have been, and no answer came.
    #[error("redis did not answer: {0}")]
    Unanswered(String),
    /// It was done, and fewer replicas have it than were to be waited for.
    #[error("redis did it, but fewer replicas have it than REDIS_WAIT_REPLICAS says")]
    NotReplicated,
    /// The server has no memory left: nothing was done.
    #[error("redis is out of memory")]
    OutOfMemory,
    /// The server refused the command, and did nothing.
    #[error("redis refused: {0}")]
    Refused(String),
}

/// Who is told what happens on the connections that bring publications. None of these may block.
pub trait Listener: Send + Sync {
    /// Other servers have other channels from now on ([`Redis::servers`], [`Redis::server_of`]): what is subscribed to is to
    /// be subscribed to where it is now. Those that are new are connected to after this.
    fn moved(&self);
    /// A new connection to a server stands. Nothing is subscribed to on it.
    fn connected(&self, server: ServerId);
    /// The connection is gone: what was published there since may be missing.
    fn lost(&self, server: ServerId);
    /// A message of a channel that was subscribed to, in the order in which the server sent them.
    fn message(&self, server: ServerId, channel: &str, payload: Bytes);
    /// The mark of this number came back on this server's connection: everything that was asked of it before has taken
    /// effect, and every message that it sent before has been handed over.
    fn passed(&self, server: ServerId, mark: u64);
    /// A server says that its data may be another than before. Whether messages may be missing, too, of which no
    /// [`Listener::lost`] tells: when it says so on the connection that brings them, and that stood.
    fn changed(&self, lacks_messages: bool);
}

/// The connections to one Redis server, or to the masters of a Cluster. They are made anew, with growing pauses, for as long
/// as the value lives.
pub struct Redis {
    shared: Arc<Shared>,
    handle: Handle,
    /// Dropped at the end.
    end: Mutex<Option<oneshot::Sender<()>>>,
}

/// Those commands of a call that go the same way.
struct Part<'a> {
    server: &'a Arc<Server>,
    /// Whether they wait for replicas.
    waits: bool,
    commands: Vec<Command>,
    /// Where they stand in the call.
    places: Vec<usize>,
}

/// An answer that is on its way. Dropping it does not take the command back.
pub type Pending<T> = std::pin::Pin<Box<dyn Future<Output = T> + Send>>;

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redis")
            .field("is_connected", &self.is_connected())
            .finish_non_exhaustive()
    }
}

impl Redis {
    /// Makes the runtime; nothing is connected before [`Redis::listen`]. `marks` is a channel that no other node uses;
    /// `scripts` are those that will be called, which each server is told before anything else.
    ///
    /// # Errors
    /// When the system gives no thread, or the certificates cannot be used.
    pub fn new(
        config: &Config,
        marks: String,
        scripts: &'static [&'static Script],
    ) -> Result<Self, StartError> {
        let target = target(config)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel::<()>();
        std::thread::Builder::new()
            .name("fanfare-redis".to_owned())
            .spawn(move || {
                // Ends when the sender is dropped, and the runtime with it.
                let _ = runtime.block_on(ended);
            })?;
        let shared = Arc::new(Shared {
            config: config.clone(),
            target,
            verdict: Sender::new(Verdict::Trying),
            topology: RwLock::default(),
            look: Notify::new(),
            listener: RwLock::default(),
            marks,
            scripts,
            handle: handle.clone(),
            generation: AtomicU64::new(0),
            ids: AtomicU32::new(0),
        });
        Ok(Self {
            shared,
            handle,
            end: Mutex::new(Some(end)),
        })
    }

    /// Connects, and tells `listener` from now on. To be called once.
    pub fn listen(&self, listener: Arc<dyn Listener>) {
        self.shared.set_listener(Some(listener));
        self.connect();
    }

    /// Connects for commands only. To be called once, in the place of [`Redis::listen`]. What is published then is for others:
    /// in a Cluster of any version it goes to all members (`PUBLISH`).
    pub fn connect(&self) {
        let shared = &self.shared;
        if self.is_cluster() {
            self.handle.spawn(cluster::watch(shared.clone()));
        } else {
            let server = shared.new_server(String::new(), shared.target.clone());
            shared.change(Topology::single(server));
        }
    }

    /// Whether all connections for commands stand.
    pub fn takes_commands(&self) -> bool {
        self.shared.topology().takes_commands()
    }

    /// Whether keys are spread over several servers.
    pub fn is_cluster(&self) -> bool {
        self.shared.target.is_cluster()
    }

    /// The servers of the moment.
    pub fn servers(&self) -> Vec<ServerId> {
        let topology = self.shared.topology();
        topology.servers.iter().map(|server| server.id).collect()
    }

    /// Which of them has a key or channel.
    pub fn server_of(&self, key: &str) -> ServerId {
        let topology = self.shared.topology();
        let server = topology.server_of(key.as_bytes());
        server.map_or(ServerId::NOWHERE, |server| server.id)
    }

    /// Where tasks live that wait for Redis.
    pub const fn runtime(&self) -> &Handle {
        &self.handle
    }

    /// Ends all connections and every task on the runtime; what is under way is not answered.
    pub fn end(&self) {
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        drop(end.take());
        self.shared.set_listener(None);
    }

    /// Changes whenever a connection ends.
    pub fn generation(&self) -> u64 {
        self.shared.generation.load(Ordering::Acquire)
    }

    /// Whether all connections stand.
    pub fn is_connected(&self) -> bool {
        self.shared.topology().is_connected()
    }

    /// Sends commands in their order, and behind those of earlier calls; on a Cluster those of one master. Answered within
    /// two seconds.
    pub fn call(&self, commands: Vec<Command>) -> Pending<Vec<Result<Value, CallError>>> {
        let topology = self.shared.topology();
        let waits = self.shared.config.wait_replicas > 0;
        if let ([server], false, false) = (topology.servers.as_slice(), self.is_cluster(), waits) {
            return server.call(commands, false);
        }
        let mut answers = vec![Err(CallError::NotSent); commands.len()];
        let mut parts: Vec<Part<'_>> = Vec::new();
        for (at, command) in commands.into_iter().enumerate() {
            let Some(server) = topology.server_of(command.key()) else {
                continue;
            };
            let waits = waits && command.awaits_replicas();
            let known = parts
                .iter_mut()
                .find(|part| part.server.id == server.id && part.waits == waits);
            match known {
                Some(part) => {
                    part.commands.push(command);
                    part.places.push(at);
                }
                None => parts.push(Part {
                    server,
                    waits,
                    commands: vec![command],
                    places: vec![at],
                }),
            }
        }
        let parts: Vec<_> = parts
            .into_iter()
            .map(|part| (part.server.call(part.commands, part.waits), part.places))
            .collect();
        Box::pin(async move {
            for (told, places) in parts {
                for (place, answer) in places.into_iter().zip(told.await) {
                    answers[place] = answer;
                }
            }
            answers
        })
    }

    /// Sends one command.
    pub fn call_one(&self, command: Command) -> Pending<Result<Value, CallError>> {
        let answers = self.call(vec![command]);
        Box::pin(async move { answers.await.pop().unwrap_or(Err(CallError::NotSent)) })
    }

    /// Changes what this node is subscribed to on a server, then sets a mark that the listener sees when the change has
    /// taken effect. To be called from one task for each server: the order of the calls is the order on the wire.
    ///
    /// # Errors
    /// When the connection did not take it, which is then lost or about to be; or the server has not what is asked.
    pub async fn subscribe(
        &self,
        server: ServerId,
        added: Vec<String>,
        mut removed: Vec<String>,
        mark: u64,
    ) -> Result<(), CallError> {
        let (server, client) = {
            let topology = self.shared.topology();
            let server = topology.server(server).cloned();
            let server = server.ok_or(CallError::NotSent)?;
            if server.is_sharded() {
                // The others are gone with their slots, and the server would refuse.
                removed.retain(|name| {
                    let owner = topology.server_of(name.as_bytes());
                    owner.is_some_and(|owner| owner.id == server.id)
                });
            }
            let client = server.messages.client().ok_or(CallError::NotSent)?;
            (server, client)
        };
        let mut pipeline = Pipeline::default();
        for (kind, names) in [("UNSUBSCRIBE", &removed), ("SUBSCRIBE", &added)] {
            add_subscriptions(&mut pipeline, kind, names, server.is_sharded());
        }
        // In this order on the wire: each is handed over when it is first polled. No mark passes over what was refused.
        let (subscribed, marked) = tokio::join!(
            biased;
            client.subscribe(pipeline),
            session::set_mark(&self.shared, &client, mark)
        );
        if let Err(CallError::Refused(_)) = &subscribed {
            self.shared.look.notify_one();
        }
        subscribed.and(marked)
    }
}

/// Names as one command, or as one each: what is sharded may be subscribed to together in one slot only.
fn add_subscriptions(pipeline: &mut Pipeline, kind: &str, names: &[String], is_sharded: bool) {
    let names = names.iter().map(String::as_str);
    if is_sharded {
        let kind = format!("S{kind}");
        for name in names {
            pipeline.add_words([kind.as_str(), name].into_iter());
        }
    } else if names.len() > 0 {
        let all: Vec<&str> = std::iter::once(kind).chain(names).collect();
        pipeline.add_words(all.into_iter());
    }
}

/// What is connected to.
fn target(config: &Config) -> Result<Target, StartError> {
    let tls = match config.address.is_secure() {
        true => Some(Connector::without_alpn(config.ca_file.as_deref())?),
        false => None,
    };
    // An address was parsed before it became one.
    let target = config.address.target().ok_or(StartError::NoAddress)?;
    Ok(Target { tls, ..target })
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.end();
    }
}

/// How a server says that it has no memory left.
const NO_MEMORY: &str = "OOM command not allowed";

/// What a server says that does not do something.
fn refused(why: &str) -> CallError {
    match why.starts_with("OOM") || why.contains(NO_MEMORY) {
        true => CallError::OutOfMemory,
        false => CallError::Refused(why.to_owned()),
    }
}
