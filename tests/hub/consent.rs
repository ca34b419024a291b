//! Back ends that are asked whether a client may connect, subscribe and publish.

mod back_end;

use std::time::Duration;

use serde_json::{Value, json};

use crate::events::expect_signed;
use crate::support::raw::{self, CLOSE, FIN, PING, PONG, Raw};
use crate::support::sse::EventStream;
use crate::support::token::{in_seconds, token, token_of};
use crate::support::ws::{Socket, handshake};
use crate::support::{DEADLINE, eventually, within};
use back_end::{BackEnd, http, says, yes};

fn subscribe(channel: &str) -> Value {
    json!({"type": "subscribe", "channel": channel})
}

fn publish(channel: &str, data: &Value) -> Value {
    json!({"type": "publish", "channel": channel, "data": data})
}

/// Lets in who has ann's cookie, as ann.
fn by_cookie(question: &Value) -> String {
    match question["headers"]["cookie"].as_str() {
        Some("sid=ann") => says(&json!({"allow": true, "user": "ann", "info": {"age": 7},
            "channels": ["mine", "room#ann"], "expires_at": in_seconds(1800)})),
        Some("sid=banned") => says(&json!({"allow": false, "message": "you are banned"})),
        _ => yes(),
    }
}

/// Lets in ann as an editor, and bob as somebody.
fn by_role(question: &Value) -> String {
    match question["headers"]["cookie"].as_str() {
        Some("sid=ann") => {
            says(&json!({"allow": true, "user": "ann", "roles": ["clerk", "editor"]}))
        }
        _ if question["ask"] != "connect" => yes(),
        _ => says(&json!({"allow": true, "user": "bob"})),
    }
}

#[tokio::test]
async fn roles_of_the_answer_open_what_a_namespace_keeps_for_them() {
    let file = "[namespaces.desk]\nsubscribe = [\"editor\"]\npublish = [\"editor\"]\n";
    let back_end = BackEnd::start(by_role).await;
    let variables = [("AUTH_REQUIRED", "true")];
    let hub = back_end.hub_with(file, &["connect", "subscribe"], &variables);
    let hub = hub.await;
    let (ann_is, bob_is) = ([("cookie", "sid=ann")], [("cookie", "sid=bob")]);

    let mut bob = Socket::open_at(&hub, "/ws/connect", &bob_is).await;
    for command in [subscribe("desk:1"), publish("desk:1", &json!(0))] {
        assert_eq!(bob.ask(&command).await["code"], "forbidden");
    }
    let stream = hub.request("GET", "/sse/connect?channel=desk:1", &bob_is, "");
    stream.await.expect_error(403, "forbidden");

    let mut stream = EventStream::open(&hub, "channel=desk:1", &ann_is).await;
    let mut ann = Socket::open_at(&hub, "/ws/connect", &ann_is).await;
    ann.subscribe("desk:1").await;
    // Whoever is asked next hears of them.
    let asked = back_end.asked().last().expect("a question").json();
    assert_eq!(asked["role"], "clerk", "{asked}");
    assert_eq!(asked["roles"], json!(["clerk", "editor"]), "{asked}");
    // They stay beside those of a token that comes later.
    let refresh = json!({"type": "refresh", "token": token(json!({"sub": "ann", "role": "user"}))});
    assert_eq!(ann.ask(&refresh).await["type"], "refreshed");
    let published = ann.ask(&publish("desk:1", &json!(1))).await;
    assert_eq!(published["type"], "published", "{published}");
    assert_eq!(stream.event().await.json()["data"], 1);
}

