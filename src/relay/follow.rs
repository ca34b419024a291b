//! Following a stream, decided without doing anything: where a new subscriber begins, how one that is behind comes to the
//! present, and what a stream that was read again means to those who were there.
//!
//! `transport` does what is decided here, over sockets; the model of a fleet (`tests/forks`) does it over none. No I/O and
//! no clock, so that what is true of the one is true of the other.

use std::sync::Arc;

use crate::broker::{Page, Recovery};
use crate::hub::{ChannelIndex, Delivered, Hub, Stage};
use crate::model::{Encode, Position, Publication};

/// After so many waits one that is ahead asks the broker: what it saw may have been rolled back.
const WAITS_PER_READ: u32 = 128;

/// Where a new subscriber begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beginning {
    /// Where it stands; `None` without history.
    pub position: Option<Position>,
    /// `None` when recovery was not asked for.
    pub recovered: Option<bool>,
    /// What was missed, to be sent before what comes.
    pub missed: Option<Page>,
}

/// What is to be done for a new subscriber of a channel whose position is known here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Welcome {
    /// It begins.
    Begin(Beginning),
    /// The broker is to say what came after this position; then see [`welcome_back`].
    Ask(Position),
}

/// A new subscriber came. `claimed` is what it has seen: nothing (`None`), something that no stream has (`Some(None)`), or
/// everything up to a position. `top` is where the stream stands for the others.
pub fn welcome(
    claimed: Option<Option<Position>>,
    top: Option<Position>,
    can_recover: bool,
) -> Welcome {
    let recovered = match (claimed, top) {
        (None, _) => None,
        (Some(Some(claimed)), Some(top)) if can_recover => match claimed == top {
            true => Some(true),
            false => return Welcome::Ask(claimed),
        },
        (Some(_), _) => Some(false),
    };
    Welcome::Begin(Beginning {
        position: top,
        recovered,
        missed: None,
    })
}

/// The broker said what came after the offset that a new subscriber claimed.
pub fn welcome_back(asked: u64, recovery: Recovery, top: Option<Position>) -> Beginning {
    match recovery {
        Recovery::Recovered(page) => Beginning {
            position: Some(Position::new(page.top.epoch, asked)),
            recovered: Some(true),
            missed: Some(page),
        },
        Recovery::Lost { .. } => Beginning {
            position: top,
            recovered: Some(false),
            missed: None,
        },
    }
}

/// What a subscriber that is behind does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It has what the others have: from now on it receives with them.
    GoLive,
    /// The hub is behind it, or reads again itself: it tries again in a while.
    Wait,
    /// The page after this position is read.
    Read(Position),
    /// A page is on its way, or there is no room for one: it goes on when that is over.
    Rest,
}

/// A subscriber on its way from a position to the present.
///
/// Live publications are not kept for it: it reads on until it stands where the hub stands. What a page brings beyond that
/// is left out, because it will come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CatchUp {
    position: Position,
    is_reading: bool,
    waited: u32,
}

impl CatchUp {
    /// `None` when it receives with the others at once. Who waited for other channels to be opened may have missed
    /// something since its position was taken.
    pub fn begin(
        position: Option<Position>,
        has_missed: bool,
        top: Option<Position>,
    ) -> Option<Self> {
        let is_behind = has_missed || position != top;
        let position = position.filter(|_| is_behind)?;
        Some(Self {
            position,
            is_reading: false,
            waited: 0,
        })
    }

    /// Everything up to here was sent.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Whether what is sent next, of a stream that stands at `top`, is the first that this subscriber sees of its epoch, and
    /// must name it: who is cut off behind it asks from there again.
    pub fn is_new_epoch(&self, top: Position) -> bool {
        self.position.epoch != top.epoch
    }

    /// A page after `asked` came, or did not. Answers whether it is this subscriber's: one that was asked for by an earlier
    /// subscription is not.
    pub fn handle_page(&mut self, asked: Position) -> bool {
        let is_own = self.position == asked;
        self.is_reading &= !is_own;
        is_own
    }

