//! Server-sent events as a browser reads them.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::raw::read_head;
use crate::support::sse::EventStream;
use crate::support::{Hub, hub, hub_with, within};

#[tokio::test]
async fn a_stream_begins_with_its_headers_and_connected() {
    let hub = hub(&[("SSE_RETRY_MS", "3000")]).await;
    let mut retries = Vec::new();
    for _ in 0..5 {
        let stream = EventStream::open(&hub, "channel=news", &[("origin", "http://page")]).await;
        let head = &stream.head;
        assert_eq!(head.header("content-type"), Some("text/event-stream"));
        assert_eq!(head.header("cache-control"), Some("no-cache, no-transform"));
        assert_eq!(head.header("x-accel-buffering"), Some("no"));
        assert_eq!(head.header("connection"), Some("close"));
        assert_eq!(
            head.header("access-control-allow-origin"),
            Some("http://page")
        );
        for absent in [
            "upgrade",
            "content-length",
            "transfer-encoding",
            "sec-websocket-accept",
        ] {
            assert_eq!(head.header(absent), None);
        }
        let connected = stream.connected.json();
        assert_eq!(connected["type"], "connected");
        assert_eq!(connected["message"], "SSE connection established");
        let position = &connected["channels"]["news"];
        assert_eq!(position["offset"], 0, "{connected}");
        let epoch = position["epoch"].as_str().expect("an epoch");
        assert_eq!(stream.id(), format!("{epoch}:0"));
        retries.push(stream.connected.retry.expect("a time"));
    }
    assert!(
        retries.iter().all(|retry| (1500..=4500).contains(retry)),
        "{retries:?}"
    );
    retries.dedup();
    assert!(retries.len() > 1, "no jitter: {retries:?}");
}

#[tokio::test]
async fn cookies_of_listed_origins_may_come_where_that_is_allowed() {
    let listed = ("ALLOW_ORIGINS", "http://page");
    for (variables, expected) in [
        (vec![listed], None),
        (vec![listed, ("ALLOW_CREDENTIALS", "true")], Some("true")),
        (vec![("ALLOW_CREDENTIALS", "true")], None),
    ] {
        let hub = hub(&variables).await;
        let stream = EventStream::open(&hub, "channel=news", &[("origin", "http://page")]).await;
        let allowed = stream.head.header("access-control-allow-credentials");
        assert_eq!(allowed, expected, "{variables:?}");
    }
}

