//! What really was published, and what came after what: a tree, because a server that is rolled back goes on from an
//! earlier place. Who reads a stream rightly walks from parent to child; everything that clients are told is held to that.

use std::collections::BTreeMap;

use fanfare::model::{Epoch, Position};

/// A place in the tree: a publication, or the beginning of a stream.
pub(crate) type Place = usize;

#[derive(Debug)]
struct Entry {
    parent: Option<Place>,
    offset: u64,
}

/// The tree of one channel.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    entries: Vec<Entry>,
    by_content: BTreeMap<u64, Place>,
    /// Where each epoch began.
    epochs: BTreeMap<Epoch, Place>,
    positions: BTreeMap<(Epoch, u64), Place>,
    /// What every server's data has been: since when, and its last place.
    heads: Vec<Vec<(u64, Place)>>,
    /// Two publications at one position: the first of them.
    pub(crate) collision: Option<Position>,
}

impl Truth {
    fn add(&mut self, parent: Option<Place>, offset: u64) -> Place {
        self.entries.push(Entry { parent, offset });
        self.entries.len() - 1
    }

    /// A stream begins with nothing in it.
    pub(crate) fn begin(&mut self) -> Place {
        self.add(None, 0)
    }

    /// An epoch begins there. One that began before and begins anew is a collision.
    pub(crate) fn begin_epoch(&mut self, epoch: Epoch, at: Place) {
        let before = self.epochs.insert(epoch, at);
        if before.is_some_and(|before| before != at) {
            self.collision = Some(Position::new(epoch, self.entries[at].offset));
        }
    }

    /// Something was published behind `parent`.
    pub(crate) fn publish(&mut self, parent: Place, position: Position, content: u64) -> Place {
        let place = self.add(Some(parent), position.offset);
        self.by_content.insert(content, place);
        let key = (position.epoch, position.offset);
        if self.positions.insert(key, place).is_some() {
            self.collision = Some(position);
        }
        place
    }

    pub(crate) fn of_content(&self, content: u64) -> Option<Place> {
        self.by_content.get(&content).copied()
    }

    pub(crate) fn parent(&self, place: Place) -> Option<Place> {
        self.entries[place].parent
    }

    pub(crate) fn offset(&self, place: Place) -> u64 {
        self.entries[place].offset
    }

    /// What a position means.
    pub(crate) fn resolve(&self, position: Position) -> Option<Place> {
        if let Some(place) = self.positions.get(&(position.epoch, position.offset)) {
            return Some(*place);
        }
        let mut place = *self.epochs.get(&position.epoch)?;
        while self.offset(place) > position.offset {
            place = self.parent(place)?;
        }
        (self.offset(place) == position.offset).then_some(place)
    }

    /// Whether what stands at `place` is part of what ends with `head`.
    pub(crate) fn is_part(&self, place: Place, mut head: Place) -> bool {
        loop {
            if head == place {
                return true;
            }
            match self.parent(head) {
                Some(parent) => head = parent,
                None => return false,
            }
        }
    }

    /// The data of a server ends there from now on.
    pub(crate) fn note_head(&mut self, server: usize, now: u64, head: Place) {
        if self.heads.len() <= server {
            self.heads.resize_with(server + 1, Vec::new);
        }
        let heads = &mut self.heads[server];
        if heads.last().is_none_or(|(_, last)| *last != head) {
            heads.push((now, head));
        }
    }

    /// Whether a server's data had `place` at some moment since.
    pub(crate) fn stood_since(&self, place: Place, since: u64) -> bool {
        self.heads.iter().any(|heads| {
            let before = heads.partition_point(|(at, _)| *at < since);
            let mut later = heads[before.saturating_sub(1)..].iter();
            later.any(|(_, head)| self.is_part(place, *head))
        })
    }
}