    /// So much was sent.
    pub fn advance(&mut self, position: Position) {
        self.position = position;
    }

    /// What to do now, where the hub stands at `top`.
    pub fn step(&mut self, top: Option<Position>, stage: Stage, has_room: bool) -> Step {
        if self.is_reading {
            return Step::Rest;
        }
        let from = self.position;
        let Some(top) = top.filter(|top| *top != from) else {
            return Step::GoLive;
        };
        // It is ahead of this hub, whose inbox holds the rest (it saw them on another node), or the hub itself is reading
        // again: it waits for that.
        let is_ahead = from.epoch == top.epoch && from.offset > top.offset;
        let asks = (self.waited + 1).is_multiple_of(WAITS_PER_READ);
        if stage != Stage::Live || (is_ahead && !asks) {
            self.waited = self.waited.wrapping_add(1);
            return Step::Wait;
        }
        if !has_room {
            return Step::Rest;
        }
        self.waited = self.waited.wrapping_add(1);
        self.is_reading = true;
        Step::Read(from)
    }
}

/// What of a page lies before the present. A page of another epoch is left: what is to be told of it is told when it is
/// read again.
pub fn presentable(page: &Page, top: Position) -> &[Arc<Publication>] {
    if page.top.epoch != top.epoch {
        return &[];
    }
    let publications = &page.publications;
    &publications[..publications.partition_point(|it| it.offset <= top.offset)]
}

/// That something was missed, as it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// How many, where somebody can count.
    pub dropped: Option<u64>,
    /// Where the stream stands now.
    pub position: Option<Position>,
}

/// What a subscriber missed after `from` is no longer kept.
pub fn give_up(from: Position, top: Option<Position>) -> Gap {
    let same_epoch = top.filter(|top| top.epoch == from.epoch);
    Gap {
        dropped: same_epoch.map(|top| top.offset.saturating_sub(from.offset)),
        position: top,
    }
}

/// What is to be done where something was missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missed {
    /// The channel keeps nothing: so many were told.
    Told(u64),
    /// Its stream is to be read from here.
    Read(Position),
    /// Nothing: nobody is here, or its stream is being read already.
    Nothing,
}

/// Whether a channel has subscribers and no stream.
pub fn keeps_nothing(hub: &Hub, channel: ChannelIndex) -> bool {
    let slot = hub.channel(channel);
    slot.is_some_and(|slot| slot.stage() == Stage::Live && slot.position().is_none())
}

/// Something before `seen` did not come, or nobody knows what (0).
pub fn missed(hub: &mut Hub, channel: ChannelIndex, seen: u64, encode: &mut dyn Encode) -> Missed {
    if keeps_nothing(hub, channel) {
        return Missed::Told(hub.tell_gap(channel, None, None, encode));
    }
    hub.begin_repair(channel, seen)
        .map_or(Missed::Nothing, Missed::Read)
}

/// What came of a stream that was read again.
#[derive(Debug, Default)]
pub struct Repaired {
    /// What was delivered.
    pub delivered: Delivered,
    /// How many were told that something is lost.
    pub gaps: u64,
    /// From where it is to be read once more.
    pub again: Option<Position>,
}

/// Whether a channel waits for what comes after `asked`. A read that was begun for an earlier life of the channel says
/// nothing about this one.
pub fn awaits(hub: &Hub, channel: ChannelIndex, asked: Position) -> bool {
    hub.channel(channel).is_some_and(|slot| {
        matches!(slot.stage(), Stage::Repairing { .. }) && slot.position() == Some(asked)
    })
}

