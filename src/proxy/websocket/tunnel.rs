//! A WebSocket between a client and an upstream: two flows, pings towards the client, and an orderly end.
//!
//! Whichever end closes, the other gets that very close frame. An end that goes without one is told to the other: 1011
//! `upstream_error`, 1001 `client_closed`. We close by ourselves when the node drains (1012), when a side has taken
//! nothing for a pong's time (1013 `backpressure`: until then the other is simply not read), when a message of either side is
//! over the most (1009), and when a ping of ours is not followed by any sign of life, or no message went either way for too long
//! (4004).

use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::super::access::Entry;
use super::super::attempt::Attempt;
use super::super::open_streams::StreamPermit;
use super::super::wire::Wire;
use super::flow::Flow;
use super::frames::{Towards, close, ping};
use crate::http1::{After, Exchange, Peer};
use crate::model::CloseReason;
use crate::telemetry::proxy::Bridged;

/// How long the two ends may take for their own close, once one of them has begun it.
const THEIR_CLOSE_TIME_MAX: Duration = Duration::from_secs(10);
/// How long they may take to answer ours.
const OUR_CLOSE_TIME_MAX: Duration = Duration::from_secs(3);

/// How a tunnel finds out that its client has gone.
#[derive(Debug, Clone, Copy)]
pub(in crate::proxy) struct TunnelConfig {
    /// Between pings.
    pub(in crate::proxy) ping_interval: Duration,
    /// How long a sign of life may take after a ping, and a side may take nothing.
    pub(in crate::proxy) pong_timeout: Duration,
    /// How long no message may go either way; `None`: for ever.
    pub(in crate::proxy) idle_timeout: Option<Duration>,
    /// The most payload bytes of a message, as they are on the wire; `None`: any.
    pub(in crate::proxy) message_bytes_max: Option<u64>,
}

/// What lives as long as a tunnel: its part of the upstream's load, its line in the access log, its place among somebody's
/// streams.
type Kept = (Option<Attempt>, Option<Box<Entry>>, Option<StreamPermit>);

/// One bridged WebSocket.
#[derive(Debug)]
pub(in crate::proxy) struct Tunnel {
    wire: Wire,
    /// Towards the client.
    down: Flow,
    /// Towards the upstream.
    up: Flow,
    config: TunnelConfig,
    next_look: Instant,
    /// A ping went out then, and nothing has come since.
    unanswered_since: Option<Instant>,
    is_alive: bool,
    /// When it is closed unless a message comes; where that is looked at.
    idle_at: Option<Instant>,
    close_by: Option<Instant>,
    drain_at: Option<Instant>,
    is_given_up: bool,
    /// What is under way to the upstream, for its load; in all; and of whose streams it is one.
    _counted: (Option<Attempt>, Bridged, Option<StreamPermit>),
    /// Its line in the access log, which is written at its end.
    _entry: Option<Box<Entry>>,
}

impl Tunnel {
    /// A tunnel whose client gets this head first.
    pub(in crate::proxy) fn new(
        wire: Wire,
        head: Vec<u8>,
        (attempt, entry, permit): Kept,
        config: TunnelConfig,
    ) -> Self {
        let now = Instant::now();
        Self {
            wire,
            down: Flow::new(head, config.message_bytes_max),
            up: Flow::new(Vec::new(), config.message_bytes_max),
            config,
            next_look: now + config.ping_interval,
            unanswered_since: None,
            is_alive: false,
            idle_at: config.idle_timeout.map(|most| now + most),
            close_by: None,
            drain_at: None,
            is_given_up: false,
            _counted: (attempt, Bridged::begin(), permit),
            _entry: entry,
        }
    }

    fn carry(&mut self, cx: &mut Context<'_>, peer: &mut Peer<'_>) {
        let Wire { socket, read, .. } = &mut self.wire;
        self.down.poll(cx, socket, read, peer.socket);
        self.up.poll(cx, peer.socket, peer.read, socket);
        let has_read = std::mem::take(&mut self.up.has_read);
        self.is_alive |= has_read | std::mem::take(&mut self.down.has_written);
        if let Some(most) = self.config.idle_timeout
            && (self.up.take_data() | self.down.take_data())
        {
            self.idle_at = Some(Instant::now() + most);
        }
    }

