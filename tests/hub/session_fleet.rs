//! Sessions of a fleet: any node serves any session, whichever node each request lands on.

use serde_json::{Value, json};

use crate::redis_server::RedisServer;
use crate::support::clock::other_clock;
use crate::support::session::{PASSWORD, SESSIONS, session_hub};
use crate::support::sse::EventStream;
use crate::support::ws::{Socket, handshake};
use crate::support::{Hub, eventually};

struct Fleet {
    redis: RedisServer,
    hubs: Vec<Hub>,
}

impl Fleet {
    /// On a Redis that writes no file: a disk that others keep busy would hold up every write.
    async fn start(size: usize) -> Self {
        Self::start_on(RedisServer::start_with(&["--save", ""]), size).await
    }

    async fn start_on(redis: RedisServer, size: usize) -> Self {
        let url = redis.url();
        let mut hubs = Vec::new();
        for _ in 0..size {
            hubs.push(session_hub(&[("REDIS_URL", &url), ("READY_REDIS_GRACE_MS", "0")]).await);
        }
        let fleet = Self { redis, hubs };
        // The stores have connections of their own.
        for hub in &fleet.hubs {
            eventually("the store answers", async || {
                (hub.try_login("nobody", "x").await.status == 401).then_some(())
            })
            .await;
        }
        fleet
    }
}

