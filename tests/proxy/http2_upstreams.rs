//! Upstreams that speak HTTP/2, without TLS (`h2c://`) and as they choose over TLS.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream};
use http::request::Parts;
use http::{HeaderMap, Request, Response};
use serde_json::json;
use tokio::io::{AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::http2::{Session, finish, next, read_until};
use crate::shims::{Pair, server_side_with};
use crate::support::raw::Raw;
use crate::support::{Hub, eventually, hub, hub_with, within};
use crate::upstream::Upstream;
use crate::websocket::Sockets;

/// An upstream that speaks HTTP/2 only.
pub(crate) struct Server {
    host: String,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    requests: AtomicUsize,
    /// Streams that were reset while they were answered.
    gone: AtomicUsize,
    /// Requests that were refused once.
    refused: AtomicUsize,
    /// Told when the client has the half of what breaks off.
    has_half: Notify,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_with(Builder::new().max_concurrent_streams(100).clone()).await
    }

    pub(crate) async fn start_with(builder: Builder) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let host = listener.local_addr().expect("an address").to_string();
        let seen = Arc::new(Seen::default());
        let shared = seen.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let number = shared.connections.fetch_add(1, SeqCst);
                let (builder, seen) = (builder.clone(), shared.clone());
                tokio::spawn(async move {
                    let mut connection = builder.handshake(socket).await.ok()?;
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        if request.uri().path() == "/go-away" {
                            connection.graceful_shutdown();
                        }
                        tokio::spawn(answer(request, respond, seen.clone(), number));
                    }
                    Some(())
                });
            }
        });
        Self { host, seen }
    }

    pub(crate) fn url(&self) -> String {
        format!("h2c://{}", self.host)
    }

    pub(crate) fn connections(&self) -> usize {
        self.seen.connections.load(SeqCst)
    }

    pub(crate) fn requests(&self) -> usize {
        self.seen.requests.load(SeqCst)
    }

    pub(crate) fn gone(&self) -> usize {
        self.seen.gone.load(SeqCst)
    }
}

fn ok() -> Response<()> {
    Response::new(())
}

fn fields(name: &'static str, value: &'static str) -> HeaderMap {
    let mut fields = HeaderMap::new();
    fields.insert(name, value.parse().expect("a value"));
    fields
}

/// `None` when the stream has ended before its answer did.
async fn answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    seen: Arc<Seen>,
    connection: usize,
) -> Option<()> {
    let number = seen.requests.fetch_add(1, SeqCst);
    let (head, mut body) = request.into_parts();
    match head.uri.path() {
        "/never" => {
            let reset = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
            seen.gone.fetch_add(1, SeqCst);
            reset.ok().map(|_| ())
        }
        "/events" => {
            let mut stream = respond.send_response(ok(), false).ok()?;
            stream.send_data("data: 1\n\n".into(), false).ok()?;
            let reset = std::future::poll_fn(|cx| stream.poll_reset(cx)).await;
            seen.gone.fetch_add(1, SeqCst);
            reset.ok().map(|_| ())
        }
        "/refuse-first" if number == 0 => {
            respond.send_reset(Reason::REFUSED_STREAM);
            None
        }
        "/refuse-once" if seen.refused.fetch_add(1, SeqCst) == 0 => {
            // Not before all of the body has come.
            while let Some(Ok(bytes)) = body.data().await {
                body.flow_control().release_capacity(bytes.len()).ok()?;
            }
            respond.send_reset(Reason::REFUSED_STREAM);
            None
        }
        "/refuse-always" => {
            respond.send_reset(Reason::REFUSED_STREAM);
            None
        }
        "/cut" => {
            let mut stream = respond.send_response(ok(), false).ok()?;
            stream.send_data("half".into(), false).ok()?;
            seen.has_half.notified().await;
            stream.send_reset(Reason::INTERNAL_ERROR);
            None
        }
        "/cut-head" => {
            respond.send_reset(Reason::INTERNAL_ERROR);
            None
        }
        "/hints" => {
            let hints = Response::builder()
                .status(103)
                .header("link", "</x>")
                .body(());
            respond.send_informational(hints.expect("an answer")).ok()?;
            let mut stream = respond.send_response(ok(), false).ok()?;
            stream.send_data("ok".into(), true).ok()
        }
        "/trailers-only" => {
            let only = Response::builder().header("grpc-status", "5").body(());
            respond
                .send_response(only.expect("an answer"), true)
                .ok()
                .map(|_| ())
        }
        "/grpc" => {
            let mut stream = respond.send_response(ok(), false).ok()?;
            // Message for message, before the request has ended.
            while let Some(Ok(bytes)) = body.data().await {
                body.flow_control().release_capacity(bytes.len()).ok()?;
                stream.send_data(bytes, false).ok()?;
            }
            stream.send_trailers(fields("grpc-status", "0")).ok()
        }
        _ => echo(&head, body, respond, connection).await,
    }
}

