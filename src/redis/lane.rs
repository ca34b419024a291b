//! The one way of commands to the server: what is asked at the same time leaves as one pipeline.
//!
//! A command of its own costs a channel, a timer and two wake-ups, which is more than the server needs for a publication. So
//! calls put their commands into a queue, and one task takes all that is there, in the order of the calls. While it works the
//! next ones gather: the busier, the larger the pipelines.
//!
//! What waits for replicas has a lane of its own on the same connection, and leaves in rounds (see `replicas`).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::client::Client;
use super::command::{self, Command};
use super::pipeline::Pipeline;
use super::server::Server;
use super::value::Value;
use super::{COMMAND_TIMEOUT, CallError, Shared, cluster, replicas};

/// What came of one command.
pub(super) type Answer = Result<Value, CallError>;

/// The most commands of one pipeline; those of one call stay together.
const PIPELINE_COMMANDS: usize = 256;

/// The most commands that become one call of a script: it must not hold up the server.
const JOINED_MAX: usize = 64;

/// How long a call may take, with a second attempt for scripts that the server does not know.
const CALL_TIMEOUT: Duration = Duration::from_millis(1900);

/// The commands of one call, and who waits for what comes of them.
struct Call {
    commands: Vec<Command>,
    tell: oneshot::Sender<Vec<Answer>>,
}

impl Call {
    fn fail(self, error: &CallError) {
        // Whoever asked may have stopped waiting.
        let _ = self
            .tell
            .send(vec![Err(error.clone()); self.commands.len()]);
    }
}

/// Wakes whoever sends, also when the task that holds it never runs, because its thread comes to its end.
struct CallWhenDropped(Arc<Notify>);

impl Drop for CallWhenDropped {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// Calls that wait to be sent.
#[derive(Default)]
pub(super) struct Lane {
    calls: Mutex<Vec<Call>>,
    asked: Arc<Notify>,
}

impl Lane {
    /// Puts a call behind the earlier ones.
    pub(super) fn ask(&self, commands: Vec<Command>) -> oneshot::Receiver<Vec<Answer>> {
        let (tell, told) = oneshot::channel();
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.push(Call { commands, tell });
        if calls.len() == 1 {
            self.call_soon();
        }
        told
    }

    /// Wakes whoever sends when the caller's thread has done what it is about to do: others of its tasks may ask as well, and
    /// each wake-up costs both threads more than a command does.
    fn call_soon(&self) {
        let call = CallWhenDropped(self.asked.clone());
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move { drop(call) });
        }
    }

    fn take(&self) -> Vec<Call> {
        std::mem::take(&mut *self.calls.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What waits fails: nobody will send it.
    pub(super) fn give_up(&self) {
        for call in self.take() {
            call.fail(&CallError::NotSent);
        }
    }
}

/// Sends what is asked of a server, for as long as it is one.
pub(super) async fn run(shared: Arc<Shared>, server: Arc<Server>) {
    loop {
        server.lane.asked.notified().await;
        // Whoever is about to ask does so first.
        tokio::task::yield_now().await;
        let mut calls = server.lane.take().into_iter().peekable();
        let client = server.commands.client();
        while calls.peek().is_some() {
            let mut count = 0;
            let some = std::iter::from_fn(|| {
                let call = calls.next_if(|call| {
                    count == 0 || count + call.commands.len() <= PIPELINE_COMMANDS
                })?;
                count += call.commands.len();
                Some(call)
            });
            let some: Vec<Call> = some.collect();
            match &client {
                Some(client) => {
                    let deadline = Instant::now() + CALL_TIMEOUT;
                    drop(send(Sent::by(&shared, &server, client, deadline), some));
                }
                None => not_sent(some),
            }
        }
    }
}

/// Sends what waits for replicas, in rounds, for as long as the server is one.
pub(super) async fn run_kept(shared: Arc<Shared>, server: Arc<Server>) {
    loop {
        server.kept_lane.asked.notified().await;
        tokio::task::yield_now().await;
        let mut asked_since = Instant::now();
        loop {
            let calls = server.kept_lane.take();
            if calls.is_empty() {
                break;
            }
            // What is asked from now on waits for this round.
            let next = Instant::now();
            round(&shared, &server, calls, asked_since + CALL_TIMEOUT).await;
            asked_since = next;
        }
    }
}

/// Sends calls and waits until they are answered. When the last round took so long that they could not be in time, nothing
/// is sent.
async fn round(shared: &Arc<Shared>, server: &Arc<Server>, calls: Vec<Call>, deadline: Instant) {
    let is_late = Instant::now() + COMMAND_TIMEOUT > deadline;
    match server.commands.client().filter(|_| !is_late) {
        Some(client) => {
            let sent = Sent {
                replicas: shared.config.wait_replicas,
                ..Sent::by(shared, server, &client, deadline)
            };
            // Only a panic ends it otherwise, which whoever waits for the calls is told by the end of its channel.
            let _ = send(sent, calls).await;
        }
        None => not_sent(calls),
    }
}

fn not_sent(calls: Vec<Call>) {
    for call in calls {
        call.fail(&CallError::NotSent);
    }
}

/// Hands calls over to the connection, and leaves the wait for the answers to a task.
fn send(sent: Sent, calls: Vec<Call>) -> JoinHandle<()> {
    let commands: Vec<&Command> = calls.iter().flat_map(|call| &call.commands).collect();
    // The keys of a Cluster's command are of one slot.
    let most = if sent.server.is_of_cluster() {
        1
    } else {
        JOINED_MAX
    };
    let joined = joined(&commands, most);
    let mut pipeline = Pipeline::default();
    for some in &joined {
        pipeline.add(some, sent.is_sharded);
    }
    let answers = sent.ask(pipeline);
    let joined: Vec<usize> = joined.into_iter().map(<[_]>::len).collect();
    tokio::spawn(async move {
        let (answers, told) = answers.await;
        let mut answers = apart(&calls, answers, &joined);
        sent.settle(&mut answers, told);
        sent.tell(calls, answers).await;
    })
}

/// The commands in their order, those together that become one.
fn joined<'a, 'b>(mut commands: &'b [&'a Command], most: usize) -> Vec<&'b [&'a Command]> {
    let mut joined = Vec::new();
    while let Some(first) = commands.first() {
        let more = commands[1..].iter().take(most - 1);
        let count = 1 + more.take_while(|next| first.joins(next)).count();
        let (some, rest) = commands.split_at(count);
        joined.push(some);
        commands = rest;
    }
    joined
}

