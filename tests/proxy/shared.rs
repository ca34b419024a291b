//! Streams of events that many share: one connection to the upstream, whoever listens.

use serde_json::json;

use crate::support::hub::SECRET;
use crate::support::sse::EventStream;
use crate::support::token::token;
use crate::support::ws::Socket;
use crate::support::{Hub, eventually, hub_with, within};
use crate::ticker::Ticker;
use crate::upstream::Upstream;

async fn sharing(ticker: &Ticker, whose: &str) -> Hub {
    let file = format!(
        "[services.example]\nupstreams = [{:?}]\nshare = {whose:?}",
        ticker.url()
    );
    hub_with(&file, &[("RATE_LIMIT_MAX", "0"), ("JWT_SECRET", SECRET)]).await
}

async fn listen(node: &Hub) -> EventStream {
    EventStream::open_at(node, "/sse/example/ticks?a=1", &[]).await
}

/// The first one, who has the beginning: what others hear comes after it.
async fn listen_first(node: &Hub) -> EventStream {
    let mut stream = listen(node).await;
    assert_eq!(stream.event().await.data.as_deref(), Some("hello"));
    stream
}

/// Comments may come before it.
async fn ends(stream: &mut EventStream) {
    within("the end of the stream", async {
        while stream.block().await.is_some() {}
    })
    .await;
}

#[tokio::test]
async fn all_who_listen_to_the_same_share_one_connection() {
    let ticker = Ticker::start().await;
    let node = sharing(&ticker, "all").await;
    let mut listeners = vec![listen_first(&node).await];
    for _ in 0..4 {
        listeners.push(listen(&node).await);
    }
    assert_eq!(ticker.listeners(), 1);
    ticker.say("id: 7\nevent: tick\nretry: 9\ndata: one\ndata: two\n\n");
    ticker.say("data: three\n\n");
    let mut ids = Vec::new();
    for listener in &mut listeners {
        let first = listener.event().await;
        assert_eq!(first.event.as_deref(), Some("tick"));
        assert_eq!(
            (first.data.as_deref(), first.retry),
            (Some("one\ntwo"), Some(9))
        );
        let second = listener.event().await;
        assert_eq!(
            (second.event, second.data.as_deref()),
            (None, Some("three"))
        );
        ids.push(listener.id().to_owned());
    }
    assert!(
        ids.iter().all(|id| *id == ids[0] && id.ends_with(":3")),
        "{ids:?}"
    );
    let heads = ticker.heads();
    assert_eq!(heads.len(), 1, "{heads:?}");
    assert!(
        heads[0].starts_with("GET /ticks?a=1 HTTP/1.1\r\n"),
        "{heads:?}"
    );
    assert!(
        heads[0].contains("accept: text/event-stream\r\n"),
        "{heads:?}"
    );
    // Another path or query is another stream.
    let _other = EventStream::open_at(&node, "/sse/example/ticks?a=2", &[]).await;
    assert_eq!(ticker.listeners(), 2);
    let metrics = node.get("/metrics").await.text;
    assert!(metrics.contains("fanfare_shared_sources 2"), "{metrics}");
}

#[tokio::test]
async fn who_was_away_gets_what_was_said_meanwhile() {
    let ticker = Ticker::start().await;
    let node = sharing(&ticker, "all").await;
    let _stays = listen_first(&node).await;
    let mut goes = listen(&node).await;
    ticker.say("data: one\n\n");
    goes.event().await;
    let id = goes.id().to_owned();
    drop(goes);
    ticker.say("data: two\n\n");
    ticker.say("data: three\n\n");
    let fields = [("last-event-id", id.as_str())];
    let mut back = EventStream::open_at(&node, "/sse/example/ticks?a=1", &fields).await;
    for expected in ["two", "three"] {
        assert_eq!(back.event().await.data.as_deref(), Some(expected));
    }
    assert_eq!(ticker.listeners(), 1);
}

