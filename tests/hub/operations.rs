//! What operators see: counts that are right, labels that are few, logs that hold no secret.

use fanfare::model::{CloseReason, SettingsGroup};
use fanfare::telemetry::consent::{Fate, Matter};
use fanfare::telemetry::http::Route;
use fanfare::telemetry::proxy::{Cached, Reload};
use fanfare::telemetry::table::METRICS;
use fanfare::telemetry::{CommandKind, Refusal};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::hub::SECRET;
use crate::support::raw;
use crate::support::sse::EventStream;
use crate::support::token::{in_seconds, token};
use crate::support::ws::{Socket, handshake};
use crate::support::{Hub, eventually, hub, within};

#[tokio::test]
async fn metrics_count_what_happened_and_name_nobody() {
    let hub = hub(&[("JWT_SECRET", SECRET)]).await;
    let token = token(json!({"sub": "a-user-of-note"}));
    let mut sockets = Vec::new();
    for _ in 0..3 {
        let mut socket = Socket::open_as(&hub, &token).await;
        socket.subscribe("a-channel-of-note").await;
        sockets.push(socket);
    }
    let mut stream = EventStream::open(&hub, "channel=a-channel-of-note", &[]).await;
    for n in 0..10 {
        hub.publish("a-channel-of-note", &json!(n)).await;
    }
    sockets[0]
        .send(&json!({"type": "publish", "channel": "a-channel-of-note", "data": 10}))
        .await;
    for socket in &mut sockets {
        while socket.next_of("publication").await["data"] != 10 {}
    }
    while stream.event().await.json()["data"] != 10 {}
    for (name, expected) in [
        ("fanfare_connections{transport=\"ws\"}", 3.0),
        ("fanfare_connections{transport=\"sse\"}", 1.0),
        ("fanfare_subscriptions", 4.0),
        ("fanfare_channels", 1.0),
        ("fanfare_deliveries_total", 44.0),
        ("fanfare_publications_total{door=\"http\"}", 10.0),
        ("fanfare_publications_total{door=\"ws\"}", 1.0),
        ("fanfare_broker_ready", 1.0),
        ("fanfare_draining", 0.0),
    ] {
        eventually(name, async || {
            (hub.metric(name).await == expected).then_some(())
        })
        .await;
    }
    assert!(hub.metric("fanfare_delivered_bytes_total").await > 44.0 * 40.0);
    assert!(hub.metric("fanfare_process_resident_bytes").await > 1e6);
    assert!(hub.metric("fanfare_process_open_fds").await > 10.0);
    let text = hub.get("/metrics").await.text;
    assert!(!text.contains("of-note"), "a name in a label");
    assert!(!text.contains("/hub/publish?"), "a path in a label");
    for (command, kind) in [
        (json!({"type": "fly"}), "unknown"),
        (json!({"type": 7}), "invalid"),
        (json!({"type": "ping"}), "ping"),
    ] {
        sockets[0].send(&command).await;
        let name = format!("fanfare_commands_total{{type=\"{kind}\"}}");
        eventually(&name, async || {
            (hub.metric(&name).await == 1.0).then_some(())
        })
        .await;
    }
    let gone = sockets.len();
    for socket in sockets {
        socket.close().await;
    }
    eventually("closes are counted", async || {
        let closed = hub
            .metric("fanfare_closes_total{reason=\"client_closed\"}")
            .await;
        let open = hub.metric("fanfare_connections{transport=\"ws\"}").await;
        (closed == gone as f64 && open == 0.0).then_some(())
    })
    .await;
}