#[tokio::test]
async fn a_cookie_can_say_who_comes() {
    let back_end = BackEnd::start(by_cookie).await;
    let hub = back_end.hub(&["connect"], &[("AUTH_REQUIRED", "true")]);
    let hub = hub.await;
    let cookie = [("cookie", "sid=ann")];
    let mut ann = Socket::open_at(&hub, "/ws/connect", &cookie).await;
    assert_eq!(ann.connected["user_id"], "ann");
    assert!(
        ann.connected["expires_in"].as_u64() > Some(1700),
        "{}",
        ann.connected
    );
    let channels = &ann.connected["channels"];
    assert!(
        channels["mine"].is_object() && channels["room#ann"].is_object(),
        "{channels}"
    );
    let presence = ann
        .ask(&json!({"type": "presence", "channel": "mine"}))
        .await;
    let client = ann.client();
    assert_eq!(
        presence["clients"][&client]["info"],
        json!({"age": 7}),
        "{presence}"
    );

    // What it says holds for the token that comes later too.
    let refresh = json!({"type": "refresh", "token": token_of("ann")});
    let refreshed = ann.ask(&refresh).await;
    assert_eq!(refreshed["type"], "refreshed", "{refreshed}");
    let expires_in = refreshed["expires_in"].as_u64();
    assert!(
        expires_in <= Some(1800),
        "not the token's hour: {refreshed}"
    );
    let token = token(json!({"role": "publisher"}));
    let body = json!({"channel": "room#ann", "data": 1});
    assert_eq!(
        hub.call("POST", "/hub/publish", &token, &body).await.status,
        200
    );
    assert_eq!(ann.next_of("publication").await["data"], 1);
}

/// A browser sends ann's cookie whatever page opens the socket.
#[tokio::test]
async fn a_page_of_elsewhere_does_not_connect_by_its_visitors_cookie() {
    let back_end = BackEnd::start(by_cookie).await;
    let hub = back_end.hub(&["connect"], &[("AUTH_REQUIRED", "true")]);
    let hub = hub.await;
    assert!(hub.log().contains("only pages of the hub's own origin"));
    for evil in ["https://evil.example", "null"] {
        let headers = [("cookie", "sid=ann"), ("origin", evil)];
        let refused = handshake(&hub, "/ws/connect", &headers).await;
        let refused = refused.expect_err("refused");
        assert_eq!(refused.status, 403);
        assert_eq!(refused.body["message"], "this origin is not allowed");
        let path = "/sse/connect?channel=mine";
        let answer = hub.request("GET", path, &headers, "").await;
        answer.expect_error(403, "forbidden");
    }
    assert_eq!(back_end.asked().len(), 0, "it is not even asked");
    let own = format!("http://{}", hub.host());
    for headers in [
        &[("cookie", "sid=ann"), ("origin", &*own)][..],
        &[("cookie", "sid=ann")],
    ] {
        let ann = Socket::open_at(&hub, "/ws/connect", headers).await;
        assert_eq!(ann.connected["user_id"], "ann");
        EventStream::open(&hub, "channel=mine", headers).await;
    }

    let listed = [("ALLOW_ORIGINS", "https://app.example")];
    let hub = back_end.hub(&["connect"], &listed).await;
    let headers = [("cookie", "sid=ann"), ("origin", "https://app.example")];
    let ann = Socket::open_at(&hub, "/ws/connect", &headers).await;
    assert_eq!(ann.connected["user_id"], "ann");

    // Who comes is not known by cookies here.
    let told = [("CONNECT_HEADERS", "user-agent")];
    let hub = back_end.hub(&["connect"], &told).await;
    Socket::open_at(&hub, "/ws/connect", &headers).await;
}

#[tokio::test]
async fn who_is_not_let_in_is_told_why() {
    let back_end = BackEnd::start(by_cookie).await;
    let hub = back_end.hub(&["connect"], &[("AUTH_REQUIRED", "true")]);
    let hub = hub.await;
    let headers = [("cookie", "sid=ann"), ("x-private", "secret")];
    // A session that is not its own helps nobody, however it is known who it is.
    let other = handshake(&hub, "/ws/connect?session_id=x", &headers[..1]).await;
    assert_eq!(
        other.expect_err("refused").body["message"],
        "Session mismatch"
    );

    // Who is nobody stays outside where tokens are required, whatever the back end allows.
    let nobody = handshake(&hub, "/ws/connect", &headers[1..]).await;
    assert_eq!(nobody.expect_err("refused").status, 401);
    let banned = handshake(&hub, "/ws/connect", &[("cookie", "sid=banned")]).await;
    let banned = banned.expect_err("refused");
    assert_eq!(banned.status, 403);
    assert_eq!(
        banned.body,
        json!({"error": "forbidden", "message": "you are banned"})
    );
    // A token that is wrong is not asked about.
    let before = back_end.asked().len();
    assert_eq!(
        handshake(&hub, "/ws/connect?token=x", &[])
            .await
            .expect_err("refused")
            .status,
        401
    );
    assert_eq!(back_end.asked().len(), before);
}