#[tokio::test]
async fn an_upstream_that_breaks_off_is_asked_for_what_came_after() {
    let ticker = Ticker::start().await;
    let node = sharing(&ticker, "all").await;
    let mut listener = listen_first(&node).await;
    ticker.say("id: seven\ndata: one\n\n");
    assert_eq!(listener.event().await.data.as_deref(), Some("one"));
    ticker.cut();
    eventually("it is asked again", async || {
        (ticker.heads().len() == 2 && ticker.listeners() == 1).then_some(())
    })
    .await;
    let heads = ticker.heads();
    assert!(heads[1].contains("last-event-id: seven\r\n"), "{heads:?}");
    ticker.say("id: eight\ndata: two\n\n");
    for expected in ["hello", "two"] {
        assert_eq!(listener.event().await.data.as_deref(), Some(expected));
    }
}

#[tokio::test]
async fn when_the_last_one_goes_the_upstream_is_let_go() {
    let ticker = Ticker::start().await;
    let node = sharing(&ticker, "all").await;
    let (one, other) = (listen(&node).await, listen(&node).await);
    drop(one);
    drop(other);
    eventually("nobody listens any more", async || {
        (ticker.listeners() == 0).then_some(())
    })
    .await;
    let _again = listen(&node).await;
    assert_eq!((ticker.listeners(), ticker.heads().len()), (1, 2));
}

#[tokio::test]
async fn streams_of_users_are_their_own() {
    let ticker = Ticker::start().await;
    let node = sharing(&ticker, "user").await;
    let mut streams = Vec::new();
    for user in ["alice", "bob", "alice"] {
        let bearer = format!("Bearer {}", token(json!({"sub": user, "role": "reader"})));
        let fields = [("authorization", &*bearer)];
        streams.push(EventStream::open_at(&node, "/sse/example/ticks", &fields).await);
    }
    let heads = ticker.heads();
    assert_eq!(heads.len(), 2, "{heads:?}");
    for (head, user) in heads.iter().zip(["alice", "bob"]) {
        assert!(
            head.contains(&format!("x-user-id: {user}\r\nx-user-role: reader\r\n")),
            "{head}"
        );
        assert!(!head.contains("authorization"), "{head}");
    }
}

#[tokio::test]
async fn who_shows_what_the_upstream_may_answer_by_has_a_stream_of_its_own() {
    let ticker = Ticker::start().await;
    let node = sharing(&ticker, "all").await;
    let _shared = [listen(&node).await, listen(&node).await];
    let bearer = format!("Bearer {}", token(json!({"sub": "alice"})));
    for (own, fields) in [("cookie", "a=b"), ("authorization", &bearer)]
        .iter()
        .enumerate()
    {
        let path = "/sse/example/ticks?a=1";
        let _own = EventStream::open_at(&node, path, &[*fields]).await;
        let heads = ticker.heads();
        assert_eq!(heads.len(), own + 2, "{heads:?}");
        assert!(heads[own + 1].contains(fields.0), "{heads:?}");
    }
    let node = sharing(&ticker, "user").await;
    let _own = EventStream::open_at(&node, "/sse/example/x", &[("cookie", "a=b")]).await;
    let heads = ticker.heads();
    let last = heads.last().expect("a request");
    assert!(
        last.contains("cookie: a=b"),
        "nobody knows whose it is: {last}"
    );
}

#[tokio::test]
async fn what_is_answered_in_the_place_of_a_stream_is_passed_on() {
    let ticker = Ticker::start().await;
    let node = sharing(&ticker, "all").await;
    let ask = async || node.get("/sse/example/refused").await;
    ticker.answers(
        "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 401 Unauthorized\r\nwww-authenticate: Basic\r\n\
         x-internal-x: 1\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nno",
    );
    for asked in 1..=2 {
        let answer = ask().await;
        assert_eq!((answer.status, &*answer.text), (401, "no"), "{answer:?}");
        assert_eq!(answer.header("www-authenticate"), Some("Basic"));
        assert_eq!(answer.header("content-type"), Some("text/plain"));
        assert_eq!(answer.header("x-internal-x"), None);
        assert!(answer.header("x-request-id").is_some(), "{answer:?}");
        assert_eq!(ticker.heads().len(), asked, "each time anew");
    }
    ticker.answers("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{}");
    let answer = ask().await;
    assert_eq!((answer.status, &*answer.text), (200, "{}"), "{answer:?}");
    let long = "x".repeat(100_000);
    ticker.answers(&format!("HTTP/1.1 200 OK\r\n\r\n{long}"));
    ask().await.expect_error(502, "upstream_refused");
    ticker.answers(&format!("HTTP/1.1 404 Not Found\r\n\r\n{long}"));
    ask().await.expect_error(404, "upstream_refused");
    ticker.answers("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n");
    ask().await.expect_error(502, "upstream_unavailable");
    // What is no stream passes as ever.
    ticker.answers("HTTP/1.1 403 Forbidden\r\ncontent-length: 7\r\n\r\n");
    let head = node.request("HEAD", "/sse/example/refused", &[], "").await;
    assert_eq!(head.status, 403, "{head:?}");
    let metrics = node.get("/metrics").await.text;
    let mut lines = metrics.lines();
    let read = lines.find_map(|line| line.strip_prefix("fanfare_shared_sources "));
    assert_eq!(read.unwrap_or("0"), "0");
}

