//! Sessions: created, read, changed and listed by their users, and by nobody else.

use serde_json::{Value, json};

use crate::support::session::session_hub;
use crate::support::token::{token, token_of};
use crate::support::ws::Socket;

const NO_SESSION: &str = "6f1c1f9e-2b8e-4d1b-9f5e-0d8d1a4c7e55";

#[tokio::test]
async fn create_answers_the_session_of_the_login() {
    let hub = session_hub(&[]).await;
    let ann = hub.user("ann").await;
    let expected_url = format!(
        "ws://{}/ws/connect?session_id={}&token={}",
        hub.host(),
        ann.session,
        ann.token
    );
    for body in [
        json!({"chat_id": "default", "session_id": null}),
        json!({"user_id": "ann", "chat_id": "default"}),
        json!({"user_id": "Ann"}),
        json!({}),
        Value::Null,
        json!({"session_id": ann.session, "chat_id": null}),
        json!({"session_id": "", "chat_id": ""}),
    ] {
        let answer = hub
            .call("POST", "/sessions/create", &ann.token, &body)
            .await;
        assert_eq!(answer.status, 200, "{body}: {answer:?}");
        assert_eq!(
            answer.json(),
            json!({
                "session_id": ann.session, "user_id": "ann", "chat_id": "default",
                "data": {"conversation": [], "api_key": null}, "ws_url": expected_url,
            })
        );
    }
    // The URL opens as it is.
    let path = expected_url.split_once(&hub.host()).expect("a path").1;
    let socket = Socket::open_at(&hub, path, &[]).await;
    assert_eq!(socket.connected["session_id"], ann.session.as_str());
    assert_eq!(socket.connected["user_id"], "ann");
}

#[tokio::test]
async fn another_conversation_gets_a_session_of_its_own() {
    let hub = session_hub(&[]).await;
    let ann = hub.user("ann").await;
    let create = async |body: Value| {
        let answer = hub
            .call("POST", "/sessions/create", &ann.token, &body)
            .await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["session_id"]
            .as_str()
            .expect("an id")
            .to_owned()
    };
    let chat = create(json!({"chat_id": "chat"})).await;
    assert_ne!(chat, ann.session);
    assert_eq!(create(json!({"chat_id": "chat"})).await, chat);
    assert_eq!(create(json!({"session_id": chat})).await, chat);
    // An id that nobody has is not taken over: whoever chose it could know it.
    let fresh = create(json!({"session_id": NO_SESSION, "chat_id": "other"})).await;
    assert!(![NO_SESSION, &chat, &ann.session].contains(&fresh.as_str()));
    // A change that names no conversation leaves the session with its own, and answers as that system does.
    let path = format!("/sessions/update/{chat}");
    let body = json!({"data": {"n": 1}});
    let updated = hub.call("POST", &path, &ann.token, &body).await;
    assert_eq!(updated.json()["chat_id"], "default");
    assert_eq!(create(json!({"chat_id": "chat"})).await, chat);
    let path = "/sessions/users/ann/sessions";
    let listed = hub.call("GET", path, &ann.token, &Value::Null).await.json();
    assert_eq!(listed["count"], 3);
    let sessions = listed["sessions"].as_array().expect("a list");
    let chats: Vec<&str> = sessions
        .iter()
        .filter_map(|one| one["chat_id"].as_str())
        .collect();
    assert_eq!(chats, ["other", "chat", "default"]);
    for session in sessions {
        assert!(session["last_access"].as_f64() >= session["created_at"].as_f64());
        assert!(session["created_at"].as_f64().expect("seconds") > 1.7e9);
    }
}

#[tokio::test]
async fn a_socket_is_opened_where_a_trusted_proxy_says_that_the_client_is() {
    let trusting = session_hub(&[("TRUSTED_PROXIES", "127.0.0.1")]).await;
    let others = session_hub(&[("TRUSTED_PROXIES", "192.0.2.0/24")]).await;
    for hub in [&trusting, &others] {
        let ann = hub.user("ann").await;
        let bearer = format!("Bearer {}", ann.token);
        for (proto, told, expected) in [
            ("https", "hub.example.com", "wss://hub.example.com"),
            (
                "WSS, http",
                "hub.example.com:8443, inner",
                "wss://hub.example.com:8443",
            ),
            ("http", "[2001:db8::1]:80", "ws://[2001:db8::1]:80"),
            ("http", "a b", ""),
            ("http", "eve@a", ""),
            ("http", "a/b?c", ""),
            ("http", " ", ""),
        ] {
            let headers = [
                ("authorization", bearer.as_str()),
                ("x-forwarded-for", "203.0.113.7"),
                ("x-forwarded-proto", proto),
                ("x-forwarded-host", told),
            ];
            let answer = hub
                .request("POST", "/sessions/create", &headers, "{}")
                .await;
            assert_eq!(answer.status, 200, "{answer:?}");
            let asked = format!("ws://{}", hub.host());
            let expected = match (expected, std::ptr::eq(hub, &trusting)) {
                ("", _) | (_, false) => &asked,
                (expected, true) => expected,
            };
            let url = answer.json()["ws_url"].as_str().expect("a URL").to_owned();
            let path = format!("{expected}/ws/connect?session_id={}&", ann.session);
            assert!(url.starts_with(&path), "{told}: {url}");
        }
    }
}

