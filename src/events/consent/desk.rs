//! One URL: how many questions it gets at once, and what it said lately.

use std::future::{Future, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use futures_util::future::Either;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::answer::{self, Answer, Said};
use super::kept::Kept;
use super::question::Question;
use super::{ConsentConfig, Withheld, contradicts};
use crate::events::webhook::signed;
use crate::outbound::{Endpoint, Outbound, OutboundError};
use crate::telemetry::consent::{Fate, Matter, asked, count};

/// The most bytes of an answer.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Between two lines in the log that say the same.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(1);

/// A back end's URL, for one matter.
#[derive(Debug)]
pub(super) struct Desk {
    matter: Matter,
    url: Endpoint,
    secret: Box<[u8]>,
    timeout: Duration,
    /// Places of questions that are under way or wait.
    places: Arc<Semaphore>,
    /// Turns of those that are under way.
    turns: Semaphore,
    kept: Kept,
    outbound: Arc<Outbound>,
    complaints: Complaints,
}

impl Desk {
    pub(super) fn new(
        matter: Matter,
        url: Endpoint,
        config: &ConsentConfig,
        outbound: Arc<Outbound>,
    ) -> Self {
        let places = config.concurrency.saturating_add(config.queue_max);
        Self {
            matter,
            url,
            secret: config.secret.clone(),
            timeout: config.timeout,
            places: Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS))),
            turns: Semaphore::new(config.concurrency.min(Semaphore::MAX_PERMITS)),
            kept: Kept::new(),
            outbound,
            complaints: Complaints::default(),
        }
    }

    /// Asks. The question is on its way when this returns; what was said lately is there at once.
    pub(super) fn ask(
        self: &Arc<Self>,
        question: &Question<'_>,
    ) -> impl Future<Output = Result<Answer, Withheld>> + Send + use<> {
        let subject = question.subject();
        if let Some(verdict) = self.kept.find(&subject) {
            count(self.matter, Fate::Kept);
            return Either::Left(ready(verdict));
        }
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            count(self.matter, Fate::Full);
            self.complain("too many questions wait for it");
            return Either::Left(ready(Err(Withheld::Unavailable)));
        };
        let (desk, body) = (self.clone(), question.write());
        let verified = question.verified.map(str::to_owned);
        let task = self.outbound.spawn(async move {
            let verdict = desk.find_out(subject, body, verified.as_deref()).await;
            drop(place);
            verdict
        });
        Either::Right(async move { task.await.unwrap_or(Err(Withheld::Unavailable)) })
    }

    /// An answer that nobody can use.
    pub(super) fn is_faulty(&self, why: &str) {
        count(self.matter, Fate::Faulty);
        self.complain(why);
    }

    async fn find_out(
        &self,
        subject: Arc<str>,
        body: String,
        verified: Option<&str>,
    ) -> Result<Answer, Withheld> {
        let (status, body) = match self.call(body).await {
            Ok(answer) => answer,
            Err(error) => {
                count(self.matter, fate(&error));
                self.complain(&error.to_string());
                return Err(Withheld::Unavailable);
            }
        };
        match self.read(status, &body, verified) {
            Ok(said) => {
                count(
                    self.matter,
                    match said.verdict {
                        Ok(_) => Fate::Allowed,
                        Err(_) => Fate::Denied,
                    },
                );
                self.kept.keep(subject, &said);
                said.verdict
            }
            Err(why) => {
                self.is_faulty(&why);
                Err(Withheld::Unavailable)
            }
        }
    }

    /// Waits for a turn, and asks in the time that is left.
    async fn call(&self, body: String) -> Result<(u16, bytes::Bytes), OutboundError> {
        let began = Instant::now();
        let turn = timeout(self.timeout, self.turns.acquire()).await;
        // Nobody closes the turns: the result of the wait says nothing.
        let _turn = turn.map_err(|_| OutboundError::TimedOut)?;
        let left = self.timeout.saturating_sub(began.elapsed());
        let call = signed(&self.url, &self.secret, body, left, ANSWER_BYTES_MAX);
        let call = call.ok_or_else(|| OutboundError::Unreachable("no signature".to_owned()))?;
        let began = Instant::now();
        let answer = self.outbound.send(call).await;
        asked(self.matter, began.elapsed());
        answer.map(|answer| (answer.status, answer.body))
    }

    fn read(&self, status: u16, body: &[u8], verified: Option<&str>) -> Result<Said, String> {
        let said = answer::read(self.matter, status, body)?;
        let supplement = said.verdict.as_ref().ok();
        let supplement = supplement.and_then(|answer| answer.supplement.as_ref());
        match supplement {
            Some(supplement) if contradicts(verified, supplement) => {
                Err("its user is not the user of the token".to_owned())
            }
            _ => Ok(said),
        }
    }

    fn complain(&self, why: &str) {
        if self.complaints.is_due() {
            let (ask, url) = (self.matter.label(), &self.url);
            tracing::warn!(ask, %url, why, "a back end could not be asked: what it allows is not allowed now");
        }
    }
}

fn fate(error: &OutboundError) -> Fate {
    match error {
        OutboundError::TimedOut => Fate::TimedOut,
        OutboundError::TooLarge => Fate::Faulty,
        OutboundError::Unreachable(_) | OutboundError::Stopped => Fate::Unreachable,
    }
}

/// Keeps a back end that is away from filling the log.
#[derive(Debug)]
struct Complaints {
    began: Instant,
    /// Milliseconds after `began` from which the next one is due.
    due: AtomicU64,
}

impl Default for Complaints {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            due: AtomicU64::new(0),
        }
    }
}

impl Complaints {
    fn is_due(&self) -> bool {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let now = millis(self.began.elapsed());
        let due = self.due.load(Relaxed);
        let next = now + millis(COMPLAINT_INTERVAL);
        let taken = self.due.compare_exchange(due, next, Relaxed, Relaxed);
        now >= due && taken.is_ok()
    }
}
