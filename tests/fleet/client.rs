//! A client that reads its bytes strictly: it knows of each channel what it has received or was told that it missed, and
//! panics at whatever does not follow.

use std::collections::BTreeMap;

use fanfare::model::{ChannelKey, Epoch, OverflowPolicy, Position};
use serde_json::Value;

use crate::bus::Bus;
use crate::worker::Ref;

/// Where one subscription stands, as the client sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Asked for; nothing of the channel may come.
    Asked,
    /// Publications come.
    Active,
    /// Asked to end.
    Leaving,
}

#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) stage: Stage,
    /// What was received, or told to be missed, reaches up to here.
    pub(crate) cursor: Option<Position>,
    /// What `recover` asked for.
    asked: Option<Position>,
    /// `latest`: what was counted as dropped and has not been passed over yet.
    credit: u64,
    /// Without history: the number of the last publication, and whether one was skipped, or a `gap` told.
    last: u64,
    skipped: bool,
    told: bool,
}

/// What happened to a client, for the sums at the end.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) publications: u64,
    pub(crate) gaps: u64,
    /// Those of channels with history.
    pub(crate) kept_gaps: u64,
    pub(crate) lost: u64,
    pub(crate) recovered: u64,
    pub(crate) closes: u64,
}

pub(crate) struct SimClient {
    pub(crate) connection: Option<(usize, Ref)>,
    /// How many bytes its socket takes in a step.
    pub(crate) speed: usize,
    pub(crate) reconnect_at: u64,
    pub(crate) subscriptions: BTreeMap<ChannelKey, Subscription>,
    pub(crate) seen: Seen,
    buffer: Vec<u8>,
    has_closed: bool,
}

/// Cuts one server frame off; `None` when it is not whole yet.
fn cut_frame(buffer: &mut Vec<u8>) -> Option<(u8, Vec<u8>)> {
    let (&first, &second) = (buffer.first()?, buffer.get(1)?);
    assert!(
        first & 0xF0 == 0x80 && second < 128,
        "a torn frame: {buffer:?}"
    );
    let (header, length) = match second {
        126 => (
            4,
            usize::from(u16::from_be_bytes([*buffer.get(2)?, *buffer.get(3)?])),
        ),
        127 => unreachable!("no frame here is over 64 KiB"),
        short => (2, usize::from(short)),
    };
    if buffer.len() < header + length {
        return None;
    }
    let rest = buffer.split_off(header + length);
    let frame = std::mem::replace(buffer, rest);
    Some((first & 0x0F, frame[header..].to_vec()))
}

fn position(value: &Value) -> Option<Position> {
    let epoch = Epoch::parse(value["epoch"].as_str()?).expect("an epoch");
    Some(Position::new(epoch, value["offset"].as_u64()?))
}

impl SimClient {
    pub(crate) fn new(speed: usize) -> Self {
        Self {
            connection: None,
            speed,
            reconnect_at: 0,
            subscriptions: BTreeMap::new(),
            seen: Seen::default(),
            buffer: Vec::new(),
            has_closed: false,
        }
    }

    /// The connection is gone; what was half received is worth nothing.
    pub(crate) fn lost_connection(&mut self, reconnect_at: u64) {
        self.connection = None;
        self.buffer.clear();
        self.has_closed = false;
        self.reconnect_at = reconnect_at;
        self.subscriptions
            .retain(|_, subscription| subscription.stage != Stage::Leaving);
    }

    /// Asks for a channel, from where it stands. Answers what to ask for.
    pub(crate) fn ask(&mut self, channel: &ChannelKey) -> Option<Position> {
        let subscription = self
            .subscriptions
            .entry(channel.clone())
            .or_insert(Subscription {
                stage: Stage::Asked,
                cursor: None,
                asked: None,
                credit: 0,
                last: 0,
                skipped: false,
                told: false,
            });
        subscription.stage = Stage::Asked;
        subscription.asked = subscription.cursor;
        subscription.cursor
    }

    /// Whether it is connected and every channel that it wants has begun.
    pub(crate) fn is_settled(&self) -> bool {
        let mut subscriptions = self.subscriptions.values();
        self.connection.is_some() && subscriptions.all(|it| it.stage == Stage::Active)
    }

    pub(crate) fn receive(
        &mut self,
        bytes: &[u8],
        bus: &Bus,
        policy: impl Fn(&ChannelKey) -> OverflowPolicy,
    ) {
        self.buffer.extend_from_slice(bytes);
        while let Some((opcode, payload)) = cut_frame(&mut self.buffer) {
            assert!(!self.has_closed, "something after the close");
            if opcode == 8 {
                self.has_closed = true;
                self.seen.closes += 1;
                continue;
            }
            let message: Value = serde_json::from_slice(&payload).expect("JSON");
            let channel = message["channel"].as_str().expect("a channel");
            let channel = ChannelKey::new(channel).expect("a name");
            let policy = policy(&channel);
            self.take(&message, &channel, bus, policy);
        }
    }

