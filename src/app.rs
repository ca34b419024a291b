//! The composition root: the only file that names concrete parts together, and joins what must not know each other.
//!
//! It reads as the order of start-up: broker, relay, doors, routes, server.

mod alike;
mod back_ends;
mod figures;
mod fresh_keys;
mod gate;
mod making;
mod pressure;
mod purging;
mod reload;
mod shared;
mod worker;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};

use crate::admin::AdminState;
use crate::api::{ApiState, Origin, OriginOf, Process, SessionState};
use crate::auth::Verifier;
use crate::broker::memory::MemoryBroker;
use crate::broker::{Broker, NodeInfo};
use crate::client::Rules;
use crate::config::Settings;
use crate::model::{Encrypted, PeerAddr};
use crate::proxy::{Changes, Proxy, Strain};
use crate::relay::{Inbox, InboxLimits, Relay};
use crate::server::{self, Drain, Hooks, Outcome, ServerError};
use crate::session::{Sessions, StoreError};
use crate::telemetry::fleet::fleet_nodes;
use crate::telemetry::metrics::certificate_read;
use crate::telemetry::process::ProcessStats;
use crate::telemetry::proxy::{Reload, reloaded};
use crate::telemetry::setup::Exporter;
use crate::tls::{Acceptor, Renewed};
use crate::transport::{self, Context, Doors, Intake, Levels};

use figures::NodeSource;
use fresh_keys::with_fresh_keys;
use gate::AdminGate;
use making::{make_broker, make_proxy, share_secret};
use pressure::Pressure;
use shared::Shared;
use worker::NodeWorker;

/// How often the embedded broker gives memory back.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// What a session's update may say beside the data.
const SESSION_BODY_REST: usize = 64 * 1024;

/// How often a node of a fleet says that it lives: a third of its lease.
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(3);

/// Runs a node until it has drained. `on_bound` is told the address that it listens on.
///
/// # Errors
/// When it cannot listen, or a worker failed.
pub fn serve(
    settings: Settings,
    exporter: Exporter,
    on_bound: impl FnOnce(SocketAddr) + Send + 'static,
) -> Result<Outcome, ServerError> {
    let node = Arc::new(Node::new(settings)?);
    let drain = Drain::new();
    let hooks = Hooks {
        drain: drain.clone(),
        on_bound: Box::new(on_bound),
        ..Hooks::default()
    };
    let api = node.api();
    let router = node.router(api.clone(), exporter.clone(), drain);
    node.clone().begin_upkeep(exporter);
    let (context, proxy) = (node.context.clone(), node.proxy.clone());
    let make_worker = move |index| NodeWorker {
        hub: Rc::new(transport::Worker::new(context.clone(), index)),
        api: api.clone(),
        proxy: proxy.clone(),
    };
    let outcome = server::run(&node.settings.server, router, make_worker, hooks);
    node.context.sessions.end();
    node.withdraw();
    // Last: with its nodes a channel's last subscribers go.
    node.context.events.end();
    outcome
}

/// The parts of a node, joined.
struct Node {
    settings: Settings,
    started: Instant,
    broker: Arc<dyn Broker>,
    /// The same, when it is the embedded one.
    memory: Option<Arc<MemoryBroker>>,
    context: Context,
    intakes: Arc<[Arc<Intake>]>,
    proxy: Arc<Proxy>,
    /// The nodes of the fleet, as far as it is known.
    nodes: Arc<AtomicUsize>,
    pressure: Arc<Pressure>,
}

impl Node {
    fn new(settings: Settings) -> Result<Self, ServerError> {
        let started = Instant::now();
        let namespaces = Arc::new(settings.namespaces.clone());
        let (broker, memory, redis) = make_broker(&settings, namespaces.clone(), started)?;
        let workers = settings.server.workers;
        let limits = InboxLimits {
            messages_max: settings.transport.inbox_messages_max,
            bytes_max: settings.transport.inbox_bytes_max,
        };
        let inboxes = (0..workers).map(|_| Arc::new(Inbox::new(limits))).collect();
        let verifier = Arc::new(Verifier::new(&settings.auth));
        let (events, consent) = back_ends::start(&settings, &verifier)?;
        let events = Arc::new(events);
        let observer = back_ends::observe(&events, redis.as_ref());
        let sessions = Sessions::start(
            &settings.session,
            settings.transport.node.clone(),
            broker.clone(),
        )
        .map_err(ServerError::Start)?;
        if verifier.lacks_secret() {
            share_secret(&sessions, &verifier);
        }
        let rules = Rules {
            config: settings.client.clone(),
            namespaces,
            gateway_id: Arc::from(settings.transport.node.as_str()),
        };
        let context = Context {
            config: Arc::new(settings.transport.clone()),
            rules: Arc::new(rules),
            relay: Arc::new(Relay::new(broker.clone(), inboxes).observed_by(observer)),
            events,
            sessions: Arc::new(sessions),
            consent: Arc::new(consent),
            verifier,
            levels: (0..workers).map(|_| Levels::default()).collect(),
        };
        let capacity = settings.transport.intake_capacity;
        let intakes = (0..workers)
            .map(|_| Arc::new(Intake::new(capacity)))
            .collect();
        let pressure = Pressure::new(context.levels.clone(), settings.admin.clone());
        let pressure = Arc::new(pressure);
        let nodes = Arc::new(AtomicUsize::new(1));
        let proxy = make_proxy(&settings, &context, &pressure, &nodes)?;
        let proxy = Arc::new(proxy);
        context.relay.on_purge(purging::observer(&proxy));
        Ok(Self {
            settings,
            started,
            broker,
            memory,
            context,
            intakes,
            proxy,
            nodes,
            pressure,
        })
    }

