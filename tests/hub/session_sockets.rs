//! Sockets with a session: who may open them, what they keep, and how they end with it.

use serde_json::{Value, json};

use crate::support::Hub;
use crate::support::session::{User, session_hub, ws_path};
use crate::support::sse::EventStream;
use crate::support::token::token_of;
use crate::support::ws::{Socket, handshake};

const LOGGED_OUT: (u16, &str) = (4003, "logged out");

async fn open(hub: &Hub, user: &User) -> Socket {
    Socket::open_at(hub, &user.ws_path(), &[]).await
}

/// How a socket is closed that is upgraded first.
async fn closed_at_once(hub: &Hub, path: &str) -> (u16, String) {
    use futures_util::StreamExt as _;
    use tokio_tungstenite::tungstenite::Message;
    let (mut stream, _) = handshake(hub, path, &[]).await.expect("upgraded");
    let message = crate::support::within("a close", stream.next()).await;
    match message {
        Some(Ok(Message::Close(Some(frame)))) => (frame.code.into(), frame.reason.to_string()),
        other => panic!("{path}: {other:?}"),
    }
}

#[tokio::test]
async fn a_client_of_that_system_runs_unchanged() {
    let hub = session_hub(&[]).await;
    let ann = hub.user("ann").await;
    let mut socket = open(&hub, &ann).await;
    let connected = &socket.connected;
    assert_eq!(connected["message"], "WebSocket connection established");
    assert_eq!(connected["user_id"], "ann");
    assert_eq!(connected["session_id"], ann.session.as_str());
    assert_eq!(connected["ping_interval"], 25);
    assert_eq!(connected["inactivity_timeout"], 60);
    let gateway = connected["gateway_id"].clone();
    let update = json!({"type": "update_api_key", "key": "new_value"});
    assert_eq!(
        socket.ask(&update).await,
        json!({"type": "ack", "message": "API key update acknowledged", "api_key": "new_value", "data": null,
               "session_id": ann.session, "gateway_id": gateway})
    );
    assert_eq!(hub.session_data(&ann).await["api_key"], "new_value");
    assert_eq!(socket.ask(&json!({"type": "ping"})).await["type"], "pong");
    // It is a client of the hub as well.
    socket.subscribe("news").await;
    hub.publish("news", &json!("hello")).await;
    assert_eq!(socket.next().await["data"], "hello");
    let out = hub
        .call("POST", "/sessions/logout", &ann.token, &Value::Null)
        .await;
    assert_eq!(out.status, 200);
    let (code, reason) = socket.closed().await;
    assert_eq!((code, reason.as_str()), LOGGED_OUT);
}

#[tokio::test]
async fn answers_keep_their_order_behind_a_key_that_is_being_kept() {
    let hub = session_hub(&[]).await;
    let ann = hub.user("ann").await;
    let mut socket = open(&hub, &ann).await;
    let commands: Vec<Value> = (0..50)
        .map(|id| match id % 3 {
            0 => json!({"type": "update_api_key", "key": format!("key-{id}"), "id": id}),
            1 => json!({"type": "ping", "id": id}),
            _ => json!({"type": "publish", "channel": "news", "data": id, "id": id}),
        })
        .collect();
    socket.send_all(&commands).await;
    for id in 0..50 {
        let answer = socket.next().await;
        assert_eq!(answer["id"], id, "{answer}");
        assert_ne!(answer["type"], "error", "{answer}");
    }
    assert_eq!(hub.session_data(&ann).await["api_key"], "key-48");
}

#[tokio::test]
async fn a_session_of_nobody_or_somebody_else_is_a_mismatch() {
    let hub = session_hub(&[]).await;
    let (ann, bob) = (hub.user("ann").await, hub.user("bob").await);
    let none = "6f1c1f9e-2b8e-4d1b-9f5e-0d8d1a4c7e55";
    for (session, token) in [
        (bob.session.as_str(), ann.token.as_str()),
        (none, &ann.token),
        ("no-uuid", &ann.token),
        (&ann.session, &token_of("mallory")),
    ] {
        let closed = closed_at_once(&hub, &ws_path(session, token)).await;
        assert_eq!(closed, (1008, "Session mismatch".to_owned()), "{session}");
    }
    // With the token in a header the handshake itself is refused.
    let bearer = format!("Bearer {}", ann.token);
    let path = format!("/ws/connect?session_id={}", bob.session);
    let refused = handshake(&hub, &path, &[("authorization", &bearer)]).await;
    let refused = refused.map(|_| ()).expect_err("refused");
    assert_eq!(
        (refused.status, &refused.body["message"]),
        (403, &json!("Session mismatch"))
    );
}

#[tokio::test]
async fn a_token_of_a_session_that_ended_opens_nothing() {
    let hub = session_hub(&[]).await;
    let ann = hub.user("ann").await;
    let gone = hub
        .call("POST", "/sessions/delete_account", &ann.token, &Value::Null)
        .await;
    assert_eq!(gone.status, 200);
    let closed = closed_at_once(&hub, &ann.ws_path()).await;
    assert_eq!(closed, (1008, "Invalid token".to_owned()));
    let path = format!("/ws/connect?token={}", ann.token);
    let refused = handshake(&hub, &path, &[])
        .await
        .map(|_| ())
        .expect_err("refused");
    assert_eq!(
        (refused.status, &refused.body["error"]),
        (401, &json!("invalid_token"))
    );
    let stream = format!("/sse/connect?channel=news&token={}", ann.token);
    let answer = hub.get(&stream).await;
    answer.expect_error(401, "invalid_token");
}

