//! What operators do with users, and that nobody else does.

use serde_json::{Value, json};

use crate::redis_server::RedisServer;
use crate::support::http::Answer;
use crate::support::session::{PASSWORD, SESSIONS, User, session_hub};
use crate::support::token::token;
use crate::support::ws::Socket;
use crate::support::{Hub, eventually, hub_with};

const KEY: &str = "an-admin-key-of-some-length";

/// Every path, with a body that is right for it.
fn calls() -> [(&'static str, &'static str, Value); 8] {
    let bob = json!({"username": "bob"});
    [
        ("GET", "/admin/users", Value::Null),
        ("POST", "/admin/users/promote", bob.clone()),
        ("POST", "/admin/users/demote", bob),
        (
            "POST",
            "/admin/users/bob/role",
            json!({"role": "publisher"}),
        ),
        ("GET", "/admin/users/stats", Value::Null),
        ("GET", "/admin/system/stats", Value::Null),
        ("GET", "/admin/system/redis-info", Value::Null),
        ("POST", "/admin/system/cleanup-sessions", Value::Null),
    ]
}

async fn hub() -> Hub {
    session_hub(&[("ADMIN_API_KEY", KEY)]).await
}

/// With a key instead of a token.
async fn with_key(hub: &Hub, key: &str, method: &str, path: &str, body: &Value) -> Answer {
    let length = ("content-length", "0");
    let (body, mut headers) = match body {
        Value::Null => (String::new(), vec![length]),
        body => (body.to_string(), Vec::new()),
    };
    headers.push(("x-admin-key", key));
    hub.request(method, path, &headers, &body).await
}

async fn promote(hub: &Hub, name: &str) -> Answer {
    let body = json!({"username": name});
    with_key(hub, KEY, "POST", "/admin/users/promote", &body).await
}

/// Somebody who is an admin by the hub's own doing.
async fn admin(hub: &Hub, name: &str) -> User {
    assert_eq!(hub.register(name).await.status, 200);
    assert_eq!(promote(hub, name).await.status, 200);
    hub.login(name).await
}

#[tokio::test]
async fn nobody_else_may() {
    let hub = hub().await;
    let (ann, _) = (hub.user("ann").await, hub.user("bob").await);
    let publisher = token(json!({"sub": "back end", "role": "publisher"}));
    for (method, path, body) in calls() {
        let answer = hub.call(method, path, "", &body).await;
        answer.expect_refusal_at("/admin/", 401, "Not authenticated");
        let answer = with_key(&hub, "wrong", method, path, &body).await;
        answer.expect_refusal_at("/admin/", 401, "Invalid admin API key");
        for token in [&ann.token, &publisher] {
            let answer = hub.call(method, path, token, &body).await;
            answer.expect_refusal_at("/admin/", 403, "Access denied. Required roles: admin");
        }
        let other = if method == "GET" { "POST" } else { "GET" };
        let answer = with_key(&hub, KEY, other, path, &Value::Null).await;
        answer.expect_refusal_at("/admin/", 405, "Method Not Allowed");
    }
    let role = &hub.login("bob").await;
    let answer = hub
        .call("GET", "/admin/users", &role.token, &Value::Null)
        .await;
    assert_eq!(answer.status, 403, "nobody promoted bob");
}

#[tokio::test]
async fn without_a_key_in_the_configuration_no_key_opens() {
    let hub = session_hub(&[]).await;
    for key in ["", "any"] {
        let answer = with_key(&hub, key, "GET", "/admin/users", &Value::Null).await;
        answer.expect_refusal_at("/admin/", 401, "Invalid admin API key");
    }
}

