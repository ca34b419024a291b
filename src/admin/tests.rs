//! Health, readiness, pressure, metrics and the page, handler by handler, without a socket.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use super::{
    AdminState, Config, Gate, Liveness, Pass, Purged, Shown, Snapshot, Source, not_found, router,
};
use crate::telemetry::setup::{Exporter, install_metrics};
use axum::body::Body;
use axum::response::Response;
use http::header::CONTENT_LENGTH;
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

/// The process has one recorder; all tests share it.
static EXPORTER: LazyLock<Exporter> =
    LazyLock::new(|| install_metrics().expect("nobody else installs one"));

#[derive(Clone)]
struct Node(Snapshot);

impl Source for Node {
    fn snapshot(&self) -> Snapshot {
        self.0.clone()
    }

    fn upstreams(&self) -> Vec<super::Upstream> {
        vec![super::Upstream {
            service: "users".to_owned(),
            url: "http://a".to_owned(),
            is_healthy: true,
            rate: 2.0,
            error_rate: 1.0,
            latency: Some(4.0),
            sse: 3,
            ..super::Upstream::default()
        }]
    }

    fn nodes(&self) -> super::Nodes<'_> {
        let row = super::NodeRow {
            id: "node-1".to_owned(),
            connections: 7,
            channels: 3,
            version: "9.9.9".to_owned(),
            uptime_seconds: 60,
        };
        Box::pin(async { Some(vec![row]) })
    }
}

/// Lets in who shows `right`, by whatever; nobody refuses where nothing is needed.
struct Right {
    is_open: bool,
}

impl Gate for Right {
    fn may_look(&self, shown: Shown<'_>) -> bool {
        let right = [shown.key, shown.authorization, shown.pass];
        self.is_open || right.contains(&Some("right"))
    }

    fn may_change(&self, shown: Shown<'_>) -> bool {
        shown.key == Some("right")
    }

    fn pass<'a>(&'a self, key_or_token: &'a str) -> Pass<'a> {
        let pass = (key_or_token == "right").then(|| ("right".to_owned(), 60));
        Box::pin(std::future::ready(pass))
    }
}

fn node() -> Snapshot {
    Snapshot {
        id: "node-1".to_owned(),
        web_sockets: 5,
        event_streams: 2,
        channels: 3,
        broker: "memory",
        broker_ready: true,
        has_users: true,
        draining: false,
        version: "9.9.9",
        uptime: Duration::from_secs(60),
        upstream_services: 4,
        is_full: false,
        loop_delay: Duration::from_millis(3),
        liveness: Liveness {
            ping_interval: Duration::from_secs(30),
            pong_timeout: Duration::from_secs(10),
            inactivity_timeout: Duration::from_secs(300),
        },
    }
}

fn state(node: Snapshot, config: Config, is_open: bool) -> AdminState {
    AdminState {
        source: Arc::new(Node(node)),
        exporter: EXPORTER.clone(),
        config,
        gate: Arc::new(Right { is_open }),
        live: Arc::default(),
        purge: Arc::new(|service: String, prefix: String| {
            let is_told = prefix != "/away";
            let here = prefix.len();
            Box::pin(async move { (service == "users").then_some(Purged { here, is_told }) })
        }),
    }
}

async fn answer(state: AdminState, request: Request<Body>) -> Response {
    let router = router(state).fallback(not_found);
    router.oneshot(request).await.expect("infallible")
}

async fn send(node: Snapshot, config: Config, request: Request<Body>) -> Response {
    answer(state(node, config, true), request).await
}

/// Where credentials are needed.
async fn send_guarded(request: Request<Body>) -> Response {
    answer(state(node(), Config::default(), false), request).await
}

fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).expect("a request")
}

async fn text(response: Response) -> String {
    let body = response.into_body().collect().await.expect("in memory");
    String::from_utf8(body.to_bytes().to_vec()).expect("UTF-8")
}

/// Status and JSON of a path.
async fn check(node: Snapshot, path: &str) -> (u16, Value) {
    let response = send(node, Config::default(), get(path)).await;
    let status = response.status().as_u16();
    let body = text(response).await;
    (status, serde_json::from_str(&body).expect("JSON"))
}

#[tokio::test]
async fn a_node_that_answers_is_alive() {
    for node in [
        node(),
        Snapshot {
            draining: true,
            broker_ready: false,
            ..node()
        },
    ] {
        assert_eq!(
            check(node.clone(), "/healthz").await,
            (200, json!({"ok": true}))
        );
        let (status, body) = check(node, "/health").await;
        assert_eq!((status, &body["status"]), (200, &json!("ok")));
        assert_eq!(
            (&body["active_connections"], &body["version"]),
            (&json!(7), &json!("9.9.9"))
        );
        assert_eq!(body["redis_connected"], false);
        assert_eq!(body["timestamp"].as_str().map(str::len), Some(24));
    }
}