#[tokio::test]
async fn a_socket_by_token_alone_has_the_session_of_the_login() {
    let hub = session_hub(&[]).await;
    let ann = hub.user("ann").await;
    let mut socket = Socket::open_as(&hub, &ann.token).await;
    assert_eq!(socket.connected["session_id"], ann.session.as_str());
    socket
        .ask(&json!({"type": "update_api_key", "key": "by token"}))
        .await;
    assert_eq!(hub.session_data(&ann).await["api_key"], "by token");
    hub.login("ann").await;
    let (code, reason) = socket.closed().await;
    assert_eq!((code, reason.as_str()), LOGGED_OUT);
}

#[tokio::test]
async fn a_newer_login_closes_the_older_sockets_and_no_others() {
    let hub = session_hub(&[]).await;
    let (ann, bob) = (hub.user("ann").await, hub.user("bob").await);
    let mut old = [open(&hub, &ann).await, open(&hub, &ann).await];
    let mut others = open(&hub, &bob).await;
    let newer = hub.login("ann").await;
    let mut new = open(&hub, &newer).await;
    for socket in &mut old {
        let (code, reason) = socket.closed().await;
        assert_eq!((code, reason.as_str()), LOGGED_OUT);
    }
    new.expect_alive().await;
    others.expect_alive().await;
}

#[tokio::test]
async fn with_several_sessions_a_logout_closes_only_its_own_sockets() {
    let hub = session_hub(&[("SINGLE_SESSION_PER_USER", "false")]).await;
    let phone = hub.user("ann").await;
    let desk = hub.login("ann").await;
    let mut phone_socket = open(&hub, &phone).await;
    let mut desk_socket = open(&hub, &desk).await;
    let out = hub
        .call("POST", "/sessions/logout", &phone.token, &Value::Null)
        .await;
    assert_eq!(out.status, 200);
    let (code, _) = phone_socket.closed().await;
    assert_eq!(code, 4003);
    desk_socket.expect_alive().await;
    // The account's end is the end of all.
    let gone = hub
        .call(
            "POST",
            "/sessions/delete_account",
            &desk.token,
            &Value::Null,
        )
        .await;
    assert_eq!(gone.status, 200);
    assert_eq!(desk_socket.closed().await.0, 4003);
}

#[tokio::test]
async fn an_event_stream_ends_with_its_session_too() {
    let hub = session_hub(&[]).await;
    let ann = hub.user("ann").await;
    let query = format!("channel=news&token={}", ann.token);
    let mut stream = EventStream::open(&hub, &query, &[]).await;
    let out = hub
        .call("POST", "/sessions/logout", &ann.token, &Value::Null)
        .await;
    assert_eq!(out.status, 200);
    while stream.block().await.is_some() {}
}

#[tokio::test]
async fn a_refresh_takes_a_token_whose_session_lives_and_no_other() {
    let hub = session_hub(&[("SINGLE_SESSION_PER_USER", "false")]).await;
    let first = hub.user("ann").await;
    let second = hub.login("ann").await;
    let mut socket = open(&hub, &first).await;
    let refreshed = socket
        .ask(&json!({"type": "refresh", "token": second.token}))
        .await;
    assert_eq!(refreshed["type"], "refreshed", "{refreshed}");
    let third = hub.login("ann").await;
    let out = hub
        .call("POST", "/sessions/logout", &third.token, &Value::Null)
        .await;
    assert_eq!(out.status, 200);
    socket
        .send(&json!({"type": "refresh", "token": third.token}))
        .await;
    assert_eq!(socket.closed().await.0, 1008);
}

#[tokio::test]
async fn a_key_that_finds_no_room_or_no_session_is_an_error() {
    let hub = session_hub(&[("MAX_SESSION_BYTES", "1000")]).await;
    let ann = hub.user("ann").await;
    let mut socket = open(&hub, &ann).await;
    let long = json!({"type": "update_api_key", "key": "x".repeat(2000)});
    assert_eq!(socket.ask(&long).await["code"], "too_large");
    assert_eq!(hub.session_data(&ann).await["api_key"], Value::Null);
    socket.expect_alive().await;
}

#[tokio::test]
async fn another_issuers_user_of_nearly_the_same_name_deletes_nobody() {
    let hub = session_hub(&[]).await;
    let zoe = hub.user("zoe").await;
    let mut socket = open(&hub, &zoe).await;
    for name in ["ZOE", "Zoe", "\u{ff5a}oe"] {
        let answer = hub
            .call(
                "POST",
                "/sessions/delete_account",
                &token_of(name),
                &Value::Null,
            )
            .await;
        answer.expect_refusal(404, "User not found");
    }
    hub.session_data(&zoe).await;
    socket.expect_alive().await;
    // The name as it was registered is the user, whoever says so.
    let own = token_of("zoe");
    let answer = hub
        .call("POST", "/sessions/delete_account", &own, &Value::Null)
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let (code, reason) = socket.closed().await;
    assert_eq!((code, reason.as_str()), LOGGED_OUT);
}
