//! The server's start and end: one thread per worker, and the main thread that watches over them.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::{JoinError, LocalSet, spawn_local};
use tokio::time::{sleep, timeout};

use super::drain::{GRACE, LAST_WORDS_MAX};
use super::local::Local;
use super::{Config, Drain, Worker, accept, listen};
use crate::model::{Addresses, DrainSignal, ServerCounts};

/// What the composition root joins to a server.
pub struct Hooks {
    /// The drain that ends it.
    pub drain: Drain,
    /// Where it counts.
    pub counts: Arc<ServerCounts>,
    /// Told the bound address before anything is accepted.
    pub on_bound: Box<dyn FnOnce(SocketAddr) + Send>,
    /// Whether SIGTERM and SIGINT begin the drain. They are the process's: false in tests.
    pub signals: bool,
}

impl Default for Hooks {
    fn default() -> Self {
        Self {
            drain: Drain::new(),
            counts: Arc::default(),
            on_bound: Box::new(|_| {}),
            signals: true,
        }
    }
}

/// How a server ended without a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// After its drain.
    Drained,
    /// At once, because it was asked twice: exit with 130. Threads may still be running.
    Forced,
}

/// Why a server could not start, or could not go on.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address is taken, not ours, or forbidden.
    #[error("cannot listen on {address}")]
    Bind {
        /// `HOST` and `PORT`.
        address: SocketAddr,
        /// What the system says.
        #[source]
        cause: io::Error,
    },
    /// The system refused a thread, a runtime or a signal handler.
    #[error("cannot start")]
    Start(#[source] io::Error),
    /// A bug: a worker's thread panicked. The process must end, for it would go on with fewer workers.
    #[error("worker {index} panicked")]
    WorkerPanicked {
        /// Which.
        index: usize,
    },
    /// A bug: a worker's loop ended although nothing asked it to.
    #[error("worker {index} ended by itself")]
    WorkerEnded {
        /// Which.
        index: usize,
    },
}

type Report = Result<(), ServerError>;

/// Serves until the drain is over. Blocks the calling thread, which must not be inside a runtime.
///
/// In this order: raises the file limit, listens for signals, binds all listeners, tells the address, starts the workers, waits for a signal
/// (or [`Drain::begin`]), drains, joins the workers. A worker that fails ends it with an error at once.
pub fn run<W: Worker>(
    config: &Config,
    router: Router,
    make_worker: impl Fn(usize) -> W + Send + Clone + 'static,
    hooks: Hooks,
) -> Result<Outcome, ServerError> {
    listen::raise_file_limit(config.connections_max);
    let runtime = runtime()?;
    // Before anybody can know of the node: whoever sees it listen may also end it.
    let signals = hooks.signals.then(|| Signals::listen(&runtime));
    let signals = signals.transpose().map_err(ServerError::Start)?;
    let address = SocketAddr::new(config.host, config.port);
    let listeners = listen::bind(address, config.workers.max(1))?;
    let bound = listeners[0].local_addr().map_err(ServerError::Start)?;
    (hooks.on_bound)(bound);
    // Makes every handler a plain route now instead of at each request.
    let router = router.with_state(());
    let (report, reports) = mpsc::unbounded_channel();
    let addresses = Arc::new(Addresses::new(
        &hooks.counts,
        config.address_connections_max,
        &config.trusted,
    ));
    let mut threads = Vec::with_capacity(listeners.len());
    for (index, listener) in listeners.into_iter().enumerate() {
        let seed = Seed {
            index,
            config: config.clone(),
            router: router.clone(),
            addresses: Arc::clone(&addresses),
            drain: hooks.drain.signal(),
            listener,
        };
        threads.push(start(seed, make_worker.clone(), report.clone())?);
    }
    drop(report);
    tracing::info!(address = %bound, workers = threads.len(), "listening");
    let outcome = runtime.block_on(watch(config, &hooks.drain, signals, reports))?;
    if outcome == Outcome::Drained {
        // All have reported, so this does not wait; what they panicked with was reported too.
        threads.into_iter().for_each(|thread| drop(thread.join()));
    }
    Ok(outcome)
}

/// What a worker's thread is started with.
struct Seed {
    index: usize,
    config: Config,
    router: Router,
    addresses: Arc<Addresses>,
    drain: DrainSignal,
    listener: std::net::TcpListener,
}

fn start<W: Worker>(
    seed: Seed,
    make_worker: impl Fn(usize) -> W + Send + 'static,
    report: mpsc::UnboundedSender<Report>,
) -> Result<JoinHandle<()>, ServerError> {
    let index = seed.index;
    let body = move || {
        // Nothing of the thread is used after a panic: the process ends.
        let result = catch_unwind(AssertUnwindSafe(|| live(seed, make_worker)))
            .unwrap_or(Err(ServerError::WorkerPanicked { index }));
        // The watcher may be gone already; then nobody asks.
        let _ = report.send(result);
    };
    std::thread::Builder::new()
        .name(format!("fanfare-{index}"))
        .spawn(body)
        .map_err(ServerError::Start)
}

