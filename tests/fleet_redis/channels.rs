//! Publications, history and recovery: the same channel on every node.

use serde_json::json;

use crate::support::sse::EventStream;
use crate::support::ws::{Socket, position};
use crate::{Fleet, RedisServer, node};

pub(crate) const NOTHING_KEPT: &str = "[namespaces.live]\nhistory.size = 0";

#[tokio::test]
async fn what_one_node_takes_every_node_delivers() {
    let fleet = Fleet::start(2).await;
    let [one, other] = [&fleet.nodes[0], &fleet.nodes[1]];
    let mut socket = Socket::open(other).await;
    socket.subscribe("news").await;
    let mut packed = Socket::open_packed(one).await;
    packed.subscribe("news").await;
    let mut stream = EventStream::open(other, "channel=news", &[]).await;
    for number in 1..=20_u64 {
        let node = &fleet.nodes[usize::from(number % 2 == 0)];
        assert_eq!(node.publish("news", &json!(number)).await, number);
    }
    let expected: Vec<u64> = (1..=20).collect();
    assert_eq!(socket.numbers(0, 20).await, expected);
    assert_eq!(packed.numbers(0, 20).await, expected);
    for number in expected {
        assert_eq!(stream.event().await.json()["data"], number);
    }
}

#[tokio::test]
async fn a_publication_goes_only_to_nodes_that_want_it() {
    let fleet = Fleet::start(3).await;
    let mut socket = Socket::open(&fleet.nodes[1]).await;
    socket.subscribe("news").await;
    let heard = |channel: &str| {
        let name = format!("fanfare:{{|{channel}}}:envelopes");
        fleet.redis.ask(&["PUBSUB", "NUMSUB", &name])
    };
    assert!(heard("news").ends_with('1'), "{}", heard("news"));
    assert!(heard("other").ends_with('0'), "{}", heard("other"));
}

#[tokio::test]
async fn a_client_goes_on_at_another_node() {
    let fleet = Fleet::start(2).await;
    let [one, other] = [&fleet.nodes[0], &fleet.nodes[1]];
    let mut socket = Socket::open(one).await;
    let start = position(&socket.subscribe("news").await);
    let mut stream = EventStream::open(one, "channel=news&channel=more", &[]).await;
    one.publish("news", &json!(1)).await;
    assert_eq!(socket.numbers(0, 1).await, [1]);
    assert_eq!(stream.event().await.json()["data"], 1);
    let seen = json!({"epoch": start["epoch"], "offset": 1});
    let id = stream.id().to_owned();
    drop((socket, stream));
    for number in 2..=50_u64 {
        one.publish("news", &json!(number)).await;
    }
    let mut socket = Socket::open(other).await;
    let subscribed = socket.recover("news", &seen).await;
    assert_eq!(subscribed["recovered"], true, "{subscribed}");
    let expected: Vec<u64> = (2..=50).collect();
    assert_eq!(socket.numbers(1, 49).await, expected);
    let mut stream = EventStream::resume(other, "channel=news&channel=more", &id).await;
    for number in expected {
        assert_eq!(stream.event().await.json()["data"], number);
    }
}

#[tokio::test]
async fn history_and_idempotency_are_of_the_fleet() {
    let fleet = Fleet::start(2).await;
    let [one, other] = [&fleet.nodes[0], &fleet.nodes[1]];
    let body = json!({"channel": "news", "data": 1, "idempotency_key": "k"});
    let first = one.post("/hub/publish", &body).await.json();
    let again = other.post("/hub/publish", &body).await.json();
    assert_eq!(first["offset"], 1);
    assert_eq!(
        (&first["offset"], &first["epoch"]),
        (&again["offset"], &again["epoch"])
    );
    let history = other.get("/hub/channels/news/history").await.json();
    assert_eq!(history["publications"].as_array().map(Vec::len), Some(1));
}

