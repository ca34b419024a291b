//! Answers that are made without the router, in the order of their requests. Each begins as soon as its request is
//! there, so what pipelined requests wait for, they wait for together.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::{Context, Poll};

use http::Response;

use super::Reply;
use super::answer::Refusal;

/// The most answers of one connection that are made at once.
const MOST: usize = 128;

/// The answers of one connection that are being made. The first one stands apart: most connections have one at a time, which so
/// needs no list. A connection that waits for its next request holds nothing.
#[derive(Default)]
pub(super) struct Replies {
    first: Option<Stage>,
    /// Empty when there is no first.
    others: VecDeque<Stage>,
}

enum Stage {
    Made(Response<Vec<u8>>),
    InTheMaking(Reply),
    /// What makes it has panicked.
    Panicked,
}

impl Replies {
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub(super) fn is_full(&self) -> bool {
        self.others.len() + 1 >= MOST
    }

    /// Puts what makes one behind the others. It begins with the next poll.
    pub(super) fn push(&mut self, reply: Reply) {
        let stage = Stage::InTheMaking(reply);
        match self.first {
            None => self.first = Some(stage),
            Some(_) => self.others.push_back(stage),
        }
    }

    /// Goes on with all of them.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) {
        let stages = self.first.iter_mut().chain(&mut self.others);
        stages.for_each(|stage| stage.poll(cx));
    }

    /// The next in order, when it is made.
    pub(super) fn next(&mut self) -> Option<Result<Response<Vec<u8>>, Refusal>> {
        let first = self
            .first
            .take_if(|stage| !matches!(stage, Stage::InTheMaking(_)))?;
        self.first = self.others.pop_front();
        if self.first.is_none() {
            self.others = VecDeque::new();
        }
        Some(match first {
            Stage::Made(response) => Ok(response),
            Stage::Panicked | Stage::InTheMaking(_) => Err(Refusal::Broken),
        })
    }
}

impl Stage {
    fn poll(&mut self, cx: &mut Context<'_>) {
        let Self::InTheMaking(reply) = self else {
            return;
        };
        // What panicked is not polled again, so what it left half done is never looked at.
        match catch_unwind(AssertUnwindSafe(|| reply.as_mut().poll(cx))) {
            Ok(Poll::Ready(response)) => *self = Self::Made(response),
            Ok(Poll::Pending) => {}
            Err(_) => *self = Self::Panicked,
        }
    }
}
