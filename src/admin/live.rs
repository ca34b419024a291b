//! `GET /admin/events`: the dashboard's figures as server-sent events, one a second.
//!
//! All viewers share a frame: it is made by the first who asks in a second, so what a look at the node costs does not
//! grow with how many look. Figures are this node's; `nodes` are all that live.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, HeaderName, StatusCode};
use serde::Serialize;

use super::health::json_response;
use super::stats::{self, Stats};
use super::{AdminState, Snapshot, gate};
use crate::telemetry::process::ProcessStats;
use crate::telemetry::totals::{Total, Totals};

/// The most that look at once; each holds a connection.
const VIEWERS_MAX: usize = 64;
/// How old a frame may be that another viewer made: a little less than the second between two.
const FRAME_AGE_MAX: Duration = Duration::from_millis(900);
/// Between two frames of one viewer.
const INTERVAL: Duration = Duration::from_secs(1);
/// How old the list of nodes may be: their leases are renewed every three seconds.
const NODES_AGE_MAX: Duration = Duration::from_secs(3);
/// Rates are taken over so many frames. Workers flush about once a second, not at the same moment as a frame is made.
const SAMPLES: usize = 4;

/// One replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeRow {
    /// Its id.
    pub id: String,
    /// Its open WebSockets and event streams.
    pub connections: u64,
    /// Channels with a subscriber there.
    pub channels: u64,
    /// Its version of Fanfare.
    pub version: String,
    /// Seconds since its start.
    pub uptime_seconds: u64,
}

/// What viewers share.
#[derive(Debug, Default)]
pub struct Live {
    viewers: AtomicUsize,
    frames: Mutex<Frames>,
}

#[derive(Debug, Default)]
struct Frames {
    latest: Option<(Instant, Bytes)>,
    samples: VecDeque<Sample>,
    nodes: Option<(Instant, Vec<NodeRow>)>,
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Instant,
    totals: Totals,
    cpu: Duration,
}

/// One viewer's place; dropping it makes room.
struct Place(Arc<Live>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.viewers.fetch_sub(1, Relaxed);
    }
}

/// The stream, for who may look and as long as he may.
pub(super) fn events(state: &Arc<AdminState>, request: &Request) -> Response {
    if !gate::may_look(state, request.headers()) {
        return stats::refused();
    }
    let Some(place) = state.live.place() else {
        let body = serde_json::json!({"error": "unavailable", "message": "too many look already"});
        return json_response(StatusCode::SERVICE_UNAVAILABLE, &body);
    };
    let viewer = Viewer {
        state: state.clone(),
        fields: request.headers().clone(),
        due: None,
        _place: place,
    };
    let mut response = Response::new(Body::from_stream(stream::unfold(viewer, next)));
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_TYPE, "text/event-stream"),
        (CACHE_CONTROL, "no-cache, no-transform"),
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

struct Viewer {
    state: Arc<AdminState>,
    /// What it showed: a token may end while it looks.
    fields: HeaderMap,
    /// When its next frame goes out; the first goes at once.
    due: Option<tokio::time::Instant>,
    _place: Place,
}

/// The next frame. None ends the stream: the viewer may not look any more, or the node drains; a browser comes back by
/// itself, to another node.
async fn next(mut viewer: Viewer) -> Option<(Result<Bytes, Infallible>, Viewer)> {
    let now = tokio::time::Instant::now();
    let due = viewer.due.unwrap_or(now);
    tokio::time::sleep_until(due).await;
    viewer.due = Some(due.max(now) + INTERVAL);
    let state = &viewer.state;
    let node = state.source.snapshot();
    if node.draining || !gate::may_look(state, &viewer.fields) {
        return None;
    }
    state.live.renew_nodes(state).await;
    let frame = state.live.frame(state, &node);
    Some((Ok(frame), viewer))
}

impl Live {
    fn place(self: &Arc<Self>) -> Option<Place> {
        let next = |viewers: usize| (viewers < VIEWERS_MAX).then_some(viewers + 1);
        self.viewers.fetch_update(Relaxed, Relaxed, next).ok()?;
        Some(Place(self.clone()))
    }

