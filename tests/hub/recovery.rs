//! Coming back: what was missed, in order and once, or the plain word that it is lost.

use serde_json::{Value, json};

use crate::support::ws::{Socket, position};
use crate::support::{Hub, eventually, hub, hub_with};

const LONG: &str = "[namespaces.default]\nhistory = { size = 10000, ttl = \"5m\" }\n";

/// The position that is `offset` in the epoch of `channel`.
async fn at(hub: &Hub, channel: &str, offset: u64) -> Value {
    let stats = hub.get(&format!("/hub/channels/{channel}/stats")).await;
    json!({"epoch": stats.json()["epoch"], "offset": offset})
}

#[tokio::test]
async fn missed_publications_come_in_order_and_then_live_ones() {
    let hub = hub(&[]).await;
    let mut socket = Socket::open(&hub).await;
    socket.subscribe("news").await;
    hub.publish_numbers("news", 0..3).await;
    assert_eq!(socket.numbers(0, 3).await, [0, 1, 2]);
    drop(socket);
    hub.publish_numbers("news", 3..10).await;
    let asked = at(&hub, "news", 3).await;
    for mut socket in [Socket::open(&hub).await, Socket::open_packed(&hub).await] {
        let subscribed = socket.recover("news", &asked).await;
        assert_eq!(subscribed["recovered"], true);
        // Where it stands until the missed ones have come.
        assert_eq!(position(&subscribed), asked);
        let top = at(&hub, "news", 0).await;
        assert_eq!(top["epoch"], asked["epoch"]);
        let last = hub.publish("news", &json!(10)).await;
        let numbers = socket.numbers(3, last - 3).await;
        assert_eq!(numbers[..8], [3, 4, 5, 6, 7, 8, 9, 10]);
        socket.expect_quiet().await;
    }
}

#[tokio::test]
async fn who_missed_nothing_is_recovered_too() {
    let hub = hub(&[]).await;
    let mut socket = Socket::open_packed(&hub).await;
    let nothing_yet = at(&hub, "new", 0).await;
    let subscribed = socket.subscribe("new").await;
    assert_eq!(subscribed["offset"], 0);
    assert!(
        nothing_yet["epoch"].is_null() || nothing_yet["epoch"] == subscribed["epoch"],
        "{nothing_yet}"
    );
    drop(socket);
    let mut socket = Socket::open(&hub).await;
    let again = socket.recover("new", &position(&subscribed)).await;
    assert_eq!(again["recovered"], true, "{again}");
    hub.publish("new", &json!(1)).await;
    assert_eq!(socket.numbers(0, 1).await, [1]);
}

#[tokio::test]
async fn more_than_a_page_comes_while_publishing_goes_on() {
    // A queue that holds a fraction of what was missed.
    let hub = hub_with(LONG, &[("WS_MAX_BUFFERED_BYTES", "70000")]).await;
    hub.publish_numbers("busy", 0..5000).await;
    let start = at(&hub, "busy", 0).await;
    let publish = async {
        for n in 5000..6000 {
            hub.publish("busy", &json!(n)).await;
        }
    };
    let read = async |mut socket: Socket| {
        let subscribed = socket.recover("busy", &start).await;
        assert_eq!(subscribed["recovered"], true);
        assert_eq!(socket.numbers(0, 6000).await, (0..6000).collect::<Vec<_>>());
        socket.expect_alive().await;
    };
    let (json, packed) = (Socket::open(&hub).await, Socket::open_packed(&hub).await);
    tokio::join!(publish, read(json), read(packed));
}

