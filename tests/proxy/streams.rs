//! Streams of events: at once, and for ever.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::node;
use crate::support::{QUIET, within};
use crate::upstream::Upstream;

#[tokio::test]
async fn events_pass_at_once_and_outlive_every_time_out() {
    let upstream = Upstream::start().await;
    let node = node(&[&upstream], &[("HTTP_PROXY_TIMEOUT_MS", "50")]).await;
    let mut client = tokio::net::TcpStream::connect(node.address())
        .await
        .expect("the node");
    let request = "GET /sse/example/events HTTP/1.1\r\nhost: x\r\n\r\n";
    client.write_all(request.as_bytes()).await.expect("sent");
    let mut text = String::new();
    within("the first event", async {
        while !text.contains("data: 1\n\n") {
            text.push(char::from(client.read_u8().await.expect("more")));
        }
    })
    .await;
    for field in [
        "content-type: text/event-stream",
        "cache-control: no-cache",
        "x-accel-buffering: no",
    ] {
        assert!(text.contains(&format!("{field}\r\n")), "{field} in {text}");
    }
    // What is left of the first chunk, then silence for three time-outs.
    let mut rest = [0; 2];
    client.read_exact(&mut rest).await.expect("the chunk's end");
    let silence = tokio::time::timeout(QUIET, client.read_u8()).await;
    assert!(silence.is_err(), "{silence:?}");
    assert_eq!(upstream.gone(), 0);
}
