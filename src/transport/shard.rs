//! A worker's state, and one turn of its loop.

use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hashbrown::HashMap;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::hub::{ConnectionIndex, Contents, Frame, Hub, Ledger, Limits};
use crate::model::{ChannelKey, DrainSignal, Moment, WireFormat};
use crate::protocol::encoder::Encoder;
use crate::protocol::{Push, plain, websocket};
use crate::relay::{Inbox, Message};
use crate::telemetry::WorkerCounts;

use super::allowance::Allowance;
use super::ended::Ended;
use super::poll::Poll;
use super::presence::Doubts;
use super::repair::Repairs;
use super::socket::{ConnectionRef, Joining, Sockets};
use super::timer_wheel::TimerWheel;
use super::waiting_line::WaitingLine;
use super::worker::{Context, Front};

/// How often counts go to the recorder.
const COUNTS_INTERVAL: Duration = Duration::from_secs(1);

/// One worker: everything that its loop owns.
pub(super) struct Shard {
    pub(super) context: Context,
    /// Which worker this is.
    pub(super) worker: usize,
    pub(super) front: Rc<Front>,
    pub(super) hub: Hub,
    pub(super) sockets: Sockets,
    pub(super) poll: Poll,
    pub(super) wheel: TimerWheel,
    pub(super) encoder: Encoder,
    pub(super) counts: WorkerCounts,
    pub(super) waiting: Waiting,
    pub(super) clock: Clock,
    pub(super) tools: Tools,
    /// Sessions whose sockets may still be on their way here.
    pub(super) ended: Ended,
    drain: Drain,
}

/// What waits for the broker, or for room.
#[derive(Debug)]
pub(super) struct Waiting {
    /// Subscriptions of channels whose position the broker has yet to tell.
    pub(super) starting: HashMap<ChannelKey, Vec<Joining>>,
    /// How much may be taken in before what was taken in is written.
    pub(super) allowance: Allowance,
    /// Subscriptions that may be able to go on catching up.
    pub(super) catching_up: WaitingLine<(ConnectionRef, ChannelKey)>,
    /// Channels that must be read again, and how many reads are under way.
    pub(super) repairs: Repairs,
    /// Channels in which joins or leaves may be missing.
    pub(super) doubts: Doubts,
    /// Whether something is missing behind what was drained from the inbox and is still to be taken in.
    has_overflowed: bool,
}

/// Time, as this worker reads it: once a turn.
#[derive(Debug)]
pub(super) struct Clock {
    start: Instant,
    pub(super) now: Moment,
    counts_due: Moment,
}

impl Clock {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            now: Moment::default(),
            counts_due: Moment::default(),
        }
    }

    fn read(&mut self) {
        let millis = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.now = Moment::from_millis(millis);
    }
}

/// Unix time.
pub(super) fn unix_time() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// Things that are used again and again.
pub(super) struct Tools {
    /// For encoding.
    pub(super) scratch: Vec<u8>,
    pub(super) random: SmallRng,
    /// A ping, shared by all WebSockets.
    pub(super) ping: Frame,
    /// A JSON ping, shared by all that speak JSON.
    pub(super) json_ping: Option<Frame>,
    /// A comment, shared by all event streams.
    pub(super) comment: Frame,
    /// What came out of the inbox and is not yet taken in.
    messages: VecDeque<Message>,
    slice: Vec<ConnectionIndex>,
}

/// How far the end is.
struct Drain {
    signal: DrainSignal,
    has_begun: bool,
    has_stopped: bool,
}

impl Shard {
    pub(super) fn new(
        context: Context,
        worker: usize,
        front: Rc<Front>,
        signal: DrainSignal,
    ) -> io::Result<Self> {
        let config = &context.config;
        let workers = context.relay.workers().max(1);
        let hub = Hub::new(Limits {
            pending_bytes_max: config.pending_bytes_max,
            pending_messages_max: config.pending_messages_max,
            total_pending_bytes_max: config.total_pending_bytes_max / workers,
        });
        let clock = Clock::new();
        Ok(Self {
            poll: Poll::new()?,
            wheel: TimerWheel::new(clock.now),
            tools: Tools::new(&context),
            sockets: Sockets::default(),
            encoder: Encoder::default(),
            counts: WorkerCounts::new(),
            waiting: Waiting {
                starting: HashMap::new(),
                allowance: Allowance::new(config.pending_bytes_max, config.pending_messages_max),
                catching_up: WaitingLine::default(),
                repairs: Repairs::default(),
                doubts: Doubts::default(),
                has_overflowed: false,
            },
            drain: Drain {
                signal,
                has_begun: false,
                has_stopped: false,
            },
            ended: Ended::default(),
            context,
            worker,
            front,
            hub,
            clock,
        })
    }

