//! What is published in Redis of users, sessions and their sockets, under the names and in the forms of the FastAPI gateway.

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::redis_server::RedisServer;
use crate::support::session::{User, session_hub};
use crate::support::ws::Socket;
use crate::support::{Hub, eventually, within};

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

/// A hub whose events somebody hears.
struct Told {
    _redis: RedisServer,
    hub: Hub,
    ear: Ear,
}

impl Told {
    async fn start() -> Self {
        let redis = RedisServer::start_with(&["--save", ""]);
        let url = redis.url();
        let hub = session_hub(&[
            ("REDIS_URL", url.as_str()),
            ("READY_REDIS_GRACE_MS", "0"),
            ("NODE_ID", "node-1"),
        ])
        .await;
        eventually("the store answers", async || {
            (hub.try_login("nobody", "x").await.status == 401).then_some(())
        })
        .await;
        let ear = Ear::of(&redis).await;
        Self {
            _redis: redis,
            hub,
            ear,
        }
    }

    /// The next event is this one of ann's, with these fields beside her name and the node's.
    async fn expect(&mut self, what: &str, mut fields: Value) {
        let (channel, mut event) = self.ear.next().await;
        assert_eq!(channel, format!("{what}:ann"));
        fields["user_id"] = json!("ann");
        fields["gateway_id"] = json!("node-1");
        if what == "connection:http" || what == "connection:ws" {
            let event = event.as_object_mut().expect("fields");
            let seen = event.remove("last_seen").and_then(|seen| seen.as_f64());
            assert!(seen > Some(1.7e9), "{seen:?}");
        }
        assert_eq!(event, fields, "{what}");
    }

    async fn expect_login(&mut self, session: &str) {
        let fields = json!({"session_id": session, "chat_id": "default"});
        self.expect("session:new", fields).await;
        self.expect_use(session).await;
    }

    async fn expect_use(&mut self, session: &str) {
        let fields = json!({"session_id": session, "ws_connected": "0"});
        self.expect("connection:http", fields).await;
    }

    /// Registers and logs in, which is told.
    async fn user(&mut self) -> User {
        let ann = self.hub.user("ann").await;
        let fields = json!({"username": "ann"});
        self.expect("user:register", fields).await;
        self.expect_login(&ann.session).await;
        ann
    }

    async fn post(&self, user: &User, path: &str, body: &Value) -> Value {
        let answer = self.hub.call("POST", path, &user.token, body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }
}

#[tokio::test]
async fn whoever_uses_a_session_by_calls_is_told() {
    let mut told = Told::start().await;
    let ann = told.user().await;
    let create = "/sessions/create";
    let body = json!({"chat_id": "default"});
    let same = told.post(&ann, create, &body).await;
    assert_eq!(same["session_id"], ann.session.as_str());
    told.expect_use(&ann.session).await;
    let other = told.post(&ann, create, &json!({"chat_id": "other"})).await;
    let id = other["session_id"].as_str().expect("an id");
    let fields = json!({"session_id": id, "chat_id": "other"});
    told.expect("session:new", fields).await;
    told.expect_use(id).await;
    let named = json!({"session_id": id});
    assert_eq!(told.post(&ann, create, &named).await["session_id"], id);
    told.expect_use(id).await;
}

#[tokio::test]
async fn the_life_of_a_user_is_told_in_its_order() {
    let mut told = Told::start().await;
    let ann = told.user().await;
    let of_session = json!({"session_id": ann.session});
    let mut socket = Socket::open_at(&told.hub, &ann.ws_path(), &[]).await;
    let fields = json!({"session_id": ann.session, "ws_connected": "1"});
    told.expect("connection:ws", fields).await;
    let key = json!({"type": "update_api_key", "key": "sk"});
    assert_eq!(socket.ask(&key).await["type"], "ack");
    told.expect("session:update", of_session.clone()).await;
    drop(socket);
    told.expect("connection:removed", json!({})).await;

    let path = format!("/sessions/update/{}", ann.session);
    let body = json!({"data": {"mood": "good"}});
    told.post(&ann, &path, &body).await;
    told.expect("session:update", of_session.clone()).await;
    told.post(&ann, "/sessions/logout", &Value::Null).await;
    told.expect("session:logout", of_session).await;

    let ann = told.hub.login("ann").await;
    told.expect_login(&ann.session).await;
    let path = "/sessions/delete_account";
    told.post(&ann, path, &Value::Null).await;
    for what in ["user:delete", "account:deleted"] {
        told.expect(what, json!({"username": "ann"})).await;
    }
}
