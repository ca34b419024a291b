//! What back ends do over `/hub`, with sockets to see that it happens.

use serde_json::{Value, json};

use crate::support::hub::SECRET;
use crate::support::token::{token, token_of};
use crate::support::ws::{Socket, position};
use crate::support::{eventually, hub};

#[tokio::test]
async fn one_call_publishes_to_many_channels() {
    let hub = hub(&[]).await;
    let mut socket = Socket::open(&hub).await;
    for channel in ["a", "b"] {
        socket.subscribe(channel).await;
    }
    let answer = hub
        .post(
            "/hub/broadcast",
            &json!({"channels": ["a", "b", "~own", "a"], "data": 1}),
        )
        .await;
    assert_eq!(answer.status, 200);
    let results = answer.json()["results"].clone();
    assert_eq!([&results[0]["offset"], &results[1]["offset"]], [1, 1]);
    assert_eq!(results[2]["error"], "bad_request", "{results}");
    assert_eq!(results[3]["offset"], 2);
    let publications = json!([
        {"channel": "b", "data": "x"},
        {"channel": "a", "data": null},
        {"channel": "bad name", "data": 3},
    ]);
    let answer = hub
        .post("/hub/batch", &json!({"publications": publications}))
        .await;
    let results = answer.json()["results"].clone();
    assert_eq!([&results[0]["offset"], &results[1]["offset"]], [2, 3]);
    assert_eq!(results[2]["error"], "bad_request");
    let mut got = Vec::new();
    for _ in 0..5 {
        let message = socket.next().await;
        got.push(format!(
            "{}{}={}",
            message["channel"], message["offset"], message["data"]
        ));
    }
    got.sort();
    assert_eq!(
        got,
        [
            r#""a"1=1"#,
            r#""a"2=1"#,
            r#""a"3=null"#,
            r#""b"1=1"#,
            r#""b"2="x""#
        ]
    );
}

#[tokio::test]
async fn the_same_idempotency_key_delivers_once() {
    let hub = hub(&[]).await;
    let mut socket = Socket::open(&hub).await;
    socket.subscribe("orders").await;
    let body = json!({"channel": "orders", "data": 7, "idempotency_key": "order-7"});
    let first = hub.post("/hub/publish", &body).await.json();
    for _ in 0..3 {
        assert_eq!(hub.post("/hub/publish", &body).await.json(), first);
    }
    let elsewhere = json!({"channel": "other", "data": 7, "idempotency_key": "order-7"});
    assert_eq!(
        hub.post("/hub/publish", &elsewhere).await.json()["offset"],
        1
    );
    hub.publish("orders", &json!(8)).await;
    assert_eq!(socket.numbers(0, 2).await, [7, 8]);
}

#[tokio::test]
async fn active_channels_are_listed_in_pages() {
    let hub = hub(&[]).await;
    let mut sockets = [Socket::open(&hub).await, Socket::open(&hub).await];
    for n in 0..25 {
        sockets[0].subscribe(&format!("chat:{n:02}")).await;
    }
    sockets[1].subscribe("chat:03").await;
    sockets[1].subscribe("news").await;
    let mut listed = Vec::new();
    let mut cursor = String::new();
    loop {
        let path = format!("/hub/channels?prefix=chat:&limit=10&cursor={cursor}");
        let page = hub.get(&path).await.json();
        listed.extend(page["channels"].as_array().expect("a list").clone());
        match page["cursor"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => break,
        }
    }
    let names: Vec<String> = (0..25).map(|n| format!("chat:{n:02}")).collect();
    let listed_names: Vec<&str> = listed
        .iter()
        .filter_map(|entry| entry["channel"].as_str())
        .collect();
    assert_eq!(listed_names, names);
    assert_eq!(listed[3]["subscribers"], 2);
    assert_eq!(listed[4]["subscribers"], 1);
    hub.publish_numbers("chat:03", 0..4).await;
    let stats = hub.get("/hub/channels/chat%3A03/stats").await.json();
    assert_eq!(
        [
            &stats["subscribers"],
            &stats["clients"],
            &stats["users"],
            &stats["offset"]
        ],
        [&json!(2), &json!(2), &json!(1), &json!(4)]
    );
}

