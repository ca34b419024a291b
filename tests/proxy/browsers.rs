//! Pages of other origins before upstreams (CORS): what they are answered beforehand, and what they may read.

use serde_json::json;

use crate::cache::Origin;
use crate::encrypted::encrypted;
use crate::http2::Session;
use crate::node;
use crate::shims::Pair;
use crate::support::hub::SECRET;
use crate::support::sse::EventStream;
use crate::support::token::token_of;
use crate::support::{Hub, hub, hub_with};
use crate::ticker::Ticker;
use crate::upstream::Upstream;

const PAGE: &str = "https://ok.example";

/// What a browser asks before a page may send a token.
const PREFLIGHT: [(&str, &str); 3] = [
    ("origin", PAGE),
    ("access-control-request-method", "PUT"),
    ("access-control-request-headers", "authorization"),
];

/// What a node needs that lets these pages in, and nobody without a token.
const CLOSED: [(&str, &str); 4] = [
    ("ALLOW_ORIGINS", PAGE),
    ("ALLOW_METHODS", "GET,PUT"),
    ("AUTH_REQUIRED", "true"),
    ("JWT_SECRET", SECRET),
];

/// Status and fields of one answer, by HTTP/1.1 and by HTTP/2.
async fn both(
    node: &Hub,
    method: &str,
    path: &str,
    fields: &[(&str, &str)],
) -> [(u16, Vec<(String, String)>); 2] {
    let names = [
        "access-control-allow-origin",
        "access-control-allow-methods",
        "access-control-allow-headers",
        "access-control-expose-headers",
        "vary",
        "x-content-type-options",
        "cross-origin-resource-policy",
        "strict-transport-security",
    ];
    let plain = node.request(method, path, fields, "").await;
    let session = Session::open(node).await;
    let second = session.ask(method, path, fields, "").await;
    let pairs = |field: &dyn Fn(&str) -> Option<String>| {
        let found = names.iter().map(|name| Some((*name, field(name)?)));
        let found = found.flatten();
        found
            .map(|(name, value)| (name.to_owned(), value))
            .collect::<Vec<_>>()
    };
    let first = pairs(&|name| plain.header(name).map(str::to_owned));
    let other = pairs(&|name| second.field(name).map(str::to_owned));
    [(plain.status, first), (second.status, other)]
}

fn has(fields: &[(String, String)], name: &str, value: &str) -> bool {
    fields.contains(&(name.to_owned(), value.to_owned()))
}

fn names(fields: &[(String, String)], name: &str) -> bool {
    fields.iter().any(|(one, _)| one == name)
}

#[tokio::test]
async fn a_preflight_is_answered_before_it_is_counted_and_without_a_token() {
    let (upstream, ticker) = (Upstream::start().await, Ticker::start().await);
    let file = format!(
        "[services.example]\nupstreams = [{:?}]\n[services.shared]\nupstreams = [{:?}]\nshare = \"all\"",
        upstream.url(),
        ticker.url()
    );
    let mut variables = CLOSED.to_vec();
    variables.push(("RATE_LIMIT_MAX", "1"));
    let node = hub_with(&file, &variables).await;
    for path in [
        "/api/example/x",
        "/sse/example/x",
        "/sse/shared/x",
        "/api/none/x",
    ] {
        for (status, fields) in both(&node, "OPTIONS", path, &PREFLIGHT).await {
            assert_eq!(status, 204, "{path}: {fields:?}");
            for (name, value) in [
                ("access-control-allow-origin", PAGE),
                ("access-control-allow-methods", "GET, PUT"),
                (
                    "access-control-allow-headers",
                    "authorization, content-type, x-request-id",
                ),
                ("vary", "Origin"),
            ] {
                assert!(has(&fields, name, value), "{path}: {name} in {fields:?}");
            }
        }
    }
    assert_eq!(upstream.requests(), 0);
    let bearer = format!("Bearer {}", token_of("u"));
    let fields = [("origin", PAGE), ("authorization", &*bearer)];
    let answer = node.request("PUT", "/api/example/x", &fields, "1").await;
    assert_eq!(answer.status, 200, "the one that counts: {answer:?}");
}

/// A page could not PUT where nobody had named that: the node has no such call itself.
#[tokio::test]
async fn pages_may_use_the_methods_that_services_have_without_more_ado() {
    let upstream = Upstream::start().await;
    let node = node(&[&upstream], &[("ALLOW_ORIGINS", PAGE)]).await;
    for (status, fields) in both(&node, "OPTIONS", "/api/example/x", &PREFLIGHT).await {
        assert_eq!(status, 204, "{fields:?}");
        let all = "GET, HEAD, POST, PUT, PATCH, DELETE";
        let name = "access-control-allow-methods";
        assert!(has(&fields, name, all), "{fields:?}");
    }
}

