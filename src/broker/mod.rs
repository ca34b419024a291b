//! The broker: publish/subscribe and streams between nodes.
//!
//! One narrow trait, [`Broker`], that the relay stands on; `memory` is the embedded one, `redis` joins the nodes of a fleet. Every broker passes the same
//! conformance suite (`tests/broker_conformance`).
//!
//! Not here: which client wants what (the hub), and which worker wants what (the relay). A broker knows nodes and
//! channels only.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::model::{
    ChannelKey, ClientId, Envelope, ErrorCode, Fingerprints, Member, NodeId, Origin, Payload,
    Position, Publication, SessionId, SettingsGroup, UserId,
};

mod config;
pub mod memory;
pub mod redis;

pub use config::Config;

/// A future that a broker answers with. Boxed, because a broker is held as `Arc<dyn Broker>`.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, BrokerError>> + Send + 'a>>;

/// The results of several publishes, in their order.
pub type Results<'a> =
    Pin<Box<dyn Future<Output = Vec<Result<Published, BrokerError>>> + Send + 'a>>;

/// Why the broker could not do what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BrokerError {
    /// It cannot be reached and the command was not sent: nothing was done.
    #[error("the broker cannot be reached")]
    Unavailable,
    /// The command was sent and no answer came: it may or may not have been done.
    #[error("the broker did not answer in time; the outcome is unknown")]
    OutcomeUnknown,
    /// It was done, and may be lost: fewer replicas of Redis have it in time than are to be waited for.
    #[error("it was published, but too few replicas of redis have it yet; the outcome is unknown")]
    NotReplicated,
    /// It has no room (a bound of the configuration, or the server's memory): nothing was done.
    #[error("the broker has no room")]
    Full,
    /// The channel's namespace keeps no history.
    #[error("the channel keeps no history")]
    NoHistory,
}

impl BrokerError {
    /// What whoever asked is told, over HTTP and on a socket alike.
    pub const fn code(self) -> ErrorCode {
        match self {
            Self::Unavailable | Self::OutcomeUnknown | Self::NotReplicated => {
                ErrorCode::BrokerUnavailable
            }
            Self::Full => ErrorCode::Unavailable,
            Self::NoHistory => ErrorCode::NotAvailable,
        }
    }

    /// Whether it may have been done all the same.
    pub const fn is_outcome_unknown(self) -> bool {
        matches!(self, Self::OutcomeUnknown | Self::NotReplicated)
    }
}

/// One thing to publish.
#[derive(Debug, Clone)]
pub struct Publish {
    /// Where.
    pub channel: ChannelKey,
    /// What.
    pub data: Payload,
    /// The client that publishes; `None` for a back end.
    pub origin: Option<Origin>,
    /// What `latest` keeps one of.
    pub key: Option<Arc<str>>,
    /// The same key on the same channel within five minutes answers the first result and delivers nothing again.
    pub idempotency_key: Option<Arc<str>>,
}

/// What came of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// Where it stands in the stream; `None` in a channel without history.
    pub position: Option<Position>,
    /// Whether the idempotency key was known, so that nothing was delivered.
    pub duplicate: bool,
}

/// How much of a stream to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReadLimit {
    /// The most publications.
    pub publications: usize,
    /// The most bytes of data; at least one publication is returned all the same.
    pub bytes: usize,
}

/// A part of a stream, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The publications, with growing offsets and no offset left out.
    pub publications: Vec<Arc<Publication>>,
    /// Where the stream stands now (its top), not where the page ends.
    pub top: Position,
    /// Whether there are more after the last one.
    pub more: bool,
}

/// The answer to "what came after this position".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recovery {
    /// Everything after the position that was asked still stands in the stream: this page is its beginning.
    Recovered(Page),
    /// The stream cannot say what came after that position: it is of another epoch or from the future, or what
    /// followed is no longer kept.
    Lost {
        /// Where the stream stands now.
        top: Position,
        /// The last place, in the present epoch, up to which the reader's stream and this one are the same, when
        /// everything after it still stands: from there on it can be read. The server was rolled back to it.
        fork: Option<Position>,
    },
}

/// Where a channel's stream stands when interest begins: `None` in a channel without history. Every publication
/// after it will be handed to the sink.
pub type Start = Option<Position>;

/// Who is present in a channel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Presence {
    /// The members, in the order of their client ids, at most as many as were asked for.
    pub members: Vec<Arc<Member>>,
    /// How many connections are present.
    pub clients: usize,
    /// How many different users; those who are nobody count as one.
    pub users: usize,
}

/// A user on all their connections, or one connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// All connections of this user.
    User(UserId),
    /// This connection.
    Client(ClientId),
}

/// An order to every node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Control {
    /// Close the connections (4002).
    Disconnect(Target),
    /// Close the user's connections (4003): logged out everywhere, or the account deleted.
    LogOut(UserId),
    /// Close those of the user's connections (4003) that belong to one of these sessions: logged out, or replaced.
    EndSessions(UserId, Arc<[SessionId]>),
    /// Subscribe the connections to a channel.
    Subscribe(Target, ChannelKey),
    /// End the connections' subscriptions to a channel.
    Unsubscribe(Target, ChannelKey),
    /// Close the event streams of a channel: what they carry is no longer there, and who comes back is told so.
    EndStreams(ChannelKey),
    /// Forget what the cache has of a service.
    Purge(Purged),
}

/// What a cache is to forget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purged {
    /// Of which service.
    pub service: String,
    /// What the paths begin with; empty: all of them.
    pub prefix: String,
}

