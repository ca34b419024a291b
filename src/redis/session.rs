//! One life of a connection after the other: connect, watch, end, pause.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::time::timeout;

use super::client::{Client, Connection};
use super::examine::is_for_good;
use super::pipeline::Pipeline;
use super::server::{Link, Server};
use super::target::{Opened, Target};
use super::watch::{
    Compared, Comparison, Heard, Known, Marks, Next, Patience, Role, WATCH_INTERVAL,
};
use super::{COMMAND_TIMEOUT, CallError, Command, Listener, Script, Shared, Verdict, cluster};

/// Pauses between attempts: from … to …, with jitter.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// A connection that brought messages for so long is made anew at once: meanwhile nobody hears anything. One that ends sooner
/// may be one that ends each time.
const LASTED: Duration = Duration::from_secs(1);

/// Marks of this room's own begin here; those of the listener stay below.
const OWN_MARKS: u64 = 1 << 62;

/// Makes command connections to a server for as long as it is one. When it is none any more, what was sent may still be
/// answered.
pub(super) async fn command_sessions(shared: Arc<Shared>, server: Arc<Server>) {
    let mut pause = Pause::default();
    loop {
        let opening = unless_given_up(&server, connect(&shared, &server.target));
        let Some(opened) = opening.await else {
            return;
        };
        if let Some(opened) = opened {
            let Opened {
                client,
                mut connection,
                version,
            } = opened;
            let is_sharded = know_shards(&shared, &server, version);
            let work = command_session(&shared, &server, &client, is_sharded, &mut pause);
            let ended = unless_given_up(&server, connection.with(work)).await;
            if ended.is_none() {
                let _ = timeout(COMMAND_TIMEOUT, connection.finish()).await;
                return;
            }
            retire(&shared, &server.commands, connection);
            let error = ended.and_then(Result::err);
            tracing::warn!(redis = %shared.config.address, server = server.address, ?error, "the connection to redis ended");
        }
        shared.look.notify_one();
        if unless_given_up(&server, pause.wait()).await.is_none() {
            return;
        }
    }
}

/// Does something while the server is one.
async fn unless_given_up<T>(server: &Server, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        () = server.given_up.notified() => None,
        done = work => Some(done),
    }
}

/// Lets commands through and looks at the connection for as long as it may be used.
async fn command_session(
    shared: &Shared,
    server: &Server,
    client: &Client,
    is_sharded: bool,
    pause: &mut Pause,
) {
    let id = match replication(client).await {
        Role::Master(id) => id,
        Role::Forbidden(why) => return shared.judge(Verdict::Refused(why)),
        Role::Other | Role::Silent => return shared.judge(Verdict::Away),
    };
    if let Err(error) = tell_scripts(client, shared.scripts, is_sharded).await {
        tracing::warn!(%error, "redis does not take a script");
        return shared.failed(&error.into());
    }
    *pause = Pause::default();
    let has_changed = server.known().differs(id);
    server.commands.set(Some(client.clone()));
    shared.judge(Verdict::Open);
    shared.look.notify_one();
    tracing::info!(redis = %shared.config.address, server = server.address, "connected to redis");
    if has_changed {
        tell_changed(shared);
    }
    watch_commands(shared, server, client).await;
}

/// Notes whether publications are sharded: where the server has that, and this process listens itself. What others listen to
/// reaches whoever asks for a pattern as well, and on any member.
fn know_shards(shared: &Shared, server: &Server, version: u64) -> bool {
    let is_sharded = shared.target.is_cluster()
        && shared.listener().is_some()
        && version >= cluster::SHARDS_SINCE;
    server.is_sharded.store(is_sharded, Ordering::Relaxed);
    is_sharded
}