#[tokio::test]
async fn a_node_is_ready_unless_it_drains_or_its_broker_is_away() {
    let (status, body) = check(node(), "/readyz").await;
    assert_eq!(status, 200);
    assert_eq!(
        body,
        json!({"ok": true, "upstreamServices": 4, "broker": "memory", "mode": "single-node"})
    );
    assert_eq!(check(node(), "/ready").await.1["status"], "ready");
    for (node, reason) in [
        (
            Snapshot {
                draining: true,
                ..node()
            },
            "draining",
        ),
        (
            Snapshot {
                broker_ready: false,
                ..node()
            },
            "broker_unavailable",
        ),
        (
            Snapshot {
                has_users: false,
                ..node()
            },
            "database_unavailable",
        ),
    ] {
        let (status, body) = check(node.clone(), "/readyz").await;
        assert_eq!(
            (status, &body["ok"], &body["reason"]),
            (503, &json!(false), &json!(reason))
        );
        let (status, body) = check(node, "/ready").await;
        assert_eq!((status, &body["status"]), (503, &json!(reason)));
    }
}

#[tokio::test]
async fn web_socket_health_has_the_shape_of_its_seed() {
    let (status, body) = check(node(), "/ws/health").await;
    assert_eq!(status, 200);
    assert_eq!(body["active_connections"], 5);
    assert_eq!(body["config"]["ping_interval"], 30.0);
    for field in [
        "connection_states",
        "cache_users",
        "cache_sessions",
        "cache_messages",
    ] {
        assert!(body[field].is_number(), "{field}");
    }
}

#[tokio::test]
async fn pressure_is_told_when_the_loop_is_late_or_memory_is_over_its_limit() {
    assert_eq!(
        check(node(), "/_pressure").await,
        (200, json!({"status": "ok"}))
    );
    let late = Snapshot {
        loop_delay: Duration::from_secs(2),
        ..node()
    };
    let small = Config {
        resident_bytes_max: Some(1),
        ..Config::default()
    };
    for (node, config) in [(late, Config::default()), (node(), small)] {
        let response = send(node, config, get("/_pressure")).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()["retry-after"], "10");
        assert_eq!(
            text(response).await,
            r#"{"statusCode":503,"code":"FST_UNDER_PRESSURE","error":"Service Unavailable","message":"Service Unavailable"}"#
        );
    }
}

#[tokio::test]
async fn metrics_show_the_node_the_process_and_requests_under_both_names() {
    check(node(), "/healthz").await;
    let response = send(node(), Config::default(), get("/metrics")).await;
    assert_eq!(
        response.headers()["content-type"],
        "text/plain; version=0.0.4; charset=utf-8"
    );
    let text = text(response).await;
    for line in [
        "# TYPE fanfare_channels gauge",
        "fanfare_channels 3",
        "fanfare_broker_ready 1",
        "fanfare_process_resident_bytes ",
        "fanfare_build_info{version=",
        "fanfare_http_requests_total{route=\"/health\",status=\"2xx\"}",
        "http_requests_total{route=\"/health\",status=\"2xx\"}",
        "request_latency_seconds_bucket{route=\"/health\",status=\"2xx\",le=\"0.001\"}",
    ] {
        assert!(
            text.lines().any(|found| found.starts_with(line)),
            "{line} is not in:\n{text}"
        );
    }
}

#[tokio::test]
async fn the_page_is_there_in_development_only() {
    let page = Config {
        page: true,
        ..Config::default()
    };
    let response = send(node(), page, get("/")).await;
    assert_eq!(response.status(), StatusCode::OK);
    let policy = response.headers()["content-security-policy"]
        .to_str()
        .expect("ASCII");
    assert!(policy.starts_with("default-src 'none'"));
    assert!(text(response).await.contains("<script type=\"module\">"));
    assert_eq!(check(node(), "/").await.0, 404);
}

#[tokio::test]
async fn the_module_is_always_there_and_need_not_be_sent_twice() {
    for path in ["/fanfare.js", "/fanfare.d.ts"] {
        let response = send(node(), Config::default(), get(path)).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["access-control-allow-origin"], "*");
        let tag = response.headers()["etag"].clone();
        let again = Request::get(path)
            .header("if-none-match", tag)
            .body(Body::empty());
        let response = send(node(), Config::default(), again.expect("a request")).await;
        assert_eq!(response.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(text(response).await, "");
    }
}

