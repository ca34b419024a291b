//! The Redis store against a server of each case's own, and what is special to it: the forms in which the FastAPI gateway
//! kept things, a server that goes away.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use fanfare::redis::{Address, Config};
use fanfare::session::{
    LIFE_MAX, RedisStore, Session, SessionLimits, Store, StoreError, Updated, UserName,
};

use crate::redis_server::RedisServer;
use crate::redis_server::cluster::Cluster;
use crate::suite::connections::connection;
use crate::suite::{self, LIMITS, name, seconds, session, start, update, user};

/// Redis, each case with a server of its own.
pub(crate) struct OverRedis {
    server: RedisServer,
}

impl OverRedis {
    pub(crate) fn new() -> Self {
        let server = RedisServer::start_with(&["--save", "", "--appendonly", "no"]);
        Self { server }
    }
}

async fn connected(server: &RedisServer, prefix: &str, limits: SessionLimits) -> RedisStore {
    connected_to(&server.url(), prefix, limits).await
}

async fn connected_to(url: &str, prefix: &str, limits: SessionLimits) -> RedisStore {
    let config = Config {
        address: Address::parse(url).expect("an address"),
        prefix: "unused".to_owned(),
        ready_grace: Duration::ZERO,
        wait_replicas: 0,
        ca_file: None,
    };
    let store = RedisStore::start(&config, prefix, limits).expect("threads");
    ready(&store).await;
    store
}

async fn ready(store: &RedisStore) {
    let began = Instant::now();
    while !store.is_ready() {
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "it does not connect"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

impl suite::Harness for OverRedis {
    const KIND: &str = "redis";

    async fn store(&self, limits: SessionLimits) -> Arc<dyn Store> {
        Arc::new(connected(&self.server, "test:", limits).await)
    }
}

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| Cluster::start(false, true))
}

/// A Cluster of three masters, which all cases share.
pub(crate) struct OverCluster;

impl suite::Harness for OverCluster {
    const KIND: &str = "redis";