/// What a proxy says by the port alone, or in the form of RFC 7239 alone.
#[tokio::test]
async fn a_socket_is_opened_at_the_port_and_by_the_standard_form_of_a_trusted_proxy() {
    let trusting = session_hub(&[("TRUSTED_PROXIES", "127.0.0.1")]).await;
    let others = session_hub(&[("TRUSTED_PROXIES", "192.0.2.0/24")]).await;
    let port = [
        ("x-forwarded-for", "203.0.113.7"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "hub.example.com"),
        ("x-forwarded-port", "8443"),
    ];
    let standard = [(
        "forwarded",
        "for=203.0.113.7;proto=https;host=\"hub.example.com:8443\"",
    )];
    for hub in [&trusting, &others] {
        let ann = hub.user("ann").await;
        let bearer = format!("Bearer {}", ann.token);
        for said in [&port[..], &standard] {
            let mut headers = vec![("authorization", bearer.as_str())];
            headers.extend(said);
            let answer = hub
                .request("POST", "/sessions/create", &headers, "{}")
                .await;
            assert_eq!(answer.status, 200, "{answer:?}");
            let expected = match std::ptr::eq(hub, &trusting) {
                true => "wss://hub.example.com:8443/ws/connect?".to_owned(),
                false => format!("ws://{}/ws/connect?", hub.host()),
            };
            let url = answer.json()["ws_url"].as_str().expect("a URL").to_owned();
            assert!(url.starts_with(&expected), "{said:?}: {url}");
        }
    }
}

