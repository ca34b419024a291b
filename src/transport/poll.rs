//! What a worker's sockets are waiting for: one readiness set of its own, watched by tokio as a single descriptor.
//!
//! A connection costs nothing here: no task, no registration with tokio. The set is edge-triggered: a socket that was
//! not read until it would block stands in the ready list, because no second event comes.

use std::collections::VecDeque;
use std::io;
use std::task::Context;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::{Events, Interest, Registry, Token};
use tokio::io::unix::AsyncFd;
use tokio::time::{Interval, MissedTickBehavior};

use crate::hub::ConnectionIndex;

use super::timer_wheel::TICK;

/// The most events taken at once.
const EVENTS: usize = 1024;

/// The bytes that are read at once. One buffer for all sockets of a worker.
pub(super) const READ_BYTES: usize = 64 * 1024;

/// What one event says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ready {
    pub(super) connection: ConnectionIndex,
    pub(super) is_readable: bool,
    pub(super) is_writable: bool,
    /// The peer sends nothing after what is there: no further event will come.
    pub(super) is_last: bool,
}

/// A worker's readiness set, its ready list, its read buffer and its tick.
#[derive(Debug)]
pub(super) struct Poll {
    inner: AsyncFd<mio::Poll>,
    events: Events,
    news: Vec<Ready>,
    /// Sockets that may have more to read.
    unread: VecDeque<ConnectionIndex>,
    pub(super) buffer: Vec<u8>,
    tick: Interval,
    has_ticked: bool,
    delay: Option<Duration>,
}

impl Poll {
    #[allow(
        deprecated,
        reason = "the constructor that replaces it is unsafe for types that may change their descriptor; a mio::Poll \
                  keeps its own as long as it lives, and this crate has no unsafe code"
    )]
    pub(super) fn new() -> io::Result<Self> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            inner: AsyncFd::with_interest(mio::Poll::new()?, tokio::io::Interest::READABLE)?,
            events: Events::with_capacity(EVENTS),
            news: Vec::new(),
            unread: VecDeque::new(),
            buffer: vec![0; READ_BYTES],
            tick,
            has_ticked: false,
            delay: None,
        })
    }

    /// Where sockets are registered.
    pub(super) fn registry(&self) -> &Registry {
        self.inner.get_ref().registry()
    }

    /// Takes in what the set has, and answers whether there is anything.
    pub(super) fn poll_events(&mut self, context: &mut Context<'_>) -> bool {
        let std::task::Poll::Ready(Ok(mut guard)) = self.inner.poll_read_ready_mut(context) else {
            return !self.news.is_empty();
        };
        // An interrupted poll brings no events and is asked again with the next turn.
        let polled = guard
            .get_inner_mut()
            .poll(&mut self.events, Some(Duration::ZERO));
        let before = self.news.len();
        if polled.is_ok() {
            self.news.extend(self.events.iter().map(Ready::of));
        }
        // The outer readiness may only be cleared when the inner set had no more than was taken.
        if self.news.len() - before < EVENTS {
            guard.clear_ready();
        }
        !self.news.is_empty()
    }

    /// Whether the tick came.
    pub(super) fn poll_tick(&mut self, context: &mut Context<'_>) -> bool {
        if let std::task::Poll::Ready(due) = self.tick.poll_tick(context) {
            self.has_ticked = true;
            self.delay = Some(Instant::now().saturating_duration_since(due.into_std()));
        }
        self.has_ticked
    }

    /// Whether the tick came since this was asked last.
    pub(super) fn take_tick(&mut self) -> bool {
        std::mem::take(&mut self.has_ticked)
    }

    /// How late the last tick was.
    pub(super) fn take_delay(&mut self) -> Option<Duration> {
        self.delay.take()
    }

    /// The events that came.
    pub(super) fn take_news(&mut self) -> Vec<Ready> {
        std::mem::take(&mut self.news)
    }

    /// Gives the vector of [`Poll::take_news`] back, to be used again.
    pub(super) fn give_back(&mut self, mut news: Vec<Ready>) {
        news.clear();
        self.news = news;
    }

    /// The socket may have more to read.
    pub(super) fn read_again(&mut self, connection: ConnectionIndex) {
        self.unread.push_back(connection);
    }

    /// Whether a socket may have more to read.
    pub(super) fn has_ready(&self) -> bool {
        !self.unread.is_empty()
    }

    /// How many sockets may have more to read.
    pub(super) fn unread_count(&self) -> usize {
        self.unread.len()
    }

    /// The next of them.
    pub(super) fn next_unread(&mut self) -> Option<ConnectionIndex> {
        self.unread.pop_front()
    }
}

impl Ready {
    fn of(event: &Event) -> Self {
        Self {
            connection: u32::try_from(event.token().0).unwrap_or(u32::MAX),
            is_readable: event.is_readable() || event.is_read_closed() || event.is_error(),
            is_writable: event.is_writable() || event.is_write_closed() || event.is_error(),
            is_last: event.is_read_closed() || event.is_error(),
        }
    }
}

/// The token of a connection.
pub(super) fn token(connection: ConnectionIndex) -> Token {
    Token(connection as usize)
}

/// What a socket waits for: always to be read, to be written only while it is blocked.
pub(super) fn interest(is_blocked: bool) -> Interest {
    if is_blocked {
        Interest::READABLE | Interest::WRITABLE
    } else {
        Interest::READABLE
    }
}
