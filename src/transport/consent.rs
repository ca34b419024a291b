//! Commands about which a back end is asked first.
//!
//! A client's subscribe waits as every subscribe does: what follows it waits for its answer. Publications are asked about
//! at once, however many there are, and published in the order in which they were sent: each waits for its [`Turn`].

use std::future::Future;

use tokio::sync::oneshot;

use super::questions::Done;
use super::shard::Shard;
use super::socket::{Cause, Joining, Socket};
use crate::broker::Publish;
use crate::events::{Asker, Withheld};
use crate::hub::ConnectionIndex;
use crate::model::Payload;
use crate::protocol::Reply;

/// A publication's place behind the one before it. Dropping it lets the next one go.
#[derive(Debug)]
pub(super) struct Turn {
    before: Option<Before>,
    _mine: oneshot::Sender<()>,
}

/// Ends when the publication before is published, or will not be.
pub(super) type Before = oneshot::Receiver<()>;

impl Turn {
    /// A place behind `last`, which it takes.
    fn behind(last: &mut Option<Before>) -> Self {
        let (mine, next) = oneshot::channel();
        Self {
            before: last.replace(next),
            _mine: mine,
        }
    }

    async fn come(&mut self) {
        if let Some(before) = self.before.take() {
            // Nothing is ever sent: the end of the channel says that it is our turn.
            let _ = before.await;
        }
    }
}

/// Who asks for something over a socket.
fn asker(socket: &Socket) -> Asker<'_> {
    Asker {
        identity: socket.client.identity(),
        client: Some(socket.client.id()),
        session: socket.client.session(),
        transport: if socket.is_websocket() { "ws" } else { "sse" },
    }
}

impl Shard {
    /// Subscribes as a client asked, once whoever is to be asked about it has said yes. Its own channels, which its token or
    /// the answer to its connect named, need no further one.
    pub(super) fn join_with_consent(&mut self, joining: Joining, watches: bool) {
        let (consent, rules) = (self.context.consent.clone(), self.context.rules.clone());
        let Some(socket) = self.sockets.find(joining.connection) else {
            return;
        };
        let is_own = socket.client.identity().channels.contains(&joining.channel);
        if is_own || !consent.is_asked_to_subscribe(rules.namespaces.of(&joining.channel)) {
            return self.join_anew(joining, watches);
        }
        let asked = consent.subscribe(&asker(socket), &joining.channel);
        self.when_done(async move {
            let verdict = asked.await;
            Done::Consented(Box::new(joining), watches, verdict)
        });
    }

    /// What a back end says of a subscription.
    pub(super) fn consented(
        &mut self,
        joining: Joining,
        watches: bool,
        verdict: Result<(), Withheld>,
    ) {
        let connection = joining.connection;
        if self
            .sockets
            .find(connection)
            .is_none_or(|socket| socket.is_closing())
        {
            return;
        }
        match (verdict, joining.cause) {
            (Ok(()), _) => self.join_anew(joining, watches),
            (Err(withheld), Cause::Command(ticket)) => {
                self.complete(connection, ticket, refusal(&withheld));
            }
            // Nobody is asked about these.
            (Err(_), Cause::Opening(_) | Cause::Server) => {}
        }
    }

    /// A channel that the client is subscribed to already restarts at the position.
    fn join_anew(&mut self, joining: Joining, watches: bool) {
        let connection = joining.connection.index;
        if self.hub.is_subscribed(connection, &joining.channel) {
            self.unsubscribe(connection, &joining.channel);
        }
        self.join(joining, watches);
    }

    /// Asks whether a client may publish this; `None` where nobody is asked. The future ends with what is to be published
    /// when it is its turn, which it holds until the turn is dropped.
    pub(super) fn ask_to_publish(
        &mut self,
        connection: ConnectionIndex,
        publish: &Publish,
    ) -> Option<impl Future<Output = (Result<Payload, Withheld>, Turn)> + use<>> {
        let consent = self.context.consent.clone();
        let namespace = self.context.rules.namespaces.of(&publish.channel);
        if !consent.is_asked_to_publish(namespace) {
            return None;
        }
        let bytes_max = namespace.publication_bytes_max;
        let socket = self.sockets.get_mut(connection)?;
        let asked = consent.publish(
            &asker(socket),
            &publish.channel,
            publish.data.clone(),
            publish.key.as_deref(),
            bytes_max,
        );
        let mut turn = Turn::behind(&mut socket.last_publish);
        Some(async move {
            let verdict = asked.await;
            turn.come().await;
            (verdict, turn)
        })
    }
}

/// The answer to a command that was not allowed.
pub(super) fn refusal(withheld: &Withheld) -> Reply {
    Reply::Error {
        code: withheld.code(),
        message: withheld.to_string(),
    }
}
