//! A worker's loop: sockets, inbox, completions and timers, a bounded piece of each in turn.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

use bytes::Bytes;

use crate::auth::Verifier;
use crate::client::Rules;
use crate::events::{Consent, Events};
use crate::model::{ConnectionPermit, DrainSignal};
use crate::relay::{Inbox, Relay};
use crate::session::Sessions;
use crate::tls::Layer;

use super::Config;
use super::intake::{Slot, Ticket};
use super::levels::Levels;
use super::questions::Done;
use super::shard::Shard;

/// What all workers of a node share.
#[derive(Debug, Clone)]
pub struct Context {
    /// Bounds and intervals.
    pub config: Arc<Config>,
    /// What conversations are judged by.
    pub rules: Arc<Rules>,
    /// The way to the broker.
    pub relay: Arc<Relay>,
    /// What back ends hear of.
    pub events: Arc<Events>,
    /// Users' sessions.
    pub sessions: Arc<Sessions>,
    /// Who is asked whether clients may subscribe and publish.
    pub consent: Arc<Consent>,
    /// Verifies tokens.
    pub verifier: Arc<Verifier>,
    /// What each worker tells of itself.
    pub levels: Arc<[Levels]>,
}

/// A socket on its way into the loop.
#[derive(Debug)]
pub(super) struct Adopted {
    pub(super) socket: std::net::TcpStream,
    pub(super) layer: Option<Layer>,
    /// What was read ahead of the upgrade.
    pub(super) input: Bytes,
    pub(super) ticket: Ticket,
    pub(super) permit: ConnectionPermit,
}

/// What other tasks of the same thread leave for the loop.
#[derive(Debug, Default)]
pub(super) struct Front {
    adopted: RefCell<Vec<Adopted>>,
    done: RefCell<Vec<Done>>,
    waker: RefCell<Option<Waker>>,
}

impl Front {
    fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// What was asked came to an end.
    pub(super) fn finish(&self, done: Done) {
        self.done.borrow_mut().push(done);
        self.wake();
    }

    pub(super) fn take_adopted(&self) -> Vec<Adopted> {
        std::mem::take(&mut self.adopted.borrow_mut())
    }

    pub(super) fn take_done(&self) -> Vec<Done> {
        std::mem::take(&mut self.done.borrow_mut())
    }

    pub(super) fn has_news(&self) -> bool {
        !self.adopted.borrow().is_empty() || !self.done.borrow().is_empty()
    }

    pub(super) fn register(&self, waker: &Waker) {
        *self.waker.borrow_mut() = Some(waker.clone());
    }
}

/// One core's share of the node: its connections and its hub. Made on the thread that runs it.
///
/// The server calls [`Worker::adopt`] for each socket whose handler answered 101, and [`Worker::run`] once.
#[derive(Debug)]
pub struct Worker {
    context: Context,
    index: usize,
    front: Rc<Front>,
}

impl Worker {
    /// The worker of this index.
    pub fn new(context: Context, index: usize) -> Self {
        Self {
            context,
            index,
            front: Rc::default(),
        }
    }

    /// Takes over a socket, and the layer that encrypts what passes it.
    pub fn adopt(
        &self,
        socket: std::net::TcpStream,
        layer: Option<Layer>,
        input: Bytes,
        slot: &Slot,
        permit: ConnectionPermit,
    ) {
        if let Some(ticket) = slot.take() {
            self.front.adopted.borrow_mut().push(Adopted {
                socket,
                layer,
                input,
                ticket,
                permit,
            });
            self.front.wake();
        }
    }

    /// Serves until the node drains and every client was sent away.
    ///
    /// A failure to set up the poll ends it at once; the server takes that for the fault that it is.
    pub async fn run(self: Rc<Self>, drain: DrainSignal) {
        let inbox = self.context.relay.inbox(self.index).clone();
        match Shard::new(self.context.clone(), self.index, self.front.clone(), drain) {
            Ok(shard) => serve(shard, &inbox).await,
            Err(error) => {
                tracing::error!(worker = self.index, %error, "the worker's poll cannot be set up");
            }
        }
    }
}

async fn serve(mut shard: Shard, inbox: &Inbox) {
    loop {
        let has_publications = shard.wait(inbox).await;
        if has_publications {
            // Let everything that is about to publish do so first: more goes into one write.
            tokio::task::yield_now().await;
        }
        shard.turn(inbox);
        if shard.is_drained() {
            break;
        }
        if shard.has_work() {
            tokio::task::yield_now().await;
        }
    }
    shard.end();
}
