//! Every row of the table of commands, in both formats, and a publication's way to every door.

use serde_json::{Value, json};

use crate::support::hub::SECRET;
use crate::support::sse::EventStream;
use crate::support::token::token;
use crate::support::ws::{Socket, position};
use crate::support::{Hub, eventually, hub, hub_with};

/// Both formats at once.
async fn both(hub: &Hub) -> [Socket; 2] {
    [Socket::open(hub).await, Socket::open_packed(hub).await]
}

#[tokio::test]
async fn the_server_speaks_first() {
    let hub = hub(&[("NODE_ID", "node-7"), ("WEBSOCKETS_PING_INTERVAL", "20")]).await;
    for socket in both(&hub).await {
        let connected = &socket.connected;
        assert_eq!(
            connected["message"], "WebSocket connection established",
            "{connected}"
        );
        assert_eq!(connected["gateway_id"], "node-7");
        assert_eq!(connected["user_id"], "");
        assert_eq!(connected["session_id"], Value::Null);
        assert_eq!(connected["ping_interval"], 20);
        assert_eq!(connected["inactivity_timeout"], 60);
        assert_eq!(connected["client_id"].as_str().map(str::len), Some(36));
        assert!(connected.get("expires_in").is_none(), "{connected}");
    }
    let named = Socket::open_at(&hub, "/ws/connect?session_id=s-1", &[]).await;
    assert_eq!(named.connected["session_id"], "s-1");
}

#[tokio::test]
async fn every_command_is_answered_with_its_id() {
    let hub = hub(&[]).await;
    for (round, mut socket) in both(&hub).await.into_iter().enumerate() {
        let channel = format!("room-{round}");
        let client = socket.client();
        let subscribed = socket
            .ask(&json!({"type": "subscribe", "id": 1, "channel": channel}))
            .await;
        let epoch = subscribed["epoch"].as_str().expect("an epoch").to_owned();
        assert!((1..=32).contains(&epoch.len()), "{epoch}");
        assert_eq!(
            subscribed,
            json!({"type": "subscribed", "id": 1, "channel": channel, "epoch": epoch, "offset": 0})
        );
        // Its own publication and the answer: whichever is first.
        socket
            .send(&json!({"type": "publish", "id": "two", "channel": channel, "data": {"n": [1, null]}}))
            .await;
        let mut answers = [socket.next().await, socket.next().await];
        answers.sort_by_key(|answer| answer["type"].to_string());
        assert_eq!(
            answers[0],
            json!({"type": "publication", "channel": channel, "data": {"n": [1, null]}, "offset": 1,
                   "from": {"client": client, "user": ""}})
        );
        assert_eq!(
            answers[1],
            json!({"type": "published", "id": "two", "channel": channel, "epoch": epoch, "offset": 1})
        );
        let history = socket
            .ask(&json!({"type": "history", "id": -3, "channel": channel}))
            .await;
        assert_eq!(
            history,
            json!({"type": "history", "id": -3, "channel": channel, "epoch": epoch, "offset": 1,
                   "publications": [{"data": {"n": [1, null]}, "offset": 1,
                                     "from": {"client": client, "user": ""}}]})
        );
        let presence = socket
            .ask(&json!({"type": "presence", "id": 4, "channel": channel}))
            .await;
        assert_eq!(
            presence,
            json!({"type": "presence", "id": 4, "channel": channel, "count": 1, "users": 1,
                   "clients": {client.as_str(): {"user": "", "info": null}}})
        );
        let unsubscribed = socket
            .ask(&json!({"type": "unsubscribe", "id": 7, "channel": channel}))
            .await;
        assert_eq!(
            unsubscribed,
            json!({"type": "unsubscribed", "id": 7, "channel": channel})
        );
        hub.publish(&channel, &json!("after")).await;
        socket.expect_quiet().await;
    }
}

#[tokio::test]
async fn commands_without_a_channel_are_answered_too() {
    let hub = hub(&[]).await;
    for mut socket in both(&hub).await {
        let pong = socket.ask(&json!({"type": "ping", "id": i64::MAX})).await;
        assert_eq!(pong["id"], i64::MAX);
        assert!(
            pong["timestamp"].as_f64().expect("a time") > 1.7e9,
            "{pong}"
        );
        let ack = socket
            .ask(&json!({"type": "update_api_key", "id": 6, "key": "sk-1"}))
            .await;
        assert_eq!(ack["message"], "API key update acknowledged");
        assert_eq!(
            [
                &ack["type"],
                &ack["id"],
                &ack["api_key"],
                &ack["data"],
                &ack["session_id"]
            ],
            [
                &json!("ack"),
                &json!(6),
                &json!("sk-1"),
                &Value::Null,
                &Value::Null
            ]
        );
        // Answers to a ping of the server get none.
        socket.send(&json!({"type": "pong"})).await;
        socket.expect_quiet().await;
    }
}

