//! The watch over connections, without the connections: what was heard goes in, what to do comes out. It finds servers that
//! are silent, that are no masters, that take publications and do not bring them, and that are two where there should be
//! one; and data that became another under a connection that stands.
//!
//! Each connection is asked once in an interval. Whether both lead to the same data is seen by comparing what each was told
//! last; only where that differs are they asked again.
//!
//! No I/O and no clock, so that the model of a fleet (`tests/forks`) watches as a node does.

use std::time::{Duration, Instant};

/// Between two looks at a connection.
pub const WATCH_INTERVAL: Duration = Duration::from_secs(2);

/// How long a mark may be on its way before the connection that brings messages counts as dead.
pub const MARK_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a server may leave questions unanswered before its connections are made anew.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// How often the other connection is asked before two ids mean two servers: an id may change between two questions.
const COMPARISONS: u32 = 2;

/// What a server says of its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// It is a master; its replication id.
    Master(String),
    /// It is none: what it takes would be lost.
    Other,
    /// It did not answer.
    Silent,
    /// It does not let this user ask.
    Forbidden(String),
}

impl Role {
    /// What the answer to `INFO replication` says. A master that tells no replication id counts as none: it could be
    /// rolled back unnoticed.
    pub fn of(info: &str) -> Self {
        let field = |name: &str| {
            let mut lines = info.lines();
            lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
        };
        match (field("role"), field("master_replid")) {
            (Some("master"), Some(id)) if !id.is_empty() => Self::Master(id.to_owned()),
            _ => Self::Other,
        }
    }
}

/// What was heard on a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// A master; its replication id.
    Id(String),
    /// Nothing, which is borne for a while.
    Nothing,
    /// The connection is to be given up.
    GiveUp,
}

/// How long a server may be silent: a slow script of somebody else's is no reason to leave.
#[derive(Debug)]
pub struct Patience {
    heard_at: Instant,
}

impl Patience {
    /// It was heard just now.
    pub fn new(now: Instant) -> Self {
        Self { heard_at: now }
    }

    /// What an answer, or none, means for the connection.
    pub fn judge(&mut self, role: Role, now: Instant) -> Heard {
        match role {
            Role::Master(id) => {
                self.heard_at = now;
                Heard::Id(id)
            }
            Role::Silent if now.duration_since(self.heard_at) < SILENCE_MAX => Heard::Nothing,
            Role::Silent | Role::Other | Role::Forbidden(_) => Heard::GiveUp,
        }
    }
}

/// What to do about the marks of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The last one came back: this is the next.
    Send(u64),
    /// The last one is on its way.
    Wait,
    /// It is so for too long: the connection is dead.
    GiveUp,
}

/// The marks that go round through the server: only what comes back shows that publications do.
#[derive(Debug)]
pub struct Marks {
    mark: u64,
    marked_at: Instant,
}

impl Marks {
    /// They are numbered after `first`, which counts as having come back.
    pub fn new(first: u64, now: Instant) -> Self {
        Self {
            mark: first,
            marked_at: now,
        }
    }

    /// `passed` is the last one that came back.
    pub fn next(&mut self, passed: u64, now: Instant) -> Next {
        if passed == self.mark {
            self.mark += 1;
            self.marked_at = now;
            return Next::Send(self.mark);
        }
        match now.duration_since(self.marked_at) > MARK_TIMEOUT {
            true => Next::GiveUp,
            false => Next::Wait,
        }
    }
}

/// The replication id that was heard last on one of the two connections. It outlives the connection: the one that takes
/// its place may lead elsewhere. The two have each their own, because one may learn of another server before the other does.
#[derive(Debug, Default)]
pub struct Known(Option<String>);

impl Known {
    /// Whether it is another than the one before: then the data may be another.
    pub fn differs(&mut self, id: String) -> bool {
        let differs = self.0.as_ref().is_some_and(|old| *old != id);
        self.0 = Some(id);
        differs
    }

    /// Whether it is this one.
    pub fn is(&self, id: &str) -> bool {
        self.0.as_deref() == Some(id)
    }
}

