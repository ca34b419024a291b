//! A WebSocket client that speaks the hub's protocol in either format.

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::{Hub, QUIET, within};

/// How the server closed.
pub(crate) type Closed = (u16, String);

/// A connection to `/ws/connect`.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: WebSocketStream<TcpStream>,
    is_packed: bool,
    /// The first message.
    pub(crate) connected: Value,
}

/// A refused handshake.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

/// A handshake, with the query's text (empty or from `?` on) and further headers.
pub(crate) async fn handshake(
    hub: &Hub,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<(WebSocketStream<TcpStream>, Option<String>), Refused> {
    let mut request = format!("ws://{}{path}", hub.host())
        .into_client_request()
        .expect("a request");
    for (name, value) in headers {
        request.headers_mut().append(
            name.parse::<HeaderName>().expect("a name"),
            HeaderValue::from_str(value).expect("a value"),
        );
    }
    let stream = TcpStream::connect(hub.address()).await.expect("the hub");
    let config = WebSocketConfig::default()
        .max_frame_size(None)
        .max_message_size(None);
    let shake = tokio_tungstenite::client_async_with_config(request, stream, Some(config));
    match within("a handshake", shake).await {
        Ok((stream, response)) => {
            let protocol = response.headers().get("sec-websocket-protocol");
            let protocol = protocol.map(|name| name.to_str().expect("a name").to_owned());
            Ok((stream, protocol))
        }
        Err(Error::Http(response)) => Err(Refused {
            status: response.status().as_u16(),
            body: response
                .body()
                .as_deref()
                .and_then(|body| serde_json::from_slice(body).ok())
                .unwrap_or_default(),
        }),
        Err(error) => panic!("{path}: {error}"),
    }
}

impl Socket {
    /// JSON, without a token.
    pub(crate) async fn open(hub: &Hub) -> Self {
        Self::open_at(hub, "/ws/connect", &[]).await
    }

    /// MessagePack, without a token.
    pub(crate) async fn open_packed(hub: &Hub) -> Self {
        let headers = [("sec-websocket-protocol", "fanfare.msgpack")];
        Self::open_at(hub, "/ws/connect", &headers).await
    }

    /// JSON with a token.
    pub(crate) async fn open_as(hub: &Hub, token: &str) -> Self {
        let bearer = format!("Bearer {token}");
        Self::open_at(hub, "/ws/connect", &[("authorization", &bearer)]).await
    }

    pub(crate) async fn open_at(hub: &Hub, path: &str, headers: &[(&str, &str)]) -> Self {
        let (stream, protocol) = handshake(hub, path, headers)
            .await
            .unwrap_or_else(|refused| panic!("{path}: {refused:?}"));
        let begun = Self::begin(stream, protocol.as_deref()).await;
        begun.unwrap_or_else(|closed| panic!("closed with {closed:?}"))
    }

    /// After a handshake: reads the first message.
    pub(crate) async fn begin(
        stream: WebSocketStream<TcpStream>,
        protocol: Option<&str>,
    ) -> Result<Self, Closed> {
        let mut socket = Self {
            stream,
            is_packed: protocol == Some("fanfare.msgpack"),
            connected: Value::Null,
        };
        socket.connected = socket.next_or_close().await?;
        assert_eq!(socket.connected["type"], "connected");
        Ok(socket)
    }

    /// This connection's id.
    pub(crate) fn client(&self) -> String {
        let id = self.connected["client_id"].as_str();
        id.expect("a client id").to_owned()
    }

    pub(crate) async fn send(&mut self, message: &Value) {
        let message = self.encode(message);
        self.stream.send(message).await.expect("sent");
    }

    /// Several messages in one write.
    pub(crate) async fn send_all(&mut self, messages: &[Value]) {
        for message in messages {
            let message = self.encode(message);
            self.stream.feed(message).await.expect("taken");
        }
        self.stream.flush().await.expect("sent");
    }

    pub(crate) async fn send_message(&mut self, message: Message) {
        self.stream.send(message).await.expect("sent");
    }

    fn encode(&self, message: &Value) -> Message {
        match self.is_packed {
            true => Message::binary(rmp_serde::to_vec_named(message).expect("MessagePack")),
            false => Message::text(message.to_string()),
        }
    }

    /// The next message, or how the server closed. 1006 is a connection that broke.
    pub(crate) async fn next_or_close(&mut self) -> Result<Value, Closed> {
        within("a message", async {
            loop {
                match self.stream.next().await {
                    Some(Ok(Message::Text(text))) => {
                        assert!(!self.is_packed, "text on a MessagePack connection: {text}");
                        return Ok(serde_json::from_str(&text).expect("JSON"));
                    }
                    Some(Ok(Message::Binary(bytes))) => {
                        assert!(self.is_packed, "binary on a JSON connection");
                        return Ok(rmp_serde::from_slice(&bytes).expect("MessagePack"));
                    }
                    Some(Ok(Message::Close(Some(frame)))) => {
                        return Err((frame.code.into(), frame.reason.to_string()));
                    }
                    Some(Ok(Message::Close(None))) => return Err((1005, String::new())),
                    Some(Ok(_)) => {}
                    None | Some(Err(_)) => return Err((1006, String::new())),
                }
            }
        })
        .await
    }

    /// The next message.
    pub(crate) async fn next(&mut self) -> Value {
        match self.next_or_close().await {
            Ok(message) => message,
            Err(closed) => panic!("closed with {closed:?}"),
        }
    }

    /// The next message of this type, passing over others.
    pub(crate) async fn next_of(&mut self, kind: &str) -> Value {
        loop {
            let message = self.next().await;
            if message["type"] == kind {
                return message;
            }
        }
    }

    /// Sends a command and answers the next message.
    pub(crate) async fn ask(&mut self, message: &Value) -> Value {
        self.send(message).await;
        self.next().await
    }

    /// Subscribes and answers `subscribed`.
    pub(crate) async fn subscribe(&mut self, channel: &str) -> Value {
        let answer = self
            .ask(&json!({"type": "subscribe", "channel": channel}))
            .await;
        assert_eq!(answer["type"], "subscribed", "{answer}");
        answer
    }

    /// Comes back to a channel and answers `subscribed`.
    pub(crate) async fn recover(&mut self, channel: &str, position: &Value) -> Value {
        let answer = self
            .ask(&json!({"type": "subscribe", "channel": channel, "recover": position}))
            .await;
        assert_eq!(answer["type"], "subscribed", "{answer}");
        answer
    }

    /// The data of the next publications, whose offsets must follow each other from `after`.
    pub(crate) async fn numbers(&mut self, after: u64, count: u64) -> Vec<u64> {
        let mut data = Vec::new();
        for offset in after + 1..=after + count {
            let message = self.next().await;
            assert_eq!(message["type"], "publication", "{message}");
            assert_eq!(message["offset"], offset, "{message}");
            data.push(message["data"].as_u64().expect("a number"));
        }
        data
    }

    /// How the server closes, after whatever it says before.
    pub(crate) async fn closed(&mut self) -> Closed {
        loop {
            if let Err(closed) = self.next_or_close().await {
                return closed;
            }
        }
    }

    /// Nothing comes for a moment.
    pub(crate) async fn expect_quiet(&mut self) {
        if let Ok(message) = tokio::time::timeout(QUIET, self.next_or_close()).await {
            panic!("something came: {message:?}");
        }
    }

    /// It is alive and does as it is told: everything before was answered.
    pub(crate) async fn expect_alive(&mut self) {
        let answer = self.ask(&json!({"type": "ping", "id": "alive"})).await;
        assert_eq!(answer["type"], "pong", "{answer}");
        assert_eq!(answer["id"], "alive");
    }

    /// Closes as a client does and waits for the answer.
    pub(crate) async fn close(mut self) {
        // Closed already is closed as well.
        let _ = self.stream.close(None).await;
        while let Some(Ok(_)) = self.stream.next().await {}
    }
}

/// The position that a message carries.
pub(crate) fn position(message: &Value) -> Value {
    json!({"epoch": message["epoch"], "offset": message["offset"]})
}
