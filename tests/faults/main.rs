//! Faults with real processes: nodes and Redis are killed, cut off, rolled back, while publishers publish and clients over
//! both doors listen; then every client's diary is compared with what was acknowledged.
//!
//! What holds in every run: each client's publications come in order and once; what a client did not get it was told of;
//! nobody is told that it recovered, and has something else than the stream. Where Redis lost nothing, every client has
//! everything, without having been told of anything.

#[allow(
    dead_code,
    unused_imports,
    reason = "the hub's suite uses all of it, this one a part"
)]
#[path = "../hub/support/mod.rs"]
mod support;

#[path = "../redis_server/mod.rs"]
mod redis_server;

mod failover;
mod link;
mod nodes;
mod paths;
mod publisher;
mod run;
mod servers;
mod subscriber;
