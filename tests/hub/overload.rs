//! What the node itself runs out of: files, and room in a worker's inbox.

use serde_json::json;
use tokio::net::TcpStream;

use super::support::hub::{hub, hub_with};
use super::support::ws::Socket;
use super::support::{eventually, within};

#[tokio::test]
async fn accepting_pauses_near_the_file_limit_and_goes_on() {
    let hub = hub(&[]).await;
    let mut before = Socket::open(&hub).await;
    before.subscribe("news").await;
    hub.limit_files(hub.open_files() + 8);
    let mut held = Vec::new();
    eventually("the log tells of the limit", async || {
        held.push(
            TcpStream::connect(hub.address())
                .await
                .expect("the backlog"),
        );
        hub.log().contains("LimitNOFILE").then_some(())
    })
    .await;
    // Who is connected notices nothing: this publish comes over the connection that is there.
    let published = before
        .ask(&json!({"type": "publish", "channel": "news", "data": 1}))
        .await;
    assert!(["published", "publication"].contains(&published["type"].as_str().expect("a type")));
    drop(held);
    within("the hub accepts again", async {
        Socket::open(&hub).await.expect_alive().await;
    })
    .await;
}

#[tokio::test]
async fn a_broker_without_room_is_told_alike_over_http_and_on_a_socket() {
    let hub = hub(&[("MAX_CHANNELS", "1")]).await;
    let mut socket = Socket::open(&hub).await;
    socket.subscribe("first").await;
    let publish = json!({"channel": "second", "data": 1});
    let answer = hub.post("/hub/publish", &publish).await;
    answer.expect_error(503, "unavailable");
    for command in [
        json!({"type": "publish", "channel": "second", "data": 1}),
        json!({"type": "subscribe", "channel": "second"}),
    ] {
        let told = socket.ask(&command).await;
        assert_eq!(told["code"], "unavailable", "{told}");
    }
}

const LONG: &str = r#"
[namespaces.long]
history = { size = 2000, ttl = "5m" }
[namespaces.none]
history = { size = 0, ttl = "5m" }
"#;

fn batch(channel: &str) -> serde_json::Value {
    let publications: Vec<_> = (1..=1000)
        .map(|n| json!({"channel": channel, "data": n}))
        .collect();
    json!({"publications": publications})
}

#[tokio::test]
async fn what_a_full_inbox_had_no_room_for_is_read_again_or_told() {
    let hub = hub_with(LONG, &[("INBOX_MAX_MESSAGES", "10"), ("WORKERS", "1")]).await;
    let mut reader = Socket::open(&hub).await;
    reader.subscribe("long:a").await;
    let mut without = Socket::open(&hub).await;
    without.subscribe("none:a").await;
    assert_eq!(hub.post("/hub/batch", &batch("long:a")).await.status, 200);
    assert_eq!(
        reader.numbers(0, 1000).await,
        (1..=1000).collect::<Vec<u64>>()
    );
    assert_eq!(hub.post("/hub/batch", &batch("none:a")).await.status, 200);
    let mut received = 0;
    let gap = loop {
        let message = without.next().await;
        if message["type"] == "gap" {
            break message;
        }
        received += 1;
    };
    assert!(received < 1000, "the inbox was never full");
    assert_eq!(gap["channel"], "none:a");
}
