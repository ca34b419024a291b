//! One upstream stream: opened, read, published into its channel, opened again after the last id, and left when nobody
//! listens.

use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::event::{Event, Parser};
use super::{Course, Proxy, SharedStreams};
use crate::http1::{Framing, HeadScan, ResponseHead, Scanned, slots};
use crate::proxy::choosing::Wish;
use crate::proxy::endpoint::{Answered, Attempt};
use crate::proxy::policy::Share;
use crate::proxy::table::Route;
use crate::proxy::{fields, hash};
use crate::telemetry::proxy::{Carried, SharedSource};
use crate::tls::Stream;

/// How long a source without subscribers goes on: a subscriber that was let in takes a moment to be there.
const LINGER: Duration = Duration::from_secs(5);
/// How often a source looks whether it is wanted and may lead.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// Pauses before an upstream is asked again: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// How much is read at once.
const READ_BYTES: usize = 16 * 1024;

/// How a source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nobody knows yet.
    Opening,
    /// The stream is there, or is read by another node; it stays open while it is opened again.
    Open,
    /// The upstream answered so instead.
    Refused(u16),
    /// The upstream took too long.
    TimedOut,
    /// The upstream, or Redis, cannot be reached.
    Unavailable,
}

/// Why a stream is no longer read.
#[derive(Debug)]
enum Ended {
    /// Nobody listens any more.
    Unwanted,
    /// Another node leads.
    Deposed,
    /// It was not opened.
    Failed(Phase),
    /// It broke off, or could not be published; whether it had brought anything.
    Broke(bool),
}

/// One upstream stream.
#[derive(Debug)]
pub(super) struct Source {
    channel: String,
    service: String,
    target: String,
    /// Lines of the request's head.
    fields: Vec<u8>,
    /// How long the upstream may take.
    patience: Duration,
    phase: watch::Sender<Phase>,
    /// Where the channel stood before anything was read.
    beginning: OnceLock<String>,
    /// When somebody last asked for it.
    touched: Mutex<Instant>,
}

impl Source {
    /// What this course asks for. Of the client the upstream is told nothing, unless streams are shared by user.
    pub(super) fn new(channel: String, course: &Course) -> Self {
        let mut lines = b"accept: text/event-stream\r\ncache-control: no-cache\r\n".to_vec();
        let policy = &course.route.policy;
        if policy.share == Some(Share::User)
            && let Some(identity) = &course.identity
        {
            fields::write_identity(&identity.user, &identity.role, &mut lines);
        }
        fields::write_via(&mut lines);
        Self {
            channel,
            service: course.route.name.clone(),
            target: course.target.clone(),
            fields: lines,
            patience: policy.connect_timeout + policy.timeout,
            phase: watch::Sender::new(Phase::Opening),
            beginning: OnceLock::new(),
            touched: Mutex::new(Instant::now()),
        }
    }