    /// Passes on that one end has gone; tells whether there is something to write for that.
    fn note_ends(&mut self) -> bool {
        let is_ending = [&self.up, &self.down]
            .iter()
            .any(|flow| flow.is_ended || flow.is_closed || flow.is_dead);
        if !is_ending {
            return false;
        }
        self.close_by
            .get_or_insert_with(|| Instant::now() + THEIR_CLOSE_TIME_MAX);
        let client_left = self
            .up
            .note_end(|| close(1001, "client_closed", Towards::Upstream));
        let upstream_left = self
            .down
            .note_end(|| close(1011, "upstream_error", Towards::Client));
        client_left || upstream_left
    }

    /// Closes when a message was too big; tells whether one was.
    fn note_size(&mut self) -> bool {
        let is_over = self.up.is_cut || self.down.is_cut;
        if is_over {
            let reason = CloseReason::MessageTooBig;
            self.close(reason.code(), reason.text(), Instant::now());
        }
        is_over
    }

    /// Whether client and upstream still live; and the next ping.
    fn look(&mut self, now: Instant) {
        self.next_look = now + self.config.ping_interval;
        if self.close_by.is_some() {
            return;
        }
        if std::mem::take(&mut self.is_alive) {
            self.unanswered_since = None;
        }
        let is_over =
            |since: Option<Instant>| since.is_some_and(|at| now - at >= self.config.pong_timeout);
        if is_over(self.down.stalled_since) || is_over(self.up.stalled_since) {
            return self.close(1013, "backpressure", now);
        }
        if is_over(self.unanswered_since) {
            return self.close(CloseReason::NoPong.code(), CloseReason::NoPong.text(), now);
        }
        if self.down.interject(&ping(Towards::Client)) {
            self.unanswered_since.get_or_insert(now);
        }
        if let Some(since) = self.unanswered_since {
            self.next_look = self.next_look.min(since + self.config.pong_timeout);
        }
    }

    /// Closes towards both ends.
    fn close(&mut self, code: u16, reason: &str, now: Instant) {
        if self.close_by.is_none() {
            self.close_by = Some(now + OUR_CLOSE_TIME_MAX);
        }
        self.down.end_with(close(code, reason, Towards::Client));
        // What else happens to the client is no reason for the upstream to stay away.
        let (code, reason) = match code {
            1009 | 1013 => (code, reason),
            _ => (1001, "client_closed"),
        };
        self.up.end_with(close(code, reason, Towards::Upstream));
    }
}

impl Exchange for Tunnel {
    fn poll(&mut self, cx: &mut Context<'_>, mut peer: Peer<'_>) -> Poll<After> {
        if self.is_given_up {
            return Poll::Ready(After::Cut);
        }
        // At most five times: each side ends once, and is cut once.
        loop {
            self.carry(cx, &mut peer);
            if !(self.note_size() | self.note_ends()) {
                break;
            }
        }
        match self.up.is_finished() && self.down.is_finished() {
            true => Poll::Ready(After::Close),
            false => Poll::Pending,
        }
    }

    fn due(&self) -> Option<Instant> {
        let idle_at = self.idle_at.filter(|_| self.close_by.is_none());
        let others = [self.close_by, self.drain_at, idle_at]
            .into_iter()
            .flatten();
        Some(others.fold(self.next_look, Instant::min))
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.close_by.is_some_and(|at| at <= now) {
            self.is_given_up = true;
        } else if self.drain_at.is_some_and(|at| at <= now) {
            self.drain_at = None;
            self.close(CloseReason::Drain.code(), CloseReason::Drain.text(), now);
        } else if self.close_by.is_none() && self.idle_at.is_some_and(|at| at <= now) {
            let reason = CloseReason::Inactive;
            self.close(reason.code(), reason.text(), now);
        } else if self.next_look <= now {
            self.look(now);
        }
    }

    fn handle_drain(&mut self, window: Duration) {
        self.drain_at = Some(Instant::now() + window.mul_f64(rand::random::<f64>()));
    }
}
