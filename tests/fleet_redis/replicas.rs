//! `REDIS_WAIT_REPLICAS`: whoever publishes is answered when replicas have it, or told that they have not.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::node;
use crate::redis_server::RedisServer;
use crate::redis_server::cluster::Cluster;
use crate::support::http::Answer;
use crate::support::ws::Socket;
use crate::support::{Hub, eventually, hub};

const ONE: &[(&str, &str)] = &[("REDIS_WAIT_REPLICAS", "1")];

fn master_and_replica() -> (RedisServer, RedisServer) {
    let (master, replica) = (RedisServer::start(), RedisServer::start());
    replica.follow(&master);
    (master, replica)
}

fn expect_unknown(answer: &Answer) {
    answer.expect_error(503, "broker_unavailable");
    assert_eq!(answer.json()["outcome"], "unknown", "{answer:?}");
    assert!(answer.header("retry-after").is_some());
}

/// Publishes until it is acknowledged, and answers that.
async fn acknowledged(hub: &Hub, path: &str, body: &Value) -> Value {
    eventually("it is acknowledged", async || {
        let answer = hub.post(path, body).await;
        (answer.status == 200).then(|| answer.json())
    })
    .await
}

/// The offset of a number that was published, once, and acknowledged.
async fn published(hub: &Hub, channel: &str, data: u64) -> u64 {
    let key = data.to_string();
    let publish = json!({"channel": channel, "data": data, "idempotency_key": key});
    let answer = acknowledged(hub, "/hub/publish", &publish).await;
    answer["offset"].as_u64().expect("an offset")
}

/// How often a server was asked to wait.
fn waits(redis: &RedisServer) -> u64 {
    let info = redis.ask(&["INFO", "commandstats"]);
    let calls = info
        .lines()
        .find_map(|line| line.strip_prefix("cmdstat_wait:calls="));
    calls.map_or(0, |calls| {
        let (count, _) = calls.split_once(',').expect("more about it");
        count.parse().expect("a count")
    })
}

#[tokio::test]
async fn what_too_few_replicas_have_is_not_acknowledged_until_they_have_it() {
    let (master, replica) = master_and_replica();
    let live = "[namespaces.live]\nhistory.size = 0";
    let (hub, other) = (
        node(&master, 0, live, ONE).await,
        node(&master, 1, live, ONE).await,
    );
    let mut socket = Socket::open(&other).await;
    socket.subscribe("news").await;
    assert_eq!(published(&hub, "news", 1).await, 1);
    assert_eq!(replica.ask(&["XLEN", "fanfare:{|news}:stream"]), "1");

    replica.stop();
    let publish = json!({"channel": "news", "data": 2, "idempotency_key": "two"});
    let began = Instant::now();
    expect_unknown(&hub.post("/hub/publish", &publish).await);
    // The promise of the interface, with a second for a busy machine.
    assert!(began.elapsed() < Duration::from_secs(2) + Duration::from_secs(1));
    // It was published, and no node says anything else of it.
    assert_eq!(socket.numbers(0, 2).await, [1, 2]);
    expect_unknown(&other.post("/hub/publish", &publish).await);
    let mut publisher = Socket::open(&other).await;
    let told = publisher
        .ask(&json!({"type": "publish", "channel": "news", "data": 3}))
        .await;
    assert_eq!(told["code"], "broker_unavailable", "{told}");
    // Where nothing is kept nothing can be lost.
    hub.publish("live:a", &json!(1)).await;

    replica.go_on();
    for hub in [&hub, &other] {
        let answer = acknowledged(hub, "/hub/publish", &publish).await;
        assert_eq!(answer["offset"], 2, "{answer}");
    }
    assert_eq!(replica.ask(&["XLEN", "fanfare:{|news}:stream"]), "3");
    assert_eq!(published(&hub, "news", 4).await, 4);
    assert_eq!(socket.numbers(2, 2).await, [3, 4]);
}

#[tokio::test]
async fn what_is_published_together_waits_once() {
    let (master, replica) = master_and_replica();
    let hub = node(&master, 0, "", ONE).await;
    let publications: Vec<_> = (0..300)
        .map(|number| json!({"channel": format!("c{number}"), "data": number}))
        .collect();
    let before = waits(&master);
    let batch = json!({"publications": publications});
    let mut attempts = 0;
    eventually("it is acknowledged", async || {
        attempts += 1;
        let answer = hub.post("/hub/batch", &batch).await;
        (answer.status == 200).then_some(())
    })
    .await;
    assert_eq!(waits(&master), before + attempts);

    // Those that come while one waits wait together. Its answer comes half a second after the master asks the replica.
    replica.stop();
    let before = waits(&master);
    let mut socket = Socket::open(&hub).await;
    let count = 50;
    let publish = |id| json!({"type": "publish", "channel": "news", "data": id, "id": id});
    let all: Vec<_> = (0..count).map(publish).collect();
    socket.send_all(&all).await;
    for id in 0..count {
        let answer = socket.next_of("error").await;
        assert_eq!(answer["id"], id, "{answer}");
    }
    let rounds = waits(&master) - before;
    assert!(rounds <= 10, "{rounds}");
    replica.go_on();
}

#[tokio::test]
async fn nobody_waits_who_is_not_told_to() {
    let (master, _replica) = master_and_replica();
    let hub = node(&master, 0, "", &[]).await;
    hub.publish("news", &json!(1)).await;
    assert_eq!(waits(&master), 0);
}

#[tokio::test]
async fn each_master_of_a_cluster_waits_for_its_own_replicas() {
    let cluster = Cluster::start(true, false);
    let url = cluster.url();
    let hub = hub(&[("REDIS_URL", url.as_str()), ONE[0]]).await;
    let batch = |data: u64| {
        let publication = |number| {
            let key = format!("{number}-{data}");
            json!({"channel": format!("c{number}"), "data": data, "idempotency_key": key})
        };
        let all: Vec<_> = (0..24).map(publication).collect();
        json!({"publications": all})
    };
    let offsets = async |data| {
        eventually("all have it", async || {
            let answer = acknowledged(&hub, "/hub/batch", &batch(data)).await;
            let results = answer["results"].as_array().expect("results").iter();
            let offsets: Option<Vec<u64>> = results.map(|it| it["offset"].as_u64()).collect();
            offsets
        })
        .await
    };
    assert_eq!(offsets(1).await, [1; 24]);

    let is_replica = |server: &&RedisServer| server.ask(&["ROLE"]).starts_with("slave");
    let replicas: Vec<_> = cluster.members().filter(is_replica).collect();
    assert_eq!(replicas.len(), 3);
    replicas.iter().for_each(|replica| replica.stop());
    expect_unknown(&hub.post("/hub/batch", &batch(2)).await);
    replicas.iter().for_each(|replica| replica.go_on());
    assert_eq!(offsets(2).await, [2; 24]);

    // A slot that has moved: the master that has it now waits, too.
    cluster.move_slot_of("fanfare:{|c7}:meta");
    assert_eq!(published(&hub, "c7", 3).await, 3);
}