    /// What `/hub` stands on.
    fn api(self: &Arc<Self>) -> Arc<ApiState> {
        let node = self.clone();
        Arc::new(ApiState::new(
            self.context.relay.clone(),
            self.context.rules.namespaces.clone(),
            gate::hub_guard(&self.context.verifier, &self.context.sessions),
            self.context.consent.clone(),
            Arc::new(move || node.info()),
            self.settings.api.clone(),
        ))
    }

    /// Everything that is answered over HTTP.
    fn router(self: &Arc<Self>, api: Arc<ApiState>, exporter: Exporter, drain: Drain) -> Router {
        let context = &self.context;
        let (pressure, origin_of) = (self.pressure.clone(), self.origin_of());
        let doors = Doors {
            config: context.config.clone(),
            namespaces: context.rules.namespaces.clone(),
            sessions: context.sessions.clone(),
            verifier: context.verifier.clone(),
            consent: context.consent.clone(),
            address_of: transport::AddressOf::new(move |request| origin_of(request).ip),
            intakes: self.intakes.clone(),
            pressure: transport::Pressure::new(move || pressure.strain() > Strain::None),
        };
        let source = Arc::new(NodeSource {
            node: self.clone(),
            drain,
        });
        let admin = AdminState {
            source,
            exporter,
            config: self.settings.admin.clone(),
            gate: Arc::new(AdminGate(
                context.verifier.clone(),
                context.sessions.clone(),
            )),
            live: Arc::default(),
            purge: purging::purge(self.proxy.clone(), self.broker.clone()),
        };
        let sessions = self.session_state();
        let shared = Shared::new(self.proxy.clone(), doors.clone());
        Router::new()
            .merge(transport::router(doors))
            .merge(crate::api::administration_router(sessions.clone()))
            .merge(crate::api::session_router(sessions))
            .merge(with_fresh_keys(crate::api::router(api), &context.verifier))
            .merge(crate::api::openapi_router(&self.settings.api))
            .merge(with_fresh_keys(
                crate::admin::router(admin),
                &context.verifier,
            ))
            .fallback(move |request: Request| shared.answer(request))
            // The server bounds bodies itself, with an error of its own.
            .layer(DefaultBodyLimit::disable())
    }