#[tokio::test]
async fn who_is_not_allowed_is_refused_beforehand_as_ever() {
    let upstream = Upstream::start().await;
    let node = node(&[&upstream], &CLOSED).await;
    let mut preflight = PREFLIGHT;
    preflight[0].1 = "https://evil.example";
    for (status, fields) in both(&node, "OPTIONS", "/api/example/x", &preflight).await {
        assert_eq!(status, 401, "{fields:?}");
        assert!(!names(&fields, "access-control-allow-origin"), "{fields:?}");
    }
    // That is no preflight.
    let answers = both(&node, "OPTIONS", "/api/example/x", &PREFLIGHT[..1]).await;
    assert!(answers.iter().all(|(status, _)| *status == 401));
    assert_eq!(upstream.requests(), 0);
}

#[tokio::test]
async fn without_origins_of_the_nodes_own_the_upstream_answers_preflights() {
    let upstream = Upstream::start().await;
    let node = node(&[&upstream], &CLOSED[2..]).await;
    for path in ["/api/example/x", "/sse/example/x"] {
        let answer = node.request("OPTIONS", path, &PREFLIGHT, "").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.text.starts_with("OPTIONS /x HTTP/1.1\r\n"));
        let session = Session::open(&node).await;
        let answer = session.ask("OPTIONS", path, &PREFLIGHT, "").await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    // Nothing else gets there without a token.
    let requests = upstream.requests();
    let (bearer, cookie) = (("authorization", "Bearer x"), ("cookie", "a=b"));
    for (method, fields, body, status) in [
        ("OPTIONS", PREFLIGHT.to_vec(), "body", 401),
        ("OPTIONS", PREFLIGHT[..1].to_vec(), "", 401),
        ("OPTIONS", PREFLIGHT[1..].to_vec(), "", 401),
        ("OPTIONS", [&PREFLIGHT[..], &[bearer]].concat(), "", 401),
        ("OPTIONS", [&PREFLIGHT[..], &[cookie]].concat(), "", 401),
        ("GET", PREFLIGHT.to_vec(), "", 401),
    ] {
        let answer = node.request(method, "/api/example/x", &fields, body).await;
        assert_eq!(answer.status, status, "{method} {fields:?}: {answer:?}");
    }
    let answer = node.request("OPTIONS", "/ws/example", &PREFLIGHT, "").await;
    assert_eq!(answer.status, 404, "{answer:?}");
    assert_eq!(upstream.requests(), requests);
}

#[tokio::test]
async fn a_preflight_that_passes_is_counted_and_its_valid_token_goes_no_further() {
    let upstream = Upstream::start().await;
    let services = json!({ "example": [upstream.url()] }).to_string();
    let mut variables = CLOSED[2..].to_vec();
    variables.extend([("UPSTREAMS", &*services), ("RATE_LIMIT_MAX", "1")]);
    let node = hub(&variables).await;
    let path = format!("/sse/example/x?token={}&a=1", token_of("u"));
    let answer = node.request("OPTIONS", &path, &PREFLIGHT, "").await;
    assert!(
        answer.text.starts_with("OPTIONS /x?a=1 HTTP/1.1\r\n"),
        "{answer:?}"
    );
    let answer = node.request("OPTIONS", &path, &PREFLIGHT, "").await;
    assert_eq!(answer.status, 429, "{answer:?}");
}

