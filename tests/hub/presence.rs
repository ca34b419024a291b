//! Who is there, who comes and who goes.

use serde_json::{Value, json};

use crate::support::hub::SECRET;
use crate::support::token::{token, token_of};
use crate::support::ws::Socket;
use crate::support::{Hub, eventually, hub, hub_with};

async fn presence(hub: &Hub, channel: &str) -> Value {
    let answer = hub.get(&format!("/hub/channels/{channel}/presence")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

#[tokio::test]
async fn who_comes_and_goes_is_told_to_those_who_asked() {
    let hub = hub(&[("JWT_SECRET", SECRET)]).await;
    let mut watcher = Socket::open_packed(&hub).await;
    let subscribed = watcher
        .ask(&json!({"type": "subscribe", "channel": "room", "presence": true}))
        .await;
    assert_eq!(subscribed["type"], "subscribed");
    let own = json!({"channel": "room", "client": watcher.client(), "user": ""});
    let mut unasked = Socket::open(&hub).await;
    unasked.subscribe("room").await;

    let mut ann =
        Socket::open_as(&hub, &token(json!({"sub": "ann", "info": {"name": "Ann"}}))).await;
    ann.subscribe("room").await;
    let other_ann = {
        let mut socket = Socket::open_as(&hub, &token_of("ann")).await;
        socket.subscribe("room").await;
        socket
    };
    let there = watcher
        .ask(&json!({"type": "presence", "channel": "room"}))
        .await;
    // Those who came may be clients of another worker: their joins stand before the answer or behind it.
    let mut joined = Vec::new();
    let mut message = Value::Null;
    let mut next = there;
    loop {
        match next["type"].as_str() {
            Some("join") => joined.push(next["client"].as_str().expect("a client").to_owned()),
            _ => message = next,
        }
        joined.retain(|client| *client != own["client"]);
        if joined.len() == 3 && !message.is_null() {
            break;
        }
        next = watcher.next().await;
    }
    assert_eq!(
        [&message["count"], &message["users"]],
        [&json!(4), &json!(2)]
    );
    assert_eq!(
        message["clients"][ann.client()],
        json!({"user": "ann", "info": {"name": "Ann"}})
    );
    let came = [unasked.client(), ann.client(), other_ann.client()];
    assert_eq!(joined, came);

    let expected =
        json!({"type": "leave", "channel": "room", "client": ann.client(), "user": "ann"});
    ann.ask(&json!({"type": "unsubscribe", "channel": "room"}))
        .await;
    assert_eq!(watcher.next().await, expected);
    // An abrupt end is an end.
    let client = other_ann.client();
    drop(other_ann);
    let left = watcher.next().await;
    assert_eq!(
        [&left["type"], &left["client"]],
        [&json!("leave"), &json!(client)]
    );
    unasked.expect_quiet().await;
    let over_http = presence(&hub, "room").await;
    assert_eq!(over_http["count"], 2);
    assert_eq!(
        over_http["clients"][unasked.client()],
        json!({"user": "", "info": null})
    );
    unasked.close().await;
    assert_eq!(watcher.next().await["type"], "leave");
}

#[tokio::test]
async fn event_streams_are_present_too() {
    let hub = hub(&[]).await;
    let mut watcher = Socket::open(&hub).await;
    watcher
        .ask(&json!({"type": "subscribe", "channel": "room", "presence": true}))
        .await;
    let stream = crate::support::sse::EventStream::open(&hub, "channel=room&channel=b", &[]).await;
    let client = stream.connected.json()["client_id"].clone();
    let mut join = watcher.next().await;
    if join["client"] == json!(watcher.client()) {
        join = watcher.next().await;
    }
    assert_eq!([&join["type"], &join["client"]], [&json!("join"), &client]);
    drop(stream);
    let leave = watcher.next().await;
    assert_eq!(
        [&leave["type"], &leave["client"]],
        [&json!("leave"), &client]
    );
}

#[tokio::test]
async fn everybody_leaves_when_their_connection_ends() {
    let hub = hub(&[]).await;
    let mut sockets = Vec::new();
    for _ in 0..20 {
        let mut socket = Socket::open(&hub).await;
        for channel in ["a", "b", "c"] {
            socket.subscribe(channel).await;
        }
        sockets.push(socket);
    }
    assert_eq!(presence(&hub, "b").await["count"], 20);
    assert_eq!(presence(&hub, "b").await["users"], 1);
    drop(sockets);
    for channel in ["a", "b", "c"] {
        eventually("nobody is there", async || {
            (presence(&hub, channel).await["count"] == 0).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_namespace_decides_what_is_known() {
    let namespaces = "[namespaces.dark]\npresence = false\njoin_leave = false\n\
                      [namespaces.calm]\njoin_leave = false\n";
    let hub = hub_with(namespaces, &[]).await;
    let mut watcher = Socket::open(&hub).await;
    for channel in ["dark:a", "calm:a"] {
        watcher
            .ask(&json!({"type": "subscribe", "channel": channel, "presence": true}))
            .await;
    }
    let mut other = Socket::open(&hub).await;
    other.subscribe("dark:a").await;
    other.subscribe("calm:a").await;
    watcher.expect_quiet().await;
    let dark = watcher
        .ask(&json!({"type": "presence", "channel": "dark:a"}))
        .await;
    assert_eq!(dark["code"], "not_available");
    let calm = watcher
        .ask(&json!({"type": "presence", "channel": "calm:a"}))
        .await;
    assert_eq!(calm["count"], 2);
    hub.get("/hub/channels/dark:a/presence")
        .await
        .expect_error(409, "not_available");
}

#[tokio::test]
async fn a_long_list_is_cut_and_says_so() {
    let room = 33_280;
    let twice = (2 * room).to_string();
    let hub = hub(&[("JWT_SECRET", SECRET), ("WS_MAX_BUFFERED_BYTES", &twice)]).await;
    // What is short by itself takes six times as much where it is escaped.
    let users = ["ann".to_owned(), "\u{1}".repeat(200)];
    let mut sockets = Vec::new();
    for number in 0..100 {
        let claims = json!({"sub": users[number % 2], "info": "x".repeat(1000)});
        let mut socket = Socket::open_as(&hub, &token(claims)).await;
        socket.subscribe("crowd").await;
        sockets.push(socket);
    }
    let there = sockets[0]
        .ask(&json!({"type": "presence", "channel": "crowd"}))
        .await;
    assert_eq!(there["count"], 100);
    assert_eq!(there["more"], true, "{there}");
    let length = there.to_string().len();
    assert!(room / 2 < length && length <= room, "{length}");
    let over_http = presence(&hub, "crowd").await;
    assert_eq!(
        over_http["clients"].as_object().map(serde_json::Map::len),
        Some(100)
    );
    assert!(over_http.get("more").is_none());
}
