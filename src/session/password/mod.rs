//! Hashes and checks passwords on a few threads of their own, with a short queue before them.
//!
//! A check is meant to be slow: tens of milliseconds of a core and megabytes of memory. So there are few threads, of the
//! lowest priority, and what finds the queue full is refused at once: a storm of logins costs logins, not deliveries. New
//! hashes, which anybody may ask for, take half of the places at most: a storm of registrations costs no logins.

mod hash;

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use hash::Hasher;
pub use hash::{HashParameters, PARAMETERS_RULE, ParametersError, Verdict};

/// The lowest priority of a thread on Linux.
const NICE: i32 = 19;

/// Why a password was neither hashed nor checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// Others wait already, as many as may.
    #[error("too many logins at once")]
    Busy,
    /// A bug, or no memory: the thread did not answer.
    #[error("the password could not be hashed")]
    Failed,
}

/// The threads that hash. They end when the value does.
#[derive(Debug)]
pub struct Passwords {
    jobs: SyncSender<Job>,
    /// A place for each hash that waits or is being made.
    hashes: Arc<Semaphore>,
}

enum Job {
    Hash {
        password: Box<str>,
        answer: oneshot::Sender<Option<String>>,
        /// The job's own: one that nobody waits for any more still stands in the queue.
        place: OwnedSemaphorePermit,
    },
    Verify {
        password: Box<str>,
        kept: Option<Box<str>>,
        answer: oneshot::Sender<Verdict>,
    },
}

impl Passwords {
    /// Starts so many threads, before which at most `waiting_max` wait; half of them at most for a new hash.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        parameters: HashParameters,
        threads: usize,
        waiting_max: usize,
    ) -> std::io::Result<Self> {
        let (jobs, queue) = sync_channel(waiting_max);
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..threads.max(1) {
            let queue = queue.clone();
            std::thread::Builder::new()
                .name("fanfare-password".to_owned())
                .spawn(move || work(&queue, Hasher::new(parameters)))?;
        }
        Ok(Self {
            jobs,
            hashes: Arc::new(Semaphore::new((waiting_max / 2).max(1))),
        })
    }

    /// A hash to keep for a password.
    ///
    /// # Errors
    /// At once when there is no room in the queue, or none for new hashes.
    pub async fn hash(&self, password: &str) -> Result<String, PasswordError> {
        let place = self.hashes.clone().try_acquire_owned();
        let place = place.map_err(|_| PasswordError::Busy)?;
        let (answer, hashed) = oneshot::channel();
        let password = password.into();
        self.submit(Job::Hash {
            password,
            answer,
            place,
        })?;
        hashed.await.ok().flatten().ok_or(PasswordError::Failed)
    }

    /// Whether a password is the one that `kept` was made from; takes as long when nothing is kept.
    ///
    /// # Errors
    /// At once when there is no room in the queue.
    pub async fn verify(
        &self,
        password: &str,
        kept: Option<&str>,
    ) -> Result<Verdict, PasswordError> {
        let (answer, verdict) = oneshot::channel();
        self.submit(Job::Verify {
            password: password.into(),
            kept: kept.map(Into::into),
            answer,
        })?;
        verdict.await.map_err(|_| PasswordError::Failed)
    }

    fn submit(&self, job: Job) -> Result<(), PasswordError> {
        self.jobs.try_send(job).map_err(|refused| match refused {
            TrySendError::Full(_) => PasswordError::Busy,
            TrySendError::Disconnected(_) => PasswordError::Failed,
        })
    }
}

fn work(queue: &Mutex<Receiver<Job>>, mut hasher: Hasher) {
    if cfg!(target_os = "linux") {
        // Of this thread, not of the process; without it, hashes take their share of the workers' cores.
        let _ = rustix::process::setpriority_process(None, NICE);
    }
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        // Whoever has gone away meanwhile needs no work done; whoever goes away now hears nothing.
        match job {
            Job::Hash {
                password,
                answer,
                place,
            } if !answer.is_closed() => {
                let hash = hasher.hash(&password);
                // Before the answer: whoever has it may ask again.
                drop(place);
                let _ = answer.send(hash);
            }
            Job::Verify {
                password,
                kept,
                answer,
            } if !answer.is_closed() => {
                let _ = answer.send(hasher.verify(&password, kept.as_deref()));
            }
            Job::Hash { .. } | Job::Verify { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn hashes_and_checks() {
        let passwords = Passwords::start(HashParameters::default(), 1, 4).expect("threads");
        let kept = passwords.hash("secret").await.expect("a hash");
        let verdict = passwords.verify("secret", Some(&kept)).await;
        assert_eq!(verdict, Ok(Verdict::Right));
        assert_eq!(passwords.verify("secret", None).await, Ok(Verdict::Wrong));
    }

    /// Polls once: it has asked. Whether it was refused.
    async fn is_refused<T>(
        asked: &mut std::pin::Pin<Box<impl Future<Output = Result<T, PasswordError>>>>,
    ) -> bool {
        let polled =
            std::future::poll_fn(|context| std::task::Poll::Ready(asked.as_mut().poll(context)));
        matches!(
            polled.await,
            std::task::Poll::Ready(Err(PasswordError::Busy))
        )
    }

    #[tokio::test]
    async fn new_hashes_leave_half_of_the_places_to_logins() {
        let slow = "argon2id:65536:8:1".parse().expect("parameters");
        let passwords = Passwords::start(slow, 1, 8).expect("threads");
        let hashes = (0..20).map(|_| passwords.hash("secret"));
        let mut hashes: Vec<_> = hashes.map(Box::pin).collect();
        let mut refused = 0;
        for hash in &mut hashes {
            refused += u32::from(is_refused(hash).await);
        }
        // Who has gone away still stands in the queue.
        hashes.truncate(1);
        assert!((14..=16).contains(&refused), "{refused}");
        assert!(is_refused(&mut Box::pin(passwords.hash("secret"))).await);
        let checks = (0..4).map(|_| passwords.verify("secret", None));
        let mut checks: Vec<_> = checks.map(Box::pin).collect();
        for check in &mut checks {
            assert!(!is_refused(check).await);
        }
    }

    #[tokio::test]
    async fn more_than_may_wait_are_refused_at_once() {
        let passwords = Passwords::start(HashParameters::default(), 1, 2).expect("threads");
        let checks = (0..20).map(|_| passwords.verify("secret", None));
        let mut checks: Vec<_> = checks.map(Box::pin).collect();
        let mut refused = 0;
        for check in &mut checks {
            refused += u32::from(is_refused(check).await);
        }
        // Two wait, one may be worked on; a fast machine has done a few more meanwhile.
        assert!((10..=18).contains(&refused), "{refused}");
    }
}