/// One answer for each command; `joined` says how many of them became one.
fn apart(calls: &[Call], answers: Vec<Answer>, joined: &[usize]) -> Vec<Answer> {
    let mut commands = calls.iter().flat_map(|call| &call.commands);
    let mut apart = Vec::new();
    for (answer, &count) in answers.into_iter().zip(joined) {
        // The others of those that became one are passed over.
        let first = commands.next();
        let _ = commands.by_ref().take(count - 1).count();
        match first {
            Some(command) if count == 1 => apart.push(command.own_part(answer)),
            _ => apart.extend(command::parts(answer, count)),
        }
    }
    apart
}

/// Calls that were sent, and how.
struct Sent {
    shared: Arc<Shared>,
    server: Arc<Server>,
    client: Client,
    is_sharded: bool,
    deadline: Instant,
    /// How many replicas are waited for.
    replicas: u32,
}

impl Sent {
    /// Over this connection, without waiting for replicas.
    fn by(shared: &Arc<Shared>, server: &Arc<Server>, client: &Client, deadline: Instant) -> Self {
        Self {
            shared: shared.clone(),
            server: server.clone(),
            client: client.clone(),
            is_sharded: server.is_sharded(),
            deadline,
            replicas: 0,
        }
    }

    /// Sends commands together. Their answers, and what the server said of replicas when those are waited for.
    fn ask(
        &self,
        pipeline: Pipeline,
    ) -> impl Future<Output = (Vec<Answer>, Option<Answer>)> + use<> {
        ask_kept(&self.client, pipeline, self.replicas)
    }

    fn settle(&self, answers: &mut [Answer], told: Option<Answer>) {
        if let Some(told) = told {
            replicas::settle(&self.shared, &self.server, answers, &told);
        }
    }

    /// Gives each call its answers. What was not run is sent again: scripts that the server does not know, and what
    /// another master of a Cluster has.
    async fn tell(&self, calls: Vec<Call>, answers: Vec<Answer>) {
        let mut answers = answers.into_iter();
        for call in calls {
            let mut own: Vec<Answer> = answers.by_ref().take(call.commands.len()).collect();
            if own.iter().any(is_unknown) {
                self.again_with_text(&call.commands, &mut own).await;
            }
            if own.iter().any(cluster::is_redirect) {
                let (shared, deadline) = (self.shared.clone(), self.deadline);
                tokio::spawn(async move {
                    cluster::follow(&shared, &call.commands, &mut own, deadline).await;
                    let _ = call.tell.send(own);
                });
            } else {
                let _ = call.tell.send(own);
            }
        }
    }

    /// Sends scripts with their text. Those of one call stay in order among each other.
    async fn again_with_text(&self, commands: &[Command], answers: &mut [Answer]) {
        let unknown = commands.iter().zip(answers.iter_mut());
        let unknown: Vec<_> = unknown.filter(|(_, answer)| is_unknown(answer)).collect();
        let mut pipeline = Pipeline::default();
        for (command, _) in &unknown {
            pipeline.add_in_full(command, self.is_sharded);
        }
        let again = timeout_at(self.deadline, self.ask(pipeline)).await;
        let (again, told) = again.unwrap_or_default();
        let mut again = again.into_iter();
        for (command, place) in unknown {
            *place = again
                .next()
                .map_or_else(unanswered, |answer| command.own_part(answer));
            if let Some(told) = &told {
                self.settle(std::slice::from_mut(place), Some(told.clone()));
            }
        }
    }
}

pub(super) fn unanswered() -> Answer {
    Err(CallError::Unanswered("timed out".to_owned()))
}

fn is_unknown(answer: &Answer) -> bool {
    matches!(answer, Err(CallError::Refused(why)) if why.starts_with("NOSCRIPT"))
}

/// The same as [`Client::ask`]; behind the commands the server waits for so many replicas, unless for none. What it says of
/// them is told beside the answers.
pub(super) fn ask_kept(
    client: &Client,
    mut pipeline: Pipeline,
    replicas: u32,
) -> impl Future<Output = (Vec<Answer>, Option<Answer>)> + use<> {
    if replicas > 0 {
        pipeline.add(&[&replicas::wait(replicas)], false);
    }
    let answers = client.ask(pipeline);
    async move {
        let mut answers = answers.await;
        let told = match replicas {
            0 => None,
            _ => answers.pop(),
        };
        (answers, told)
    }
}
