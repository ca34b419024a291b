//! Who is let in, for how long, and to what.

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use crate::support::hub::{Hub, SECRET};
use crate::support::sse::EventStream;
use crate::support::token::{in_seconds, signed, token, token_of, unsigned};
use crate::support::ws::{Socket, handshake};
use crate::support::{hub, hub_with};

async fn closed_hub() -> Hub {
    hub(&[("JWT_SECRET", SECRET), ("AUTH_REQUIRED", "true")]).await
}

#[tokio::test]
async fn a_good_token_opens_by_header_query_and_subprotocol() {
    let hub = closed_hub().await;
    let token = token_of("ann");
    let bearer = format!("Bearer {token}");
    let in_query = format!("/ws/connect?token={token}");
    let offered = format!("fanfare.json, bearer.{token}");
    let packed = format!("bearer.{token}, fanfare.msgpack");
    for (path, headers, protocol) in [
        (
            "/ws/connect",
            vec![("authorization", bearer.as_str())],
            None,
        ),
        (in_query.as_str(), vec![], None),
        (
            "/ws/connect",
            vec![("sec-websocket-protocol", offered.as_str())],
            Some("fanfare.json"),
        ),
        (
            "/ws/connect",
            vec![("sec-websocket-protocol", packed.as_str())],
            Some("fanfare.msgpack"),
        ),
    ] {
        let (_, selected) = handshake(&hub, path, &headers).await.expect("let in");
        assert_eq!(selected.as_deref(), protocol, "the token is never echoed");
        let socket = Socket::open_at(&hub, path, &headers).await;
        assert_eq!(socket.connected["user_id"], "ann");
        assert!(socket.connected["expires_in"].as_u64() > Some(3500));
    }
    let query = format!("channel=a&token={token}");
    let stream = EventStream::open(&hub, &query, &[]).await;
    assert_eq!(stream.connected.json()["user_id"], "ann");
    EventStream::open(&hub, "channel=a", &[("authorization", &bearer)]).await;
}

/// Tokens that open nothing.
fn bad_tokens() -> Vec<(&'static str, String)> {
    let claims = || json!({"sub": "ann"});
    let good = token_of("ann");
    let (head, signature) = good.rsplit_once('.').expect("three parts");
    let swapped = match signature.strip_prefix('A') {
        Some(rest) => format!("B{rest}"),
        None => format!("A{}", &signature[1..]),
    };
    vec![
        (
            "forged",
            signed(
                Algorithm::HS256,
                "another-secret-of-at-least-32-bytes",
                claims(),
            ),
        ),
        ("touched", format!("{head}.{swapped}")),
        (
            "expired",
            token(json!({"sub": "ann", "exp": in_seconds(-10)})),
        ),
        (
            "not yet",
            token(json!({"sub": "ann", "nbf": in_seconds(1000)})),
        ),
        (
            "alg none",
            unsigned(&json!({"sub": "ann", "exp": in_seconds(1000)})),
        ),
        (
            "wrong algorithm",
            signed(Algorithm::HS512, SECRET, claims()),
        ),
        ("no signature", format!("{head}.")),
        ("no token", "nonsense".to_owned()),
        ("exp is text", token(json!({"sub": "ann", "exp": "soon"}))),
    ]
}

#[tokio::test]
async fn a_bad_token_is_refused_before_the_upgrade() {
    let hub = closed_hub().await;
    for (what, bad) in bad_tokens() {
        let bearer = format!("Bearer {bad}");
        let refused = handshake(&hub, "/ws/connect", &[("authorization", &bearer)])
            .await
            .expect_err(what);
        assert_eq!(refused.status, 401, "{what}");
        assert!(
            ["invalid_token", "unauthorized"]
                .contains(&refused.body["error"].as_str().unwrap_or_default()),
            "{what}: {refused:?}"
        );
        assert!(!refused.body.to_string().contains(&bad), "{what}");
        let stream = hub
            .get(&format!("/sse/connect?channel=a&token={bad}"))
            .await;
        assert_eq!(stream.status, 401, "{what}");
        assert_eq!(stream.header("www-authenticate"), Some("Bearer"), "{what}");
        // Clients of the older form expect to be let in first.
        let path = format!("/ws/connect?session_id=s&token={bad}");
        let (_, _) = handshake(&hub, &path, &[]).await.expect(what);
        let closed = first_close(&hub, &path).await;
        assert_eq!(closed, (1008, "Invalid token".to_owned()), "{what}");
    }
    for path in ["/ws/connect", "/ws/connect?session_id=s"] {
        let refused = handshake(&hub, path, &[]).await.expect_err("nobody");
        assert_eq!(
            (refused.status, &refused.body["error"]),
            (401, &json!("unauthorized"))
        );
    }
}