    /// Where a request comes from, and whether it came encrypted.
    fn origin_of(&self) -> OriginOf {
        let proxy = self.proxy.clone();
        Arc::new(move |request: &Request| {
            let peer = request.extensions().get::<PeerAddr>();
            let peer = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0.ip());
            let is_encrypted = request.extensions().get::<Encrypted>().is_some();
            let origin = proxy.origin(peer, is_encrypted, request.headers());
            Origin {
                ip: origin.ip,
                is_secure: origin.is_secure,
                authority: origin.authority,
            }
        })
    }

    /// What the calls of users and about them stand on.
    fn session_state(self: &Arc<Self>) -> SessionState {
        let context = &self.context;
        let (counted, seen) = (self.clone(), self.clone());
        SessionState {
            sessions: context.sessions.clone(),
            verifier: context.verifier.clone(),
            token_seconds: self.settings.token_ttl.as_secs(),
            origin_of: self.origin_of(),
            body_bytes_max: self.settings.session.limits.data_bytes_max + SESSION_BODY_REST,
            connections: Arc::new(move || {
                let node = counted.clone();
                Box::pin(async move { node.connections_of_fleet().await })
            }),
            process: Arc::new(move || Process {
                resident_bytes: ProcessStats::read().resident_bytes.unwrap_or_default(),
                uptime: seen.started.elapsed(),
                workers: seen.settings.server.workers,
            }),
        }
    }

    /// How many clients are connected to all nodes.
    async fn connections_of_fleet(&self) -> Result<u64, StoreError> {
        let this = self.info();
        let nodes = self.broker.nodes().await;
        let nodes = nodes.map_err(|_| StoreError::Unavailable)?;
        let others = nodes.iter().filter(|node| node.id != this.id);
        Ok(this.connections + others.map(|node| node.connections).sum::<u64>())
    }

    /// Gives memory back, looks at what is held and folds histograms, once a second, for as long as the process lives.
    /// A node of a fleet says that it lives, too.
    fn begin_upkeep(self: Arc<Self>, exporter: Exporter) {
        let memory = self.memory.clone();
        let acceptor = self.settings.server.tls.clone();
        let pressure = self.pressure.clone();
        let relay = self.context.relay.clone();
        let sweep = move || loop {
            pressure.look();
            std::thread::sleep(SWEEP_INTERVAL);
            if let Some(acceptor) = &acceptor {
                renew(acceptor);
            }
            if let Some(memory) = &memory {
                memory.sweep();
            }
            exporter.keep_up();
            relay.give_back();
        };
        spawn("fanfare-upkeep", sweep);
        let node = self.clone();
        spawn("fanfare-reload", move || {
            let files: Vec<_> = node.settings.file.iter().cloned().collect();
            if let Err(error) = reload::watch(&files, |why| node.reload(why)) {
                tracing::error!(%error, "the configuration will not be read again");
            }
        });
        match io_runtime() {
            Ok(runtime) => {
                let proxy = self.proxy.clone();
                // Before anybody can ask for a stream, however late the thread begins.
                proxy.share_on(runtime.handle().clone());
                let work = move || runtime.block_on(proxy.look_after_upstreams());
                spawn("fanfare-health", work);
            }
            Err(error) => {
                tracing::error!(%error, "no runtime for health checks and shared streams");
            }
        }
        if self.memory.is_none() {
            spawn("fanfare-lease", move || self.announce_for_ever());
        }
    }

    /// Reads the configuration again, and takes over what can change while the node runs: the services. A faulty one
    /// changes nothing.
    fn reload(&self, why: &str) {
        let settings = match Settings::from_process() {
            Ok(settings) => settings,
            Err(error) => {
                reloaded(Reload::Failed);
                tracing::error!(%error, why, "the configuration is faulty: what was before stays");
                return;
            }
        };
        let Changes {
            added,
            removed,
            kept,
        } = self.proxy.reload(&settings.proxy);
        reloaded(Reload::Done);
        tracing::info!(
            why,
            added,
            removed,
            kept,
            "upstreams as the configuration has them now"
        );
        if settings.namespaces != self.settings.namespaces {
            tracing::warn!("the namespaces have changed: that takes a restart");
        }
    }

    /// Says that this node lives, again and again.
    fn announce_for_ever(&self) {
        let runtime = match waiting_runtime() {
            Ok(runtime) => runtime,
            Err(error) => {
                tracing::error!(%error, "no runtime for upkeep: the fleet does not see this node");
                return;
            }
        };
        let mut alike = alike::Watch::default();
        loop {
            let channels = self.context.relay.all_channels();
            let info = self.info();
            let announced = runtime.block_on(self.broker.announce(info.clone(), channels));
            // What was known last holds while Redis is away.
            if let Ok(nodes) = runtime.block_on(self.broker.nodes()) {
                self.nodes.store(nodes.len().max(1), Relaxed);
                fleet_nodes(nodes.len());
                alike.look(&info, &nodes);
            }
            // After a failure soon again: the lease is short, and the members come back with it.
            std::thread::sleep(announced.map_or(SWEEP_INTERVAL, |()| ANNOUNCE_INTERVAL));
        }
    }

    /// Takes this node out of the fleet, so that nobody waits for its leases to end. Takes four seconds at most.
    fn withdraw(&self) {
        let withdrawn = waiting_runtime().map(|runtime| {
            runtime.block_on(self.proxy.withdraw());
            runtime.block_on(self.broker.withdraw())
        });
        if !matches!(withdrawn, Ok(Ok(()))) {
            tracing::warn!(
                "the fleet could not be told that this node ends; it finds out in ten seconds"
            );
        }
    }

    /// This node, as the fleet sees it.
    fn info(&self) -> NodeInfo {
        let connections = |levels: &Levels| levels.web_sockets() + levels.event_streams();
        NodeInfo {
            id: self.settings.transport.node.clone(),
            connections: self.context.levels.iter().map(connections).sum(),
            channels: self.context.relay.channel_count(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: self.started.elapsed().as_secs(),
            settings: self.settings.fingerprints,
        }
    }
}

/// Takes a new certificate where the files have changed.
fn renew(acceptor: &Acceptor) {
    match acceptor.renew() {
        Renewed::No => {}
        Renewed::Yes => {
            certificate_read(true);
            tracing::info!("new connections get the new TLS certificate");
        }
        Renewed::Failed(error) => {
            certificate_read(false);
            tracing::error!(%error, "the TLS certificate stays as it was");
        }
    }
}

/// A runtime for a thread that waits for the broker.
fn waiting_runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
}

/// A runtime for a thread that has sockets of its own.
fn io_runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}

/// Runs something beside everything else, for as long as the process lives.
fn spawn(name: &str, work: impl FnOnce() + Send + 'static) {
    let spawned = std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work);
    if let Err(error) = spawned {
        tracing::error!(%error, thread = name, "no thread for upkeep: memory comes back late, or the fleet does not see this node");
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}