#[tokio::test]
async fn a_promoted_user_is_an_admin_until_demoted() {
    let hub = hub().await;
    let mut bob = hub.user("bob").await;
    assert_eq!(
        promote(&hub, "BOB").await.json(),
        json!({"message": "User BOB promoted to admin"}),
        "a name is one user's whatever its case"
    );
    let users = async |user: &User| {
        let answer = hub
            .call("GET", "/admin/users", &user.token, &Value::Null)
            .await;
        answer.status
    };
    assert_eq!(users(&bob).await, 403, "the token says what it said");
    bob = hub.login("bob").await;
    assert_eq!(users(&bob).await, 200);
    let mut socket = Socket::open_at(&hub, &bob.ws_path(), &[]).await;

    let demote = async |user: &User, name: &str| {
        let body = json!({"username": name});
        hub.call("POST", "/admin/users/demote", &user.token, &body)
            .await
    };
    let refused = demote(&bob, "Bob").await;
    refused.expect_refusal_at("/admin/", 400, "Cannot demote yourself");
    let ann = admin(&hub, "ann").await;
    assert_eq!(demote(&ann, "bob").await.status, 200);
    assert_eq!(socket.closed().await.0, 4003);
    assert_eq!(users(&bob).await, 401, "the token ended with its session");
    bob = hub.login("bob").await;
    assert_eq!(users(&bob).await, 403);
}

/// Runs a command of the binary on a data file.
fn run(arguments: &[&str], file: &str) -> (bool, String) {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_fanfare"))
        .args(arguments)
        .env_clear()
        .env("NODE_ENV", "test")
        .env("DATA_FILE", file)
        .output()
        .expect("the binary runs");
    let text = String::from_utf8([output.stdout, output.stderr].concat());
    (output.status.success(), text.expect("text"))
}

#[tokio::test]
async fn the_first_admin_comes_by_the_command_line() {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    let file = folder.join(format!("seed-{}.db", std::process::id()));
    let file = file.to_str().expect("a path");
    let (_, text) = run(&["migrate"], file);
    assert_eq!(text, format!("{file} is up to date\n"));
    let (is_done, text) = run(&["seed", "--admin", "Root"], file);
    let password = text.strip_prefix("the admin is Root with the password ");
    assert!(is_done, "{text}");
    let password = password.expect("a password").trim();
    assert_eq!(
        run(&["seed", "--admin", "root"], file),
        (
            true,
            "there is a user root already: nothing was changed\n".to_owned()
        )
    );
    let hub = session_hub(&[("DATA_FILE", file)]).await;
    let login = hub.try_login("root", password).await.json();
    assert_eq!(login["user"], json!({"username": "Root", "role": "admin"}));
    let token = login["access_token"].as_str().expect("a token");
    let answer = hub.call("GET", "/admin/users", token, &Value::Null).await;
    assert_eq!(answer.json()[0]["username"], "Root");
    for ending in ["", "-wal", "-shm", ".lock"] {
        let _ = std::fs::remove_file(format!("{file}{ending}"));
    }
    let (is_done, text) = run(&["migrate"], "/nowhere/fanfare.db");
    assert!(!is_done && text.contains("/nowhere/fanfare.db: "), "{text}");
    let (is_done, text) = run(&["seed", "--admin", ""], file);
    assert!(!is_done && text.contains("--admin "), "{text}");
}

#[tokio::test]
async fn a_name_that_is_nobodys_is_said_so() {
    let hub = hub().await;
    for path in ["/admin/users/promote", "/admin/users/demote"] {
        let post = async |body: &Value| with_key(&hub, KEY, "POST", path, body).await;
        for name in ["nobody", "\u{0}", " ", "a\u{202e}b"] {
            let answer = post(&json!({"username": name})).await;
            answer.expect_refusal_at("/admin/", 404, "User not found");
        }
        for (body, kind) in [
            (json!({}), "missing"),
            (json!({"username": 7}), "string_type"),
            (json!({"username": ""}), "string_too_short"),
            (json!({"username": "x".repeat(5000)}), "string_too_long"),
        ] {
            let answer = post(&body).await;
            answer.expect_refusal_at("/admin/", 422, "Validation Error");
            assert_eq!(answer.json()["errors"][0]["type"], kind, "{body}");
        }
    }
}