/// Tells the server the scripts, so that they can be called by name.
async fn tell_scripts(
    client: &Client,
    scripts: &[&'static Script],
    is_sharded: bool,
) -> Result<(), CallError> {
    let mut pipeline = Pipeline::default();
    for script in scripts {
        let words = ["SCRIPT", "LOAD", script.text_for(is_sharded)];
        pipeline.add_words(words.into_iter());
    }
    let answers = client.ask(pipeline).await;
    answers.into_iter().try_for_each(|answer| answer.map(drop))
}

/// Makes connections that bring messages of a server for as long as it is one.
pub(super) async fn message_sessions(shared: Arc<Shared>, server: Arc<Server>) {
    let Some(listener) = shared.listener() else {
        return;
    };
    let mut pause = Pause::default();
    let mut known = Known::default();
    loop {
        if let Some(opened) = connect(&shared, &server.target).await {
            let Opened {
                client,
                mut connection,
                version,
            } = opened;
            let began = Instant::now();
            let session = MessageSession {
                shared: &shared,
                server: &server,
                listener: &*listener,
                client,
                version,
                passed: AtomicU64::new(OWN_MARKS),
            };
            tokio::select! {
                biased;
                error = connection.run(|channel, payload| session.take(&channel, payload)) => {
                    tracing::warn!(server = server.address, %error, "the connection that brings messages ended");
                }
                () = session.run(&mut known) => {}
            }
            retire(&shared, &server.messages, connection);
            listener.lost(server.id);
            if began.elapsed() > LASTED {
                pause = Pause::default();
            }
        }
        shared.look.notify_one();
        pause.wait().await;
    }
}

/// Whoever still holds the client finds it closed; what was in flight fails.
fn retire(shared: &Shared, link: &Link, connection: Connection) {
    link.set(None);
    shared.generation.fetch_add(1, Ordering::Release);
    drop(connection);
}

/// Connects; what comes of it is told to whoever waits for the first attempt.
pub(super) async fn connect(shared: &Shared, target: &Target) -> Option<Opened> {
    match target.open().await {
        Ok(opened) => Some(opened),
        Err(error) => {
            tracing::warn!(redis = %shared.config.address, %error, "cannot connect to redis");
            shared.failed(&error);
            None
        }
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
    let question = Command::new("INFO").word("replication");
    let info = match client.ask_one(Pipeline::of(&question)).await {
        Ok(info) => info.as_string().unwrap_or_default(),
        Err(error) => {
            tracing::warn!(%error, "redis does not answer INFO replication, which the hub must be allowed to ask");
            return match error {
                CallError::Refused(why) if is_for_good(&why) => {
                    Role::Forbidden(format!("INFO: {why}"))
                }
                _ => Role::Silent,
            };
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
    /// Of the server.
    version: u64,
    /// The last mark of this room's own that came back.
    passed: AtomicU64,
}

impl MessageSession<'_> {
    async fn run(&self, known: &mut Known) {
        let Role::Master(id) = replication(&self.client).await else {
            return;
        };
        let pipeline = Pipeline::of_words(&["SUBSCRIBE", &self.shared.marks]);
        if let Err(error) = self.client.subscribe(pipeline).await {
            tracing::warn!(%error, "redis brings no messages");
            return;
        }
        know_shards(self.shared, self.server, self.version);
        self.server.messages.set(Some(self.client.clone()));
        self.listener.connected(self.server.id);
        if known.differs(id) {
            // What may be missing is known: nothing was subscribed to.
            self.listener.changed(false);
        }
        self.watch(known).await;
    }

    fn take(&self, channel: &[u8], payload: Bytes) {
        if channel != self.shared.marks.as_bytes() {
            let Ok(channel) = std::str::from_utf8(channel) else {
                return;
            };
            return self.listener.message(self.server.id, channel, payload);
        }
        match read_mark(&self.client, &payload) {
            Some(mark) if mark >= OWN_MARKS => self.passed.store(mark, Ordering::Relaxed),
            // Behind what was refused there is nothing that it could show.
            Some(_) if self.client.was_refused() => {}
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
                    let _ = set_mark(self.shared, &self.client, mark).await;
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
        commands.close();
        false
    }
}

/// Sends a mark round through the server of a connection that brings messages. It bears the connection's number: in a
/// Cluster every master brings what is published at any, and of a connection before this one something may still come.
pub(super) async fn set_mark(shared: &Shared, client: &Client, mark: u64) -> Result<(), CallError> {
    let id = client.id();
    let publish = Command::new("PUBLISH")
        .word(&shared.marks)
        .formatted(format_args!("{id}:{mark}"));
    client.ask_one(Pipeline::of(&publish)).await.map(drop)
}

/// The mark that came back, where it is one of this connection.
fn read_mark(client: &Client, payload: &[u8]) -> Option<u64> {
    let (id, mark) = std::str::from_utf8(payload).ok()?.split_once(':')?;
    let id: u64 = id.parse().ok()?;
    mark.parse().ok().filter(|_| id == client.id())
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
