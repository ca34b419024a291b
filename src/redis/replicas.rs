//! Whether enough replicas have what was written: one WAIT behind the commands that ask for it, on their connection.
//!
//! It waits for everything that the connection wrote before, so one is enough for all that leave together. While a server
//! waits it does nothing else for the connection; so it does not wait long, and the commands that wait leave in rounds: the
//! next when the last is answered. In between they gather.

use std::sync::atomic::Ordering;

use super::lane::Answer;
use super::server::Server;
use super::{CallError, Command, Shared};

/// How long replicas have, in milliseconds: a round and the one before it fit into the time of a call.
const PATIENCE_MS: u64 = 500;

/// The command that waits for so many.
pub(super) fn wait(replicas: u32) -> Command {
    Command::new("WAIT")
        .number(u64::from(replicas))
        .number(PATIENCE_MS)
}

/// Takes what was done for not acknowledged, unless `told`, the answer to [`wait`], says that enough replicas have it.
pub(super) fn settle(shared: &Shared, server: &Server, answers: &mut [Answer], told: &Answer) {
    let wanted = u64::from(shared.config.wait_replicas);
    let has_enough = matches!(told, Ok(count) if count.as_u64().is_some_and(|it| it >= wanted));
    if matches!(told, Ok(_) | Err(CallError::Refused(_))) {
        note(server, wanted, !has_enough, told);
    }
    if !has_enough {
        let done = answers.iter_mut().filter(|answer| answer.is_ok());
        done.for_each(|answer| *answer = Err(CallError::NotReplicated));
    }
}

/// Says in the log when replicas begin to lack, and when they no longer do.
fn note(server: &Server, wanted: u64, lacks: bool, told: &Answer) {
    let lacked = server.lacks_replicas.swap(lacks, Ordering::Relaxed);
    match (lacked, lacks) {
        (false, true) => tracing::warn!(
            server = server.address,
            wanted,
            ?told,
            "fewer replicas of redis have what is published than REDIS_WAIT_REPLICAS says: publishers are told 503"
        ),
        (true, false) => tracing::info!(
            server = server.address,
            wanted,
            "enough replicas of redis have what is published again"
        ),
        _ => {}
    }
}