#[tokio::test]
async fn an_unknown_path_is_told_as_its_seed_did() {
    let response = send(node(), Config::default(), get("/nope?token=secret")).await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    assert_eq!(
        text(response).await,
        r#"{"message":"Route GET:/nope not found","error":"Not Found","statusCode":404}"#
    );
    let post = Request::post("/healthz")
        .body(Body::empty())
        .expect("a request");
    let response = send(node(), Config::default(), post).await;
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(response.headers()["allow"], "GET,HEAD");
    assert_eq!(
        text(response).await,
        r#"{"message":"Method POST not allowed for /healthz","error":"Method Not Allowed","statusCode":405}"#
    );
}

/// The body is not sent, and its length is (RFC 9110 section 9.3.2).
#[tokio::test]
async fn a_path_that_nobody_serves_is_answered_to_head_as_to_get() {
    let answer_to = async |method: &str| {
        let request = Request::builder().method(method).uri("/nope");
        let request = request.body(Body::empty()).expect("a request");
        let response = send(node(), Config::default(), request).await;
        let length = response.headers().get(CONTENT_LENGTH).cloned();
        (response.status(), length.expect("a length"))
    };
    assert_eq!(answer_to("HEAD").await, answer_to("GET").await);
}

#[tokio::test]
async fn statistics_have_the_shape_of_the_seed() {
    let response = send(node(), Config::default(), get("/admin/stats")).await;
    let body = response.into_body().collect().await.expect("a body");
    let mut stats: Value = serde_json::from_slice(&body.to_bytes()).expect("JSON");
    assert!(stats["nowMs"].take().as_u64().is_some());
    let version = stats["nodeVersion"].take();
    assert!(
        version
            .as_str()
            .is_some_and(|text| text.starts_with("rust "))
    );
    let detail = json!({
        "url": "http://a", "healthy": true, "circuitOpenUntilMs": null,
        "inflight": {"http": 0, "sse": 3, "ws": 0}, "requestsTotal": 0, "errorsTotal": 0,
        "rps": 2.0, "latency": {"ewmaMs": 4.0, "lastMs": null},
    });
    let expected = json!({
        "nowMs": null, "uptimeSeconds": 60, "nodeVersion": null, "env": "test",
        "services": {"users": {
            "upstreams": 1, "healthy": 1, "avgLatencyMs": 4.0, "rps": 2.0, "errorRate": 0.5,
            "upstreamDetails": [detail],
        }},
        "connections": {"http": 0, "sse": 5, "ws": 5},
    });
    assert_eq!(stats, expected);
}

#[tokio::test]
async fn what_stands_under_admin_is_refused_as_the_fastify_gateway_refuses() {
    for path in ["/admin", "/admin/stats", "/admin/events"] {
        let response = send_guarded(get(path)).await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{path}");
        assert_eq!(response.headers()["www-authenticate"], "Bearer", "{path}");
        assert_eq!(
            text(response).await,
            r#"{"statusCode":401,"error":"Unauthorized","message":"Invalid or missing token"}"#
        );
        for (name, value) in [
            ("x-admin-key", "right"),
            ("authorization", "right"),
            ("cookie", "a=b; fanfare_admin=right"),
        ] {
            let request = Request::get(path).header(name, value);
            let response = send_guarded(request.body(Body::empty()).expect("a request")).await;
            assert_eq!(response.status(), StatusCode::OK, "{path} with {name}");
        }
    }
}

#[tokio::test]
async fn a_browser_without_credentials_gets_a_form() {
    let request = Request::get("/admin").header("accept", "text/html,*/*");
    let response = send_guarded(request.body(Body::empty()).expect("a request")).await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    let policy = response.headers()["content-security-policy"].clone();
    let policy = policy.to_str().expect("ASCII");
    assert!(policy.contains("form-action 'self'"), "{policy}");
    assert!(text(response).await.contains("role=\"alert\" hidden"));
    let wrong = Request::post("/admin").header("accept", "text/html");
    let response = send_guarded(wrong.body(Body::from("token=wrong")).expect("a request")).await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert!(!text(response).await.contains("role=\"alert\" hidden"));
}

