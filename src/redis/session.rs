//! One life of a connection after the other: connect, watch, end, pause.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fred::clients::Client;
use fred::error::Error;
use fred::interfaces::{ClientLike as _, EventInterface as _, PubsubInterface as _};
use fred::prelude::{Builder, TcpConfig};
use fred::types::config::{
    Config as Target, ConnectionConfig, PerformanceConfig, UnresponsiveConfig,
};
use fred::types::{ClusterHash, CustomCommand, Value};
use tokio::sync::broadcast::error::RecvError;

use super::examine::refusal;
use super::server::{Link, Server};
use super::watch::{
    Compared, Comparison, Heard, Known, MARK_TIMEOUT, Marks, Next, Patience, Role, WATCH_INTERVAL,
};
use super::{COMMAND_TIMEOUT, Listener, Script, Shared, Verdict, cluster, sentinel};

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The most commands that wait to be written; more fail at once.
const COMMANDS_MAX: usize = 65_536;

/// The most messages that wait to be handed over. When it is full the connection is made anew and everything is read
/// again. It costs about five megabytes.
const MESSAGES_MAX: usize = 8192;

/// Pauses between attempts: from … to …, with jitter.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// A connection that brought messages for so long is made anew at once: meanwhile nobody hears anything. One that ends sooner
/// may be one that ends each time.
const LASTED: Duration = Duration::from_secs(1);

/// Marks of this room's own begin here; those of the listener stay below.
const OWN_MARKS: u64 = 1 << 62;

/// Makes command connections to a server for as long as it is one.
pub(super) async fn command_sessions(shared: Arc<Shared>, server: Arc<Server>) {
    let mut pause = Pause::default();
    loop {
        if let Some((client, ended)) = connect(&shared, &server.target, 32).await {
            let watched = async {
                let id = match replication(&client).await {
                    Role::Master(id) => id,
                    Role::Forbidden(why) => return shared.judge(Verdict::Refused(why)),
                    Role::Other | Role::Silent => return shared.judge(Verdict::Away),
                };
                let is_sharded = know_shards(&shared, &server, &client);
                if let Err(error) = tell_scripts(&client, shared.scripts, is_sharded).await {
                    tracing::warn!(%error, "redis does not take a script");
                    return shared.failed(&error);
                }
                pause = Pause::default();
                let has_changed = server.known().differs(id);
                server.commands.set(Some(client.clone()));
                shared.judge(Verdict::Open);
                shared.look.notify_one();
                tracing::info!(redis = %shared.config.address, server = server.address, "connected to redis");
                if has_changed {
                    tell_changed(&shared);
                }
                watch_commands(&shared, &server, &client).await;
            };
            end_with(watched, ended).await;
            retire(&shared, &server.commands, client);
            tracing::warn!(redis = %shared.config.address, server = server.address, "the connection to redis ended");
        }
        shared.look.notify_one();
        pause.wait().await;
    }
}

/// Notes whether publications are sharded: where the server has that, and this process listens itself. What others listen to
/// reaches whoever asks for a pattern as well, and on any member.
fn know_shards(shared: &Shared, server: &Server, client: &Client) -> bool {
    let is_sharded = shared.target.server.is_clustered()
        && shared.listener().is_some()
        && cluster::has_shards(client);
    server.is_sharded.store(is_sharded, Ordering::Relaxed);
    is_sharded
}

