//! HTTP/2 (RFC 9113) from clients: every route, over plain sockets and over TLS, with the same answers as HTTP/1.

use std::sync::Arc;

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Method, Request};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::node;
use crate::shims::Pair;
use crate::support::http::Answer as PlainAnswer;
use crate::support::sse::EventStream;
use crate::support::{Hub, eventually, hub, hub_with, within};
use crate::ticker::Ticker;
use crate::upstream::Upstream;

/// A client's connection.
pub(crate) struct Session {
    pub(crate) send: SendRequest<Bytes>,
    /// Ends with the connection.
    pub(crate) end: JoinHandle<Result<(), h2::Error>>,
    scheme: &'static str,
}

/// What was answered on one stream.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) fields: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: HeaderMap,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields
            .get(name)
            .map(|value| value.to_str().expect("text"))
    }
}

impl Session {
    pub(crate) async fn open(node: &Hub) -> Self {
        Self::open_with(node, &Builder::new()).await
    }

    pub(crate) async fn open_with(node: &Hub, builder: &Builder) -> Self {
        let socket = TcpStream::connect(node.address()).await.expect("the node");
        Self::over(socket, builder, "http").await
    }

    async fn over<T>(socket: T, builder: &Builder, scheme: &'static str) -> Self
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (send, connection) = builder.handshake(socket).await.expect("a handshake");
        Self {
            send,
            end: tokio::spawn(connection),
            scheme,
        }
    }

    /// A request whose body is still to come, if there is one.
    pub(crate) async fn begin(
        &self,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        has_body: bool,
    ) -> (h2::client::ResponseFuture, SendStream<Bytes>) {
        let uri = format!("{}://node.test{path}", self.scheme);
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request.body(()).expect("a request");
        self.send_request(request, !has_body).await
    }

    pub(crate) async fn send_request(
        &self,
        request: Request<()>,
        ends: bool,
    ) -> (h2::client::ResponseFuture, SendStream<Bytes>) {
        let mut send = within("a place", self.send.clone().ready())
            .await
            .expect("a place");
        send.send_request(request, ends).expect("sent")
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], "").await
    }

    pub(crate) async fn ask(
        &self,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let (response, mut stream) = self.begin(method, path, fields, !body.is_empty()).await;
        if !body.is_empty() {
            let bytes = Bytes::copy_from_slice(body.as_bytes());
            stream.send_data(bytes, true).expect("sent");
        }
        finish(response).await.expect("an answer")
    }
}

/// The answer, whole.
pub(crate) async fn finish(response: h2::client::ResponseFuture) -> Result<Answer, h2::Error> {
    let (head, mut body) = within("an answer", response).await?.into_parts();
    let mut answer = Answer {
        status: head.status.as_u16(),
        fields: head.headers,
        body: Vec::new(),
        trailers: HeaderMap::new(),
    };
    while let Some(bytes) = next(&mut body).await? {
        answer.body.extend_from_slice(&bytes);
    }
    let trailers = within("trailers", body.trailers()).await?;
    answer.trailers = trailers.unwrap_or_default();
    Ok(answer)
}

/// The next piece of a body.
pub(crate) async fn next(body: &mut RecvStream) -> Result<Option<Bytes>, h2::Error> {
    let bytes = within("more of a body", body.data()).await.transpose()?;
    if let Some(bytes) = &bytes {
        body.flow_control().release_capacity(bytes.len())?;
    }
    Ok(bytes)
}

/// Reads on until the body holds this text.
pub(crate) async fn read_until(body: &mut RecvStream, expected: &str) -> String {
    let mut text = String::new();
    while !text.contains(expected) {
        let bytes = next(body).await.expect("more").expect("no end");
        text.push_str(&String::from_utf8_lossy(&bytes));
    }
    text
}

/// A socket to a node that may still be starting.
async fn reach(node: &Hub) -> TcpStream {
    eventually("the node listens", async || {
        TcpStream::connect(node.address()).await.ok()
    })
    .await
}