#[tokio::test]
async fn who_is_cut_off_in_the_middle_goes_on_from_there() {
    const ALL: u64 = 4000;
    let hub = hub_with(LONG, &[("WS_MAX_BUFFERED_BYTES", "70000")]).await;
    hub.publish_numbers("busy", 0..2000).await;
    let mut asked = at(&hub, "busy", 0).await;
    let publish = async {
        for n in (2000..ALL).step_by(20) {
            hub.publish_numbers("busy", n..n + 20).await;
        }
    };
    let read = async {
        let mut got = Vec::new();
        while (got.len() as u64) < ALL {
            let mut socket = Socket::open(&hub).await;
            let subscribed = socket.recover("busy", &asked).await;
            assert_eq!(subscribed["recovered"], true);
            assert_eq!(position(&subscribed), asked);
            let after = asked["offset"].as_u64().expect("an offset");
            let count = 333.min(ALL - after);
            got.extend(socket.numbers(after, count).await);
            asked["offset"] = json!(after + count);
            // Cut without a word.
        }
        assert_eq!(got, (0..ALL).collect::<Vec<_>>());
    };
    tokio::join!(publish, read);
}

#[tokio::test]
async fn what_was_trimmed_is_lost_and_said_so() {
    let hub = hub_with(
        "[namespaces.default]\nhistory = { size = 10, ttl = \"5m\" }\n",
        &[],
    )
    .await;
    hub.publish_numbers("short", 0..20).await;
    for (offset, recovered) in [(9, false), (10, true), (20, true), (21, false)] {
        let mut socket = Socket::open(&hub).await;
        let asked = at(&hub, "short", offset).await;
        let subscribed = socket.recover("short", &asked).await;
        assert_eq!(subscribed["recovered"], recovered, "from {offset}");
        if recovered {
            assert_eq!(position(&subscribed), asked);
            socket.numbers(offset, 20 - offset).await;
        } else {
            assert_eq!(subscribed["offset"], 20, "where the stream stands");
        }
        socket.expect_quiet().await;
    }
}

#[tokio::test]
async fn what_has_expired_is_lost_and_said_so() {
    let hub = hub_with(
        "[namespaces.default]\nhistory = { size = 10, ttl = \"300ms\" }\n",
        &[],
    )
    .await;
    hub.publish_numbers("old", 0..5).await;
    let (start, top) = (at(&hub, "old", 0).await, at(&hub, "old", 5).await);
    eventually("the history expires", async || {
        let history = hub.get("/hub/channels/old/history").await.json();
        (history["publications"] == json!([])).then_some(())
    })
    .await;
    let mut socket = Socket::open(&hub).await;
    let subscribed = socket.recover("old", &start).await;
    assert_eq!(subscribed["recovered"], false);
    assert_eq!(position(&subscribed), top);
    let mut other = Socket::open(&hub).await;
    assert_eq!(other.recover("old", &top).await["recovered"], true);
    hub.publish("old", &json!(6)).await;
    for socket in [&mut socket, &mut other] {
        assert_eq!(socket.numbers(5, 1).await, [6]);
    }
}

#[tokio::test]
async fn a_position_of_nowhere_is_not_recovered() {
    let hub = hub(&[]).await;
    hub.publish_numbers("news", 0..3).await;
    let top = at(&hub, "news", 3).await;
    let epoch = &top["epoch"];
    let nowhere = [
        json!({"epoch": "", "offset": 3}),
        json!({"epoch": null, "offset": 3}),
        json!({"epoch": "AAAAAAAAAAAAAAAAAAAAAA", "offset": 3}),
        json!({"epoch": "no epoch at all, and far too long to be one", "offset": 0}),
        json!({"epoch": epoch, "offset": 4}),
        json!({"epoch": epoch, "offset": u64::MAX}),
    ];
    for asked in nowhere {
        let mut socket = Socket::open(&hub).await;
        let subscribed = socket.recover("news", &asked).await;
        assert_eq!(subscribed["recovered"], false, "{asked}");
        assert_eq!(position(&subscribed), top, "{asked}");
        let live = hub.publish("live", &json!(0)).await;
        assert!(live > 0);
        socket.expect_alive().await;
    }
}

#[tokio::test]
async fn a_namespace_without_recovery_does_not_pretend() {
    let hub = hub_with("[namespaces.past]\nrecovery = false\n", &[]).await;
    hub.publish_numbers("past:a", 0..3).await;
    let mut socket = Socket::open(&hub).await;
    let asked = at(&hub, "past:a", 1).await;
    let subscribed = socket.recover("past:a", &asked).await;
    assert_eq!(subscribed["recovered"], false);
    assert_eq!(subscribed["offset"], 3);
    hub.publish("past:a", &json!(3)).await;
    assert_eq!(socket.numbers(3, 1).await, [3]);
}