#[tokio::test]
async fn an_update_is_merged_and_read_at_once() {
    let hub = session_hub(&[]).await;
    let ann = hub.user("ann").await;
    let path = format!("/sessions/update/{}", ann.session);
    let body = json!({"chat_id": "default", "data": {"api_key": "new_key_value"}});
    let answer = hub.call("POST", &path, &ann.token, &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = answer.json();
    assert_eq!(answer["session_id"], ann.session.as_str());
    assert_eq!(answer["user_id"], "ann");
    assert_eq!(answer["chat_id"], "default");
    assert_eq!(answer["data"], json!({"data": null}));
    assert!(
        answer["ws_url"]
            .as_str()
            .expect("a text")
            .ends_with(&ann.token)
    );
    assert_eq!(
        hub.session_data(&ann).await,
        json!({"api_key": "new_key_value", "conversation": []})
    );
    let body = json!({"data": {"conversation": ["hi \u{0} 🦀"], "mood": null}});
    assert_eq!(hub.call("POST", &path, &ann.token, &body).await.status, 200);
    assert_eq!(
        hub.session_data(&ann).await,
        json!({"api_key": "new_key_value", "conversation": ["hi \u{0} 🦀"], "mood": null})
    );
    let read = hub
        .call(
            "GET",
            &format!("/sessions/{}", ann.session),
            &ann.token,
            &Value::Null,
        )
        .await;
    assert_eq!(read.json()["ws_url"], "");
}

#[tokio::test]
async fn updates_at_once_lose_nothing() {
    let hub = session_hub(&[]).await;
    let ann = hub.user("ann").await;
    let path = format!("/sessions/update/{}", ann.session);
    let updates = (0..50).map(|number| {
        let body = json!({"data": {format!("field-{number}"): number}});
        let (hub, path, ann) = (&hub, &path, &ann);
        async move { hub.call("POST", path, &ann.token, &body).await.status }
    });
    let statuses = futures_util::future::join_all(updates).await;
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    let data = hub.session_data(&ann).await;
    for number in 0..50 {
        assert_eq!(data[format!("field-{number}")], number);
    }
}

#[tokio::test]
async fn a_bad_update_is_refused_and_changes_nothing() {
    let hub = session_hub(&[("MAX_SESSION_BYTES", "1000")]).await;
    let ann = hub.user("ann").await;
    let path = format!("/sessions/update/{}", ann.session);
    let deep = format!("{}1{}", "[".repeat(80), "]".repeat(80));
    for (body, faults) in [
        ("", &[("", "missing")][..]),
        ("[1]", &[("", "model_attributes_type")]),
        ("{", &[("", "json_invalid")]),
        ("{}", &[("data", "missing")]),
        (r#"{"data":null}"#, &[("data", "dict_type")]),
        (r#"{"data":[]}"#, &[("data", "dict_type")]),
        (r#"{"data":"{}"}"#, &[("data", "dict_type")]),
        (
            &format!(r#"{{"data":{{"deep":{deep}}}}}"#),
            &[("data", "value_error")],
        ),
        // Half a surrogate pair is no name that anybody could read again.
        (r#"{"data":{"\ud800":1}}"#, &[("data", "value_error")]),
        (
            r#"{"data":{"a":1,"b\udc00\ud800":2}}"#,
            &[("data", "value_error")],
        ),
        (
            r#"{"data":{"a":1},"chat_id":7}"#,
            &[("chat_id", "string_type")],
        ),
        (
            r#"{"data":{"a":1},"chat_id":"a\u0000"}"#,
            &[("chat_id", "value_error")],
        ),
    ] {
        let bearer = format!("Bearer {}", ann.token);
        let length = body.len().to_string();
        let headers = [
            ("authorization", bearer.as_str()),
            ("content-length", &length),
        ];
        let headers = if body.is_empty() {
            &headers[..]
        } else {
            &headers[..1]
        };
        let answer = hub.request("POST", &path, headers, body).await;
        answer.expect_faults(faults);
    }
    let large = json!({"data": {"large": "x".repeat(2000)}});
    let answer = hub.call("POST", &path, &ann.token, &large).await;
    answer.expect_refusal(413, "Session data too large");
    let huge = json!({"data": {"huge": "x".repeat(1 << 20)}});
    assert_eq!(hub.call("POST", &path, &ann.token, &huge).await.status, 413);
    let empty = json!({"api_key": null, "conversation": []});
    assert_eq!(hub.session_data(&ann).await, empty);
}

#[tokio::test]
async fn a_session_is_its_users_and_nobody_elses() {
    let hub = session_hub(&[]).await;
    let (ann, bob) = (hub.user("ann").await, hub.user("bob").await);
    let denied = "Session access denied";
    let read = format!("/sessions/{}", ann.session);
    hub.call("GET", &read, &bob.token, &Value::Null)
        .await
        .expect_refusal(403, denied);
    let update = format!("/sessions/update/{}", ann.session);
    let body = json!({"data": {"api_key": "stolen"}});
    hub.call("POST", &update, &bob.token, &body)
        .await
        .expect_refusal(403, denied);
    let body = json!({"session_id": ann.session});
    hub.call("POST", "/sessions/create", &bob.token, &body)
        .await
        .expect_refusal(403, denied);
    let body = json!({"user_id": "ann"});
    hub.call("POST", "/sessions/create", &bob.token, &body)
        .await
        .expect_refusal(403, "Access denied");
    for what in ["sessions", "connection"] {
        let path = format!("/sessions/users/ann/{what}");
        hub.call("GET", &path, &bob.token, &Value::Null)
            .await
            .expect_refusal(403, "Access denied");
    }
    // An admin reads, and does not write.
    let admin = token(json!({"sub": "root", "role": "admin"}));
    assert_eq!(
        hub.call("GET", &read, &admin, &Value::Null).await.status,
        200
    );
    let path = "/sessions/users/ann/sessions";
    assert_eq!(
        hub.call("GET", path, &admin, &Value::Null).await.json()["count"],
        1
    );
    let body = json!({"data": {"api_key": "x"}});
    hub.call("POST", &update, &admin, &body)
        .await
        .expect_refusal(403, denied);
    assert_eq!(hub.session_data(&ann).await["api_key"], Value::Null);
}

#[tokio::test]
async fn a_session_that_is_none_is_not_found() {
    let hub = session_hub(&[]).await;
    let ann = hub.user("ann").await;
    for id in [NO_SESSION, "x", "%00", "..%2f..", &"9".repeat(5000)] {
        let path = format!("/sessions/{id}");
        let answer = hub.call("GET", &path, &ann.token, &Value::Null).await;
        answer.expect_refusal(404, "Session not found");
        let path = format!("/sessions/update/{id}");
        let body = json!({"data": {}});
        let answer = hub.call("POST", &path, &ann.token, &body).await;
        answer.expect_refusal(404, "Session not found");
    }
    for id in [json!("x"), json!("00000000000000000000000000000000")] {
        let body = json!({"session_id": id});
        let answer = hub
            .call("POST", "/sessions/create", &ann.token, &body)
            .await;
        answer.expect_faults(&[("session_id", "value_error")]);
    }
}

#[tokio::test]
async fn a_new_login_ends_the_old_session_unless_told_otherwise() {
    let hub = session_hub(&[]).await;
    let first = hub.user("ann").await;
    let second = hub.login("ann").await;
    let path = format!("/sessions/{}", first.session);
    hub.call("GET", &path, &first.token, &Value::Null)
        .await
        .expect_refusal(401, "Invalid token");
    hub.call("GET", &path, &second.token, &Value::Null)
        .await
        .expect_refusal(404, "Session not found");
    drop(hub);

    let hub = session_hub(&[("SINGLE_SESSION_PER_USER", "false")]).await;
    let first = hub.user("ann").await;
    let second = hub.login("ann").await;
    hub.session_data(&first).await;
    let out = hub
        .call("POST", "/sessions/logout", &first.token, &Value::Null)
        .await;
    assert_eq!(out.status, 200);
    hub.session_data(&second).await;
    let path = format!("/sessions/{}", first.session);
    hub.call("GET", &path, &first.token, &Value::Null)
        .await
        .expect_refusal(401, "Invalid token");
}

#[tokio::test]
async fn a_user_of_another_issuer_has_sessions_too() {
    let hub = session_hub(&[]).await;
    let foreign = token_of("auth0|7");
    let answer = hub
        .call("POST", "/sessions/create", &foreign, &json!({}))
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let session = answer.json();
    assert_eq!(session["user_id"], "auth0|7");
    let path = format!(
        "/sessions/{}",
        session["session_id"].as_str().expect("an id")
    );
    assert_eq!(
        hub.call("GET", &path, &foreign, &Value::Null).await.status,
        200
    );
    let path = "/sessions/users/auth0%7C7/sessions";
    assert_eq!(
        hub.call("GET", path, &foreign, &Value::Null).await.json()["count"],
        1
    );
    let out = hub
        .call("POST", "/sessions/logout", &foreign, &Value::Null)
        .await;
    assert_eq!(out.status, 200);
    assert_eq!(
        hub.call("GET", path, &foreign, &Value::Null).await.json()["count"],
        0
    );
}

#[tokio::test]
async fn the_connection_tells_of_every_socket() {
    let hub = session_hub(&[]).await;
    let ann = hub.user("ann").await;
    let path = "/sessions/users/ann/connection";
    let ask = async || hub.call("GET", path, &ann.token, &Value::Null).await.json();
    let before = ask().await;
    assert_eq!(before["ws_connected"], false);
    assert_eq!(before["session_id"], ann.session.as_str());
    let first = Socket::open_at(&hub, &ann.ws_path(), &[]).await;
    let second = Socket::open_at(&hub, &ann.ws_path(), &[]).await;
    let during = ask().await;
    assert_eq!(during["ws_connected"], true);
    assert_eq!(during["session_id"], ann.session.as_str());
    assert_eq!(during["gateway_id"], first.connected["gateway_id"]);
    assert!(during["last_seen"].as_f64().expect("seconds") > 1.7e9);
    let clients = |answer: &Value| -> Vec<String> {
        let connections = answer["connections"].as_array().expect("a list").iter();
        connections
            .map(|one| one["client_id"].as_str().expect("an id").to_owned())
            .collect()
    };
    assert_eq!(clients(&during), [second.client(), first.client()]);
    // Closing one never unregisters the other.
    let left = first.client();
    second.close().await;
    crate::support::eventually("one socket is left", async || {
        (clients(&ask().await) == [left.clone()]).then_some(())
    })
    .await;
    assert_eq!(ask().await["ws_connected"], true);
    first.close().await;
    crate::support::eventually("no socket is left", async || {
        (ask().await["ws_connected"] == false).then_some(())
    })
    .await;
}

#[tokio::test]
async fn who_has_no_session_has_no_connection() {
    let hub = session_hub(&[]).await;
    let foreign = token_of("foreign");
    let path = "/sessions/users/foreign/connection";
    hub.call("GET", path, &foreign, &Value::Null)
        .await
        .expect_refusal(404, "No active connection");
}
