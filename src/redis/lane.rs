//! The one way of commands to the server: what is asked at the same time leaves as one pipeline.
//!
//! A command of its own costs the client library a channel, a timer and two wake-ups, which is several times what the
//! server needs for a publication. So calls put their commands into a queue, and one task takes all that is there, in
//! the order of the calls. While it works the next ones gather: the busier, the larger the pipelines.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use fred::clients::Client;
use fred::interfaces::ClientLike as _;
use fred::types::{ClusterHash, CustomCommand, Value};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout_at};

use super::{CallError, Command, fault};

/// What came of one command.
pub(super) type Answer = Result<Value, CallError>;

/// The most commands of one pipeline; those of one call stay together.
const PIPELINE_COMMANDS: usize = 256;

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

/// Calls that wait to be sent.
#[derive(Default)]
pub(super) struct Lane {
    calls: Mutex<Vec<Call>>,
    asked: Notify,
}

impl Lane {
    /// Puts a call behind the earlier ones.
    pub(super) fn ask(&self, commands: Vec<Command>) -> oneshot::Receiver<Vec<Answer>> {
        let (tell, told) = oneshot::channel();
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.push(Call { commands, tell });
        if calls.len() == 1 {
            self.asked.notify_one();
        }
        told
    }

    fn take(&self) -> Vec<Call> {
        std::mem::take(&mut *self.calls.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sends what is asked, for as long as the runtime lives.
    pub(super) async fn run(self: Arc<Self>, link: impl Fn() -> Option<Client>) {
        loop {
            self.asked.notified().await;
            // Whoever is about to ask does so first.
            tokio::task::yield_now().await;
            let mut calls = self.take().into_iter().peekable();
            let client = link();
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
                    Some(client) => send(client, some).await,
                    None => some
                        .into_iter()
                        .for_each(|call| call.fail(&CallError::NotSent)),
                }
            }
        }
    }
}

/// Hands calls over to the connection, and leaves the wait for the answers to a task.
async fn send(client: &Client, calls: Vec<Call>) {
    let deadline = Instant::now() + CALL_TIMEOUT;
    let first = calls
        .iter()
        .flat_map(|call| &call.commands)
        .map(Command::words);
    let mut answers = Box::pin(pipeline(client.clone(), first.collect()));
    // The first poll hands the commands over: the order of the polls is that of the wire.
    let ready = poll_fn(|context| Poll::Ready(answers.as_mut().poll(context))).await;
    let client = client.clone();
    tokio::spawn(async move {
        let answers = match ready {
            Poll::Ready(answers) => answers,
            Poll::Pending => answers.await,
        };
        tell(&client, calls, answers, deadline).await;
    });
}

/// Gives each call its answers. Those with a script that the server does not know were not run, and are sent again.
async fn tell(client: &Client, calls: Vec<Call>, answers: Vec<Answer>, deadline: Instant) {
    let mut answers = answers.into_iter();
    for call in calls {
        let mut own: Vec<Answer> = answers.by_ref().take(call.commands.len()).collect();
        if own.iter().any(is_unknown) {
            again_with_text(client, &call.commands, &mut own, deadline).await;
        }
        let _ = call.tell.send(own);
    }
}

/// Sends scripts with their text. Those of one call stay in order among each other.
async fn again_with_text(
    client: &Client,
    commands: &[Command],
    answers: &mut [Answer],
    deadline: Instant,
) {
    let unknown = commands.iter().zip(answers.iter_mut());
    let unknown: Vec<_> = unknown
        .filter(|(_, answer)| is_unknown(answer))
        .filter_map(|(command, answer)| Some((command.words_in_full()?, answer)))
        .collect();
    let (words, places): (Vec<_>, Vec<_>) = unknown.into_iter().unzip();
    let again = timeout_at(deadline, pipeline(client.clone(), words)).await;
    let mut again = again.unwrap_or_default().into_iter();
    for place in places {
        *place = again.next().unwrap_or_else(unanswered);
    }
}

fn unanswered() -> Answer {
    Err(CallError::Unanswered("timed out".to_owned()))
}

fn is_unknown(answer: &Answer) -> bool {
    matches!(answer, Err(CallError::Refused(why)) if why.starts_with("NOSCRIPT"))
}

/// Sends commands together and answers each; answered within the client's own time-out.
async fn pipeline(client: Client, commands: Vec<(&'static str, Vec<Bytes>)>) -> Vec<Answer> {
    let count = commands.len();
    let pipeline = client.pipeline();
    for (name, words) in commands {
        let command = CustomCommand::new_static(name, ClusterHash::FirstKey, false);
        let words: Vec<Value> = words.into_iter().map(Value::Bytes).collect();
        // Ready at once: it is put into the pipeline, which was not sent yet.
        if let Err(error) = pipeline.custom::<Value, _>(command, words).await {
            tracing::warn!(%error, "a command was not taken");
            return vec![Err(CallError::NotSent); count];
        }
    }
    let mut answers: Vec<Answer> = pipeline
        .try_all::<Value>()
        .await
        .into_iter()
        .map(|answer| answer.map_err(fault))
        .collect();
    // One answer for all of them: the connection's.
    if answers.len() != count {
        let all = answers.pop().and_then(Result::err);
        let all = all.unwrap_or_else(|| CallError::Unanswered("too few answers".to_owned()));
        return vec![Err(all); count];
    }
    answers
}
