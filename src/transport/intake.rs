//! How a socket comes from its handshake to its worker.
//!
//! A handler cannot hold what belongs to a worker. It authenticates, reserves a place in the worker's bounded
//! [`Intake`] (there is none: 503), leaves a [`Ticket`] in the request's [`Slot`] and answers 101; the server then
//! passes socket and slot to the worker.

use std::any::Any;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use http::HeaderMap;

use crate::auth::Identity;
use crate::client::NamedSession;
use crate::model::{ChannelKey, CloseReason, WireFormat};
use crate::protocol::ClaimedPosition;

/// What the socket is to be used for.
#[derive(Debug)]
pub(super) enum Purpose {
    /// Messages come back unchanged.
    Echo,
    /// The hub's own protocol over WebSocket.
    Messages(WireFormat),
    /// Server-sent events.
    Events(EventStream),
}

impl Purpose {
    /// What is written.
    pub(super) fn format(&self) -> WireFormat {
        match self {
            Self::Echo => WireFormat::Json,
            Self::Messages(format) => *format,
            Self::Events(events) if events.channels.len() == 1 => WireFormat::Sse,
            Self::Events(_) => WireFormat::SseMany,
        }
    }

    /// Whether it carries what an upstream says: then whoever listens is no client of the hub's.
    pub(super) fn is_of_upstream(&self) -> bool {
        match self {
            Self::Echo | Self::Messages(_) => false,
            Self::Events(events) => events.channels.iter().any(ChannelKey::is_shared),
        }
    }
}

/// What an event stream is to carry.
#[derive(Debug)]
pub(super) struct EventStream {
    /// In the order of the request.
    pub(super) channels: Vec<ChannelKey>,
    /// Where each goes on from.
    pub(super) from: Resume,
    /// What lives as long as the connection.
    pub(super) held: Option<Held>,
}

/// What somebody else wants to hear the end of: it is dropped with the connection.
pub type Held = Box<dyn Any + Send>;

/// Where an event stream goes on from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Resume {
    /// From now on.
    Now,
    /// From these positions, in the order of the channels; `None` for a channel that had none.
    From(Vec<Option<ClaimedPosition>>),
    /// The client named an id that cannot be read: it is told that it missed something.
    Unreadable,
}

/// What a worker needs to know of a socket that it takes over.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) purpose: Purpose,
    pub(super) identity: Arc<Identity>,
    pub(super) session: Option<Box<NamedSession>>,
    /// The head of the HTTP answer. The worker writes it together with its first message: one call, one packet.
    pub(super) head: Box<[u8]>,
    /// Close at once, with this: for clients that expect an upgrade before they are refused.
    pub(super) refused: Option<CloseReason>,
    /// Frees the place in the intake when the worker has taken over.
    pub(super) _place: Place,
}

/// Where a handler leaves its ticket: in the request's extensions. Clones share one.
#[derive(Debug, Clone, Default)]
pub struct Slot(Arc<Mutex<Option<Ticket>>>);

impl Slot {
    /// Leaves a ticket.
    pub(super) fn fill(&self, ticket: Ticket) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(ticket);
    }

    /// Takes it out.
    pub(super) fn take(&self) -> Option<Ticket> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether a ticket was left.
    pub fn is_filled(&self) -> bool {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some()
    }

    /// Whether the head of the 101 must not be written: the worker writes the one that the ticket holds.
    pub fn swallows_head(&self) -> bool {
        self.is_filled()
    }

    /// Puts these fields into the head that the worker writes, where it has none of the name.
    pub fn add_fields(&self, fields: &HeaderMap) {
        let mut ticket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ticket) = &mut *ticket {
            let mut head = std::mem::take(&mut ticket.head).into_vec();
            add_fields(&mut head, fields);
            ticket.head = head.into();
        }
    }
}

/// Puts fields into a whole head, before its empty line. One that stands there in lower case stays the only one.
fn add_fields(head: &mut Vec<u8>, fields: &HeaderMap) {
    head.truncate(head.len().saturating_sub(b"\r\n".len()));
    for (name, value) in fields {
        let line = ["\r\n", name.as_str(), ": "].concat();
        let is_there = head.windows(line.len()).any(|part| part == line.as_bytes());
        if !is_there {
            head.extend_from_slice(&line.as_bytes()[2..]);
            head.extend_from_slice(value.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
    }
    head.extend_from_slice(b"\r\n");
}

/// The places of sockets that answered their handshake and wait for their worker.
#[derive(Debug)]
pub struct Intake {
    capacity: usize,
    taken: AtomicUsize,
}

/// A place in an [`Intake`]; dropping it makes room.
#[derive(Debug)]
pub(super) struct Place(Arc<Intake>);

impl Intake {
    /// An intake of so many places.
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            taken: AtomicUsize::new(0),
        }
    }

    /// A place, when there is one.
    pub(super) fn reserve(self: &Arc<Self>) -> Option<Place> {
        let next = |taken: usize| (taken < self.capacity).then_some(taken + 1);
        self.taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next)
            .ok()?;
        Some(Place(self.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn fields_stand_before_the_empty_line_and_once() {
        let mut head = b"HTTP/1.1 200 OK\r\na: 1\r\n\r\n".to_vec();
        let mut fields = HeaderMap::new();
        fields.insert("a", HeaderValue::from_static("2"));
        fields.insert("b", HeaderValue::from_static("HTTP/1.1"));
        add_fields(&mut head, &fields);
        assert_eq!(head, b"HTTP/1.1 200 OK\r\na: 1\r\nb: HTTP/1.1\r\n\r\n");
    }

    #[test]
    fn an_intake_has_so_many_places_and_gets_them_back() {
        let intake = Arc::new(Intake::new(2));
        let first = intake.reserve().expect("a place");
        let second = intake.reserve();
        assert!(second.is_some() && intake.reserve().is_none());
        drop(first);
        assert!(intake.reserve().is_some());
    }
}