#[tokio::test]
async fn pages_can_read_the_errors_of_the_proxy() {
    let dead = Upstream::refusing().await;
    let node = node(&[&dead], &CLOSED).await;
    let bearer = format!("Bearer {}", token_of("u"));
    let token = ("authorization", &*bearer);
    for (path, fields, expected) in [
        ("/api/example/x", vec![], 401),
        ("/sse/example/x", vec![], 401),
        ("/api/example/x", vec![token], 502),
        ("/api/none/x", vec![token], 404),
        ("/api/example/%2f", vec![token], 400),
    ] {
        for (origin, is_allowed) in [(PAGE, true), ("https://evil.example", false)] {
            let fields = [&[("origin", origin)], &fields[..]].concat();
            for (status, told) in both(&node, "GET", path, &fields).await {
                assert_eq!(status, expected, "{path}: {told:?}");
                let allowed = has(&told, "access-control-allow-origin", PAGE);
                assert_eq!(allowed, is_allowed, "{path} {told:?}");
                let exposed = has(&told, "access-control-expose-headers", "x-request-id");
                assert_eq!(exposed, is_allowed, "{path} {told:?}");
                assert!(has(&told, "vary", "Origin"), "{path} {told:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_page_learns_that_it_asks_too_often() {
    let upstream = Upstream::start().await;
    let services = json!({ "example": [upstream.url()] }).to_string();
    let variables = [
        ("ALLOW_ORIGINS", PAGE),
        ("UPSTREAMS", &*services),
        ("RATE_LIMIT_MAX", "1"),
    ];
    let node = hub(&variables).await;
    node.get("/api/example/x").await;
    for (status, fields) in both(&node, "GET", "/api/example/x", &PREFLIGHT[..1]).await {
        assert_eq!(status, 429, "{fields:?}");
        assert!(has(&fields, "access-control-allow-origin", PAGE));
    }
}

#[tokio::test]
async fn errors_of_the_proxy_are_hardened_as_the_hubs() {
    let upstream = Upstream::start().await;
    for (hardens, is_hardened) in [("true", true), ("false", false)] {
        let node = node(&[&upstream], &[("SECURITY_HEADERS", hardens)]).await;
        for (status, fields) in both(&node, "GET", "/api/none/x", &[]).await {
            assert_eq!(status, 404, "{fields:?}");
            let is_told = has(&fields, "x-content-type-options", "nosniff")
                && has(&fields, "cross-origin-resource-policy", "same-origin");
            assert_eq!(is_told, is_hardened, "{fields:?}");
            assert!(!names(&fields, "strict-transport-security"), "{fields:?}");
        }
        // What an upstream answers is its own.
        let answer = node.get("/api/example/x").await;
        assert_eq!(answer.header("x-content-type-options"), None);
    }
    let (_node, door) = encrypted(&Pair::make(), &upstream).await;
    let bytes = b"GET /api/none/x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let answer = String::from_utf8_lossy(&door.exchange(bytes).await).into_owned();
    assert!(
        answer.contains("strict-transport-security: max-age="),
        "{answer}"
    );
}

#[tokio::test]
async fn an_upstream_that_says_nothing_of_it_is_opened_to_the_pages_that_are_allowed() {
    let upstream = Origin::start().await;
    let node = upstream
        .node(&[("ALLOW_ORIGINS", PAGE), ("ALLOW_CREDENTIALS", "true")])
        .await;
    upstream.says("cache-control: max-age=60", "kept");
    // The first one is asked for, the others are kept: what one page is told is not for the next.
    for (origin, allowed) in [
        (PAGE, Some(PAGE)),
        ("https://evil.example", None),
        (PAGE, Some(PAGE)),
    ] {
        let fields = [("origin", origin)];
        let answer = node.request("GET", "/api/example/x", &fields, "").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("access-control-allow-origin"), allowed);
        let credentials = allowed.map(|_| "true");
        assert_eq!(
            answer.header("access-control-allow-credentials"),
            credentials
        );
        assert_eq!(answer.header("vary"), Some("Origin"), "{answer:?}");
    }
    let plain = node.get("/api/example/x").await;
    assert_eq!(plain.header("access-control-allow-origin"), None);
    assert_eq!(plain.header("vary"), None, "as the upstream said");
    assert_eq!(upstream.asked(), 1);
}

#[tokio::test]
async fn what_an_upstream_says_of_it_stands() {
    let upstream = Origin::start().await;
    let node = upstream.node(&[("ALLOW_ORIGINS", PAGE)]).await;
    for (fields, name, value) in [
        (
            "Access-Control-Allow-Origin: https://other.example",
            "access-control-allow-origin",
            Some("https://other.example"),
        ),
        // That one is said of it, too, and who reads is not.
        (
            "access-control-expose-headers: x-a",
            "access-control-allow-origin",
            None,
        ),
        (
            "access-control-expose-headers: x-a",
            "access-control-expose-headers",
            Some("x-a"),
        ),
    ] {
        let fields = format!("{fields}; cache-control: no-store");
        upstream.says(&fields, "own");
        let answer = node
            .request("GET", "/api/example/x", &PREFLIGHT[..1], "")
            .await;
        assert_eq!(answer.header(name), value, "{fields}: {answer:?}");
        let all = format!("{answer:?}").to_ascii_lowercase();
        assert!(all.matches(name).count() <= 1, "{all}");
    }
}

#[tokio::test]
async fn a_stream_of_its_own_can_be_read_like_a_shared_one() {
    let ticker = Ticker::start().await;
    let services = json!({ "example": [ticker.url()] }).to_string();
    let node = hub(&[("UPSTREAMS", &services), ("ALLOW_ORIGINS", "*")]).await;
    let fields = [("origin", PAGE)];
    let stream = EventStream::open_at(&node, "/sse/example/ticks", &fields).await;
    let allowed = stream.head.header("access-control-allow-origin");
    assert!(allowed.is_some(), "{:?}", stream.head);
}
