//! The hub alone, with an encoder whose frames can be read, and clients that read their byte streams strictly.

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::model::{ClientId, Encode, Epoch, Event, Member, Payload, Publication, UserId};

const FORMATS: [WireFormat; 4] = WireFormat::ALL;

/// Frames as words between `<` and `>`.
#[derive(Default)]
struct Toy;

fn put(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

fn place(position: Option<Position>) -> String {
    position.map_or("-".to_owned(), |position| {
        let epoch = epoch_number(position.epoch);
        format!("{epoch}:{}", position.offset)
    })
}

fn epoch(number: u128) -> Epoch {
    Epoch::from_bits(number)
}

fn epoch_number(of: Epoch) -> u128 {
    (0..10).find(|number| epoch(*number) == of).unwrap_or(99)
}

fn at(offset: u64) -> Position {
    Position::new(epoch(1), offset)
}

impl Encode for Toy {
    fn publication(
        &mut self,
        _: WireFormat,
        channel: &ChannelKey,
        publication: &Publication,
        epoch: Option<Epoch>,
        first: bool,
        out: &mut Vec<u8>,
    ) {
        let epoch = epoch.filter(|_| first).map(epoch_number);
        let epoch = epoch.map_or(String::new(), |epoch| format!("@{epoch}"));
        let data = String::from_utf8_lossy(publication.data.as_bytes());
        let offset = publication.offset;
        let text = format!("<{}{epoch} {offset} {data}>", channel.name());
        put(out, &text);
    }

    fn join(&mut self, format: WireFormat, channel: &ChannelKey, _: &Member, out: &mut Vec<u8>) {
        if matches!(format, WireFormat::Json | WireFormat::MessagePack) {
            put(out, &format!("<join {}>", channel.name()));
        }
    }

    fn leave(&mut self, format: WireFormat, channel: &ChannelKey, _: &Member, out: &mut Vec<u8>) {
        if matches!(format, WireFormat::Json | WireFormat::MessagePack) {
            put(out, &format!("<leave {}>", channel.name()));
        }
    }

    fn gap(
        &mut self,
        _: WireFormat,
        channel: &ChannelKey,
        dropped: Option<u64>,
        position: Option<Position>,
        out: &mut Vec<u8>,
    ) {
        let dropped = dropped.map_or("?".to_owned(), |dropped| dropped.to_string());
        put(
            out,
            &format!("<gap {} {dropped} {}>", channel.name(), place(position)),
        );
    }

    fn event_id(&mut self, positions: &[Option<Position>], _: u64, out: &mut Vec<u8>) {
        let places: Vec<_> = positions.iter().map(|position| place(*position)).collect();
        put(out, &format!("<id {}>", places.join(",")));
    }
}

/// A hub whose sockets are strings.
struct Bench {
    hub: Hub,
    /// What each connection was written.
    received: BTreeMap<ConnectionIndex, String>,
}

const ROOMY: Limits = Limits {
    pending_bytes_max: 1 << 20,
    pending_messages_max: 1 << 12,
    total_pending_bytes_max: 1 << 24,
};

fn key(name: &str) -> ChannelKey {
    ChannelKey::new(name).expect("a name")
}

fn publication(offset: u64, data: &str) -> Arc<Publication> {
    keyed(offset, data, None)
}

fn keyed(offset: u64, data: &str, key: Option<&str>) -> Arc<Publication> {
    Arc::new(Publication {
        offset,
        data: Payload::from_plain_json(data.to_owned()),
        origin: None,
        key: key.map(Arc::from),
    })
}

impl Bench {
    fn new(limits: Limits) -> Self {
        Self {
            hub: Hub::new(limits),
            received: BTreeMap::new(),
        }
    }

    fn with_messages(pending_messages_max: usize) -> Self {
        Self::new(Limits {
            pending_messages_max,
            ..ROOMY
        })
    }

    /// A connection that receives the channel, which stands at 0.
    fn live(
        &mut self,
        format: WireFormat,
        name: &str,
        overflow: OverflowPolicy,
    ) -> ConnectionIndex {
        let connection = self.hub.connect(format);
        self.go_live(connection, name, overflow);
        connection
    }

    fn go_live(&mut self, connection: ConnectionIndex, name: &str, overflow: OverflowPolicy) {
        let subscribed = self.hub.subscribe(connection, &key(name), overflow, false);
        let channel = self.channel(name);
        if subscribed == Subscribed::First(channel) {
            self.hub.start(channel, Some(at(0)));
        }
        self.hub.go_live(connection, channel);
    }

    fn channel(&self, name: &str) -> ChannelIndex {
        self.hub.find_channel(&key(name)).expect("a channel")
    }

    /// What comes from the broker, judged and delivered one by one.
    fn publish(&mut self, name: &str, publications: &[Arc<Publication>]) -> Delivered {
        let channel = self.channel(name);
        let mut sum = Delivered::default();
        for publication in publications {
            let verdict = self.hub.judge(channel, Some(epoch(1)), publication.offset);
            assert!(matches!(verdict, Verdict::Next { .. }), "{verdict:?}");
            let one = self
                .hub
                .deliver(channel, std::slice::from_ref(publication), false, &mut Toy);
            sum.deliveries += one.deliveries;
            sum.dropped += one.dropped;
            sum.gaps += one.gaps;
        }
        sum
    }

    fn offsets(&mut self, name: &str, offsets: std::ops::RangeInclusive<u64>) -> Delivered {
        let publications: Vec<_> = offsets.map(|offset| publication(offset, "x")).collect();
        self.publish(name, &publications)
    }

    /// The socket takes so many bytes.
    fn take(&mut self, connection: ConnectionIndex, most: usize) {
        let queue = self.hub.queue(connection).expect("a connection");
        let mut slices = [IoSlice::new(&[]); 64];
        let filled = queue.slices(&mut slices);
        let bytes: Vec<u8> = slices[..filled]
            .iter()
            .flat_map(|slice| slice.iter().copied())
            .take(most)
            .collect();
        let length = bytes.len();
        queue.advance(length);
        let text = String::from_utf8(bytes).expect("ASCII");
        self.received.entry(connection).or_default().push_str(&text);
    }

    fn drain(&mut self, connection: ConnectionIndex) {
        while !self.hub.queue(connection).expect("it").is_empty() {
            self.take(connection, usize::MAX);
        }
    }

    /// Everything that a connection was ever sent, frame by frame. A torn frame fails.
    fn frames(&mut self, connection: ConnectionIndex) -> Vec<String> {
        self.drain(connection);
        let text = self.received.entry(connection).or_default();
        let mut frames = Vec::new();
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let end = rest.find('>').expect("the end of a frame");
            let frame = rest[..end].strip_prefix('<').expect("a frame's begin");
            assert!(!frame.contains('<'), "a torn frame in {text}");
            frames.push(frame.to_owned());
            rest = &rest[end + 1..];
        }
        frames
    }
}