    async fn store(&self, limits: SessionLimits) -> Arc<dyn Store> {
        static CASES: AtomicU32 = AtomicU32::new(0);
        let url = cluster().url();
        let prefix = format!("case-{}:", CASES.fetch_add(1, Ordering::Relaxed));
        Arc::new(connected_to(&url, &prefix, limits).await)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_times_are_those_of_the_fastapi_gateway() {
    let server = RedisServer::start_with(&["--save", ""]);
    let store = connected(&server, "", LIMITS).await;
    let (ann, now) = (UserName::new("ann").expect("a name"), start());
    assert_eq!(store.add_user(user(&ann, now)).await, Ok(true));
    assert_eq!(server.ask(&["hget", "users:ann", "role"]), "user");
    assert_eq!(server.ask(&["ttl", "users:ann"]), "-1");
    let session = session(&ann, "default", now);
    store.add_session(session.clone()).await.expect("added");
    let key = format!("sessions:{}", session.head.id);
    let record: serde_json::Value =
        serde_json::from_str(&server.ask(&["get", &key])).expect("JSON");
    assert_eq!(record["user_id"], "ann");
    assert_eq!(record["chat_id"], "default");
    assert_eq!(record["data"]["conversation"], serde_json::json!([]));
    assert!(record["last_access"].as_f64().expect("seconds") > 1.7e9);
    let ttl: u64 = server.ask(&["ttl", &key]).parse().expect("a number");
    assert!((1795..=1800).contains(&ttl), "{ttl}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_fastapi_gateway_kept_is_taken_over() {
    let server = RedisServer::start_with(&["--save", ""]);
    let store = connected(&server, "", LIMITS).await;
    let now = start();
    let login = now.as_secs_f64().to_string();
    let words = [
        "hset",
        "users:Ann",
        "password",
        "abc",
        "email",
        "a@b",
        "role",
        "admin",
        "last_login",
        &login,
    ];
    server.ask(&words);
    server.ask(&["expire", "users:Ann", "21600"]);
    let ann = UserName::new("Ann").expect("a name");
    let kept = store.user(&ann).await.expect("it answers").expect("a user");
    assert_eq!(
        (&**kept.name.text(), &*kept.role, &*kept.password),
        ("Ann", "admin", "abc")
    );
    assert_eq!(server.ask(&["ttl", "users:ann"]), "-1");
    let other = UserName::new("ANN").expect("a name");
    assert_eq!(store.user(&other).await, Ok(Some(kept)));
    // As Python writes it, with blanks and without a node.
    let id = session(&ann, "x", now).head.id;
    let record = format!(
        r#"{{"user_id": "Ann", "chat_id": "c 1", "data": {{"conversation": [], "api_key": null}}, "created_at": {login}, "last_access": {login}}}"#
    );
    let key = format!("sessions:{id}");
    server.ask(&["set", &key, &record, "EX", "1800"]);
    let read = store
        .session(id, now)
        .await
        .expect("it answers")
        .expect("alive");
    assert_eq!((&*read.head.user, &*read.head.chat_id), ("Ann", "c 1"));
    let updated = store
        .update_session(update(&read, r#"{"api_key":"sk"}"#, now))
        .await;
    assert_eq!(updated, Ok(Updated::Done));
    let read = store
        .session(id, now)
        .await
        .expect("it answers")
        .expect("alive");
    let data: serde_json::Value = serde_json::from_str(&read.data).expect("an object");
    assert_eq!(
        data,
        serde_json::json!({"api_key": "sk", "conversation": []})
    );
    let heads = store.sessions("Ann", now).await.expect("it answers");
    assert_eq!(heads.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_merged_in_every_spelling() {
    let server = RedisServer::start_with(&["--save", ""]);
    let limits = SessionLimits {
        data_bytes_max: 100_000,
        ..LIMITS
    };
    let store = connected(&server, "", limits).await;
    let session = session(&name("ann"), "default", start());
    store.add_session(session.clone()).await.expect("added");
    for fields in [
        r#"{"a/b":1,"q\"\\":{"}":"]"},"n\u0000":[[],{}],"\u00e4":"\\"}"#,
        r#"{"\u0061\/b":2,"q\u0022\u005c":[],"n\u0000":null,"ä":"\"}"}"#,
    ] {
        let updated = store
            .update_session(update(&session, fields, start()))
            .await;
        assert_eq!(updated, Ok(Updated::Done), "{fields}");
    }
    let kept = store.session(session.head.id, start()).await;
    let kept = kept.expect("it answers").expect("alive").data;
    let data: serde_json::Value = serde_json::from_str(&kept).expect("an object");
    let expected = serde_json::json!({
        "a/b": 2, "q\"\\": [], "n\u{0}": null, "ä": "\"}", "api_key": null, "conversation": [],
    });
    assert_eq!(data, expected, "{kept}");
    assert_eq!(
        kept.matches("a/b").count() + kept.matches("a\\/b").count(),
        1,
        "{kept}"
    );
}

/// What an operator, or another system, may have left under a session's key: the server is not kept busy by it, and nobody is
/// told to try again.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_nobody_can_read_is_gone_and_makes_room() {
    let redis = OverRedis::new();
    let store = connected(&redis.server, "", LIMITS).await;
    for garbage in [
        "",
        "garbage",
        "[1]",
        "[",
        "{",
        "{}",
        " {",
        "{\"user_id\"",
        "{\"user_id\":5,\"created_at\":1,\"last_access\":1,\"data\":{}}",
        "{\"user_id\":\"ann\",\"created_at\":1,\"last_access\":1}",
        "{\"user_id\":\"ann\" \"last_access\":9000000000 \"data\":{}}",
        r#"{"user_id":"ann","chat_id":"default","created_at":1.000,"node":"x","last_access":9000000000.000,"data":{1}}"#,
        "{\"user_id\":\"\\ud800\",\"data\":",
        "\u{1}",
    ] {
        let (ann, now) = (name("ann"), start());
        let session = session(&ann, "default", now);
        store.add_session(session.clone()).await.expect("added");
        let (id, key) = (session.head.id, format!("sessions:{}", session.head.id));
        let garbage = &garbage.replace("ann", ann.text());
        redis.server.ask(&["SET", &key, garbage]);
        let found = store.session(id, now).await;
        assert_eq!(found, Ok(None), "{garbage}");
        // Commas may be mended by an update, which looks less closely.
        if !garbage.contains("9000000000") {
            check_gone(&store, &session, garbage).await;
        }
        // The conversation gets another one.
        let next = suite::session(&ann, "default", now);
        let chosen = store.choose_session(next.clone(), None).await;
        assert_eq!(chosen.expect(garbage).session.head.id, next.head.id);
        let _ = store.end_session(id).await;
        assert_eq!(store.end_session(id).await, Ok(false), "{garbage}");
    }
    let session = session(&name("ann"), "default", start());
    let key = format!("sessions:{}", session.head.id);
    redis.server.ask(&["LPUSH", &key, "1"]);
    check_gone(&store, &session, "a list").await;
    // Data of another kind can be read, and not be changed.
    for data in ["[1]", "5", "\"text\"", "[]", "null"] {
        let user = &session.head.user;
        let record =
            format!(r#"{{"user_id":"{user}","chat_id":"x","last_access":9e9,"data":{data}}}"#);
        redis.server.ask(&["SET", &key, &record]);
        let updated = store.update_session(update(&session, "{}", start())).await;
        assert_eq!(updated, Ok(Updated::Unreadable), "{data}");
        let kept = store.session(session.head.id, start()).await;
        assert_eq!(&*kept.expect(data).expect("a session").data, data);
    }
}

async fn check_gone(store: &RedisStore, session: &Session, garbage: &str) {
    let (id, now) = (session.head.id, start());
    assert_eq!(store.session(id, now).await, Ok(None), "{garbage}");
    let updated = store.update_session(update(session, "{}", now)).await;
    assert_eq!(updated, Ok(Updated::Missing), "{garbage}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_is_told_at_once_and_comes_back() {
    let mut server = RedisServer::start_with(&[
        "--save",
        "",
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
    ]);
    let store = connected(&server, "", LIMITS).await;
    let ann = name("ann");
    assert_eq!(store.add_user(user(&ann, start())).await, Ok(true));
    server.kill();
    let began = Instant::now();
    let answer = loop {
        let answer = store.user(&ann).await;
        assert!(began.elapsed() < Duration::from_secs(10), "{answer:?}");
        if answer == Err(StoreError::Unavailable) {
            break answer;
        }
    };
    assert_eq!(answer, Err(StoreError::Unavailable));
    server.start_again();
    ready(&store).await;
    assert!(store.user(&ann).await.expect("it answers").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn indices_end_with_the_sessions() {
    let server = RedisServer::start_with(&["--save", ""]);
    let store = connected(&server, "", LIMITS).await;
    let (ann, now) = (UserName::new("ann").expect("a name"), start());
    let old = now.before(LIMITS.timeout).after(seconds(1));
    store
        .add_session(session(&ann, "a", old))
        .await
        .expect("added");
    // They may outlast them by a sixteenth of the time-out.
    let most = i64::try_from(1000 + LIMITS.timeout.as_millis() / 16).expect("a short time");
    for key in ["idx:sessions:ann", "idx:heads:ann"] {
        let ttl: i64 = server.ask(&["pttl", key]).parse().expect("a number");
        assert!((0..=most).contains(&ttl), "{key}: {ttl}");
    }
}

/// A node that was killed told nobody of its sockets' end, and their users go on elsewhere, by which all that is kept of them
/// lasts.
#[tokio::test(flavor = "multi_thread")]
async fn sockets_end_with_their_process() {
    let server = RedisServer::start_with(&["--save", ""]);
    let killed = connected(&server, "", LIMITS).await;
    let other = connected(&server, "", LIMITS).await;
    let (ann, bob) = (name("ann"), name("bob"));
    let (lost, kept, bobs) = (
        connection(&ann, 0),
        connection(&ann, 5),
        connection(&bob, 0),
    );
    for (store, connection) in [(&other, &kept), (&killed, &lost), (&killed, &bobs)] {
        assert_eq!(store.connect(connection.clone()).await, Ok(()));
    }
    let now = lost.connected_at;
    let told = other.connections(ann.text(), now).await;
    assert_eq!(told, Ok(vec![lost.clone(), kept.clone()]));
    let shown = |user: &UserName, field| {
        let key = format!("connections:{}", user.text());
        server.ask(&["hget", &key, field])
    };
    assert_eq!(shown(&ann, "session_id"), lost.session.to_string());

    let later = now.after(LIFE_MAX).after(seconds(1));
    assert_eq!(other.beat(later).await, Ok(()));
    let told = other.connections(ann.text(), later).await;
    assert_eq!(told, Ok(vec![kept.clone()]));
    assert_eq!(shown(&ann, "session_id"), kept.session.to_string());
    assert_eq!(other.connections(bob.text(), later).await, Ok(Vec::new()));
    assert_eq!(shown(&bob, "ws_connected"), "");

    // It was only away from Redis.
    assert_eq!(killed.beat(later).await, Ok(()));
    let told = other.connections(ann.text(), later).await;
    assert_eq!(told, Ok(vec![lost.clone(), kept.clone()]));
    let told = other.connections(bob.text(), later).await;
    assert_eq!(told, Ok(vec![bobs]));
    assert_eq!(shown(&bob, "ws_connected"), "1");
    let key = format!("connections:{}", bob.text());
    assert_ne!(server.ask(&["pttl", &key]), "-1", "it ends without use");

    // Nobody has heard of it for days.
    let days = later.after(seconds(2 * 86_400));
    assert_eq!(other.beat(days).await, Ok(()));
    assert_eq!(
        other.connections(ann.text(), days).await,
        Ok(vec![kept.clone()])
    );
    let key = format!("idx:connections:{}", ann.text());
    assert_eq!(server.ask(&["hlen", &key]), "1");
    assert_eq!(server.ask(&["zcard", "idx:lives"]), "1");
    let gone = other.disconnect(ann.text(), kept.client, days).await;
    assert_eq!(gone, Ok(()));
    assert_eq!(shown(&ann, "ws_connected"), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn users_of_the_fastapi_gateway_become_users_like_any_other() {
    let server = RedisServer::start_with(&["--save", ""]);
    let names = ["Dora", "finn", "Ann", "ann", "odd*[name"];
    for name in names {
        let key = format!("users:{name}");
        server.ask(&[
            "hset",
            &key,
            "password",
            name,
            "role",
            "user",
            "last_login",
            "1.5e9",
        ]);
        server.ask(&["expire", &key, "21600"]);
    }
    server.ask(&["set", "users:text", "is no user"]);
    server.ask(&["hset", "users:hash", "is", "no user"]);
    let store = connected(&server, "", LIMITS).await;
    // One of the two whose names are the same to us stays where it is.
    assert_eq!(store.adopt_users().await, Ok(4));
    assert_eq!(store.adopt_users().await, Ok(0));
    let listed = store.users("", 10).await.expect("it answers");
    let listed: Vec<&str> = listed.iter().map(|user| &**user.name.text()).collect();
    assert!(listed.contains(&"Dora") && listed.contains(&"finn") && listed.contains(&"odd*[name"));
    assert_eq!(listed.len(), 4, "{listed:?}");
    let dora = UserName::new("dora").expect("a name");
    assert_eq!(
        store.add_user(user(&dora, start())).await,
        Ok(false),
        "it is hers"
    );
    assert_eq!(store.set_role(&dora, "admin").await, Ok(true));
    for key in ["users:dora", "users:finn"] {
        assert_eq!(server.ask(&["ttl", key]), "-1");
    }
    // From now on they have as long to log in as anybody.
    let swept = store.sweep(start(), start().before(seconds(60))).await;
    assert_eq!(swept.expect("it answers").users, Vec::new());
}

/// A listener of the FastAPI gateway's, on one server.
struct Ear(BufReader<TcpStream>);

impl Ear {
    fn of(server: &RedisServer) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", server.port())).expect("the server");
        let patience = Some(Duration::from_secs(10));
        stream.set_read_timeout(patience).expect("a time-out");
        let mut ear = Self(BufReader::new(stream));
        let stream = ear.0.get_mut();
        stream.write_all(b"PSUBSCRIBE events:*\r\n").expect("sent");
        ear.skip_to(":1");
        ear
    }

    /// Reads on until a line is this one.
    fn skip_to(&mut self, expected: &str) {
        let mut line = String::new();
        while line.trim_end() != expected {
            line.clear();
            let read = self.0.read_line(&mut line);
            assert_ne!(read.expect(expected), 0, "{expected}");
        }
    }
}

/// In a Cluster of version 7 or later what the scripts of channels publish is sharded; a pattern hears nothing of that.
#[tokio::test(flavor = "multi_thread")]
async fn listeners_on_any_member_of_a_cluster_hear_of_sessions_in_order() {
    let cluster = cluster();
    let store = connected_to(&cluster.url(), "", LIMITS).await;
    let mut ears: Vec<Ear> = cluster.members().map(Ear::of).collect();
    let session = session(&name("ann"), "default", start());
    let channel = |what| format!("events:session:{what}:{}", session.head.user);
    store.add_session(session.clone()).await.expect("added");
    store.announce(&channel("new"), "{}");
    let updated = update(&session, r#"{"api_key":"sk"}"#, start());
    assert_eq!(store.update_session(updated).await, Ok(Updated::Done));
    store.announce(&channel("logout"), "{}");
    let event = format!(
        r#"{{"gateway_id":"node-2","session_id":"{}","user_id":"{}"}}"#,
        session.head.id, session.head.user
    );
    assert_eq!(ears.len(), 3);
    for ear in &mut ears {
        for what in ["new", "update", "logout"] {
            ear.skip_to(&channel(what));
            if what == "update" {
                ear.skip_to(&event);
            }
        }
    }
}
