//! Commands on their way: handed over together, in order, and awaited together.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use fred::clients::Client;
use fred::interfaces::ClientLike as _;
use fred::types::{ClusterHash, CustomCommand, Value};
use tokio::time::Instant;

use super::{CallError, Command, fault};

type Answer = Result<Value, CallError>;

/// The commands of one call.
pub(super) struct Round {
    asked: Vec<Option<Pin<Box<dyn Future<Output = Answer> + Send>>>>,
    answers: Vec<Option<Answer>>,
}

impl Round {
    /// Nothing is sent before the first poll, which hands all of them over in their order.
    pub(super) fn new(client: &Client, commands: &[Command]) -> Self {
        let asked = commands.iter().map(|command| {
            let (name, words) = match command.script {
                None => (command.name, command.words.clone()),
                Some(script) => ("EVALSHA", command.words_with(script.sha())),
            };
            Some(send(client, name, words))
        });
        Self {
            asked: asked.collect(),
            answers: commands.iter().map(|_| None).collect(),
        }
    }

    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut is_done = true;
        for (asked, answer) in self.asked.iter_mut().zip(&mut self.answers) {
            let Some(future) = asked else { continue };
            match future.as_mut().poll(context) {
                Poll::Ready(ready) => {
                    *answer = Some(ready);
                    *asked = None;
                }
                Poll::Pending => is_done = false,
            }
        }
        match is_done {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    /// Waits for the answers, but not for ever.
    pub(super) async fn finish(&mut self, deadline: Instant) {
        let all = std::future::poll_fn(|context| self.poll(context));
        let _ = tokio::time::timeout_at(deadline, all).await;
    }

    /// Whether the server lost scripts that it was told (`SCRIPT FLUSH`).
    pub(super) fn is_script_unknown(&self) -> bool {
        self.answers.iter().any(is_unknown)
    }

    /// A script that the server does not know was not run: it is sent again with its text. Those of one call stay in
    /// order among each other.
    pub(super) fn again_with_text(&mut self, client: &Client, commands: &[Command]) {
        for (at, command) in commands.iter().enumerate() {
            if let (true, Some(script)) = (is_unknown(&self.answers[at]), command.script) {
                self.answers[at] = None;
                self.asked[at] = Some(send(client, "EVAL", command.words_with(script.text())));
            }
        }
    }

    /// What was answered; nobody knows of the rest.
    pub(super) fn into_answers(self) -> Vec<Answer> {
        let unanswered = || Err(CallError::Unanswered("timed out".to_owned()));
        let answers = self.answers.into_iter();
        answers
            .map(|answer| answer.unwrap_or_else(unanswered))
            .collect()
    }
}

fn is_unknown(answer: &Option<Answer>) -> bool {
    matches!(answer, Some(Err(CallError::Refused(why))) if why.starts_with("NOSCRIPT"))
}

fn send(
    client: &Client,
    name: &'static str,
    words: Vec<Bytes>,
) -> Pin<Box<dyn Future<Output = Answer> + Send>> {
    let client = client.clone();
    Box::pin(async move {
        let command = CustomCommand::new_static(name, ClusterHash::FirstKey, false);
        let words: Vec<Value> = words.into_iter().map(Value::Bytes).collect();
        client.custom(command, words).await.map_err(fault)
    })
}
