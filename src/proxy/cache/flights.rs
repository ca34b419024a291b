//! Who asks for what right now, so that others who want the same wait for that one answer instead of asking as well.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

/// Requests for what may be kept, by its key.
#[derive(Debug, Default)]
pub(super) struct Flights(Mutex<HashMap<Arc<str>, Waiting>>);

/// Who waits for one of them.
#[derive(Debug, Default)]
struct Waiting(Arc<Mutex<Followers>>);

#[derive(Debug, Default)]
struct Followers {
    wakers: Vec<Waker>,
    has_landed: bool,
}

/// The one who asks. Dropped, whoever waits looks for itself: the answer is kept by then, or it never will be.
#[derive(Debug)]
pub(in crate::proxy) struct Leader {
    flights: Arc<Flights>,
    key: Arc<str>,
    followers: Arc<Mutex<Followers>>,
}

/// One who waits.
#[derive(Debug)]
pub(in crate::proxy) struct Follower(Arc<Mutex<Followers>>);

/// What became of somebody who wants something.
#[derive(Debug)]
pub(super) enum Joined {
    /// Nobody else asks for it.
    Leads(Leader),
    /// Somebody does.
    Follows(Follower),
}

impl Flights {
    /// Joins those who want this.
    pub(super) fn join(self: &Arc<Self>, key: &Arc<str>) -> Joined {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waiting) = all.get(key) {
            return Joined::Follows(Follower(waiting.0.clone()));
        }
        let followers: Arc<Mutex<Followers>> = Arc::default();
        all.insert(key.clone(), Waiting(followers.clone()));
        Joined::Leads(Leader {
            flights: self.clone(),
            key: key.clone(),
            followers,
        })
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        let mut all = self
            .flights
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        all.remove(&self.key);
        drop(all);
        let mut followers = self
            .followers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        followers.has_landed = true;
        for waker in followers.wakers.drain(..) {
            waker.wake();
        }
    }
}

impl Follower {
    /// Ready when there is nothing to wait for any more.
    pub(in crate::proxy) fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut followers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if followers.has_landed {
            return Poll::Ready(());
        }
        // Polled again for another reason, a follower is there already.
        if !followers
            .wakers
            .iter()
            .any(|waker| waker.will_wake(cx.waker()))
        {
            followers.wakers.push(cx.waker().clone());
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_want_the_same_wait_for_the_first() {
        let flights: Arc<Flights> = Arc::default();
        let (one, other): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let Joined::Leads(leader) = flights.join(&one) else {
            panic!("somebody asks already");
        };
        let Joined::Follows(follower) = flights.join(&one) else {
            panic!("nobody asks");
        };
        assert!(matches!(flights.join(&other), Joined::Leads(_)));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(follower.poll(&mut cx).is_pending());
        drop(leader);
        assert!(follower.poll(&mut cx).is_ready());
        assert!(matches!(flights.join(&one), Joined::Leads(_)));
    }
}