/// How a connection ends that is let in only to be told.
async fn first_close(hub: &Hub, path: &str) -> (u16, String) {
    use futures_util::StreamExt as _;
    use tokio_tungstenite::tungstenite::Message;
    let (mut stream, _) = handshake(hub, path, &[]).await.expect("an upgrade");
    match crate::support::within("a close", stream.next()).await {
        Some(Ok(Message::Close(Some(frame)))) => (frame.code.into(), frame.reason.to_string()),
        other => panic!("no close but {other:?}"),
    }
}

#[tokio::test]
async fn a_connection_ends_with_its_token() {
    let hub = closed_hub().await;
    let short = || token(json!({"sub": "ann", "exp": in_seconds(2)}));
    let mut socket = Socket::open_as(&hub, &short()).await;
    assert!(socket.connected["expires_in"].as_u64() <= Some(2));
    let mut kept = Socket::open_as(&hub, &short()).await;
    let query = format!("channel=a&token={}", short());
    let mut stream = EventStream::open(&hub, &query, &[]).await;
    let refreshed = kept
        .ask(&json!({"type": "refresh", "id": 1, "token": token_of("ann")}))
        .await;
    assert_eq!(
        [&refreshed["type"], &refreshed["id"]],
        [&json!("refreshed"), &json!(1)]
    );
    assert!(refreshed["expires_in"].as_u64() > Some(3500), "{refreshed}");
    assert_eq!(socket.closed().await, (4001, "token expired".to_owned()));
    while let Some(block) = stream.block().await {
        assert!(block.data.is_none(), "{block:?}");
    }
    kept.expect_alive().await;
}

#[tokio::test]
async fn a_refused_refresh_closes() {
    let hub = closed_hub().await;
    for (what, bad) in bad_tokens()
        .into_iter()
        .chain([("another's", token_of("ben"))])
    {
        let mut socket = Socket::open_as(&hub, &token_of("ann")).await;
        socket.send(&json!({"type": "refresh", "token": bad})).await;
        assert_eq!(
            socket.closed().await,
            (1008, "not allowed".to_owned()),
            "{what}"
        );
    }
}

#[tokio::test]
async fn a_refreshed_token_that_permits_less_ends_subscriptions() {
    let hub = closed_hub().await;
    let granting = |channels: &[&str]| {
        token(json!({"sub": "ann", "exp": in_seconds(60), "grants": {"subscribe": channels}}))
    };
    let mut socket = Socket::open_as(&hub, &granting(&["news", "chat:*"])).await;
    for channel in ["news", "chat:1"] {
        socket
            .send(&json!({"type": "subscribe", "channel": channel}))
            .await;
        assert_eq!(socket.next().await["type"], "subscribed");
    }
    socket
        .send(&json!({"type": "refresh", "token": granting(&["news"])}))
        .await;
    assert_eq!(socket.next().await["type"], "refreshed");
    let ended = socket.next().await;
    assert_eq!(
        (&ended["type"], &ended["channel"], &ended["code"]),
        (&json!("unsubscribed"), &json!("chat:1"), &json!(2501))
    );
    socket
        .send(&json!({"type": "unsubscribe", "channel": "news"}))
        .await;
    assert_eq!(socket.next().await["type"], "unsubscribed");
}

#[tokio::test]
async fn grants_decide_alone() {
    let hub = closed_hub().await;
    let claims = json!({"sub": "ann", "role": "user", "grants": {
        "subscribe": ["news", "chat:*"], "publish": ["chat:*"], "history": ["chat:1"], "presence": []}});
    let mut socket = Socket::open_as(&hub, &token(claims)).await;
    for (kind, channel, allowed) in [
        ("subscribe", "news", true),
        ("subscribe", "chat:1", true),
        ("subscribe", "news2", false),
        ("subscribe", "chat", false),
        ("publish", "chat:1", true),
        ("publish", "news", false),
        ("history", "chat:1", true),
        ("history", "chat:2", false),
        ("presence", "chat:1", false),
    ] {
        let command = json!({"type": kind, "id": 1, "channel": channel, "data": 1});
        socket.send(&command).await;
        let mut answer = socket.next().await;
        while answer["type"] == "publication" {
            answer = socket.next().await;
        }
        if allowed {
            assert_ne!(answer["type"], "error", "{command}: {answer}");
            continue;
        }
        assert_eq!(answer["type"], "error", "{command}: {answer}");
        let text = format!("Unauthorized: role 'user' cannot send '{kind}'");
        assert_eq!(
            [&answer["code"], &answer["message"]],
            [&json!("forbidden"), &json!(text)]
        );
    }
}

