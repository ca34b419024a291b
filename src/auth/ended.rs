//! Logins that ended before their tokens, for doors that ask no store.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use crate::model::SessionId;

/// The most that are remembered, about 3 MB; then the first ones go. Those are asked about again when their tokens are used.
const LOGINS_MAX: usize = 65_536;

/// What ended, as far as this node has heard.
#[derive(Debug, Default)]
pub(super) struct EndedLogins(Mutex<Ended>);

#[derive(Debug, Default)]
struct Ended {
    logins: HashSet<SessionId>,
    /// In the order in which they came.
    order: VecDeque<SessionId>,
}

impl EndedLogins {
    pub(super) fn note(&self, ended: &[SessionId]) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for &login in ended {
            if known.logins.insert(login) {
                known.order.push_back(login);
            }
            if known.order.len() > LOGINS_MAX
                && let Some(first) = known.order.pop_front()
            {
                known.logins.remove(&first);
            }
        }
    }

    pub(super) fn has(&self, login: SessionId) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.logins.contains(&login)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_what_ended_and_no_more_than_it_may() {
        let ended = EndedLogins::default();
        let login = |number: usize| SessionId::from_bits(number as u128);
        let all: Vec<SessionId> = (0..LOGINS_MAX + 2).map(login).collect();
        ended.note(&all[..2]);
        assert!(ended.has(login(1)) && !ended.has(login(2)));
        ended.note(&all);
        assert!(!ended.has(login(1)) && ended.has(login(2)));
        assert!(ended.has(login(LOGINS_MAX + 1)));
    }
}