#[tokio::test]
async fn commands_in_one_write_are_answered_in_order() {
    let hub = hub(&[]).await;
    for mut socket in both(&hub).await {
        let commands: Vec<Value> = (0..300)
            .map(|id| match id % 6 {
                0 => json!({"type": "subscribe", "id": id, "channel": format!("c{id}")}),
                1 => json!({"type": "publish", "id": id, "channel": "elsewhere", "data": id}),
                2 => json!({"type": "history", "id": id, "channel": "elsewhere", "limit": 1}),
                3 => json!({"type": "nonsense", "id": id}),
                4 => json!({"type": "unsubscribe", "id": id, "channel": format!("c{}", id - 4)}),
                _ => json!({"type": "ping", "id": id}),
            })
            .collect();
        socket.send_all(&commands).await;
        let kinds = [
            "subscribed",
            "published",
            "history",
            "error",
            "unsubscribed",
            "pong",
        ];
        for id in 0..300 {
            let answer = socket.next().await;
            assert_eq!(answer["id"], id, "{answer}");
            assert_eq!(answer["type"], kinds[id % 6], "{answer}");
        }
    }
}

#[tokio::test]
async fn a_publication_reaches_every_door() {
    let hub = hub(&[]).await;
    let [mut json, mut packed] = both(&hub).await;
    let subscribed = json.subscribe("news").await;
    packed.subscribe("news").await;
    let mut single = EventStream::open(&hub, "channel=news", &[]).await;
    let mut many = EventStream::open(&hub, "channel=other&channel=news", &[]).await;
    let data = json!({"text": "grüß \u{1f600} \"x\"\n", "list": [1, -2.5, true, null, u64::MAX]});

    assert_eq!(hub.publish("news", &data).await, 1);
    let mut publisher = Socket::open(&hub).await;
    let published = publisher
        .ask(&json!({"type": "publish", "channel": "news", "data": "from a socket"}))
        .await;
    assert_eq!(published["offset"], 2);
    let mut packed_publisher = Socket::open_packed(&hub).await;
    packed_publisher
        .ask(&json!({"type": "publish", "channel": "news", "data": {"packed": [1, "2"]}}))
        .await;

    let from = |socket: &Socket| json!({"client": socket.client(), "user": ""});
    let expected = [
        (1, data.clone(), Value::Null),
        (2, json!("from a socket"), from(&publisher)),
        (3, json!({"packed": [1, "2"]}), from(&packed_publisher)),
    ];
    let epoch = subscribed["epoch"].as_str().expect("an epoch");
    for (offset, data, from) in expected {
        for socket in [&mut json, &mut packed] {
            let got = socket.next().await;
            assert_eq!(got["type"], "publication", "{got}");
            assert_eq!(got["channel"], "news");
            assert_eq!(got["offset"], offset);
            assert_eq!(got["data"], data);
            assert_eq!(got["from"], from);
            assert!(got.get("epoch").is_none(), "the epoch is no news: {got}");
        }
        let event = json!({"channel": "news", "data": data, "offset": offset});
        let got = single.event().await;
        assert_eq!(got.json(), event);
        assert_eq!(got.event, None);
        assert_eq!(
            got.id.as_deref(),
            Some(format!("{epoch}:{offset}").as_str())
        );
        let got = many.event().await;
        assert_eq!(got.json(), event);
        let id = got.id.expect("an id");
        assert!(
            id.starts_with("1.") && id.ends_with(&format!(",{epoch}:{offset}")),
            "{id}"
        );
    }
}

#[tokio::test]
async fn what_only_messagepack_can_say_is_refused_with_its_place() {
    let hub = hub(&[]).await;
    let mut socket = Socket::open_packed(&hub).await;
    // {"type":"publish","channel":"a","data":{"items":[0, bin]}}
    let mut message =
        rmp_serde::to_vec_named(&json!({"type": "publish", "channel": "a"})).expect("MessagePack");
    message[0] += 1;
    message.extend_from_slice(b"\xa4data\x81\xa5items\x92\x00\xc4\x01x");
    socket
        .send_message(tokio_tungstenite::tungstenite::Message::binary(message))
        .await;
    let error = socket.next().await;
    assert_eq!(error["code"], "bad_request");
    assert_eq!(
        error["message"],
        "data: binary data has no JSON form at .items[1]"
    );
}