/// Tells the server the scripts, so that they can be called by name.
async fn tell_scripts(
    client: &Client,
    scripts: &[&'static Script],
    is_sharded: bool,
) -> Result<(), Error> {
    for script in scripts {
        let command = CustomCommand::new_static("SCRIPT", ClusterHash::Random, false);
        client
            .custom::<Value, _>(command, vec!["LOAD", script.text_for(is_sharded)])
            .await?;
    }
    Ok(())
}

/// Makes connections that bring messages of a server for as long as it is one.
pub(super) async fn message_sessions(shared: Arc<Shared>, server: Arc<Server>) {
    let Some(listener) = shared.listener() else {
        return;
    };
    let mut pause = Pause::default();
    let mut known = Known::default();
    loop {
        if let Some((client, ended)) = connect(&shared, &server.target, MESSAGES_MAX).await {
            let began = Instant::now();
            let session = MessageSession {
                shared: &shared,
                server: &server,
                listener: &*listener,
                client: client.clone(),
                passed: AtomicU64::new(OWN_MARKS),
            };
            end_with(session.run(&mut known), ended).await;
            retire(&shared, &server.messages, client);
            listener.lost(server.id);
            if began.elapsed() > LASTED {
                pause = Pause::default();
            }
        }
        shared.look.notify_one();
        pause.wait().await;
    }
}

/// Runs a session until it or its connection ends.
async fn end_with(session: impl Future<Output = ()>, ended: fred::types::ConnectHandle) {
    tokio::select! {
        () = session => {}
        _ = ended => {}
    }
}

/// Whoever still holds the client finds it closed; what was in flight fails.
fn retire(shared: &Shared, link: &Link, client: Client) {
    link.set(None);
    shared.generation.fetch_add(1, Ordering::Release);
    tokio::spawn(async move {
        let _ = tokio::time::timeout(COMMAND_TIMEOUT, client.quit()).await;
    });
}

/// A connection that may hold so many messages that were not handed over yet.
pub(super) async fn connect(
    shared: &Shared,
    target: &Target,
    capacity: usize,
) -> Option<(Client, fred::types::ConnectHandle)> {
    let address = &shared.config.address;
    // Before the first attempt: of an unknown name the library hears nothing until its time is up, and somebody waits to be
    // told whether to begin.
    let is_first = *shared.verdict.borrow() == Verdict::Trying;
    let mut fault = match is_first {
        true => sentinel::fault(target).await,
        false => None,
    };
    if fault.is_none() {
        let error = match open(target, capacity).await {
            Ok(opened) => return Some(opened),
            Err(error) => error,
        };
        fault = sentinel::fault(target).await;
        match error {
            Some(error) => {
                tracing::warn!(redis = %address, %error, "cannot connect to redis");
                shared.failed(&error);
            }
            None => {
                tracing::warn!(redis = %address, "cannot connect to redis in time");
                shared.judge(Verdict::Away);
            }
        }
    }
    if let Some(why) = fault {
        tracing::warn!(redis = %address, why, "no master can be found");
        shared.judge(Verdict::Refused(why));
    }
    None
}

/// The same; what went wrong, where that is known.
pub(super) async fn open(
    target: &Target,
    capacity: usize,
) -> Result<(Client, fred::types::ConnectHandle), Option<Error>> {
    // Without a policy the library never reconnects and never sends anything a second time.
    let client = Builder::from_config(target.clone())
        .with_performance_config(|performance: &mut PerformanceConfig| {
            performance.default_command_timeout = COMMAND_TIMEOUT;
            performance.broadcast_channel_capacity = capacity;
        })
        .with_connection_config(|connection: &mut ConnectionConfig| {
            connection.connection_timeout = CONNECT_TIMEOUT;
            connection.internal_command_timeout = CONNECT_TIMEOUT;
            connection.max_command_attempts = 1;
            connection.max_command_buffer_len = COMMANDS_MAX;
            connection.unresponsive = UnresponsiveConfig {
                max_timeout: Some(MARK_TIMEOUT),
                interval: Duration::from_secs(1),
            };
            connection.tcp = TcpConfig {
                nodelay: Some(true),
                ..TcpConfig::default()
            };
        })
        .build()
        .map_err(Some)?;
    match tokio::time::timeout(CONNECT_TIMEOUT * 2, client.init()).await {
        Ok(opened) => opened.map(|ended| (client, ended)).map_err(Some),
        Err(_) => Err(None),
    }
}

/// What was read on the connection for commands may be of other data than what the other connection brings: it may have led
/// to a server that another had taken the place of, where everything seemed to stand. So it is read again.
fn tell_changed(shared: &Shared) {
    tracing::warn!("the replication id of redis changed");
    if let Some(listener) = shared.listener() {
        listener.changed(false);
    }
}

/// Looks at the connection until it is silent or leads to a server that is not a master.
async fn watch_commands(shared: &Shared, server: &Server, client: &Client) {
    let mut patience = Patience::new(Instant::now());
    loop {
        tokio::time::sleep(WATCH_INTERVAL).await;
        match patience.judge(replication(client).await, Instant::now()) {
            Heard::Id(id) => {
                if server.known().differs(id) {
                    tell_changed(shared);
                }
            }
            Heard::Nothing => {}
            Heard::GiveUp => return,
        }
    }
}

async fn replication(client: &Client) -> Role {
    let command = CustomCommand::new_static("INFO", ClusterHash::Random, false);
    let answer = client
        .custom::<Value, _>(command, vec!["replication"])
        .await;
    let info = match answer {
        Ok(info) => info.into_string().unwrap_or_default(),
        Err(error) => {
            tracing::warn!(%error, "redis does not answer INFO replication, which the hub must be allowed to ask");
            return refusal(&error)
                .map_or(Role::Silent, |why| Role::Forbidden(format!("INFO: {why}")));
        }
    };
    let role = Role::of(&info);
    if role == Role::Other {
        tracing::warn!(
            "the redis server at the other end is no master, or tells no master_replid, without which it could be \
             rolled back unnoticed"
        );
    }
    role
}

struct MessageSession<'a> {
    shared: &'a Shared,
    server: &'a Server,
    listener: &'a dyn Listener,
    client: Client,
    /// The last mark of this room's own that came back.
    passed: AtomicU64,
}

