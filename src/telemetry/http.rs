//! Counts HTTP requests by route and class of status.
//!
//! A handler that answers calls [`answered`]; for a route and class that were seen before it is two atomic operations.

use std::sync::{LazyLock, OnceLock};
use std::time::{Duration, Instant};

use ::metrics::{Counter, Histogram, counter, histogram};

use super::metrics::label;
use super::table::name;

label! {
    /// What a request asked for. Paths themselves are never labels: anybody can invent one.
    Route {
        /// `POST /hub/publish`.
        Publish = "/hub/publish",
        /// `POST /hub/broadcast`.
        Broadcast = "/hub/broadcast",
        /// `POST /hub/batch`.
        Batch = "/hub/batch",
        /// `GET /hub/channels`.
        Channels = "/hub/channels",
        /// `GET` and `DELETE /hub/channels/{channel}/history`.
        History = "/hub/channels/{channel}/history",
        /// `GET /hub/channels/{channel}/presence`.
        Presence = "/hub/channels/{channel}/presence",
        /// `GET /hub/channels/{channel}/stats`.
        Stats = "/hub/channels/{channel}/stats",
        /// `POST /hub/subscribe`.
        Subscribe = "/hub/subscribe",
        /// `POST /hub/unsubscribe`.
        Unsubscribe = "/hub/unsubscribe",
        /// `POST /hub/disconnect`.
        Disconnect = "/hub/disconnect",
        /// `GET /hub/nodes`.
        Nodes = "/hub/nodes",
        /// `POST /sessions/register`.
        Register = "/sessions/register",
        /// `POST /sessions/login`.
        Login = "/sessions/login",
        /// `POST /sessions/logout`.
        Logout = "/sessions/logout",
        /// `POST /sessions/delete_account`.
        DeleteAccount = "/sessions/delete_account",
        /// `POST /sessions/create`.
        CreateSession = "/sessions/create",
        /// `POST /sessions/update/{id}`.
        UpdateSession = "/sessions/update/{id}",
        /// `GET /sessions/{id}`.
        Session = "/sessions/{id}",
        /// `GET /sessions/users/{user}/sessions`.
        UserSessions = "/sessions/users/{user}/sessions",
        /// `GET /sessions/users/{user}/connection`.
        UserConnection = "/sessions/users/{user}/connection",
        /// `GET /admin/users`.
        Users = "/admin/users",
        /// `POST /admin/users/promote`.
        Promote = "/admin/users/promote",
        /// `POST /admin/users/demote`.
        Demote = "/admin/users/demote",
        /// `POST /admin/users/{user}/role`.
        SetRole = "/admin/users/{user}/role",
        /// `GET /admin/users/stats`.
        UserStats = "/admin/users/stats",
        /// `GET /admin/system/stats`.
        SystemStats = "/admin/system/stats",
        /// `GET /admin/system/redis-info`.
        RedisInfo = "/admin/system/redis-info",
        /// `POST /admin/system/cleanup-sessions`.
        CleanUp = "/admin/system/cleanup-sessions",
        /// `GET /openapi.json`, and the page at `/docs`.
        Documentation = "/openapi.json",
        /// `GET /ws/connect`.
        WebSocket = "/ws/connect",
        /// `GET /sse/connect`.
        Sse = "/sse/connect",
        /// Health, readiness and pressure.
        Health = "/health",
        /// `GET /metrics`.
        Metrics = "/metrics",
        /// `GET /admin/stats`.
        Statistics = "/admin/stats",
        /// The dashboard, its login and its events.
        Dashboard = "/admin",
        /// `DELETE /admin/cache`.
        Purge = "/admin/cache",
        /// The page and its files.
        Page = "/",
        /// No route.
        Unmatched = "unmatched",
    }
}

/// The classes of status, 1xx to 5xx.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

static REQUESTS: LazyLock<[[Counter; CLASSES.len()]; Route::COUNT]> = LazyLock::new(|| {
    std::array::from_fn(|route| std::array::from_fn(|class| requests(route, class)))
});

/// Made when first seen: 18 lines each, twice, so that `/metrics` would carry thousands of zeros.
static DURATIONS: [[OnceLock<Histogram>; CLASSES.len()]; Route::COUNT] =
    [const { [const { OnceLock::new() }; CLASSES.len()] }; Route::COUNT];

/// Lets every counter stand at 0 from now on.
pub(super) fn begin() {
    LazyLock::force(&REQUESTS);
}

/// A request was answered with this status after this time.
pub fn answered(route: Route, status: u16, elapsed: Duration) {
    let class = usize::from(status / 100).clamp(1, CLASSES.len()) - 1;
    REQUESTS[route.index()][class].increment(1);
    let durations = &DURATIONS[route.index()][class];
    durations
        .get_or_init(|| durations_of(route, class))
        .record(elapsed);
}

/// Measures one request: made at its head, told at its answer.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch {
    route: Route,
    started: Instant,
}

impl Stopwatch {
    /// Starts now.
    pub fn start(route: Route) -> Self {
        Self {
            route,
            started: Instant::now(),
        }
    }

    /// The answer goes out now.
    pub fn stop(self, status: u16) {
        answered(self.route, status, self.started.elapsed());
    }
}

fn requests(route: usize, class: usize) -> Counter {
    counter!(name::HTTP_REQUESTS, "route" => Route::ALL[route].label(), "status" => CLASSES[class])
}

fn durations_of(route: Route, class: usize) -> Histogram {
    histogram!(name::HTTP_DURATION, "route" => route.label(), "status" => CLASSES[class])
}
