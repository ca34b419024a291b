//! The back ends' HTTP, handler by handler, without a socket: what is answered, with which status, and what reaches the
//! broker. The broker is a recorder that answers as it is told; real brokers have their own suite.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use fanfare::api::{ApiError, ApiState, Config, LocalChannels, router};
use fanfare::auth::HubCaller;
use fanfare::broker::{
    ActiveChannel, Answer, Broker, BrokerError, Control, NodeInfo, Page, Presence, Publish,
    Published, ReadLimit, Recovery, Results, Sink, Start, Target,
};
use fanfare::events::Consent;
use fanfare::model::{
    BodyError, ChannelKey, ClientId, Epoch, ErrorCode, Member, Namespace, Namespaces, NodeId,
    Origin, Payload, Position, Publication,
};
use http::header::{ALLOW, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

/// Answers as it is told and remembers what it was asked.
#[derive(Default)]
struct Recorder {
    fails: Option<BrokerError>,
    published: Mutex<Vec<Publish>>,
    controls: Mutex<Vec<Control>>,
    read: Mutex<Vec<(Option<Position>, ReadLimit)>>,
}

const EPOCH: Epoch = Epoch::from_bits(7);

impl Recorder {
    fn answer<T: Send + 'static>(&self, value: T) -> Answer<'_, T> {
        let result = self.fails.map_or(Ok(value), Err);
        Box::pin(async move { result })
    }

    fn top() -> Position {
        Position::new(EPOCH, 2)
    }
}

impl Broker for Recorder {
    fn attach(&self, _: Arc<dyn Sink>) {}

    fn publish(&self, publishes: Vec<Publish>) -> Results<'_> {
        let mut published = self.published.lock().expect("no test panics in here");
        let results = publishes
            .into_iter()
            .map(|publish| {
                published.push(publish);
                let position = Some(Position::new(EPOCH, published.len() as u64));
                self.fails.map_or(
                    Ok(Published {
                        position,
                        duplicate: false,
                    }),
                    Err,
                )
            })
            .collect();
        Box::pin(async move { results })
    }

    fn history<'a>(
        &'a self,
        _: &'a ChannelKey,
        since: Option<Position>,
        limit: ReadLimit,
    ) -> Answer<'a, Page> {
        self.read
            .lock()
            .expect("no test panics in here")
            .push((since, limit));
        let from = |origin| Publication {
            offset: 1,
            data: Payload::from_plain_json(Bytes::from_static(b"{\"n\":1}")),
            origin,
            key: Some("k\"".into()),
        };
        let origin = Origin {
            client: ClientId::from_bits(1),
            user: "ann".into(),
        };
        self.answer(Page {
            publications: vec![Arc::new(from(None)), Arc::new(from(Some(origin)))],
            top: Self::top(),
            more: true,
        })
    }

    fn recover<'a>(&'a self, _: &'a ChannelKey, _: Position, _: ReadLimit) -> Answer<'a, Recovery> {
        self.answer(Recovery::Lost {
            top: Self::top(),
            fork: None,
        })
    }

    fn position<'a>(&'a self, _: &'a ChannelKey) -> Answer<'a, Start> {
        self.answer(Some(Self::top()))
    }

    fn clear_history<'a>(&'a self, _: &'a ChannelKey) -> Answer<'a, Start> {
        self.answer(Some(Self::top()))
    }

    fn add_interest<'a>(&'a self, _: &'a ChannelKey) -> Answer<'a, Start> {
        self.answer(None)
    }

    fn remove_interest<'a>(&'a self, _: &'a ChannelKey) -> Answer<'a, ()> {
        self.answer(())
    }

    fn join<'a>(&'a self, _: &'a ChannelKey, _: Arc<Member>) -> Answer<'a, ()> {
        self.answer(())
    }

    fn leave<'a>(&'a self, _: &'a ChannelKey, _: ClientId) -> Answer<'a, ()> {
        self.answer(())
    }

    fn presence<'a>(&'a self, _: &'a ChannelKey, limit: usize) -> Answer<'a, Presence> {
        let member = Arc::new(Member {
            client: ClientId::from_bits(1),
            user: "ann".into(),
            info: Some(Payload::from_plain_json(Bytes::from_static(b"[1]"))),
        });
        self.answer(Presence {
            members: vec![member; limit.min(1)],
            clients: 3,
            users: 2,
        })
    }

    fn control(&self, control: Control) -> Answer<'_, ()> {
        self.controls
            .lock()
            .expect("no test panics in here")
            .push(control);
        self.answer(())
    }

    fn announce(&self, _: NodeInfo, _: Vec<ActiveChannel>) -> Answer<'_, ()> {
        self.answer(())
    }

    fn withdraw(&self) -> Answer<'_, ()> {
        self.answer(())
    }

    fn channels_elsewhere<'a>(
        &'a self,
        prefix: &'a str,
        _: Option<&'a str>,
        _: usize,
    ) -> Answer<'a, Vec<ActiveChannel>> {
        let elsewhere = [("c:1", 3), ("c:10", 2)].map(|(name, subscribers)| ActiveChannel {
            channel: key(name),
            subscribers,
        });
        self.answer(match prefix {
            "c:1" => elsewhere.to_vec(),
            _ => Vec::new(),
        })
    }

    fn subscribers_elsewhere<'a>(&'a self, channel: &'a ChannelKey) -> Answer<'a, u64> {
        self.answer(if channel.name() == "far" { 4 } else { 0 })
    }

    fn nodes(&self) -> Answer<'_, Vec<NodeInfo>> {
        self.answer(vec![node("b", 5), node("a", 1)])
    }

    fn is_ready(&self) -> bool {
        self.fails.is_none()
    }

    fn kind(&self) -> &'static str {
        "memory"
    }
}