/// Tells the request as it came, and on which connection.
async fn echo(
    head: &Parts,
    mut body: RecvStream,
    mut respond: SendResponse<Bytes>,
    connection: usize,
) -> Option<()> {
    let mut text = format!("{} {} on {connection}\n", head.method, head.uri);
    for (name, value) in &head.headers {
        text.push_str(&format!("{name}: {}\n", value.to_str().expect("text")));
    }
    text.push('\n');
    let mut text = text.into_bytes();
    while let Some(bytes) = body.data().await {
        let bytes = bytes.ok()?;
        body.flow_control().release_capacity(bytes.len()).ok()?;
        text.extend_from_slice(&bytes);
    }
    if let Ok(Some(trailers)) = body.trailers().await {
        let sum = trailers["x-sum"].to_str().expect("text").to_owned();
        text.extend_from_slice(format!("trailer {sum}").as_bytes());
    }
    let response = Response::builder().header("content-length", text.len());
    let response = response.body(()).expect("an answer");
    let is_head = head.method == "HEAD";
    let mut stream = respond.send_response(response, is_head).ok()?;
    match is_head {
        true => Some(()),
        false => stream.send_data(text.into(), true).ok(),
    }
}

/// A node of one worker with the service `example` on these URLs.
pub(crate) async fn node(urls: &[String], variables: &[(&str, &str)]) -> Hub {
    let services = json!({ "example": urls }).to_string();
    let mut all = vec![
        ("UPSTREAMS", &*services),
        ("RATE_LIMIT_MAX", "0"),
        ("WORKERS", "1"),
    ];
    all.extend(variables);
    hub(&all).await
}

#[tokio::test]
async fn many_requests_share_one_connection() {
    let server = Server::start().await;
    let node = node(&[format!("{}/base", server.url())], &[]).await;
    let asked = (0..60).map(async |n| {
        let path = format!("/api/example/{n}?a=b");
        let answer = node
            .request("POST", &path, &[("cookie", "a=b")], &format!("body {n}"))
            .await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let expected = format!("POST http://{}/base/{n}?a=b on 0\n", server.host);
        assert!(answer.text.starts_with(&expected), "{}", answer.text);
        assert!(
            answer.text.ends_with(&format!("body {n}")),
            "{}",
            answer.text
        );
        for line in [
            "cookie: a=b",
            "x-forwarded-for: 127.0.0.1",
            "via: 1.1 fanfare",
        ] {
            assert!(
                answer.text.lines().any(|one| one == line),
                "{line}: {}",
                answer.text
            );
        }
        for name in ["connection:", "transfer-encoding:", "\nhost:"] {
            assert!(!answer.text.contains(name), "{name}: {}", answer.text);
        }
        assert_eq!(
            answer.header("connection"),
            Some("close"),
            "what the client asked for"
        );
    });
    futures_util::future::join_all(asked).await;
    assert_eq!((server.connections(), server.requests()), (1, 60));
}

/// A way to a server whose first connection takes whatever comes and never says more than that it is there.
async fn silent_at_first(server: &Server) -> String {
    // An empty `SETTINGS` frame (RFC 9113 section 6.5).
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("h2c://{}", listener.local_addr().expect("an address"));
    let host = server.host.clone();
    tokio::spawn(async move {
        let (mut first, _) = listener.accept().await.expect("a node");
        first.write_all(&SETTINGS).await.expect("a node");
        while let Ok((mut near, _)) = listener.accept().await {
            let mut far = TcpStream::connect(&host).await.expect("the server");
            tokio::spawn(async move { copy_bidirectional(&mut near, &mut far).await });
        }
        drop(first);
    });
    url
}