/// A key of a channel that is gone (evicted, deleted by hand) comes back with the next publication: with an end, too.
#[tokio::test]
async fn what_comes_back_after_a_loss_has_an_end() {
    let fleet = Fleet::start(1).await;
    let node = &fleet.nodes[0];
    node.publish("news", &json!(1)).await;
    for (offset, what) in [(2, "stream"), (3, "position")] {
        let key = format!("fanfare:{{|news}}:{what}");
        assert_eq!(fleet.redis.ask(&["DEL", &key]), "1");
        assert_eq!(node.publish("news", &json!(offset)).await, offset);
        let left: i64 = fleet.redis.ask(&["PTTL", &key]).parse().expect("a number");
        assert!(left > 0, "{what}: {left}");
    }
    let history = node.get("/hub/channels/news/history").await.json();
    let kept = history["publications"].as_array().expect("an array");
    let offsets: Vec<_> = kept
        .iter()
        .filter_map(|kept| kept["offset"].as_u64())
        .collect();
    assert_eq!(offsets, [2, 3]);
}

/// A channel that is only listened to leaves little behind, and whoever comes to one finds it with a life before it.
#[tokio::test]
async fn what_numbers_a_channel_lives_as_long_as_it_is_needed() {
    let fleet = Fleet::start(2).await;
    let key = |what: &str| format!("fanfare:{{|news}}:{what}");
    let expect_left = |seconds: std::ops::RangeInclusive<u64>| {
        for what in ["meta", "position"] {
            let left = fleet.redis.ask(&["TTL", &key(what)]);
            let left: u64 = left.parse().expect("seconds");
            assert!(seconds.contains(&left), "{what}: {left}");
        }
    };
    let shorten = || {
        for what in ["meta", "position"] {
            assert_eq!(fleet.redis.ask(&["EXPIRE", &key(what), "60"]), "1");
        }
    };
    // An hour longer than publications would be kept; a day once there were any.
    let (empty, used) = (3800..=3900, 86_300..=86_400);
    let mut one = Socket::open(&fleet.nodes[0]).await;
    one.subscribe("news").await;
    expect_left(empty.clone());
    shorten();
    let mut other = Socket::open(&fleet.nodes[1]).await;
    other.subscribe("news").await;
    expect_left(empty);
    fleet.nodes[0].publish("news", &json!(1)).await;
    expect_left(used.clone());
    shorten();
    let stats = fleet.nodes[1].get("/hub/channels/news/stats").await;
    assert_eq!(stats.json()["offset"], 1);
    expect_left(used);
}

/// What is published is heard by the subscribers of all databases of a server.
#[tokio::test]
async fn another_database_is_another_fleet() {
    let redis = RedisServer::start();
    let url = format!("{}/1", redis.url());
    let one = node(&redis, 0, NOTHING_KEPT, &[]).await;
    let other = node(&redis, 0, NOTHING_KEPT, &[("REDIS_URL", &url)]).await;
    let mut clients = [Socket::open(&one).await, Socket::open(&other).await];
    for client in &mut clients {
        let watch = json!({"type": "subscribe", "channel": "live:news", "presence": true});
        client.ask(&watch).await;
        // Its own comes back through Redis. Another one's would be told as well.
        let join = client.next_of("join").await;
        assert_eq!(join["client"], client.client());
    }
    for (hub, words) in [(&other, "of the other"), (&one, "of one")] {
        let publish = json!({"channel": "live:news", "data": words});
        assert_eq!(hub.post("/hub/publish", &publish).await.status, 200);
    }
    let [of_one, of_other] = &mut clients;
    assert_eq!(of_one.next_of("publication").await["data"], "of one");
    assert_eq!(
        of_other.next_of("publication").await["data"],
        "of the other"
    );
    let order = json!({"client": of_one.client()});
    assert_eq!(other.post("/hub/disconnect", &order).await.status, 200);
    assert_eq!(
        one.post("/hub/disconnect", &json!({"client": of_other.client()}))
            .await
            .status,
        200
    );
    for client in &mut clients {
        client.expect_quiet().await;
    }
}
