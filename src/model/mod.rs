//! The shared nouns: what every room may name. No I/O, no clock, no policy beyond what a noun itself must hold.

mod admission;
mod alike;
mod body;
mod channel;
mod close;
mod decimal;
mod drain;
mod error_code;
mod id;
mod moment;
mod namespace;
mod network;
mod peer;
mod position;
mod publication;
mod role;
mod session_id;
mod timestamp;
mod wire;

pub use admission::{
    Addresses, ConnectionPermit, HandshakePermit, NoPlace, ServerCounts, SparePermit,
};
pub use alike::{Fingerprints, SettingsGroup};
pub use body::BodyError;
pub use channel::{ChannelKey, ChannelNameError, Scope};
pub use close::{CloseReason, Reconnect};
pub use decimal::put_decimal;
pub use drain::{DrainPhase, DrainSignal};
pub use error_code::ErrorCode;
pub use id::{ClientId, NodeId, UserId};
pub use moment::Moment;
pub use namespace::{HistoryPolicy, Namespace, Namespaces, OverflowPolicy, Permission};
pub use network::{contains, counted_as};
pub use peer::{Encrypted, PeerAddr, WorkerIndex};
pub use position::{Epoch, Position};
pub use publication::{Envelope, Event, Member, Origin, Payload, Publication};
pub use role::{ROLE_BYTES_MAX, Role, RoleError};
pub use session_id::{SessionId, SessionIdError};
pub use timestamp::{parse_rfc3339, rfc3339};
pub use wire::{Encode, WireFormat};
