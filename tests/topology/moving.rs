//! Gateways that go and come while many listen and somebody publishes: every listener has everything, once and in order.

use serde_json::json;

use crate::fleet::Fleet;
use crate::listener::{Heard, Listener, Over};
use crate::publisher::{Published, Publisher};
use crate::support::eventually;
use crate::support::sse::EventStream;
use crate::support::ws::Socket;

/// Listeners over each protocol.
const LISTENERS: usize = 12;
const CHANNEL: &str = "numbers";

/// A fleet with people on it.
struct Crowd {
    listeners: Vec<Listener>,
    publisher: Publisher,
}

impl Crowd {
    async fn gather(fleet: &Fleet) -> Self {
        let mut listeners = Vec::new();
        for _ in 0..LISTENERS {
            for over in [Over::WebSocket, Over::EventStream] {
                listeners.push(Listener::start(fleet.nginx(), CHANNEL, over).await);
            }
        }
        Self {
            listeners,
            publisher: Publisher::start(fleet.nginx(), CHANNEL),
        }
    }

    /// Stops publishing, and looks at what each was told: all of it.
    async fn expect_all(self) -> (Published, Vec<(Over, Heard)>) {
        let published = self.publisher.stop().await;
        let mut all = Vec::new();
        for listener in self.listeners {
            let (over, heard) = listener.heard().await;
            heard.expect_all(published.count);
            all.push((over, heard));
        }
        (published, all)
    }
}

/// What keeps a whole run: more than is published in it.
const HISTORY: &str = "[namespaces.default]\nhistory = { size = 20000, ttl = \"5m\" }\n";

fn configuration() -> String {
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("topology.toml");
    std::fs::write(&file, HISTORY).expect("a file");
    file.to_str().expect("a path").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_deploy_loses_nothing() {
    let file = configuration();
    let mut fleet = Fleet::start(3, &[("CONFIG_FILE", &file)]).await;
    let crowd = Crowd::gather(&fleet).await;
    for index in 1..=3 {
        crowd.publisher.publishes(50).await;
        fleet.restart(index).await;
    }
    crowd.publisher.publishes(50).await;
    let (published, all) = crowd.expect_all().await;
    for (over, heard) in &all {
        // Drained clients are told to come back, and find one that keeps them: each restart sends a client away once at most.
        // It may be the same one again, which is started anew by then.
        assert!(heard.closes.iter().all(|code| *code == 1012), "{heard:?}");
        assert!((1..=3).contains(&heard.returns), "{over:?} {heard:?}");
    }
    assert!(
        all.iter().any(|(_, heard)| heard.gateways.len() > 1),
        "nobody came to another gateway"
    );
    // Every gateway ended properly: a publish that one had taken was answered.
    assert!(published.repeated <= 3, "{published:?}");
    fleet
        .expect_nodes(&["gateway-1", "gateway-2", "gateway-3"])
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scaling_up_and_down_loses_nothing() {
    let file = configuration();
    let mut fleet = Fleet::start(2, &[("CONFIG_FILE", &file)]).await;
    let crowd = Crowd::gather(&fleet).await;
    fleet.tell("scale 4");
    fleet.hear("scaled 4").await;
    let names = ["gateway-1", "gateway-2", "gateway-3", "gateway-4"];
    fleet.expect_nodes(&names).await;
    // Who comes now comes to those who have nobody.
    let nginx = fleet.nginx();
    let mut sockets = Vec::new();
    eventually("clients on the new gateways", async || {
        sockets.push(Socket::open(&nginx).await);
        let new = |name| move |socket: &Socket| socket.connected["gateway_id"] == name;
        let has = |name| sockets.iter().any(new(name));
        (has("gateway-3") && has("gateway-4")).then_some(())
    })
    .await;
    fleet.tell("scale 1");
    fleet.hear("scaled 1").await;
    fleet.expect_nodes(&["gateway-1"]).await;
    let (_, all) = crowd.expect_all().await;
    assert!(
        all.iter()
            .all(|(_, heard)| heard.gateways.contains("gateway-1"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_is_killed_takes_nothing_along() {
    let file = configuration();
    let mut fleet = Fleet::start(3, &[("CONFIG_FILE", &file)]).await;
    let crowd = Crowd::gather(&fleet).await;
    crowd.publisher.publishes(100).await;
    fleet.tell("kill 2");
    fleet.hear("gateway-2 ended").await;
    fleet.tell("start 2");
    fleet.hear("gateway-2 ").await;
    crowd.publisher.publishes(100).await;
    let (_, all) = crowd.expect_all().await;
    assert!(all.iter().any(|(_, heard)| heard.returns > 0));
}

/// A position that one gateway gave is good on every other, for both protocols.
#[tokio::test]
async fn a_client_comes_back_to_another_gateway() {
    let fleet = Fleet::start(2, &[]).await;
    let (first, second) = (fleet.gateway(1), fleet.gateway(2));
    let mut socket = Socket::open(&first).await;
    let subscribed = socket.subscribe("news").await;
    let mut stream = EventStream::open(&first, "channel=news", &[]).await;
    first.publish("news", &json!(1)).await;
    assert_eq!(stream.event().await.json()["data"], 1);
    assert_eq!(socket.next().await["data"], 1);
    socket.close().await;
    let id = stream.id().to_owned();
    drop(stream);
    first.publish("news", &json!(2)).await;
    let mut socket = Socket::open(&second).await;
    let position = json!({"epoch": subscribed["epoch"], "offset": 1});
    let answer = socket.recover("news", &position).await;
    assert_eq!(answer["recovered"], true, "{answer}");
    assert_eq!(socket.next().await["data"], 2);
    let mut stream = EventStream::resume(&second, "channel=news", &id).await;
    assert_eq!(stream.event().await.json()["data"], 2);
}