/// A replica of the fleet, as its lease tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeInfo {
    /// Its id.
    pub id: NodeId,
    /// Connected clients.
    pub connections: u64,
    /// Channels with a subscriber on that node.
    pub channels: u64,
    /// The version of Fanfare.
    pub version: String,
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// Of the settings that must be alike on all nodes.
    pub settings: Fingerprints,
}

impl NodeInfo {
    /// In what another node's settings are not this one's. Those of another version are not compared: it may have others.
    pub fn differing(&self, other: &Self) -> Vec<SettingsGroup> {
        match self.version == other.version {
            true => self.settings.differing(&other.settings),
            false => Vec::new(),
        }
    }
}

/// A channel and how many subscribers it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActiveChannel {
    /// The channel.
    pub channel: ChannelKey,
    /// Its subscribers, over all nodes.
    pub subscribers: u64,
}

/// Where a broker hands over what happens. The relay implements it. None of these may block or wait.
pub trait Sink: Send + Sync {
    /// Something happened in a channel that this node has interest in. Envelopes of one channel come in the order of
    /// their offsets, though not without holes and not without repetition.
    fn deliver(&self, envelope: &Envelope);
    /// Envelopes may have been missed: of this channel, or of every channel.
    fn hole(&self, channel: Option<&ChannelKey>);
    /// Every stream may be another than before, and is to be read again. Where nothing is kept nothing was missed by that.
    fn changed(&self);
    /// An order to this node.
    fn control(&self, control: &Control);
}

/// Publish/subscribe, streams, presence and orders between nodes.
///
/// Call [`attach`](Broker::attach) once before anything else. A publish that was answered stands in the stream (with
/// history) or was handed on (without). Nothing is replayed by a broker: after
/// [`BrokerError::OutcomeUnknown`] only the caller knows whether to try again, with an idempotency key.
pub trait Broker: Send + Sync {
    /// Tells the broker where to hand over what happens on this node's channels.
    fn attach(&self, sink: Arc<dyn Sink>);

    /// Publishes in order, in as few round trips as it can; one result for each, in the same order.
    fn publish(&self, publishes: Vec<Publish>) -> Results<'_>;

    /// Publishes one, as most calls do. A broker may have a shorter way for it.
    fn publish_one(&self, publish: Publish) -> Answer<'_, Published> {
        let results = self.publish(vec![publish]);
        // A broker that answers nothing has a defect; nobody knows then what it did.
        Box::pin(async move {
            results
                .await
                .pop()
                .unwrap_or(Err(BrokerError::OutcomeUnknown))
        })
    }

    /// The publications after `since` that are still kept, oldest first; from the oldest when `since` is `None`, or of
    /// another epoch, or no longer kept. An offset beyond the top reads as an empty page.
    fn history<'a>(
        &'a self,
        channel: &'a ChannelKey,
        since: Option<Position>,
        limit: ReadLimit,
    ) -> Answer<'a, Page>;

    /// What came after `since`, or that nobody can say.
    fn recover<'a>(
        &'a self,
        channel: &'a ChannelKey,
        since: Position,
        limit: ReadLimit,
    ) -> Answer<'a, Recovery>;

    /// Where the stream stands: its top.
    fn position<'a>(&'a self, channel: &'a ChannelKey) -> Answer<'a, Start>;

    /// Forgets what is kept. Positions stay valid: the numbering goes on. Does nothing in a channel without history.
    fn clear_history<'a>(&'a self, channel: &'a ChannelKey) -> Answer<'a, Start>;

    /// This node wants the channel's envelopes from now on. Asking again is harmless and answers the present top.
    fn add_interest<'a>(&'a self, channel: &'a ChannelKey) -> Answer<'a, Start>;

    /// This node no longer wants them.
    fn remove_interest<'a>(&'a self, channel: &'a ChannelKey) -> Answer<'a, ()>;

    /// A connection of this node is present; tells every node with interest, once for a client. Of a client that is
    /// present already the newer member stays. Does nothing where the namespace has no presence.
    fn join<'a>(&'a self, channel: &'a ChannelKey, member: Arc<Member>) -> Answer<'a, ()>;

    /// It is no longer present; tells every node with interest, once for a client.
    fn leave<'a>(&'a self, channel: &'a ChannelKey, client: ClientId) -> Answer<'a, ()>;

    /// Who is present, at most `limit` of them listed; all are counted.
    fn presence<'a>(&'a self, channel: &'a ChannelKey, limit: usize) -> Answer<'a, Presence>;

    /// Hands an order to every node, this one too.
    fn control(&self, control: Control) -> Answer<'_, ()>;

    /// Renews this node's lease and tells the fleet of it, together with the subscriber counts of all its channels.
    fn announce(&self, node: NodeInfo, channels: Vec<ActiveChannel>) -> Answer<'_, ()>;

    /// Ends this node's lease: its members leave now, not when the lease would have ended. For the end of the process.
    fn withdraw(&self) -> Answer<'_, ()>;

    /// The replicas alive.
    fn nodes(&self) -> Answer<'_, Vec<NodeInfo>>;

    /// The channels with subscribers on *other* nodes, as those announced them: of the empty scope, with names that begin
    /// with `prefix`, after `cursor` in the order of their names, at most `limit`.
    fn channels_elsewhere<'a>(
        &'a self,
        prefix: &'a str,
        cursor: Option<&'a str>,
        limit: usize,
    ) -> Answer<'a, Vec<ActiveChannel>>;

    /// How many subscribers a channel has on *other* nodes, as those announced it.
    fn subscribers_elsewhere<'a>(&'a self, channel: &'a ChannelKey) -> Answer<'a, u64>;

    /// Whether the broker can be reached now.
    fn is_ready(&self) -> bool;

    /// What it stands on: `memory` or `redis`. For logs, `/readyz` and `/hub/nodes`.
    fn kind(&self) -> &'static str;
}
