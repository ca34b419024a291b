//! Presence and orders: whoever is connected, wherever.

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::orders::{cut, mend};
use crate::support::hub::SECRET;
use crate::support::raw::{self, FIN, PING, PONG, Raw};
use crate::support::token::{token, token_of};
use crate::support::ws::Socket;
use crate::support::{Hub, eventually};
use crate::{Fleet, RedisServer, node};

/// Connections and users. A node that has too much to do for a moment says 503, and is asked again.
async fn count(hub: &Hub) -> (u64, u64) {
    let presence = eventually("a count", async || {
        let answer = hub.get("/hub/channels/room/presence").await;
        (answer.status != 503).then_some(answer)
    });
    let presence = presence.await.json();
    let number = |name: &str| presence[name].as_u64().expect("a count");
    (number("count"), number("users"))
}

async fn fleet_with_tokens() -> Fleet {
    let redis = RedisServer::start();
    let tokens = [("JWT_SECRET", SECRET)];
    let nodes = vec![
        node(&redis, 0, "", &tokens).await,
        node(&redis, 1, "", &tokens).await,
    ];
    Fleet { redis, nodes }
}

#[tokio::test]
async fn the_server_speaks_first_though_it_has_to_ask_redis() {
    let fleet = fleet_with_tokens().await;
    let hub = &fleet.nodes[0];
    // A token's channel: its position is asked for before the first message can be written.
    let bearer = token(json!({"sub": "ann", "channels": ["room"]}));
    let mut bytes = raw::handshake(hub, &format!("/ws/connect?token={bearer}")).into_bytes();
    bytes.extend(raw::text(r#"{"type":"ping","id":1}"#));
    bytes.extend(raw::text("no JSON"));
    bytes.extend(raw::frame(FIN | PING, b"early"));
    let mut stream = TcpStream::connect(hub.address()).await.expect("the hub");
    stream.write_all(&bytes).await.expect("sent");
    raw::read_head(&mut stream).await;
    let mut raw = Raw { stream };
    for begin in [
        r#"{"type":"connected","#,
        r#"{"type":"pong","id":1,"#,
        r#"{"type":"error","code":"bad_request","#,
    ] {
        let (_, message) = raw.next().await.expect("a message");
        let message = String::from_utf8_lossy(&message);
        assert!(message.starts_with(begin), "{message} is not {begin}");
    }
    assert_eq!(raw.next().await, Some((FIN | PONG, b"early".to_vec())));
}

#[tokio::test]
async fn members_of_all_nodes_are_present_everywhere() {
    let fleet = fleet_with_tokens().await;
    let [one, other] = [&fleet.nodes[0], &fleet.nodes[1]];
    let mut watcher = Socket::open(one).await;
    let watch = json!({"type": "subscribe", "channel": "room", "presence": true});
    watcher.ask(&watch).await;
    let own = watcher.next_of("join").await;
    assert_eq!(own["client"], watcher.client());
    let mut ann = Socket::open_as(other, &token_of("ann")).await;
    ann.subscribe("room").await;
    let join = watcher.next_of("join").await;
    assert_eq!(
        (&join["client"], &join["user"]),
        (&json!(ann.client()), &json!("ann"))
    );
    for hub in [one, other] {
        assert_eq!(count(hub).await, (2, 2));
    }
    let client = ann.client();
    ann.close().await;
    let leave = watcher.next_of("leave").await;
    assert_eq!(leave["client"], client);
    assert_eq!(count(other).await, (1, 1));
}

#[tokio::test]
async fn orders_reach_connections_on_every_node() {
    let fleet = fleet_with_tokens().await;
    let [one, other] = [&fleet.nodes[0], &fleet.nodes[1]];
    let mut anns = [
        Socket::open_as(one, &token_of("ann")).await,
        Socket::open_as(other, &token_of("ann")).await,
    ];
    let order = |channel: Option<&str>| match channel {
        Some(channel) => json!({"user": "ann", "channel": channel}),
        None => json!({"user": "ann"}),
    };
    assert_eq!(
        one.post("/hub/subscribe", &order(Some("room")))
            .await
            .status,
        200
    );
    for ann in &mut anns {
        assert_eq!(ann.next_of("subscribed").await["channel"], "room");
    }
    other.publish("room", &json!("hello")).await;
    for ann in &mut anns {
        assert_eq!(ann.next_of("publication").await["data"], "hello");
    }
    other.post("/hub/unsubscribe", &order(Some("room"))).await;
    for ann in &mut anns {
        assert_eq!(ann.next_of("unsubscribed").await["channel"], "room");
    }
    one.post("/hub/disconnect", &order(None)).await;
    for ann in &mut anns {
        assert_eq!(ann.closed().await.0, 4002);
    }
}

/// Joins and leaves are kept nowhere: after a cut those who watch are told who is there.
#[tokio::test]
async fn who_watches_is_told_who_is_there_after_a_cut() {
    let (redis, tokens) = (RedisServer::start(), [("JWT_SECRET", SECRET)]);
    let unkept = "[namespaces.unkept]\nhistory = { size = 0, ttl = \"1m\" }";
    let nodes = vec![
        node(&redis, 0, unkept, &tokens).await,
        node(&redis, 1, unkept, &tokens).await,
    ];
    let fleet = Fleet { redis, nodes };
    let [one, other] = [&fleet.nodes[0], &fleet.nodes[1]];
    for room in ["room", "unkept:room"] {
        let watch = json!({"type": "subscribe", "channel": room, "presence": true});
        let mut watchers = [Socket::open(other).await, Socket::open_packed(other).await];
        for watcher in &mut watchers {
            watcher.ask(&watch).await;
        }
        let mut ann = Socket::open_as(one, &token_of("ann")).await;
        ann.subscribe(room).await;
        for watcher in &mut watchers {
            while watcher.next_of("join").await["client"] != ann.client() {}
        }
        let mut bob = Socket::open_as(one, &token_of("bob")).await;
        bob.subscribe(room).await;
        for watcher in &mut watchers {
            while watcher.next_of("join").await["client"] != bob.client() {}
        }
        cut(&fleet).await;
        ann.close().await;
        let path = format!("/hub/channels/{room}/presence");
        let present = eventually("somebody has left", async || {
            let present = one.get(&path).await.json();
            (present["count"] == 3).then_some(present)
        })
        .await;
        mend(&fleet).await;
        for watcher in &mut watchers {
            let told = watcher.next_of("presence").await;
            assert_eq!(told.get("id"), None);
            for what in ["clients", "count", "users", "channel"] {
                assert_eq!(told[what], present[what], "{what}");
            }
        }
        // Then it goes on, and nothing was told twice.
        let client = bob.client();
        bob.close().await;
        for watcher in &mut watchers {
            let message = watcher.next().await;
            assert_eq!(
                [&message["type"], &message["client"]],
                [&json!("leave"), &json!(client)]
            );
        }
    }
}

#[tokio::test]
async fn members_of_a_killed_node_leave_once() {
    let mut fleet = fleet_with_tokens().await;
    let mut watchers = [
        Socket::open(&fleet.nodes[0]).await,
        Socket::open_packed(&fleet.nodes[0]).await,
    ];
    for watcher in &mut watchers {
        let watch = json!({"type": "subscribe", "channel": "room", "presence": true});
        watcher.ask(&watch).await;
    }
    let mut leaving = node(&fleet.redis, 2, "", &[("JWT_SECRET", SECRET)]).await;
    leaving.terminate();
    assert_eq!(leaving.exit_code().await, Some(0));
    let dying = fleet.nodes.pop().expect("a node");
    let mut members = Vec::new();
    for user in ["ann", "bob", "cem"] {
        let mut socket = Socket::open_as(&dying, &token_of(user)).await;
        socket.subscribe("room").await;
        members.push((socket.client(), socket));
    }
    eventually("all are there", async || {
        (count(&fleet.nodes[0]).await.0 == 5).then_some(())
    })
    .await;
    // The end of the value is a SIGKILL.
    drop(dying);
    eventually("they left", async || {
        (count(&fleet.nodes[0]).await.0 == 2).then_some(())
    })
    .await;
    let mut expected: Vec<Value> = members.iter().map(|(client, _)| json!(client)).collect();
    expected.sort_by_key(ToString::to_string);
    for watcher in &mut watchers {
        let mut left = Vec::new();
        while left.len() < expected.len() {
            left.push(watcher.next_of("leave").await["client"].clone());
        }
        left.sort_by_key(ToString::to_string);
        assert_eq!(left, expected);
        watcher.expect_quiet().await;
    }
    let lost = "fanfare_fleet_nodes_lost_total";
    let lost = eventually("the node is counted", async || {
        let count = fleet.nodes[0].metric(lost).await;
        (count > 0.0).then_some(count)
    })
    .await;
    assert!(lost < 2.0, "who took leave is counted too");
}

/// While the server refuses to write nobody can renew a lease, though everybody is connected.
#[tokio::test]
async fn nobody_leaves_because_redis_refused_to_write() {
    let mut fleet = Fleet::start(3).await;
    let watch = json!({"type": "subscribe", "channel": "room", "presence": true});
    let mut watchers = Vec::new();
    for node in &fleet.nodes[..2] {
        let mut watcher = Socket::open(node).await;
        watcher.ask(&watch).await;
        watchers.push(watcher);
    }
    let dying = fleet.nodes.pop().expect("a node");
    let mut last = Socket::open(&dying).await;
    last.subscribe("room").await;
    eventually("all are there", async || {
        (count(&fleet.nodes[0]).await.0 == 3).then_some(())
    })
    .await;
    for watcher in &mut watchers {
        while watcher.next_of("join").await["client"] != json!(last.client()) {}
    }
    let subscribers = async || {
        let channels = fleet.nodes[0].get("/hub/channels").await.json();
        channels["channels"][0]["subscribers"].as_u64()
    };
    eventually("all counts are told", async || {
        (subscribers().await == Some(3)).then_some(())
    })
    .await;
    fleet
        .redis
        .ask(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    let ended = || {
        let time = fleet.redis.ask(&["TIME"]);
        let now: f64 = time
            .lines()
            .next()
            .and_then(|s| s.parse().ok())
            .expect("seconds");
        let most = format!("{}", (now - 1.0) * 1000.0);
        fleet
            .redis
            .ask(&["ZCOUNT", "fanfare:{fleet}:leases", "-inf", &most])
            == "3"
    };
    eventually("all leases ended", async || ended().then_some(())).await;
    // What was known last holds meanwhile: each node's part of a limit hangs on it, too.
    let nodes = fleet.nodes[0].get("/hub/nodes").await.json();
    assert_eq!(nodes["nodes"].as_array().map(Vec::len), Some(3), "{nodes}");
    assert_eq!(subscribers().await, Some(3));
    fleet
        .redis
        .ask(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    // Who really goes now is the only one who left.
    let gone = json!(last.client());
    drop(dying);
    for watcher in &mut watchers {
        assert_eq!(watcher.next_of("leave").await["client"], gone);
    }
    assert_eq!(count(&fleet.nodes[0]).await.0, 2);
}

#[tokio::test]
async fn a_crowd_that_comes_together_is_told_in_few_commands() {
    const CROWD: u64 = 300;
    let fleet = fleet_with_tokens().await;
    let (hub, redis) = (&fleet.nodes[0], &fleet.redis);
    let mut anns = Vec::new();
    for _ in 0..CROWD {
        anns.push(Socket::open_as(hub, &token_of("ann")).await);
    }
    let joins = || {
        let stats = redis.ask(&["INFO", "commandstats"]);
        let mut lines = stats.lines();
        let line = lines.find(|line| line.starts_with("cmdstat_evalsha:"));
        let calls = line.and_then(|line| line.split_once("calls=")?.1.split(',').next());
        calls.map_or(0, |calls| calls.parse::<u64>().expect("a number"))
    };
    let before = joins();
    let order = json!({"user": "ann", "channel": "room"});
    hub.post("/hub/subscribe", &order).await;
    eventually("all are there", async || {
        (count(hub).await == (CROWD, 1)).then_some(())
    })
    .await;
    // Asking is a command as well, and leases go on.
    let took = joins() - before;
    assert!(took < CROWD / 2, "{took} commands for {CROWD}");
}