#[tokio::test]
async fn a_connection_that_left_a_request_unanswered_gets_no_other() {
    let server = Server::start().await;
    let url = silent_at_first(&server).await;
    // Longer than it takes to doubt a connection.
    let node = node(&[url], &[("HTTP_PROXY_TIMEOUT_MS", "1500")]).await;
    assert_eq!(node.get("/api/example/lost").await.status, 504);
    let answer = node.get("/api/example/found").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.text.contains("/found on 0\n"), "{}", answer.text);
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn bodies_and_trailers_pass_both_ways() {
    let server = Server::start().await;
    let node = node(&[server.url()], &[]).await;
    let large: String = (0..200_000).map(|n| format!("{n:06}")).collect();
    let answer = node.request("POST", "/api/example/x", &[], &large).await;
    assert!(answer.text.ends_with(&large), "{} bytes", answer.text.len());

    let session = Session::open(&node).await;
    let te = [("te", "trailers"), ("content-type", "application/grpc")];
    let (response, mut up) = session.begin("POST", "/api/example/grpc", &te, true).await;
    up.send_data("one".into(), false).expect("sent");
    let mut body = within("an answer", response)
        .await
        .expect("an answer")
        .into_body();
    // Before the request has ended: a call may be a conversation.
    assert_eq!(read_until(&mut body, "one").await, "one");
    up.send_data("two".into(), true).expect("sent");
    assert_eq!(read_until(&mut body, "two").await, "two");
    assert!(next(&mut body).await.expect("an end").is_none());
    let trailers = within("trailers", body.trailers()).await.expect("an end");
    assert_eq!(trailers.expect("trailers")["grpc-status"], "0");

    let (response, mut up) = session.begin("POST", "/api/example/x", &te, true).await;
    up.send_data("up".into(), false).expect("sent");
    up.send_trailers(fields("x-sum", "9")).expect("sent");
    let text = finish(response).await.expect("an answer").text();
    assert!(text.ends_with("\n\nuptrailer 9"), "{text}");
    assert!(text.contains("\nte: trailers\n"), "{text}");

    // A client of HTTP/1 has them behind the chunks.
    let request = "POST /api/example/grpc HTTP/1.1\r\nhost: a\r\nte: trailers\r\nconnection: close\r\n\
                   content-length: 2\r\n\r\nok";
    let text = String::from_utf8(node.exchange(request.as_bytes()).await).expect("text");
    assert!(
        text.ends_with("2\r\nok\r\n0\r\ngrpc-status: 0\r\n\r\n"),
        "{text}"
    );
}

#[tokio::test]
async fn heads_interim_answers_and_empty_answers_pass() {
    let server = Server::start().await;
    let node = node(&[server.url()], &[]).await;
    let answer = node.request("HEAD", "/api/example/x", &[], "").await;
    assert!(
        answer
            .header("content-length")
            .is_some_and(|length| length != "0")
    );
    let answer = node.get("/api/example/trailers-only").await;
    let told = (
        answer.header("grpc-status"),
        answer.header("content-length"),
    );
    assert_eq!(told, (Some("5"), Some("0")));
    let request = "GET /api/example/hints HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let text = String::from_utf8(node.exchange(request.as_bytes()).await).expect("text");
    assert!(
        text.starts_with("HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n"),
        "{text}"
    );
    assert!(text.contains("HTTP/1.1 200 OK\r\n"), "{text}");
}

