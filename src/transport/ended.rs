//! Sessions that ended a moment ago.
//!
//! A handshake asks whether its session is alive, and its socket comes to the worker a moment later. An order to close
//! the session's sockets that passes in between would find none; so the worker remembers such orders for a while.

use std::collections::VecDeque;
use std::time::Duration;

use crate::client::Client;
use crate::model::{Moment, SessionId};

/// Longer than a socket takes from its handshake to the worker.
const REMEMBERED: Duration = Duration::from_secs(10);
/// The most that are remembered: 640 KB. At more than 2,000 logouts a second the oldest go early.
const SESSIONS_MAX: usize = 20_000;

/// The sessions that ended lately, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Ended(VecDeque<(Moment, SessionId)>);

impl Ended {
    /// These ended now.
    pub(super) fn note(&mut self, now: Moment, ended: &[SessionId]) {
        self.forget(now);
        self.0.extend(ended.iter().map(|session| (now, *session)));
        let surplus = self.0.len().saturating_sub(SESSIONS_MAX);
        self.0.drain(..surplus);
    }

    /// Whether the client's session is one of them.
    pub(super) fn concerns(&mut self, now: Moment, client: &Client) -> bool {
        self.forget(now);
        let mut sessions = client.sessions();
        !self.0.is_empty()
            && sessions.any(|session| self.0.iter().any(|(_, ended)| *ended == session))
    }

    fn forget(&mut self, now: Moment) {
        let is_old = |(at, _): &mut (Moment, SessionId)| now.since(*at) > REMEMBERED;
        while self.0.pop_front_if(is_old).is_some() {}
    }
}
