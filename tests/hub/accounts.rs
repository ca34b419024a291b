//! Accounts: register, log in, log out, delete; and everything that can be wrong with them.

use serde_json::{Value, json};

use crate::support::session::{PASSWORD, session_hub};
use crate::support::token::{in_seconds, token, token_of};

#[tokio::test]
async fn a_user_registers_logs_in_and_out_in_that_systems_words() {
    let hub = session_hub(&[]).await;
    let registered = hub.register("user123").await;
    assert_eq!(registered.status, 200, "{registered:?}");
    assert_eq!(
        registered.json(),
        json!({"message": "User registered successfully", "username": "user123"})
    );
    let answer = hub.try_login("user123", PASSWORD).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let login = answer.json();
    assert_eq!(login["token_type"], "bearer");
    assert_eq!(login["expires_in"], 1800);
    assert_eq!(
        login["user"],
        json!({"username": "user123", "role": "user"})
    );
    assert_eq!(login["session_id"].as_str().expect("an id").len(), 36);
    let token = login["access_token"].as_str().expect("a token");
    let out = hub
        .call("POST", "/sessions/logout", token, &Value::Null)
        .await;
    assert_eq!(out.status, 200, "{out:?}");
    assert_eq!(out.json(), json!({"message": "Logged out successfully"}));
    // The token ended with its session.
    let again = hub
        .call("POST", "/sessions/logout", token, &Value::Null)
        .await;
    again.expect_refusal(401, "Invalid token");
}

#[tokio::test]
async fn a_name_is_one_users_in_every_case_and_form() {
    let hub = session_hub(&[]).await;
    assert_eq!(hub.register("Ren\u{e9}").await.status, 200);
    for name in [
        "Ren\u{e9}",
        "ren\u{e9}",
        "REN\u{c9}",
        "Rene\u{301}",
        "Ｒen\u{e9}",
    ] {
        hub.register(name)
            .await
            .expect_refusal(400, "Username already exists");
        let user = hub.login(name).await;
        assert_eq!(user.name, "Ren\u{e9}");
    }
    assert_eq!(hub.register("rene 🦀").await.status, 200);
    assert_eq!(hub.login("Rene 🦀").await.name, "rene 🦀");
}

#[tokio::test]
async fn of_many_who_register_one_name_exactly_one_gets_it() {
    let hub = session_hub(&[("PASSWORD_QUEUE", "100")]).await;
    let answers = futures_util::future::join_all((0..20).map(|number| {
        let body =
            json!({"username": "ann", "email": "a@b", "password": format!("password {number}")});
        let hub = &hub;
        async move { hub.call("POST", "/sessions/register", "", &body).await }
    }))
    .await;
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    let won = statuses.iter().position(|status| *status == 200);
    let won = won.unwrap_or_else(|| panic!("nobody: {statuses:?}"));
    for (number, answer) in answers.iter().enumerate() {
        if number != won {
            answer.expect_refusal(400, "Username already exists");
        }
    }
    let password = format!("password {won}");
    assert_eq!(hub.try_login("ann", &password).await.status, 200);
}

#[tokio::test]
async fn who_is_not_known_and_who_errs_hear_the_same() {
    let hub = session_hub(&[]).await;
    assert_eq!(hub.register("ann").await.status, 200);
    for (name, password) in [
        ("ann", "wrong"),
        ("ann", "correct horse "),
        ("ann", "Correct horse"),
        ("ann\0", PASSWORD),
        ("nobody", PASSWORD),
        ("", "x\u{0}"),
    ] {
        if name.is_empty() {
            continue;
        }
        let answer = hub.try_login(name, password).await;
        answer.expect_refusal(401, "Invalid username or password");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    }
    // The password may be anything, NUL and emoji too.
    let odd = "\0 🦀 \u{301}";
    let body = json!({"username": "odd", "email": "x", "password": odd});
    assert_eq!(
        hub.call("POST", "/sessions/register", "", &body)
            .await
            .status,
        200
    );
    assert_eq!(hub.try_login("odd", odd).await.status, 200);
    hub.try_login("odd", " 🦀 \u{301}")
        .await
        .expect_refusal(401, "Invalid username or password");
}

