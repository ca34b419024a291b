//! An event stream as bytes, read as the standard says.

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use super::http::Answer;
use super::{Hub, within};

/// One block of lines up to a blank one.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Block {
    pub(crate) id: Option<String>,
    pub(crate) event: Option<String>,
    pub(crate) data: Option<String>,
    pub(crate) retry: Option<u64>,
    /// It has a comment.
    pub(crate) comment: bool,
}

impl Block {
    pub(crate) fn json(&self) -> Value {
        let data = self.data.as_deref().expect("data");
        serde_json::from_str(data).expect("JSON")
    }
}

/// An open stream.
#[derive(Debug)]
pub(crate) struct EventStream {
    reader: BufReader<TcpStream>,
    /// Bytes that are left of a chunk, where a proxy has put the stream into chunks.
    chunk: Option<usize>,
    pub(crate) head: Answer,
    /// The id of the last event that had one: what a browser would come back with.
    pub(crate) last_id: Option<String>,
    /// The first event.
    pub(crate) connected: Block,
}

impl EventStream {
    /// Opens `/sse/connect` with a query, reads the head and the first event.
    pub(crate) async fn open(hub: &Hub, query: &str, headers: &[(&str, &str)]) -> Self {
        let stream = Self::open_at(hub, &format!("/sse/connect?{query}"), headers).await;
        assert_eq!(stream.connected.event.as_deref(), Some("connected"));
        stream
    }

    /// The same for a stream elsewhere, whose first block may be anything.
    pub(crate) async fn open_at(hub: &Hub, path: &str, headers: &[(&str, &str)]) -> Self {
        let stream = TcpStream::connect(hub.address()).await.expect("the hub");
        let mut reader = BufReader::new(stream);
        let mut request = format!(
            "GET {path} HTTP/1.1\r\nhost: {}\r\naccept: text/event-stream\r\n",
            hub.host()
        );
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        reader.write_all(request.as_bytes()).await.expect("sent");
        let mut head = Vec::new();
        within("a head", async {
            while !head.ends_with(b"\r\n\r\n") {
                let count = reader.read_until(b'\n', &mut head).await.expect("a head");
                assert!(count > 0, "no head: {}", String::from_utf8_lossy(&head));
            }
        })
        .await;
        let head = Answer::parse(&head);
        let mut stream = Self {
            reader,
            chunk: (head.header("transfer-encoding") == Some("chunked")).then_some(0),
            head,
            last_id: None,
            connected: Block::default(),
        };
        assert_eq!(stream.head.status, 200, "{:?}", stream.head);
        stream.connected = stream.block().await.expect("the first event");
        stream
    }

    /// Comes back as an `EventSource` does.
    pub(crate) async fn resume(hub: &Hub, query: &str, id: &str) -> Self {
        Self::open(hub, query, &[("last-event-id", id)]).await
    }

    /// The next block of lines; `None` at the end.
    pub(crate) async fn block(&mut self) -> Option<Block> {
        within("an event", self.read_block()).await
    }

    async fn read_block(&mut self) -> Option<Block> {
        let mut block = Block::default();
        loop {
            let line = self.read_line().await?;
            let line = line.trim_end_matches('\n');
            let (field, value) = line.split_once(": ").unwrap_or((line, ""));
            match field {
                "" => break,
                ":" => block.comment = true,
                "id" => block.id = Some(value.to_owned()),
                "event" => block.event = Some(value.to_owned()),
                "data" => match &mut block.data {
                    Some(data) => {
                        data.push('\n');
                        data.push_str(value);
                    }
                    None => block.data = Some(value.to_owned()),
                },
                "retry" => block.retry = value.parse().ok(),
                other => panic!("unknown field {other:?} in {line:?}"),
            }
        }
        self.last_id = block.id.clone().or(self.last_id.take());
        Some(block)
    }

    /// A line of the stream with its end, out of as many chunks as it takes; `None` at the end of the stream.
    async fn read_line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            match &mut self.chunk {
                None => match self.reader.read_until(b'\n', &mut line).await {
                    Ok(1..) => {}
                    _ => return None,
                },
                Some(0) => {
                    let mut size = String::new();
                    // The end of the chunk before this one is an empty line.
                    while size.trim().is_empty() {
                        size.clear();
                        if !matches!(self.reader.read_line(&mut size).await, Ok(1..)) {
                            return None;
                        }
                    }
                    let size = usize::from_str_radix(size.trim(), 16).expect("a chunk's size");
                    if size == 0 {
                        return None;
                    }
                    self.chunk = Some(size);
                }
                Some(left) => {
                    line.push(self.reader.read_u8().await.ok()?);
                    *left -= 1;
                }
            }
        }
        Some(String::from_utf8(line).expect("text"))
    }

    /// The next block with data. The deadline is for all of them: comments come for ever.
    pub(crate) async fn event(&mut self) -> Block {
        within("an event with data", async {
            loop {
                let block = self.read_block().await.expect("an event, not the end");
                if block.data.is_some() {
                    return block;
                }
            }
        })
        .await
    }

    /// The id of the last event that had one.
    pub(crate) fn id(&self) -> &str {
        self.last_id.as_deref().expect("an id")
    }
}
