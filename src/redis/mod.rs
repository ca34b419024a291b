//! Redis: connections, commands, scripts, and the watch over both. fred's only home.
//!
//! There are two connections. One carries commands, one carries what was published to this node. A connection is never
//! mended by the client library: when one ends, for whatever reason, everything in flight on it fails, a new client
//! takes its place, and who listens is told ([`Listener::lost`]). So nothing is ever sent twice, and no reconnect goes
//! unnoticed.
//!
//! Everything that waits here lives on a small runtime of this room's own. What [`Redis::call`] answers can be awaited
//! on any runtime, and commands leave in the order of the calls.
//!
//! Not here: what the keys mean (the broker).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use fred::clients::Client;
use fred::error::ErrorKind;
use fred::interfaces::{ClientLike as _, PubsubInterface as _};
use fred::types::ClientState;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

mod config;
mod lane;
mod script;
mod session;

pub use config::{Address, Config};
pub use fred::types::Value;
use lane::Lane;
pub use script::Script;

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
    /// The server has no memory left: nothing was done.
    #[error("redis is out of memory")]
    OutOfMemory,
    /// The server refused the command, and did nothing.
    #[error("redis refused: {0}")]
    Refused(String),
}

/// A command: its words.
#[derive(Debug, Clone)]
pub struct Command {
    name: &'static str,
    script: Option<&'static Script>,
    words: Vec<Bytes>,
}

impl Command {
    /// A plain command.
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            script: None,
            words: Vec::new(),
        }
    }

    /// A script with its keys; its arguments follow with [`Command::word`].
    pub fn script(script: &'static Script, keys: &[&Bytes]) -> Self {
        let mut words = Vec::with_capacity(keys.len() + 10);
        words.push(Bytes::new());
        words.push(Bytes::from(keys.len().to_string()));
        words.extend(keys.iter().copied().cloned());
        Self {
            name: "EVALSHA",
            script: Some(script),
            words,
        }
    }

    /// What is sent: the command's name and its words. A script is called by its name.
    fn words(&self) -> (&'static str, Vec<Bytes>) {
        match self.script {
            None => (self.name, self.words.clone()),
            Some(script) => ("EVALSHA", self.words_with(script.sha())),
        }
    }

    /// The same with the text of the script; `None` for a plain command.
    fn words_in_full(&self) -> Option<(&'static str, Vec<Bytes>)> {
        Some(("EVAL", self.words_with(self.script?.text())))
    }

    fn words_with(&self, script: &'static str) -> Vec<Bytes> {
        let mut words = self.words.clone();
        if let Some(first) = words.first_mut() {
            *first = Bytes::from_static(script.as_bytes());
        }
        words
    }

    /// Adds a word.
    #[must_use]
    pub fn word(mut self, word: impl Into<Bytes>) -> Self {
        self.words.push(word.into());
        self
    }

    /// Adds a number.
    #[must_use]
    pub fn number(self, number: u64) -> Self {
        self.word(number.to_string())
    }
}

/// Who is told what happens on the connection that brings publications. None of these may block.
pub trait Listener: Send + Sync {
    /// A new connection stands. Nothing is subscribed to on it.
    fn connected(&self);
    /// The connection is gone: what was published since may be missing.
    fn lost(&self);
    /// A message of a channel that was subscribed to, in the order in which the server sent them.
    fn message(&self, channel: &str, payload: Bytes);
    /// The mark of this number came back on this connection: everything that was asked of it before has taken effect,
    /// and every message that the server sent before has been handed over.
    fn passed(&self, mark: u64);
    /// The server says that its data may be another than before.
    fn changed(&self);
}

/// One of the two connections: the client of the moment.
#[derive(Debug, Default)]
struct Link {
    client: RwLock<Option<Client>>,
}

impl Link {
    fn client(&self) -> Option<Client> {
        let client = self.client.read().unwrap_or_else(PoisonError::into_inner);
        client
            .clone()
            .filter(|client| client.state() == ClientState::Connected)
    }

    fn set(&self, client: Option<Client>) {
        *self.client.write().unwrap_or_else(PoisonError::into_inner) = client;
    }
}

/// What the sessions and the callers share.
struct Shared {
    config: Config,
    commands: Link,
    messages: Link,
    marks: String,
    scripts: &'static [&'static Script],
    lane: Arc<Lane>,
    /// How many connections have ended.
    generation: AtomicU64,
}

