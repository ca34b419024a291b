//! A reader thread: one epoll set, one read buffer, and the connections that are its share of the swarm. It opens them
//! at the rate asked for, reads them, and writes its books. No task and no lock per connection: it must be cheaper
//! than the server that it measures.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use anyhow::Result;
use mio::{Events, Interest, Poll, Token};

use crate::clock::{self, SECOND};
use crate::connection::{Arrived, Connection, Phase};
use crate::conversation::{Conversation, Over};
use crate::gauge::Gauge;
use crate::plan::{Behaviour, Plan, Protocol};
use crate::socket::{self, Route};
use crate::tally::{Depth, Tally};

/// The read buffer: large enough that a burst costs one system call per some hundred frames, small enough to stay in
/// a core's own cache between the kernel's copy and the walk.
const BUFFER_BYTES: usize = 128 * 1024;
/// Full buffers read from one socket before the others have their turn.
const READS_PER_TURN: usize = 4;
/// How long the thread sleeps when nothing happens: it must notice its orders.
const IDLE: Duration = Duration::from_millis(20);
/// The same while it opens connections or sends at a pace.
const BUSY: Duration = Duration::from_millis(1);

/// What a running swarm can be told.
#[derive(Clone, Debug)]
pub(crate) enum Order {
    /// Each live connection sends these bytes once, at so many connections a second in this thread.
    SendEach { bytes: Arc<[u8]>, rate: u64 },
    /// Looks once whether the stalled connections still stand.
    CheckStalled,
    /// Ends, handing back the books.
    Stop,
}

/// The share of one thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    /// Index of its first connection in the swarm.
    pub(crate) first: usize,
    /// How many it has.
    pub(crate) connections: usize,
    /// Its connections begun a second; 0 for no limit.
    pub(crate) connect_rate: u64,
    /// Its connections in flight.
    pub(crate) in_flight_max: usize,
}

/// A paced walk over the connections.
struct Drip {
    bytes: Arc<[u8]>,
    rate: u64,
    began: u64,
    next: usize,
}

/// See the head of the file.
struct Reader<'a> {
    plan: &'a Plan,
    share: Share,
    gauge: &'a Gauge,
    poll: Poll,
    connections: Vec<Connection>,
    conversation: Conversation<'a>,
    buffer: Box<[u8]>,
    /// Connections with more to read, which will get no new edge.
    unread: VecDeque<usize>,
    drip: Option<Drip>,
    began: u64,
}

/// Runs one share until told to stop.
pub(crate) fn run(
    plan: &Plan,
    share: Share,
    gauge: &Gauge,
    orders: &Receiver<Order>,
) -> Result<Tally> {
    let order_checked = if plan.publications > 0 {
        share.connections
    } else {
        0
    };
    let tally = Tally::new(Depth {
        sample_every: plan.sample_every.max(1),
        publications: plan.publications,
        connections: order_checked,
        channels: plan.channels.len().max(1) as u64,
    });
    let mut reader = Reader {
        plan,
        share,
        gauge,
        poll: Poll::new()?,
        connections: Vec::with_capacity(share.connections),
        conversation: Conversation::new(plan, gauge, share.first, share.connections, tally),
        buffer: vec![0; BUFFER_BYTES].into(),
        unread: VecDeque::new(),
        drip: None,
        began: clock::now(),
    };
    gauge.began_at.store(reader.began, Relaxed);
    reader.run(orders)?;
    Ok(reader.conversation.tally)
}