#[tokio::test]
async fn an_upstream_that_cannot_be_reached_is_told_and_another_one_asked() {
    let (ticker, refusing) = (Ticker::start().await, Upstream::refusing().await);
    let node = |urls: Vec<String>| {
        let file = format!(
            "[services.example]\nupstreams = {urls:?}\nshare = \"all\"\ntimeout = \"300ms\""
        );
        async move { hub_with(&file, &[("RATE_LIMIT_MAX", "0")]).await }
    };
    let alone = node(vec![refusing.url()]).await;
    let answer = alone.get("/sse/example/ticks").await;
    answer.expect_error(502, "upstream_unavailable");
    let silent = Upstream::start().await;
    silent.fall_silent();
    let late = node(vec![silent.url()]).await;
    let answer = late.get("/sse/example/ticks").await;
    answer.expect_error(504, "upstream_timeout");
    let both = node(vec![refusing.url(), ticker.url()]).await;
    for path in 0..10 {
        let path = format!("/sse/example/{path}");
        drop(EventStream::open_at(&both, &path, &[]).await);
    }
}

#[tokio::test]
async fn a_stream_may_come_in_any_framing() {
    let upstream = Upstream::start().await;
    let node = crate::node_with(&[&upstream], "share = \"all\"", &[]).await;
    let mut stream = EventStream::open_at(&node, "/sse/example/chunked-events", &[]).await;
    assert_eq!(stream.event().await.data.as_deref(), Some("1"));
}

#[tokio::test]
async fn what_nobody_can_make_up_for_is_told_by_a_gap() {
    let ticker = Ticker::start().await;
    let node = sharing(&ticker, "all").await;
    let mut listener = listen_first(&node).await;
    // An upstream without ids may have said something meanwhile.
    ticker.cut();
    let gap = listener.event().await;
    assert_eq!(gap.event.as_deref(), Some("gap"), "{gap:?}");
    assert!(
        gap.json()["channel"]
            .as_str()
            .is_some_and(|name| name.starts_with("~shared:example:"))
    );
    assert_eq!(listener.event().await.data.as_deref(), Some("hello"));
    // So does an event that is too long.
    ticker.say(&format!("data: {}\n\ndata: next\n\n", "x".repeat(70_000)));
    assert_eq!(listener.event().await.event.as_deref(), Some("gap"));
    assert_eq!(listener.event().await.data.as_deref(), Some("next"));
    // And an id that is not ours.
    let fields = [("last-event-id", "seven")];
    let mut back = EventStream::open_at(&node, "/sse/example/ticks?a=1", &fields).await;
    assert_eq!(back.event().await.event.as_deref(), Some("gap"));
}

#[tokio::test]
async fn as_much_is_kept_as_the_operator_says() {
    let ticker = Ticker::start().await;
    let file = format!(
        "[services.example]\nupstreams = [{:?}]\nshare = \"all\"",
        ticker.url()
    );
    let node = hub_with(&file, &[("SSE_SHARED_HISTORY_SIZE", "3")]).await;
    let mut stays = listen_first(&node).await;
    let mut goes = listen(&node).await;
    ticker.say("data: one\n\n");
    goes.event().await;
    let id = goes.id().to_owned();
    drop(goes);
    let mut say = async |range: std::ops::RangeInclusive<u8>| {
        for number in range {
            ticker.say(&format!("data: {number}\n\n"));
            while stays.event().await.data != Some(number.to_string()) {}
        }
    };
    say(1..=3).await;
    let fields = [("last-event-id", id.as_str())];
    let mut back = EventStream::open_at(&node, "/sse/example/ticks?a=1", &fields).await;
    assert_eq!(back.event().await.data.as_deref(), Some("1"));
    say(4..=4).await;
    let mut late = EventStream::open_at(&node, "/sse/example/ticks?a=1", &fields).await;
    assert_eq!(late.event().await.event.as_deref(), Some("gap"));
}