    fn take(&mut self, message: &Value, channel: &ChannelKey, bus: &Bus, policy: OverflowPolicy) {
        let seen = &mut self.seen;
        if message["type"] == "unsubscribed" {
            let ended = self.subscriptions.remove(channel).expect("a subscription");
            return assert_eq!(ended.stage, Stage::Leaving);
        }
        let subscription = self.subscriptions.get_mut(channel);
        let subscription = subscription.unwrap_or_else(|| panic!("not subscribed: {message}"));
        match message["type"].as_str().expect("a type") {
            "subscribed" => subscription.begin(message, seen),
            kind => {
                assert_ne!(
                    subscription.stage,
                    Stage::Asked,
                    "before `subscribed`: {message}"
                );
                match kind {
                    "publication" => subscription.publication(message, channel, bus, policy, seen),
                    "gap" => subscription.gap(message, seen),
                    other => panic!("{other}"),
                }
            }
        }
    }
}

impl Subscription {
    fn begin(&mut self, message: &Value, seen: &mut Seen) {
        assert_eq!(self.stage, Stage::Asked, "twice: {message}");
        self.stage = Stage::Active;
        self.credit = 0;
        // Without history a subscription begins anew: who was away knows that it missed what came meanwhile.
        (self.last, self.skipped, self.told) = (0, false, false);
        let stands = position(message);
        match (self.asked, message["recovered"].as_bool()) {
            (Some(asked), Some(true)) => {
                assert_eq!(stands.expect("one").offset, asked.offset);
                seen.recovered += 1;
            }
            (Some(_), Some(false)) => seen.lost += 1,
            (None, None) => {}
            answer => panic!("{answer:?}: {message}"),
        }
        self.cursor = stands;
    }

    fn publication(
        &mut self,
        message: &Value,
        channel: &ChannelKey,
        bus: &Bus,
        policy: OverflowPolicy,
        seen: &mut Seen,
    ) {
        seen.publications += 1;
        let data = message["data"].to_string();
        let Some(cursor) = &mut self.cursor else {
            let number = data.trim_matches(|letter: char| !letter.is_ascii_digit());
            let number: u64 = number.parse().expect("a number");
            assert!(number > self.last, "order: {number} after {}", self.last);
            let log = &bus.log[&(channel.clone(), None)];
            let between = log.range(self.last + 1..number).next().is_some();
            self.skipped |= self.last > 0 && between;
            self.last = number;
            return assert_eq!(log[&number], data);
        };
        let offset = message["offset"].as_u64().expect("an offset");
        if let Some(epoch) = message["epoch"].as_str() {
            cursor.epoch = Epoch::parse(epoch).expect("an epoch");
        }
        assert!(
            offset > cursor.offset,
            "twice, or out of order: {message} after {cursor}"
        );
        let passed = offset - cursor.offset - 1;
        match policy {
            OverflowPolicy::Latest => {
                let left = self.credit.checked_sub(passed);
                self.credit = left.unwrap_or_else(|| panic!("silent: {message} after {cursor}"));
            }
            _ => assert_eq!(passed, 0, "a silent hole: {message} after {cursor}"),
        }
        cursor.offset = offset;
        let log = &bus.log[&(channel.clone(), Some(cursor.epoch))];
        assert_eq!(log[&offset], data, "another publication at {cursor}");
    }

    fn gap(&mut self, message: &Value, seen: &mut Seen) {
        seen.gaps += 1;
        self.told = true;
        let (Some(stands), Some(cursor)) = (position(message), &mut self.cursor) else {
            return assert_eq!(position(message), self.cursor, "no history, no position");
        };
        seen.kept_gaps += 1;
        match message["dropped"].as_u64() {
            Some(dropped) if stands.epoch == cursor.epoch => {
                let passed = stands.offset.checked_sub(cursor.offset).expect("not back");
                let told = self.credit + dropped;
                let left = told.checked_sub(passed);
                self.credit =
                    left.unwrap_or_else(|| panic!("miscounted: {message} after {cursor}"));
            }
            // Nobody could count: what `latest` drops behind it may be among it.
            _ => self.credit = u64::MAX / 2,
        }
        *cursor = stands;
    }

    /// Everything that was lost on the way of a channel without history was told.
    pub(crate) fn check_told(&self) {
        assert!(
            !self.skipped || self.told,
            "a loss that nobody told: {self:?}"
        );
    }
}