/// The series whose label values are known before anything happens.
fn known_series() -> Vec<String> {
    let of = |values: &[&'static str]| values.to_vec();
    let reasons = CloseReason::ALL.iter().map(|reason| reason.label());
    let refusals = Refusal::ALL.iter().map(|reason| reason.label());
    let kinds = CommandKind::ALL.iter().map(|kind| kind.label());
    let results = Cached::ALL.iter().map(|result| result.label());
    let outcomes = Reload::ALL.iter().map(|outcome| outcome.label());
    let groups = SettingsGroup::ALL.iter().map(|group| group.name());
    let by_one_label = [
        ("connections", "transport", of(&["ws", "sse"])),
        ("publications_total", "door", of(&["http", "ws"])),
        ("closes_total", "reason", reasons.collect()),
        ("handshake_refusals_total", "reason", refusals.collect()),
        ("commands_total", "type", kinds.collect()),
        ("cache_requests_total", "result", results.collect()),
        ("reloads_total", "outcome", outcomes.collect()),
        ("drops_total", "reason", of(&["policy", "disconnect"])),
        (
            "certificate_reads_total",
            "result",
            of(&["taken", "failed"]),
        ),
        ("upstream_retries_total", "outcome", of(&["made", "spent"])),
        ("upstream_health_changes_total", "to", of(&["ill", "well"])),
        ("settings_differ", "group", groups.collect()),
    ];
    let mut series = Vec::new();
    for (name, label, values) in by_one_label {
        let values = values.iter();
        series.extend(values.map(|value| format!("fanfare_{name}{{{label}=\"{value}\"}}")));
    }
    for way in ["webhook", "stream"] {
        for outcome in ["told", "repeated", "dropped"] {
            let labels = format!("{{way=\"{way}\",outcome=\"{outcome}\"}}");
            series.push(format!("fanfare_events_total{labels}"));
        }
    }
    for matter in Matter::ALL.iter().map(|matter| matter.label()) {
        series.push(format!(
            "fanfare_consent_duration_seconds_count{{ask=\"{matter}\"}}"
        ));
        for fate in Fate::ALL.iter().map(|fate| fate.label()) {
            let labels = format!("{{ask=\"{matter}\",outcome=\"{fate}\"}}");
            series.push(format!("fanfare_consents_total{labels}"));
        }
    }
    for route in Route::ALL.iter().map(|route| route.label()) {
        for status in ["1xx", "2xx", "3xx", "4xx", "5xx"] {
            let labels = format!("{{route=\"{route}\",status=\"{status}\"}}");
            series.push(format!("fanfare_http_requests_total{labels}"));
        }
    }
    series
}

/// A series that comes with its first event hides that event from every rate.
#[tokio::test]
async fn every_series_stands_before_anything_happened() {
    // A wait for readiness would be counted.
    let hub = Hub::start("", &[]);
    eventually("the door is open", async || {
        TcpStream::connect(hub.address()).await.ok()
    })
    .await;
    let text = hub.get("/metrics").await.text;
    // What these carry is not known before.
    let begin_with_an_answer = [
        "fanfare_http_request_duration_seconds",
        "gateway_http_request_duration_seconds",
    ];
    for metric in METRICS {
        let stands = text.lines().any(|line| {
            let rest = line.strip_prefix(metric.name);
            rest.is_some_and(|rest| rest.starts_with([' ', '{']) || rest.starts_with("_count"))
        });
        let is_late = begin_with_an_answer.contains(&metric.name);
        assert_eq!(stands, !is_late, "{}", metric.name);
    }
    for series in known_series() {
        let line = text.lines().find(|line| line.starts_with(&series));
        let value = line.and_then(|line| line.strip_prefix(&series));
        assert_eq!(value, Some(" 0"), "{series}: {line:?}");
    }
    assert!(text.contains("\nfanfare_fleet_nodes 1\n"), "it is alone");
}

#[tokio::test]
async fn refused_handshakes_are_counted() {
    let hub = hub(&[
        ("JWT_SECRET", SECRET),
        ("AUTH_REQUIRED", "true"),
        ("ALLOW_ORIGINS", "https://app.example"),
    ])
    .await;
    for _ in 0..3 {
        assert!(handshake(&hub, "/ws/connect", &[]).await.is_err());
    }
    assert!(
        handshake(&hub, "/ws/connect", &[("origin", "https://evil.example")])
            .await
            .is_err()
    );
    eventually("four are counted", async || {
        let text = hub.get("/metrics").await.text;
        let refusals = text
            .lines()
            .filter(|line| line.starts_with("fanfare_handshake_refusals_total{"))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        (refusals.sum::<f64>() == 4.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn no_log_holds_a_secret() {
    let hub = hub(&[
        ("JWT_SECRET", SECRET),
        ("AUTH_REQUIRED", "true"),
        ("HUB_API_KEY", "the-key-of-back-ends"),
        ("LOG_LEVEL", "trace"),
    ])
    .await;
    let good = token(json!({"sub": "ann"}));
    let expired = token(json!({"sub": "ann", "exp": in_seconds(-5)}));
    let mut socket = Socket::open_at(&hub, &format!("/ws/connect?token={good}"), &[]).await;
    for bad in [&expired, "not-a-token-at-all"] {
        let path = format!("/ws/connect?token={bad}");
        assert!(handshake(&hub, &path, &[]).await.is_err());
        let offered = format!("fanfare.json, bearer.{bad}");
        assert!(
            handshake(&hub, "/ws/connect", &[("sec-websocket-protocol", &offered)])
                .await
                .is_err()
        );
        hub.get(&format!("/sse/connect?channel=a&token={bad}"))
            .await;
        hub.get(&format!("/nowhere?token={bad}")).await;
    }
    EventStream::open(&hub, &format!("channel=a&token={good}"), &[]).await;
    let wrong = [("authorization", "Bearer a-wrong-key-of-back-ends")];
    hub.request("GET", "/hub/nodes", &wrong, "").await;
    let right = [("authorization", "Bearer the-key-of-back-ends")];
    assert_eq!(
        hub.request("GET", "/hub/nodes", &right, "").await.status,
        200
    );
    socket
        .ask(&json!({"type": "update_api_key", "key": "sk-private-of-ann"}))
        .await;
    socket.ask(&json!({"type": "refresh", "token": good})).await;
    socket
        .send(&json!({"type": "refresh", "token": expired}))
        .await;
    socket.closed().await;
    let log = hub.log();
    assert!(log.contains("listening"), "no log: {log}");
    let (_, signature) = good.rsplit_once('.').expect("three parts");
    let (_, expired_signature) = expired.rsplit_once('.').expect("three parts");
    for secret in [
        SECRET,
        signature,
        expired_signature,
        good.as_str(),
        "not-a-token-at-all",
        "the-key-of-back-ends",
        "a-wrong-key-of-back-ends",
        "sk-private-of-ann",
    ] {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret} in the log");
    }
}

#[tokio::test]
async fn most_connections_is_a_limit_that_gives_places_back() {
    let hub = hub(&[("MAX_CONNECTIONS", "5"), ("MAX_HANDSHAKES", "5")]).await;
    let mut sockets = Vec::new();
    eventually("five are in", async || {
        let refused = match handshake(&hub, "/ws/connect", &[]).await {
            Ok((socket, _)) => {
                sockets.push(socket);
                return None;
            }
            Err(refused) => refused,
        };
        assert_eq!(
            (refused.status, &refused.body["error"]),
            (503, &json!("unavailable"))
        );
        (sockets.len() == 5).then_some(())
    })
    .await;
    drop(sockets);
    eventually("a place is free again", async || {
        handshake(&hub, "/ws/connect", &[]).await.ok()
    })
    .await;
}

#[tokio::test]
async fn a_full_node_says_how_it_is_and_nothing_else() {
    let hub = hub(&[("MAX_CONNECTIONS", "3"), ("MAX_HANDSHAKES", "3")]).await;
    let mut sockets = Vec::new();
    eventually("it is full", async || {
        match handshake(&hub, "/ws/connect", &[]).await {
            Ok((socket, _)) => sockets.push(socket),
            Err(refused) => assert_eq!(refused.status, 503),
        }
        (sockets.len() == 3).then_some(())
    })
    .await;
    // More often than there are places for this: each is given back.
    for _ in 0..20 {
        for path in [
            "/healthz",
            "/health",
            "/readyz",
            "/ready",
            "/metrics",
            "/_pressure",
        ] {
            let answer = hub.get(path).await;
            assert_eq!(answer.status, 200, "{path} {answer:?}");
            assert_eq!(answer.header("connection"), Some("close"), "{path}");
        }
    }
    for path in ["/", "/healthz/x", "/hub/stats", "/sse/connect?channel=a"] {
        let answer = hub.get(path).await;
        answer.expect_error(503, "unavailable");
        assert!(answer.header("retry-after").is_some(), "{answer:?}");
    }
    let post = hub.post("/healthz", &json!({})).await;
    post.expect_error(503, "unavailable");
    drop(sockets);
}

/// Who is full and silent, or begins to ask and does not end: the oldest of them makes way at once.
#[tokio::test]
async fn nobody_keeps_the_few_places_of_a_full_node_by_saying_nothing() {
    // With one worker they are accepted in the order in which they come.
    let limits = [
        ("MAX_CONNECTIONS", "3"),
        ("MAX_HANDSHAKES", "3"),
        ("WORKERS", "1"),
    ];
    let hub = hub(&limits).await;
    let mut sockets = Vec::new();
    eventually("it is full", async || {
        match handshake(&hub, "/ws/connect", &[]).await {
            Ok((socket, _)) => sockets.push(socket),
            Err(refused) => assert_eq!(refused.status, 503),
        }
        (sockets.len() == 3).then_some(())
    })
    .await;
    let mut silent = Vec::new();
    for n in 0..40 {
        let mut stream = TcpStream::connect(hub.address()).await.expect("a socket");
        if n % 2 == 0 {
            stream.write_all(b"GET /healthz HT").await.expect("sent");
        }
        silent.push(stream);
    }
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(hub.get(path).await.status, 200, "{path}");
    }
    let mut first = String::new();
    let read = silent[1].read_to_string(&mut first);
    within("the first is told", read).await.expect("an answer");
    assert!(first.starts_with("HTTP/1.1 503 "), "{first}");
    // The last ones have their places still.
    let last = silent.last_mut().expect("one");
    let request = b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n";
    last.write_all(request).await.expect("sent");
    let mut answer = String::new();
    let read = last.read_to_string(&mut answer);
    within("the last is answered", read)
        .await
        .expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    drop((silent, sockets));
}

#[tokio::test]
async fn a_node_under_pressure_takes_no_new_clients() {
    let hub = hub(&[("UNDER_PRESSURE_MAX_RSS_BYTES", "1000")]).await;
    eventually("it says so", async || {
        (hub.get("/_pressure").await.status == 503).then_some(())
    })
    .await;
    eventually("a WebSocket is refused", async || {
        let refused = handshake(&hub, "/ws/connect", &[]).await.err()?;
        assert_eq!(
            (refused.status, &refused.body["error"]),
            (503, &json!("unavailable"))
        );
        Some(())
    })
    .await;
    let stream = hub.get("/sse/connect?channel=a").await;
    stream.expect_error(503, "unavailable");
    assert!(stream.header("retry-after").is_some(), "{stream:?}");
    // Back ends are served all the same.
    hub.publish("a", &json!(1)).await;
}

#[tokio::test]
async fn answers_are_found_again_by_the_ids_of_their_requests() {
    let hub = hub(&[]).await;
    let made = hub.get("/health").await;
    let id = made.header("x-request-id").expect("an id");
    assert_eq!((id.len(), made.header("x-correlation-id")), (36, Some(id)));
    for path in ["/health", "/nope", "/hub/publish"] {
        let fields = [("x-request-id", "mine"), ("x-correlation-id", "ours")];
        let answer = hub.request("GET", path, &fields, "").await;
        assert_eq!(answer.header("x-request-id"), Some("mine"), "{path}");
        assert_eq!(answer.header("x-correlation-id"), Some("ours"), "{path}");
    }
    let published = hub
        .post("/hub/publish", &json!({"channel": "a", "data": 1}))
        .await;
    assert_eq!(published.header("x-request-id"), None, "nobody asked");
}

#[tokio::test]
async fn streams_and_sockets_carry_the_ids_of_their_requests_whatever_they_look_like() {
    let hub = hub(&[]).await;
    let fields = [("x-request-id", "HTTP/1.1"), ("x-correlation-id", "ours")];
    let stream = EventStream::open(&hub, "channel=a", &fields).await;
    assert_eq!(stream.head.header("x-request-id"), Some("HTTP/1.1"));
    assert_eq!(stream.head.header("x-correlation-id"), Some("ours"));
    let line = "\r\nx-request-id: HTTP/1.1\r\n\r\n";
    let request = raw::handshake(&hub, "/ws/connect").replace("\r\n\r\n", line);
    let mut socket = TcpStream::connect(hub.address()).await.expect("the hub");
    socket.write_all(request.as_bytes()).await.expect("sent");
    let head = raw::read_head(&mut socket).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.contains("\r\nx-request-id: HTTP/1.1\r\n"), "{head}");
}

#[tokio::test]
async fn pages_of_elsewhere_read_what_they_are_let_read() {
    let hub = hub(&[
        ("ALLOW_ORIGINS", "https://a"),
        ("ALLOW_CREDENTIALS", "true"),
    ])
    .await;
    let preflight = [
        ("origin", "https://a"),
        ("access-control-request-method", "POST"),
    ];
    let answer = hub.request("OPTIONS", "/hub/publish", &preflight, "").await;
    assert_eq!(answer.status, 204, "{answer:?}");
    assert_eq!(
        answer.header("access-control-allow-methods"),
        Some("GET, HEAD, POST, PUT, PATCH, DELETE")
    );
    assert_eq!(
        answer.header("access-control-allow-credentials"),
        Some("true")
    );
    let body = r#"{"channel":"a","data":1}"#;
    for (origin, allowed) in [("https://a", Some("https://a")), ("https://b", None)] {
        let fields = [("origin", origin)];
        let answer = hub.request("POST", "/hub/publish", &fields, body).await;
        assert_eq!(
            answer.header("access-control-allow-origin"),
            allowed,
            "{origin}"
        );
    }
    let closed = crate::support::hub(&[]).await;
    let answer = closed.request("GET", "/health", &preflight[..1], "").await;
    assert_eq!(answer.header("access-control-allow-origin"), None);
}

#[tokio::test]
async fn browsers_are_told_not_to_misuse_answers() {
    let hardened = hub(&[]).await;
    let answer = hardened.get("/health").await;
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(answer.header("x-frame-options"), Some("SAMEORIGIN"));
    let published = hardened
        .post("/hub/publish", &json!({"channel": "a", "data": 1}))
        .await;
    assert_eq!(published.header("x-frame-options"), None, "spared");
    let plain = hub(&[("SECURITY_HEADERS", "false")]).await;
    assert_eq!(plain.get("/health").await.header("x-frame-options"), None);
}
