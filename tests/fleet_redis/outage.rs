//! Redis away and back: what clients, back ends and load balancers see.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::Fleet;
use crate::support::eventually;
use crate::support::ws::Socket;

#[tokio::test]
async fn publishers_are_told_and_connections_stay() {
    let mut fleet = Fleet::start(2).await;
    let mut socket = Socket::open(&fleet.nodes[1]).await;
    socket.subscribe("news").await;
    let publish = json!({"channel": "news", "data": 0});
    fleet.nodes[0].publish("news", &json!(1)).await;
    assert_eq!(socket.numbers(0, 1).await, [1]);
    fleet.redis.kill();
    let began = Instant::now();
    let answer = fleet.nodes[0].post("/hub/publish", &publish).await;
    answer.expect_error(503, "broker_unavailable");
    // The promise of the interface, with a second for a busy machine.
    assert!(began.elapsed() < Duration::from_secs(2) + Duration::from_secs(1));
    assert!(answer.header("retry-after").is_some());
    for hub in &fleet.nodes {
        eventually("not ready", async || {
            (hub.get("/readyz").await.status == 503).then_some(())
        })
        .await;
        assert_eq!(hub.get("/healthz").await.status, 200);
    }
    socket.expect_alive().await;

    fleet.redis.start_again();
    for hub in &fleet.nodes {
        eventually("ready", async || {
            (hub.get("/readyz").await.status == 200).then_some(())
        })
        .await;
    }
    fleet.nodes[0].publish("news", &json!(2)).await;
    assert_eq!(socket.numbers(1, 1).await, [2]);
}
