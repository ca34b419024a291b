//! The shared nouns: what every room may name. No I/O, no clock, no policy beyond what a noun itself must hold.

mod channel;
mod close;
mod error_code;
mod id;
mod moment;
mod namespace;
mod position;
mod publication;
mod wire;

pub use channel::{ChannelKey, ChannelNameError, Scope};
pub use close::{CloseReason, Reconnect};
pub use error_code::ErrorCode;
pub use id::{ClientId, NodeId, UserId};
pub use moment::Moment;
pub use namespace::{HistoryPolicy, Namespace, Namespaces, OverflowPolicy, Permission};
pub use position::{Epoch, Position};
pub use publication::{Envelope, Event, Member, Origin, Payload, Publication};
pub use wire::{Encode, WireFormat};