#[tokio::test]
async fn every_field_that_breaks_its_rule_is_named() {
    let hub = session_hub(&[]).await;
    let good = json!({"username": "ann", "email": "a@b.c", "password": PASSWORD});
    let long = "x".repeat(1 << 20);
    let too_long = |field| (field, json!(long), "string_too_long");
    let cases = [
        ("username", Value::Null, "string_type"),
        ("username", json!(7), "string_type"),
        ("username", json!(["ann"]), "string_type"),
        ("username", json!(""), "string_too_short"),
        ("username", json!("   "), "string_too_short"),
        ("username", json!("a\u{0}nn"), "value_error"),
        ("username", json!("ann "), "value_error"),
        ("username", json!("a\u{202e}nn"), "value_error"),
        ("username", json!("."), "value_error"),
        ("username", json!(".."), "value_error"),
        too_long("username"),
        ("email", json!({}), "string_type"),
        ("email", json!(""), "string_too_short"),
        ("email", json!("a\u{0}@b"), "value_error"),
        too_long("email"),
        ("password", json!(true), "string_type"),
        ("password", json!(""), "string_too_short"),
        too_long("password"),
    ];
    for (field, value, kind) in cases {
        let mut body = good.clone();
        body[field] = value;
        let answer = hub.call("POST", "/sessions/register", "", &body).await;
        answer.expect_faults(&[(field, kind)]);
        assert!(answer.text.len() < 2000, "nobody gets a megabyte back");
    }
    for field in ["username", "email", "password"] {
        let mut body = good.clone();
        body.as_object_mut().expect("an object").remove(field);
        let answer = hub.call("POST", "/sessions/register", "", &body).await;
        answer.expect_faults(&[(field, "missing")]);
    }
    let answer = hub
        .call("POST", "/sessions/login", "", &json!({"username": 1}))
        .await;
    answer.expect_faults(&[("username", "string_type"), ("password", "missing")]);
}

#[tokio::test]
async fn a_body_that_is_no_object_is_refused() {
    let hub = session_hub(&[]).await;
    for (body, kind) in [
        ("", "missing"),
        ("   ", "missing"),
        ("[]", "model_attributes_type"),
        ("\"ann\"", "model_attributes_type"),
        ("null", "model_attributes_type"),
        ("{", "json_invalid"),
        ("{\"username\": \"ann\",}", "json_invalid"),
        ("username=ann&password=x", "json_invalid"),
        ("{\"username\": \"\\ud800\"}", "json_invalid"),
    ] {
        for path in ["/sessions/register", "/sessions/login"] {
            let length = body.len().to_string();
            let headers = [("content-length", length.as_str())];
            let headers = if body.is_empty() { &headers[..] } else { &[] };
            let answer = hub.request("POST", path, headers, body).await;
            match (kind, body) {
                // Each string is read on its own: half a surrogate pair is a field that is no text.
                ("json_invalid", body) if body.contains("ud800") => {
                    assert_eq!(answer.status, 422, "{answer:?}");
                }
                _ => answer.expect_faults(&[("", kind)]),
            }
        }
    }
    let huge = json!({"username": "ann", "password": "x".repeat(3 << 20)});
    let answer = hub.call("POST", "/sessions/login", "", &huge).await;
    assert_eq!(answer.status, 413, "{answer:?}");
    assert_eq!(answer.json()["status_code"], 413);
}

#[tokio::test]
async fn tokens_that_are_worth_nothing_are_refused_in_that_systems_words() {
    let hub = session_hub(&[]).await;
    let ended =
        token(json!({"sub": "ann", "login_session": "6f1c1f9e-2b8e-4d1b-9f5e-0d8d1a4c7e55"}));
    let cases = [
        ("", "Not authenticated"),
        ("a.b.c", "Invalid token"),
        (
            &token(json!({"sub": "ann", "exp": in_seconds(-5)})),
            "Token expired",
        ),
        (&token(json!({"role": "user"})), "Invalid token"),
        (
            &token(json!({"sub": "ann", "login_session": "no-uuid"})),
            "Invalid token",
        ),
        (&ended, "Invalid token"),
    ];
    let calls = [
        ("POST", "/sessions/logout"),
        ("POST", "/sessions/delete_account"),
        ("POST", "/sessions/create"),
        (
            "POST",
            "/sessions/update/6f1c1f9e-2b8e-4d1b-9f5e-0d8d1a4c7e55",
        ),
        ("GET", "/sessions/6f1c1f9e-2b8e-4d1b-9f5e-0d8d1a4c7e55"),
        ("GET", "/sessions/users/ann/sessions"),
        ("GET", "/sessions/users/ann/connection"),
    ];
    for (bad, error) in cases {
        for (method, path) in calls {
            let answer = hub.call(method, path, bad, &Value::Null).await;
            answer.expect_refusal(401, error);
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
            assert_eq!(answer.json()["path"], path);
        }
    }
}

