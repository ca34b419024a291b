//! Metrics and logs: what an operator sees of a node.
//!
//! [`metrics`] may be called from anywhere; it holds every handle that is not a worker's own. [`WorkerCounts`] is a
//! worker's own tally: plain integers on the hot path, flushed about once a second. [`table`] names every metric.
//! [`setup`] is called once, by the start of the process, before anything is counted.
//!
//! Not here: what any number means for readiness or admission; the rooms decide that.

mod config;
pub mod consent;
pub mod events;
pub mod fleet;
pub mod http;
pub mod metrics;
pub mod process;
pub mod proxy;
pub mod setup;
pub mod table;
pub mod totals;
mod worker;

pub use config::{Config, LogFormat};
pub use metrics::{CommandKind, DropReason, Refusal, Transport, hole, http_published, refused};
pub use worker::WorkerCounts;