/// RFC 9113 section 8.7: the server has done nothing, so even a POST can be made again.
#[tokio::test]
async fn a_stream_that_was_refused_is_asked_for_again() {
    let (server, well) = (Server::start().await, Server::start().await);
    let node = node(&[server.url()], &[]).await;
    let request = [("content-type", "text/plain")];
    let answer = node
        .request("POST", "/api/example/refuse-first", &request, "once")
        .await;
    assert_eq!(
        answer.status, 502,
        "there is no other, and it was a new connection: {answer:?}"
    );
    // On a connection that has carried others it is asked again, on a new one.
    assert_eq!(node.get("/api/example/a").await.status, 200);
    let before = server.connections();
    let answer = node
        .request("POST", "/api/example/refuse-always", &request, "")
        .await;
    assert_eq!((answer.status, server.connections()), (502, before + 1));

    let both = self::node(&[server.url(), well.url()], &[]).await;
    for _ in 0..6 {
        let answer = both
            .request("POST", "/api/example/refuse-first", &request, "")
            .await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

#[tokio::test]
async fn a_request_with_a_body_that_was_refused_is_asked_for_again_and_is_no_failure() {
    let server = Server::start().await;
    let node = node(&[server.url()], &[]).await;
    assert_eq!(node.get("/api/example/a").await.status, 200);
    let body = "x".repeat(10_000);
    let answer = node
        .request("POST", "/api/example/refuse-once", &[], &body)
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.text.ends_with(&body), "{} bytes", answer.text.len());
    for _ in 0..10 {
        let answer = node.get("/api/example/refuse-always").await;
        assert_eq!(answer.status, 502, "{answer:?}");
    }
    is_well(&node).await;
    assert_eq!(node.get("/api/example/a").await.status, 200);
}

/// The node has counted no failure of the upstream.
pub(crate) async fn is_well(node: &Hub) {
    let stats = node.get("/admin/stats").await.json();
    let upstream = &stats["services"]["example"]["upstreamDetails"][0];
    assert_eq!(upstream["circuitOpenUntilMs"], json!(null), "{upstream}");
    assert_eq!(upstream["errorsTotal"], 0, "{upstream}");
}

#[tokio::test]
async fn what_http2_cannot_say_is_no_upstreams_fault() {
    let server = Server::start().await;
    let node = node(&[server.url()], &[]).await;
    for path in ["/api/example/a<b", "/api/example/a`b"] {
        for _ in 0..10 {
            let answer = node.get(path).await;
            assert_eq!(answer.status, 400, "{answer:?}");
        }
    }
    // As much as a client may say, and then what the gateway says.
    let names: Vec<String> = (0..95).map(|n| format!("x-{n}")).collect();
    let many: Vec<(&str, &str)> = names.iter().map(|name| (&**name, "y")).collect();
    let long = "x".repeat(65_300);
    for fields in [&many[..], &[("x-long", &*long)]] {
        let answer = node.request("GET", "/api/example/a", fields, "").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let (name, value) = fields[0];
        assert!(answer.text.contains(&format!("{name}: {value}\n")));
    }
    is_well(&node).await;
    assert_eq!((server.connections(), server.requests()), (1, 2));
}

#[tokio::test]
async fn a_server_that_goes_away_is_left_without_a_failure() {
    let server = Server::start().await;
    let node = node(&[server.url()], &[]).await;
    let session = Session::open(&node).await;
    let (response, mut up) = session.begin("POST", "/api/example/slow", &[], true).await;
    up.send_data("begun, ".into(), false).expect("sent");
    eventually("it has arrived", async || {
        (server.requests() == 1).then_some(())
    })
    .await;
    for n in 0..20 {
        assert_eq!(session.get("/api/example/go-away").await.status, 200, "{n}");
        assert_eq!(session.get("/api/example/x").await.status, 200, "{n}");
    }
    up.send_data("and ended".into(), true).expect("sent");
    let answer = finish(response).await.expect("an answer");
    assert!(
        answer.text().ends_with("begun, and ended"),
        "{}",
        answer.text()
    );
    assert!(
        answer.text().contains(" on 0\n"),
        "on the connection that winds down"
    );
    assert!(server.connections() > 1);
}

#[tokio::test]
async fn answers_that_break_off_are_not_whole_for_clients_either() {
    let server = Server::start().await;
    let node = node(&[server.url()], &[]).await;
    let session = Session::open(&node).await;
    let (response, _) = session.begin("GET", "/api/example/cut", &[], false).await;
    let mut body = within("an answer", response)
        .await
        .expect("an answer")
        .into_body();
    assert_eq!(read_until(&mut body, "half").await, "half");
    server.seen.has_half.notify_one();
    let error = next(&mut body).await.expect_err("half an answer");
    assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR));
    assert_eq!(node.get("/api/example/cut-head").await.status, 502);
    assert_eq!(node.get("/api/example/x").await.status, 200);
}