#[tokio::test]
async fn users_are_listed_page_by_page() {
    let hub = hub().await;
    let mut names: Vec<String> = (0..7).map(|number| format!("user-{number}")).collect();
    for name in &names {
        assert_eq!(hub.register(name).await.status, 200);
    }
    let ann = hub.user("Ann").await;
    let _socket = Socket::open_at(&hub, &ann.ws_path(), &[]).await;
    names.insert(0, "Ann".to_owned());
    let page = async |query: &str| {
        let path = format!("/admin/users?{query}");
        let answer = with_key(&hub, KEY, "GET", &path, &Value::Null).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json().as_array().expect("a list").clone()
    };
    let mut listed = Vec::new();
    let mut cursor = String::new();
    loop {
        let users = page(&format!("limit=3&cursor={cursor}")).await;
        let Some(last) = users.last() else { break };
        cursor = last["username"].as_str().expect("a name").to_owned();
        listed.extend(users);
    }
    let found: Vec<&str> = listed
        .iter()
        .filter_map(|user| user["username"].as_str())
        .collect();
    assert_eq!(found, names);
    assert_eq!(page("").await, listed);
    let ann = &listed[0];
    assert_eq!(ann["email"], "a@example.com");
    assert_eq!(ann["role"], "user");
    assert_eq!(
        (&ann["session_count"], &ann["is_online"]),
        (&json!(1), &json!(true))
    );
    assert!(ann["last_login"].as_f64() > Some(1.7e9));
    assert!(ann.get("password").is_none());
    assert_eq!(listed[1]["session_count"], 0);
    assert_eq!(listed[1]["is_online"], false);
    for query in ["limit=0", "limit=1001", "limit=x", "limit=-1"] {
        let path = format!("/admin/users?{query}");
        let answer = with_key(&hub, KEY, "GET", &path, &Value::Null).await;
        answer.expect_refusal_at("/admin/", 400, "Bad Request");
    }
}

#[tokio::test]
async fn the_numbers_are_those_of_this_node_and_of_redis() {
    let redis = RedisServer::start_with(&["--save", ""]);
    let variables = [("ADMIN_API_KEY", KEY), ("REDIS_URL", &redis.url())];
    let (hub, other) = (session_hub(&variables).await, session_hub(&variables).await);
    let ann = eventually("a user", async || {
        (other.register("ann").await.status == 200).then_some(())
    });
    ann.await;
    let ann = other.login("ann").await;
    let _socket = Socket::open_at(&other, &ann.ws_path(), &[]).await;
    let get = async |path: &str| {
        let answer = with_key(&hub, KEY, "GET", path, &Value::Null).await;
        (answer.status == 200).then(|| answer.json())
    };
    let stats = eventually("the other node's connection", async || {
        let stats = get("/admin/users/stats").await?;
        (stats["ws_connections"] == 1).then_some(stats)
    })
    .await;
    assert_eq!(
        (&stats["total_users"], &stats["active_sessions"]),
        (&json!(1), &json!(1))
    );
    assert!(stats["memory_usage"]["process_kb"].as_u64() > Some(1000));
    let system = get("/admin/system/stats").await.expect("numbers");
    assert!(system["redis_connections"].as_u64() >= Some(6), "{system}");
    assert!(system["memory_usage_mb"].as_f64() > Some(1.0), "{system}");
    assert!(system["uptime_seconds"].as_f64() > Some(0.0), "{system}");
    assert_eq!(system["active_workers"], 2);
    let info = get("/admin/system/redis-info").await.expect("Redis's own");
    assert!(info["used_memory_human"].is_string(), "{info}");
    assert!(
        info["total_commands_processed"].as_u64() > Some(10),
        "{info}"
    );
}