// --- who receives what ---

#[derive(Debug, Clone)]
enum Step {
    Connect(WireFormat),
    Subscribe(usize, usize),
    GoLive(usize, usize),
    Unsubscribe(usize, usize),
    Disconnect(usize),
    Publish(usize, u8),
}

fn step() -> impl Strategy<Value = Step> {
    let (who, what) = (0..12usize, 0..4usize);
    prop_oneof![
        2 => prop::sample::select(FORMATS.to_vec()).prop_map(Step::Connect),
        6 => (who.clone(), what.clone()).prop_map(|(who, what)| Step::Subscribe(who, what)),
        6 => (who.clone(), what.clone()).prop_map(|(who, what)| Step::GoLive(who, what)),
        3 => (who.clone(), what.clone()).prop_map(|(who, what)| Step::Unsubscribe(who, what)),
        1 => who.prop_map(Step::Disconnect),
        4 => (what, 1..4u8).prop_map(|(what, count)| Step::Publish(what, count)),
    ]
}

/// A hub and a naive model of it: who is subscribed to what, receiving or not, and what each must have received.
struct Modelled {
    bench: Bench,
    connections: Vec<ConnectionIndex>,
    subscriptions: BTreeMap<(ConnectionIndex, usize), bool>,
    expected: BTreeMap<ConnectionIndex, Vec<String>>,
    published: u64,
}

impl Modelled {
    fn new() -> Self {
        Self {
            bench: Bench::new(ROOMY),
            connections: Vec::new(),
            subscriptions: BTreeMap::new(),
            expected: BTreeMap::new(),
            published: 0,
        }
    }

    fn name(what: usize) -> String {
        format!("c{what}")
    }

    fn apply(&mut self, step: &Step) {
        let who = |connections: &[ConnectionIndex], at: usize| {
            (!connections.is_empty()).then(|| connections[at % connections.len()])
        };
        match *step {
            Step::Connect(format) => self.connect(format),
            Step::Publish(what, count) => self.publish(what, count),
            Step::Disconnect(at) => {
                if let Some(connection) = who(&self.connections, at) {
                    self.bench.hub.disconnect(connection, &mut Vec::new());
                    self.connections.retain(|other| *other != connection);
                    self.subscriptions
                        .retain(|(other, _), _| *other != connection);
                }
            }
            Step::Subscribe(at, what) | Step::GoLive(at, what) | Step::Unsubscribe(at, what) => {
                if let Some(connection) = who(&self.connections, at) {
                    self.change(step, connection, what);
                }
            }
        }
        self.check_lists();
    }

    fn connect(&mut self, format: WireFormat) {
        let connection = self.bench.hub.connect(format);
        // An index that is used again begins with nothing of the one before.
        assert!(self.bench.hub.queue(connection).expect("it").is_empty());
        self.bench.received.insert(connection, String::new());
        self.expected.insert(connection, Vec::new());
        self.connections.push(connection);
    }

    fn change(&mut self, step: &Step, connection: ConnectionIndex, what: usize) {
        let (name, hub) = (Self::name(what), &mut self.bench.hub);
        let entry = (connection, what);
        match step {
            Step::Subscribe(..) => {
                let had = self.subscriptions.contains_key(&entry);
                let policy = OverflowPolicy::Disconnect;
                let subscribed =
                    hub.subscribe(connection, &key(&name), policy, what.is_multiple_of(2));
                assert_eq!(subscribed == Subscribed::Already, had);
                if let Subscribed::First(channel) = subscribed {
                    hub.start(channel, None);
                }
                self.subscriptions.entry(entry).or_insert(false);
            }
            Step::GoLive(..) => {
                if let Some(channel) = hub.find_channel(&key(&name)) {
                    hub.go_live(connection, channel);
                }
                if let Some(is_live) = self.subscriptions.get_mut(&entry) {
                    *is_live = true;
                }
            }
            _ => {
                let had = self.subscriptions.remove(&entry).is_some();
                let ended = hub.unsubscribe(connection, &key(&name));
                assert_eq!(ended.is_some(), had);
                let is_left = self.subscriptions.keys().any(|(_, other)| *other == what);
                assert_eq!(ended.unwrap_or(!is_left), !is_left);
            }
        }
    }

    fn publish(&mut self, what: usize, count: u8) {
        let name = Self::name(what);
        let publications: Vec<_> = (0..count)
            .map(|_| {
                self.published += 1;
                publication(0, &self.published.to_string())
            })
            .collect();
        let live: Vec<_> = self
            .subscriptions
            .iter()
            .filter(|((_, other), is_live)| *other == what && **is_live)
            .map(|((connection, _), _)| *connection)
            .collect();
        for connection in &live {
            for publication in &publications {
                let data = String::from_utf8_lossy(publication.data.as_bytes());
                let frames = self.expected.get_mut(connection).expect("it");
                frames.push(format!("{name} 0 {data}"));
            }
        }
        let Some(channel) = self.bench.hub.find_channel(&key(&name)) else {
            return assert!(live.is_empty());
        };
        let delivered = self
            .bench
            .hub
            .deliver(channel, &publications, false, &mut Toy);
        assert_eq!(delivered.deliveries, live.len() as u64 * u64::from(count));
    }

