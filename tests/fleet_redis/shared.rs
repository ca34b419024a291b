//! A stream that many share over a fleet: one connection to the upstream, and another node's when that node dies.

use crate::redis_server::RedisServer;
use crate::support::eventually;
use crate::support::sse::EventStream;
use crate::ticker::Ticker;

#[tokio::test]
async fn one_node_reads_the_upstream_for_all_and_another_takes_over() {
    let (redis, ticker) = (RedisServer::start(), Ticker::start().await);
    let file = format!(
        "[services.example]\nupstreams = [{:?}]\nshare = \"all\"",
        ticker.url()
    );
    let first = crate::node(&redis, 0, &file, &[]).await;
    let second = crate::node(&redis, 1, &file, &[]).await;
    let of_first = EventStream::open_at(&first, "/sse/example/ticks", &[]).await;
    let mut of_second = EventStream::open_at(&second, "/sse/example/ticks", &[]).await;
    assert_eq!(ticker.listeners(), 1, "one connection for the fleet");
    ticker.say("id: 1\ndata: one\n\n");
    assert_eq!(of_second.event().await.data.as_deref(), Some("one"));
    drop((of_first, first));
    eventually("the other node takes over", async || {
        (ticker.heads().len() == 2 && ticker.listeners() == 1).then_some(())
    })
    .await;
    let heads = ticker.heads();
    assert!(heads[1].contains("last-event-id: 1\r\n"), "{heads:?}");
    ticker.say("id: 2\ndata: two\n\n");
    for expected in ["hello", "two"] {
        assert_eq!(of_second.event().await.data.as_deref(), Some(expected));
    }
    assert!(of_second.id().ends_with(":4"), "{}", of_second.id());
}
