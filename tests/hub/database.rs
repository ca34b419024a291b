//! Users in PostgreSQL, as nodes have them that share nothing else.

use serde_json::{Value, json};

use crate::postgres_server::PostgresServer;
use crate::support::session::{PASSWORD, session_hub};
use crate::support::{Hub, eventually};

#[tokio::test]
async fn users_are_those_of_all_nodes_and_outlive_them() {
    let server = PostgresServer::start();
    let url = server.url("public");
    let variables = [("DATABASE_URL", url.as_str())];
    let (one, other) = (session_hub(&variables).await, session_hub(&variables).await);
    assert_eq!(one.register("Ann").await.status, 200);
    let again = other.register("ann").await;
    again.expect_refusal(400, "Username already exists");
    let ann = other.login("ann").await;
    assert_eq!(ann.name, "Ann");
    drop((one, other));
    let next = session_hub(&variables).await;
    next.login("Ann").await;
    let log = next.log();
    assert!(!log.contains("search_path"), "the URL is not shown: {log}");
}

#[tokio::test]
async fn a_database_that_goes_away_is_told_at_once_and_sockets_stay() {
    let mut server = PostgresServer::start();
    let url = server.url("public");
    let hub = session_hub(&[("DATABASE_URL", &url)]).await;
    let ann = hub.user("ann").await;
    let path = ann.ws_path();
    let mut socket = crate::support::ws::Socket::open_at(&hub, &path, &[]).await;
    server.kill();
    let away = hub.try_login("ann", PASSWORD).await;
    assert_eq!(away.status, 503, "{away:?}");
    assert_eq!(hub.register("bob").await.status, 503);
    socket.expect_alive().await;
    let update = json!({"type": "update_api_key", "key": "k"});
    assert_eq!(socket.ask(&update).await["type"], "ack");
    server.start_again();
    hub.login("ann").await;
    hub.user("bob").await;
}

#[tokio::test]
async fn the_first_admin_is_made_there_and_a_node_without_its_database_does_not_start() {
    let server = PostgresServer::start();
    let url = server.url("public");
    let run = |command: &str, url: &str| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_fanfare"))
            .env_clear()
            .envs([("NODE_ENV", "test"), ("DATABASE_URL", url)])
            .arg(command)
            .output();
        let output = output.expect("it runs");
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8(text).expect("text"),
        )
    };
    let (is_done, text) = run("migrate", &url);
    assert!(is_done && text.contains("postgres://127.0.0.1:"), "{text}");
    let (is_done, text) = run("seed", &url);
    assert!(is_done, "{text}");
    let password = text.trim().rsplit(' ').next().expect("a password");
    let hub = session_hub(&[("DATABASE_URL", &url)]).await;
    let admin = hub.try_login("admin", password).await;
    assert_eq!(admin.json()["user"]["role"], "admin", "{admin:?}");
    let nowhere = "postgres://ann:top-secret@127.0.0.1:1/users";
    for command in ["migrate", "seed"] {
        let (is_done, text) = run(command, nowhere);
        assert!(!is_done && text.contains("127.0.0.1:1/users"), "{text}");
        assert!(!text.contains("top-secret"), "{text}");
    }
    let mut hub = Hub::start("", &[("DATABASE_URL", nowhere)]);
    assert_ne!(hub.exit_code().await, Some(0));
    let log = hub.log();
    assert!(
        log.contains("127.0.0.1:1/users") && !log.contains("top-secret"),
        "{log}"
    );
}

#[tokio::test]
async fn a_node_without_its_database_is_not_ready() {
    let mut server = PostgresServer::start();
    let hub = session_hub(&[("DATABASE_URL", &server.url("public"))]).await;
    let is_ready = async |expected: (u16, Value)| {
        eventually("it is ready or not", async || {
            let answer = hub.get("/readyz").await;
            let told = (answer.status, answer.json()["reason"].clone());
            (told == expected).then_some(())
        })
        .await;
    };
    is_ready((200, Value::Null)).await;
    server.kill();
    is_ready((503, json!("database_unavailable"))).await;
    // What needs no users goes on.
    assert_eq!(hub.get("/healthz").await.status, 200);
    server.start_again();
    is_ready((200, Value::Null)).await;
}
