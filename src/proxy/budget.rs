//! How many retries a service may make: a part of its requests, and a few beside. When everything fails, retries would
//! otherwise multiply the load of upstreams that have too much already.

use super::counter::Recent;
use crate::model::Moment;
use crate::telemetry::proxy as counts;

/// Retries in ten seconds beside the part of the requests.
const SPARE: u64 = 30;

/// The requests and retries of one service, lately.
#[derive(Debug, Default)]
pub(super) struct Budget {
    requests: Recent,
    retries: Recent,
}

impl Budget {
    /// A request came.
    pub(super) fn requested(&self, now: Moment) {
        self.requests.add(now);
    }

    /// Takes a retry out of the budget of so many percent, or says that it is spent.
    pub(super) fn may_retry(&self, percent: u32, now: Moment) -> bool {
        let most = self.requests.count(now) * u64::from(percent) / 100 + SPARE;
        let may = self.retries.count(now) < most;
        if may {
            self.retries.add(now);
        }
        counts::retried(may);
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_part_of_the_requests_and_a_few() {
        let now = Moment::from_millis(1000);
        for (percent, expected) in [(20, 20 + 30), (0, 30), (100, 100 + 30)] {
            let budget = Budget::default();
            (0..100).for_each(|_| budget.requested(now));
            let retries = (0..200).filter(|_| budget.may_retry(percent, now)).count();
            assert_eq!(retries, expected, "{percent}");
        }
    }
}