#[tokio::test]
async fn a_deleted_user_is_gone_with_token_and_sessions_and_the_name_is_free() {
    let hub = session_hub(&[]).await;
    let ann = hub.user("ann").await;
    let gone = hub
        .call("POST", "/sessions/delete_account", &ann.token, &Value::Null)
        .await;
    assert_eq!(gone.status, 200, "{gone:?}");
    assert_eq!(
        gone.json(),
        json!({"message": "Account deleted successfully"})
    );
    for (method, path) in [
        ("POST", "/sessions/delete_account"),
        ("POST", "/sessions/create"),
    ] {
        let answer = hub.call(method, path, &ann.token, &json!({})).await;
        answer.expect_refusal(401, "Invalid token");
    }
    hub.try_login("ann", PASSWORD)
        .await
        .expect_refusal(401, "Invalid username or password");
    let again = hub.user("ann").await;
    assert_ne!(again.session, ann.session);
    // Somebody whom only another issuer knows has no account here.
    let foreign = token_of("foreign");
    let answer = hub
        .call("POST", "/sessions/delete_account", &foreign, &Value::Null)
        .await;
    answer.expect_refusal(404, "User not found");
}

#[tokio::test]
async fn an_imported_password_is_taken_once_and_then_kept_better() {
    let file = format!(
        "{}/imported-{}.db",
        env!("CARGO_TARGET_TMPDIR"),
        std::process::id()
    );
    let variables = [("DATA_FILE", file.as_str())];
    drop(session_hub(&variables).await);
    let mut connection = open(&file).await;
    // SHA-256 of "password", as that system kept it.
    let insert = "INSERT INTO users VALUES ('old', 'old', 'o@x',
        '5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8', 'user', 0, unixepoch() * 1000)";
    sqlx::query(insert)
        .execute(&mut connection)
        .await
        .expect("imported");
    let hub = session_hub(&variables).await;
    hub.try_login("old", "passwort")
        .await
        .expect_refusal(401, "Invalid username or password");
    let select = "SELECT password FROM users WHERE key = 'old'";
    for _ in 0..2 {
        assert_eq!(hub.try_login("old", "password").await.status, 200);
        let kept: String = sqlx::query_scalar(select)
            .fetch_one(&mut connection)
            .await
            .expect("a user");
        assert!(kept.starts_with("$argon2id$v=19$m=7168,t=1,p=1$"), "{kept}");
    }
    drop(hub);
    drop(connection);
    for end in ["", "-wal", "-shm", ".lock"] {
        let _ = std::fs::remove_file(format!("{file}{end}"));
    }
}

/// Whoever registered as `..` before that was refused is still there.
#[tokio::test]
async fn every_name_can_be_named_in_a_path() {
    let file = format!(
        "{}/named-{}.db",
        env!("CARGO_TARGET_TMPDIR"),
        std::process::id()
    );
    let hub = session_hub(&[("DATA_FILE", &file), ("LOGIN_ADDRESS_RATE_MAX", "0")]).await;
    let mut connection = open(&file).await;
    assert_eq!(hub.register("dots").await.status, 200);
    let update = "UPDATE users SET key = '..', name = '..' WHERE key = 'dots'";
    let updated = sqlx::query(update).execute(&mut connection).await;
    assert_eq!(updated.expect("updated").rows_affected(), 1);
    for (name, encoded) in [
        ("..", "%2E%2e"),
        ("a/b", "a%2Fb"),
        ("a%2Fb", "a%252Fb"),
        ("a?b#c", "a%3Fb%23c"),
        ("ä ö", "%C3%A4%20%C3%B6"),
        ("a+b", "a+b"),
    ] {
        let user = match name {
            ".." => hub.login(name).await,
            name => hub.user(name).await,
        };
        let path = format!("/sessions/users/{encoded}/sessions");
        let answer = hub.call("GET", &path, &user.token, &Value::Null).await;
        assert_eq!(answer.status, 200, "{name}: {answer:?}");
        let listed = &answer.json()["sessions"][0]["session_id"];
        assert_eq!(*listed, user.session.as_str(), "{name}");
        let path = format!("/sessions/users/{encoded}/connection");
        let answer = hub.call("GET", &path, &user.token, &Value::Null).await;
        assert_eq!(answer.status, 200, "{name}: {answer:?}");
    }
    drop((hub, connection));
    for end in ["", "-wal", "-shm", ".lock"] {
        let _ = std::fs::remove_file(format!("{file}{end}"));
    }
}

async fn open(file: &str) -> sqlx::SqliteConnection {
    use sqlx::ConnectOptions as _;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file);
    options.connect().await.expect("it opens")
}

