//! What may be counted from anywhere, and the closed lists of label values.
//!
//! Every function here finds its handle in a static; nothing looks up a label or allocates after the first call. The
//! handles come from the recorder that is installed at that first call, so [`setup::install`](super::setup::install)
//! goes first; without a recorder everything is a no-op. What happens per delivery is not here: see
//! [`WorkerCounts`](super::WorkerCounts).

use std::sync::LazyLock;
use std::time::Duration;

use ::metrics::{Counter, counter, gauge};

use super::table::name;
use super::totals::{self, Total};

/// Declares a closed list of label values: an enum with every value, its index and its word.
macro_rules! label {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$variant_meta])* $variant,)+ }

        impl $name {
            /// Every value, by index.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];
            /// How many values there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The place in [`ALL`](Self::ALL).
            pub const fn index(self) -> usize {
                self as usize
            }

            /// The label's value on `/metrics`.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }
    };
}
pub(super) use label;

label! {
    /// What carries a connection.
    Transport {
        /// A WebSocket.
        WebSocket = "ws",
        /// A stream of server-sent events.
        Sse = "sse",
    }
}

label! {
    /// The door that a publication came in by.
    Door {
        /// `/hub`.
        Http = "http",
        /// A client's command.
        WebSocket = "ws",
    }
}

label! {
    /// Why pending publications were thrown away.
    DropReason {
        /// The namespace's policy: the oldest went, or those that a newer one of the same key made old.
        Policy = "policy",
        /// They were pending on a connection that was closed for its slowness.
        Disconnect = "disconnect",
    }
}

label! {
    /// What a client's message asks for.
    CommandKind {
        /// `subscribe`.
        Subscribe = "subscribe",
        /// `unsubscribe`.
        Unsubscribe = "unsubscribe",
        /// `publish`.
        Publish = "publish",
        /// `history`.
        History = "history",
        /// `presence`.
        Presence = "presence",
        /// `ping`.
        Ping = "ping",
        /// The answer to a JSON ping.
        Pong = "pong",
        /// `update_api_key`.
        UpdateApiKey = "update_api_key",
        /// `refresh`.
        Refresh = "refresh",
        /// A message of `/ws/echo`.
        Echo = "echo",
        /// A type that nobody knows.
        Unknown = "unknown",
        /// Not readable at all.
        Invalid = "invalid",
    }
}

label! {
    /// Why a connection was refused before it began.
    Refusal {
        /// No handshake that can be read.
        BadRequest = "bad_request",
        /// No credentials, or bad ones.
        Unauthorized = "unauthorized",
        /// The page's origin is not on the list.
        Origin = "origin",
        /// The most connections are open.
        OverCapacity = "over_capacity",
        /// The address has its most connections.
        PerAddress = "per_address",
        /// Too many handshakes are in flight.
        Handshakes = "handshakes",
        /// The head did not arrive in time.
        HeaderTimeout = "header_timeout",
        /// The node drains.
        Draining = "draining",
        /// Accepting paused near the limit of file descriptors.
        FileLimit = "file_limit",
    }
}

static HTTP_PUBLICATIONS: LazyLock<Counter> =
    LazyLock::new(|| counter!(name::PUBLICATIONS, "door" => Door::Http.label()));
static HOLES: LazyLock<Counter> = LazyLock::new(|| counter!(name::HOLES));
static REFUSALS: LazyLock<[Counter; Refusal::COUNT]> = LazyLock::new(|| {
    std::array::from_fn(|index| counter!(name::REFUSALS, "reason" => Refusal::ALL[index].label()))
});

/// By whether what was read is taken.
static CERTIFICATE_READS: LazyLock<[Counter; 2]> = LazyLock::new(|| {
    ["failed", "taken"].map(|result| counter!(name::CERTIFICATE_READS, "result" => result))
});

/// Lets every series stand at 0 from now on: who watches a rate sees the first event too.
pub(super) fn begin() {
    for counter in [&HTTP_PUBLICATIONS, &HOLES] {
        LazyLock::force(counter);
    }
    LazyLock::force(&REFUSALS);
    LazyLock::force(&CERTIFICATE_READS);
}

/// Publications were accepted by `/hub`. Those of sockets are in [`WorkerCounts`](super::WorkerCounts).
pub fn http_published(publications: u64) {
    HTTP_PUBLICATIONS.increment(publications);
    totals::add(Total::Publications, publications);
}

/// Envelopes between nodes may have been missed.
pub fn hole() {
    HOLES.increment(1);
}

/// A connection was refused before it began.
pub fn refused(reason: Refusal) {
    REFUSALS[reason.index()].increment(1);
}

/// The files of the TLS certificate have changed and were read, for good or in vain.
pub fn certificate_read(was_taken: bool) {
    CERTIFICATE_READS[usize::from(was_taken)].increment(1);
}

/// What only a look at the whole node tells; set when somebody scrapes.
#[derive(Debug, Clone, Copy)]
pub struct NodeGauges {
    /// Channels with a subscriber on this node.
    pub channels: u64,
    /// Whether the broker can be reached.
    pub broker_ready: bool,
    /// Whether the node drains.
    pub draining: bool,
    /// Since the process started.
    pub uptime: Duration,
}

/// Sets the gauges that nobody counts while serving.
#[expect(
    clippy::cast_precision_loss,
    reason = "a gauge is a float; 2^53 channels do not exist"
)]
pub fn set_node(node: NodeGauges) {
    gauge!(name::CHANNELS).set(node.channels as f64);
    gauge!(name::BROKER_READY).set(f64::from(u8::from(node.broker_ready)));
    gauge!(name::DRAINING).set(f64::from(u8::from(node.draining)));
    gauge!(name::UPTIME).set(node.uptime.as_secs_f64());
}