#[tokio::test]
async fn comments_keep_a_quiet_stream_awake() {
    let hub = hub(&[("SSE_COMMENT_INTERVAL_MS", "100")]).await;
    for query in ["channel=a", "channel=a&channel=b"] {
        let mut stream = EventStream::open(&hub, query, &[]).await;
        for _ in 0..3 {
            let block = stream.block().await.expect("a comment");
            assert!(
                block.comment && block.data.is_none() && block.id.is_none(),
                "{block:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_stream_goes_on_behind_its_last_id() {
    let hub = hub(&[]).await;
    let queries = ["channel=a", "channel=b&channel=a"];
    let mut ids = Vec::new();
    for query in queries {
        let mut stream = EventStream::open(&hub, query, &[]).await;
        hub.publish("a", &json!("seen")).await;
        assert_eq!(stream.event().await.json()["data"], "seen");
        ids.push(stream.id().to_owned());
    }
    // The first stream has seen one of the two: it misses one more.
    hub.publish("a", &json!("missed")).await;
    for (query, id) in queries.into_iter().zip(&ids) {
        let encoded: String = form_urlencoded::byte_serialize(id.as_bytes()).collect();
        let by_query = format!("{query}&last_event_id={encoded}");
        for mut stream in [
            EventStream::resume(&hub, query, id).await,
            EventStream::open(&hub, &by_query, &[]).await,
        ] {
            let mut got = stream.event().await.json();
            if query == "channel=a" {
                assert_eq!([&got["data"], &got["offset"]], [&json!("seen"), &json!(2)]);
                got = stream.event().await.json();
            }
            assert_eq!(
                [&got["data"], &got["offset"]],
                [&json!("missed"), &json!(3)]
            );
        }
    }
}

#[tokio::test]
async fn an_id_that_cannot_be_read_is_told_as_a_gap() {
    let hub = hub(&[]).await;
    hub.publish_numbers("a", 0..3).await;
    let epoch = hub.get("/hub/channels/a/stats").await.json()["epoch"].clone();
    let epoch = epoch.as_str().expect("an epoch");
    let bad = [
        "nonsense".to_owned(),
        ":".to_owned(),
        format!("{epoch}:-1"),
        format!("{epoch}:+1"),
        format!("{epoch}:99"),
        format!("{epoch}:18446744073709551616"),
        "AAAAAAAAAAAAAAAAAAAAAA:1".to_owned(),
        "x".repeat(4000),
        "1.0000000000000000.-,-".to_owned(),
        "\u{fc}".to_owned(),
    ];
    for id in bad {
        for query in ["channel=a", "channel=a&channel=b"] {
            let mut stream = EventStream::resume(&hub, query, &id).await;
            let gap = stream.event().await;
            assert_eq!(gap.event.as_deref(), Some("gap"), "{id}: {gap:?}");
            let told = gap.json();
            assert_eq!(
                [&told["channel"], &told["dropped"]],
                [&json!("a"), &Value::Null]
            );
            assert_eq!(
                [&told["epoch"], &told["offset"]],
                [&json!(epoch), &json!(3)]
            );
            assert!(gap.id.is_some());
        }
    }
    // What was made for other channels, or for these in another order, is not for these.
    let stream = EventStream::open(&hub, "channel=b&channel=a", &[]).await;
    let id = stream.id().to_owned();
    let mut other = EventStream::resume(&hub, "channel=a&channel=b", &id).await;
    assert_eq!(other.event().await.event.as_deref(), Some("gap"));
}

#[tokio::test]
async fn a_stream_has_at_most_32_channels() {
    let hub = hub(&[]).await;
    let query = |count: usize| {
        let channels: Vec<String> = (0..count).map(|n| format!("channel=c{n}")).collect();
        channels.join("&")
    };
    let mut stream = EventStream::open(&hub, &query(32), &[]).await;
    for n in 0..32 {
        hub.publish(&format!("c{n}"), &json!(n)).await;
        assert_eq!(stream.event().await.json()["data"], n);
    }
    assert!(stream.id().len() <= 2048);
    let id = stream.id().to_owned();
    hub.publish("c31", &json!("more")).await;
    let mut again = EventStream::resume(&hub, &query(32), &id).await;
    assert_eq!(again.event().await.json()["data"], "more");
    for bad in [
        query(33),
        "channel=~own".to_owned(),
        String::new(),
        "channel=".to_owned(),
        "channel=a%20b".to_owned(),
    ] {
        hub.get(&format!("/sse/connect?{bad}"))
            .await
            .expect_error(400, "bad_request");
    }
}

/// Everything that was published once and in order, though the stream was cut again and again.
async fn follow_with_cuts(hub: &Hub, query: &str, count: u64) {
    let mut got: Vec<u64> = Vec::new();
    let mut id: Option<String> = None;
    let mut cut_after = 1;
    while (got.len() as u64) < count {
        let mut stream = match &id {
            Some(id) => EventStream::resume(hub, query, id).await,
            None => EventStream::open(hub, query, &[]).await,
        };
        cut_after = cut_after * 7 % 211;
        for _ in 0..cut_after.min(count - got.len() as u64) {
            let event = stream.event().await;
            assert_eq!(event.event, None, "{event:?}");
            let event = event.json();
            assert_eq!(event["offset"], got.len() as u64 + 1);
            got.push(event["data"].as_u64().expect("a number"));
        }
        id = Some(stream.id().to_owned());
    }
    assert_eq!(got, (0..count).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_cut_stream_resumes_without_loss_or_duplicate() {
    let hub = hub_with(
        "[namespaces.default]\nhistory = { size = 5000, ttl = \"5m\" }\n",
        &[],
    )
    .await;
    let publish = async {
        // Both are there before the first publication, or they would rightly begin later.
        while hub.get("/hub/channels/a/stats").await.json()["subscribers"] != 2 {}
        for n in 0..200 {
            hub.publish_numbers("a", n * 10..n * 10 + 10).await;
            if n % 3 == 0 {
                hub.publish("other", &json!("elsewhere")).await;
            }
        }
    };
    let single = follow_with_cuts(&hub, "channel=a", 2000);
    let many = follow_with_cuts(&hub, "channel=quiet&channel=a&channel=silent", 2000);
    tokio::join!(publish, single, many);
}

#[tokio::test]
async fn several_channels_are_resumed_each_from_its_own_position() {
    let hub = hub(&[]).await;
    let query = "channel=a&channel=b&channel=c";
    let mut stream = EventStream::open(&hub, query, &[]).await;
    hub.publish_numbers("a", 0..3).await;
    hub.publish_numbers("b", 0..2).await;
    for _ in 0..5 {
        stream.event().await;
    }
    let id = stream.id().to_owned();
    drop(stream);
    hub.publish("c", &json!("c1")).await;
    hub.publish("a", &json!("a4")).await;
    hub.publish("b", &json!("b3")).await;
    let mut stream = EventStream::resume(&hub, query, &id).await;
    let mut got = Vec::new();
    for _ in 0..3 {
        let event = stream.event().await.json();
        got.push((
            event["data"].as_str().expect("a name").to_owned(),
            event["offset"].as_u64(),
        ));
    }
    got.sort();
    assert_eq!(
        got,
        [
            ("a4".to_owned(), Some(4)),
            ("b3".to_owned(), Some(3)),
            ("c1".to_owned(), Some(1))
        ]
    );
    // And from there once more: nothing twice.
    let id = stream.id().to_owned();
    let mut stream = EventStream::resume(&hub, query, &id).await;
    hub.publish("a", &json!("last")).await;
    assert_eq!(stream.event().await.json()["data"], "last");
}

#[tokio::test]
async fn a_stream_opens_with_get_and_with_nothing_else() {
    let hub = hub(&[]).await;
    for method in ["POST", "HEAD"] {
        let answer = hub.request(method, "/sse/connect?channel=a", &[], "").await;
        assert_eq!(answer.status, 405, "{method}: {answer:?}");
        assert_eq!(answer.header("allow"), Some("GET"), "{answer:?}");
    }
    // What a client sends on an open stream means nothing and does no harm.
    let mut stream = TcpStream::connect(hub.address()).await.expect("the hub");
    let request = format!(
        "GET /sse/connect?channel=a HTTP/1.1\r\nhost: {}\r\n\r\n",
        hub.host()
    );
    stream.write_all(request.as_bytes()).await.expect("sent");
    assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 200 OK"));
    stream.write_all(&vec![b'x'; 300_000]).await.expect("sent");
    hub.publish("a", &json!("still here")).await;
    let mut got = String::new();
    within("the publication", async {
        while !got.contains("still here") {
            let mut buffer = [0; 1024];
            let count = stream.read(&mut buffer).await.expect("open");
            assert!(count > 0, "closed: {got}");
            got.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
    })
    .await;
}