impl MessageSession<'_> {
    async fn run(&self, known: &mut Known) {
        let messages = self.client.message_rx();
        let Role::Master(id) = replication(&self.client).await else {
            return;
        };
        if self
            .client
            .subscribe(self.shared.marks.as_str())
            .await
            .is_err()
        {
            return;
        }
        know_shards(self.shared, self.server, &self.client);
        self.server.messages.set(Some(self.client.clone()));
        self.listener.connected(self.server.id);
        if known.differs(id) {
            // What may be missing is known: nothing was subscribed to.
            self.listener.changed(false);
        }
        tokio::select! {
            () = self.hand_over(messages) => {}
            () = self.watch(known) => {}
        }
    }

    async fn hand_over(
        &self,
        mut messages: tokio::sync::broadcast::Receiver<fred::types::Message>,
    ) {
        loop {
            match messages.recv().await {
                Ok(message) => self.take(message),
                Err(RecvError::Lagged(lost)) => {
                    tracing::warn!(
                        lost,
                        "messages of redis came faster than they were handed over"
                    );
                    return;
                }
                Err(RecvError::Closed) => return,
            }
        }
    }

    fn take(&self, message: fred::types::Message) {
        let Some(payload) = message.value.into_bytes() else {
            return;
        };
        if message.channel != self.shared.marks.as_str() {
            let server = self.server.id;
            return self.listener.message(server, &message.channel, payload);
        }
        let mark = std::str::from_utf8(&payload)
            .ok()
            .and_then(|text| text.parse().ok());
        match mark {
            Some(mark) if mark >= OWN_MARKS => self.passed.store(mark, Ordering::Relaxed),
            Some(mark) => self.listener.passed(self.server.id, mark),
            None => {}
        }
    }

    /// Sends a mark round through the server now and then: only what comes back shows that publications do.
    async fn watch(&self, known: &mut Known) {
        let mut marks = Marks::new(OWN_MARKS, Instant::now());
        let mut patience = Patience::new(Instant::now());
        loop {
            tokio::time::sleep(WATCH_INTERVAL).await;
            match marks.next(self.passed.load(Ordering::Relaxed), Instant::now()) {
                // Its answer is the mark itself; INFO tells whether the connection still answers.
                Next::Send(mark) => {
                    let marks = self.shared.marks.as_str();
                    let sent = self.client.publish::<Value, _, _>(marks, mark.to_string());
                    let _ = sent.await;
                }
                Next::Wait => {}
                Next::GiveUp => {
                    tracing::warn!("redis takes publications but does not bring them");
                    return;
                }
            }
            let own = match patience.judge(replication(&self.client).await, Instant::now()) {
                Heard::Id(own) => own,
                Heard::Nothing => continue,
                Heard::GiveUp => return,
            };
            if !self.agrees(&own).await {
                return;
            }
            if known.differs(own) {
                self.listener.changed(true);
            }
        }
    }

    /// Whether the other connection leads to the same data, as far as it knows: its own watch asks as often. Where the ids
    /// differ both are asked twice: one may change between two questions.
    async fn agrees(&self, own: &str) -> bool {
        let Some(commands) = self.server.commands.client() else {
            return true;
        };
        if self.server.known().is(own) {
            return true;
        }
        let mut comparison = Comparison::new(own.to_owned());
        loop {
            match comparison.handle_other(replication(&commands).await) {
                Compared::Agrees => return true,
                Compared::Differs => break,
                Compared::AskAgain => {}
            }
            match comparison.handle_own(replication(&self.client).await) {
                Compared::Agrees => return true,
                Compared::Differs => return false,
                Compared::AskAgain => {}
            }
        }
        tracing::warn!("the two connections lead to different redis servers");
        let _ = commands.quit().await;
        false
    }
}

/// A pause that grows.
#[derive(Debug, Default)]
struct Pause {
    attempts: u32,
}

impl Pause {
    async fn wait(&mut self) {
        let (least, most) = PAUSES;
        let pause = (least * 2u32.pow(self.attempts.min(10))).min(most);
        self.attempts += 1;
        tokio::time::sleep(pause.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await;
    }
}
