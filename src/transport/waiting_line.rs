//! Who waits for a turn, each at most once: however often somebody is told that it could go on, the line is no longer than
//! those who stand in it.

use std::collections::VecDeque;
use std::hash::Hash;

use hashbrown::HashSet;

/// A line of `T`s. Bounded by how many different ones there are.
#[derive(Debug)]
pub(super) struct WaitingLine<T> {
    line: VecDeque<T>,
    /// Those in the line, and those who are held back.
    known: HashSet<T>,
}

impl<T> Default for WaitingLine<T> {
    fn default() -> Self {
        Self {
            line: VecDeque::new(),
            known: HashSet::new(),
        }
    }
}

impl<T: Clone + Eq + Hash> WaitingLine<T> {
    /// Puts one at the end, unless it stands in the line already or is held back.
    pub(super) fn join(&mut self, one: T) {
        if self.known.insert(one.clone()) {
            self.line.push_back(one);
        }
    }

    /// Keeps one that does not stand in the line out of it until [`WaitingLine::let_in`]. Answers whether it was not held
    /// back before: the caller sees to that it is let in, once.
    pub(super) fn hold_back(&mut self, one: T) -> bool {
        self.known.insert(one)
    }

    /// Puts one that was held back at the end.
    pub(super) fn let_in(&mut self, one: T) {
        if self.known.contains(&one) {
            self.line.push_back(one);
        }
    }

    /// Takes out the first one.
    pub(super) fn next(&mut self) -> Option<T> {
        let one = self.line.pop_front()?;
        self.known.remove(&one);
        if self.line.is_empty() {
            // A storm of reconnects leaves no memory behind.
            self.line = VecDeque::new();
            self.known.shrink_to_fit();
        }
        Some(one)
    }

    /// How many stand in the line.
    pub(super) fn len(&self) -> usize {
        self.line.len()
    }

    /// Whether nobody stands in the line.
    pub(super) fn is_empty(&self) -> bool {
        self.line.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_stands_in_it_once() {
        let mut line = WaitingLine::default();
        for one in [1, 2, 1, 1, 2] {
            line.join(one);
        }
        assert_eq!(line.len(), 2);
        assert_eq!(line.next(), Some(1));
        line.join(1);
        assert_eq!(
            [line.next(), line.next(), line.next()],
            [Some(2), Some(1), None]
        );
    }

    #[test]
    fn who_is_held_back_joins_when_it_is_let_in() {
        let mut line = WaitingLine::default();
        assert!(line.hold_back(1));
        assert!(!line.hold_back(1));
        line.join(1);
        assert!(line.is_empty());
        line.let_in(1);
        assert_eq!([line.next(), line.next()], [Some(1), None]);
        line.let_in(1);
        assert!(line.is_empty(), "nobody was held back");
    }
}