fn runtime() -> Result<Runtime, ServerError> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ServerError::Start)
}

fn live<W: Worker>(seed: Seed, make_worker: impl Fn(usize) -> W) -> Report {
    LocalSet::new().block_on(&runtime()?, async move {
        let worker = make_worker(seed.index);
        let local = Local::new(
            seed.index,
            &seed.config,
            seed.router,
            worker,
            seed.addresses,
        );
        let listener = TcpListener::from_std(seed.listener).map_err(ServerError::Start)?;
        work(&Rc::new(local), listener, seed.drain).await
    })
}

/// One worker's life: accepts beside the worker's own loop, then drains.
async fn work<W: Worker>(
    local: &Rc<Local<W>>,
    listener: TcpListener,
    mut drain: DrainSignal,
) -> Report {
    let mut loops = spawn_local(Rc::clone(&local.worker).run(drain.clone()));
    let seen = drain.clone();
    let mut ended = None;
    let window = tokio::select! {
        window = drain.draining() => window,
        result = &mut loops => match (result, seen.now()) {
            // A worker with nothing to close can be done before this select has heard of the drain.
            (Ok(()), Some(window)) => {
                ended = Some(Ok(()));
                window
            }
            (result, _) => return Err(fault(local, result.err().as_ref())),
        },
        never = accept::accept(local, &listener) => match never {},
        never = turn_away(local, seen.clone()) => match never {},
    };
    if let Err(error) = accept::accept_last(local, listener) {
        tracing::warn!(%error, "connections that waited to be accepted are lost");
    }
    local.close(window);
    let worker = async {
        match ended {
            Some(result) => result,
            None => loops.await,
        }
    };
    let rest = async { tokio::join!(worker, local.empty()) };
    match timeout(window + GRACE, rest).await {
        Ok((Ok(()), ())) => Ok(()),
        Ok((Err(panic), ())) => Err(fault(local, Some(&panic))),
        Err(_) => {
            let worker = local.index.0;
            tracing::warn!(worker, "cutting connections that outlived the drain");
            Ok(())
        }
    }
}

/// From the first moment of the drain on, when readiness says no and everything else goes on.
async fn turn_away<W: Worker>(local: &Local<W>, mut drain: DrainSignal) -> Infallible {
    drain.begun().await;
    local.turn_away();
    pending().await
}

fn fault<W>(local: &Local<W>, error: Option<&JoinError>) -> ServerError {
    let index = local.index.0;
    match error {
        Some(_) => ServerError::WorkerPanicked { index },
        None => ServerError::WorkerEnded { index },
    }
}

/// The main thread's part: signals, the drain's steps, and the workers' reports.
async fn watch(
    config: &Config,
    drain: &Drain,
    signals: Option<Signals>,
    mut reports: mpsc::UnboundedReceiver<Report>,
) -> Result<Outcome, ServerError> {
    let all_reported = async {
        while let Some(report) = reports.recv().await {
            report?;
        }
        Ok(match drain.signal().is_stopping() {
            true => Outcome::Forced,
            false => Outcome::Drained,
        })
    };
    tokio::select! {
        result = all_reported => result,
        () = last_words(drain) => Ok(Outcome::Forced),
        () = take_course(config, drain) => {
            tracing::error!("a worker does not end: giving up on it");
            Ok(Outcome::Forced)
        }
        never = obey_signals(drain, signals) => match never {},
    }
}

/// Waits until the end is forced, and a moment longer.
async fn last_words(drain: &Drain) {
    drain.forced().await;
    sleep(LAST_WORDS_MAX).await;
}

/// The drain's steps. Ends when the workers should have ended long ago.
async fn take_course(config: &Config, drain: &Drain) {
    drain.signal().begun().await;
    tracing::info!(delay = ?config.drain_delay, window = ?config.drain_window, "draining");
    sleep(config.drain_delay).await;
    drain.close(config.drain_window);
    sleep(config.drain_window + GRACE + Duration::from_secs(5)).await;
}

/// What ends the process by default until it is listened for.
struct Signals {
    term: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen(runtime: &Runtime) -> io::Result<Self> {
        let _inside = runtime.enter();
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }
}

async fn obey_signals(drain: &Drain, signals: Option<Signals>) -> Infallible {
    let Some(mut signals) = signals else {
        return pending().await;
    };
    loop {
        tokio::select! {
            _ = signals.term.recv() => tracing::info!("SIGTERM"),
            _ = signals.interrupt.recv() => tracing::info!("SIGINT"),
        }
        drain.begin();
    }
}