/// A node without a secret of its own asks the store for the fleet's. Until it is told, nobody can log in, and no session
/// begins that nobody could use.
#[tokio::test]
async fn no_session_begins_before_its_token_can_be_signed() {
    let redis = RedisServer::start_with(&["--save", ""]);
    let url = redis.url();
    let variables = [
        ("JWT_SECRET", ""),
        ("REDIS_URL", &url),
        ("READY_REDIS_GRACE_MS", "0"),
    ];
    let first = session_hub(&variables).await;
    eventually("the store answers", async || {
        (first.register("ann").await.status == 200).then_some(())
    })
    .await;
    let ann = first.login("ann").await;
    // What the next node finds there is no secret.
    let key = redis.ask(&["KEYS", "*idx:secret"]).trim().to_owned();
    redis.ask(&["RENAME", &key, "aside"]);
    redis.ask(&["LPUSH", &key, "no secret"]);
    let second = [
        ("AUTH_REQUIRED", "true"),
        ("JWT_PUBLIC_KEY", PUBLIC_KEY),
        ("UPSTREAMS", r#"{"x":["http://127.0.0.1:9"]}"#),
    ];
    let second = Hub::start("", &[&SESSIONS[..], &variables, &second].concat());
    eventually("the second node listens", async || {
        let stream = tokio::net::TcpStream::connect(second.address()).await;
        stream.is_ok().then_some(())
    })
    .await;
    eventually("the second node's store answers", async || {
        (second.register("bob").await.status == 200).then_some(())
    })
    .await;
    let refused = second.try_login("ann", PASSWORD).await;
    assert_eq!(refused.status, 503, "{refused:?}");
    assert_eq!(second.get("/readyz").await.status, 503);
    let sessions = redis.ask(&["KEYS", "*sessions:*-*"]);
    assert!(
        sessions.trim().ends_with(&ann.session),
        "no other has begun"
    );
    // Nobody is told that a token is wrong which the fleet signed.
    let (own, get) = (format!("/sessions/{}", ann.session), "GET");
    for (method, path) in [
        (get, own.as_str()),
        (get, "/api/x/y"),
        ("POST", "/hub/publish"),
    ] {
        let answer = second.call(method, path, &ann.token, &Value::Null).await;
        assert_eq!(answer.status, 503, "{path}: {answer:?}");
        assert!(answer.header("retry-after").is_some(), "{path}");
    }
    let refused = handshake(&second, &ann.ws_path(), &[]).await;
    assert_eq!(refused.expect_err("nobody can say").status, 503);
    redis.ask(&["RENAME", "aside", &key]);
    eventually("the second node has a secret", async || {
        (second.get("/readyz").await.status == 200).then_some(())
    })
    .await;
    second.session_data(&ann).await;
    second.login("ann").await;
}

/// The key of RFC 8037, appendix A.1.
const PUBLIC_KEY: &str = "-----BEGIN PUBLIC KEY-----\\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\\n-----END PUBLIC KEY-----";

/// Users and sessions are gone with it. Whoever registers after that is known on every node, the new ones too.
#[tokio::test]
async fn a_redis_that_forgot_the_secret_gets_it_back() {
    let redis = RedisServer::start_with(&["--save", ""]);
    let url = redis.url();
    let variables = [
        ("JWT_SECRET", ""),
        ("REDIS_URL", url.as_str()),
        ("READY_REDIS_GRACE_MS", "0"),
        ("LOGIN_RATE_MAX", "0"),
    ];
    let old = session_hub(&variables).await;
    let secret = eventually("a secret", async || {
        let key = redis.ask(&["KEYS", "*idx:secret"]).trim().to_owned();
        (!key.is_empty()).then(|| (redis.ask(&["GET", &key]), key))
    })
    .await;
    let (secret, key) = secret;
    redis.ask(&["FLUSHALL"]);
    eventually("the secret is back", async || {
        (redis.ask(&["GET", &key]) == secret).then_some(())
    })
    .await;
    // And where a node that came in between has made another.
    let ann = old.user("ann").await;
    redis.ask(&["SET", &key, &"f".repeat(64)]);
    let new = session_hub(&variables).await;
    eventually("both sign alike", async || {
        let ann = old.login("ann").await;
        let path = format!("/sessions/{}", ann.session);
        let answer = new.call("GET", &path, &ann.token, &Value::Null).await;
        (answer.status == 200).then_some(())
    })
    .await;
    let bob = new.user("bob").await;
    old.session_data(&bob).await;
    // The login of before ended with the next one, not with its secret.
    let path = format!("/sessions/{}", ann.session);
    let answer = old.call("GET", &path, &ann.token, &Value::Null).await;
    assert!(answer.text.contains("has ended"), "{answer:?}");
}

#[tokio::test]
async fn a_client_lives_on_three_nodes_and_notices_nothing() {
    let fleet = Fleet::start(3).await;
    let [first, second, third] = fleet.hubs.as_slice() else {
        panic!("three");
    };
    assert_eq!(first.register("ann").await.status, 200);
    let ann = second.login("ann").await;
    let created = third
        .call(
            "POST",
            "/sessions/create",
            &ann.token,
            &json!({"chat_id": "default"}),
        )
        .await;
    assert_eq!(
        created.json()["session_id"],
        ann.session.as_str(),
        "{created:?}"
    );
    let mut socket = Socket::open_at(first, &ann.ws_path(), &[]).await;
    let key = json!({"type": "update_api_key", "key": "by socket"});
    assert_eq!(socket.ask(&key).await["type"], "ack");
    assert_eq!(second.session_data(&ann).await["api_key"], "by socket");
    let path = format!("/sessions/update/{}", ann.session);
    let body = json!({"data": {"mood": "good"}});
    assert_eq!(
        third.call("POST", &path, &ann.token, &body).await.status,
        200
    );
    assert_eq!(
        first.session_data(&ann).await,
        json!({"api_key": "by socket", "conversation": [], "mood": "good"})
    );
    // It is a client of the hub as well, wherever the publication comes from.
    socket.subscribe("news").await;
    third.publish("news", &json!("hello")).await;
    assert_eq!(socket.next().await["data"], "hello");
    let path = "/sessions/users/ann/connection";
    let told = second
        .call("GET", path, &ann.token, &Value::Null)
        .await
        .json();
    assert_eq!(told["ws_connected"], true, "{told}");
    assert_eq!(told["gateway_id"], socket.connected["gateway_id"]);
    let out = second
        .call("POST", "/sessions/logout", &ann.token, &Value::Null)
        .await;
    assert_eq!(out.status, 200);
    let (code, reason) = socket.closed().await;
    assert_eq!((code, reason.as_str()), (4003, "logged out"));
    third
        .call("POST", "/sessions/create", &ann.token, &json!({}))
        .await
        .expect_refusal(401, "Invalid token");
}

#[tokio::test]
async fn a_newer_login_elsewhere_closes_the_older_sockets() {
    let fleet = Fleet::start(2).await;
    let old = fleet.hubs[0].user("ann").await;
    let mut old_socket = Socket::open_at(&fleet.hubs[0], &old.ws_path(), &[]).await;
    let new = fleet.hubs[1].login("ann").await;
    let mut new_socket = Socket::open_at(&fleet.hubs[0], &new.ws_path(), &[]).await;
    assert_eq!(old_socket.closed().await.0, 4003);
    new_socket.expect_alive().await;
}

/// However its end was missed: an order that was lost, an answer that was, a server that forgot it.
#[tokio::test]
async fn sockets_of_a_session_that_is_gone_close_although_nobody_told_them() {
    let redis = RedisServer::start_with(&["--save", ""]);
    let url = redis.url();
    let variables = [
        ("REDIS_URL", url.as_str()),
        ("READY_REDIS_GRACE_MS", "0"),
        ("WS_PING_INTERVAL_MS", "50"),
        ("SSE_COMMENT_INTERVAL_MS", "100"),
    ];
    let hub = session_hub(&variables).await;
    eventually("the store answers", async || {
        (hub.try_login("nobody", "x").await.status == 401).then_some(())
    })
    .await;
    let (ann, bob) = (hub.user("ann").await, hub.user("bob").await);
    let mut closed = Socket::open_at(&hub, &ann.ws_path(), &[]).await;
    let query = format!("channel=news&token={}", ann.token);
    let mut ended = EventStream::open(&hub, &query, &[]).await;
    let mut other = Socket::open_at(&hub, &bob.ws_path(), &[]).await;
    redis.ask(&["DEL", &format!("sessions:{}", ann.session)]);
    assert_eq!(closed.closed().await.0, 4003);
    while ended.block().await.is_some() {}
    assert_eq!(other.ask(&json!({"type": "ping"})).await["type"], "pong");
}

/// Where there are too many, the session that is used right now is not the one to go.
#[tokio::test]
async fn who_begins_many_sessions_stays_logged_in() {
    // What is written behind comes too late for this.
    let variables = [
        ("MAX_SESSIONS_PER_USER", "3"),
        ("BATCH_WRITE_INTERVAL_MS", "3600000"),
    ];
    let hub = session_hub(&variables).await;
    let ann = hub.user("ann").await;
    for chat in 0..8 {
        let body = json!({"chat_id": format!("chat-{chat}")});
        let created = hub
            .call("POST", "/sessions/create", &ann.token, &body)
            .await;
        assert_eq!(created.status, 200, "{created:?}");
    }
}

/// A life lasts seconds, and the clocks of machines differ by more.
#[tokio::test]
async fn sockets_are_told_by_one_clock() {
    let redis = RedisServer::start_with(&["--save", ""]);
    let url = redis.url();
    let shared = [("REDIS_URL", url.as_str()), ("READY_REDIS_GRACE_MS", "0")];
    let late = session_hub(&[&shared[..], &other_clock("-300")].concat()).await;
    let right = session_hub(&shared).await;
    let clock = Socket::open(&late)
        .await
        .ask(&json!({"type": "ping"}))
        .await;
    let now = std::time::UNIX_EPOCH.elapsed().expect("after 1970");
    let behind = now.as_secs_f64() - clock["timestamp"].as_f64().expect("a time");
    assert!((behind - 300.0).abs() < 60.0, "{behind}");
    eventually("the stores answer", async || {
        for hub in [&late, &right] {
            (hub.try_login("nobody", "x").await.status == 401).then_some(())?;
        }
        Some(())
    })
    .await;
    let ann = right.user("ann").await;
    let mut sockets = Vec::new();
    for hub in [&late, &right] {
        sockets.push(Socket::open_at(hub, &ann.ws_path(), &[]).await);
        for asked in [&late, &right] {
            eventually("every node tells of it", async || {
                let path = "/sessions/users/ann/connection";
                let told = asked.call("GET", path, &ann.token, &Value::Null).await;
                let told = told.json()["connections"].as_array().map(Vec::len);
                (told == Some(sockets.len())).then_some(())
            })
            .await;
        }
    }
    let ended = late
        .call("POST", "/sessions/logout", &ann.token, &Value::Null)
        .await;
    assert_eq!(ended.status, 200, "{ended:?}");
    for mut socket in sockets {
        assert_eq!(socket.closed().await.0, 4003);
    }
}

/// Its user goes on elsewhere, so nothing of the user's ends for want of use.
#[tokio::test]
async fn a_socket_of_a_node_that_was_killed_is_not_told_for_ever() {
    let mut fleet = Fleet::start(2).await;
    let ann = fleet.hubs[1].user("ann").await;
    let lost = Socket::open_at(&fleet.hubs[0], &ann.ws_path(), &[]).await;
    let connection = async |hub: &Hub| {
        let path = "/sessions/users/ann/connection";
        let told = hub.call("GET", path, &ann.token, &Value::Null).await;
        assert_eq!(told.status, 200, "{told:?}");
        told.json()["ws_connected"].clone()
    };
    eventually("the other node knows of it", async || {
        (connection(&fleet.hubs[1]).await == true).then_some(())
    })
    .await;
    drop(fleet.hubs.remove(0));
    drop(lost);
    eventually("the other node knows of its end", async || {
        (connection(&fleet.hubs[0]).await == false).then_some(())
    })
    .await;
    // Whose node lives stays.
    let kept = Socket::open_at(&fleet.hubs[0], &ann.ws_path(), &[]).await;
    eventually("it is told", async || {
        (connection(&fleet.hubs[0]).await == true).then_some(())
    })
    .await;
    drop(kept);
}

#[tokio::test]
async fn two_nodes_that_update_one_session_at_once_lose_nothing() {
    let fleet = Fleet::start(2).await;
    let ann = fleet.hubs[0].user("ann").await;
    let path = format!("/sessions/update/{}", ann.session);
    let updates = (0..60).map(|number| {
        let body = json!({"data": {format!("field-{number}"): number}});
        let (hub, path, ann) = (&fleet.hubs[number % 2], &path, &ann);
        async move { hub.call("POST", path, &ann.token, &body).await.status }
    });
    let statuses = futures_util::future::join_all(updates).await;
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    let data = fleet.hubs[1].session_data(&ann).await;
    for number in 0..60 {
        assert_eq!(data[format!("field-{number}")], number);
    }
}

#[tokio::test]
async fn of_many_who_register_one_name_on_all_nodes_exactly_one_gets_it() {
    let fleet = Fleet::start(3).await;
    let attempts = (0..12).map(|number| {
        let hub = &fleet.hubs[number % 3];
        let body =
            json!({"username": "ann", "email": "a@b", "password": format!("password {number}")});
        async move {
            hub.call("POST", "/sessions/register", "", &body)
                .await
                .status
        }
    });
    let statuses = futures_util::future::join_all(attempts).await;
    let won = statuses.iter().filter(|status| **status == 200).count();
    assert_eq!(won, 1, "{statuses:?}");
    assert!(
        statuses.iter().all(|status| [200, 400].contains(status)),
        "{statuses:?}"
    );
}

#[tokio::test]
async fn of_many_who_open_one_conversation_on_all_nodes_all_get_the_same() {
    let fleet = Fleet::start(3).await;
    let ann = fleet.hubs[0].user("ann").await;
    let unknown = "3f2504e0-4f89-41d3-9a0c-0305e82c3301";
    let attempts = (0..24).map(|number| {
        let (hub, ann) = (&fleet.hubs[number % 3], &ann);
        // Who names a session that is gone gets that of the conversation, too.
        let body = match number % 2 {
            0 => json!({"chat_id": "chat"}),
            _ => json!({"chat_id": "chat", "session_id": unknown}),
        };
        async move {
            let answer = hub
                .call("POST", "/sessions/create", &ann.token, &body)
                .await;
            answer.json()["session_id"].as_str().map(str::to_owned)
        }
    });
    let opened = futures_util::future::join_all(attempts).await;
    assert!(opened[0].as_deref().is_some_and(|id| id != unknown));
    assert!(opened.iter().all(|id| *id == opened[0]), "{opened:?}");
}

/// Otherwise the user would be told to try again, for ever.
#[tokio::test]
async fn a_login_whose_record_nobody_can_read_has_ended() {
    let fleet = Fleet::start(1).await;
    let hub = &fleet.hubs[0];
    let ann = hub.user("ann").await;
    let key = format!("sessions:{}", ann.session);
    fleet.redis.ask(&["SET", &key, "[1]"]);
    for path in [
        &format!("/sessions/{}", ann.session),
        "/sessions/users/ann/sessions",
    ] {
        let answer = hub.call("GET", path, &ann.token, &Value::Null).await;
        assert_eq!(answer.status, 401, "{answer:?}");
    }
    eventually("the log names it", async || {
        hub.log().contains(&key).then_some(())
    })
    .await;
    let again = hub.login("ann").await;
    assert_ne!(again.session, ann.session);
    hub.session_data(&again).await;
    assert_eq!(fleet.redis.ask(&["EXISTS", &key]), "0");
}

#[tokio::test]
async fn without_redis_everybody_is_told_at_once_and_nothing_is_half_done() {
    let mut fleet = Fleet::start_on(RedisServer::start_kept(), 1).await;
    let ann = fleet.hubs[0].user("ann").await;
    fleet.redis.kill();
    let hub = &fleet.hubs[0];
    eventually("the hub has noticed", async || {
        (hub.get("/readyz").await.status == 503).then_some(())
    })
    .await;
    let path = format!("/sessions/update/{}", ann.session);
    let body = json!({"data": {"api_key": "lost"}});
    for answer in [
        hub.call("POST", &path, &ann.token, &body).await,
        hub.try_login("ann", PASSWORD).await,
        hub.register("bob").await,
        hub.call("POST", "/sessions/logout", &ann.token, &Value::Null)
            .await,
    ] {
        answer.expect_refusal(503, "Service Unavailable");
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    fleet.redis.start_again();
    let hub = &fleet.hubs[0];
    eventually("the hub is back", async || {
        let path = format!("/sessions/{}", ann.session);
        (hub.call("GET", &path, &ann.token, &Value::Null)
            .await
            .status
            == 200)
            .then_some(())
    })
    .await;
    assert_eq!(hub.session_data(&ann).await["api_key"], Value::Null);
    assert_eq!(hub.register("bob").await.status, 200);
}
