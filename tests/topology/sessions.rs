//! A client that was written against the documentation of a FastAPI gateway, unchanged: each of its requests through the
//! door, or on a gateway of its own.

use serde_json::{Value, json};

use crate::fleet::Fleet;
use crate::support::session::{PASSWORD, ws_path};
use crate::support::ws::Socket;
use crate::support::{Hub, eventually};

/// Gateways that nobody told a secret: they agree on one.
async fn fleet() -> Fleet {
    let fleet = Fleet::start(3, &[("PASSWORD_HASH", "argon2id:7168:1:1")]).await;
    // Stores have connections of their own, which may come after the broker's.
    for index in 1..=3 {
        let gateway = fleet.gateway(index);
        eventually("the store answers", async || {
            (gateway.try_login("nobody", "x").await.status == 401).then_some(())
        })
        .await;
    }
    fleet
}

async fn ok(hub: &Hub, path: &str, token: &str, body: &Value) -> Value {
    let answer = hub.call("POST", path, token, body).await;
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    answer.json()
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

/// The whole life of the client, where each step asks for the door that it goes through. Answers on which gateway the
/// socket was.
async fn live(name: &str, mut door: impl FnMut() -> Hub) -> String {
    let user = json!({"username": name, "password": PASSWORD, "email": "user@example.com"});
    let registered = ok(&door(), "/sessions/register", "", &user).await;
    assert_eq!(
        registered,
        json!({"message": "User registered successfully", "username": name})
    );
    let credentials = json!({"username": name, "password": PASSWORD});
    let login = ok(&door(), "/sessions/login", "", &credentials).await;
    let (token, session) = (text(&login["access_token"]), text(&login["session_id"]));

    let wanted = json!({"chat_id": "default", "session_id": null});
    let through = door();
    let created = ok(&through, "/sessions/create", token, &wanted).await;
    assert_eq!(created["session_id"], session);
    assert_eq!(
        created["ws_url"],
        format!("ws://{}{}", through.host(), ws_path(session, token)),
        "the socket opens where the client is"
    );

    let mut socket = Socket::open_at(&door(), &ws_path(session, token), &[]).await;
    let gateway = text(&socket.connected["gateway_id"]).to_owned();
    assert_eq!(socket.connected["user_id"], name);
    let update = json!({"type": "update_api_key", "key": "new_value"});
    let acknowledged = socket.ask(&update).await;
    assert_eq!(acknowledged["type"], "ack", "{acknowledged}");
    assert_eq!(acknowledged["api_key"], "new_value");

    let data = async |hub: Hub| {
        let path = format!("/sessions/{session}");
        let answer = hub.call("GET", &path, token, &Value::Null).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["data"].clone()
    };
    assert_eq!(data(door()).await["api_key"], "new_value");
    let change = json!({"chat_id": "default", "data": {"api_key": "new_key_value"}});
    let path = format!("/sessions/update/{session}");
    ok(&door(), &path, token, &change).await;
    assert_eq!(data(door()).await["api_key"], "new_key_value");

    let out = ok(&door(), "/sessions/logout", token, &Value::Null).await;
    assert_eq!(out, json!({"message": "Logged out successfully"}));
    let (code, reason) = socket.closed().await;
    assert_eq!((code, reason.as_str()), (4003, "logged out"));
    door()
        .call("POST", "/sessions/create", token, &wanted)
        .await
        .expect_refusal(401, "Invalid token");
    gateway
}

#[tokio::test]
async fn a_client_of_that_system_lives_on_whichever_gateway_each_request_lands() {
    let fleet = fleet().await;
    // Every step once on each gateway, and never two steps in a row on the same one.
    for shift in 0..3 {
        let mut step = shift;
        let door = || {
            step += 1;
            fleet.gateway(step % 3 + 1)
        };
        live(&format!("user-{shift}"), door).await;
    }
    let mut gateways = Vec::new();
    for number in 0..3 {
        gateways.push(live(&format!("user-of-nginx-{number}"), || fleet.nginx_8000()).await);
    }
    // Each life left no socket behind, so the fewest are everywhere; where nginx sends them is its own affair.
    assert!(
        gateways
            .iter()
            .all(|gateway| gateway.starts_with("gateway-"))
    );
}
