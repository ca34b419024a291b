//! The hub from outside: the built binary as a child process, real sockets, every door.
//!
//! What a test needs to know of the hub stands in `docs/PROTOCOL.md`; nothing here looks inside.

#[path = "../postgres_server/mod.rs"]
mod postgres_server;
#[path = "../redis_server/mod.rs"]
mod redis_server;
#[allow(dead_code, reason = "the proxy's suite uses all of it")]
#[path = "../proxy/shims.rs"]
mod shims;
mod support;

mod accounts;
mod administration;
mod back_end;
mod bad_input;
mod consent;
mod data_file;
mod database;
mod drain;
mod echo;
mod event_stream;
mod events;
mod issuer;
mod liveness;
mod lost_answers;
mod occupancy;
mod openapi;
mod operations;
mod overload;
mod presence;
mod publish_forms;
mod recovery;
mod session_events;
mod session_fleet;
mod session_records;
mod session_sockets;
mod slow;
mod tokens;
mod websocket;
