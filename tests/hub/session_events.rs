//! What is published in Redis of users, sessions and their sockets, under the names and in the forms of the FastAPI gateway.

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::redis_server::RedisServer;
use crate::support::session::session_hub;
use crate::support::ws::Socket;
use crate::support::{eventually, within};

/// Who listens in Redis itself.
struct Ear(BufReader<TcpStream>);

impl Ear {
    async fn of(redis: &RedisServer) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", redis.port())).await;
        let mut ear = Self(BufReader::new(stream.expect("the server")));
        let stream = ear.0.get_mut();
        let sent = stream.write_all(b"PSUBSCRIBE events:*\r\n").await;
        sent.expect("sent");
        while ear.line().await != ":1" {}
        ear
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        let read = within("a line", self.0.read_line(&mut line)).await;
        assert_ne!(read.expect("readable"), 0, "redis goes on");
        line.trim_end().to_owned()
    }

    /// The next event: its channel behind `events:`, and its fields.
    async fn next(&mut self) -> (String, Value) {
        while self.line().await != "events:*" {}
        let mut texts = [String::new(), String::new()];
        for text in &mut texts {
            // Its length.
            self.line().await;
            *text = self.line().await;
        }
        let [channel, event] = texts;
        let channel = channel.strip_prefix("events:").expect("a channel");
        (
            channel.to_owned(),
            serde_json::from_str(&event).expect("JSON"),
        )
    }
}

#[tokio::test]
async fn the_life_of_a_user_is_told_in_its_order() {
    let redis = RedisServer::start_with(&["--save", ""]);
    let url = redis.url();
    let variables = [
        ("REDIS_URL", url.as_str()),
        ("READY_REDIS_GRACE_MS", "0"),
        ("NODE_ID", "node-1"),
    ];
    let hub = session_hub(&variables).await;
    eventually("the store answers", async || {
        (hub.try_login("nobody", "x").await.status == 401).then_some(())
    })
    .await;
    let mut ear = Ear::of(&redis).await;
    let mut expect = async |what: &str, fields: Value| {
        let (channel, mut event) = ear.next().await;
        assert_eq!(channel, format!("{what}:ann"));
        let event = event.as_object_mut().expect("fields");
        if what.starts_with("connection:") && what != "connection:removed" {
            let seen = event.remove("last_seen").and_then(|seen| seen.as_f64());
            assert!(seen > Some(1.7e9), "{seen:?}");
        }
        let mut expected = fields;
        expected["user_id"] = json!("ann");
        expected["gateway_id"] = json!("node-1");
        assert_eq!(Value::from(event.clone()), expected, "{what}");
    };
    let ann = hub.user("ann").await;
    expect("user:register", json!({"username": "ann"})).await;
    let session = ann.session.as_str();
    expect(
        "session:new",
        json!({"session_id": session, "chat_id": "default"}),
    )
    .await;
    let by_http = |session: &str| json!({"session_id": session, "ws_connected": "0"});
    expect("connection:http", by_http(session)).await;

    // The session that there is, and a new one.
    let create = async |chat: &str| {
        let body = json!({"chat_id": chat});
        let answer = hub
            .call("POST", "/sessions/create", &ann.token, &body)
            .await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["session_id"]
            .as_str()
            .expect("an id")
            .to_owned()
    };
    assert_eq!(create("default").await, session);
    expect("connection:http", by_http(session)).await;
    let other = create("other").await;
    expect(
        "session:new",
        json!({"session_id": other, "chat_id": "other"}),
    )
    .await;
    expect("connection:http", by_http(&other)).await;

    let mut socket = Socket::open_at(&hub, &ann.ws_path(), &[]).await;
    expect(
        "connection:ws",
        json!({"session_id": session, "ws_connected": "1"}),
    )
    .await;
    let key = json!({"type": "update_api_key", "key": "sk"});
    assert_eq!(socket.ask(&key).await["type"], "ack");
    expect("session:update", json!({"session_id": session})).await;
    drop(socket);
    expect("connection:removed", json!({})).await;

    let path = format!("/sessions/update/{session}");
    let body = json!({"data": {"mood": "good"}});
    assert_eq!(hub.call("POST", &path, &ann.token, &body).await.status, 200);
    expect("session:update", json!({"session_id": session})).await;
    let logout = hub.call("POST", "/sessions/logout", &ann.token, &Value::Null);
    assert_eq!(logout.await.status, 200);
    expect("session:logout", json!({"session_id": session})).await;

    let ann = hub.login("ann").await;
    expect(
        "session:new",
        json!({"session_id": ann.session, "chat_id": "default"}),
    )
    .await;
    expect("connection:http", by_http(&ann.session)).await;
    let delete = hub.call("POST", "/sessions/delete_account", &ann.token, &Value::Null);
    assert_eq!(delete.await.status, 200);
    expect("user:delete", json!({"username": "ann"})).await;
    expect("account:deleted", json!({"username": "ann"})).await;
}