#[tokio::test]
async fn when_the_upstream_has_the_stream_no_more_all_who_listen_are_told() {
    let ticker = Ticker::start().await;
    let node = sharing(&ticker, "all").await;
    let mut listener = listen_first(&node).await;
    // What may be mended is waited for.
    ticker.answers("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n");
    ticker.cut();
    eventually("it is asked again", async || {
        (ticker.heads().len() > 1).then_some(())
    })
    .await;
    ticker.answers("HTTP/1.1 410 Gone\r\ncontent-length: 4\r\n\r\nover");
    ends(&mut listener).await;
    let answer = node.get("/sse/example/ticks?a=1").await;
    assert_eq!((answer.status, &*answer.text), (410, "over"), "{answer:?}");
}

#[tokio::test]
async fn a_service_that_goes_cuts_no_stream() {
    let ticker = Ticker::start().await;
    let node = sharing(&ticker, "all").await;
    let mut listener = listen_first(&node).await;
    node.rewrite("");
    eventually("the service is gone", async || {
        let metrics = node.get("/metrics").await.text;
        let line = "fanfare_reloads_total{outcome=\"done\"} 1\n";
        metrics.contains(line).then_some(())
    })
    .await;
    ticker.say("data: one\n\n");
    assert_eq!(listener.event().await.data.as_deref(), Some("one"));
    ticker.cut();
    ends(&mut listener).await;
}

#[tokio::test]
async fn clients_cannot_name_the_channel() {
    let ticker = Ticker::start().await;
    let node = sharing(&ticker, "all").await;
    let _listener = listen(&node).await;
    let listed = node.get("/hub/channels").await;
    let listed = listed.json().to_string();
    let name = listed
        .split('"')
        .find(|part| part.starts_with("~shared:example:"));
    let name = name.unwrap_or_else(|| panic!("no channel in {listed}"));
    for path in [
        format!("/sse/connect?channel={name}"),
        format!("/hub/channels/{name}/history"),
        format!("/hub/channels/{name}/presence"),
        format!("/hub/channels/{name}/stats"),
    ] {
        node.get(&path).await.expect_error(400, "bad_request");
    }
    let answer = node
        .request("DELETE", &format!("/hub/channels/{name}/history"), &[], "")
        .await;
    answer.expect_error(400, "bad_request");
    let mut socket = Socket::open(&node).await;
    let order = json!({"channel": name, "data": 1, "client_id": socket.client()});
    for path in ["/hub/publish", "/hub/subscribe"] {
        node.post(path, &order)
            .await
            .expect_error(400, "bad_request");
    }
    for command in ["subscribe", "publish", "history", "presence"] {
        let command = json!({"type": command, "id": 1, "channel": name, "data": 1});
        socket.send(&command).await;
        let answer = socket.next().await;
        assert_eq!(
            (&answer["type"], &answer["id"]),
            (&json!("error"), &json!(1)),
            "{command}: {answer}"
        );
    }
}

#[tokio::test]
async fn pages_of_other_origins_may_read_a_shared_stream_as_any_other() {
    let ticker = Ticker::start().await;
    let node = sharing(&ticker, "all").await;
    let fields = [("origin", "https://page.example")];
    let stream = EventStream::open_at(&node, "/sse/example/ticks", &fields).await;
    let head = &stream.head;
    assert_eq!(
        head.header("access-control-allow-origin"),
        Some("https://page.example")
    );
    assert_eq!(head.header("content-type"), Some("text/event-stream"));
    let all = format!("{head:?}").to_ascii_lowercase();
    assert_eq!(
        all.matches("access-control-allow-origin").count(),
        1,
        "{all}"
    );
    assert!(head.header("x-request-id").is_some(), "{head:?}");
}