/// The connections to one Redis server. They are made anew, with growing pauses, for as long as the value lives.
pub struct Redis {
    shared: Arc<Shared>,
    handle: Handle,
    /// Dropped at the end.
    end: Mutex<Option<oneshot::Sender<()>>>,
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
    /// When the system gives no thread.
    pub fn new(
        config: &Config,
        marks: String,
        scripts: &'static [&'static Script],
    ) -> std::io::Result<Self> {
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
            commands: Link::default(),
            messages: Link::default(),
            marks,
            scripts,
            lane: Arc::default(),
            generation: AtomicU64::new(0),
        });
        Ok(Self {
            shared,
            handle,
            end: Mutex::new(Some(end)),
        })
    }

    /// Connects, and tells `listener` from now on. To be called once.
    pub fn listen(&self, listener: Arc<dyn Listener>) {
        self.connect();
        self.runtime()
            .spawn(session::message_sessions(self.shared.clone(), listener));
    }

    /// Connects for commands only. To be called once, in the place of [`Redis::listen`].
    pub fn connect(&self) {
        let runtime = self.runtime();
        let shared = self.shared.clone();
        runtime.spawn(shared.lane.clone().run(move || shared.commands.client()));
        runtime.spawn(session::command_sessions(self.shared.clone()));
    }

    /// Whether the connection for commands stands.
    pub fn takes_commands(&self) -> bool {
        self.shared.commands.client().is_some()
    }

    /// Where tasks live that wait for Redis.
    pub const fn runtime(&self) -> &Handle {
        &self.handle
    }

    /// Ends all connections and every task on the runtime; what is under way is not answered.
    pub fn end(&self) {
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        drop(end.take());
    }

    /// Changes whenever a connection ends.
    pub fn generation(&self) -> u64 {
        self.shared.generation.load(Ordering::Acquire)
    }

    /// Whether both connections stand.
    pub fn is_connected(&self) -> bool {
        self.shared.commands.client().is_some() && self.shared.messages.client().is_some()
    }

    /// Sends commands in their order, and behind those of earlier calls. Answered within two seconds.
    pub fn call(&self, commands: Vec<Command>) -> Pending<Vec<Result<Value, CallError>>> {
        let count = commands.len();
        if self.shared.commands.client().is_none() {
            return Box::pin(std::future::ready(vec![Err(CallError::NotSent); count]));
        }
        let told = self.shared.lane.ask(commands);
        Box::pin(async move {
            let ended = || vec![Err(CallError::Unanswered("the runtime ended".to_owned())); count];
            told.await.unwrap_or_else(|_| ended())
        })
    }

    /// Sends one command.
    pub fn call_one(&self, command: Command) -> Pending<Result<Value, CallError>> {
        let answers = self.call(vec![command]);
        Box::pin(async move { answers.await.pop().unwrap_or(Err(CallError::NotSent)) })
    }

    /// Changes what this node is subscribed to, then sets a mark that the listener sees when the change has taken
    /// effect. To be called from one task only: the order of the calls is the order on the wire.
    ///
    /// # Errors
    /// When the connection did not take it; it is then lost or about to be.
    pub async fn subscribe(
        &self,
        added: Vec<String>,
        removed: Vec<String>,
        mark: u64,
    ) -> Result<(), CallError> {
        let client = self.shared.messages.client().ok_or(CallError::NotSent)?;
        let unsubscribed = async {
            match removed.is_empty() {
                true => Ok(()),
                false => client.unsubscribe(removed).await,
            }
        };
        let subscribed = async {
            match added.is_empty() {
                true => Ok(()),
                false => client.subscribe(added).await,
            }
        };
        let marked = client.publish::<Value, _, _>(self.shared.marks.as_str(), mark.to_string());
        // In this order on the wire: each is handed over when it is first polled.
        let (unsubscribed, subscribed, marked) =
            tokio::join!(biased; unsubscribed, subscribed, marked);
        unsubscribed
            .and(subscribed)
            .and(marked.map(drop))
            .map_err(fault)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.end();
    }
}

/// Whose fault it is: the server said no, or nobody knows.
#[expect(clippy::needless_pass_by_value, reason = "it is used in map_err")]
fn fault(error: fred::error::Error) -> CallError {
    let details = error.details();
    let word = details.split(' ').next().unwrap_or_default();
    if word == "OOM" {
        return CallError::OutOfMemory;
    }
    // Before 7.0 the error of a script wraps the one of the command.
    if details.contains("OOM command not allowed") {
        return CallError::OutOfMemory;
    }
    // An error reply begins with a word in capitals. What the client library says of itself does not.
    let is_reply = word.len() > 2 && word.bytes().all(|byte| byte.is_ascii_uppercase());
    let is_broken = matches!(
        error.kind(),
        ErrorKind::IO | ErrorKind::Timeout | ErrorKind::Canceled
    );
    if is_reply && !is_broken {
        return CallError::Refused(details.to_owned());
    }
    CallError::Unanswered(error.to_string())
}
