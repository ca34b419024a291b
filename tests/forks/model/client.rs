//! A client of the model: it knows which publication it has received last, and sees at once when what it is told does not
//! follow from that.

use fanfare::model::Position;

use super::node::Ref;
use super::record::{Begun, Record};
use super::truth::{Place, Truth};

/// What a client knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) position: Position,
    /// The publication that the position means.
    pub(crate) place: Place,
}

/// How far the subscription is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It has none, and asks for one then.
    Away(u64),
    /// It asked then, from where it stood or from nothing.
    Asked(u64, Option<Cursor>),
    Active,
}

/// What happened to clients, for the sums at the end.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) publications: u64,
    pub(crate) gaps: u64,
    pub(crate) recovered: u64,
    pub(crate) lost: u64,
    pub(crate) refused: u64,
}

#[derive(Debug)]
pub(crate) struct Client {
    /// The node, and its life.
    pub(crate) connection: Option<(usize, u64, Ref)>,
    pub(crate) stage: Stage,
    pub(crate) cursor: Option<Cursor>,
    pub(crate) reconnect_at: u64,
    pub(crate) is_slow: bool,
    pub(crate) seen: Seen,
    pub(crate) buffer: Vec<u8>,
}

impl Client {
    pub(crate) fn new() -> Self {
        Self {
            connection: None,
            stage: Stage::Away(0),
            cursor: None,
            reconnect_at: 0,
            is_slow: false,
            seen: Seen::default(),
            buffer: Vec::new(),
        }
    }

    /// The connection ended; what was not yet read is lost with it.
    pub(crate) fn lose(&mut self, reconnect_at: u64) {
        self.connection = None;
        self.buffer.clear();
        self.stage = Stage::Away(reconnect_at);
        self.reconnect_at = reconnect_at;
    }

    /// Takes what it is told.
    pub(crate) fn receive(
        &mut self,
        record: Record,
        now: u64,
        truth: &Truth,
    ) -> Result<(), String> {
        match record {
            Record::Refused => {
                self.seen.refused += 1;
                self.stage = Stage::Away(now + 100);
                Ok(())
            }
            Record::Subscribed(position, begun) => self.subscribed(position, begun, truth),
            Record::Gap(position) => {
                self.seen.gaps += 1;
                self.stand_at(position, truth)
            }
            Record::Publication(epoch, offset, content) => {
                self.seen.publications += 1;
                let cursor = self
                    .cursor
                    .as_mut()
                    .ok_or("a publication before a position")?;
                let place = truth.of_content(content).ok_or("nobody published it")?;
                if truth.parent(place) != Some(cursor.place) {
                    let again = truth.is_part(place, cursor.place);
                    let what = if again {
                        "again, or out of order"
                    } else {
                        "over something missing"
                    };
                    return Err(format!("offset {offset} {what}, after {cursor:?}"));
                }
                let epoch = epoch.unwrap_or(cursor.position.epoch);
                (cursor.position, cursor.place) = (Position::new(epoch, offset), place);
                match truth.resolve(cursor.position) == Some(place) {
                    true => Ok(()),
                    false => Err(format!("it believes to stand at {}", cursor.position)),
                }
            }
        }
    }

    fn subscribed(
        &mut self,
        position: Position,
        begun: Begun,
        truth: &Truth,
    ) -> Result<(), String> {
        let Stage::Asked(since, claimed) = self.stage else {
            return Err("subscribed without having asked".to_owned());
        };
        self.stage = Stage::Active;
        match (claimed, begun) {
            (None, Begun::Anew) => return self.stand_at(position, truth),
            (Some(_), Begun::Lost) => {
                self.seen.lost += 1;
                return self.stand_at(position, truth);
            }
            (Some(claimed), Begun::Recovered | Begun::WithOthers) => {
                self.seen.recovered += 1;
                if begun == Begun::Recovered && !truth.stood_since(claimed.place, since) {
                    return Err(format!("recovered from {claimed:?}, which no server has"));
                }
                if truth.resolve(position) != Some(claimed.place) {
                    return Err(format!("recovered at {position} from {claimed:?}"));
                }
                self.cursor = Some(Cursor {
                    position,
                    place: claimed.place,
                });
            }
            other => return Err(format!("{other:?}")),
        }
        Ok(())
    }

    fn stand_at(&mut self, position: Position, truth: &Truth) -> Result<(), String> {
        let place = truth.resolve(position);
        let place =
            place.ok_or_else(|| format!("told to stand at {position}, which is nowhere"))?;
        self.cursor = Some(Cursor { position, place });
        Ok(())
    }
}