#[tokio::test]
async fn shared_streams_are_shared_with_clients_of_http1() {
    let ticker = Ticker::start().await;
    let file = format!(
        "[services.example]\nupstreams = [{:?}]\nshare = \"all\"",
        ticker.url()
    );
    let node = hub_with(&file, &[]).await;
    let mut plain = EventStream::open_at(&node, "/sse/example/a", &[]).await;
    assert_eq!(plain.event().await.data.as_deref(), Some("hello"));
    let session = Session::open(&node).await;
    let (response, _) = session.begin("GET", "/sse/example/a", &[], false).await;
    let response = within("an answer", response).await.expect("an answer");
    assert_eq!(response.status(), 200);
    let mut body = response.into_body();
    read_until(&mut body, "retry: ").await;
    ticker.say("data: one\n\n");
    read_until(&mut body, "data: one\n\n").await;
    assert_eq!(plain.event().await.data.as_deref(), Some("one"));
    assert_eq!(ticker.listeners(), 1);
}

/// A connection over TLS to a node that has this pair.
async fn encrypted_session(node: &Hub, pair: &Pair) -> Session {
    let connector = pair.connector(&[b"h2"]);
    let socket = reach(node).await;
    let name = rustls::pki_types::ServerName::try_from("localhost").expect("a name");
    let socket = connector.connect(name, socket).await.expect("a handshake");
    assert_eq!(socket.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    Session::over(socket, &Builder::new(), "https").await
}

#[tokio::test]
async fn every_kind_of_route_answers_as_in_http1() {
    let upstream = Upstream::start().await;
    let node = node(&[&upstream], &[]).await;
    let session = Session::open(&node).await;
    for path in [
        "/healthz",
        "/readyz",
        "/metrics",
        "/openapi.json",
        "/hub/channels",
        "/admin/stats",
        "/nowhere",
        "/api/nobody/x",
        "/api/example/redirect",
        "/api/example/%2f",
    ] {
        let (one, other) = (node.get(path).await, session.get(path).await);
        assert_eq!(one.status, other.status, "{path}");
        let kind = |text: Option<&str>| text.map(str::to_owned);
        assert_eq!(
            kind(one.header("content-type")),
            kind(other.field("content-type")),
            "{path}"
        );
        assert_eq!(other.field("connection"), None, "{path}");
    }
    let answer = session.get("/api/example/a?b=c").await;
    for line in [
        "GET /a?b=c HTTP/1.1",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-proto: http",
        "x-forwarded-host: node.test",
    ] {
        assert!(
            answer.text().lines().any(|one| one == line),
            "{line}: {}",
            answer.text()
        );
    }
    let body = json!({"channel": "news", "data": 1}).to_string();
    let kind = [("content-type", "application/json")];
    let published = session.ask("POST", "/hub/publish", &kind, &body).await;
    assert_eq!(published.status, 200, "{}", published.text());
    assert!(
        published.text().contains("\"offset\":1"),
        "{}",
        published.text()
    );
}

#[tokio::test]
async fn fields_that_are_parted_in_http2_are_joined_for_upstreams() {
    let upstream = Upstream::start().await;
    let node = node(&[&upstream], &[]).await;
    let session = Session::open(&node).await;
    let fields = [
        ("cookie", "a=b"),
        ("te", "trailers"),
        ("cookie", "c=d"),
        ("accept", "x"),
    ];
    let text = session
        .ask("GET", "/api/example/a", &fields, "")
        .await
        .text();
    for line in ["cookie: a=b; c=d", "te: trailers", "accept: x"] {
        assert_eq!(text.lines().filter(|one| *one == line).count(), 1, "{text}");
    }
}

#[tokio::test]
async fn requests_share_a_connection_without_waiting_for_each_other() {
    let upstream = Upstream::start().await;
    let node = node(&[&upstream], &[]).await;
    let session = Session::open(&node).await;
    let (slow, _) = session.begin("GET", "/api/example/never", &[], false).await;
    let asked = (0..100).map(async |n| {
        let body = format!("body {n}");
        let path = format!("/api/example/{n}");
        let answer = session.ask("POST", &path, &[], &body).await;
        assert_eq!(answer.status, 200);
        assert!(
            answer.text().starts_with(&format!("POST /{n} ")),
            "{}",
            answer.text()
        );
        assert!(answer.text().contains(&body), "{}", answer.text());
    });
    futures_util::future::join_all(asked).await;
    drop(slow);
    eventually("the upstream sees the slow one go", async || {
        (upstream.gone() == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn large_bodies_pass_both_ways_with_a_length_and_without() {
    let upstream = Upstream::start().await;
    let node = node(&[&upstream], &[]).await;
    let session = Session::open(&node).await;
    let body: String = (0..300_000).map(|n| format!("{n:06}")).collect();
    let length = body.len().to_string();
    for fields in [&[("content-length", &*length)][..], &[]] {
        let (response, mut stream) = session
            .begin("POST", "/api/example/echo", fields, true)
            .await;
        let sending = send_all(&mut stream, body.as_bytes());
        let (_, answer) = tokio::join!(sending, finish(response));
        let answer = answer.expect("an answer");
        assert_eq!(answer.status, 200);
        let text = answer.text();
        let (head, echoed) = text.split_once("\r\n\r\n").expect("a head");
        if fields.is_empty() {
            assert!(head.contains("transfer-encoding: chunked"), "{head}");
            // The upstream shows the framing, too.
            assert!(echoed.len() > body.len() && echoed.ends_with("\r\n0\r\n\r\n"));
        } else {
            assert!(echoed == body, "{} bytes", echoed.len());
        }
    }
}

async fn send_all(stream: &mut SendStream<Bytes>, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        let room = std::future::poll_fn(|cx| stream.poll_capacity(cx));
        let room = within("room", room).await.expect("a stream").expect("room");
        let (now, later) = bytes.split_at(room.min(bytes.len()));
        stream
            .send_data(Bytes::copy_from_slice(now), later.is_empty())
            .expect("sent");
        bytes = later;
    }
}

#[tokio::test]
async fn heads_interim_answers_and_trailers_pass() {
    let upstream = Upstream::start().await;
    let node = node(&[&upstream], &[]).await;
    let session = Session::open(&node).await;

    let answer = session.ask("HEAD", "/api/example/head", &[], "").await;
    assert_eq!(
        (answer.status, answer.field("content-length")),
        (200, Some("12"))
    );
    assert!(answer.body.is_empty());

    let trailers = session.get("/api/example/trailers").await;
    assert_eq!(
        (trailers.text(), &trailers.trailers["x-sum"]),
        ("ok".to_owned(), &"7".parse().expect("a value"))
    );
    assert_eq!(trailers.field("transfer-encoding"), None);

    let (mut response, _) = session.begin("GET", "/api/example/hints", &[], false).await;
    let interim = within(
        "hints",
        std::future::poll_fn(|cx| response.poll_informational(cx)),
    )
    .await;
    let interim = interim.expect("an interim answer").expect("a good one");
    assert_eq!(
        (interim.status().as_u16(), &interim.headers()["link"]),
        (103, &"</x>".parse().expect("a value"))
    );
    assert_eq!(finish(response).await.expect("an answer").text(), "ok");

    // An upstream's end of the connection is a clean end only where nothing else says it.
    assert_eq!(session.get("/api/example/until-close").await.text(), "abc");

    let (response, mut stream) = session.begin("POST", "/api/example/up", &[], true).await;
    stream
        .send_data(Bytes::from_static(b"ok"), false)
        .expect("sent");
    stream
        .send_trailers(
            [(
                "x-sum".parse().expect("a name"),
                "9".parse().expect("a value"),
            )]
            .into_iter()
            .collect(),
        )
        .expect("sent");
    let text = finish(response).await.expect("an answer").text();
    assert!(text.ends_with("2\r\nok\r\n0\r\nx-sum: 9\r\n\r\n"), "{text}");
}

#[tokio::test]
async fn a_client_that_expects_100_gets_it() {
    let upstream = Upstream::start().await;
    let node = node(&[&upstream], &[]).await;
    let session = Session::open(&node).await;
    let fields = [("expect", "100-continue"), ("content-length", "2")];
    let (mut response, mut stream) = session.begin("POST", "/api/example/x", &fields, true).await;
    let interim = within(
        "100",
        std::future::poll_fn(|cx| response.poll_informational(cx)),
    )
    .await;
    assert_eq!(
        interim.expect("one").expect("a good one").status().as_u16(),
        100
    );
    stream
        .send_data(Bytes::from_static(b"ok"), true)
        .expect("sent");
    assert!(
        finish(response)
            .await
            .expect("an answer")
            .text()
            .ends_with("ok")
    );
}

/// Never a clean end: a client of HTTP/2 has nothing else to tell a whole answer by.
#[tokio::test]
async fn an_answer_that_breaks_off_is_a_reset_of_its_stream_alone() {
    let upstream = Upstream::start().await;
    let node = node(&[&upstream], &[]).await;
    let session = Session::open(&node).await;
    for path in ["cut-body", "reset-body"] {
        let (response, _) = session
            .begin("GET", &format!("/api/example/{path}"), &[], false)
            .await;
        let error = finish(response).await.expect_err(path);
        assert_eq!(
            error.reason(),
            Some(Reason::INTERNAL_ERROR),
            "{path}: {error}"
        );
    }
    assert_eq!(session.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn a_client_that_gives_up_takes_its_upstream_along() {
    let upstream = Upstream::start().await;
    let node = node(&[&upstream], &[]).await;
    let session = Session::open(&node).await;
    for (n, path) in [
        "/sse/example/events",
        "/api/example/never",
        "/api/example/endless",
    ]
    .iter()
    .enumerate()
    {
        let (response, mut stream) = session.begin("GET", path, &[], false).await;
        eventually("it has arrived", async || {
            (upstream.requests() == n + 1).then_some(())
        })
        .await;
        stream.send_reset(Reason::CANCEL);
        drop(response);
        eventually("the upstream sees it go", async || {
            (upstream.gone() == n + 1).then_some(())
        })
        .await;
    }
    assert_eq!(session.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn streams_of_events_pass_at_once() {
    let upstream = Upstream::start().await;
    let node = node(&[&upstream], &[("HTTP_PROXY_TIMEOUT_MS", "50")]).await;
    let session = Session::open(&node).await;
    let (response, _) = session
        .begin("GET", "/sse/example/events", &[], false)
        .await;
    let mut body = within("an answer", response)
        .await
        .expect("an answer")
        .into_body();
    assert_eq!(read_until(&mut body, "data: 1\n\n").await, "data: 1\n\n");

    let path = "/sse/connect?channel=news&channel=other";
    let (response, _) = session.begin("GET", path, &[], false).await;
    let response = within("an answer", response).await.expect("an answer");
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert_eq!(response.headers().get("connection"), None);
    let mut body = response.into_body();
    read_until(&mut body, "event: connected").await;
    for n in 0..3 {
        node.publish("news", &json!({ "n": n })).await;
        read_until(&mut body, &format!("{{\"n\":{n}}}")).await;
    }
    // Larger than a window, and than what anybody on the way holds.
    let large = json!("x".repeat(60_000));
    for _ in 0..5 {
        node.publish("news", &large).await;
        let text = read_until(&mut body, "\n\n").await;
        assert!(text.len() > 60_000, "{} bytes", text.len());
    }
}

#[tokio::test]
async fn what_is_no_request_of_http2_resets_its_stream() {
    let node = hub(&[]).await;
    let session = Session::open(&node).await;
    for (name, value) in [
        ("host", "elsewhere.test"),
        ("x", " blank"),
        ("x", "blank\t"),
    ] {
        let (response, _) = session
            .begin("GET", "/healthz", &[(name, value)], false)
            .await;
        let error = finish(response).await.expect_err(name);
        assert_eq!(
            error.reason(),
            Some(Reason::PROTOCOL_ERROR),
            "{name} {value:?}"
        );
    }
    for (fields, status) in [
        (&[("host", "node.test")][..], 200),
        (&[("host", "NODE.test")], 200),
        (&[("content-length", "0")], 200),
    ] {
        assert_eq!(
            session.ask("GET", "/healthz", fields, "").await.status,
            status
        );
    }
    let connect = Request::builder()
        .method(Method::CONNECT)
        .uri("a.test:80")
        .body(());
    let (response, _) = session
        .send_request(connect.expect("a request"), true)
        .await;
    assert_eq!(finish(response).await.expect("an answer").status, 405);
    let trace = session.ask("TRACE", "/", &[], "").await;
    assert_eq!(trace.status, 501);
}

/// A connection without a stream is silent, however well it began.
#[tokio::test]
async fn an_idle_connection_makes_way_on_a_full_node() {
    let pair = Pair::make();
    let mut variables = vec![
        ("MAX_CONNECTIONS", "2"),
        ("WORKERS", "1"),
        ("HEADER_TIMEOUT_MS", "60000"),
    ];
    variables.extend(pair.variables());
    let node = Hub::start("", &variables);
    // Both regular places, and all that are behind them.
    let _regular = [reach(&node).await, reach(&node).await];
    let mut idle = Vec::new();
    for _ in 0..16 {
        idle.push(encrypted_session(&node, &pair).await);
    }
    let one_more = encrypted_session(&node, &pair).await;
    let first = idle.remove(0);
    let _ = within("the first is ended", first.end).await;
    assert_eq!(one_more.get("/healthz").await.status, 200);
    let last = idle.last().expect("one");
    assert_eq!(last.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn tls_leaves_the_choice_to_the_client() {
    let (pair, upstream) = (Pair::make(), Upstream::start().await);
    let services = json!({ "example": [upstream.url()] }).to_string();
    let mut variables = vec![("UPSTREAMS", &*services), ("RATE_LIMIT_MAX", "0")];
    variables.extend(pair.variables());
    let node = Hub::start("", &variables);
    let session = encrypted_session(&node, &pair).await;
    let answer = session.get("/api/example/a").await;
    assert!(
        answer.text().contains("\r\nx-forwarded-proto: https\r\n"),
        "{}",
        answer.text()
    );
    let (response, _) = session
        .begin("GET", "/sse/connect?channel=news", &[], false)
        .await;
    let mut body = within("an answer", response)
        .await
        .expect("an answer")
        .into_body();
    read_until(&mut body, "event: connected").await;
    let body_text = json!({"channel": "news", "data": "by TLS"}).to_string();
    let kind = [("content-type", "application/json")];
    assert_eq!(
        session
            .ask("POST", "/hub/publish", &kind, &body_text)
            .await
            .status,
        200
    );
    read_until(&mut body, "by TLS").await;

    for (offered, chosen) in [
        (&[&b"http/1.1"[..]][..], Some(&b"http/1.1"[..])),
        (&[b"h2", b"http/1.1"], Some(b"h2")),
        (&[], None),
    ] {
        let socket = reach(&node).await;
        let name = rustls::pki_types::ServerName::try_from("localhost").expect("a name");
        let connected = pair.connector(offered).connect(name, socket).await;
        let socket = connected.expect("a handshake");
        assert_eq!(socket.get_ref().1.alpn_protocol(), chosen);
    }
}

#[tokio::test]
async fn without_streams_only_http1_is_spoken() {
    let pair = Pair::make();
    let node = hub(&[("HTTP2_MAX_STREAMS", "0")]).await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    assert_eq!(
        PlainAnswer::parse(&node.exchange(preface).await).status,
        505
    );

    let mut variables = vec![("HTTP2_MAX_STREAMS", "0")];
    variables.extend(pair.variables());
    let node = Hub::start("", &variables);
    let connector = pair.connector(&[b"h2", b"http/1.1"]);
    let socket = reach(&node).await;
    let name = rustls::pki_types::ServerName::try_from("localhost").expect("a name");
    let socket = connector.connect(name, socket).await.expect("a handshake");
    assert_eq!(socket.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
}

/// What comes behind a request of HTTP/1 is another one, whatever it looks like.
#[tokio::test]
async fn a_connection_begins_with_the_preface_or_never_speaks_http2() {
    let node = hub(&[]).await;
    let bytes = b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let text = String::from_utf8_lossy(&node.exchange(bytes).await).into_owned();
    let statuses: Vec<&str> = text.matches("HTTP/1.1 505 ").collect();
    assert_eq!(statuses.len(), 1, "{text}");
    let broken = b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n";
    assert!(!node.exchange(broken).await.starts_with(b"HTTP/1.1"));
    assert_eq!(
        node.exchange(b"INVALID CONNECTION PREFACE\r\n\r\n").await,
        b""
    );
}

impl Pair {
    /// What begins TLS with a node that has this pair, and offers these protocols.
    fn connector(&self, protocols: &[&[u8]]) -> tokio_rustls::TlsConnector {
        let mut config = Arc::unwrap_or_clone(self.trust());
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Arc::new(config).into()
    }
}

/// RFC 9110 section 7.6.3.
#[tokio::test]
async fn upstreams_are_told_in_which_version_they_were_asked() {
    let upstream = Upstream::start().await;
    let node = node(&[&upstream], &[]).await;
    let via = |text: &str| {
        let lines = text.lines().filter_map(|line| line.strip_prefix("via: "));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let text = Session::open(&node).await.get("/api/example/").await.text();
    assert_eq!(via(&text), ["2.0 fanfare"], "{text}");
    for version in ["1.0", "1.1"] {
        let request = format!(
            "GET /api/example/ HTTP/{version}\r\nhost: a\r\nvia: 1.1 other\r\nconnection: close\r\n\r\n"
        );
        let answer = node.exchange(request.as_bytes()).await;
        let text = String::from_utf8_lossy(&answer);
        assert_eq!(
            via(&text),
            ["1.1 other".to_owned(), format!("{version} fanfare")],
            "{text}"
        );
    }
}