#[tokio::test]
async fn a_question_is_signed_and_tells_what_it_is_to_tell() {
    let back_end = BackEnd::start(by_cookie).await;
    let hub = back_end.hub(&["connect"], &[("NODE_ID", "n-1")]).await;
    let headers = [
        ("cookie", "sid=x"),
        ("x-private", "secret"),
        ("authorization", "Basic eDp5"),
    ];
    let path = "/ws/connect?session_id=s-1";
    let socket = Socket::open_at(&hub, path, &headers).await;
    assert_eq!(socket.connected["session_id"], "s-1");
    let asked = &back_end.asked()[0];
    assert_eq!(
        asked.json(),
        json!({"ask": "connect", "node": "n-1", "transport": "ws", "user": "", "authenticated": false,
            "session": "s-1", "address": "127.0.0.1", "headers": {"cookie": "sid=x"}})
    );
    expect_signed(&asked.signature, &asked.body);
}

#[tokio::test]
async fn a_clients_end_and_user_are_what_token_and_answer_both_allow() {
    let back_end = BackEnd::start(|question| match question["user"].as_str() {
        Some("short") => says(&json!({"allow": true, "expires_at": in_seconds(1)})),
        Some("taken") => says(&json!({"allow": true, "user": "somebody-else"})),
        _ => says(&json!({"allow": false})),
    })
    .await;
    let hub = back_end.hub(&["connect"], &[]).await;
    let mut short = Socket::open_as(&hub, &token_of("short")).await;
    assert_eq!(short.closed().await.0, 4001);
    // An answer that contradicts the token is none.
    let path = format!("/ws/connect?token={}", token_of("taken"));
    assert_eq!(
        handshake(&hub, &path, &[])
            .await
            .expect_err("refused")
            .status,
        503
    );
    // Clients of that system expect the upgrade, and then a close.
    let path = hub.user("no").await.ws_path();
    let (stream, protocol) = handshake(&hub, &path, &[]).await.expect("upgraded");
    let closed = Socket::begin(stream, protocol.as_deref()).await;
    assert_eq!(
        closed.expect_err("closed"),
        (1008, "not allowed".to_owned())
    );
}