/// Five channels of this node, `c:0` to `c:4`.
struct FiveChannels;

impl LocalChannels for FiveChannels {
    fn channels(&self, prefix: &str, cursor: Option<&str>, limit: usize) -> Vec<ActiveChannel> {
        (0..5)
            .map(|number| key(&format!("c:{number}")))
            .filter(|channel| channel.name().starts_with(prefix))
            .filter(|channel| cursor.is_none_or(|cursor| channel.name() > cursor))
            .map(|channel| ActiveChannel {
                channel,
                subscribers: 9,
            })
            .take(limit)
            .collect()
    }

    fn subscribers(&self, _: &ChannelKey) -> u64 {
        9
    }
}

fn key(name: &str) -> ChannelKey {
    ChannelKey::new(name).expect("a channel name")
}

fn node(id: &str, connections: u64) -> NodeInfo {
    NodeInfo {
        id: NodeId::new(id),
        connections,
        channels: 0,
        version: "1".to_owned(),
        uptime_seconds: 60,
        settings: fanfare::model::Fingerprints::default(),
    }
}

fn namespaces() -> Namespaces {
    let default = Namespace {
        publication_bytes_max: 64,
        ..Namespace::default_for(false)
    };
    let bare = Namespace {
        presence: false,
        history: fanfare::model::HistoryPolicy {
            size: 0,
            ttl: Duration::ZERO,
        },
        ..default.clone()
    };
    Namespaces::new(default, BTreeMap::from([("bare".to_owned(), bare)]))
}

/// The calls under test and the broker behind them.
struct Hub {
    router: Router,
    broker: Arc<Recorder>,
}

struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: Value,
}

impl Hub {
    fn new() -> Self {
        Self::failing(None)
    }

    fn failing(fails: Option<BrokerError>) -> Self {
        let broker = Arc::new(Recorder {
            fails,
            ..Recorder::default()
        });
        let router = router(Arc::new(ApiState {
            broker: Arc::clone(&broker) as Arc<dyn Broker>,
            local: Arc::new(FiveChannels),
            namespaces: Arc::new(namespaces()),
            guard: Arc::new(|headers| match headers.get(AUTHORIZATION) {
                Some(wrong) if wrong == "Bearer wrong" => {
                    Err(ApiError::new(ErrorCode::Unauthorized, "the key is wrong"))
                }
                _ => Ok(HubCaller::BackEnd),
            }),
            consent: Arc::new(Consent::none()),
            node: Arc::new(|| node("a", 77)),
            config: Config {
                body_bytes_max: 16_384,
                batch_max: 1000,
                docs: false,
                redoc: false,
            },
        }));
        Self { router, broker }
    }

