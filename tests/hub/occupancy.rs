//! Channels that become occupied and vacant, told once for the whole fleet: by webhooks, and in the stream.

use serde_json::{Value, json};

use crate::events::Receiver;
use crate::redis_server::RedisServer;
use crate::support::hub::SECRET;
use crate::support::ws::Socket;
use crate::support::{Hub, eventually, hub};

const OF_CHANNELS: (&str, &str) = ("WEBHOOK_EVENTS", "channel_occupied,channel_vacated");

/// Two nodes that tell one receiver.
struct Fleet {
    redis: RedisServer,
    receiver: Receiver,
    nodes: Vec<Hub>,
}

impl Fleet {
    async fn start() -> Self {
        let (redis, receiver) = (RedisServer::start(), Receiver::start().await);
        let url = redis.url();
        let variables = [
            ("REDIS_URL", url.as_str()),
            ("DRAIN_SECONDS", "0"),
            OF_CHANNELS,
        ];
        let nodes = vec![
            receiver.hub(&variables).await,
            receiver.hub(&variables).await,
        ];
        Self {
            redis,
            receiver,
            nodes,
        }
    }

    /// A subscriber at one of the nodes.
    async fn enter(&self, node: usize, channel: &str) -> Socket {
        let mut socket = Socket::open_as(&self.nodes[node], &token()).await;
        socket.subscribe(channel).await;
        socket
    }

    /// What was told of a channel: words, and the part of the ids that stays the same.
    fn told(&self, channel: &str) -> Vec<(String, String)> {
        of(channel, &self.receiver.events(200))
    }

    /// Waits until as many changes of a channel were told; there are no more, for what is told of another channel comes behind.
    async fn expect(&self, channel: &str, words: &[&str]) -> Vec<String> {
        let told = eventually(&format!("{channel}: {words:?}"), async || {
            let told = self.told(channel);
            (told.len() >= words.len()).then_some(told)
        })
        .await;
        let (told, lives): (Vec<String>, Vec<String>) = told.into_iter().unzip();
        assert_eq!(told, words, "{channel}");
        lives
    }

    /// How many nodes have subscribers of a channel, as Redis knows it.
    async fn until_occupied_by(&self, channel: &str, nodes: usize) {
        let key = format!("fanfare:{{|{channel}}}:occupants");
        eventually(&format!("{channel} is occupied by {nodes}"), async || {
            // Three fields are of the channel itself.
            (self.redis.ask(&["HLEN", &key]) == (nodes + 3).to_string()).then_some(())
        })
        .await;
    }
}

fn token() -> String {
    crate::support::token::token_of("ann")
}

fn of(channel: &str, events: &[Value]) -> Vec<(String, String)> {
    let of_channel = events.iter().filter(|event| event["channel"] == channel);
    of_channel
        .map(|event| {
            let word = event["event"].as_str().expect("a word");
            let id = event["id"].as_str().expect("an id");
            let life = id.strip_suffix(&format!("-{word}"));
            (
                word.to_owned(),
                life.expect("an id of the fleet").to_owned(),
            )
        })
        .collect()
}

const OCCUPIED: &str = "channel_occupied";
const VACATED: &str = "channel_vacated";

#[tokio::test]
async fn a_channel_is_occupied_once_and_vacated_once_however_many_nodes_have_it() {
    let fleet = Fleet::start().await;
    let first = fleet.enter(0, "news").await;
    fleet.until_occupied_by("news", 1).await;
    let second = fleet.enter(1, "news").await;
    fleet.until_occupied_by("news", 2).await;
    first.close().await;
    fleet.until_occupied_by("news", 1).await;
    // What was told before this has come.
    let _marker = fleet.enter(0, "marker").await;
    fleet.expect("marker", &[OCCUPIED]).await;
    fleet.expect("news", &[OCCUPIED]).await;
    second.close().await;
    let lives = fleet.expect("news", &[OCCUPIED, VACATED]).await;
    assert_eq!(lives[0], lives[1], "both are of one life");
    // Another life has another name.
    let _third = fleet.enter(0, "news").await;
    let lives = fleet.expect("news", &[OCCUPIED, VACATED, OCCUPIED]).await;
    assert_ne!(lives[0], lives[2]);
}

#[tokio::test]
async fn who_comes_back_at_once_has_not_left() {
    let fleet = Fleet::start().await;
    for _ in 0..3 {
        let socket = fleet.enter(0, "news").await;
        fleet.until_occupied_by("news", 1).await;
        socket.close().await;
    }
    fleet.expect("news", &[OCCUPIED, VACATED]).await;
}

