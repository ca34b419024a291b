//! Who asks, and how often.

use crate::node;
use crate::support::hub::SECRET;
use crate::support::token::token_of;
use crate::upstream::Upstream;

#[tokio::test]
async fn tokens_are_demanded_and_become_header_fields() {
    let upstream = Upstream::start().await;
    let node = node(
        &[&upstream],
        &[("AUTH_REQUIRED", "true"), ("JWT_SECRET", SECRET)],
    )
    .await;
    let unauthorized =
        r#"{"statusCode":401,"error":"Unauthorized","message":"Invalid or missing token"}"#;
    let answer = node.get("/api/example/").await;
    assert_eq!((answer.status, &*answer.text), (401, unauthorized));
    assert_eq!(node.get("/api/example/?token=x").await.status, 401);
    let token = token_of("alice");
    let bearer = format!("Bearer {token}");
    let fields = [("authorization", &*bearer), ("x-user-id", "mallory")];
    let answer = node.request("GET", "/api/example/", &fields, "").await;
    assert!(answer.text.contains("x-user-id: alice\r\n"), "{answer:?}");
    assert!(!answer.text.contains("mallory"), "{answer:?}");
    let answer = node
        .get(&format!("/sse/example/?a=1&token={token}&b=2"))
        .await;
    assert!(answer.text.starts_with("GET /?a=1&b=2 HTTP"), "{answer:?}");
    assert!(answer.text.contains("x-user-id: alice\r\n"), "{answer:?}");
}

#[tokio::test]
async fn an_address_may_ask_only_so_often() {
    let upstream = Upstream::start().await;
    let node = node(
        &[&upstream],
        &[("RATE_LIMIT_MAX", "2"), ("TRUSTED_PROXIES", "127.0.0.0/8")],
    )
    .await;
    let ask = async |from| {
        let fields = [("x-forwarded-for", from)];
        node.request("GET", "/api/example/", &fields, "").await
    };
    let first = ask("1.1.1.1").await;
    assert_eq!(first.status, 200);
    for (name, value) in [
        ("x-ratelimit-limit", "2"),
        ("x-ratelimit-remaining", "1"),
        ("x-ratelimit-reset", "30"),
        ("ratelimit-policy", "\"default\";q=2;w=60"),
    ] {
        assert_eq!(first.header(name), Some(value), "{name}");
    }
    assert_eq!(ask("1.1.1.1").await.status, 200);
    let third = ask("1.1.1.1").await;
    assert_eq!(third.status, 429);
    assert!(third.header("retry-after").is_some());
    assert_eq!(third.json()["error"], "Too Many Requests");
    assert_eq!(ask("1.1.1.2").await.status, 200, "another address");
    assert_eq!(
        node.get("/healthz").await.status,
        200,
        "health is never limited"
    );
}