#[tokio::test]
async fn history_is_read_in_pages() {
    let hub = hub(&[]).await;
    hub.publish_numbers("news", 0..10).await;
    let mut socket = Socket::open(&hub).await;
    let mut read = Vec::new();
    let mut since = Value::Null;
    for _ in 0..4 {
        let page = socket
            .ask(&json!({"type": "history", "channel": "news", "limit": 3, "since": since}))
            .await;
        assert_eq!(page["offset"], 10, "{page}");
        let publications = page["publications"].as_array().expect("a list").clone();
        let last = publications.last().expect("not empty")["offset"].clone();
        since = json!({"epoch": page["epoch"], "offset": last});
        read.extend(publications);
        assert_eq!(page["more"] == true, read.len() < 10, "{page}");
    }
    let offsets: Vec<Value> = read.iter().map(|read| read["offset"].clone()).collect();
    assert_eq!(offsets, (1..=10).map(Value::from).collect::<Vec<_>>());

    let over_http = hub.get("/hub/channels/news/history?limit=100").await.json();
    assert_eq!(over_http["publications"].as_array().map(Vec::len), Some(10));
    let rest = hub
        .get(&format!(
            "/hub/channels/news/history?epoch={}&offset=8",
            over_http["epoch"].as_str().expect("an epoch")
        ))
        .await
        .json();
    assert_eq!(
        rest["publications"],
        json!([{"data": 8, "offset": 9}, {"data": 9, "offset": 10}])
    );
    let none = socket
        .ask(&json!({"type": "history", "channel": "news", "limit": 0}))
        .await;
    assert_eq!(none["publications"], json!([]), "{none}");
    assert_eq!(none["offset"], 10);
}

#[tokio::test]
async fn an_answer_with_history_leaves_half_of_the_queue_free() {
    let hub = hub(&[("WS_MAX_BUFFERED_BYTES", "70000")]).await;
    let large = "x".repeat(9_000);
    for _ in 0..10 {
        hub.publish("large", &json!(large)).await;
    }
    let mut socket = Socket::open(&hub).await;
    let mut since = Value::Null;
    let mut read = 0;
    loop {
        let page = socket
            .ask(&json!({"type": "history", "channel": "large", "since": since}))
            .await;
        assert!(page.to_string().len() < 35_000, "more than half");
        let publications = page["publications"].as_array().expect("a list");
        assert!(!publications.is_empty(), "{page}");
        read += publications.len();
        since = json!({"epoch": page["epoch"], "offset": publications[publications.len() - 1]["offset"]});
        if page["more"] != true {
            break;
        }
    }
    assert_eq!(read, 10);
}

#[tokio::test]
async fn a_cleared_history_is_gone_and_the_stream_goes_on() {
    let hub = hub(&[]).await;
    let mut socket = Socket::open(&hub).await;
    socket.subscribe("news").await;
    hub.publish_numbers("news", 0..5).await;
    socket.numbers(0, 5).await;
    let (middle, top) = (at(&hub, "news", 3).await, at(&hub, "news", 5).await);
    let cleared = hub
        .request("DELETE", "/hub/channels/news/history", &[], "")
        .await;
    assert_eq!(cleared.status, 200);
    assert_eq!(position(&cleared.json()), top);
    let history = hub.get("/hub/channels/news/history").await.json();
    assert_eq!(history["publications"], json!([]));
    let mut lost = Socket::open(&hub).await;
    assert_eq!(lost.recover("news", &middle).await["recovered"], false);
    let mut at_top = Socket::open(&hub).await;
    assert_eq!(at_top.recover("news", &top).await["recovered"], true);
    hub.publish("news", &json!(5)).await;
    for socket in [&mut socket, &mut lost, &mut at_top] {
        assert_eq!(socket.numbers(5, 1).await, [5]);
    }
}