#[tokio::test]
async fn a_clean_up_throws_away_what_has_expired_only() {
    let hub = hub().await;
    let ann = hub.user("ann").await;
    let path = "/admin/system/cleanup-sessions";
    let answer = with_key(&hub, KEY, "POST", path, &Value::Null).await;
    assert_eq!(
        answer.json(),
        json!({"message": "Session cleanup completed successfully", "sessions": 0, "users": 0})
    );
    hub.session_data(&ann).await;
    let answer = with_key(&hub, KEY, "GET", "/admin/system/redis-info", &Value::Null).await;
    answer.expect_refusal_at("/admin/", 404, "No Redis");
}

#[tokio::test]
async fn a_login_under_way_gains_nothing_from_the_role_before() {
    // Slow enough that a demotion comes into the middle of the check.
    let slow = ("PASSWORD_HASH", "argon2id:65536:8:1");
    let hub = session_hub(&[("ADMIN_API_KEY", KEY), slow]).await;
    assert_eq!(hub.register("bob").await.status, 200);
    let body = json!({"username": "bob"});
    for _ in 0..3 {
        assert_eq!(promote(&hub, "bob").await.status, 200);
        let demote = with_key(&hub, KEY, "POST", "/admin/users/demote", &body);
        let (login, demoted) = tokio::join!(hub.try_login("bob", PASSWORD), demote);
        assert_eq!(demoted.status, 200, "{demoted:?}");
        assert_eq!(login.status, 200, "{login:?}");
        let token = login.json()["access_token"].as_str().map(str::to_owned);
        let token = token.expect("a token");
        let answer = hub.call("GET", "/admin/users", &token, &Value::Null).await;
        // A user like any other, or a session that the demotion ended.
        assert!(matches!(answer.status, 401 | 403), "{answer:?}");
    }
}

