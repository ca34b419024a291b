//! The whole fleet from outside, as compose runs it: nginx, gateways and Redis from the files that are deployed, started by
//! `deploy/local`. Needs `nginx` and `redis-server` (`tests/run` installs them).

#[allow(
    dead_code,
    unused_imports,
    reason = "the hub's suite uses all of it, this one a part"
)]
#[path = "../hub/support/mod.rs"]
mod support;

mod door;
mod faults;
mod fleet;
mod listener;
mod moving;
mod publisher;
mod sessions;
