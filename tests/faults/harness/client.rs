//! A subscriber that is never told to give up: it comes back to any node with the positions that it has, over WebSocket or
//! as an `EventSource` does, and writes down what it is told.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use std::time::Duration;

use serde_json::Value;
use tokio::net::TcpStream;

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
    pub(crate) is_connected: AtomicBool,
    pub(crate) sessions: AtomicU64,
    codes: Mutex<Vec<u16>>,
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
            is_connected: AtomicBool::new(false),
            sessions: AtomicU64::new(0),
            codes: Mutex::default(),
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

    /// Lives for as long as its task. The first connection is to the node of this number.
    pub(crate) async fn live(self: Arc<Self>, gateways: Arc<Gateways>, first: usize) {
        let mut address = gateways.nth(first);
        loop {
            self.left.lock().expect("no panic").clear();
            if let Ok(Ok(stream)) =
                tokio::time::timeout(PATIENCE, TcpStream::connect(address)).await
            {
                let code = match self.door {
                    Door::WebSocket => websocket::session(&self, stream).await,
                    Door::EventStream => event_stream::session(&self, stream).await,
                };
                self.codes.lock().expect("no panic").extend(code);
            }
            self.is_connected.store(false, Ordering::Relaxed);
            let pause = rand::random_range(20..PAUSE_MAX_MS);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            address = gateways.any();
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
            self.ledger(0).faults.push(format!("left twice: {who}"));
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