#[tokio::test]
async fn the_channels_of_a_killed_node_are_vacated_once() {
    let mut fleet = Fleet::start().await;
    let _shared = fleet.enter(0, "shared").await;
    fleet.until_occupied_by("shared", 1).await;
    let _lost = [fleet.enter(1, "shared").await, fleet.enter(1, "own").await];
    fleet.until_occupied_by("shared", 2).await;
    fleet.expect("own", &[OCCUPIED]).await;
    // The end of the value is a SIGKILL.
    drop(fleet.nodes.pop());
    let lives = fleet.expect("own", &[OCCUPIED, VACATED]).await;
    assert_eq!(lives[0], lives[1]);
    fleet.until_occupied_by("shared", 1).await;
    let _marker = fleet.enter(0, "marker").await;
    fleet.expect("marker", &[OCCUPIED]).await;
    fleet.expect("own", &[OCCUPIED, VACATED]).await;
    fleet.expect("shared", &[OCCUPIED]).await;
}

#[tokio::test]
async fn who_was_given_up_and_is_back_has_begun_anew() {
    let fleet = Fleet::start().await;
    let _stays = fleet.enter(1, "own").await;
    fleet.expect("own", &[OCCUPIED]).await;
    // Not before it has read the answer: it would tell the same again, and rightly.
    let line = r#"fanfare_events_total{way="webhook",outcome="told"}"#;
    eventually("the node knows that it was taken", async || {
        (fleet.nodes[1].metric(line).await == 1.0).then_some(())
    })
    .await;
    fleet.nodes[1].stop();
    fleet.expect("own", &[OCCUPIED, VACATED]).await;
    fleet.nodes[1].go_on();
    let lives = fleet.expect("own", &[OCCUPIED, VACATED, OCCUPIED]).await;
    assert_eq!(lives[0], lives[1]);
    assert_ne!(lives[0], lives[2]);
    fleet.until_occupied_by("own", 1).await;
}

#[tokio::test]
async fn a_node_that_drains_vacates_what_it_had() {
    let mut fleet = Fleet::start().await;
    let _lost = fleet.enter(1, "own").await;
    fleet.expect("own", &[OCCUPIED]).await;
    let mut leaving = fleet.nodes.pop().expect("a node");
    leaving.terminate();
    assert_eq!(leaving.exit_code().await, Some(0));
    fleet.expect("own", &[OCCUPIED, VACATED]).await;
    assert_eq!(fleet.redis.ask(&["KEYS", "*occupied:*"]), "");
}

#[tokio::test]
async fn what_redis_lost_is_brought_back_and_nothing_has_begun() {
    let fleet = Fleet::start().await;
    let sockets = [fleet.enter(0, "news").await, fleet.enter(1, "news").await];
    fleet.until_occupied_by("news", 2).await;
    fleet.redis.ask(&["FLUSHALL"]);
    fleet.until_occupied_by("news", 2).await;
    for socket in sockets {
        socket.close().await;
    }
    let lives = fleet.expect("news", &[OCCUPIED, VACATED]).await;
    assert_eq!(lives[0], lives[1]);
}

#[tokio::test]
async fn a_change_that_is_told_again_has_the_same_id() {
    let redis = RedisServer::start();
    let (receiver, url) = (Receiver::start().await, redis.url());
    receiver.answer(&[503, 503]);
    let hub = receiver
        .hub(&[("REDIS_URL", url.as_str()), OF_CHANNELS])
        .await;
    let mut socket = Socket::open_as(&hub, &token()).await;
    socket.subscribe("news").await;
    let taken = eventually("it is taken", async || {
        let taken = of("news", &receiver.events(200));
        (!taken.is_empty()).then_some(taken)
    })
    .await;
    let refused = of("news", &receiver.events(503));
    assert_eq!(refused, [&taken[..], &taken[..]].concat());
}

#[tokio::test]
async fn a_consumer_group_reads_what_all_nodes_tell_and_channels_once() {
    let redis = RedisServer::start_with(&["--save", ""]);
    let url = redis.url();
    let variables = [
        ("REDIS_URL", url.as_str()),
        ("EVENT_STREAM", "true"),
        ("JWT_SECRET", SECRET),
    ];
    let hubs = [hub(&variables).await, hub(&variables).await];
    redis.ask(&[
        "XGROUP",
        "CREATE",
        "fanfare:events",
        "back-end",
        "0",
        "MKSTREAM",
    ]);
    for hub in &hubs {
        let mut socket = Socket::open_as(hub, &token()).await;
        socket.subscribe("news").await;
        let unsubscribe = json!({"type": "unsubscribe", "channel": "news"});
        assert_eq!(socket.ask(&unsubscribe).await["type"], "unsubscribed");
        socket.close().await;
    }
    eventually("both visits", async || {
        (redis.ask(&["XLEN", "fanfare:events"]) == "10").then_some(())
    })
    .await;
    let group = ["XREADGROUP", "GROUP", "back-end", "one", "COUNT", "100"];
    let read = redis.ask(&[&group[..], &["STREAMS", "fanfare:events", ">"]].concat());
    for (word, times) in [
        ("connect", 2),
        ("subscribe", 2),
        (OCCUPIED, 1),
        ("unsubscribe", 2),
        (VACATED, 1),
        ("disconnect", 2),
    ] {
        let told = format!(r#""event":"{word}""#);
        // redis-cli may show quotes with a backslash before them.
        let read = read.replace('\\', "");
        assert_eq!(read.matches(&told).count(), times, "{word} in {read}");
    }
}
