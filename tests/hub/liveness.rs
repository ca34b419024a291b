//! Signs of life while the hub is busy.

use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::support::raw::{self, CLOSE, FIN, PING, PONG, Raw};
use crate::support::{Hub, hub};

/// Publishes to a channel without a pause, some requests at a time on one connection, until it is dropped.
async fn publish_without_pause(hub: &Hub, channel: &str) -> std::io::Result<()> {
    const AT_ONCE: usize = 20;
    let body = json!({"channel": channel, "data": 1}).to_string();
    let request = format!(
        "POST /hub/publish HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let requests = request.repeat(AT_ONCE);
    let mut stream = BufReader::new(TcpStream::connect(hub.address()).await?);
    loop {
        stream.write_all(requests.as_bytes()).await?;
        for _ in 0..AT_ONCE {
            let mut length = 0;
            loop {
                let mut line = String::new();
                stream.read_line(&mut line).await?;
                match line.trim_end().split_once(": ") {
                    Some(("content-length", value)) => length = value.parse().expect("a length"),
                    None if line == "\r\n" => break,
                    _ => {}
                }
            }
            stream.read_exact(&mut vec![0; length]).await?;
        }
    }
}

/// A subscriber whose queue is never empty when the pings are due was taken for dead: no ping was sent, and its pong
/// was waited for.
#[tokio::test]
async fn a_channel_that_is_never_quiet_keeps_nobody_from_being_pinged() {
    let hub = hub(&[
        ("WORKERS", "1"),
        ("WS_PING_INTERVAL_MS", "100"),
        ("WEBSOCKETS_PONG_TIMEOUT", "1"),
    ])
    .await;
    let mut raw = Raw::connect(&hub).await;
    raw.send(&raw::text(r#"{"type":"subscribe","channel":"hot"}"#))
        .await;
    let (reader, mut writer) = raw.stream.into_split();
    // It has to read faster than the others publish; every frame is short.
    let mut reader = BufReader::with_capacity(1 << 16, reader);
    let read = async {
        let mut pings = 0;
        while pings < 20 {
            let mut head = [0; 2];
            reader.read_exact(&mut head).await.expect("a frame");
            let mut payload = vec![0; usize::from(head[1])];
            reader.read_exact(&mut payload).await.expect("its payload");
            assert_ne!(head[0], FIN | CLOSE, "closed with {payload:?}");
            if head[0] == FIN | PING {
                pings += 1;
                let pong = raw::frame(FIN | PONG, &payload);
                writer.write_all(&pong).await.expect("sent");
            }
        }
    };
    let publish = || publish_without_pause(&hub, "hot");
    tokio::select! {
        () = read => {}
        ended = publish() => panic!("{ended:?}"),
        ended = publish() => panic!("{ended:?}"),
        ended = publish() => panic!("{ended:?}"),
    }
}
