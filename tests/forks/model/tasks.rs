//! A node's tasks and timers, on a clock that stands still until the model moves it. Which of the tasks that can go on
//! goes on first is drawn.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use fanfare::redis::Pending;

use crate::random::Random;

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The time, in milliseconds since the model began; and what happened, for whoever looks for what went wrong.
#[derive(Debug)]
pub(crate) struct Clock {
    base: Instant,
    millis: AtomicU64,
    journal: Option<Mutex<Vec<String>>>,
}

impl Clock {
    pub(crate) fn new(keeps_journal: bool) -> Self {
        Self {
            base: Instant::now(),
            millis: AtomicU64::new(0),
            journal: keeps_journal.then(Mutex::default),
        }
    }

    /// Writes down what happens.
    pub(crate) fn note(&self, what: impl FnOnce() -> String) {
        if let Some(journal) = &self.journal {
            let line = format!("{:>6} {}", self.now(), what());
            lock(journal).push(line);
        }
    }

    pub(crate) fn journal(&self) -> Vec<String> {
        let journal = self.journal.as_ref();
        journal.map_or(Vec::new(), |journal| lock(journal).clone())
    }

    pub(crate) fn now(&self) -> u64 {
        self.millis.load(Ordering::Relaxed)
    }

    pub(crate) fn instant(&self) -> Instant {
        self.base + Duration::from_millis(self.now())
    }

    pub(crate) fn advance(&self, millis: u64) {
        self.millis.fetch_add(millis, Ordering::Relaxed);
    }
}

type Ready = Arc<Mutex<Vec<u64>>>;

struct Alarm {
    task: u64,
    ready: Ready,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        let mut ready = lock(&self.ready);
        if !ready.contains(&self.task) {
            ready.push(self.task);
        }
    }
}

#[derive(Default)]
struct State {
    tasks: BTreeMap<u64, Pending<()>>,
    timers: Vec<(u64, Waker)>,
    count: u64,
    has_ended: bool,
}

/// The tasks of one node.
pub(crate) struct Tasks {
    clock: Arc<Clock>,
    state: Mutex<State>,
    ready: Ready,
}

impl Tasks {
    pub(crate) fn new(clock: Arc<Clock>) -> Arc<Self> {
        Arc::new(Self {
            clock,
            state: Mutex::default(),
            ready: Ready::default(),
        })
    }

    /// Begins a task with the next [`Tasks::run`].
    pub(crate) fn spawn(&self, task: Pending<()>) {
        let mut state = lock(&self.state);
        if state.has_ended {
            return;
        }
        state.count += 1;
        let id = state.count;
        state.tasks.insert(id, task);
        drop(state);
        lock(&self.ready).push(id);
    }

    /// Begins a task at once: what it asks is asked now.
    pub(crate) fn begin(&self, task: Pending<()>) {
        let mut state = lock(&self.state);
        state.count += 1;
        let id = state.count;
        drop(state);
        self.go_on(id, task);
    }

    fn go_on(&self, id: u64, mut task: Pending<()>) {
        let alarm = Arc::new(Alarm {
            task: id,
            ready: self.ready.clone(),
        });
        let waker = Waker::from(alarm);
        if task
            .as_mut()
            .poll(&mut Context::from_waker(&waker))
            .is_pending()
        {
            let mut state = lock(&self.state);
            if !state.has_ended {
                state.tasks.insert(id, task);
            }
        }
    }

    /// Runs until every task waits.
    pub(crate) fn run(&self, random: &mut Random) {
        let now = self.clock.now();
        let due: Vec<_> = lock(&self.state)
            .timers
            .extract_if(.., |(due, _)| *due <= now)
            .collect();
        due.into_iter().for_each(|(_, waker)| waker.wake());
        loop {
            let id = {
                let mut ready = lock(&self.ready);
                let count = ready.len() as u64;
                if count == 0 {
                    return;
                }
                ready.swap_remove(random.below(count) as usize)
            };
            let task = lock(&self.state).tasks.remove(&id);
            if let Some(task) = task {
                self.go_on(id, task);
            }
        }
    }

    /// Over after so long.
    pub(crate) fn pause(self: &Arc<Self>, length: Duration) -> Pending<()> {
        let (tasks, due) = (self.clone(), self.clock.now() + length.as_millis() as u64);
        Box::pin(std::future::poll_fn(move |context| {
            if tasks.clock.now() >= due {
                return Poll::Ready(());
            }
            let timer = (due, context.waker().clone());
            lock(&tasks.state).timers.push(timer);
            Poll::Pending
        }))
    }

    /// Drops every task.
    pub(crate) fn end(&self) {
        let mut state = lock(&self.state);
        state.has_ended = true;
        let gone = (
            std::mem::take(&mut state.tasks),
            std::mem::take(&mut state.timers),
        );
        drop(state);
        drop(gone);
    }
}