/// What a login answers: its status, where it leads and its cookie.
async fn login(request: http::request::Builder, body: &'static str) -> (u16, String, String) {
    let response = send_guarded(request.body(Body::from(body)).expect("a request")).await;
    let field = |name| {
        let value = response.headers().get(name);
        value.map_or("", |value| value.to_str().expect("ASCII"))
    };
    let (leads, cookie) = (field("location").to_owned(), field("set-cookie").to_owned());
    (response.status().as_u16(), leads, cookie)
}

#[tokio::test]
async fn a_login_leaves_a_cookie_and_leads_to_the_address_without_the_token() {
    let expected = "fanfare_admin=right; Path=/admin; Max-Age=60; HttpOnly; SameSite=Strict";
    let leads = |cookie: &str| (303, "/admin".to_owned(), cookie.to_owned());
    let by_query = login(Request::get("/admin?a=1&token=right"), "").await;
    assert_eq!(by_query, leads(expected));
    let by_form = login(Request::post("/admin"), "token=right").await;
    assert_eq!(by_form, leads(expected));
    for (name, value) in [
        ("x-forwarded-proto", "https"),
        (
            "forwarded",
            "for=192.0.2.1;proto=https, for=10.0.0.1;proto=http",
        ),
    ] {
        let secure = Request::get("/admin?token=right").header(name, value);
        assert_eq!(
            login(secure, "").await,
            leads(&format!("{expected}; Secure"))
        );
    }
    // A redirect of a navigation from another site would not carry the cookie.
    let from_elsewhere = Request::get("/admin?token=right").header("sec-fetch-site", "cross-site");
    assert_eq!(
        login(from_elsewhere, "").await,
        (200, String::new(), expected.to_owned())
    );
    let (status, _, cookie) = login(Request::get("/admin?token=wrong"), "").await;
    assert_eq!((status, &*cookie), (401, ""));
    let (_, _, cookie) = login(Request::post("/admin/logout"), "").await;
    assert!(cookie.starts_with("fanfare_admin=; Path=/admin; Max-Age=0"));
}

/// The figures of the first event of a stream.
async fn first_event(body: &mut Body) -> Value {
    let frame = body.frame().await.expect("a frame").expect("no error");
    let frame = frame.into_data().expect("data");
    let text = std::str::from_utf8(&frame).expect("UTF-8");
    let json = text.strip_prefix("data: ").expect("an event");
    serde_json::from_str(json.strip_suffix("\n\n").expect("whole")).expect("JSON")
}

#[tokio::test]
async fn viewers_get_the_node_its_fleet_and_its_upstreams() {
    let response = send(node(), Config::default(), get("/admin/events")).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let figures = first_event(&mut response.into_body()).await;
    assert_eq!(figures["node"]["id"], "node-1");
    assert_eq!(figures["node"]["webSockets"], 5);
    assert_eq!(figures["nodes"][0]["uptimeSeconds"], 60);
    assert_eq!(figures["stats"]["services"]["users"]["rps"], 2.0);
    assert!(figures["rates"]["deliveries"].is_number());
}

#[tokio::test]
async fn a_draining_node_ends_the_stream() {
    let draining = Snapshot {
        draining: true,
        ..node()
    };
    let response = send(draining, Config::default(), get("/admin/events")).await;
    assert_eq!(text(response).await, "");
}

#[tokio::test]
async fn so_many_look_at_once_and_no_more() {
    let state = state(node(), Config::default(), true);
    let mut viewers = Vec::new();
    for _ in 0..64 {
        viewers.push(answer(state.clone(), get("/admin/events")).await);
    }
    let refused = answer(state.clone(), get("/admin/events")).await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    viewers.pop();
    let response = answer(state, get("/admin/events")).await;
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn the_cache_is_purged_by_who_may_change_something() {
    let purge = |query: &str, name: &str| {
        let request = Request::delete(format!("/admin/cache{query}")).header(name, "right");
        send_guarded(request.body(Body::empty()).expect("a request"))
    };
    let response = purge("?service=users&prefix=/ab", "x-admin-key").await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(text(response).await, r#"{"purged":3}"#);
    for (query, name, expected) in [
        ("?service=users", "authorization", StatusCode::UNAUTHORIZED),
        ("?service=users", "cookie", StatusCode::UNAUTHORIZED),
        ("", "x-admin-key", StatusCode::BAD_REQUEST),
        ("?service=other", "x-admin-key", StatusCode::NOT_FOUND),
        (
            "?service=users&prefix=/away",
            "x-admin-key",
            StatusCode::SERVICE_UNAVAILABLE,
        ),
    ] {
        assert_eq!(
            purge(query, name).await.status(),
            expected,
            "{query} {name}"
        );
    }
}
