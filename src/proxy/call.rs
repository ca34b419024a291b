//! One request to an upstream and its answer, as a state machine that the client's connection polls.
//!
//! (`Counting`, where a fleet limits rates →) (`Waiting` or `Serving`, where there is a cache →) `Dialling` → `Asking` (the request goes out, the answer's head is awaited) → `Answering` (its body passes) or
//! `Tunnel` (a WebSocket). A try that fails before a byte went to the client goes back to the beginning with another
//! upstream, within the service's budget; otherwise `Telling`: an answer of our own.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Instant;

use super::Proxy;
use super::attempt::Attempt;
use super::caching::{Served, Waiting};
use super::counting::Counting;
use super::course::{Asked, Course};
use super::dialling::Dialled;
use super::download::Download;
use super::error::ProxyError;
use super::gone::poll_gone;
use super::leaving::Leaving;
use super::multiplexed::DialError;
use super::upload::{Upload, Waits};
use super::websocket::Tunnel;
use super::wire::Wire;
use crate::http1::{After, Exchange, Framing, HeadScan, Peer};
use crate::telemetry::proxy::Carried;

/// A request on its way.
pub(super) struct Call {
    pub(super) proxy: Arc<Proxy>,
    pub(super) asked: Asked,
    pub(super) course: Option<Course>,
    pub(super) upload: Upload,
    pub(super) tries_left: u32,
    pub(super) attempt: Option<Attempt>,
    /// Upstreams that were asked, by their ids.
    pub(super) tried: Vec<usize>,
    pub(super) wire: Option<Wire>,
    pub(super) scan: HeadScan,
    /// When the present try reached its upstream.
    pub(super) began: Instant,
    /// The last time that anything moved.
    pub(super) moved: Instant,
    /// Whether the client has got something, be it an interim answer.
    pub(super) has_begun: bool,
    pub(super) has_timed_out: bool,
    /// It counts among those under way, where these are bounded.
    inflight: Option<Inflight>,
    /// The node drains, within this time.
    pub(super) draining: Option<Duration>,
    /// When a stream ends because of that, or of its silence.
    pub(super) leaving: Option<Leaving>,
    pub(super) state: State,
}

/// One request that is under way; it counts as long as it lives.
struct Inflight(Arc<AtomicUsize>);

impl Inflight {
    fn begin(proxy: &Proxy) -> Self {
        proxy.inflight.fetch_add(1, Relaxed);
        Self(proxy.inflight.clone())
    }
}

impl Drop for Inflight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

type Dial = Pin<Box<dyn Future<Output = Result<Dialled, DialError>> + Send>>;

/// How far it is.
pub(super) enum State {
    /// The fleet counts the request.
    Counting(Box<Counting>),
    /// Somebody else asks for the same.
    Waiting(Waiting),
    Dialling(Dial),
    Asking,
    Answering {
        download: Download,
        keeps_wire: bool,
    },
    Tunnel(Box<Tunnel>),
    /// An answer out of the cache.
    Serving(Served),
    /// Our own answer, then this.
    Telling {
        bytes: Vec<u8>,
        sent: usize,
        after: After,
    },
    /// A state is being left.
    Leaving,
}

impl Call {
    /// Asks an upstream.
    pub(super) fn new(proxy: Arc<Proxy>, asked: Asked, course: Course, body: Framing) -> Self {
        let mut call = Self::with_course(proxy, asked, course, body);
        call.begin();
        call
    }

    /// A request that is let in, before anybody is asked.
    pub(super) fn with_course(
        proxy: Arc<Proxy>,
        asked: Asked,
        course: Course,
        body: Framing,
    ) -> Self {
        let route = &course.route;
        route.budget.requested(proxy.at(asked.started));
        let most = u32::try_from(route.members.len()).unwrap_or(u32::MAX);
        // What a shared connection refuses can be asked for again whatever it is, as long as its body is here.
        let mut members = route.members.iter();
        let may_be_refused = members.any(|member| member.endpoint.may_share());
        let keeps_body = course.may_repeat(&asked) || may_be_refused;
        let mut call = Self::idle(proxy, asked, body, keeps_body);
        let is_bounded = call.proxy.inflight_max != usize::MAX;
        if is_bounded && call.asked.carried == Carried::Http {
            call.inflight = Some(Inflight::begin(&call.proxy));
        }
        call.tries_left = route.policy.retries.tries.min(most);
        call.course = Some(course);
        call
    }

    /// Answers with an error, without asking anybody.
    pub(super) fn refuse(
        proxy: Arc<Proxy>,
        asked: Asked,
        body: Framing,
        error: &ProxyError,
    ) -> Self {
        let mut call = Self::idle(proxy, asked, body, false);
        call.tell(error);
        call
    }

    fn idle(proxy: Arc<Proxy>, asked: Asked, body: Framing, keeps_body: bool) -> Self {
        let started = asked.started;
        let bytes_max = proxy.body_bytes_max;
        Self {
            proxy,
            asked,
            course: None,
            upload: Upload::new(body, bytes_max, keeps_body),
            tries_left: 0,
            attempt: None,
            tried: Vec::new(),
            wire: None,
            scan: HeadScan::default(),
            began: started,
            moved: started,
            has_begun: false,
            has_timed_out: false,
            inflight: None,
            draining: None,
            leaving: None,
            state: State::Leaving,
        }
    }

    fn try_timeout(&self) -> Option<Duration> {
        let course = self.course.as_ref()?;
        Some(course.try_timeout(self.tries_left == 0))
    }