#[tokio::test]
async fn a_client_that_has_gone_resets_its_stream_and_no_other() {
    let server = Server::start().await;
    let node = node(&[server.url()], &[]).await;
    let session = Session::open(&node).await;
    let (stays, _) = session
        .begin("GET", "/sse/example/events", &[], false)
        .await;
    let mut stays = within("an answer", stays)
        .await
        .expect("an answer")
        .into_body();
    read_until(&mut stays, "data: 1\n\n").await;
    for (n, path) in ["/api/example/never", "/sse/example/events"]
        .iter()
        .enumerate()
    {
        let (response, mut up) = session.begin("GET", path, &[], false).await;
        eventually("it has arrived", async || {
            (server.requests() == n + 2).then_some(())
        })
        .await;
        up.send_reset(Reason::CANCEL);
        drop(response);
        eventually("it is given up", async || {
            (server.gone() == n + 1).then_some(())
        })
        .await;
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn https_upstreams_choose() {
    let (pair, server, plain) = (Pair::make(), Server::start().await, Upstream::start().await);
    let trust = [("UPSTREAM_CA", crate::shims::text(&pair.certificate))];
    let both: &[&[u8]] = &[b"h2", b"http/1.1"];
    let url = server_side_with(server.host.clone(), &pair, both).await;
    let asked = node(&[url], &trust).await;
    for _ in 0..3 {
        let answer = asked.get("/api/example/x").await;
        assert!(
            answer.text.starts_with("GET https://localhost:"),
            "{}",
            answer.text
        );
    }
    assert_eq!(server.connections(), 1);

    let url = server_side_with(plain.host(), &pair, &[b"http/1.1"]).await;
    let asked = node(&[url], &trust).await;
    assert!(
        asked
            .get("/api/example/x")
            .await
            .text
            .starts_with("GET /x HTTP/1.1\r\n")
    );

    // What only speaks HTTP/1 stands behind a door that offers both.
    let url = server_side_with(plain.host(), &pair, both).await;
    let off = [trust[0], ("UPSTREAM_HTTP2", "false")];
    let asked = node(&[url], &off).await;
    assert!(
        asked
            .get("/api/example/x")
            .await
            .text
            .starts_with("GET /x HTTP/1.1\r\n")
    );

    let mut sockets = Sockets::start().await;
    let host = sockets.url.trim_start_matches("http://").to_owned();
    let asked = node(&[server_side_with(host, &pair, both).await], &trust).await;
    let _client = Raw::open(&asked, "/ws/example?path=/p").await;
    let (head, _) = sockets.next().await;
    assert!(
        head.starts_with("GET /p HTTP/1.1\r\n"),
        "a WebSocket has a connection of its own: {head}"
    );
}

#[tokio::test]
async fn health_checks_and_breakers_see_streams_as_they_see_connections() {
    let server = Server::start().await;
    let text = format!(
        "[services.example]\nupstreams = [\"{}\"]\nhealth = {{ path = \"/healthy\", interval = \"100ms\" }}\n",
        server.url()
    );
    let node = hub_with(&text, &[("RATE_LIMIT_MAX", "0"), ("WORKERS", "1")]).await;
    eventually("it is looked at", async || {
        (server.requests() >= 3).then_some(())
    })
    .await;
    let stats = async || node.get("/admin/stats").await.json().to_string();
    assert!(stats().await.contains("\"healthy\":true"));
    for _ in 0..5 {
        let answer = node.request("POST", "/api/example/cut-head", &[], "").await;
        assert_eq!(answer.status, 502);
    }
    let stats = stats().await;
    assert!(!stats.contains("\"circuitOpenUntilMs\":null"), "{stats}");
}
