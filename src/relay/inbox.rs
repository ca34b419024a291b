//! A worker's inbox: what the broker brings, until the worker drains it.
//!
//! Bounded in messages and bytes. Full is a hole: what did not fit is counted, and the worker reads again what its
//! channels missed.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::broker::Control;
use crate::model::{ChannelKey, Envelope, Event, Payload};

/// What a worker is told.
#[derive(Debug, Clone)]
pub enum Message {
    /// Something happened in a channel.
    Envelope(Envelope),
    /// Envelopes of this channel, or of every channel, may be missing.
    Hole(Option<ChannelKey>),
    /// Every stream may be another than before.
    Changed,
    /// An order about connections.
    Control(Control),
}

/// The bounds of an inbox.
#[derive(Debug, Clone, Copy)]
pub struct InboxLimits {
    /// The most messages.
    pub messages_max: usize,
    /// The most bytes of publications' data.
    pub bytes_max: usize,
}

/// The inbox of one worker. Any thread puts in; the worker alone drains.
#[derive(Debug)]
pub struct Inbox {
    limits: InboxLimits,
    /// A lock held for a push or a swap, never while anything waits.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    messages: Vec<Message>,
    bytes: usize,
    /// Whether something did not fit since the last drain. Nothing is put in behind it until then: so what is missing
    /// always follows what is here.
    overflowed: bool,
    /// The worker, when it waits.
    waker: Option<Waker>,
}

impl Inbox {
    /// An empty inbox.
    pub fn new(limits: InboxLimits) -> Self {
        Self {
            limits,
            state: Mutex::default(),
        }
    }

    /// Puts an envelope in; one that does not fit is a hole.
    pub(super) fn push_envelope(&self, envelope: &Envelope) {
        let bytes = data_bytes(envelope);
        let mut state = self.lock();
        if state.overflowed
            || state.messages.len() >= self.limits.messages_max
            || state.bytes + bytes > self.limits.bytes_max
        {
            state.overflowed = true;
        } else {
            state.bytes += bytes;
            state.messages.push(Message::Envelope(envelope.clone()));
        }
        wake(state);
    }

    /// Puts an order or the news of a hole in. These are few and always fit.
    pub(super) fn push(&self, message: Message) {
        let mut state = self.lock();
        state.messages.push(message);
        wake(state);
    }

    /// Takes everything, in order, into `into`, which must be empty: the two vectors change places, so that neither
    /// side allocates. Answers whether something did not fit since the last drain: it was behind all of these.
    pub fn drain(&self, into: &mut Vec<Message>) -> bool {
        debug_assert!(
            into.is_empty(),
            "the vector of the last drain is still in use"
        );
        let mut state = self.lock();
        std::mem::swap(&mut state.messages, into);
        state.bytes = 0;
        std::mem::take(&mut state.overflowed)
    }

    /// Ready when there is something to drain; otherwise the task is woken when there is.
    pub fn poll_ready(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if !state.messages.is_empty() || state.overflowed {
            return Poll::Ready(());
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        Poll::Pending
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes after the lock is gone, so that the woken thread does not run into it.
fn wake(mut state: MutexGuard<'_, State>) {
    let waker = state.waker.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

fn data_bytes(envelope: &Envelope) -> usize {
    match &envelope.event {
        Event::Publication(publication) => publication.data.len(),
        Event::Join(members) | Event::Leave(members) => {
            let infos = members.iter().filter_map(|member| member.info.as_ref());
            infos.map(Payload::len).sum()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::Publication;

    fn envelope(offset: u64, bytes: usize) -> Envelope {
        let data = Payload::from_plain_json("1".repeat(bytes));
        let publication = Arc::new(Publication {
            offset,
            data,
            origin: None,
            key: None,
        });
        let channel = ChannelKey::new("news").expect("a name");
        Envelope {
            channel,
            epoch: None,
            event: Event::Publication(publication),
        }
    }

    fn drained(inbox: &Inbox) -> (usize, bool) {
        let mut messages = Vec::new();
        let overflowed = inbox.drain(&mut messages);
        (messages.len(), overflowed)
    }

    #[test]
    fn a_full_inbox_tells_of_a_hole_once() {
        let inbox = Inbox::new(InboxLimits {
            messages_max: 2,
            bytes_max: 100,
        });
        for offset in 1..=3 {
            inbox.push_envelope(&envelope(offset, 1));
        }
        assert_eq!(drained(&inbox), (2, true));
        assert_eq!(drained(&inbox), (0, false));
    }

    #[test]
    fn the_bytes_are_bounded_as_well() {
        let inbox = Inbox::new(InboxLimits {
            messages_max: 100,
            bytes_max: 10,
        });
        inbox.push_envelope(&envelope(1, 8));
        inbox.push_envelope(&envelope(2, 3));
        // It would fit, and would stand before what is told of the hole.
        inbox.push_envelope(&envelope(3, 1));
        assert_eq!(drained(&inbox), (1, true));
        inbox.push_envelope(&envelope(4, 1));
        assert_eq!(drained(&inbox), (1, false));
    }

    #[test]
    fn orders_fit_a_full_inbox() {
        let inbox = Inbox::new(InboxLimits {
            messages_max: 0,
            bytes_max: 0,
        });
        inbox.push(Message::Hole(None));
        assert_eq!(drained(&inbox), (1, false));
    }
}
