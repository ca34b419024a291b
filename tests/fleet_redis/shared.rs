//! A stream that many share over a fleet: one connection to the upstream, whatever becomes of the node that has it.

use crate::redis_server::RedisServer;
use crate::support::sse::EventStream;
use crate::support::ws::Socket;
use crate::support::{Hub, eventually, within};
use crate::ticker::Ticker;

/// Two nodes that share the upstream's streams.
async fn two_nodes(redis: &RedisServer, ticker: &Ticker) -> [Hub; 2] {
    let file = format!(
        "[services.example]\nupstreams = [{:?}]\nshare = \"all\"",
        ticker.url()
    );
    [
        crate::node(redis, 0, &file, &[]).await,
        crate::node(redis, 1, &file, &[]).await,
    ]
}

async fn listen(node: &Hub) -> EventStream {
    EventStream::open_at(node, "/sse/example/ticks", &[]).await
}

async fn expect(stream: &mut EventStream, events: &[&str]) {
    for expected in events {
        assert_eq!(stream.event().await.data.as_deref(), Some(*expected));
    }
}

/// A listener on the second node, once the first one's has heard `hello` and both have heard of event 1.
async fn both_listen(ticker: &Ticker, nodes: &[Hub; 2]) -> [EventStream; 2] {
    let mut first = listen(&nodes[0]).await;
    expect(&mut first, &["hello"]).await;
    let mut streams = [first, listen(&nodes[1]).await];
    assert_eq!(ticker.listeners(), 1, "one connection for the fleet");
    ticker.say("id: 1\ndata: one\n\n");
    for stream in &mut streams {
        expect(stream, &["one"]).await;
    }
    streams
}

/// The other node asks the upstream for what came after event 1, and nothing is lost or said twice.
async fn goes_on(ticker: &Ticker, stream: &mut EventStream) {
    eventually("the other node takes over", async || {
        (ticker.heads().len() == 2 && ticker.listeners() == 1).then_some(())
    })
    .await;
    let heads = ticker.heads();
    assert!(heads[1].contains("last-event-id: 1\r\n"), "{heads:?}");
    ticker.say("id: 2\ndata: two\n\n");
    expect(stream, &["hello", "two"]).await;
    assert!(stream.id().ends_with(":4"), "{}", stream.id());
}

#[tokio::test]
async fn one_node_reads_the_upstream_for_all_and_another_takes_over_when_it_dies() {
    let (redis, ticker) = (RedisServer::start(), Ticker::start().await);
    let nodes = two_nodes(&redis, &ticker).await;
    let [of_first, mut of_second] = both_listen(&ticker, &nodes).await;
    let [first, _second] = nodes;
    drop((of_first, first));
    goes_on(&ticker, &mut of_second).await;
}

#[tokio::test]
async fn back_ends_hear_nothing_of_who_listens_to_an_upstream() {
    let (redis, ticker) = (RedisServer::start(), Ticker::start().await);
    let file = format!(
        "[services.example]\nupstreams = [{:?}]\nshare = \"all\"",
        ticker.url()
    );
    let told = [("EVENT_STREAM", "true")];
    let node = crate::node(&redis, 0, &file, &told).await;
    let mut listener = listen(&node).await;
    expect(&mut listener, &["hello"]).await;
    drop(listener);
    eventually("it is gone", async || {
        let metrics = node.get("/metrics").await.text;
        let gone = r#"fanfare_connections{transport="sse"} 0"#;
        metrics.contains(gone).then_some(())
    })
    .await;
    // Everything before this was told before it.
    let mut socket = Socket::open(&node).await;
    socket.subscribe("news").await;
    let events = eventually("what is told", async || {
        let events = redis.ask(&["XRANGE", "fanfare:events", "-", "+"]);
        events.contains("channel_occupied").then_some(events)
    })
    .await;
    // redis-cli may show quotes with a backslash before them.
    let events = events.replace('\\', "");
    assert_eq!(events.matches(r#""event":"#).count(), 3, "{events}");
    assert!(!events.contains("~shared"), "{events}");
}

#[tokio::test]
async fn a_node_that_drains_or_is_left_hands_the_upstream_over() {
    let (redis, ticker) = (RedisServer::start(), Ticker::start().await);
    let nodes = two_nodes(&redis, &ticker).await;
    let [of_first, mut of_second] = both_listen(&ticker, &nodes).await;
    drop(of_first);
    goes_on(&ticker, &mut of_second).await;
    let mut of_first = listen(&nodes[0]).await;
    let [first, mut second] = nodes;
    second.terminate();
    assert_eq!(second.exit_code().await, Some(0));
    eventually("the first node has it again", async || {
        (ticker.heads().len() == 3 && ticker.listeners() == 1).then_some(())
    })
    .await;
    expect(&mut of_first, &["hello"]).await;
    let metrics = first.get("/metrics").await.text;
    assert!(metrics.contains("fanfare_shared_sources 1"), "{metrics}");
}

#[tokio::test]
async fn a_refusal_and_an_end_reach_the_listeners_of_every_node() {
    let (redis, ticker) = (RedisServer::start(), Ticker::start().await);
    let nodes = two_nodes(&redis, &ticker).await;
    let streams = both_listen(&ticker, &nodes).await;
    ticker.answers("HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\ngone");
    let path = "/sse/example/others";
    let (one, other) = tokio::join!(nodes[0].get(path), nodes[1].get(path));
    for answer in [one, other] {
        assert_eq!((answer.status, &*answer.text), (404, "gone"), "{answer:?}");
    }
    ticker.cut();
    for mut stream in streams {
        let end = async { while stream.block().await.is_some() {} };
        within("the end of the stream", end).await;
    }
}

#[tokio::test]
async fn while_redis_is_away_nothing_is_pretended_and_then_the_stream_goes_on() {
    let (mut redis, ticker) = (RedisServer::start_kept(), Ticker::start().await);
    let nodes = two_nodes(&redis, &ticker).await;
    let [_of_first, mut of_second] = both_listen(&ticker, &nodes).await;
    redis.kill();
    let answer = nodes[0].get("/sse/example/others").await;
    answer.expect_error(502, "upstream_unavailable");
    redis.start_again();
    eventually("somebody reads it again", async || {
        if ticker.listeners() == 0 {
            return None;
        }
        ticker.say("data: again\n\n");
        let event = of_second.event().await;
        (event.data.as_deref() == Some("again")).then_some(())
    })
    .await;
    eventually("one of them at the end", async || {
        (ticker.listeners() == 1).then_some(())
    })
    .await;
}

/// A node that was stopped for a while still has its stream, and what came on it meanwhile; another one has said all of that.
#[tokio::test]
async fn a_node_that_goes_on_after_a_while_says_nothing_twice() {
    let (redis, ticker) = (RedisServer::start(), Ticker::start().await);
    let nodes = two_nodes(&redis, &ticker).await;
    let [_of_first, mut of_second] = both_listen(&ticker, &nodes).await;
    nodes[0].stop();
    eventually("the other node takes over", async || {
        (ticker.heads().len() == 2 && ticker.listeners() == 2).then_some(())
    })
    .await;
    ticker.say("id: 2\ndata: two\n\n");
    expect(&mut of_second, &["hello", "two"]).await;
    nodes[0].go_on();
    eventually("it leaves the upstream to the other", async || {
        (ticker.listeners() == 1).then_some(())
    })
    .await;
    ticker.say("id: 3\ndata: three\n\n");
    expect(&mut of_second, &["three"]).await;
    assert!(of_second.id().ends_with(":5"), "{}", of_second.id());
}