    /// Waits until there is something to do. Answers whether publications came.
    pub(super) async fn wait(&mut self, inbox: &Inbox) -> bool {
        std::future::poll_fn(|context| {
            self.front.register(context.waker());
            let has_messages = inbox.poll_ready(context).is_ready();
            let is_ready = self.poll.poll_events(context) | self.poll.poll_tick(context);
            if is_ready || has_messages || self.front.has_news() || self.has_work() {
                std::task::Poll::Ready(has_messages)
            } else {
                std::task::Poll::Pending
            }
        })
        .await
    }

    /// Whether a turn left something that can go on at once.
    pub(super) fn has_work(&self) -> bool {
        self.hub.has_pending()
            || self.poll.has_ready()
            || !self.waiting.catching_up.is_empty()
            || self.waiting.repairs.can_go_on()
            || self.waiting.doubts.can_go_on()
            || !self.tools.messages.is_empty()
            || self.front.has_news()
    }

    /// A bounded piece of everything there is to do.
    pub(super) fn turn(&mut self, inbox: &Inbox) {
        self.clock.read();
        for adopted in self.front.take_adopted() {
            self.adopt(adopted);
        }
        self.serve_events();
        for done in self.front.take_done() {
            self.finish(done);
        }
        self.drain_inbox(inbox);
        self.go_on_with_repairs();
        self.go_on_with_presence();
        self.go_on_catching_up();
        if self.poll.take_tick() {
            self.tick();
        }
        self.close_overflowed();
        self.write_slice();
    }

    fn drain_inbox(&mut self, inbox: &Inbox) {
        if !self.hub.has_pending() {
            self.waiting.allowance.renew();
        }
        let mut messages = std::mem::take(&mut self.tools.messages);
        if messages.is_empty() {
            let mut drained = Vec::from(messages);
            self.waiting.has_overflowed = inbox.drain(&mut drained);
            messages = VecDeque::from(drained);
        }
        self.take_in(&mut messages);
        // What is missing was behind all that came: told sooner, it would seem to be something else.
        if messages.is_empty() && std::mem::take(&mut self.waiting.has_overflowed) {
            self.missed_everywhere();
        }
        self.tools.messages = messages;
    }

    fn write_slice(&mut self) {
        let mut slice = std::mem::take(&mut self.tools.slice);
        self.hub.next_slice(&mut slice);
        for connection in slice.drain(..) {
            self.write(connection);
        }
        self.tools.slice = slice;
    }

    fn tick(&mut self) {
        self.fire_timers();
        if let Some(delay) = self.poll.take_delay() {
            self.counts.loop_delayed(delay);
            if let Some(levels) = self.context.levels.get(self.worker) {
                levels.set_loop_delay(delay);
            }
        }
        if self.drain.signal.is_stopping() && !self.drain.has_stopped {
            self.drain.has_stopped = true;
            self.stop();
        }
        if let Some(window) = self.drain.signal.now().filter(|_| !self.drain.has_begun) {
            self.drain.has_begun = true;
            self.begin_drain(window);
        }
        if self.clock.now >= self.clock.counts_due {
            self.clock.counts_due = self.clock.now + COUNTS_INTERVAL;
            self.flush_counts();
        }
    }

    fn flush_counts(&mut self) {
        self.counts.pending_bytes = self.hub.held_bytes() as u64;
        self.counts.flush();
    }

    /// Whether the node drains and nobody is left, or nobody is waited for.
    pub(super) fn is_drained(&self) -> bool {
        let is_empty = self.hub.connection_count() == 0 && !self.front.has_news();
        self.drain.has_stopped || (self.drain.has_begun && is_empty)
    }

    /// Leaves the gauges at zero.
    pub(super) fn end(&mut self) {
        self.counts.connections = Default::default();
        self.counts.subscriptions = 0;
        self.flush_counts();
    }
}

impl Tools {
    fn new(context: &Context) -> Self {
        // These frames are always there: they are no part of what is pending.
        let apart = Ledger::default();
        let frame = |bytes: &[u8]| Frame::new(bytes, Contents::default(), &apart);
        let mut ping = Vec::new();
        websocket::ping(b"", &mut ping);
        let mut json_ping = Vec::new();
        plain::encode_push(WireFormat::Json, &Push::Ping, &mut json_ping);
        Self {
            scratch: Vec::new(),
            random: SmallRng::from_rng(&mut rand::rng()),
            ping: frame(&ping),
            json_ping: context.rules.config.json_ping.then(|| frame(&json_ping)),
            comment: frame(b":\n\n"),
            messages: VecDeque::new(),
            slice: Vec::new(),
        }
    }

    /// A number in 0..1, to spread what would otherwise happen at once.
    pub(super) fn jitter(&mut self) -> f64 {
        self.random.random()
    }
}
