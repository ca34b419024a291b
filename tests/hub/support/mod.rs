//! What the tests speak through: a hub as a child process, and a client for each door.

pub(crate) mod clock;
pub(crate) mod http;
pub(crate) mod hub;
pub(crate) mod raw;
pub(crate) mod session;
pub(crate) mod sse;
pub(crate) mod token;
pub(crate) mod ws;

use std::time::{Duration, Instant};

pub(crate) use hub::{Hub, hub, hub_with};

/// Longer than anything here should take on a busy machine, shorter than anyone's patience.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// How long to listen before believing that nothing comes.
pub(crate) const QUIET: Duration = Duration::from_millis(150);

/// Asks again and again until there is an answer.
pub(crate) async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(began.elapsed() < DEADLINE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits for something, but not for ever.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("never came: {what}"),
    }
}