    /// When the whole exchange has to be over.
    fn deadline(&self) -> Option<Instant> {
        let course = self.course.as_ref();
        let course = course.filter(|_| self.asked.carried == Carried::Http)?;
        Some(self.asked.started + course.route.policy.total_timeout?)
    }

    /// Whether its time is over.
    pub(super) fn is_late(&self) -> bool {
        self.deadline()
            .is_some_and(|deadline| self.moved >= deadline)
    }

    /// When the stream that is being answered leaves.
    fn leaving(&self) -> Option<&Leaving> {
        match &self.state {
            State::Answering { download, .. } if download.is_endless() => self.leaving.as_ref(),
            _ => None,
        }
    }

    /// Notes that something moved, so that no time-out is due yet.
    pub(super) fn note_moves(&mut self) {
        let (mut has_moved, mut has_heard) = (std::mem::take(&mut self.upload.has_moved), false);
        if let State::Answering { download, .. } = &mut self.state {
            has_moved |= std::mem::take(&mut download.has_moved);
            has_heard = std::mem::take(&mut download.has_heard);
        }
        if has_moved {
            self.moved = Instant::now();
        }
        if has_heard && self.asked.carried == Carried::Sse && self.draining.is_none() {
            let policy = self.course.as_ref().map(|course| &course.route.policy);
            let most = policy.and_then(|policy| policy.idle_timeout);
            self.leaving = most.map(|most| Leaving::at(self.moved + most));
        }
    }
}

impl Exchange for Call {
    fn poll(&mut self, cx: &mut Context<'_>, mut peer: Peer<'_>) -> Poll<After> {
        loop {
            let after = match &mut self.state {
                State::Counting(_) => ready!(self.poll_count(cx, &mut peer)),
                State::Waiting(_) => {
                    if self.poll_wait(cx).is_pending() {
                        return poll_gone(cx, &mut peer).map(|()| After::Cut);
                    }
                    None
                }
                State::Dialling(_) => ready!(self.poll_dial(cx, &mut peer)),
                State::Asking => ready!(self.poll_ask(cx, &mut peer)),
                State::Answering { .. } => ready!(self.poll_answer(cx, &mut peer)),
                State::Tunnel(tunnel) => return tunnel.poll(cx, peer),
                State::Serving(_) if self.has_timed_out => return Poll::Ready(After::Cut),
                State::Serving(_) => return self.poll_serve(cx, &mut peer),
                State::Telling { .. } => ready!(self.poll_tell(cx, &mut peer)),
                State::Leaving => return Poll::Ready(After::Cut),
            };
            if let Some(after) = after {
                return Poll::Ready(after);
            }
        }
    }

    fn due(&self) -> Option<Instant> {
        let (waits, upstream_may) = match &self.state {
            State::Tunnel(tunnel) => return tunnel.due(),
            // Counting and dialling have time-outs of their own.
            State::Counting(_) | State::Dialling(_) | State::Leaving => return None,
            State::Waiting(waiting) => return Some(waiting.until),
            State::Serving(_) | State::Telling { .. } => (Waits::ForClient, None),
            State::Asking if self.upload.is_done() => (Waits::ForUpstream, self.try_timeout()),
            State::Asking => (self.upload.waits, self.try_timeout()),
            State::Answering { download, .. } => {
                let policy = self.course.as_ref().map(|course| &course.route.policy);
                let pause = match self.asked.carried {
                    Carried::Sse if download.has_heartbeats() && download.may_beat() => {
                        policy.and_then(|policy| policy.heartbeat)
                    }
                    Carried::Sse if self.upload.is_done() => None,
                    _ => policy.map(|policy| policy.timeout),
                };
                (download.waits, pause)
            }
        };
        let pause = match waits {
            Waits::ForClient => Some(self.moved + self.proxy.body_timeout),
            Waits::ForUpstream => upstream_may.map(|time| self.moved + time),
        };
        let leaves = self.leaving().map(Leaving::due);
        // What we say ourselves is said, however late it is.
        let is_upstreams = matches!(self.state, State::Asking | State::Answering { .. });
        let ends = [pause, leaves, self.deadline().filter(|_| is_upstreams)];
        ends.into_iter().flatten().min()
    }

    fn handle_timeout(&mut self, now: Instant) {
        match &mut self.state {
            State::Tunnel(tunnel) => tunnel.handle_timeout(now),
            // It is polled next, and sees for itself.
            State::Waiting(_) => {}
            State::Answering { download, .. } if download.is_endless() => {
                let mut leaving = self.leaving.iter_mut();
                let leaves = leaving.any(|leaving| leaving.handle_timeout(now));
                self.has_timed_out = !leaves;
            }
            _ => self.has_timed_out = true,
        }
    }

    fn handle_drain(&mut self, window: Duration) {
        self.draining = Some(window);
        if let State::Tunnel(tunnel) = &mut self.state {
            tunnel.handle_drain(window);
        }
        if self.asked.carried == Carried::Sse {
            // Its answer may still be to come.
            self.leaving = Some(Leaving::within(window, Instant::now()));
        }
    }

    fn successor(&mut self) -> Option<Box<dyn Exchange>> {
        if !matches!(self.state, State::Tunnel(_)) {
            return None;
        }
        match std::mem::replace(&mut self.state, State::Leaving) {
            State::Tunnel(tunnel) => Some(tunnel),
            _ => None,
        }
    }
}