    fn frames(&self) -> std::sync::MutexGuard<'_, Frames> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the broker for the nodes where the list is old. What it does not tell stays as it was.
    async fn renew_nodes(&self, state: &AdminState) {
        {
            let mut frames = self.frames();
            let now = Instant::now();
            match &mut frames.nodes {
                Some((at, _)) if now - *at < NODES_AGE_MAX => return,
                // Nobody else asks meanwhile.
                Some((at, _)) => *at = now,
                None => frames.nodes = Some((now, Vec::new())),
            }
        }
        if let Some(mut nodes) = state.source.nodes().await {
            nodes.sort_by(|one, other| one.id.cmp(&other.id));
            self.frames().nodes = Some((Instant::now(), nodes));
        }
    }

    /// This second's frame.
    fn frame(&self, state: &AdminState, node: &Snapshot) -> Bytes {
        let mut frames = self.frames();
        let now = Instant::now();
        if let Some((made, frame)) = &frames.latest
            && now - *made < FRAME_AGE_MAX
        {
            return frame.clone();
        }
        let frame = frames.make(state, node, now);
        frames.latest = Some((now, frame.clone()));
        frame
    }
}

impl Frames {
    fn make(&mut self, state: &AdminState, node: &Snapshot, now: Instant) -> Bytes {
        let process = ProcessStats::read();
        let sample = Sample {
            at: now,
            totals: Totals::read(),
            cpu: process.cpu.unwrap_or_default(),
        };
        self.samples.push_back(sample);
        if self.samples.len() > SAMPLES {
            self.samples.pop_front();
        }
        let before = self.samples.front().copied().unwrap_or(sample);
        let upstreams = state.source.upstreams();
        let figures = Figures {
            stats: stats::body(state, node, &upstreams),
            node: This::of(node, &process, &sample),
            rates: Rates::between(&before, &sample),
            nodes: self.nodes.as_ref().map_or(&[], |(_, nodes)| nodes),
        };
        let mut frame = b"data: ".to_vec();
        // Numbers and strings without line ends: it cannot fail, and one line holds it.
        let _ = serde_json::to_writer(&mut frame, &figures);
        frame.extend_from_slice(b"\n\n");
        frame.into()
    }
}

/// One frame.
#[derive(Serialize)]
struct Figures<'a> {
    stats: Stats<'a>,
    node: This<'a>,
    rates: Rates,
    nodes: &'a [NodeRow],
}

/// This node.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct This<'a> {
    id: &'a str,
    version: &'a str,
    broker: &'a str,
    broker_ready: bool,
    uptime_seconds: u64,
    web_sockets: u64,
    event_streams: u64,
    channels: u64,
    subscriptions: u64,
    pending_bytes: u64,
    deliveries_total: u64,
    loop_delay_ms: f64,
    resident_bytes: Option<u64>,
    open_fds: Option<u64>,
    max_fds: Option<u64>,
}

impl<'a> This<'a> {
    fn of(node: &'a Snapshot, process: &ProcessStats, sample: &Sample) -> Self {
        Self {
            id: &node.id,
            version: node.version,
            broker: node.broker,
            broker_ready: node.broker_ready,
            uptime_seconds: node.uptime.as_secs(),
            web_sockets: node.web_sockets,
            event_streams: node.event_streams,
            channels: node.channels,
            subscriptions: sample.totals.subscriptions,
            pending_bytes: sample.totals.pending_bytes,
            deliveries_total: sample.totals.of(Total::Deliveries),
            loop_delay_ms: node.loop_delay.as_secs_f64() * 1000.0,
            resident_bytes: process.resident_bytes,
            open_fds: process.open_fds,
            max_fds: process.max_fds,
        }
    }
}

/// What happens in a second, over the last few.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Rates {
    publications: f64,
    deliveries: f64,
    delivered_bytes: f64,
    gaps: f64,
    drops: f64,
    /// Cores in use.
    cpu: f64,
}

impl Rates {
    #[expect(
        clippy::cast_precision_loss,
        reason = "what a few seconds bring stays far below 2^53"
    )]
    fn between(before: &Sample, now: &Sample) -> Self {
        let seconds = (now.at - before.at).as_secs_f64();
        let rate = |difference: f64| match seconds {
            0.0 => 0.0,
            seconds => difference / seconds,
        };
        let of = |total| {
            let more = now.totals.of(total).saturating_sub(before.totals.of(total));
            rate(more as f64)
        };
        Self {
            publications: of(Total::Publications),
            deliveries: of(Total::Deliveries),
            delivered_bytes: of(Total::DeliveredBytes),
            gaps: of(Total::Gaps),
            drops: of(Total::Drops),
            cpu: rate(now.cpu.saturating_sub(before.cpu).as_secs_f64()),
        }
    }
}