/// A stream was read after `asked`: delivers what that brought as if it had come, or tells that it is lost. Does nothing
/// when that is not what the channel [`awaits`].
pub fn repair(
    hub: &mut Hub,
    channel: ChannelIndex,
    asked: Position,
    recovery: Recovery,
    encode: &mut dyn Encode,
) -> Repaired {
    let mut repaired = Repaired::default();
    if !awaits(hub, channel, asked) {
        return repaired;
    }
    match recovery {
        Recovery::Recovered(page) => {
            let is_new = page.top.epoch != asked.epoch;
            let last = page.publications.last();
            let reached = last.map_or(asked.offset, |last| last.offset);
            let position = Position::new(page.top.epoch, reached);
            let again = hub.resume(channel, position, !page.more);
            repaired.delivered = hub.deliver(channel, &page.publications, is_new, encode);
            repaired.again = again.then_some(position);
        }
        Recovery::Lost { top, fork } => {
            // After a rollback nobody can count what is missing, and what came after it is read from there.
            let at = fork.unwrap_or(top);
            let is_count = fork.is_none() && top.epoch == asked.epoch;
            let dropped = is_count.then(|| top.offset.checked_sub(asked.offset));
            let again = hub.resume(channel, at, at == top);
            repaired.gaps = hub.tell_gap(channel, dropped.flatten(), Some(at), encode);
            repaired.again = again.then_some(at);
        }
    }
    repaired
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Epoch, Payload};

    const ONE: Epoch = Epoch::from_bits(1);
    const TWO: Epoch = Epoch::from_bits(2);

    fn at(offset: u64) -> Position {
        Position::new(ONE, offset)
    }

    fn page(epoch: Epoch, offsets: std::ops::RangeInclusive<u64>, top: u64) -> Page {
        let publication = |offset| {
            Arc::new(Publication {
                offset,
                data: Payload::from_plain_json("1".to_owned()),
                origin: None,
                key: None,
            })
        };
        let last = *offsets.end();
        Page {
            publications: offsets.map(publication).collect(),
            top: Position::new(epoch, top),
            more: last < top,
        }
    }

    #[test]
    fn who_claims_nothing_or_the_present_begins_at_once() {
        let top = Some(at(5));
        let begin = |recovered| {
            Welcome::Begin(Beginning {
                position: top,
                recovered,
                missed: None,
            })
        };
        assert_eq!(welcome(None, top, true), begin(None));
        assert_eq!(welcome(Some(Some(at(5))), top, true), begin(Some(true)));
        assert_eq!(welcome(Some(None), top, true), begin(Some(false)));
        assert_eq!(welcome(Some(Some(at(5))), top, false), begin(Some(false)));
        assert_eq!(welcome(Some(Some(at(4))), top, true), Welcome::Ask(at(4)));
    }

    #[test]
    fn who_is_ahead_waits_and_asks_now_and_then() {
        let mut ahead = CatchUp::begin(Some(at(9)), true, Some(at(5))).expect("behind");
        let steps: Vec<Step> = (0..WAITS_PER_READ)
            .map(|_| ahead.step(Some(at(5)), Stage::Live, true))
            .collect();
        let (last, waits) = steps.split_last().expect("steps");
        assert!(waits.iter().all(|step| *step == Step::Wait));
        assert_eq!(*last, Step::Read(at(9)));
        assert_eq!(ahead.step(Some(at(9)), Stage::Live, true), Step::Rest);
        assert!(ahead.handle_page(at(9)));
        assert_eq!(ahead.step(Some(at(9)), Stage::Live, true), Step::GoLive);
    }

    #[test]
    fn a_page_of_an_earlier_subscription_is_not_taken() {
        let mut behind = CatchUp::begin(Some(at(2)), true, Some(at(5))).expect("behind");
        assert_eq!(
            behind.step(Some(at(5)), Stage::Live, true),
            Step::Read(at(2))
        );
        assert!(!behind.handle_page(at(1)));
        assert_eq!(behind.step(Some(at(5)), Stage::Live, true), Step::Rest);
        assert!(behind.handle_page(at(2)));
    }

    #[test]
    fn a_page_is_shown_up_to_the_present_and_in_its_own_epoch_only() {
        let offsets = |page: &Page, top| {
            let shown = presentable(page, top).iter();
            shown.map(|it| it.offset).collect::<Vec<_>>()
        };
        assert_eq!(offsets(&page(ONE, 3..=6, 6), at(5)), [3, 4, 5]);
        assert!(offsets(&page(TWO, 3..=6, 6), at(5)).is_empty());
    }
}
