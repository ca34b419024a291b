//! One upstream stream: opened, read, published into its channel, opened again after the last id, and left when nobody
//! listens.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::answer::Refusal;
use super::event::{Event, Parser};
use super::{Course, Proxy, SharedStreams};
use crate::proxy::fields;
use crate::proxy::lease::{Lead, Standing};
use crate::proxy::policy::Share;
use crate::telemetry::proxy::SharedSource;

/// How long a source without subscribers goes on: a subscriber that was let in takes a moment to be there.
const LINGER: Duration = Duration::from_secs(5);
/// How often a source looks whether it is wanted and may lead.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// How often one looks that waits to hear whether another node's stream is open.
const OPENING_INTERVAL: Duration = Duration::from_millis(100);
/// Pauses before an upstream is asked again, unless it says how long: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// The shortest, whatever the upstream says.
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// How a source is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nobody knows yet.
    Opening,
    /// The stream is there, or is read by another node; it stays open while it is opened again.
    Open,
    /// The upstream answered so instead.
    Refused(Arc<Refusal>),
    /// It answered with this status and more than can be passed on.
    Unfit(u16),
    /// The upstream took too long.
    TimedOut,
    /// The upstreams have as much to do as they may.
    Overloaded,
    /// The upstream, or Redis, cannot be reached.
    Unavailable,
    /// The service is no longer there.
    Gone,
}

impl Phase {
    /// Whether asking again would be of no use: there is no such stream any more.
    fn is_final(&self) -> bool {
        let is_final = |status: u16| status < 500 && !matches!(status, 408 | 429);
        match self {
            Self::Refused(refusal) => is_final(refusal.status),
            Self::Unfit(status) => is_final(*status),
            Self::Gone => true,
            _ => false,
        }
    }
}

/// Why a stream is no longer read.
#[derive(Debug)]
enum Ended {
    /// Nobody listens any more, or the node ends.
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
    pub(super) channel: String,
    pub(super) service: String,
    pub(super) target: String,
    /// Lines of the request's head.
    pub(super) fields: Vec<u8>,
    /// How long somebody waits who asks for it.
    patience: Duration,
    phase: watch::Sender<Phase>,
    /// Where the channel stood before anything was read.
    beginning: OnceLock<String>,
    /// When somebody last asked for it.
    touched: Mutex<Instant>,
}

/// What reading a stream comes to know.
struct Progress {
    /// The upstream's last id.
    last_id: Option<String>,
    /// Since when this node leads, as far as it knows; `None` when it does not.
    led_at: Option<Instant>,
    /// How long to wait before the upstream is asked again.
    pause: Duration,
    /// How long at first.
    pause_first: Duration,
}

impl Progress {
    const fn new() -> Self {
        Self {
            last_id: None,
            led_at: None,
            pause: PAUSES.0,
            pause_first: PAUSES.0,
        }
    }

    /// The upstream wants to be asked again after this time.
    fn hear_retry(&mut self, millis: Option<u64>) {
        if let Some(millis) = millis {
            self.pause_first = Duration::from_millis(millis).clamp(PAUSE_MIN, PAUSES.1);
        }
    }

