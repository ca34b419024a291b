//! The order of answers: they leave in the order of their commands, whichever is known first.

use std::collections::VecDeque;

use crate::protocol::{CommandId, Reply};

/// The place of an answer in the order of answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket(u64);

/// An answer that may be sent now.
#[derive(Debug, PartialEq)]
pub struct Answer {
    /// What the client called its command by.
    pub id: Option<CommandId>,
    /// The answer.
    pub reply: Reply,
}

/// Answers that are asked for and not yet sent, in order.
#[derive(Debug, Default)]
struct Waiting {
    /// The ticket of the first of `answers`.
    first: u64,
    answers: VecDeque<(Option<CommandId>, Option<Reply>)>,
}

/// What became of a completion: the answers that may be sent now, in order.
#[derive(Debug, Default)]
pub struct Completion {
    /// In the order of their commands.
    pub answers: Vec<Answer>,
}

/// The most questions that one client may have open; its socket is not read while there are as many.
const QUESTIONS_MAX: usize = 64;

/// The answers of one client that wait for an earlier one. Most clients never have any.
#[derive(Debug, Default)]
pub(super) struct Answers(Option<Box<Waiting>>);

impl Answers {
    /// Whether a further command may be handled now, or must wait for open questions.
    pub(super) fn can_take(&self, is_barrier: bool) -> bool {
        let open = self.waiting_count();
        open == 0 || (!is_barrier && open < QUESTIONS_MAX)
    }

    /// Whether more may be read of the client. Answers that are known at once wait behind open questions: who asks on
    /// and on meanwhile is read again when the questions are answered.
    pub(super) fn may_read_on(&self) -> bool {
        self.waiting_count() < QUESTIONS_MAX
    }

    fn waiting_count(&self) -> usize {
        self.0.as_ref().map_or(0, |waiting| waiting.answers.len())
    }

    /// Keeps a place in the order of answers for a question.
    pub(super) fn open(&mut self, id: Option<CommandId>) -> Ticket {
        let waiting = self.0.get_or_insert_default();
        waiting.answers.push_back((id, None));
        Ticket(waiting.first + waiting.answers.len() as u64 - 1)
    }

    /// The answer to a question that kept a place.
    pub(super) fn complete(&mut self, ticket: Ticket, reply: Reply) -> Completion {
        let Some(waiting) = self.0.as_mut() else {
            return Completion::default();
        };
        // A ticket that was answered already is nobody's now.
        let at = ticket.0.checked_sub(waiting.first);
        let slot = at.and_then(|at| waiting.answers.get_mut(usize::try_from(at).ok()?));
        if let Some((_, slot @ None)) = slot {
            *slot = Some(reply);
        }
        self.ready()
    }

    /// An answer that is known at once: it is sent now, or waits behind earlier ones.
    pub(super) fn answer(&mut self, id: Option<CommandId>, reply: Reply) -> Completion {
        match self.0.as_mut() {
            None => Completion {
                answers: vec![Answer { id, reply }],
            },
            Some(waiting) => {
                waiting.answers.push_back((id, Some(reply)));
                self.ready()
            }
        }
    }

    fn ready(&mut self) -> Completion {
        let mut completion = Completion::default();
        let Some(waiting) = self.0.as_mut() else {
            return completion;
        };
        while let Some((id, Some(reply))) =
            waiting.answers.pop_front_if(|(_, reply)| reply.is_some())
        {
            waiting.first += 1;
            completion.answers.push(Answer { id, reply });
        }
        if waiting.answers.is_empty() {
            self.0 = None;
        }
        completion
    }
}
