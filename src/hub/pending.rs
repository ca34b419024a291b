//! Whose queue is to be written next.
//!
//! A large fan-out must not keep others waiting: its connections are a list of their own, and written in turn with the
//! rest, a slice at a time.

use std::collections::VecDeque;

use super::ConnectionIndex;

/// How many connections are written before others get their turn: 64 writes take some 0.15 ms.
const SLICE: usize = 64;

/// Connections with something to write, in the order in which they are served.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// Answers, pushes and small fan-outs.
    prompt: VecDeque<ConnectionIndex>,
    /// Large fan-outs, each with how far it was written; served in turn.
    fan_outs: VecDeque<(Vec<ConnectionIndex>, usize)>,
}

impl Pending {
    /// Something for one connection.
    pub(super) fn add(&mut self, connection: ConnectionIndex) {
        self.prompt.push_back(connection);
    }

    /// A publication for these.
    pub(super) fn add_fan_out(&mut self, connections: Vec<ConnectionIndex>) {
        if connections.len() <= SLICE {
            self.prompt.extend(connections);
        } else {
            self.fan_outs.push_back((connections, 0));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.prompt.is_empty() && self.fan_outs.is_empty()
    }

    /// The next ones to be written: a slice of the prompt ones and a slice of one fan-out.
    pub(super) fn next_slice(&mut self, into: &mut Vec<ConnectionIndex>) {
        let prompt = self.prompt.len().min(SLICE);
        into.extend(self.prompt.drain(..prompt));
        let Some((connections, done)) = self.fan_outs.pop_front() else {
            return;
        };
        let end = (done + SLICE).min(connections.len());
        into.extend_from_slice(&connections[done..end]);
        if end < connections.len() {
            self.fan_outs.push_back((connections, end));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_fan_out_does_not_keep_an_answer_waiting() {
        let mut pending = Pending::default();
        pending.add_fan_out((0..1000).collect());
        let mut slice = Vec::new();
        pending.next_slice(&mut slice);
        pending.add(5000);
        slice.clear();
        pending.next_slice(&mut slice);
        assert_eq!(slice[0], 5000);
    }

    #[test]
    fn large_fan_outs_are_served_in_turn_and_wholly() {
        let mut pending = Pending::default();
        pending.add_fan_out((0..200).collect());
        pending.add_fan_out((1000..1100).collect());
        let mut order = Vec::new();
        while !pending.is_empty() {
            pending.next_slice(&mut order);
        }
        assert_eq!(order.len(), 300);
        assert!(order.iter().position(|c| *c == 1000) < order.iter().position(|c| *c == 199));
    }
}
