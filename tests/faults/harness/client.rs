//! A subscriber that is never told to give up: it comes back to any node with the positions that it has, over WebSocket or
//! as an `EventSource` does, and writes down what it is told.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use std::time::Duration;

use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::ledger::{Ledger, Position};
use super::{event_stream, websocket};

/// How long a connection may take to begin.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// How long a client waits before it comes back, at most.
const PAUSE_MAX_MS: u64 = 300;

/// Where nodes are, dead ones among them: like a list of peers that nobody has corrected yet.
#[derive(Debug, Default)]
pub(crate) struct Gateways(RwLock<Vec<SocketAddr>>);

impl Gateways {
    pub(crate) fn set(&self, addresses: Vec<SocketAddr>) {
        *self.0.write().expect("no panic") = addresses;
    }

    pub(crate) fn any(&self) -> SocketAddr {
        let addresses = self.0.read().expect("no panic");
        addresses[rand::random_range(0..addresses.len())]
    }

    pub(crate) fn nth(&self, index: usize) -> SocketAddr {
        let addresses = self.0.read().expect("no panic");
        addresses[index % addresses.len()]
    }
}

/// Over what a client is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    WebSocket,
    EventStream,
}

/// Why a session ended: its close code, where there was one.
pub(super) type Ended = Option<u16>;

/// A subscriber.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) door: Door,
    pub(crate) channels: Vec<String>,
    ledgers: Vec<Mutex<Ledger>>,
    /// Asks for joins and leaves.
    pub(super) watches: bool,
    /// Clients whose leave this one was told of on the present connection.
    left: Mutex<HashSet<String>>,
    /// Those whose leave it was told of again.
    pub(crate) left_twice: Mutex<Vec<String>>,
    pub(crate) is_connected: AtomicBool,
    pub(crate) sessions: AtomicU64,
    codes: Mutex<Vec<u16>>,
    away: watch::Sender<bool>,
    /// Of an event stream: the last id that came.
    last_id: Mutex<Option<String>>,
}

impl Client {
    pub(crate) fn new(door: Door, channels: Vec<String>, watches: bool) -> Self {
        let ledgers = channels.iter().map(|_| Mutex::default()).collect();
        Self {
            door,
            channels,
            ledgers,
            watches,
            left: Mutex::default(),
            left_twice: Mutex::default(),
            is_connected: AtomicBool::new(false),
            sessions: AtomicU64::new(0),
            codes: Mutex::default(),
            away: watch::Sender::new(false),
            last_id: Mutex::default(),
        }
    }

    pub(super) fn last_id(&self) -> Option<String> {
        self.last_id.lock().expect("no panic").clone()
    }

    pub(super) fn keep_id(&self, id: String) {
        *self.last_id.lock().expect("no panic") = Some(id);
    }

    pub(crate) fn ledger(&self, channel: usize) -> MutexGuard<'_, Ledger> {
        self.ledgers[channel].lock().expect("no panic")
    }

    /// The codes with which nodes closed it.
    pub(crate) fn codes(&self) -> Vec<u16> {
        self.codes.lock().expect("no panic").clone()
    }

    pub(super) fn cursor(&self, channel: usize) -> Option<Position> {
        self.ledger(channel).cursor.clone()
    }

    /// Ends its connection and does not come back before it is told so.
    pub(crate) fn go_away(&self, is_away: bool) {
        self.away.send_replace(is_away);
    }

    pub(crate) fn is_away(&self) -> bool {
        *self.away.borrow()
    }

    /// Lives for as long as its task. The first connection is to the node of this number.
    pub(crate) async fn live(self: Arc<Self>, gateways: Arc<Gateways>, first: usize) {
        let (mut address, mut away) = (gateways.nth(first), self.away.subscribe());
        loop {
            tokio::select! {
                code = self.session(address) => {
                    self.codes.lock().expect("no panic").extend(code);
                }
                gone = away.wait_for(|is_away| *is_away) => drop(gone),
            }
            self.is_connected.store(false, Ordering::Relaxed);
            let back = away.wait_for(|is_away| !is_away).await;
            drop(back);
            let pause = rand::random_range(20..PAUSE_MAX_MS);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            address = gateways.any();
        }
    }

    async fn session(&self, address: SocketAddr) -> Ended {
        self.left.lock().expect("no panic").clear();
        let stream = tokio::time::timeout(PATIENCE, TcpStream::connect(address)).await;
        let stream = stream.ok()?.ok()?;
        match self.door {
            Door::WebSocket => websocket::session(self, stream).await,
            Door::EventStream => event_stream::session(self, stream).await,
        }
    }

    pub(super) fn connected(&self) {
        self.is_connected.store(true, Ordering::Relaxed);
        self.sessions.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn find(&self, channel: &Value) -> Option<usize> {
        self.channels.iter().position(|name| channel == name)
    }

    /// A publication, from either door.
    pub(super) fn publication(&self, message: &Value, epoch: Option<&str>) {
        let Some(channel) = self.find(&message["channel"]) else {
            return;
        };
        let number = message["data"].as_u64().expect("a number");
        let mut ledger = self.ledger(channel);
        match message["offset"].as_u64() {
            Some(offset) => ledger.publication(epoch, offset, number),
            None => ledger.unkept(number),
        }
    }

    /// Somebody left.
    pub(super) fn leave(&self, message: &Value) {
        let who = format!("{} {}", message["channel"], message["client"]);
        if !self.left.lock().expect("no panic").insert(who.clone()) {
            self.left_twice.lock().expect("no panic").push(who);
        }
    }
}

/// The position that a message carries.
pub(super) fn position(message: &Value) -> Option<Position> {
    Some(Position {
        epoch: message["epoch"].as_str()?.into(),
        offset: message["offset"].as_u64()?,
    })
}