    async fn send(&self, request: Request<Body>) -> Reply {
        let response = self
            .router
            .clone()
            .oneshot(request)
            .await
            .expect("infallible");
        let (head, body) = response.into_parts();
        let body = body.collect().await.expect("a body in memory").to_bytes();
        Reply {
            status: head.status,
            headers: head.headers,
            body: serde_json::from_slice(&body).unwrap_or_else(|error| panic!("{error}: {body:?}")),
        }
    }

    async fn post(&self, path: &str, body: impl Into<Body>) -> Reply {
        self.send(Request::post(path).body(body.into()).expect("a request"))
            .await
    }

    async fn get(&self, path: &str) -> Reply {
        self.send(Request::get(path).body(Body::empty()).expect("a request"))
            .await
    }

    fn published(&self) -> Vec<Publish> {
        self.broker
            .published
            .lock()
            .expect("no test panics in here")
            .clone()
    }

    fn controls(&self) -> Vec<Control> {
        self.broker
            .controls
            .lock()
            .expect("no test panics in here")
            .clone()
    }
}

/// What a bad request is told: its status, its code and a part of its message.
async fn refuses(path: &str, body: impl Into<Body>, status: u16, code: &str, says: &str) {
    let hub = Hub::new();
    let reply = hub.post(path, body).await;
    assert_eq!(reply.status, status, "{}", reply.body);
    assert_eq!(reply.body["error"], code, "{}", reply.body);
    let message = reply.body["message"].as_str().expect("a message");
    assert!(message.contains(says), "{message:?} should say {says:?}");
    assert!(hub.published().is_empty(), "nothing may reach the broker");
    assert!(hub.controls().is_empty(), "nothing may reach the broker");
}

#[tokio::test]
async fn publishes_and_answers_the_position() {
    let hub = Hub::new();
    let body = r#"{"channel":"news","data":{"a": 1},"key":"k","idempotency_key":"i"}"#;
    let reply = hub.post("/hub/publish", body).await;
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(reply.headers[CONTENT_TYPE], "application/json");
    assert_eq!(
        reply.body,
        json!({"channel": "news", "epoch": EPOCH.to_string(), "offset": 1})
    );
    let published = &hub.published()[0];
    assert_eq!(published.data.as_bytes(), br#"{"a": 1}"#);
    assert_eq!(published.key.as_deref(), Some("k"));
    assert_eq!(published.idempotency_key.as_deref(), Some("i"));
    assert_eq!(published.origin, None);
}

#[tokio::test]
async fn reads_json_whatever_curl_calls_it_and_in_pieces() {
    let hub = Hub::new();
    let form = Request::post("/hub/publish")
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Body::from(
            r#"{"channel":"a\/b","data":[1,
            2]}"#,
        ))
        .expect("a request");
    assert_eq!(hub.send(form).await.status, StatusCode::OK);
    let pieces = [r#"{"channel":"#, r#""b","#, r#""data":0}"#];
    let pieces = pieces.map(|piece| Ok::<_, std::io::Error>(Bytes::from_static(piece.as_bytes())));
    let stream = Body::from_stream(futures_util::stream::iter(pieces));
    assert_eq!(
        hub.post("/hub/publish", stream).await.status,
        StatusCode::OK
    );
    let published = hub.published();
    assert_eq!(published[0].channel.name(), "a/b");
    assert_eq!(published[0].data.as_bytes(), b"[1,            2]");
    assert_eq!(published[1].data.as_bytes(), b"0");
}

