//! Keeps the keys of issuers' key sets (`JWKS_URL`, RFC 7517): fetched at the start, again every ten minutes, and when a
//! token names a key that is not there, so that a new key of the issuer's is known with its first token. A set that was
//! fetched stays when the issuer cannot be reached.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};

use super::Verifier;
use super::issuers::Issued;
use super::key::{self, Key};
use crate::limits::{Gcra, Quota};
use crate::model::Moment;
use crate::outbound::{Call, Endpoint, Outbound};

/// Between two fetches when all is well.
const FETCH_INTERVAL: Duration = Duration::from_secs(600);
/// The most fetches in a minute because of tokens: whoever invents names of keys does not make us ask more often.
const ASKED_A_MINUTE: u32 = 6;
/// After a fetch that failed, doubling.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LAST: Duration = Duration::from_secs(60);
/// How long one fetch may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// The most bytes of a key set: some carry chains of certificates.
const SET_BYTES_MAX: usize = 256 * 1024;

/// How fresh the keys are, and who waits for fresher ones.
#[derive(Debug, Default)]
pub(super) struct Freshness {
    state: Mutex<State>,
    wanted: Notify,
    fetches: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    /// When the first fetch began; none where nobody fetches.
    since: Option<Instant>,
    is_fetching: bool,
    /// Counts what is fetched because of tokens.
    asked: Gcra,
}

impl Freshness {
    /// Waits for a fetch that is under way or begins now, unless there were too many lately.
    pub(super) async fn ask(&self) {
        let mut fetches = self.fetches.subscribe();
        let (was_fetching, is_fetching) = {
            let mut state = self.lock();
            (state.is_fetching, state.may_wait())
        };
        if !is_fetching {
            return;
        }
        if !was_fetching {
            self.wanted.notify_one();
        }
        // A fetch has a time-out of its own; a bit longer, for one that is about to begin.
        let _ = timeout(FETCH_TIMEOUT + RETRY_FIRST, fetches.changed()).await;
    }

    fn begin(&self) {
        let mut state = self.lock();
        state.since.get_or_insert_with(Instant::now);
        state.is_fetching = true;
    }

    fn end(&self) {
        self.lock().is_fetching = false;
        self.fetches.send_modify(|fetches| *fetches += 1);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn may_wait(&mut self) -> bool {
        let Some(since) = self.since else {
            return false;
        };
        if !self.is_fetching {
            let quota = Quota::new(ASKED_A_MINUTE, Duration::from_secs(60));
            let elapsed = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
            let now = Moment::from_millis(elapsed);
            self.is_fetching = self.asked.check(now, 1, &quota).is_allowed;
        }
        self.is_fetching
    }
}

/// Keeps the keys of a verifier's issuers fresh, each for itself, for as long as the process lives.
pub fn keep_keys(verifier: &Arc<Verifier>, outbound: &Arc<Outbound>) {
    for (at, issued) in verifier.issued().iter().enumerate() {
        // Before anybody asks.
        issued.freshness.begin();
        let (verifier, outbound) = (verifier.clone(), outbound.clone());
        let task = outbound.clone();
        task.spawn(async move {
            if let Some(issued) = verifier.issued().get(at) {
                keep(&verifier, issued, &outbound).await;
            }
        });
    }
}

async fn keep(verifier: &Verifier, issued: &Issued, outbound: &Outbound) {
    let url = &issued.source.url;
    let mut wait = FETCH_INTERVAL;
    loop {
        issued.freshness.begin();
        match fetch(outbound, url).await {
            Ok(keys) => {
                tracing::debug!(keys = keys.len(), %url, "the issuer's keys are here");
                verifier.replace_issued(issued, keys);
                wait = FETCH_INTERVAL;
            }
            Err(error) => {
                tracing::warn!(%error, %url, "the issuer's keys cannot be fetched");
                wait = match wait {
                    FETCH_INTERVAL => RETRY_FIRST,
                    shorter => (shorter * 2).min(RETRY_LAST),
                };
            }
        }
        issued.freshness.end();
        tokio::select! {
            () = sleep(wait) => {}
            () = issued.freshness.wanted.notified() => {}
        }
    }
}

async fn fetch(outbound: &Outbound, url: &Endpoint) -> Result<Vec<Key>, String> {
    let call = Call::get(url, FETCH_TIMEOUT, SET_BYTES_MAX);
    let answer = outbound
        .send(call)
        .await
        .map_err(|error| error.to_string())?;
    if answer.status != 200 {
        return Err(format!("it was answered {}", answer.status));
    }
    let keys = key::from_set(&answer.body).ok_or("the answer is no key set")?;
    // One that verifies nothing would lock everybody out: rather the old ones.
    match keys.is_empty() {
        true => Err("the key set has no key that verifies signatures".to_owned()),
        false => Ok(keys),
    }
}