#[tokio::test]
async fn guessing_is_slowed_down() {
    let hub = session_hub(&[("LOGIN_RATE_MAX", "3")]).await;
    assert_eq!(hub.register("ann").await.status, 200);
    for _ in 0..3 {
        hub.try_login("ann", "guess")
            .await
            .expect_refusal(401, "Invalid username or password");
    }
    let answer = hub.try_login("ANN", PASSWORD).await;
    answer.expect_refusal(429, "Rate Limit Exceeded");
    let seconds = answer.json()["retry_after"].as_u64().expect("seconds");
    assert!((1..=20).contains(&seconds), "{seconds}");
    assert_eq!(
        answer.header("retry-after"),
        Some(seconds.to_string().as_str())
    );
    // Somebody else at the same address may.
    assert_eq!(hub.register("bob").await.status, 200);
    hub.login("bob").await;
}

#[tokio::test]
async fn a_storm_of_logins_is_refused_at_once_and_the_hub_goes_on() {
    let variables = [
        ("PASSWORD_HASH", "argon2id:19456:2:1"),
        ("PASSWORD_THREADS", "1"),
        ("PASSWORD_QUEUE", "2"),
        ("LOGIN_RATE_MAX", "0"),
        ("LOGIN_ADDRESS_RATE_MAX", "0"),
    ];
    let hub = session_hub(&variables).await;
    assert_eq!(hub.register("ann").await.status, 200);
    let storm = (0..60).map(|_| hub.try_login("ann", PASSWORD));
    let answers = futures_util::future::join_all(storm).await;
    let served = answers.iter().filter(|answer| answer.status == 200).count();
    assert!(served >= 1);
    let refused: Vec<_> = answers
        .iter()
        .filter(|answer| answer.status != 200)
        .collect();
    assert!(refused.len() >= 10, "{}", refused.len());
    for answer in refused {
        answer.expect_refusal(503, "Service Unavailable");
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    hub.login("ann").await;
}

#[tokio::test]
async fn an_address_registers_so_many_users_and_logs_in_all_the_same() {
    let hub = session_hub(&[("REGISTER_RATE_MAX", "3")]).await;
    // What is no registration counts for none.
    for _ in 0..5 {
        let answer = hub.call("POST", "/sessions/register", "", &json!({})).await;
        assert_eq!(answer.status, 422);
    }
    for name in ["ann", "bob"] {
        assert_eq!(hub.register(name).await.status, 200);
    }
    hub.register("ANN")
        .await
        .expect_refusal(400, "Username already exists");
    let answer = hub.register("carol").await;
    answer.expect_refusal(429, "Rate Limit Exceeded");
    let seconds = answer.json()["retry_after"].as_u64().expect("seconds");
    assert!((1..=20).contains(&seconds), "{seconds}");
    assert_eq!(
        answer.header("retry-after"),
        Some(seconds.to_string().as_str())
    );
    hub.try_login("carol", PASSWORD)
        .await
        .expect_refusal(401, "Invalid username or password");
    hub.login("ann").await;
}

#[tokio::test]
async fn a_storm_of_registrations_leaves_a_place_to_logins() {
    let variables = [
        ("PASSWORD_HASH", "argon2id:19456:2:1"),
        ("PASSWORD_THREADS", "1"),
        ("PASSWORD_QUEUE", "8"),
        ("REGISTER_RATE_MAX", "0"),
    ];
    let hub = session_hub(&variables).await;
    assert_eq!(hub.register("ann").await.status, 200);
    let storm = (0..40).map(|number| {
        let hub = &hub;
        async move { hub.register(&format!("user-{number}")).await.status }
    });
    let storm = futures_util::future::join_all(storm);
    let logins = async {
        for _ in 0..3 {
            hub.login("ann").await;
        }
    };
    let (statuses, ()) = tokio::join!(storm, logins);
    let made = statuses.iter().filter(|status| **status == 200).count();
    let refused = statuses.iter().filter(|status| **status == 503).count();
    assert!(made >= 1 && refused >= 10, "{statuses:?}");
    assert_eq!(made + refused, statuses.len(), "{statuses:?}");
}

#[tokio::test]
async fn paths_that_are_none_have_that_systems_envelope() {
    let hub = session_hub(&[]).await;
    for path in [
        "/sessions",
        "/sessions/",
        "/sessions/a/b",
        "/sessions/users/ann",
    ] {
        hub.get(path).await.expect_refusal(404, "Not Found");
    }
    for (method, path) in [
        (
            "GET",
            "/sessions/update/6f1c1f9e-2b8e-4d1b-9f5e-0d8d1a4c7e55",
        ),
        ("POST", "/sessions/users/ann/sessions"),
        ("DELETE", "/sessions/login"),
    ] {
        let answer = hub.call(method, path, "", &Value::Null).await;
        answer.expect_refusal(405, "Method Not Allowed");
    }
}
