//! Rates: how often something may be done. Sans-IO: the time is handed in, a limiter is a few bytes of state that the
//! caller keeps where it likes, and the rate is a value that many of them share.
//!
//! [`TokenBucket`] is for one counter on a hot path and answers yes or no. [`Gcra`] is for what is told to a client in
//! headers: what remains, when it is whole again, when to try again.
//! [`Keyed`] is one of these for each key.

mod gcra;
mod keyed;
mod token_bucket;

pub use gcra::{Decision, Gcra, Quota};
pub use keyed::Keyed;
pub use token_bucket::{Rate, TokenBucket};