/// Whether two connections lead to the same data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compared {
    /// They do, or the other one cannot be asked.
    Agrees,
    /// They do not.
    Differs,
    /// Nobody knows yet: the other of the two is to be asked.
    AskAgain,
}

/// A comparison of the ids of two connections, which are asked in turn, the other one first.
#[derive(Debug)]
pub struct Comparison {
    own: String,
    left: u32,
}

impl Comparison {
    /// This connection was told `own`.
    pub fn new(own: String) -> Self {
        Self {
            own,
            left: COMPARISONS,
        }
    }

    /// What the other connection was told.
    pub fn handle_other(&mut self, role: Role) -> Compared {
        match role {
            Role::Silent | Role::Other | Role::Forbidden(_) => Compared::Agrees,
            Role::Master(other) if other == self.own => Compared::Agrees,
            Role::Master(_) if self.left <= 1 => Compared::Differs,
            Role::Master(_) => {
                self.left -= 1;
                Compared::AskAgain
            }
        }
    }

    /// What this connection was told when it was asked again.
    pub fn handle_own(&mut self, role: Role) -> Compared {
        match role {
            Role::Master(again) => {
                self.own = again;
                Compared::AskAgain
            }
            Role::Silent => Compared::Agrees,
            Role::Other | Role::Forbidden(_) => Compared::Differs,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn master(id: &str) -> Role {
        Role::Master(id.to_owned())
    }

    #[test]
    fn only_a_master_that_tells_its_id_is_one() {
        let of = |info: &str| Role::of(info);
        assert_eq!(
            of("# Replication\r\nrole:master\r\nmaster_replid:ab\r\n"),
            master("ab")
        );
        assert_eq!(of("role:slave\r\nmaster_replid:ab\r\n"), Role::Other);
        assert_eq!(of("role:master\r\n"), Role::Other);
        assert_eq!(of("role:master\r\nmaster_replid:\r\n"), Role::Other);
        assert_eq!(of(""), Role::Other);
    }

    #[test]
    fn a_silent_server_is_given_up_in_time_and_one_that_is_no_master_at_once() {
        let began = Instant::now();
        let mut patience = Patience::new(began);
        let just_before = began + SILENCE_MAX - Duration::from_millis(1);
        assert_eq!(patience.judge(Role::Silent, just_before), Heard::Nothing);
        assert_eq!(
            patience.judge(master("a"), just_before),
            Heard::Id("a".to_owned())
        );
        assert_eq!(
            patience.judge(Role::Silent, began + SILENCE_MAX),
            Heard::Nothing
        );
        assert_eq!(
            patience.judge(Role::Silent, just_before + SILENCE_MAX),
            Heard::GiveUp
        );
        assert_eq!(patience.judge(Role::Other, just_before), Heard::GiveUp);
    }

    #[test]
    fn a_mark_that_does_not_come_back_ends_the_connection() {
        let began = Instant::now();
        let mut marks = Marks::new(10, began);
        assert_eq!(marks.next(10, began), Next::Send(11));
        assert_eq!(marks.next(10, began + MARK_TIMEOUT), Next::Wait);
        let after = began + MARK_TIMEOUT + Duration::from_millis(1);
        assert_eq!(marks.next(10, after), Next::GiveUp);
        assert_eq!(marks.next(11, after), Next::Send(12));
    }

    #[test]
    fn an_id_that_changes_between_two_questions_is_no_second_server() {
        let mut comparison = Comparison::new("a".to_owned());
        assert_eq!(comparison.handle_other(master("b")), Compared::AskAgain);
        assert_eq!(comparison.handle_own(master("b")), Compared::AskAgain);
        assert_eq!(comparison.handle_other(master("b")), Compared::Agrees);
        let mut comparison = Comparison::new("a".to_owned());
        for _ in 1..COMPARISONS {
            assert_eq!(comparison.handle_other(master("b")), Compared::AskAgain);
            assert_eq!(comparison.handle_own(master("a")), Compared::AskAgain);
        }
        assert_eq!(comparison.handle_other(master("b")), Compared::Differs);
    }
}