#[tokio::test]
async fn without_a_grant_the_namespace_decides() {
    let hub = hub_with(
        "[namespaces.chat]\npublish = \"authenticated\"\n[namespaces.secret]\nsubscribe = \"nobody\"\n",
        &[("JWT_SECRET", SECRET), ("AUTH_REQUIRED", "true")],
    )
    .await;
    let mut socket = Socket::open_as(&hub, &token_of("ann")).await;
    let mut code = async |kind: &str, channel: &str| {
        let answer = socket
            .ask(&json!({"type": kind, "channel": channel, "data": 1}))
            .await;
        answer["code"].clone()
    };
    assert_eq!(code("publish", "news").await, "forbidden");
    assert_eq!(code("publish", "chat:1").await, Value::Null);
    assert_eq!(code("subscribe", "news").await, Value::Null);
    assert_eq!(code("subscribe", "secret:1").await, "forbidden");
    let stream = format!("/sse/connect?channel=secret:1&token={}", token_of("ann"));
    hub.get(&stream).await.expect_error(403, "forbidden");
}

#[tokio::test]
async fn a_channel_for_named_users_is_for_them_only() {
    let hub = closed_hub().await;
    let wide = |user: &str| token(json!({"sub": user, "grants": {"subscribe": ["*"]}}));
    for (token, allowed) in [
        (token_of("ann"), true),
        (token_of("ben"), true),
        (token_of("eve"), false),
        (wide("eve"), false),
        (token(json!({})), false),
    ] {
        let mut socket = Socket::open_as(&hub, &token).await;
        let answer = socket
            .ask(&json!({"type": "subscribe", "channel": "call#ann,ben"}))
            .await;
        assert_eq!(answer["type"] == "subscribed", allowed, "{answer}");
        let path = format!("/sse/connect?channel=call%23ann,ben&token={token}");
        if !allowed {
            hub.get(&path).await.expect_error(403, "forbidden");
        }
    }
}

#[tokio::test]
async fn a_token_brings_its_channels() {
    let hub = closed_hub_with_key().await;
    let key = [("authorization", "Bearer the-key-of-back-ends")];
    let publish = async |data: Value| {
        let body = json!({"channel": "inbox#ann", "data": data}).to_string();
        let answer = hub.request("POST", "/hub/publish", &key, &body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    };
    publish(json!(1)).await;
    let claims = json!({"sub": "ann", "channels": ["inbox#ann", "news", "inbox#ben"]});
    let token = token(claims);
    let mut socket = Socket::open_as(&hub, &token).await;
    let channels = socket.connected["channels"].clone();
    assert_eq!(channels["inbox#ann"]["offset"], 1, "{channels}");
    assert_eq!(channels["news"]["offset"], 0);
    assert_eq!(
        channels.as_object().map(serde_json::Map::len),
        Some(2),
        "not another's"
    );
    publish(json!(2)).await;
    assert_eq!(socket.numbers(1, 1).await, [2]);
    drop(socket);
    publish(json!(3)).await;

    // Back again: the subscription is there already, and a recover restarts it.
    let mut socket = Socket::open_as(&hub, &token).await;
    assert_eq!(socket.connected["channels"]["inbox#ann"]["offset"], 3);
    let again = socket
        .ask(&json!({"type": "subscribe", "channel": "news"}))
        .await;
    assert_eq!(again["code"], "already_subscribed");
    let asked = json!({"epoch": channels["inbox#ann"]["epoch"], "offset": 2});
    let subscribed = socket.recover("inbox#ann", &asked).await;
    assert_eq!(
        [&subscribed["recovered"], &subscribed["offset"]],
        [&json!(true), &json!(2)]
    );
    publish(json!(4)).await;
    assert_eq!(socket.numbers(2, 2).await, [3, 4]);
    socket.expect_quiet().await;
}

async fn closed_hub_with_key() -> Hub {
    hub(&[
        ("JWT_SECRET", SECRET),
        ("AUTH_REQUIRED", "true"),
        ("HUB_API_KEY", "the-key-of-back-ends"),
    ])
    .await
}

#[tokio::test]
async fn only_pages_of_listed_origins_connect() {
    let hub = hub(&[(
        "ALLOW_ORIGINS",
        "https://app.example, https://other.example:8443",
    )])
    .await;
    let host = format!("http://{}", hub.host());
    for (origin, allowed) in [
        ("https://app.example", true),
        ("https://other.example:8443", true),
        (host.as_str(), true),
        ("https://other.example", false),
        ("http://app.example", false),
        ("https://app.example.evil", false),
        ("null", false),
    ] {
        let result = handshake(&hub, "/ws/connect", &[("origin", origin)]).await;
        match result {
            Ok(_) => assert!(allowed, "{origin}"),
            Err(refused) => {
                assert!(!allowed, "{origin}");
                assert_eq!(
                    (refused.status, &refused.body["error"]),
                    (403, &json!("forbidden"))
                );
            }
        }
        let headers = [("origin", origin)];
        if !allowed {
            hub.request("GET", "/sse/connect?channel=a", &headers, "")
                .await
                .expect_error(403, "forbidden");
        } else {
            EventStream::open(&hub, "channel=a", &headers).await;
        }
    }
    Socket::open(&hub).await.expect_alive().await;
}
