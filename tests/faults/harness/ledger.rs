//! What one client was told of one channel, checked as it comes.
//!
//! A *segment* is what came without a word that something is missing: its offsets follow each other without a hole and
//! without a repetition. A `gap` or a `recovered: false` ends a segment. What a segment holds is compared with what Redis
//! holds when the run is over: that tells a lie from the truth, which offsets alone do not after a rollback.

use std::sync::Arc;

/// A place in a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) epoch: Arc<str>,
    pub(crate) offset: u64,
}

/// One publication as it came.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) at: Position,
    pub(crate) number: u64,
}

/// What came in one piece.
#[derive(Debug)]
pub(crate) struct Segment {
    /// What it follows.
    pub(crate) start: Position,
    pub(crate) received: Vec<Received>,
}

/// A client's view of a channel.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) segments: Vec<Segment>,
    /// Where the client stands: it comes back with this.
    pub(crate) cursor: Option<Position>,
    /// The last number that came; publishers count up.
    pub(crate) number: u64,
    /// What no client should ever see.
    pub(crate) faults: Vec<String>,
    /// How often it came back and was told that nothing is missing.
    pub(crate) recovered: u64,
    /// In a channel without history: whether the client knows that something may be missing.
    is_warned: bool,
    /// In a channel without history: numbers that never came, and of which nobody spoke.
    pub(crate) silent: u64,
    /// In a channel without history: how often the last number came again. A publisher that does not know what came of it
    /// tries again, and a server that lost its data does not know the idempotency key any more.
    pub(crate) repeated: u64,
}

impl Ledger {
    /// How often the client was told that something is missing.
    pub(crate) fn told(&self) -> usize {
        self.segments.len().saturating_sub(1)
    }

    /// A subscription that began without a position to go on from.
    pub(crate) fn started(&mut self, at: Option<Position>) {
        self.is_warned = true;
        let Some(at) = at else {
            return;
        };
        if self.cursor.is_some() {
            self.faults.push(format!("began anew at {at:?}"));
        }
        self.begin(at);
    }

    fn begin(&mut self, at: Position) {
        self.cursor = Some(at.clone());
        self.segments.push(Segment {
            start: at,
            received: Vec::new(),
        });
    }

    /// `recovered: true`, from the position that was asked for.
    pub(crate) fn recovered(&mut self, at: Position) {
        self.recovered += 1;
        match &self.cursor {
            Some(cursor) if cursor.offset == at.offset => self.cursor = Some(at),
            other => self
                .faults
                .push(format!("recovered to {at:?} instead of {other:?}")),
        }
    }

    /// `recovered: false`, or a gap.
    pub(crate) fn missed(&mut self, at: Option<Position>) {
        self.is_warned = true;
        if let Some(at) = at {
            self.begin(at);
        }
    }

    /// A publication with a position. The epoch is there where the client was told of it.
    pub(crate) fn publication(&mut self, epoch: Option<&str>, offset: u64, number: u64) {
        let Some(cursor) = &mut self.cursor else {
            return self.faults.push(format!("{offset} before a beginning"));
        };
        if offset != cursor.offset + 1 {
            let what = if offset <= cursor.offset {
                "again"
            } else {
                "lost"
            };
            self.faults
                .push(format!("{what}: {offset} ({number}) after {cursor:?}"));
        }
        if number <= self.number {
            // After a rollback the same number may stand at another position; the comparison sees to that.
            let is_told = self.segments.last().is_some_and(|segment| {
                !segment
                    .received
                    .iter()
                    .any(|received| received.number >= number)
            });
            if !is_told {
                self.faults
                    .push(format!("duplicate: number {number} after {}", self.number));
            }
        }
        self.number = number;
        cursor.offset = offset;
        if let Some(epoch) = epoch.filter(|epoch| **epoch != *cursor.epoch) {
            cursor.epoch = epoch.into();
        }
        let at = cursor.clone();
        let segment = self.segments.last_mut().expect("a cursor has a segment");
        segment.received.push(Received { at, number });
    }

    /// A publication of a channel without history.
    pub(crate) fn unkept(&mut self, number: u64) {
        if number == self.number {
            self.repeated += 1;
        } else if number < self.number {
            self.faults
                .push(format!("number {number} after {}", self.number));
        }
        if !std::mem::take(&mut self.is_warned) {
            self.silent += number.saturating_sub(self.number + 1);
        }
        self.number = number;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(epoch: &str, offset: u64) -> Position {
        let epoch = epoch.into();
        Position { epoch, offset }
    }

    fn standing_at_two() -> Ledger {
        let mut ledger = Ledger::default();
        ledger.started(Some(at("a", 1)));
        ledger.publication(None, 2, 20);
        assert!(ledger.faults.is_empty());
        ledger
    }

    #[test]
    fn a_hole_and_a_repetition_are_faults() {
        for (offset, number) in [(4, 40), (2, 20), (3, 20)] {
            let mut ledger = standing_at_two();
            ledger.publication(None, offset, number);
            assert!(!ledger.faults.is_empty(), "{offset} {number}");
        }
    }

    #[test]
    fn what_was_told_is_none() {
        let mut ledger = standing_at_two();
        ledger.recovered(at("b", 2));
        ledger.publication(Some("b"), 3, 30);
        ledger.missed(Some(at("c", 9)));
        ledger.publication(None, 10, 100);
        assert!(ledger.faults.is_empty(), "{:?}", ledger.faults);
        assert_eq!((ledger.told(), ledger.recovered), (1, 1));
    }

    #[test]
    fn without_history_only_silence_counts() {
        let mut ledger = Ledger::default();
        ledger.started(None);
        ledger.unkept(5);
        ledger.missed(None);
        ledger.unkept(8);
        assert_eq!(ledger.silent, 0);
        ledger.unkept(10);
        assert_eq!(ledger.silent, 1);
        ledger.unkept(10);
        assert_eq!((ledger.repeated, ledger.faults.len()), (1, 0));
        ledger.unkept(9);
        assert_eq!(ledger.faults.len(), 1);
    }
}
