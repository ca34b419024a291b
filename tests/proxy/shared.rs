//! Streams of events that many share: one connection to the upstream, whoever listens.

use serde_json::json;

use crate::support::hub::SECRET;
use crate::support::sse::EventStream;
use crate::support::token::token;
use crate::support::{Hub, eventually, hub_with};
use crate::ticker::Ticker;

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

#[tokio::test]
async fn all_who_listen_to_the_same_share_one_connection() {
    let ticker = Ticker::start().await;
    let node = sharing(&ticker, "all").await;
    let mut listeners = Vec::new();
    for _ in 0..5 {
        listeners.push(listen(&node).await);
    }
    assert_eq!(ticker.listeners(), 1);
    let first = listeners[0].event().await;
    assert_eq!(
        first.data.as_deref(),
        Some("hello"),
        "who opened it has the beginning"
    );
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
    let _stays = listen(&node).await;
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
    let mut listener = listen(&node).await;
    ticker.say("id: seven\ndata: one\n\n");
    for expected in ["hello", "one"] {
        assert_eq!(listener.event().await.data.as_deref(), Some(expected));
    }
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
async fn a_refusal_is_told_and_nothing_stays_behind() {
    let ticker = Ticker::start().await;
    let node = sharing(&ticker, "all").await;
    for asked in 1..=2 {
        let answer = node.get("/sse/example/refused").await;
        answer.expect_error(403, "upstream_refused");
        assert!(answer.header("x-request-id").is_some(), "{answer:?}");
        assert_eq!(ticker.heads().len(), asked, "each time anew");
    }
    // Clients cannot name the channel.
    let answer = node.get("/sse/connect?channel=~shared:example:x").await;
    assert_eq!(answer.status, 400, "{answer:?}");
    // What is no stream passes as ever.
    let head = node.request("HEAD", "/sse/example/refused", &[], "").await;
    assert_eq!(head.status, 403, "{head:?}");
}