/// `/hub` asks no store: an order tells it, and where that was lost, the use of the token does.
#[tokio::test]
async fn an_admin_who_is_demoted_publishes_no_more() {
    let redis = RedisServer::start_with(&["--save", ""]);
    let url = redis.url();
    let hub = session_hub(&[
        ("REDIS_URL", &url),
        ("READY_REDIS_GRACE_MS", "0"),
        ("ADMIN_API_KEY", KEY),
        ("AUTH_REQUIRED", "true"),
    ])
    .await;
    eventually("the store answers", async || {
        (hub.try_login("nobody", "x").await.status == 401).then_some(())
    })
    .await;
    let publish = async |token: &str| {
        let body = json!({"channel": "news", "data": 1});
        hub.call("POST", "/hub/publish", token, &body).await.status
    };
    let demoted = admin(&hub, "ann").await;
    assert_eq!(publish(&demoted.token).await, 200);
    let body = json!({"username": "ann"});
    let answer = with_key(&hub, KEY, "POST", "/admin/users/demote", &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    eventually("the order comes", async || {
        (publish(&demoted.token).await == 401).then_some(())
    })
    .await;
    let cache = hub.call("DELETE", "/admin/cache", &demoted.token, &Value::Null);
    assert_eq!(cache.await.status, 401);
    let forgotten = admin(&hub, "bob").await;
    assert_eq!(publish(&forgotten.token).await, 200);
    redis.ask(&["DEL", &format!("sessions:{}", forgotten.session)]);
    eventually("its use tells of it", async || {
        (publish(&forgotten.token).await == 401).then_some(())
    })
    .await;
}

/// Gives a user a role, with the key.
async fn give(hub: &Hub, name: &str, role: &Value) -> Answer {
    let path = format!("/admin/users/{name}/role");
    with_key(hub, KEY, "POST", &path, &json!({"role": role})).await
}

/// Whether a socket of this token may subscribe to and publish in a channel of the desk.
async fn desk(hub: &Hub, token: &str) -> (bool, bool) {
    let mut socket = Socket::open_at(hub, &format!("/ws/connect?token={token}"), &[]).await;
    let mut may = async |ask: Value| {
        socket.send(&ask).await;
        let answer = socket.next().await;
        let is_done = answer["type"] != "error";
        assert!(is_done || answer["code"] == "forbidden", "{answer}");
        is_done
    };
    let publishes = may(json!({"type": "publish", "channel": "desk:1", "data": 1})).await;
    let subscribes = may(json!({"type": "subscribe", "channel": "desk:1"})).await;
    (subscribes, publishes)
}

#[tokio::test]
async fn roles_of_ones_own_open_namespaces_on_every_node() {
    let redis = RedisServer::start_with(&["--save", ""]);
    let url = redis.url();
    let text = "[namespaces.desk]\nsubscribe = [\"clerk\", \"editor\"]\npublish = [\"editor\"]\n";
    let variables = [
        ("REDIS_URL", url.as_str()),
        ("ADMIN_API_KEY", KEY),
        ("AUTH_REQUIRED", "true"),
    ];
    let variables = [&SESSIONS[..], &variables].concat();
    let (hub, other) = (
        hub_with(text, &variables).await,
        hub_with(text, &variables).await,
    );
    eventually("a user", async || {
        (other.register("ann").await.status == 200).then_some(())
    })
    .await;
    let publishes_at_hub = async |user: &User| {
        let body = json!({"channel": "news", "data": 1});
        hub.call("POST", "/hub/publish", &user.token, &body)
            .await
            .status
    };
    let mut ann = other.login("ann").await;
    assert_eq!(desk(&other, &ann.token).await, (false, false));
    assert_eq!(publishes_at_hub(&ann).await, 403);
    for (role, expected, at_hub) in [
        ("clerk", (true, false), 403),
        ("editor", (true, true), 403),
        ("publisher", (false, false), 200),
        ("admin", (true, true), 200),
        ("user", (false, false), 403),
    ] {
        let mut socket = Socket::open_at(&other, &ann.ws_path(), &[]).await;
        let given = give(&hub, "ANN", &json!(role)).await;
        assert_eq!(given.status, 200, "{given:?}");
        assert_eq!(
            given.json(),
            json!({"message": format!("User ANN has the role {role} now"), "username": "ANN", "role": role})
        );
        assert_eq!(socket.closed().await.0, 4003, "{role}");
        let list = other.call(
            "GET",
            "/sessions/users/ann/sessions",
            &ann.token,
            &Value::Null,
        );
        assert_eq!(list.await.status, 401, "the token ended with its session");
        ann = other.login("ann").await;
        assert_eq!(desk(&other, &ann.token).await, expected, "{role}");
        assert_eq!(publishes_at_hub(&ann).await, at_hub, "{role}");
    }
    // Whoever else signs tokens with our secret.
    for (claims, expected) in [
        (
            json!({"sub": "bob", "roles": ["x", "clerk"]}),
            (true, false),
        ),
        (
            json!({"sub": "bob", "role": "clerk", "roles": "editor"}),
            (true, true),
        ),
        (json!({"sub": "bob", "role": "Editor"}), (false, false)),
    ] {
        assert_eq!(
            desk(&hub, &token(claims.clone())).await,
            expected,
            "{claims}"
        );
    }
}

#[tokio::test]
async fn a_role_that_is_none_is_refused() {
    let hub = hub().await;
    let bob = admin(&hub, "bob").await;
    for role in [
        json!(""),
        json!("anyone"),
        json!(" x"),
        json!("a\u{0}"),
        json!("x".repeat(65)),
    ] {
        let answer = give(&hub, "bob", &role).await;
        answer.expect_refusal_at("/admin/", 422, "Validation Error");
        assert_eq!(answer.json()["errors"][0]["type"], "value_error", "{role}");
    }
    let answer = give(&hub, "bob", &json!(7)).await;
    assert_eq!(answer.json()["errors"][0]["type"], "string_type");
    for name in ["nobody", "%00", "%20"] {
        let answer = give(&hub, name, &json!("clerk")).await;
        answer.expect_refusal_at("/admin/", 404, "User not found");
    }
    let path = "/admin/users/Bob/role";
    let answer = hub
        .call("POST", path, &bob.token, &json!({"role": "user"}))
        .await;
    answer.expect_refusal_at("/admin/", 400, "Cannot change your own role");
}