#[tokio::test]
async fn malformed_publishes_are_told_what_and_where() {
    for (body, says) in [
        ("", "the body is empty"),
        ("  ", "the body is empty"),
        ("[]", "a JSON object is expected"),
        ("[\"a\",1]", "a JSON object is expected"),
        ("\"x\"", "expected a publication"),
        ("{\"channel\":", "line 1 column 11"),
        ("{\"channel\":\"a\",\n\"data\":nope}", "line 2"),
        (r#"{"data":1}"#, "missing field `channel`"),
        (r#"{"channel":"a"}"#, "missing field `data`"),
        (r#"{"channel":7,"data":1}"#, "expected a string"),
        (r#"{"channel":"a","data":1,"key":7}"#, "expected a string"),
        (
            r#"{"channel":"a","data":1,"idempotencyKey":"x"}"#,
            "unknown field `idempotencyKey`",
        ),
        (
            r#"{"channel":"a","data":1,"idempotency_key":""}"#,
            "idempotency_key must have 1 to 255",
        ),
        (r#"{"channel":"a","data":1} x"#, "trailing characters"),
        (r#"{"channel":"","data":1}"#, "channel name is empty"),
        (r#"{"channel":"a b","data":1}"#, "not allowed at byte 1"),
    ] {
        refuses("/hub/publish", body, 400, "bad_request", says).await;
    }
    let long = format!(r#"{{"channel":"{}","data":1}}"#, "x".repeat(256));
    refuses("/hub/publish", long, 400, "bad_request", "256 bytes").await;
    let key = format!(r#"{{"channel":"a","data":1,"key":"{}"}}"#, "x".repeat(256));
    refuses(
        "/hub/publish",
        key,
        400,
        "bad_request",
        "key has more than 255",
    )
    .await;
    let deep = format!(
        r#"{{"channel":"a","data":{}{}}}"#,
        "[".repeat(65),
        "]".repeat(65)
    );
    refuses(
        "/hub/publish",
        deep,
        400,
        "bad_request",
        "data is nested deeper than 64",
    )
    .await;
    let invalid = b"{\"channel\":\"a\",\"data\":\"\xff\"}".to_vec();
    refuses("/hub/publish", invalid, 400, "bad_request", "line 1").await;
    refuses(
        "/hub/publish",
        r#"{"channel":"~x","data":1}"#,
        400,
        "bad_request",
        "reserved",
    )
    .await;
}

#[tokio::test]
async fn what_is_too_large_is_413() {
    let data = format!(r#"{{"channel":"a","data":"{}"}}"#, "x".repeat(63));
    refuses(
        "/hub/publish",
        data,
        413,
        "too_large",
        "65 bytes, the channel takes 64",
    )
    .await;
    let body = " ".repeat(16_385);
    refuses("/hub/publish", body.clone(), 413, "too_large", "16384").await;
    let pieces = [body.clone(), body].map(|piece| Ok::<_, std::io::Error>(Bytes::from(piece)));
    let stream = Body::from_stream(futures_util::stream::iter(pieces));
    refuses("/hub/publish", stream, 413, "too_large", "16384").await;
}

#[tokio::test]
async fn a_body_that_breaks_off_is_told() {
    let pieces = [
        Ok(Bytes::from_static(b"{")),
        Err(std::io::Error::other("gone")),
    ];
    let stream = Body::from_stream(futures_util::stream::iter(pieces));
    refuses("/hub/publish", stream, 400, "bad_request", "ended early").await;
}

#[tokio::test]
async fn the_servers_own_bounds_on_a_body_are_told_as_what_they_are() {
    for (error, status, code) in [
        (BodyError::TooLarge, 413, "too_large"),
        (BodyError::TimedOut, 408, "request_timeout"),
    ] {
        let stream = Body::from_stream(futures_util::stream::iter([Err::<Bytes, _>(error)]));
        refuses("/hub/publish", stream, status, code, "ended early").await;
    }
}

#[tokio::test]
async fn bodies_that_are_no_text_are_415() {
    let hub = Hub::new();
    for (name, value) in [
        (CONTENT_TYPE, "multipart/form-data; boundary=x"),
        (CONTENT_TYPE, "Image/PNG"),
        (CONTENT_ENCODING, "gzip"),
    ] {
        let request = Request::post("/hub/publish")
            .header(name, value)
            .body(Body::from(r#"{"channel":"a","data":1}"#))
            .expect("a request");
        let reply = hub.send(request).await;
        assert_eq!(reply.status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{value}");
        assert_eq!(reply.body["error"], "unsupported_media_type");
    }
}

#[tokio::test]
async fn a_broker_that_is_away_is_503_and_says_when_the_outcome_is_unknown() {
    let single = ("/hub/publish", r#"{"channel":"a","data":1}"#);
    let several = ("/hub/broadcast", r#"{"channels":["a","b"],"data":1}"#);
    for (path, body) in [single, several] {
        for (fails, outcome) in [
            (BrokerError::Unavailable, Value::Null),
            (BrokerError::OutcomeUnknown, json!("unknown")),
        ] {
            let reply = Hub::failing(Some(fails)).post(path, body).await;
            assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(reply.headers[RETRY_AFTER], "1");
            assert_eq!(reply.body["error"], "broker_unavailable");
            assert_eq!(reply.body["outcome"], outcome);
        }
    }
    let reply = Hub::failing(Some(BrokerError::Full))
        .post(single.0, single.1)
        .await;
    assert_eq!(
        (reply.status.as_u16(), &reply.body["error"]),
        (503, &json!("unavailable"))
    );
    let reply = Hub::failing(Some(BrokerError::NoHistory))
        .get("/hub/channels/a/history")
        .await;
    assert_eq!(
        (reply.status.as_u16(), &reply.body["error"]),
        (409, &json!("not_available"))
    );
}

#[tokio::test]
async fn one_bad_channel_of_a_broadcast_does_not_fail_the_others() {
    let hub = Hub::new();
    let body = r#"{"channels":["a","b b","c"],"data":1,"idempotency_key":"i"}"#;
    let reply = hub.post("/hub/broadcast", body).await;
    assert_eq!(reply.status, StatusCode::OK);
    let results = reply.body["results"].as_array().expect("results");
    assert_eq!(results.len(), 3);
    assert_eq!(results[0]["offset"], 1);
    assert_eq!(results[1]["channel"], "b b");
    assert_eq!(results[1]["error"], "bad_request");
    assert!(
        results[1]["message"]
            .as_str()
            .expect("a message")
            .contains("byte 1")
    );
    assert_eq!(
        (&results[2]["channel"], &results[2]["offset"]),
        (&json!("c"), &json!(2))
    );
    let published = hub.published();
    assert!(
        published
            .iter()
            .all(|one| one.idempotency_key.as_deref() == Some("i"))
    );
}

#[tokio::test]
async fn a_batch_publishes_in_order_and_tells_each_result() {
    let hub = Hub::new();
    let large = "x".repeat(64);
    let body = json!({"publications": [
        {"channel": "a", "data": 1},
        {"channel": "a", "data": large},
        {"channel": "b", "data": {"z": 2}, "key": "k"},
    ]});
    let reply = hub.post("/hub/batch", body.to_string()).await;
    assert_eq!(reply.body["results"][0]["offset"], 1);
    assert_eq!(reply.body["results"][1]["error"], "too_large");
    assert_eq!(reply.body["results"][2]["offset"], 2);
    assert_eq!(hub.published()[1].data.as_bytes(), b"{\"z\":2}");
}

#[tokio::test]
async fn a_batch_that_cannot_be_read_says_which_one() {
    let body = r#"{"publications":[{"channel":"a","data":1},{"channel":"b"}]}"#;
    refuses("/hub/batch", body, 400, "bad_request", "publications[1]").await;
    refuses(
        "/hub/batch",
        r#"{"publications":7}"#,
        400,
        "bad_request",
        "expected a sequence",
    )
    .await;
    refuses(
        "/hub/batch",
        r#"{"publications":[]}"#,
        400,
        "bad_request",
        "1 to 1000",
    )
    .await;
    let many = json!({"channels": vec!["a"; 1001], "data": 1}).to_string();
    refuses("/hub/broadcast", many, 413, "too_large", "it has 1001").await;
    refuses(
        "/hub/broadcast",
        r#"{"channels":[],"data":1}"#,
        400,
        "bad_request",
        "1 to 1000",
    )
    .await;
}

#[tokio::test]
async fn channels_are_paged_to_the_end() {
    let hub = Hub::new();
    let first = hub.get("/hub/channels?prefix=c:&limit=2").await.body;
    assert_eq!(
        first,
        json!({"channels": [
            {"channel": "c:0", "subscribers": 9},
            {"channel": "c:1", "subscribers": 9},
        ], "cursor": "c:1"})
    );
    let rest = hub.get("/hub/channels?cursor=c:1").await.body;
    assert_eq!(rest["channels"].as_array().map(Vec::len), Some(3));
    assert_eq!(rest.get("cursor"), None);
    let bad = hub.get("/hub/channels?limit=many").await;
    assert_eq!(bad.status, StatusCode::BAD_REQUEST);
    assert!(
        bad.body["message"]
            .as_str()
            .expect("a message")
            .contains("limit")
    );
}

#[tokio::test]
async fn subscribers_of_all_nodes_are_counted() {
    let hub = Hub::new();
    let all = hub.get("/hub/channels?prefix=c:1").await.body;
    let expected = json!({"channels": [
        {"channel": "c:1", "subscribers": 12},
        {"channel": "c:10", "subscribers": 2},
    ]});
    assert_eq!(all, expected);
    let first = hub.get("/hub/channels?prefix=c:1&limit=1").await.body;
    assert_eq!(first["channels"].as_array().map(Vec::len), Some(1));
    assert_eq!(first["cursor"], "c:1");
    let stats = hub.get("/hub/channels/far/stats").await.body;
    let local = hub.get("/hub/channels/near/stats").await.body;
    let count = |stats: &Value| stats["subscribers"].as_u64().expect("a count");
    assert_eq!(count(&stats), count(&local) + 4);
}

#[tokio::test]
async fn history_reads_since_a_position_and_can_be_cleared() {
    let hub = Hub::new();
    let path = format!("/hub/channels/a%2Fb/history?limit=5000&epoch={EPOCH}&offset=0");
    let reply = hub.get(&path).await.body;
    assert_eq!(reply["channel"], "a/b");
    assert_eq!(
        reply["publications"][0],
        json!({"data": {"n": 1}, "offset": 1, "key": "k\""})
    );
    assert_eq!(
        reply["publications"][1]["from"],
        json!({"client": ClientId::from_bits(1).to_string(), "user": "ann"})
    );
    assert_eq!(
        (&reply["offset"], &reply["more"]),
        (&json!(2), &json!(true))
    );
    hub.get("/hub/channels/a/history?epoch=unknown&offset=3")
        .await;
    let read = hub
        .broker
        .read
        .lock()
        .expect("no test panics in here")
        .clone();
    assert_eq!(read[0].0, Some(Position::new(EPOCH, 0)));
    assert_eq!(read[0].1.publications, 1000);
    assert_eq!(read[1].0, None);
    let half = hub.get("/hub/channels/a/history?offset=3").await;
    assert_eq!(half.status, StatusCode::BAD_REQUEST);
    let delete = Request::delete("/hub/channels/a/history").body(Body::empty());
    let cleared = hub.send(delete.expect("a request")).await.body;
    assert_eq!(
        cleared,
        json!({"channel": "a", "epoch": EPOCH.to_string(), "offset": 2})
    );
}

#[tokio::test]
async fn presence_and_stats_tell_what_the_namespace_keeps() {
    let hub = Hub::new();
    let presence = hub.get("/hub/channels/a/presence").await.body;
    let id = ClientId::from_bits(1).to_string();
    assert_eq!(
        presence["clients"][&id],
        json!({"user": "ann", "info": [1]})
    );
    assert_eq!(
        (&presence["count"], &presence["users"]),
        (&json!(3), &json!(2))
    );
    assert_eq!(presence["more"], true);
    let stats = hub.get("/hub/channels/a/stats").await.body;
    assert_eq!(
        stats,
        json!({"channel": "a", "subscribers": 9, "clients": 3, "users": 2,
            "epoch": EPOCH.to_string(), "offset": 2})
    );
    let bare = hub.get("/hub/channels/bare:a/stats").await.body;
    assert_eq!(bare, json!({"channel": "bare:a", "subscribers": 9}));
    let none = hub.get("/hub/channels/bare:a/presence").await;
    assert_eq!(
        (none.status.as_u16(), &none.body["error"]),
        (409, &json!("not_available"))
    );
}

#[tokio::test]
async fn orders_reach_every_node() {
    let hub = Hub::new();
    let client = ClientId::from_bits(9);
    hub.post("/hub/subscribe", r#"{"user":"ann","channel":"a"}"#)
        .await;
    hub.post(
        "/hub/unsubscribe",
        format!(r#"{{"client":"{client}","channel":"a"}}"#),
    )
    .await;
    let reply = hub.post("/hub/disconnect", r#"{"user":"ann"}"#).await;
    assert_eq!(reply.body, json!({"ok": true}));
    let ann = Target::User("ann".into());
    assert_eq!(
        hub.controls(),
        [
            Control::Subscribe(ann.clone(), key("a")),
            Control::Unsubscribe(Target::Client(client), key("a")),
            Control::Disconnect(ann),
        ]
    );
}

#[tokio::test]
async fn orders_that_are_unclear_are_refused() {
    for (path, body, says) in [
        ("/hub/subscribe", r#"{"user":"ann"}"#, "channel is missing"),
        (
            "/hub/subscribe",
            r#"{"channel":"a"}"#,
            "exactly one of user and client",
        ),
        (
            "/hub/disconnect",
            r#"{"user":"ann","client":"x"}"#,
            "exactly one",
        ),
        ("/hub/disconnect", r#"{"client":"x"}"#, "no client id"),
        ("/hub/disconnect", r#"{"user":""}"#, "user is empty"),
        (
            "/hub/disconnect",
            r#"{"user":"ann","channel":"a"}"#,
            "/hub/unsubscribe",
        ),
        ("/hub/disconnect", r#"["ann"]"#, "a JSON object is expected"),
    ] {
        refuses(path, body, 400, "bad_request", says).await;
    }
}

#[tokio::test]
async fn nodes_show_this_node_as_it_is_now() {
    let nodes = Hub::new().get("/hub/nodes").await.body;
    assert_eq!(nodes["broker"], "memory");
    assert_eq!(
        (&nodes["nodes"][0]["id"], &nodes["nodes"][0]["connections"]),
        (&json!("a"), &json!(77))
    );
    assert_eq!(nodes["nodes"][1]["id"], "b");
    assert_eq!(nodes["nodes"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn nothing_is_done_without_credentials() {
    let hub = Hub::new();
    let request = Request::post("/hub/publish")
        .header(AUTHORIZATION, "Bearer wrong")
        .body(Body::from(r#"{"channel":"a","data":1}"#))
        .expect("a request");
    let reply = hub.send(request).await;
    assert_eq!(reply.status, StatusCode::UNAUTHORIZED);
    assert_eq!(
        reply.body,
        json!({"error": "unauthorized", "message": "the key is wrong"})
    );
    assert_eq!(reply.headers["www-authenticate"], "Bearer");
    assert!(hub.published().is_empty());
}

#[tokio::test]
async fn unknown_paths_and_methods_are_told_in_the_same_envelope() {
    let hub = Hub::new();
    for path in [
        "/hub",
        "/hub/",
        "/hub/nope",
        "/hub/publish/",
        "/hub/channels/a/b/history",
    ] {
        let reply = hub.get(path).await;
        assert_eq!(reply.status, StatusCode::NOT_FOUND, "{path}");
        assert_eq!(reply.body["error"], "not_found");
    }
    let reply = hub.get("/hub/publish").await;
    assert_eq!(reply.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(reply.body["error"], "method_not_allowed");
    assert_eq!(reply.headers[ALLOW], "POST");
}

#[tokio::test]
async fn errors_take_the_form_of_rfc_9457_where_asked() {
    let request = Request::get("/hub/nope")
        .header("accept", "application/problem+json")
        .body(Body::empty())
        .expect("a request");
    let reply = Hub::new().send(request).await;
    assert_eq!(reply.headers[CONTENT_TYPE], "application/problem+json");
    assert_eq!(
        (&reply.body["status"], &reply.body["title"]),
        (&json!(404), &json!("Not Found"))
    );
    assert_eq!(reply.body["error"], "not_found");
}