    /// Somebody asks for it. To be called under the lock of the sources.
    pub(super) fn touch(&self) {
        *self.touched.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Whether nobody knows yet how it is.
    pub(super) fn is_opening(&self) -> bool {
        *self.phase.borrow() == Phase::Opening
    }

    /// Where the channel stood before this node read anything into it.
    pub(super) fn beginning(&self) -> Option<String> {
        self.beginning.get().cloned()
    }

    /// How it is, as soon as that is known.
    pub(super) async fn settled(&self) -> Phase {
        let mut phase = self.phase.subscribe();
        let known = phase.wait_for(|phase| *phase != Phase::Opening);
        match timeout(self.patience, known).await {
            Ok(Ok(phase)) => *phase,
            _ => Phase::TimedOut,
        }
    }

    /// Reads the upstream for as long as anybody on this node listens.
    pub(super) async fn run(self: Arc<Self>, proxy: Arc<Proxy>, streams: Arc<dyn SharedStreams>) {
        let (mut pause, mut last_id, mut has_led) = (PAUSES.0, None, false);
        loop {
            if self.is_unwanted(&*streams) && self.forget(&proxy, false) {
                break;
            }
            match self.leads(&proxy).await {
                Some(true) => {}
                Some(false) => {
                    has_led = false;
                    self.phase.send_replace(Phase::Open);
                    sleep(LOOK_INTERVAL / 4).await;
                    continue;
                }
                None => {
                    self.fail(Phase::Unavailable);
                    sleep(LOOK_INTERVAL / 4).await;
                    continue;
                }
            }
            if !std::mem::replace(&mut has_led, true) {
                last_id = self.id_in_channel(&*streams).await;
                if let Some(position) = streams.position(&self.channel).await {
                    // Only the first one: what came since belongs to the stream.
                    let _ = self.beginning.set(position);
                }
            }
            match self.read(&proxy, &*streams, &mut last_id).await {
                Ended::Unwanted | Ended::Deposed => continue,
                Ended::Broke(true) => pause = PAUSES.0,
                Ended::Broke(false) => {}
                Ended::Failed(phase) => {
                    // Whoever waits is told; the next one who asks finds out anew.
                    if self.fail(phase) && self.forget(&proxy, true) {
                        break;
                    }
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
        if let Some(fleet) = &proxy.fleet {
            fleet.release(&self.channel).await;
        }
    }

    fn is_unwanted(&self, streams: &dyn SharedStreams) -> bool {
        let touched = *self.touched.lock().unwrap_or_else(PoisonError::into_inner);
        touched.elapsed() > LINGER && streams.subscribers(&self.channel) == 0
    }

    /// Takes it out of the sources: whoever asked for it, or unless somebody has asked meanwhile. Answers whether it is out.
    fn forget(&self, proxy: &Proxy, whoever_asked: bool) -> bool {
        let mut sources = proxy.shared.sources();
        let touched = *self.touched.lock().unwrap_or_else(PoisonError::into_inner);
        let goes = whoever_asked || touched.elapsed() > LINGER;
        if goes {
            sources.remove(&self.channel);
        }
        goes
    }

    /// Says that it cannot be opened; what was open once stays so. Answers whether that was said.
    fn fail(&self, phase: Phase) -> bool {
        self.phase.send_if_modified(|known| {
            let is_news = *known != Phase::Open;
            if is_news {
                *known = phase;
            }
            is_news
        })
    }

    /// Whether this node is the one to read it; `None` when nobody can say.
    async fn leads(&self, proxy: &Proxy) -> Option<bool> {
        match &proxy.fleet {
            Some(fleet) => fleet.lead(&self.channel).await,
            None => Some(true),
        }
    }

    /// The upstream's id of what stands last in the channel.
    async fn id_in_channel(&self, streams: &dyn SharedStreams) -> Option<String> {
        let json = streams.last(&self.channel).await?;
        serde_json::from_slice::<Event>(&json).ok()?.id
    }

    /// Opens the stream after `last_id` and publishes what it brings.
    async fn read(
        &self,
        proxy: &Proxy,
        streams: &dyn SharedStreams,
        last_id: &mut Option<String>,
    ) -> Ended {
        let Some(route) = proxy.table.load().service(&self.service).cloned() else {
            return Ended::Failed(Phase::Unavailable);
        };
        let mut stream = match self.open(proxy, &route, last_id.as_deref()).await {
            Ok(stream) => stream,
            Err(phase) => return Ended::Failed(phase),
        };
        self.phase.send_replace(Phase::Open);
        let _counted = SharedSource::begin();
        let mut parser = Parser::after(last_id.clone());
        let (mut has_brought, mut events) = (false, Vec::new());
        let mut look = interval(LOOK_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                read = stream.next(&mut parser, &mut events) => {
                    let is_over = read.is_err();
                    for event in events.drain(..) {
                        let id = event.id.clone();
                        // A plain struct cannot fail to serialise.
                        let json = serde_json::to_vec(&event).unwrap_or_default();
                        if !streams.publish(&self.channel, json).await {
                            return Ended::Broke(has_brought);
                        }
                        has_brought = true;
                        *last_id = id;
                    }
                    if parser.left_out > 0 {
                        tracing::warn!(channel = self.channel, "an event of the upstream is too long: it is left out");
                        parser.left_out = 0;
                    }
                    if is_over {
                        return Ended::Broke(has_brought);
                    }
                    // An id without data counts, too.
                    if parser.last_id() != last_id.as_deref() {
                        *last_id = parser.last_id().map(str::to_owned);
                    }
                }
                _ = look.tick() => {
                    if self.is_unwanted(streams) {
                        return Ended::Unwanted;
                    }
                    if self.leads(proxy).await == Some(false) {
                        return Ended::Deposed;
                    }
                }
            }
        }
    }

    async fn open(
        &self,
        proxy: &Proxy,
        route: &Arc<Route>,
        last_id: Option<&str>,
    ) -> Result<Answer, Phase> {
        let wish = Wish {
            now: proxy.now(),
            tried: &[],
            key: hash::of(self.target.as_bytes()),
        };
        let (endpoint, pass) = route.choose(&wish).ok_or(Phase::Unavailable)?;
        let mut attempt = Attempt::begin(endpoint.clone(), pass, Carried::Sse, wish.now);
        let began = Instant::now();
        let connector = proxy.connector.load_full();
        let dialling = endpoint.dial(connector.as_deref());
        let dialled = timeout(route.policy.connect_timeout, dialling).await;
        let asked = async {
            let socket = dialled.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
            let head = self.head_for(&attempt, last_id);
            let asked = timeout(route.policy.timeout, Answer::ask(socket, &head)).await;
            asked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        };
        let (mut stream, status) = match asked.await {
            Ok(asked) => asked,
            Err(error) => {
                attempt.failed(proxy.now());
                return Err(match error.kind() {
                    io::ErrorKind::TimedOut => Phase::TimedOut,
                    _ => Phase::Unavailable,
                });
            }
        };
        let answered = Answered {
            status,
            retry_after: None,
        };
        attempt.answered(&answered, began.elapsed(), proxy.now());
        match (status, stream.is_events) {
            (200, true) => {
                stream.attempt = Some(attempt);
                Ok(stream)
            }
            // An answer that is no stream of events is not what was asked for.
            (200..300, _) => Err(Phase::Refused(502)),
            (status, _) => Err(Phase::Refused(status)),
        }
    }

    fn head_for(&self, attempt: &Attempt, last_id: Option<&str>) -> Vec<u8> {
        let address = &attempt.endpoint.address;
        let mut head =
            format!("GET {}{} HTTP/1.1\r\nhost: ", address.base, self.target).into_bytes();
        head.extend_from_slice(attempt.endpoint.authority.as_bytes());
        head.extend_from_slice(b"\r\n");
        head.extend_from_slice(&self.fields);
        // An id has no line end: it was a line.
        if let Some(id) = last_id.filter(|id| !id.contains(|c: char| c.is_control())) {
            head.extend_from_slice(format!("last-event-id: {id}\r\n").as_bytes());
        }
        head.extend_from_slice(b"\r\n");
        head
    }
}

/// An answer whose body is being read.
struct Answer {
    socket: Stream,
    body: Framing,
    is_events: bool,
    /// What came and was not looked at.
    bytes: Vec<u8>,
    attempt: Option<Attempt>,
}

impl Answer {
    /// Asks, and reads the head of the answer; with its status.
    async fn ask(mut socket: Stream, head: &[u8]) -> io::Result<(Self, u16)> {
        socket.write_all(head).await?;
        socket.flush().await?;
        let mut bytes = Vec::with_capacity(READ_BYTES);
        let mut scan = HeadScan::default();
        let length = loop {
            match scan.look(&bytes) {
                Scanned::Whole(length) => break length,
                Scanned::Partial => {}
                _ => return Err(io::ErrorKind::InvalidData.into()),
            }
            if socket.read_buf(&mut bytes).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        };
        let (status, body, is_events) = {
            let mut slots = slots();
            let head = ResponseHead::parse(&bytes[..length], &mut slots, false)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            (head.status, head.body, fields::is_event_stream(&head))
        };
        bytes.drain(..length);
        let stream = Self {
            socket,
            body,
            is_events,
            bytes,
            attempt: None,
        };
        Ok((stream, status))
    }

    /// Waits for more, and takes it apart. An error is the end of the stream. Nothing is lost when it is dropped.
    async fn next(&mut self, parser: &mut Parser, events: &mut Vec<Event>) -> io::Result<()> {
        if self.bytes.is_empty() && self.socket.read_buf(&mut self.bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut used = 0;
        while used < self.bytes.len() {
            let run = self.body.run(&self.bytes[used..]);
            let run = run.map_err(|fault| io::Error::new(io::ErrorKind::InvalidData, fault))?;
            let Some(run) = run else {
                return Err(io::ErrorKind::UnexpectedEof.into());
            };
            if run.is_data {
                parser.feed(&self.bytes[used..used + run.length], events);
            }
            used += run.length;
        }
        self.bytes.clear();
        Ok(())
    }
}