    /// Every subscription knows its place, and every place its subscription.
    fn check_lists(&self) {
        let hub = &self.bench.hub;
        for (connection, entry) in &hub.connections {
            for subscription in &entry.subscriptions {
                if subscription.index != PAUSED {
                    let channel = &hub.channels[subscription.channel as usize];
                    let live = &channel.live[entry.format.index()];
                    assert_eq!(live[subscription.index as usize], index(connection));
                }
            }
        }
        for (channel, slot) in &hub.channels {
            let name = slot.key.name();
            let mine = self.subscriptions.iter();
            let mine: Vec<_> = mine
                .filter(|((_, what), _)| Self::name(*what) == name)
                .collect();
            let live = mine.iter().filter(|(_, is_live)| **is_live).count();
            assert_eq!(
                (slot.live_count(), slot.paused as usize),
                (live, mine.len() - live)
            );
            assert_eq!(hub.by_key[&slot.key], index(channel));
        }
        assert_eq!(hub.channels.len(), hub.by_key.len());
    }

    fn check_received(&mut self) {
        for connection in self.connections.clone() {
            assert_eq!(self.bench.frames(connection), self.expected[&connection]);
        }
        assert_eq!(self.bench.hub.held_bytes(), 0, "all queues are empty");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn each_publication_is_delivered_to_exactly_the_live_subscribers_once(
        steps in prop::collection::vec(step(), 1..150),
    ) {
        let mut modelled = Modelled::new();
        for step in &steps {
            modelled.apply(step);
        }
        modelled.check_received();
    }
}

#[test]
fn a_channel_is_vacated_by_its_last_subscriber_however_they_end() {
    let mut bench = Bench::new(ROOMY);
    let [a, b, c] = [(); 3].map(|()| bench.live(WireFormat::Json, "n", OverflowPolicy::Disconnect));
    assert_eq!(bench.hub.unsubscribe(a, &key("n")), Some(false));
    let mut vacated = Vec::new();
    bench.hub.begin_close(b, &mut vacated);
    assert!(vacated.is_empty());
    bench.hub.disconnect(c, &mut vacated);
    assert_eq!(vacated, [key("n")]);
    assert_eq!(bench.hub.channel_count(), 0);
    assert_eq!(bench.hub.unsubscribe(a, &key("n")), None);
}

/// A subscribe that came for a connection that was gone left a channel without subscribers behind: the next subscriber
/// was told that others had started it, and waited for a position that nobody had asked for.
#[test]
fn a_subscribe_for_nobody_leaves_no_channel_behind() {
    let mut bench = Bench::new(ROOMY);
    let policy = OverflowPolicy::Disconnect;
    let gone = bench.hub.connect(WireFormat::Json);
    bench.hub.disconnect(gone, &mut Vec::new());
    let subscribed = bench.hub.subscribe(gone, &key("n"), policy, false);
    assert_eq!(subscribed, Subscribed::Already);
    assert_eq!(bench.hub.channel_count(), 0);
    let other = bench.hub.connect(WireFormat::Json);
    let subscribed = bench.hub.subscribe(other, &key("n"), policy, false);
    assert!(matches!(subscribed, Subscribed::First(_)), "{subscribed:?}");
}

// --- where the stream stands ---

#[test]
fn the_tables_of_a_crowd_go_with_the_last_of_it() {
    let mut hub = Hub::new(ROOMY);
    let mut vacated = Vec::new();
    let crowd: Vec<ConnectionIndex> = (0..5000)
        .map(|number| {
            let connection = hub.connect(WireFormat::Json);
            let key = key(&format!("channel-{number}"));
            hub.subscribe(connection, &key, OverflowPolicy::Disconnect, false);
            connection
        })
        .collect();
    for connection in crowd {
        hub.disconnect(connection, &mut vacated);
    }
    assert_eq!(vacated.len(), 5000);
    let tables = [
        hub.connections.capacity(),
        hub.channels.capacity(),
        hub.by_key.capacity(),
    ];
    assert!(
        tables.iter().all(|places| *places <= PLACES_KEPT),
        "{tables:?}"
    );
}

#[test]
fn judge_knows_the_next_the_old_and_the_hole() {
    let mut bench = Bench::new(ROOMY);
    let connection = bench.hub.connect(WireFormat::Json);
    bench
        .hub
        .subscribe(connection, &key("n"), OverflowPolicy::Disconnect, false);
    let n = bench.channel("n");
    let next = Verdict::Next {
        first_of_epoch: false,
    };
    let one = Some(epoch(1));
    assert_eq!(bench.hub.judge(n, one, 1), Verdict::PassOver, "not started");
    assert_eq!(bench.hub.judge(77, one, 1), Verdict::Unwanted);
    bench.hub.start(n, Some(at(4)));
    for (offset, verdict) in [
        (4, Verdict::PassOver),
        (6, Verdict::Hole),
        (5, next),
        (5, Verdict::PassOver),
        (6, next),
    ] {
        assert_eq!(bench.hub.judge(n, one, offset), verdict, "{offset}");
    }
    assert_eq!(bench.hub.judge(n, Some(epoch(2)), 7), Verdict::Hole);
    assert_eq!(bench.hub.begin_repair(n, 9), Some(at(6)));
    assert_eq!(bench.hub.begin_repair(n, 9), None, "one read at a time");
    assert_eq!(bench.hub.judge(n, one, 7), Verdict::PassOver);
    assert!(bench.hub.resume(n, at(8), true), "9 was seen");
    assert!(!bench.hub.resume(n, at(9), true));
    assert_eq!(bench.hub.judge(n, one, 10), next);
}

#[test]
fn without_history_everything_is_next_and_nothing_can_be_read_again() {
    let mut bench = Bench::new(ROOMY);
    let connection = bench.hub.connect(WireFormat::Json);
    bench
        .hub
        .subscribe(connection, &key("n"), OverflowPolicy::Disconnect, false);
    let n = bench.channel("n");
    bench.hub.start(n, None);
    for _ in 0..2 {
        let verdict = bench.hub.judge(n, None, 0);
        assert!(matches!(verdict, Verdict::Next { .. }));
    }
    assert_eq!(bench.hub.begin_repair(n, 0), None);
}

/// A late envelope of an epoch that was left, with an offset far above the new top, kept the channel reading for ever:
/// every read ended below the offset that had been seen.
#[test]
fn a_repair_ends_though_an_offset_was_seen_that_the_stream_does_not_have() {
    let mut bench = Bench::new(ROOMY);
    bench.live(WireFormat::Json, "n", OverflowPolicy::Disconnect);
    let n = bench.channel("n");
    assert_eq!(bench.hub.judge(n, Some(epoch(7)), 1000), Verdict::Hole);
    bench.hub.begin_repair(n, 1000);
    assert!(bench.hub.resume(n, at(3), true), "read once more");
    assert!(!bench.hub.resume(n, at(3), true), "and no more");
    assert_eq!(bench.hub.channel(n).expect("it").stage(), Stage::Live);
}

/// A publication that overtook the broker's answer to the first interest was passed over, and missed until the next one
/// told of the hole.
#[test]
fn what_came_before_the_position_was_known_is_read_again() {
    let mut bench = Bench::new(ROOMY);
    let connection = bench.hub.connect(WireFormat::Json);
    let policy = OverflowPolicy::Disconnect;
    bench.hub.subscribe(connection, &key("n"), policy, false);
    let n = bench.channel("n");
    assert_eq!(bench.hub.judge(n, Some(epoch(1)), 6), Verdict::PassOver);
    assert!(bench.hub.start(n, Some(at(5))));
    assert_eq!(bench.hub.begin_repair(n, 0), Some(at(5)));
}

/// A hole that was told while the stream's position was asked for, or the stream read, was taken for part of that: but
/// the answer may be older than the loss, and nobody heard of it until the next publication.
#[test]
fn a_hole_that_is_told_while_an_answer_is_on_its_way_is_read_again() {
    let mut bench = Bench::new(ROOMY);
    let connection = bench.hub.connect(WireFormat::Json);
    let policy = OverflowPolicy::Disconnect;
    bench.hub.subscribe(connection, &key("n"), policy, false);
    let n = bench.channel("n");
    assert_eq!(bench.hub.begin_repair(n, 0), None, "not started");
    assert!(bench.hub.start(n, Some(at(5))));
    assert_eq!(bench.hub.begin_repair(n, 0), Some(at(5)));
    assert_eq!(bench.hub.begin_repair(n, 0), None, "is being read");
    assert!(bench.hub.resume(n, at(6), true));
    assert!(!bench.hub.resume(n, at(6), true));
}

/// Interest that ended and began again while the first answer was on its way brings two answers. The second one moved a
/// stream that had gone on: back, so that publications came twice, or forth, so that they never came.
#[test]
fn a_second_start_does_not_move_a_stream_that_goes_on() {
    let mut bench = Bench::new(ROOMY);
    let connection = bench.live(WireFormat::Json, "n", OverflowPolicy::Disconnect);
    let n = bench.channel("n");
    bench.offsets("n", 1..=3);
    for (position, is_ahead) in [(at(2), false), (at(5), true)] {
        assert_eq!(bench.hub.start(n, Some(position)), is_ahead);
        assert_eq!(bench.hub.channel(n).expect("it").position(), Some(at(3)));
    }
    bench.offsets("n", 4..=5);
    assert_eq!(bench.frames(connection).len(), 5);
}

/// An epoch that began while nothing was published was never told: the next publication went out without it, and
/// clients took its offset for one of the old epoch.
#[test]
fn the_first_publication_of_an_epoch_names_it_even_when_the_repair_brought_none() {
    let mut bench = Bench::new(ROOMY);
    let connection = bench.live(WireFormat::Json, "n", OverflowPolicy::Disconnect);
    bench.offsets("n", 1..=1);
    let n = bench.channel("n");
    bench.hub.begin_repair(n, 0);
    bench.hub.resume(n, Position::new(epoch(2), 1), true);
    for offset in 2..=3 {
        let verdict = bench.hub.judge(n, Some(epoch(2)), offset);
        assert!(matches!(verdict, Verdict::Next { .. }));
        let publications = [publication(offset, "x")];
        bench.hub.deliver(n, &publications, false, &mut Toy);
    }
    assert_eq!(bench.frames(connection), ["n 1 x", "n@2 2 x", "n 3 x"]);
}

#[test]
fn a_gap_names_the_new_epoch_so_that_publications_need_not() {
    let mut bench = Bench::new(ROOMY);
    let connection = bench.live(WireFormat::Json, "n", OverflowPolicy::Disconnect);
    let n = bench.channel("n");
    bench.hub.begin_repair(n, 0);
    let top = Position::new(epoch(2), 4);
    assert!(!bench.hub.resume(n, top, true));
    assert_eq!(bench.hub.tell_gap(n, None, Some(top), &mut Toy), 1);
    bench.hub.judge(n, Some(epoch(2)), 5);
    bench
        .hub
        .deliver(n, &[publication(5, "x")], false, &mut Toy);
    assert_eq!(bench.frames(connection), ["gap n ? 2:4", "n 5 x"]);
}

// --- frames ---

#[test]
fn publications_are_joined_into_one_frame_and_each_counts() {
    let mut bench = Bench::new(ROOMY);
    let one = bench.live(WireFormat::Json, "n", OverflowPolicy::Disconnect);
    let publications: Vec<_> = (1..=5).map(|offset| publication(offset, "x")).collect();
    let n = bench.channel("n");
    let delivered = bench.hub.deliver(n, &publications, true, &mut Toy);
    assert_eq!(delivered.deliveries, 5);
    let queue = bench.hub.queue(one).expect("it");
    assert!(queue.only().is_some(), "one frame");
    assert_eq!(queue.pending_messages(), 5);
    let frames = bench.frames(one);
    assert_eq!(frames, ["n@1 1 x", "n 2 x", "n 3 x", "n 4 x", "n 5 x"]);
}

/// With a small bound a burst was joined into a frame over the bound, and every subscriber was closed as too slow, those
/// with an empty queue as well.
#[test]
fn a_joined_frame_is_never_itself_what_does_not_fit() {
    let limits = Limits {
        pending_bytes_max: 4096,
        pending_messages_max: 64,
        ..ROOMY
    };
    let mut bench = Bench::new(limits);
    let one = bench.live(WireFormat::Json, "n", OverflowPolicy::Disconnect);
    let n = bench.channel("n");
    let large = "y".repeat(1000);
    let mut offset = 0;
    for (count, data) in [(60, "x"), (4, large.as_str()), (60, "x")] {
        let publications: Vec<_> = (0..count)
            .map(|_| {
                offset += 1;
                publication(offset, data)
            })
            .collect();
        bench.hub.deliver(n, &publications, false, &mut Toy);
        assert!(bench.hub.take_overflowed().is_empty());
        bench.drain(one);
    }
    assert_eq!(bench.frames(one).len(), 124);
}

#[test]
fn the_ledger_counts_what_is_shared_once_and_ends_at_nothing() {
    let mut bench = Bench::new(ROOMY);
    let [a, b] = [(); 2].map(|()| bench.live(WireFormat::Json, "n", OverflowPolicy::Disconnect));
    bench.offsets("n", 1..=1);
    assert_eq!(bench.hub.held_bytes(), "<n 1 x>".len());
    bench.take(a, 3);
    bench.drain(a);
    assert_eq!(
        bench.hub.held_bytes(),
        "<n 1 x>".len(),
        "the other one waits"
    );
    bench.hub.disconnect(b, &mut Vec::new());
    assert_eq!(bench.hub.held_bytes(), 0);
}

// --- overflow, as a client sees it ---

#[test]
fn disconnect_closes_whom_it_does_not_fit_and_nobody_else() {
    let mut bench = Bench::with_messages(3);
    let slow = bench.live(WireFormat::Json, "n", OverflowPolicy::Disconnect);
    let fast = bench.live(WireFormat::Json, "n", OverflowPolicy::Disconnect);
    for offset in 1..=5 {
        bench.offsets("n", offset..=offset);
        bench.drain(fast);
    }
    assert_eq!(bench.hub.take_overflowed(), [slow], "once");
    assert_eq!(bench.frames(fast).len(), 5);
    let before = bench.hub.queue(slow).expect("it").pending_messages();
    bench.hub.send(slow, b"<late>");
    let after = bench.hub.queue(slow).expect("it").pending_messages();
    assert_eq!(before, after, "nothing is appended on the way out");
}

#[test]
fn drop_oldest_tells_a_gap_where_the_dropped_stood() {
    let mut bench = Bench::with_messages(4);
    let slow = bench.live(WireFormat::Json, "n", OverflowPolicy::DropOldest);
    bench.go_live(slow, "other", OverflowPolicy::Disconnect);
    bench.offsets("n", 1..=1);
    bench.take(slow, 2);
    bench.hub.send(slow, b"<reply>");
    bench.offsets("other", 1..=1);
    bench.offsets("n", 2..=2);
    bench.offsets("n", 3..=3);
    let why = "2 alone may go, and a gap takes its place";
    assert_eq!(bench.hub.take_overflowed(), [slow], "{why}");

    let mut bench = Bench::with_messages(5);
    let slow = bench.live(WireFormat::Json, "n", OverflowPolicy::DropOldest);
    bench.offsets("n", 1..=1);
    bench.take(slow, 2);
    bench.hub.send(slow, b"<reply>");
    let delivered = bench.offsets("n", 2..=9);
    assert_eq!(delivered.dropped, 6, "2 to 7");
    assert_eq!(delivered.gaps, 1, "one, that grew");
    let expected = ["n 1 x", "reply", "gap n 6 1:7", "n 8 x", "n 9 x"];
    assert_eq!(bench.frames(slow), expected);
    assert!(bench.hub.take_overflowed().is_empty());
}

#[test]
fn a_gap_that_was_begun_stays_and_the_next_stands_behind_it() {
    let mut bench = Bench::with_messages(3);
    let slow = bench.live(WireFormat::Json, "n", OverflowPolicy::DropOldest);
    bench.offsets("n", 1..=5);
    bench.take(slow, 3);
    bench.offsets("n", 6..=8);
    let frames = bench.frames(slow);
    assert_eq!(frames, ["gap n 3 1:3", "gap n 4 1:7", "n 8 x"]);
}

/// The `gap` stood where the last of the dropped had stood. What was kept in front of it told the client a position
/// behind the first dropped: one that was cut off there came back from that position, and never heard of the loss.
#[test]
fn latest_tells_the_gap_before_anything_newer_than_the_first_that_went() {
    let mut bench = Bench::with_messages(4);
    let slow = bench.live(WireFormat::Json, "n", OverflowPolicy::Latest);
    let publications = [
        keyed(1, "a", Some("a")),
        keyed(2, "b", Some("b")),
        keyed(3, "a", Some("a")),
        keyed(4, "a", Some("a")),
        keyed(5, "a", Some("a")),
    ];
    bench.publish("n", &publications);
    let frames = bench.frames(slow);
    assert_eq!(frames, ["gap n 3 1:1", "n 2 b", "n 5 a"]);
}

/// What was pending of a subscription that was over still counted as the channel's, or as that of another channel which
/// had got its slot: dropped with the new one's publications, and told in a `gap` before `unsubscribed`.
#[test]
fn what_is_pending_of_a_subscription_that_is_over_is_no_policys() {
    for next in ["n", "other"] {
        let mut bench = Bench::with_messages(7);
        let slow = bench.live(WireFormat::Json, "n", OverflowPolicy::DropOldest);
        bench.offsets("n", 1..=2);
        let before = bench.channel("n");
        bench.hub.unsubscribe(slow, &key("n"));
        bench.hub.send(slow, b"<unsubscribed>");
        bench.go_live(slow, next, OverflowPolicy::DropOldest);
        assert_eq!(bench.channel(next), before, "the slot is used again");
        bench.offsets(next, 1..=9);
        let expected = [
            "n 1 x".to_owned(),
            "n 2 x".to_owned(),
            "unsubscribed".to_owned(),
            format!("gap {next} 6 1:6"),
            format!("{next} 7 x"),
            format!("{next} 8 x"),
            format!("{next} 9 x"),
        ];
        assert_eq!(bench.frames(slow), expected);
    }
}

/// A `gap` for all stood where it was sent, while a policy told of what it dropped on both sides of it in one of its
/// own, before it: the client was told to go forth, and back, and what had been dropped behind was silent.
#[test]
fn a_gap_for_all_joins_the_gap_of_what_is_dropped_around_it() {
    for policy in [OverflowPolicy::DropOldest, OverflowPolicy::Latest] {
        let mut bench = Bench::with_messages(4);
        let slow = bench.live(WireFormat::Json, "n", policy);
        bench.publish("n", &[keyed(1, "a", Some("a")), keyed(2, "c", Some("c"))]);
        let n = bench.channel("n");
        bench.hub.begin_repair(n, 0);
        let top = Position::new(epoch(2), 0);
        bench.hub.resume(n, top, true);
        bench.hub.tell_gap(n, None, Some(top), &mut Toy);
        for offset in 1..=4 {
            bench.hub.judge(n, Some(epoch(2)), offset);
            let next = [keyed(offset, "x", Some("a"))];
            bench.hub.deliver(n, &next, false, &mut Toy);
        }
        let frames = bench.frames(slow);
        let expected = ["gap n ? 2:1", "n 2 x", "n 3 x", "n 4 x"];
        assert_eq!(frames, expected, "{policy:?}");
    }
}

#[test]
fn latest_closes_when_every_key_is_pending_once_and_there_is_no_room() {
    let mut bench = Bench::with_messages(3);
    let slow = bench.live(WireFormat::Json, "n", OverflowPolicy::Latest);
    for offset in 1..=4 {
        let name = offset.to_string();
        bench.publish("n", &[keyed(offset, "x", Some(&name))]);
    }
    assert_eq!(bench.hub.take_overflowed(), [slow]);
}

/// Each publication of a reader that was full of keys went through its whole queue, to make room for itself alone.
#[test]
fn latest_closes_when_going_through_the_queue_frees_next_to_nothing() {
    const KEYS: u64 = 200;
    for (repeated, is_closed) in [(2, true), (20, false)] {
        let mut bench = Bench::with_messages(KEYS as usize);
        let slow = bench.live(WireFormat::Json, "n", OverflowPolicy::Latest);
        for offset in 1..=KEYS + 1 {
            let name = (offset % (KEYS - repeated)).to_string();
            bench.publish("n", &[keyed(offset, "x", Some(&name))]);
        }
        assert_eq!(
            bench.hub.take_overflowed() == [slow],
            is_closed,
            "{repeated}"
        );
    }
}

#[test]
fn what_is_larger_than_the_bound_closes_under_every_policy() {
    use OverflowPolicy::{Disconnect, DropOldest, Latest};
    for policy in [Disconnect, DropOldest, Latest] {
        let mut bench = Bench::new(Limits {
            pending_bytes_max: 1000,
            ..ROOMY
        });
        let one = bench.live(WireFormat::Json, "n", policy);
        bench.offsets("n", 1..=2);
        bench.publish("n", &[publication(3, &"z".repeat(2000))]);
        assert_eq!(bench.hub.take_overflowed(), [one], "{policy:?}");
        assert!(bench.hub.queue(one).expect("it").pending_bytes() <= 1000);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever the reader does: no torn frame, no reply lost, the bounds hold, and of each channel every offset comes
    /// or is counted in a `gap`, in order.
    #[test]
    fn a_slow_reader_gets_or_is_told(
        policy in prop::sample::select(vec![OverflowPolicy::DropOldest, OverflowPolicy::Latest]),
        messages_max in 4..12usize,
        bytes_max in 600..900usize,
        format in prop::sample::select(FORMATS.to_vec()),
        steps in prop::collection::vec((0..5u8, 0..40usize), 1..120),
    ) {
        let limits = Limits { pending_bytes_max: bytes_max, pending_messages_max: messages_max, ..ROOMY };
        let mut bench = Bench::new(limits);
        let one = bench.live(format, "a", policy);
        bench.go_live(one, "b", policy);
        if format == WireFormat::SseMany {
            bench.hub.set_cursor(one, &[key("a"), key("b")], 1);
        }
        let (mut tops, mut replies) = ([0, 0], 0);
        for (kind, size) in steps {
            match kind {
                0 | 1 => {
                    tops[kind as usize] += 1;
                    let name = ["a", "b"][kind as usize];
                    let group = (size % 3).to_string();
                    let data = "x".repeat(size + 1);
                    bench.publish(name, &[keyed(tops[kind as usize], &data, Some(&group))]);
                }
                2 => {
                    bench.hub.send(one, format!("<reply {}>", replies + 1).as_bytes());
                    replies += 1;
                }
                _ => bench.take(one, size),
            }
            if !bench.hub.take_overflowed().is_empty() {
                // What made it overflow was the last.
                match kind {
                    2 => replies -= 1,
                    _ => tops[kind as usize] -= 1,
                }
                bench.hub.send_last(one, b"<close>", false);
                break;
            }
            let queue = bench.hub.queue(one).expect("it");
            prop_assert!(queue.pending_bytes() <= bytes_max);
            prop_assert!(queue.pending_messages() <= messages_max);
        }
        let frames = bench.frames(one);
        check_stream(&frames, tops, replies, policy);
        prop_assert_eq!(bench.hub.held_bytes(), 0);
    }
}

/// What a strict client makes of its frames.
fn check_stream(frames: &[String], tops: [u64; 2], replies: u64, policy: OverflowPolicy) {
    let (mut last, mut covered, mut replied) = ([0u64; 2], [0u64; 2], 0);
    let mut id = [0u64; 2];
    for (at, frame) in frames.iter().enumerate() {
        let words: Vec<&str> = frame.split(' ').collect();
        let offset = |text: &str| text.rsplit(':').next().and_then(|text| text.parse().ok());
        let (name, to, count) = match words[0] {
            "reply" => {
                replied += 1;
                assert_eq!(words[1], replied.to_string(), "{frames:?}");
                continue;
            }
            "close" => {
                assert_eq!(at, frames.len() - 1);
                continue;
            }
            "id" => {
                let places = words[1].split(',').map(|place| offset(place).unwrap_or(0));
                for (slot, place) in id.iter_mut().zip(places) {
                    *slot = place;
                }
                continue;
            }
            "gap" => (
                words[1],
                offset(words[3]).expect("it"),
                words[2].parse().expect("it"),
            ),
            name => (name, offset(words[1]).expect("it"), 1),
        };
        let channel = usize::from(name == "b");
        assert!(to > last[channel], "{name} went back to {to}: {frames:?}");
        let is_gap = words[0] == "gap";
        let is_told = is_gap || policy == OverflowPolicy::Latest;
        assert!(
            is_told || to == last[channel] + 1,
            "a silent hole: {frames:?}"
        );
        // Coming back from here would not pass over anything that was neither received nor told.
        assert!(covered[channel] + count >= to, "not told yet: {frames:?}");
        last[channel] = to;
        covered[channel] += count;
        assert!(
            id[channel] <= last[channel],
            "an id ahead of its event: {frames:?}"
        );
    }
    assert_eq!(covered, tops, "all came or were counted: {frames:?}");
    assert_eq!(replied, replies, "{frames:?}");
}

// --- several channels in one event stream ---

#[test]
fn each_event_of_several_channels_has_the_positions_of_all() {
    let mut bench = Bench::new(ROOMY);
    let one = bench.live(WireFormat::SseMany, "a", OverflowPolicy::Disconnect);
    bench.go_live(one, "b", OverflowPolicy::Disconnect);
    let single = bench.live(WireFormat::Sse, "a", OverflowPolicy::Disconnect);
    bench.hub.set_cursor(one, &[key("b"), key("a")], 1);
    bench.offsets("a", 1..=2);
    bench.offsets("b", 1..=1);
    let gap = bench.channel("a");
    bench.hub.tell_gap(gap, None, Some(at(9)), &mut Toy);
    let expected = [
        "id -,1:1",
        "a 1 x",
        "id -,1:2",
        "a 2 x",
        "id 1:1,1:2",
        "b 1 x",
        "id 1:1,1:9",
        "gap a ? 1:9",
    ];
    assert_eq!(bench.frames(one), expected);
    assert_eq!(bench.frames(single), ["a 1 x", "a 2 x", "gap a ? 1:9"]);
}

/// Channels that were not subscribed to were left out, and those behind them moved to the wrong place of the id.
#[test]
fn a_channel_that_is_not_there_keeps_its_place_in_the_id() {
    let mut bench = Bench::new(ROOMY);
    let one = bench.live(WireFormat::SseMany, "b", OverflowPolicy::Disconnect);
    bench.hub.set_cursor(one, &[key("a"), key("b")], 1);
    bench.offsets("b", 1..=1);
    assert_eq!(bench.frames(one), ["id -,1:1", "b 1 x"]);
}

/// Ids stayed behind when their publications were dropped: they filled the queue, until a stream that may drop was
/// closed all the same.
#[test]
fn ids_leave_with_their_publications() {
    let limits = Limits {
        pending_bytes_max: 1000,
        ..ROOMY
    };
    let mut bench = Bench::new(limits);
    let slow = bench.live(WireFormat::SseMany, "a", OverflowPolicy::DropOldest);
    bench.hub.set_cursor(slow, &[key("a")], 1);
    bench.offsets("a", 1..=1000);
    assert!(bench.hub.take_overflowed().is_empty());
    let frames = bench.frames(slow);
    assert!(frames[1].starts_with("gap a "), "{frames:?}");
    assert_eq!(
        frames.iter().filter(|it| it.starts_with("id")).count() * 2,
        frames.len()
    );
}

// --- presence ---

#[test]
fn joins_go_to_those_who_asked_and_receive() {
    let mut bench = Bench::new(ROOMY);
    let policy = OverflowPolicy::Disconnect;
    let n = key("n");
    let [watcher, waiting, plain, sse] = [
        WireFormat::Json,
        WireFormat::Json,
        WireFormat::Json,
        WireFormat::Sse,
    ]
    .map(|format| bench.hub.connect(format));
    for (connection, watches) in [
        (watcher, true),
        (waiting, true),
        (plain, false),
        (sse, true),
    ] {
        bench.hub.subscribe(connection, &n, policy, watches);
    }
    let channel = bench.channel("n");
    bench.hub.start(channel, None);
    for connection in [watcher, plain, sse] {
        bench.hub.go_live(connection, channel);
    }
    let member = Arc::new(Member {
        client: ClientId::from_bits(1),
        user: UserId::from("ann"),
        info: None,
    });
    bench
        .hub
        .announce(channel, &Event::Join([member.clone()].into()), &mut Toy);
    bench.hub.unsubscribe(watcher, &n);
    bench
        .hub
        .announce(channel, &Event::Leave([member].into()), &mut Toy);
    assert_eq!(bench.frames(watcher), ["join n"]);
    for connection in [waiting, plain, sse] {
        assert!(bench.frames(connection).is_empty());
    }
}

// --- bounds of the whole, and ends ---

/// Each of `count` connections with `bytes` pending of its own.
fn laden(bench: &mut Bench, count: usize, bytes: usize) -> Vec<ConnectionIndex> {
    (0..count)
        .map(|at| {
            let connection = bench.hub.connect(WireFormat::Json);
            bench
                .hub
                .send(connection, "m".repeat(bytes + at).as_bytes());
            connection
        })
        .collect()
}

#[test]
fn the_slowest_blocked_go_first_until_the_whole_fits() {
    let mut bench = Bench::new(Limits {
        total_pending_bytes_max: 10_000,
        ..ROOMY
    });
    let connections = laden(&mut bench, 12, 1000);
    bench.hub.shed();
    for connection in &connections[..8] {
        bench.hub.set_blocked(*connection, true);
    }
    let before = bench.hub.take_overflowed();
    let held = bench.hub.held_bytes();
    assert!(
        held <= 10_000,
        "nobody is blocked, and the bound holds all the same: {held}"
    );
    assert_eq!(before, [11, 10, 9], "those with the most");
    bench.hub.send(connections[0], &[b'm'; 3000]);
    bench.hub.shed();
    let shed = bench.hub.take_overflowed();
    assert!(bench.hub.held_bytes() <= 9_000, "with room for what comes");
    assert_eq!(shed, [0], "the slowest of the blocked");
}

#[test]
fn shedding_spares_the_rest_of_a_frame_that_was_begun() {
    let mut bench = Bench::new(Limits {
        total_pending_bytes_max: 100,
        ..ROOMY
    });
    let one = bench.hub.connect(WireFormat::Json);
    bench.hub.send(one, b"<begun>");
    bench.take(one, 3);
    bench
        .hub
        .send(one, format!("<{}>", "m".repeat(200)).as_bytes());
    bench.hub.set_blocked(one, true);
    bench.hub.shed();
    assert_eq!(bench.hub.take_overflowed(), [one]);
    bench.hub.send_last(one, b"<close>", true);
    assert_eq!(bench.frames(one), ["begun", "close"]);
}

#[test]
fn the_last_bytes_stand_behind_what_is_pending_or_in_its_place() {
    for (at_once, expected) in [
        (false, vec!["begun", "pending", "close"]),
        (true, vec!["begun", "close"]),
    ] {
        let mut bench = Bench::new(ROOMY);
        let one = bench.hub.connect(WireFormat::Json);
        bench.hub.send(one, b"<begun>");
        bench.hub.send(one, b"<pending>");
        bench.take(one, 1);
        bench.hub.begin_close(one, &mut Vec::new());
        bench.hub.send(one, b"<too late>");
        bench.hub.send_last(one, b"<close>", at_once);
        assert_eq!(bench.frames(one), expected);
    }
}

/// A peer that sends pings and reads nothing: pongs of two bytes never came near the bound in bytes, but each costs
/// fifty times that.
#[test]
fn the_count_of_answers_is_bounded_as_well() {
    let mut bench = Bench::with_messages(100);
    let one = bench.hub.connect(WireFormat::Json);
    for _ in 0..101 {
        bench.hub.send(one, b"<>");
    }
    assert_eq!(bench.hub.take_overflowed(), [one]);
    assert_eq!(bench.hub.queue(one).expect("it").pending_messages(), 100);
}

/// A connection that overflowed and was gone before it could be closed left its index behind: the next one to get it
/// was closed as too slow.
#[test]
fn an_index_that_is_used_again_did_not_overflow() {
    let mut bench = Bench::with_messages(1);
    let one = bench.live(WireFormat::Json, "n", OverflowPolicy::Disconnect);
    bench.offsets("n", 1..=2);
    bench.hub.disconnect(one, &mut Vec::new());
    assert_eq!(bench.hub.connect(WireFormat::Json), one);
    assert!(bench.hub.take_overflowed().is_empty());
}

#[test]
fn an_index_that_is_used_again_in_a_long_fan_out_is_written_what_is_its_own() {
    let mut bench = Bench::new(ROOMY);
    let all: Vec<_> = (0..300)
        .map(|_| bench.live(WireFormat::Json, "n", OverflowPolicy::Disconnect))
        .collect();
    bench.offsets("n", 1..=1);
    let last = all[299];
    bench.hub.disconnect(last, &mut Vec::new());
    assert_eq!(bench.hub.connect(WireFormat::MessagePack), last);
    bench.hub.send(last, b"<hello>");
    let (mut slice, mut written) = (Vec::new(), 0);
    while bench.hub.has_pending() {
        bench.hub.next_slice(&mut slice);
        for connection in slice.drain(..) {
            bench.drain(connection);
            written += 1;
        }
    }
    assert_eq!(bench.frames(last), ["hello"]);
    assert!(written <= 301, "{written}");
    bench.hub.send(last, b"<more>");
    assert!(bench.hub.has_pending(), "it can be written again");
}

#[test]
fn an_idle_connection_costs_less_than_100_bytes_and_owns_no_memory() {
    assert!(size_of::<Connection>() <= 96, "{}", size_of::<Connection>());
    let mut bench = Bench::new(ROOMY);
    let one = bench.live(WireFormat::Json, "n", OverflowPolicy::Disconnect);
    bench.offsets("n", 1..=50);
    bench.drain(one);
    let entry = &bench.hub.connections[one as usize];
    assert!(entry.queue.owns_nothing());
}