impl Reader<'_> {
    fn run(&mut self, orders: &Receiver<Order>) -> Result<()> {
        let mut events = Events::with_capacity(1024);
        loop {
            self.open_some();
            self.drip_some();
            match self.poll.poll(&mut events, Some(self.patience())) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
                _ => {}
            }
            for _ in 0..self.unread.len() {
                let index = self.unread.pop_front().expect("its length was just asked");
                self.read(index);
            }
            for event in &events {
                self.handle_ready(event.token().0, event.is_writable());
            }
            self.gauge
                .deliveries
                .store(self.conversation.tally.deliveries, Relaxed);
            self.gauge.answers.store(self.conversation.answers, Relaxed);
            match orders.try_recv() {
                Ok(Order::SendEach { bytes, rate }) => {
                    self.drip = Some(Drip {
                        bytes,
                        rate: rate.max(1),
                        began: clock::now(),
                        next: 0,
                    });
                }
                Ok(Order::CheckStalled) => self.check_stalled(),
                Ok(Order::Stop) | Err(TryRecvError::Disconnected) => return Ok(()),
                Err(TryRecvError::Empty) => {}
            }
        }
    }

    fn patience(&self) -> Duration {
        if !self.unread.is_empty() {
            Duration::ZERO
        } else if self.connections.len() < self.share.connections || self.drip.is_some() {
            BUSY
        } else {
            IDLE
        }
    }

    fn in_flight(&self) -> usize {
        let settled = self.gauge.joined.load(Relaxed) + self.gauge.failed.load(Relaxed);
        self.connections.len() - settled
    }

    fn open_some(&mut self) {
        let opened = self.connections.len();
        let mut due = self.share.connections;
        if self.share.connect_rate > 0 {
            let elapsed = clock::now() - self.began;
            due = due.min(1 + (elapsed * self.share.connect_rate / SECOND) as usize);
        }
        let room = self.share.in_flight_max.saturating_sub(self.in_flight());
        for index in opened..due.min(opened + room) {
            if let Err(error) = self.open(index) {
                self.conversation
                    .tally
                    .trouble(|| format!("opening a socket: {error}"));
                // No entry, so the index comes again; out of files or ports, that would be for ever: count it down.
                self.share.connections = self.connections.len();
                return;
            }
        }
    }

    fn open(&mut self, index: usize) -> std::io::Result<()> {
        let global = self.share.first + index;
        let source = if self.plan.addresses > 1 {
            1 + (global as u32 % self.plan.addresses)
        } else {
            0
        };
        let route = Route {
            target: self.plan.target,
            source,
            receive_bytes: self.plan.receive_bytes,
        };
        let mut socket = socket::open(route)?;
        self.poll.registry().register(
            &mut socket,
            Token(index),
            Interest::READABLE | Interest::WRITABLE,
        )?;
        self.connections.push(Connection::new(socket));
        Ok(())
    }

    fn drip_some(&mut self) {
        let Some(mut drip) = self.drip.take() else {
            return;
        };
        let due = ((clock::now() - drip.began) * drip.rate / SECOND) as usize;
        while drip.next < due.min(self.connections.len()) {
            let index = drip.next;
            drip.next += 1;
            let connection = &mut self.connections[index];
            if connection.phase != Phase::Live {
                continue;
            }
            if connection.send(&drip.bytes) {
                Gauge::count(&self.gauge.sent);
            } else {
                self.end(index);
            }
        }
        if drip.next < self.connections.len() {
            self.drip = Some(drip);
        }
    }

    #[inline]
    fn handle_ready(&mut self, index: usize, writable: bool) {
        let connection = &mut self.connections[index];
        let phase = connection.phase;
        match phase {
            Phase::Closed | Phase::Stalled => return,
            Phase::Connecting => {
                // `connect` has ended, well or not: SO_ERROR says which.
                let broken = matches!(connection.socket.take_error(), Ok(Some(_)) | Err(_));
                if broken
                    || self
                        .conversation
                        .handle_connected(index, connection)
                        .is_err()
                {
                    self.conversation
                        .tally
                        .trouble(|| "connection refused".to_owned());
                    return self.end(index);
                }
            }
            _ if writable && connection.unsent() > 0 && !connection.flush() => {
                return self.end(index);
            }
            _ => {}
        }
        self.read(index);
    }

    #[inline]
    fn read(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        for _ in 0..READS_PER_TURN {
            if matches!(connection.phase, Phase::Closed | Phase::Stalled) {
                return;
            }
            let (length, more) = match connection.receive(&mut self.buffer) {
                Arrived::Last(length) => (length, false),
                Arrived::More(length) => (length, true),
                Arrived::Nothing => return,
                Arrived::End => return self.end(index),
            };
            let bytes = &self.buffer[..length];
            let used = match self
                .conversation
                .handle_bytes(index, connection, bytes, clock::now())
            {
                Ok(used) => used,
                Err(Over) => return self.end(index),
            };
            if !connection.carry(&bytes[used..], BUFFER_BYTES) {
                self.conversation
                    .tally
                    .trouble(|| format!("a message longer than {BUFFER_BYTES} bytes"));
                return self.end(index);
            }
            if !more {
                return;
            }
        }
        self.unread.push_back(index);
    }

    fn end(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        let counter = match connection.phase {
            Phase::Live | Phase::Stalled => &self.gauge.ended,
            _ => &self.gauge.failed,
        };
        Gauge::count(counter);
        connection.phase = Phase::Closed;
        // Shut down rather than dropped: the slot stays, so that indices keep their meaning.
        let _ = self.poll.registry().deregister(&mut connection.socket);
        let _ = connection.socket.shutdown(std::net::Shutdown::Both);
    }

    /// Reads what a stalled connection left lying, to see whether the server has ended it meanwhile.
    fn check_stalled(&mut self) {
        if self.plan.behaviour != Behaviour::Stall || self.plan.protocol == Protocol::Raw {
            return;
        }
        for index in 0..self.connections.len() {
            if self.connections[index].phase == Phase::Stalled
                && drained_to_end(&mut self.connections[index], &mut self.buffer)
            {
                self.end(index);
            }
        }
    }
}

/// Whether a socket, read to its bottom, has an end there. Bounded, for the server may still be filling it.
fn drained_to_end(connection: &mut Connection, buffer: &mut [u8]) -> bool {
    for _ in 0..64 {
        match connection.receive(buffer) {
            Arrived::End => return true,
            Arrived::Nothing => return false,
            Arrived::Last(_) | Arrived::More(_) => {}
        }
    }
    false
}