#[tokio::test]
async fn all_see_one_order_without_a_hole() {
    const EACH: u64 = 250;
    let hub = hub_with(
        "[namespaces.default]\nhistory = { size = 2000, ttl = \"5m\" }\n",
        &[],
    )
    .await;
    let mut subscribers = Vec::new();
    for round in 0..6 {
        let mut socket = match round % 2 {
            0 => Socket::open(&hub).await,
            _ => Socket::open_packed(&hub).await,
        };
        socket.subscribe("order").await;
        subscribers.push(socket);
    }
    let mut stream = EventStream::open(&hub, "channel=order", &[]).await;
    let publish = async |publisher: u64| {
        let mut socket = Socket::open(&hub).await;
        for n in 0..EACH {
            let data = publisher * 1000 + n;
            if publisher == 0 && n % 10 == 0 {
                hub.publish("order", &json!(data)).await;
                continue;
            }
            let published = socket
                .ask(&json!({"type": "publish", "channel": "order", "data": data}))
                .await;
            assert_eq!(published["type"], "published", "{published}");
        }
    };
    tokio::join!(publish(0), publish(1), publish(2), publish(3));

    let mut orders = Vec::new();
    for socket in &mut subscribers {
        orders.push(socket.numbers(0, 4 * EACH).await);
    }
    let mut streamed = Vec::new();
    for offset in 1..=4 * EACH {
        let event = stream.event().await.json();
        assert_eq!(event["offset"], offset);
        streamed.push(event["data"].as_u64().expect("a number"));
    }
    orders.push(streamed);
    for order in &orders {
        assert_eq!(order, &orders[0]);
    }
    for publisher in 0..4 {
        let own: Vec<u64> = orders[0]
            .iter()
            .copied()
            .filter(|data| data / 1000 == publisher)
            .collect();
        let sent: Vec<u64> = (0..EACH).map(|n| publisher * 1000 + n).collect();
        assert_eq!(own, sent, "a publisher's own order");
    }
}

#[tokio::test]
async fn a_new_subscriber_stands_where_the_stream_does() {
    let hub = hub(&[]).await;
    hub.publish_numbers("news", 0..7).await;
    let mut first = Socket::open(&hub).await;
    let subscribed = first.subscribe("news").await;
    assert_eq!(subscribed["offset"], 7);
    assert!(subscribed.get("recovered").is_none(), "nobody asked");
    let mut second = Socket::open(&hub).await;
    assert_eq!(
        position(&second.subscribe("news").await),
        position(&subscribed)
    );
    hub.publish("news", &json!(8)).await;
    assert_eq!(first.next().await["offset"], 8);
    assert_eq!(second.next().await["offset"], 8);
}

#[tokio::test]
async fn a_channel_without_history_has_no_positions() {
    let hub = hub_with(
        "[namespaces.live]\nhistory = { size = 0, ttl = \"1s\" }\n",
        &[],
    )
    .await;
    let mut socket = Socket::open(&hub).await;
    let subscribed = socket.subscribe("live:a").await;
    assert_eq!(
        subscribed,
        json!({"type": "subscribed", "channel": "live:a"})
    );
    let mut other = Socket::open(&hub).await;
    let published = other
        .ask(&json!({"type": "publish", "channel": "live:a", "data": 1}))
        .await;
    assert_eq!(published, json!({"type": "published", "channel": "live:a"}));
    let got = socket.next().await;
    assert_eq!(got["data"], 1);
    assert!(got.get("offset").is_none(), "{got}");
    let history = socket
        .ask(&json!({"type": "history", "channel": "live:a"}))
        .await;
    assert_eq!(history["code"], "not_available", "{history}");
    let recovered = other
        .recover("live:a", &json!({"epoch": "", "offset": 0}))
        .await;
    assert_eq!(recovered["recovered"], false);
    let mut stream = EventStream::open(&hub, "channel=live:a", &[]).await;
    hub.publish("live:a", &json!(2)).await;
    let event = stream.event().await;
    assert_eq!(event.id, None);
    assert_eq!(event.json(), json!({"channel": "live:a", "data": 2}));
}

#[tokio::test]
async fn a_vacant_channel_is_forgotten_and_found_again() {
    let hub = hub(&[]).await;
    let mut socket = Socket::open(&hub).await;
    for round in 1..=50_u64 {
        let subscribed = socket.subscribe("on-and-off").await;
        assert_eq!(subscribed["offset"], round - 1);
        hub.publish("on-and-off", &json!(round)).await;
        assert_eq!(socket.next().await["offset"], round);
        socket
            .ask(&json!({"type": "unsubscribe", "channel": "on-and-off"}))
            .await;
    }
    eventually("no channel is active", async || {
        let channels = hub.get("/hub/channels").await.json();
        (channels["channels"] == json!([])).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_json_ping_is_sent_where_it_is_wanted() {
    let variables = [
        ("WEBSOCKETS_JSON_PING", "true"),
        ("WS_PING_INTERVAL_MS", "50"),
    ];
    let hub = hub(&variables).await;
    let mut socket = Socket::open(&hub).await;
    for _ in 0..3 {
        assert_eq!(socket.next().await, json!({"type": "ping"}));
        socket.send(&json!({"type": "pong"})).await;
    }
}

#[tokio::test]
async fn who_published_is_told() {
    let hub = hub(&[("JWT_SECRET", SECRET)]).await;
    let mut ann = Socket::open_as(&hub, &token(json!({"user_id": "ann"}))).await;
    assert_eq!(ann.connected["user_id"], "ann");
    assert!(ann.connected["expires_in"].as_u64() > Some(3500));
    let mut reader = Socket::open(&hub).await;
    reader.subscribe("room").await;
    ann.ask(&json!({"type": "publish", "channel": "room", "data": 1}))
        .await;
    assert_eq!(
        reader.next().await["from"],
        json!({"client": ann.client(), "user": "ann"})
    );
}
