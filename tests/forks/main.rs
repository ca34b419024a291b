//! Nobody is told `recovered` over something missing, whatever happens to the data and on the way.
//!
//! `scripts` asks the real scripts in a real Redis that is rolled back and loses keys; `model` runs nodes over modelled
//! servers, in thousands of schedules; and what the modelled servers do is held to what the real one does.

mod model;
#[path = "../fleet/random.rs"]
mod random;
#[path = "../redis_server/mod.rs"]
mod redis_server;
mod scripts;
mod server;
mod tee;
