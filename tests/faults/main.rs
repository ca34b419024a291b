//! Faults: real processes, real clients, every message counted. One test for each thing that goes wrong in a fleet.
//!
//! Promised in all of them: of what was acknowledged and survives in Redis nothing is lost, nothing comes twice, nobody is
//! told `recovered` over something missing, and ten seconds after the fault everything is as before.

#[allow(
    dead_code,
    unused_imports,
    reason = "the hub's suite uses all of it, this one a part"
)]
#[path = "../hub/support/mod.rs"]
mod support;

#[path = "../redis_server/mod.rs"]
mod redis_server;

#[allow(dead_code, reason = "`tests/chaos` uses the rest")]
mod harness;

mod cluster;
mod network;
mod nodes;
mod server;
