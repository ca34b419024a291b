//! A WebSocket as bytes: frames that no library would send, and frames as they come.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{Hub, within};

pub(crate) const TEXT: u8 = 0x1;
pub(crate) const BINARY: u8 = 0x2;
pub(crate) const CLOSE: u8 = 0x8;
pub(crate) const PING: u8 = 0x9;
pub(crate) const PONG: u8 = 0xa;
/// The bit of a message's last frame.
pub(crate) const FIN: u8 = 0x80;

/// A socket after its handshake.
#[derive(Debug)]
pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
}

impl Raw {
    /// Opens a path and upgrades.
    pub(crate) async fn open(hub: &Hub, path: &str) -> Self {
        let mut stream = TcpStream::connect(hub.address()).await.expect("the hub");
        let request = handshake(hub, path);
        stream.write_all(request.as_bytes()).await.expect("sent");
        let head = read_head(&mut stream).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        Self { stream }
    }

    /// The same at the hub's own protocol, with the first message read.
    pub(crate) async fn connect(hub: &Hub) -> Self {
        let mut raw = Self::open(hub, "/ws/connect").await;
        let (head, payload) = raw.next().await.expect("the first message");
        assert_eq!(head, FIN | TEXT);
        assert!(payload.starts_with(br#"{"type":"connected""#));
        raw
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        // The hub may have closed in the middle of what it refuses.
        let _ = self.stream.write_all(bytes).await;
    }

    /// The next frame, first byte and payload; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        within("a frame", async {
            let mut head = [0; 2];
            self.stream.read_exact(&mut head).await.ok()?;
            assert_eq!(head[1] & 0x80, 0, "a server masks nothing");
            let length = match head[1] {
                126 => u64::from(self.stream.read_u16().await.ok()?),
                127 => self.stream.read_u64().await.ok()?,
                short => u64::from(short),
            };
            let mut payload = vec![0; usize::try_from(length).expect("a length")];
            self.stream.read_exact(&mut payload).await.ok()?;
            Some((head[0], payload))
        })
        .await
    }

    /// The code of the close frame that comes next but for other frames. It is answered, and the socket ends.
    pub(crate) async fn close_code(&mut self) -> u16 {
        loop {
            let (head, payload) = self.next().await.expect("a close frame");
            if head == FIN | CLOSE {
                self.send(&frame(FIN | CLOSE, &payload)).await;
                assert_eq!(self.next().await, None, "something after the close");
                return payload
                    .first_chunk()
                    .map_or(1005, |code| u16::from_be_bytes(*code));
            }
        }
    }
}

/// A handshake's request.
pub(crate) fn handshake(hub: &Hub, path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        hub.host()
    )
}

/// The head of an answer, up to the blank line.
pub(crate) async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    within("a head", async {
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("a head"));
        }
    })
    .await;
    String::from_utf8(head).expect("a head")
}

/// A masked frame, as a client sends it.
pub(crate) fn frame(head: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(head, 0x80, payload.len() as u64);
    // The mask of zeros leaves the payload readable.
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

/// The first bytes of a frame, without mask; `mask` is 0x80 or 0.
pub(crate) fn header(head: u8, mask: u8, length: u64) -> Vec<u8> {
    let mut header = vec![head];
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ 0..=125), _) => header.push(mask | short),
        (_, Ok(middle)) => {
            header.push(mask | 126);
            header.extend_from_slice(&middle.to_be_bytes());
        }
        _ => {
            header.push(mask | 127);
            header.extend_from_slice(&length.to_be_bytes());
        }
    }
    header
}

/// A text message in one frame.
pub(crate) fn text(text: &str) -> Vec<u8> {
    frame(FIN | TEXT, text.as_bytes())
}
