//! What a node listens to in Redis: that nothing counts as subscribed to which is not, and that each server's marks are its
//! own.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use fanfare::redis::{Address, Config, Listener, Redis, ServerId};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::redis_server::RedisServer;
use crate::redis_server::cluster::Cluster;
use crate::support::hub::SECRET;
use crate::support::sse::EventStream;
use crate::support::token::token;
use crate::support::ws::Socket;
use crate::support::{Hub, eventually, hub, within};

async fn node_over(redis: &RedisServer) -> Hub {
    let hub = hub(&[("REDIS_URL", &redis.url()), ("REDIS_KEY_PREFIX", "fanfare")]).await;
    hub.until_ready().await;
    hub
}

/// The connection that brings messages: which it is.
fn listening(redis: &RedisServer) -> String {
    let list = redis.ask(&["CLIENT", "LIST", "TYPE", "pubsub"]);
    let id = list.split_whitespace().next();
    id.expect("somebody listens").to_owned()
}

/// Takes something away from the node, lets it ask, and gives it back.
async fn check_asks_again(taken: &[&str], given: &[&str]) {
    let redis = RedisServer::start();
    let hub = node_over(&redis).await;
    let mut socket = Socket::open(&hub).await;
    socket.subscribe("known").await;
    let listens = listening(&redis);
    let set = |rules: &[&str]| {
        let words = [&["ACL", "SETUSER", "default"], rules].concat();
        assert_eq!(redis.ask(&words), "OK");
    };
    set(taken);
    let subscribe = json!({"type": "subscribe", "channel": "news"});
    socket.send(&subscribe).await;
    eventually("it is refused", async || {
        (!redis.ask(&["ACL", "LOG"]).is_empty()).then_some(())
    })
    .await;
    set(given);
    // Whoever is told that it cannot be had now asks again.
    let mut answer = socket.next().await;
    while answer["type"] == "error" {
        assert_eq!(answer["code"], "unavailable", "{answer}");
        answer = socket.ask(&subscribe).await;
    }
    assert_eq!(answer["type"], "subscribed", "{answer}");
    let channels = redis.ask(&["PUBSUB", "CHANNELS", "*news*"]);
    assert!(channels.contains("news"), "it is heard: {channels:?}");
    // No answer was taken for another, so that nothing had to be made anew.
    assert_eq!(listening(&redis), listens);
    hub.publish("news", &json!(1)).await;
    assert_eq!(socket.next_of("publication").await["data"], json!(1));
}

#[tokio::test]
async fn a_channel_that_may_not_be_heard_is_asked_for_until_it_may() {
    // What is listened to must stay allowed: Redis would end the connection.
    let own = ["&fanfare:marks:*", "&fanfare:{fleet}:*", "&*known*"];
    let taken = [["resetchannels"].as_slice(), &own].concat();
    check_asks_again(&taken, &["allchannels"]).await;
}

#[tokio::test]
async fn a_refused_mark_is_set_again() {
    check_asks_again(&["-publish"], &["+publish"]).await;
}

#[tokio::test]
async fn a_stream_opens_though_one_of_its_channels_ended_before_it_was_heard() {
    let redis = RedisServer::start();
    let hub = hub(&[
        ("REDIS_URL", &redis.url()),
        ("REDIS_KEY_PREFIX", "fanfare"),
        ("JWT_SECRET", SECRET),
    ])
    .await;
    hub.until_ready().await;
    let set = |rules: &[&str]| {
        let words = [&["ACL", "SETUSER", "default"], rules].concat();
        assert_eq!(redis.ask(&words), "OK");
    };
    let mut number = 0;
    // What comes too late on a busy machine is tried again: the broker has two seconds.
    eventually("a stream", async || {
        number += 1;
        let (gone, kept) = (format!("gone-{number}"), format!("kept-{number}"));
        let token = token(json!({"sub": "ann", "channels": [gone, kept]}));
        assert_eq!(redis.ask(&["ACL", "LOG", "RESET"]), "OK");
        set(&[
            "resetchannels",
            "&fanfare:marks:*",
            "&fanfare:{fleet}:*",
            "&*events*",
        ]);
        let path = format!("/sse/connect?channel={gone}&channel={kept}&token={token}");
        let opened = EventStream::open_at(&hub, &path, &[]);
        let ended = async {
            eventually("it is refused", async || {
                (!redis.ask(&["ACL", "LOG"]).is_empty()).then_some(())
            })
            .await;
            let order = json!({"user": "ann", "channel": gone});
            assert_eq!(hub.post("/hub/unsubscribe", &order).await.status, 200);
            eventually("it has ended", async || {
                let metrics = hub.get("/metrics").await.text;
                let mut lines = metrics.lines();
                let ended =
                    |line: &str| line.starts_with("fanfare_subscriptions") && line.ends_with(" 1");
                lines.any(ended).then_some(())
            })
            .await;
            set(&["allchannels"]);
        };
        let (mut stream, ()) = tokio::join!(opened, ended);
        if stream.connected.event.as_deref() != Some("connected") {
            return None;
        }
        hub.publish(&kept, &json!(7)).await;
        let event = stream.event().await.json();
        assert_eq!(
            (&event["channel"], &event["data"]),
            (&json!(kept), &json!(7))
        );
        Some(())
    })
    .await;
}