    async fn wait(&mut self) {
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSES.1);
    }
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
        let tries = policy.retries.tries.max(1);
        Self {
            channel,
            service: course.route.name.clone(),
            target: course.target.clone(),
            fields: lines,
            patience: (policy.connect_timeout + policy.timeout).saturating_mul(tries),
            phase: watch::Sender::new(Phase::Opening),
            beginning: OnceLock::new(),
            touched: Mutex::new(Instant::now()),
        }
    }

    /// Somebody asks for it, or was let in. Whoever finds it in the sources calls this under their lock.
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
            Ok(Ok(phase)) => phase.clone(),
            _ => Phase::TimedOut,
        }
    }

    /// Reads the upstream for as long as anybody on this node listens and no other node does so.
    pub(super) async fn run(self: Arc<Self>, proxy: Arc<Proxy>, streams: Arc<dyn SharedStreams>) {
        let mut progress = Progress::new();
        loop {
            if self.is_unwanted(&proxy, &*streams) {
                // While it is still known: the next one of this name must not lose its lease to this one's end.
                self.resign(&proxy, &mut progress).await;
                if self.forget(&proxy, false) {
                    return;
                }
            }
            match self.lead(&proxy, &mut progress).await {
                Some(Standing::Leads(last_id)) => {
                    self.begin(&*streams, &mut progress, last_id).await;
                }
                Some(Standing::Follows { is_open, lease }) => {
                    self.follow(is_open, lease).await;
                    continue;
                }
                None => {
                    self.fail(Phase::Unavailable);
                    sleep(LOOK_INTERVAL / 4).await;
                    continue;
                }
            }
            match self.read(&proxy, &*streams, &mut progress).await {
                Ended::Unwanted => continue,
                Ended::Deposed => {
                    progress.led_at = None;
                    continue;
                }
                Ended::Broke(true) => progress.pause = progress.pause_first,
                Ended::Broke(false) => {}
                Ended::Failed(phase) => {
                    let was_open = self.is_open();
                    if was_open && !phase.is_final() {
                        progress.wait().await;
                        continue;
                    }
                    // Whoever waits is told when it is no longer known: who asks again finds out anew.
                    self.resign(&proxy, &mut progress).await;
                    self.forget(&proxy, true);
                    self.fail(phase);
                    if was_open {
                        self.send_away(&proxy, &*streams).await;
                    }
                    return;
                }
            }
            progress.wait().await;
        }
    }

    /// Ends the streams of whoever listens: they come back and hear why. It is forgotten by now, or they would find it again.
    async fn send_away(&self, proxy: &Proxy, streams: &dyn SharedStreams) {
        streams.end(&self.channel).await;
        // Somebody who was let in before may subscribe only now.
        sleep(LINGER).await;
        let is_known = proxy.shared.sources().contains_key(&self.channel);
        if !is_known && streams.subscribers(&self.channel) > 0 {
            streams.end(&self.channel).await;
        }
    }

    /// This node leads: finds out where the stream goes on, when it did not before.
    async fn begin(
        &self,
        streams: &dyn SharedStreams,
        progress: &mut Progress,
        last_id: Option<String>,
    ) {
        if progress.led_at.replace(Instant::now()).is_some() {
            return;
        }
        // What stands in the channel is newer than what a lease remembers.
        let in_channel = self.id_in_channel(streams).await;
        progress.last_id = in_channel.or(last_id).filter(|id| !id.is_empty());
    }

    /// Another node leads: who waits is told as soon as that one's stream is open.
    async fn follow(&self, is_open: bool, lease: Duration) {
        if is_open {
            self.phase.send_replace(Phase::Open);
        }
        let pause = match self.is_opening() {
            true => OPENING_INTERVAL,
            false => LOOK_INTERVAL,
        };
        // Its lease may end before that.
        sleep(pause.min(lease.max(PAUSE_MIN))).await;
    }

    fn is_open(&self) -> bool {
        *self.phase.borrow() == Phase::Open
    }

    fn is_unwanted(&self, proxy: &Proxy, streams: &dyn SharedStreams) -> bool {
        if proxy.shared.is_over() {
            return true;
        }
        let touched = *self.touched.lock().unwrap_or_else(PoisonError::into_inner);
        touched.elapsed() > LINGER && streams.subscribers(&self.channel) == 0
    }

    /// Takes it out of the sources: whoever asked for it, or unless somebody has asked meanwhile. Answers whether it is out.
    fn forget(&self, proxy: &Proxy, whoever_asked: bool) -> bool {
        let mut sources = proxy.shared.sources();
        let touched = *self.touched.lock().unwrap_or_else(PoisonError::into_inner);
        let goes = whoever_asked || proxy.shared.is_over() || touched.elapsed() > LINGER;
        if goes {
            sources.remove(&self.channel);
        }
        goes
    }

    /// Says that it cannot be opened; what was open once stays so.
    fn fail(&self, phase: Phase) {
        self.phase.send_if_modified(|known| {
            let is_news = *known != Phase::Open;
            if is_news {
                *known = phase;
            }
            is_news
        });
    }

    /// Whether this node is the one to read it; `None` when nobody can say.
    async fn lead(&self, proxy: &Proxy, progress: &mut Progress) -> Option<Standing> {
        let Some(fleet) = &proxy.fleet else {
            return Some(Standing::Leads(None));
        };
        let lead = Lead {
            is_open: self.is_open(),
            last_id: progress.last_id.as_deref(),
        };
        fleet.lead(&self.channel, &lead).await
    }

    async fn resign(&self, proxy: &Proxy, progress: &mut Progress) {
        if let (Some(fleet), Some(_)) = (&proxy.fleet, progress.led_at.take()) {
            fleet.resign(std::slice::from_ref(&self.channel)).await;
        }
    }

    /// The upstream's id of what stands last in the channel.
    async fn id_in_channel(&self, streams: &dyn SharedStreams) -> Option<String> {
        let json = streams.last(&self.channel).await?;
        serde_json::from_slice::<Event>(&json).ok()?.id
    }

    /// Opens the stream after the last id and publishes what it brings.
    async fn read(
        &self,
        proxy: &Proxy,
        streams: &dyn SharedStreams,
        progress: &mut Progress,
    ) -> Ended {
        let mut stream = match self.open(proxy, progress.last_id.as_deref()).await {
            Ok(stream) => stream,
            Err(phase) => return Ended::Failed(phase),
        };
        if !self.is_joined(streams, progress).await {
            self.fail(Phase::Unavailable);
            return Ended::Broke(false);
        }
        self.phase.send_replace(Phase::Open);
        let _counted = SharedSource::begin();
        let bytes_max = streams.event_bytes_max(&self.channel);
        let mut parser = Parser::after(progress.last_id.clone(), bytes_max);
        let (mut has_brought, mut events) = (false, Vec::new());
        let mut look = interval(LOOK_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                read = stream.next(&mut parser, &mut events) => {
                    if !events.is_empty() {
                        let is_leading = self.still_leads(proxy, progress).await;
                        if is_leading == Some(false) {
                            return Ended::Deposed;
                        }
                        if is_leading.is_none() || !self.publish(streams, &mut events).await {
                            return Ended::Broke(has_brought);
                        }
                        has_brought = true;
                    }
                    self.note(&mut parser, progress);
                    if read.is_err() {
                        return Ended::Broke(has_brought);
                    }
                }
                _ = look.tick() => {
                    if self.is_unwanted(proxy, streams) {
                        return Ended::Unwanted;
                    }
                    if self.renew(proxy, progress).await == Some(false) {
                        return Ended::Deposed;
                    }
                }
            }
        }
    }

    /// What was read goes on where the channel ends. Without an id of the upstream nobody knows whether something is missing
    /// between the two, and a gap says so. Answers whether the broker took part.
    async fn is_joined(&self, streams: &dyn SharedStreams, progress: &Progress) -> bool {
        let Some(top) = streams.position(&self.channel).await else {
            return false;
        };
        if progress.last_id.is_none() && !top.is_empty {
            let gap = vec![Event::gap(None).to_json()];
            if !streams.publish(&self.channel, gap).await {
                return false;
            }
        }
        if self.is_opening() {
            let position = streams.position(&self.channel).await;
            // Only the first one: what came since belongs to the stream.
            let _ = position.map(|top| self.beginning.set(top.id));
        }
        true
    }

    async fn publish(&self, streams: &dyn SharedStreams, events: &mut Vec<Event>) -> bool {
        let texts = events.drain(..).map(|event| event.to_json()).collect();
        streams.publish(&self.channel, texts).await
    }

    /// Notes what the upstream said beside its events.
    fn note(&self, parser: &mut Parser, progress: &mut Progress) {
        if std::mem::take(&mut parser.left_out) > 0 {
            tracing::warn!(
                channel = self.channel,
                "an event of the upstream is too long: it is left out"
            );
        }
        if parser.last_id() != progress.last_id.as_deref() {
            progress.last_id = parser.last_id().map(str::to_owned);
        }
        progress.hear_retry(parser.retry());
    }

    /// Renews the lease; false when another node has it, `None` when nobody can say.
    async fn renew(&self, proxy: &Proxy, progress: &mut Progress) -> Option<bool> {
        let asked = Instant::now();
        match self.lead(proxy, progress).await? {
            Standing::Leads(_) => {
                progress.led_at = Some(asked);
                Some(true)
            }
            Standing::Follows { .. } => Some(false),
        }
    }

    /// The same, but asked only when the lease may have run out: a node that was stopped for a while must not go on as if
    /// nothing had been.
    async fn still_leads(&self, proxy: &Proxy, progress: &mut Progress) -> Option<bool> {
        let is_sure = progress
            .led_at
            .is_some_and(|at| at.elapsed() < LOOK_INTERVAL * 2);
        match is_sure {
            true => Some(true),
            false => self.renew(proxy, progress).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_follows_the_upstream_within_bounds() {
        let mut progress = Progress::new();
        for (said, expected) in [
            (None, 500),
            (Some(3000), 3000),
            (Some(0), 100),
            (Some(u64::MAX), 30_000),
        ] {
            progress.hear_retry(said);
            assert_eq!(progress.pause_first, Duration::from_millis(expected));
        }
    }

    #[test]
    fn what_no_upstream_will_mend_is_final() {
        for (phase, expected) in [
            (Phase::Unfit(204), true),
            (Phase::Unfit(404), true),
            (Phase::Gone, true),
            (Phase::Unfit(429), false),
            (Phase::Unfit(503), false),
            (Phase::TimedOut, false),
            (Phase::Unavailable, false),
        ] {
            assert_eq!(phase.is_final(), expected, "{phase:?}");
        }
    }
}
