//! Counts what goes to upstreams.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Duration;

use ::metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use super::metrics::label;
use super::table::name;

label! {
    /// What is carried to an upstream; its word is the route that clients ask for.
    Carried {
        /// A request and its answer.
        Http = "/api/:service/*",
        /// A stream of events.
        Sse = "/sse/:service/*",
        /// A WebSocket.
        Ws = "/ws/:service",
    }
}

label! {
    /// The method of a request: anybody can invent one, so all others are one.
    Method {
        /// `GET`.
        Get = "GET",
        /// `HEAD`.
        Head = "HEAD",
        /// `POST`.
        Post = "POST",
        /// `PUT`.
        Put = "PUT",
        /// `PATCH`.
        Patch = "PATCH",
        /// `DELETE`.
        Delete = "DELETE",
        /// `OPTIONS`.
        Options = "OPTIONS",
        /// Any other.
        Other = "other",
    }
}

label! {
    /// What the cache was to a request that could be answered by it.
    Cached {
        /// It had the answer.
        Hit = "hit",
        /// It had it when another request for the same was answered.
        Collapsed = "collapsed",
        /// The upstream said that what it had was still good.
        Revalidated = "revalidated",
        /// What it had stood in for an error.
        StaleOnError = "stale_on_error",
        /// The upstream was asked, and its answer is kept.
        Miss = "miss",
        /// The upstream was asked, and its answer is not kept.
        Pass = "pass",
    }
}

label! {
    /// What came of reading the configuration again.
    Reload {
        /// It holds from now on.
        Done = "done",
        /// It cannot be used: what was before stays.
        Failed = "failed",
    }
}

impl Method {
    /// The one of this name.
    pub fn of(name: &str) -> Self {
        let known = Self::ALL.iter().find(|method| method.label() == name);
        known.copied().unwrap_or(Self::Other)
    }
}

static DIALS: LazyLock<Counter> = LazyLock::new(|| counter!(name::UPSTREAM_CONNECTIONS));
static OPENED: LazyLock<Counter> = LazyLock::new(|| counter!(name::BREAKER_OPENED));
static FAILED_OPEN: LazyLock<Counter> = LazyLock::new(|| counter!(name::FAILED_OPEN));
static LIMITED_ALONE: LazyLock<Counter> = LazyLock::new(|| counter!(name::LIMITED_ALONE));
static RETRIES: LazyLock<[Counter; 2]> = LazyLock::new(|| {
    ["spent", "made"].map(|outcome| counter!(name::UPSTREAM_RETRIES, "outcome" => outcome))
});
static HEALTH_CHANGES: LazyLock<[Counter; 2]> =
    LazyLock::new(|| ["ill", "well"].map(|to| counter!(name::UPSTREAM_HEALTH_CHANGES, "to" => to)));
static RELOADS: LazyLock<[Counter; Reload::COUNT]> = LazyLock::new(|| {
    std::array::from_fn(|index| counter!(name::RELOADS, "outcome" => Reload::ALL[index].label()))
});

static CACHED: LazyLock<[Counter; Cached::COUNT]> = LazyLock::new(|| {
    let counter =
        |index: usize| counter!(name::CACHE_REQUESTS, "result" => Cached::ALL[index].label());
    std::array::from_fn(counter)
});
static BRIDGED: LazyLock<Gauge> = LazyLock::new(|| gauge!(name::GATEWAY_WEB_SOCKETS));

/// Lets every series stand at 0 from now on. Not those of [`answered`], which anybody's methods and codes make.
pub(super) fn begin() {
    for counter in [&DIALS, &OPENED, &FAILED_OPEN, &LIMITED_ALONE] {
        LazyLock::force(counter);
    }
    for counters in [&RETRIES, &HEALTH_CHANGES, &RELOADS] {
        LazyLock::force(counters);
    }
    for gauge in [&BRIDGED, &SHARED_SOURCES] {
        LazyLock::force(gauge);
    }
    LazyLock::force(&CACHED);
}

/// A request went through the cache.
pub fn cached(result: Cached) {
    CACHED[result.index()].increment(1);
}

/// One WebSocket that is carried to an upstream; it counts as long as it lives.
#[derive(Debug)]
pub struct Bridged(());

impl Bridged {
    /// One more.
    pub fn begin() -> Self {
        BRIDGED.increment(1.0);
        Self(())
    }
}

impl Drop for Bridged {
    fn drop(&mut self) {
        BRIDGED.decrement(1.0);
    }
}

static SHARED_SOURCES: LazyLock<Gauge> = LazyLock::new(|| gauge!(name::SHARED_SOURCES));

/// One upstream stream that many share; it counts as long as it is read.
#[derive(Debug)]
pub struct SharedSource(());

impl SharedSource {
    /// One more.
    pub fn begin() -> Self {
        SHARED_SOURCES.increment(1.0);
        Self(())
    }
}

impl Drop for SharedSource {
    fn drop(&mut self) {
        SHARED_SOURCES.decrement(1.0);
    }
}

/// A connection to an upstream was begun.
pub fn dialled() {
    DIALS.increment(1);
}

/// A circuit breaker opened.
pub fn opened() {
    OPENED.increment(1);
}

/// All breakers of a service were open, so that none was heeded.
pub fn failed_open() {
    FAILED_OPEN.increment(1);
}

/// Health checks found an upstream well again, or ill.
pub fn health_changed(to_well: bool) {
    HEALTH_CHANGES[usize::from(to_well)].increment(1);
}

/// The configuration was read again.
pub fn reloaded(outcome: Reload) {
    RELOADS[outcome.index()].increment(1);
}

/// A node of a fleet counted a request by itself, against its part of the limit.
pub fn limited_alone() {
    LIMITED_ALONE.increment(1);
}

/// A retry was wanted: made, or not because the budget was spent.
pub fn retried(made: bool) {
    RETRIES[usize::from(made)].increment(1);
}

thread_local! {
    /// The handles of what this thread has answered. Status codes of upstreams are at most 1000, so it is bounded; a
    /// thread of its own for each worker, so it needs no lock.
    static ANSWERED: RefCell<HashMap<(usize, usize, u16), Histogram>> = RefCell::default();
}

/// A request was answered with this status after this time.
pub fn answered(carried: Carried, method: Method, status: u16, elapsed: Duration) {
    ANSWERED.with_borrow_mut(|handles| {
        handles
            .entry((carried.index(), method.index(), status))
            .or_insert_with(|| {
                histogram!(
                    name::GATEWAY_DURATION,
                    "tenant_id" => "",
                    "method" => method.label(),
                    "route" => carried.label(),
                    "status_code" => status.to_string()
                )
            })
            .record(elapsed);
    });
}
