//! Why a try failed, in words for operators: with what follows from it in the log, and as an upstream's last error at
//! `/admin/stats`.

use std::fmt::{self, Write as _};
use std::io;

use crate::model::Moment;

/// The most bytes of a cause that are kept for an upstream: a certificate may name many hosts.
const TEXT_BYTES_MAX: usize = 256;

/// Why a try failed.
#[derive(Clone, Copy)]
pub(super) enum Cause<'a> {
    /// There was no connection: what the system, the resolver or TLS says.
    NoConnection(&'a io::Error),
    /// There was none in time.
    NoConnectionInTime,
    /// It did not answer in time.
    NoAnswerInTime,
    /// It closed the connection before it had answered.
    Closed,
    /// The connection broke, or what came on it was no answer.
    NoAnswer(&'a dyn fmt::Display),
    /// It said itself that it failed.
    Status(u16),
    /// A health check found one of these.
    Unhealthy(&'a str),
}

impl fmt::Display for Cause<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoConnection(error) => write!(f, "no connection: {error}"),
            Self::NoConnectionInTime => f.write_str("no connection in time"),
            Self::NoAnswerInTime => f.write_str("no answer in time"),
            Self::Closed => f.write_str("no answer: it closed the connection"),
            Self::NoAnswer(what) => write!(f, "no answer: {what}"),
            Self::Status(status) => write!(f, "it answered {status}"),
            Self::Unhealthy(cause) => write!(f, "health check: {cause}"),
        }
    }
}

/// The last failure of an upstream.
#[derive(Debug, Default, Clone)]
pub(super) struct LastFailure {
    /// Empty: there was none.
    text: String,
    at: Moment,
}

impl LastFailure {
    /// This one is the last now.
    pub(super) fn note(&mut self, cause: &Cause<'_>, now: Moment) {
        self.text.clear();
        // A string takes every write.
        let _ = write!(self.text, "{cause}");
        let end = self.text.floor_char_boundary(TEXT_BYTES_MAX);
        self.text.truncate(end);
        self.at = now;
    }

    /// What it was, and when; none where nothing has failed.
    pub(super) fn told(&self) -> Option<(&str, Moment)> {
        (!self.text.is_empty()).then_some((&*self.text, self.at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_failure_is_kept_and_no_more_of_it_than_fits() {
        let at = Moment::from_millis;
        let mut last = LastFailure::default();
        assert_eq!(last.told(), None);
        last.note(&Cause::NoAnswer(&"ä".repeat(300)), at(1));
        let (text, _) = last.told().expect("a failure");
        assert!(text.starts_with("no answer: ää") && text.len() <= TEXT_BYTES_MAX);
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        for (cause, text) in [
            (Cause::Status(503), "it answered 503"),
            (
                Cause::NoConnection(&refused),
                "no connection: connection refused",
            ),
        ] {
            last.note(&cause, at(2));
            assert_eq!(last.told(), Some((text, at(2))));
        }
    }
}
