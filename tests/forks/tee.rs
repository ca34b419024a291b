//! Connections to a real server beside the model of one: each is asked everything, and both must answer the same.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fanfare::redis::{
    Borrowing, CallError, Command, Connections, Listener, Pending, Redis, ServerId, StartError,
    Value,
};

use crate::model::store::{Data, Store};
use crate::model::tasks::lock;
use crate::model::truth::Truth;

/// The model's side, and what differed first.
#[derive(Default)]
pub(crate) struct Beside {
    pub(crate) data: Data,
    pub(crate) replid: String,
    truth: Truth,
    /// What the model published and the server has yet to bring.
    expected: VecDeque<Bytes>,
    /// A connection ended: what was published then did not come.
    has_missed: bool,
    pub(crate) difference: Option<String>,
    pub(crate) compared: u64,
}

impl Beside {
    /// Begins anew with what comes.
    pub(crate) fn begin(&mut self) {
        (self.expected, self.has_missed) = (VecDeque::new(), false);
    }

    /// Whether everything that was published has come, or cannot be expected to.
    pub(crate) fn has_heard_all(&self) -> bool {
        self.has_missed || self.expected.is_empty()
    }

    fn differs(&mut self, what: &str, model: &dyn fmt::Debug, real: &dyn fmt::Debug) {
        let told = || format!("{what}: the model says {model:?}, the server {real:?}");
        self.difference.get_or_insert_with(told);
    }

    fn execute(&mut self, command: &Command) -> Result<Value, CallError> {
        let mut store = Store {
            data: &mut self.data,
            replid: &self.replid,
            broken: None,
            drawn: &mut 0,
            truth: &mut self.truth,
        };
        let (answer, sent) = store.execute(command);
        self.expected.extend(sent.map(|(_, payload)| payload));
        answer
    }
}

/// The connections. Without the model they are the real ones.
pub(crate) struct Tee {
    real: Redis,
    beside: Option<Arc<Mutex<Beside>>>,
}

impl Tee {
    pub(crate) fn new(real: Redis, beside: Option<Arc<Mutex<Beside>>>) -> Self {
        Self { real, beside }
    }
}

impl fmt::Debug for Tee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.real.fmt(f)
    }
}

/// The same whichever way numbers and texts are written.
fn plain(value: &Value) -> String {
    match value {
        Value::Array(parts) => {
            let parts: Vec<_> = parts.iter().map(plain).collect();
            format!("[{}]", parts.join(" "))
        }
        Value::Null => "null".to_owned(),
        Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => other.as_string().unwrap_or_else(|| format!("{other:?}")),
    }
}

fn is_unknown(answer: &Result<Value, CallError>) -> bool {
    matches!(answer, Err(CallError::Refused(why)) if why.ends_with("not in the model"))
}

struct Ears {
    node: Arc<dyn Listener>,
    beside: Arc<Mutex<Beside>>,
}

impl Listener for Ears {
    fn moved(&self) {
        self.node.moved();
    }

    fn connected(&self, server: ServerId) {
        self.node.connected(server);
    }

    fn lost(&self, server: ServerId) {
        lock(&self.beside).has_missed = true;
        self.node.lost(server);
    }

    fn message(&self, server: ServerId, channel: &str, payload: Bytes) {
        if channel.ends_with(":envelopes") {
            let mut beside = lock(&self.beside);
            let expected = beside.expected.pop_front();
            beside.compared += 1;
            if expected.as_ref() != Some(&payload) && !beside.has_missed {
                beside.differs("an envelope", &expected, &payload);
            }
        }
        self.node.message(server, channel, payload);
    }

    fn passed(&self, server: ServerId, mark: u64) {
        self.node.passed(server, mark);
    }

    fn changed(&self, lacks_messages: bool) {
        self.node.changed(lacks_messages);
    }
}

impl Connections for Tee {
    fn listen(&self, listener: Arc<dyn Listener>) {
        match &self.beside {
            None => self.real.listen(listener),
            Some(beside) => self.real.listen(Arc::new(Ears {
                node: listener,
                beside: beside.clone(),
            })),
        }
    }

    fn end(&self) {
        self.real.end();
    }

    fn examine<'a>(
        &'a self,
        probe: Command,
        channel: &'a str,
    ) -> Borrowing<'a, Result<(), StartError>> {
        Box::pin(self.real.examine(probe, channel))
    }

    fn call(&self, commands: Vec<Command>) -> Pending<Vec<Result<Value, CallError>>> {
        let Some(beside) = self.beside.clone() else {
            return self.real.call(commands);
        };
        // Both under the lock: the order is the same.
        let mut model = lock(&beside);
        let said: Vec<_> = commands
            .iter()
            .map(|command| (format!("{command:?}"), model.execute(command)))
            .collect();
        let real = self.real.call(commands);
        drop(model);
        Box::pin(async move {
            let real = real.await;
            let mut beside = lock(&beside);
            for ((command, model), real) in said.iter().zip(&real) {
                let are_same = match (model, real) {
                    (Ok(model), Ok(real)) => plain(model) == plain(real),
                    (Err(_), Err(_)) => true,
                    _ => false,
                };
                // Before the first connection stands, orders are asked for again.
                let was_sent = *real != Err(CallError::NotSent);
                if !is_unknown(model) && was_sent {
                    beside.compared += 1;
                    if !are_same {
                        beside.differs(command, model, real);
                    }
                }
            }
            real
        })
    }

    fn subscribe(
        &self,
        server: ServerId,
        added: Vec<String>,
        removed: Vec<String>,
        mark: u64,
    ) -> Borrowing<'_, Result<(), CallError>> {
        Box::pin(self.real.subscribe(server, added, removed, mark))
    }

    fn servers(&self) -> Vec<ServerId> {
        self.real.servers()
    }

    fn server_of(&self, key: &str) -> ServerId {
        self.real.server_of(key)
    }

    fn generation(&self) -> u64 {
        self.real.generation()
    }

    fn is_connected(&self) -> bool {
        self.real.is_connected()
    }

    fn is_cluster(&self) -> bool {
        self.real.is_cluster()
    }

    fn spawn(&self, task: Pending<()>) {
        Connections::spawn(&self.real, task);
    }

    fn pause(&self, length: Duration) -> Pending<()> {
        self.real.pause(length)
    }

    fn now(&self) -> Instant {
        Connections::now(&self.real)
    }
}
