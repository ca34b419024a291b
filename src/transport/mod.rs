//! WebSocket and SSE: a worker's loop over its sockets. No task a connection.
//!
//! `handshake` answers `/ws/connect`, `/ws/echo` and `/sse/connect`; `intake` is the way of a socket from there to its
//! worker; `worker` is the loop; the files beside it are one subject of the loop each. A turn of the loop takes in new
//! sockets, what sockets sent, what the broker answered and what the relay brought, and then writes: one write for each
//! connection that has something pending, in slices, so that nobody waits for a large fan-out.

mod adopt;
mod allowance;
mod carried;
mod catch_up;
mod closing;
mod config;
mod consent;
mod counting;
mod deliver;
mod ended;
mod handshake;
mod intake;
mod joining;
mod levels;
mod poll;
mod presence;
mod questions;
mod reading;
mod repair;
mod shard;
mod socket;
mod telling;
mod timer_wheel;
mod waiting_line;
mod worker;
mod writing;

pub use config::Config;
pub use handshake::{AddressOf, Attached, Doors, Pressure, router};
pub use intake::{Held, Intake, Slot};
pub use levels::Levels;
pub use worker::{Context, Worker};