#[tokio::test]
async fn a_subscription_waits_for_its_answer_and_what_follows_waits_for_it() {
    let back_end = BackEnd::start(|question| {
        let is_open = question["channel"] != "closed";
        says(&json!({"allow": is_open, "message": "closed to all"}))
    })
    .await;
    let hub = back_end.hub(&["subscribe"], &[]).await;
    let mut ann = Socket::open_as(
        &hub,
        &token(json!({"sub": "ann", "role": "user", "channels": ["own"]})),
    )
    .await;
    back_end.hold();
    ann.send_all(&[
        subscribe("open"),
        subscribe("closed"),
        json!({"type": "unsubscribe", "channel": "open"}),
    ])
    .await;
    back_end.until(1).await;
    // The loop goes on meanwhile, for others and for this one.
    let mut other = Socket::open(&hub).await;
    other.expect_alive().await;
    ann.expect_quiet().await;
    back_end.let_go(10);
    assert_eq!(ann.next().await["type"], "subscribed");
    let refused = ann.next().await;
    assert_eq!(
        (refused["code"].as_str(), refused["message"].as_str()),
        (Some("forbidden"), Some("closed to all"))
    );
    assert_eq!(ann.next().await["type"], "unsubscribed");
    let question = back_end.asked()[0].json();
    assert_eq!(
        question,
        json!({"ask": "subscribe", "node": question["node"], "client": ann.client(), "transport": "ws",
            "user": "ann", "authenticated": true, "role": "user", "channel": "open"})
    );
    // Neither its own channels nor what a back end does by itself are asked about, and a channel that is forbidden anyway
    // is not either.
    ann.recover("own", &json!({"epoch": "x", "offset": 1}))
        .await;
    let order = json!({"user": "ann", "channel": "given"});
    assert_eq!(hub.post("/hub/subscribe", &order).await.status, 200);
    assert_eq!(ann.next_of("subscribed").await["channel"], "given");
    assert_eq!(ann.ask(&subscribe("room#bob")).await["code"], "forbidden");
    assert_eq!(back_end.count("subscribe"), 2);
    assert_eq!(
        hub.metric(r#"fanfare_consents_total{ask="subscribe",outcome="denied"}"#)
            .await,
        1.0
    );
}

#[tokio::test]
async fn an_answer_holds_for_as_long_as_it_says_and_for_whom() {
    let back_end = BackEnd::start(|question| match question["channel"].as_str() {
        Some("long") => says(&json!({"allow": true, "ttl": 600})),
        Some("no") => says(&json!({"allow": false, "ttl": 600})),
        _ => yes(),
    })
    .await;
    let hub = back_end.hub(&["subscribe"], &[]).await;
    for _ in 0..3 {
        let mut ann = Socket::open_as(&hub, &token_of("ann")).await;
        ann.subscribe("long").await;
        ann.subscribe("short").await;
        assert_eq!(ann.ask(&subscribe("no")).await["code"], "forbidden");
    }
    let channels = |channel: &str| {
        let asked = back_end.asked();
        asked
            .iter()
            .filter(|one| one.json()["channel"] == channel)
            .count()
    };
    assert_eq!(
        (channels("long"), channels("no"), channels("short")),
        (1, 1, 3)
    );
    let mut bob = Socket::open_as(&hub, &token_of("bob")).await;
    bob.subscribe("long").await;
    assert_eq!(channels("long"), 2, "bob is another one");
    assert_eq!(
        hub.metric(r#"fanfare_consents_total{ask="subscribe",outcome="kept"}"#)
            .await,
        4.0
    );
    assert!(
        back_end.connections() < back_end.asked().len(),
        "connections are kept"
    );
}

#[tokio::test]
async fn publications_are_asked_about_together_and_published_in_order() {
    let back_end = BackEnd::start(|question| match question["data"].as_u64() {
        Some(2) => says(&json!({"allow": false})),
        Some(3) => says(&json!({"allow": true, "data": {"three": "drei"}})),
        Some(4) => says(&json!({"allow": true, "data": "x".repeat(1024)})),
        _ => yes(),
    })
    .await;
    let file =
        "[namespaces.free]\nconsent = false\n[namespaces.default]\npublication_bytes_max = 1000";
    let hub = back_end.hub_with(file, &["publish"], &[]).await;
    let mut reader = Socket::open(&hub).await;
    reader.subscribe("news").await;
    let mut ann = Socket::open_as(&hub, &token_of("ann")).await;
    back_end.hold();
    let many: Vec<Value> = (1..=5)
        .map(|number| publish("news", &json!(number)))
        .collect();
    ann.send_all(&many).await;
    // All of them are asked about while none is answered.
    back_end.until(5).await;
    let free = publish("free:1", &json!(0));
    ann.send(&free).await;
    reader.expect_quiet().await;
    back_end.let_go(10);
    let mut answers = Vec::new();
    for _ in 0..6 {
        let answer = ann.next().await;
        answers.push(answer["code"].as_str().unwrap_or("published").to_owned());
    }
    assert_eq!(
        answers,
        [
            "published",
            "forbidden",
            "published",
            "unavailable",
            "published",
            "published"
        ]
    );
    let mut read = Vec::new();
    for _ in 0..3 {
        read.push(reader.next().await["data"].clone());
    }
    assert_eq!(read, [json!(1), json!({"three": "drei"}), json!(5)]);
    reader.expect_quiet().await;
    assert_eq!(back_end.asked().len(), 5, "nobody asks about free:1");
}

#[tokio::test]
async fn a_publication_whose_answer_comes_first_does_not_overtake() {
    let back_end = BackEnd::start(|question| match question["channel"].as_str() {
        Some("kept") => says(&json!({"allow": true, "ttl": 600})),
        _ => yes(),
    })
    .await;
    let hub = back_end.hub(&["publish"], &[]).await;
    let mut ann = Socket::open_as(&hub, &token_of("ann")).await;
    // From here on the answer about this channel is there at once, and about the other one it is not.
    assert_eq!(
        ann.ask(&publish("kept", &json!(0))).await["type"],
        "published"
    );
    let mut reader = Socket::open(&hub).await;
    reader.subscribe("kept").await;
    reader.subscribe("asked").await;
    back_end.hold();
    ann.send_all(&[publish("asked", &json!(1)), publish("kept", &json!(2))])
        .await;
    back_end.until(2).await;
    reader.expect_quiet().await;
    back_end.let_go(1);
    assert_eq!(reader.next().await["data"], 1);
    assert_eq!(reader.next().await["data"], 2);
}

#[tokio::test]
async fn event_streams_are_asked_about_with_all_their_channels() {
    let back_end = BackEnd::start(|question| match question["channel"].as_str() {
        Some("closed") => says(&json!({"allow": false})),
        Some("broken") => http(500, "", ""),
        None => says(&json!({"allow": true, "user": "ann", "channels": ["own"]})),
        _ => yes(),
    })
    .await;
    let hub = back_end.hub(&["connect", "subscribe"], &[]).await;
    let mut stream = EventStream::open(&hub, "channel=a&channel=own&channel=b", &[]).await;
    hub.publish("b", &json!(1)).await;
    assert_eq!(stream.event().await.json()["data"], 1);
    assert_eq!(
        (back_end.count("connect"), back_end.count("subscribe")),
        (1, 2)
    );
    let asked = back_end.asked()[1].json();
    assert_eq!(
        (&asked["user"], &asked["transport"]),
        (&json!("ann"), &json!("sse"))
    );
    let refused = hub.get("/sse/connect?channel=a&channel=closed").await;
    refused.expect_error(403, "forbidden");
    let broken = hub.get("/sse/connect?channel=a&channel=broken").await;
    broken.expect_error(503, "unavailable");
    assert_eq!(broken.header("retry-after"), Some("1"));
}

#[tokio::test]
async fn publishers_with_a_token_are_asked_about_and_the_back_end_itself_is_not() {
    let back_end = BackEnd::start(|question| match question["data"].as_u64() {
        Some(2) => says(&json!({"allow": false, "message": "not two"})),
        Some(3) => says(&json!({"allow": true, "data": 33})),
        Some(4) => http(500, "", ""),
        _ => yes(),
    })
    .await;
    let variables = [
        ("HUB_API_KEY", "hub-key-of-16-bytes"),
        ("AUTH_REQUIRED", "true"),
    ];
    let hub = back_end.hub(&["publish"], &variables).await;
    let one = |data: u64| json!({"channel": "news", "data": data});
    let key = "hub-key-of-16-bytes";
    let direct = hub.call("POST", "/hub/publish", key, &one(2)).await;
    assert_eq!(direct.status, 200, "{direct:?}");
    assert_eq!(back_end.asked().len(), 0);
    let token = token(json!({"sub": "bot", "role": "publisher"}));
    let call = async |path: &str, body: Value| hub.call("POST", path, &token, &body).await;
    assert_eq!(call("/hub/publish", one(1)).await.status, 200);
    let refused = call("/hub/publish", one(2)).await;
    refused.expect_error(403, "forbidden");
    assert_eq!(refused.json()["message"], "not two");
    let broken = call("/hub/publish", one(4)).await;
    broken.expect_error(503, "unavailable");
    assert_eq!(broken.header("retry-after"), Some("1"));
    let batch =
        json!({"publications": [one(1), one(2), one(3), {"channel": "a b", "data": 1}, one(4)]});
    let batch = call("/hub/batch", batch).await;
    assert_eq!(batch.status, 200, "{batch:?}");
    let results = batch.json()["results"].clone();
    let errors: Vec<&str> = (0..5)
        .map(|at| results[at]["error"].as_str().unwrap_or("-"))
        .collect();
    assert_eq!(
        errors,
        ["-", "forbidden", "-", "bad_request", "unavailable"]
    );
    let broadcast = json!({"channels": ["news", "sport"], "data": 3});
    assert_eq!(call("/hub/broadcast", broadcast).await.status, 200);
    let history = hub
        .call("GET", "/hub/channels/news/history", key, &Value::Null)
        .await
        .json();
    let data: Vec<u64> = history["publications"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|publication| publication["data"].as_u64())
        .collect();
    assert_eq!(data, [2, 1, 1, 33, 33]);
    let question = back_end.asked()[0].json();
    assert_eq!(
        (&question["user"], &question["role"]),
        (&json!("bot"), &json!("publisher"))
    );
    assert_eq!(
        (&question["transport"], &question["client"]),
        (&json!("http"), &Value::Null)
    );
}

#[tokio::test]
async fn what_cannot_be_asked_is_not_allowed_and_may_be_tried_again() {
    let elsewhere = BackEnd::start(|_| yes()).await;
    let location = format!("location: {}\r\n", elsewhere.url("connect"));
    let large = format!(r#"{{"allow":true,"message":"{}"}}"#, "x".repeat(1 << 20));
    let wrong = vec![
        http(500, "", r#"{"allow":true}"#),
        http(404, "", ""),
        http(204, "", ""),
        http(302, &location, ""),
        http(307, &location, ""),
        http(200, "", &large),
        http(200, "", ""),
        http(200, "", "yes"),
        http(200, "", r#"{"allow":"true"}"#),
        http(200, "", r#"{"allow":true,"alow":false}"#),
        http(200, "", "{\"allow\":true,\"message\":\"\u{0}\"}"),
        "HTTP/1.1 200 OK\r\ncontent-length: 100\r\nconnection: close\r\n\r\n{\"allow\":true}"
            .to_owned(),
        "nonsense\r\n\r\n".to_owned(),
        String::new(),
    ];
    let count = wrong.len();
    let back_end = BackEnd::start(move |question| {
        let at = question["user"]
            .as_str()
            .and_then(|user| user.parse::<usize>().ok());
        at.map_or_else(yes, |at| wrong[at].clone())
    })
    .await;
    let matters = ["connect", "subscribe", "publish"];
    let connect_only = back_end.hub(&matters[..1], &[]).await;
    let others = back_end.hub(&matters[1..], &[]).await;
    for at in 0..count {
        let token = token_of(&at.to_string());
        let path = format!("/ws/connect?token={token}");
        let refused = handshake(&connect_only, &path, &[])
            .await
            .expect_err("refused");
        assert_eq!(
            (refused.status, &refused.body["error"]),
            (503, &json!("unavailable")),
            "{at}"
        );
        let mut socket = Socket::open_as(&others, &token).await;
        for command in [subscribe("news"), publish("news", &json!(1))] {
            let answer = socket.ask(&command).await;
            assert_eq!(answer["code"], "unavailable", "{at}: {answer}");
        }
        socket.expect_alive().await;
    }
    let history = others.get("/hub/channels/news/history").await.json();
    assert_eq!(history["publications"], json!([]));
    assert_eq!(elsewhere.asked().len(), 0, "no redirect is followed");
    let line = r#"fanfare_consents_total{ask="connect",outcome="allowed"}"#;
    assert_eq!(connect_only.metric(line).await, 0.0);
}

#[tokio::test]
async fn silence_and_absence_are_told_in_time() {
    let back_end = BackEnd::start(|_| yes()).await;
    back_end.hold();
    // Ten times longer, and the answer comes after this test has lost its patience.
    let timeout = (DEADLINE / 10 + Duration::from_millis(100)).as_millis();
    let hub = back_end
        .hub(
            &["subscribe"],
            &[("CONSENT_TIMEOUT_MS", &timeout.to_string())],
        )
        .await;
    let mut socket = Socket::open(&hub).await;
    assert_eq!(socket.ask(&subscribe("news")).await["code"], "unavailable");
    back_end.let_go(100);
    socket.subscribe("news").await;
    assert_eq!(
        hub.metric(r#"fanfare_consents_total{ask="subscribe",outcome="timed_out"}"#)
            .await,
        1.0
    );
    // A port where nobody listens.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    drop(listener);
    let hub = back_end.hub(&[], &[("CONNECT_URL", &url)]).await;
    assert_eq!(
        handshake(&hub, "/ws/connect", &[])
            .await
            .expect_err("refused")
            .status,
        503
    );
    assert_eq!(
        hub.metric(r#"fanfare_consents_total{ask="connect",outcome="unreachable"}"#)
            .await,
        1.0
    );
}

/// What a client says while its command waits for a back end is not read, its pongs neither: it was taken for dead.
#[tokio::test]
async fn who_waits_for_a_back_end_is_not_taken_for_dead() {
    let back_end = BackEnd::start(|_| yes()).await;
    let beats = [
        ("WS_PING_INTERVAL_MS", "100"),
        ("WEBSOCKETS_PONG_TIMEOUT", "1"),
    ];
    let hub = back_end.hub(&["subscribe"], &beats).await;
    back_end.hold();
    let mut raw = Raw::connect(&hub).await;
    for channel in ["first", "second"] {
        raw.send(&raw::text(&subscribe(channel).to_string())).await;
    }
    back_end.until(1).await;
    // Twice as many as there is time for.
    for _ in 0..20 {
        let (head, payload) = within("a ping", raw.next()).await.expect("a frame");
        assert_eq!(head, FIN | PING, "{}", String::from_utf8_lossy(&payload));
        raw.send(&raw::frame(FIN | PONG, &payload)).await;
    }
    back_end.let_go(2);
    let mut subscribed = 0;
    while subscribed < 2 {
        let (head, payload) = within("the answers", raw.next()).await.expect("a frame");
        assert_ne!(head, FIN | CLOSE, "{}", String::from_utf8_lossy(&payload));
        subscribed += usize::from(payload.starts_with(br#"{"type":"subscribed""#));
    }
}

#[tokio::test]
async fn so_many_ask_at_once_so_many_wait_and_the_rest_is_told_at_once() {
    let back_end = BackEnd::start(|_| yes()).await;
    let variables = [("CONSENT_CONCURRENCY", "2"), ("CONSENT_QUEUE", "3")];
    let hub = back_end.hub(&["subscribe"], &variables).await;
    back_end.hold();
    let mut sockets = Vec::new();
    for _ in 0..5 {
        let mut socket = Socket::open(&hub).await;
        socket.send(&subscribe("news")).await;
        sockets.push(socket);
    }
    back_end.until(2).await;
    // When all five have been read, each has a place: one more has none.
    let read = r#"fanfare_commands_total{type="subscribe"}"#;
    eventually("all are read", async || {
        (hub.metric(read).await == 5.0).then_some(())
    })
    .await;
    let full = r#"fanfare_consents_total{ask="subscribe",outcome="full"}"#;
    let mut last = Socket::open(&hub).await;
    eventually("one too many", async || {
        last.send(&subscribe("news")).await;
        (last.next().await["code"] == "unavailable").then_some(())
    })
    .await;
    assert_eq!(hub.metric(full).await, 1.0);
    assert_eq!(back_end.asked().len(), 2, "no more than two at once");
    back_end.let_go(10);
    for socket in &mut sockets {
        assert_eq!(socket.next().await["type"], "subscribed");
    }
    last.subscribe("news").await;
    assert!(back_end.connections() <= 2);
}

#[tokio::test]
async fn who_leaves_while_it_is_asked_about_leaves_nothing_behind() {
    let back_end = BackEnd::start(|_| yes()).await;
    let hub = back_end.hub(&["subscribe", "publish"], &[]).await;
    back_end.hold();
    let mut socket = Socket::open(&hub).await;
    socket
        .send_all(&[publish("news", &json!(1)), subscribe("news")])
        .await;
    back_end.until(1).await;
    drop(socket);
    back_end.let_go(10);
    let mut next = Socket::open(&hub).await;
    next.subscribe("other").await;
    eventually("one subscription", async || {
        (hub.metric("fanfare_subscriptions").await == 1.0).then_some(())
    })
    .await;
    let channels = hub.get("/hub/channels").await.json();
    assert_eq!(
        channels["channels"].as_array().map(Vec::len),
        Some(1),
        "{channels}"
    );
}