/// Notes the marks that come back.
#[derive(Default)]
struct Marks(Mutex<Vec<(ServerId, u64)>>);

impl Marks {
    fn has(&self, mark: (ServerId, u64)) -> bool {
        self.all().contains(&mark)
    }

    fn all(&self) -> Vec<(ServerId, u64)> {
        self.0.lock().expect("no panic").clone()
    }
}

impl Listener for Marks {
    fn moved(&self) {}
    fn connected(&self, _: ServerId) {}
    fn lost(&self, _: ServerId) {}
    fn message(&self, _: ServerId, _: &str, _: Bytes) {}
    fn passed(&self, server: ServerId, mark: u64) {
        self.0.lock().expect("no panic").push((server, mark));
    }
    fn changed(&self, _: bool) {}
}

/// Waits until a member has brought all of these marks to whoever listens there.
async fn until_brought(mut listening: TcpStream, marks: &[u64]) {
    let mut text = String::new();
    let mut piece = [0; 4096];
    while !marks
        .iter()
        .all(|mark| text.contains(&format!(":{mark}\r\n")))
    {
        let count = within("marks", listening.read(&mut piece)).await;
        let count = count.expect("it stands");
        assert!(count > 0, "it ended: {text}");
        text.push_str(std::str::from_utf8(&piece[..count]).expect("text"));
    }
}

#[tokio::test]
async fn the_marks_of_one_master_are_not_taken_for_anothers() {
    let cluster = Cluster::start(false, false);
    let config = Config {
        address: Address::parse(&cluster.url()).expect("an address"),
        prefix: "test".to_owned(),
        ready_grace: Duration::ZERO,
        wait_replicas: 0,
        ca_file: None,
    };
    let redis = Redis::new(&config, "test:marks".to_owned(), &[]).expect("a thread");
    let heard = Arc::new(Marks::default());
    redis.listen(heard.clone());
    eventually("connected", async || {
        (redis.servers().len() == 3 && redis.is_connected()).then_some(())
    })
    .await;
    let mut others = Vec::new();
    for member in cluster.members() {
        let other = TcpStream::connect(("127.0.0.1", member.port())).await;
        let mut other = other.expect("it listens");
        other
            .write_all(b"SUBSCRIBE test:marks\r\n")
            .await
            .expect("it is read");
        let mut confirmed = [0; 64];
        let count = other.read(&mut confirmed).await.expect("it stands");
        assert!(confirmed[..count].starts_with(b"*3\r\n$9\r\nsubscribe"));
        others.push(other);
    }
    let set = async |server: ServerId, mark: u64| {
        let nothing = Vec::new;
        let asked = redis.subscribe(server, nothing(), nothing(), mark).await;
        asked.expect("it stands");
        eventually("the mark", async || heard.has((server, mark)).then_some(())).await;
    };
    let mut own = Vec::new();
    for (server, mark) in redis.servers().into_iter().zip(1..) {
        set(server, mark).await;
        own.push((server, mark));
    }
    for other in others {
        until_brought(other, &[1, 2, 3]).await;
    }
    // What came from another master stands before these.
    for (server, mark) in redis.servers().into_iter().zip(11..) {
        set(server, mark).await;
        own.push((server, mark));
    }
    assert_eq!(heard.all(), own);
}