#[tokio::test]
async fn the_nodes_are_told() {
    let hub = hub(&[("NODE_ID", "n-1")]).await;
    let mut sockets = Vec::new();
    for _ in 0..5 {
        let mut socket = Socket::open(&hub).await;
        socket.subscribe("news").await;
        sockets.push(socket);
    }
    eventually("five connections are counted", async || {
        let nodes = hub.get("/hub/nodes").await.json()["nodes"].clone();
        assert_eq!(nodes.as_array().map(Vec::len), Some(1));
        assert_eq!(
            [&nodes[0]["id"], &nodes[0]["channels"]],
            [&json!("n-1"), &json!(1)]
        );
        assert_eq!(nodes[0]["version"], env!("CARGO_PKG_VERSION"));
        (nodes[0]["connections"] == 5).then_some(())
    })
    .await;
    drop(sockets);
    eventually("none is counted", async || {
        let node = hub.get("/hub/nodes").await.json()["nodes"][0].clone();
        (node["connections"] == 0 && node["channels"] == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_user_is_subscribed_unsubscribed_and_disconnected_everywhere() {
    let hub = hub(&[("JWT_SECRET", SECRET)]).await;
    let mut ann = [
        Socket::open_as(&hub, &token_of("ann")).await,
        Socket::open_as(&hub, &token_of("ann")).await,
    ];
    let mut ben = Socket::open_as(&hub, &token_of("ben")).await;
    let order = json!({"user": "ann", "channel": "vip"});
    assert_eq!(hub.post("/hub/subscribe", &order).await.status, 200);
    for socket in &mut ann {
        let subscribed = socket.next().await;
        assert_eq!(subscribed["type"], "subscribed", "{subscribed}");
        assert_eq!(subscribed["channel"], "vip");
        assert_eq!(subscribed["offset"], 0);
        assert!(subscribed.get("id").is_none());
    }
    hub.publish("vip", &json!(1)).await;
    for socket in &mut ann {
        assert_eq!(socket.numbers(0, 1).await, [1]);
    }
    assert_eq!(hub.post("/hub/unsubscribe", &order).await.status, 200);
    for socket in &mut ann {
        let push = socket.next().await;
        assert_eq!(push["type"], "unsubscribed", "{push}");
        assert_eq!(
            [&push["channel"], &push["code"]],
            [&json!("vip"), &json!(2500)]
        );
        assert!(push["reason"].is_string());
    }
    hub.publish("vip", &json!(2)).await;
    assert_eq!(
        hub.post("/hub/disconnect", &json!({"user": "ann"}))
            .await
            .status,
        200
    );
    for socket in &mut ann {
        let closed = socket
            .next_or_close()
            .await
            .expect_err("nothing but the close");
        assert_eq!(closed, (4002, "disconnected".to_owned()));
    }
    ben.expect_alive().await;
}

#[tokio::test]
async fn one_client_is_acted_on_alone() {
    let hub = hub(&[]).await;
    let mut one = Socket::open(&hub).await;
    let mut other = Socket::open_packed(&hub).await;
    let order = json!({"client": one.client(), "channel": "a"});
    hub.post("/hub/subscribe", &order).await;
    assert_eq!(one.next().await["type"], "subscribed");
    let there = hub.get("/hub/channels/a/presence").await.json();
    assert_eq!(there["count"], 1);
    hub.post("/hub/unsubscribe", &order).await;
    assert_eq!(one.next().await["code"], 2500);
    hub.post("/hub/disconnect", &json!({"client": other.client()}))
        .await;
    assert_eq!(other.closed().await.0, 4002);
    one.expect_alive().await;
}

#[tokio::test]
async fn the_key_opens_the_door_and_nothing_else_does() {
    let hub = hub(&[
        ("JWT_SECRET", SECRET),
        ("AUTH_REQUIRED", "true"),
        ("HUB_API_KEY", "the-key-of-back-ends"),
    ])
    .await;
    let publish = async |authorization: &str| {
        let headers = [("authorization", authorization)];
        let headers = if authorization.is_empty() {
            &[][..]
        } else {
            &headers[..]
        };
        hub.request(
            "POST",
            "/hub/publish",
            headers,
            r#"{"channel":"a","data":1}"#,
        )
        .await
    };
    let bearer = |claims: Value| format!("Bearer {}", token(claims));
    assert_eq!(publish("Bearer the-key-of-back-ends").await.status, 200);
    assert_eq!(
        publish(&bearer(json!({"role": "publisher"}))).await.status,
        200
    );
    assert_eq!(publish(&bearer(json!({"role": "admin"}))).await.status, 200);
    publish("").await.expect_error(401, "unauthorized");
    assert_eq!(publish("Bearer the-key-of-back-end").await.status, 401);
    assert_eq!(publish("Basic the-key-of-back-ends").await.status, 401);
    publish(&bearer(json!({"sub": "ann"})))
        .await
        .expect_error(403, "forbidden");
    for (method, path) in [
        ("GET", "/hub/channels"),
        ("GET", "/hub/channels/a/history"),
        ("DELETE", "/hub/channels/a/history"),
        ("GET", "/hub/channels/a/presence"),
        ("GET", "/hub/channels/a/stats"),
        ("GET", "/hub/nodes"),
        ("POST", "/hub/broadcast"),
        ("POST", "/hub/batch"),
        ("POST", "/hub/subscribe"),
        ("POST", "/hub/unsubscribe"),
        ("POST", "/hub/disconnect"),
    ] {
        let answer = hub.request(method, path, &[], "").await;
        answer.expect_error(401, "unauthorized");
    }
}

#[tokio::test]
async fn what_a_back_end_says_wrongly_is_answered_clearly() {
    let hub = hub(&[]).await;
    let post = async |path: &str, body: &str| hub.request("POST", path, &[], body).await;
    for body in [
        "nonsense",
        "[]",
        "{}",
        r#"{"channel":"a"}"#,
        r#"{"channel":5,"data":1}"#,
        r#"{"channel":"","data":1}"#,
        r#"{"channel":"a b","data":1}"#,
        r#"{"channel":"a","data":1,"key":7}"#,
        r#"{"channel":"a","data":1"#,
        r#"{"channel":"a","data":01}"#,
    ] {
        post("/hub/publish", body)
            .await
            .expect_error(400, "bad_request");
    }
    let own = post("/hub/publish", r#"{"channel":"~own","data":1}"#).await;
    own.expect_error(400, "bad_request");
    let long = json!({"channel": "a".repeat(256), "data": 1});
    hub.post("/hub/publish", &long)
        .await
        .expect_error(400, "bad_request");
    let large = json!({"channel": "a", "data": "x".repeat(65_536)});
    hub.post("/hub/publish", &large)
        .await
        .expect_error(413, "too_large");
    let deep = format!(
        r#"{{"channel":"a","data":{}{}}}"#,
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    post("/hub/publish", &deep)
        .await
        .expect_error(400, "bad_request");
    let too_many: Vec<Value> = (0..1001)
        .map(|n| json!({"channel": "a", "data": n}))
        .collect();
    let answer = hub
        .post("/hub/batch", &json!({"publications": too_many}))
        .await;
    answer.expect_error(413, "too_large");
    for order in [
        r#"{"channel":"a"}"#,
        r#"{"user":"","channel":"a"}"#,
        r#"{"user":"a"}"#,
        r#"{"client":"x","channel":"a"}"#,
    ] {
        post("/hub/subscribe", order)
            .await
            .expect_error(400, "bad_request");
    }
    hub.get("/hub/nothing").await.expect_error(404, "not_found");
    hub.get("/hub/publish")
        .await
        .expect_error(405, "method_not_allowed");
    assert_eq!(
        position(&hub.get("/hub/channels/a/history").await.json())["offset"],
        0
    );
}
