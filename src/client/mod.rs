//! One client's conversation. SANS-IO: commands, completions and the time come in; what is to be done comes out.
//!
//! A [`Client`] knows who it is, what it may do, and when it must give a sign of life. It does not know what carries
//! it (transport), where publications come from (relay), nor who else there is (hub). For each command the transport
//! gets one [`Step`]: an answer, or a question whose answer it brings back with [`Client::complete`]. Answers leave in
//! the order of their commands.

mod answers;
mod config;
mod conversation;
mod heartbeat;
mod question;

pub use answers::{Answer, Completion, Ticket};
pub use config::Config;
pub use conversation::{Client, NamedSession, Rules};
pub use heartbeat::{Heartbeat, Signal};
pub use question::{Question, Step};

#[cfg(test)]
mod tests;
