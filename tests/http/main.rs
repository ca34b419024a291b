//! The server over real sockets: a stub worker, a stub router, and bytes where bytes matter.

mod replies;

use std::cell::RefCell;
use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::{Path, Request};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use fanfare::http1::RequestHead;
use fanfare::model::{
    BodyError, ConnectionPermit, DrainSignal, PeerAddr, ServerCounts, WorkerIndex,
};
use fanfare::server::{self, Carrier, Config, Drain, Hooks, Outcome, ServerError, Slot, Worker};
use futures_util::{StreamExt, stream};
use http::StatusCode;
use http_body_util::BodyExt;
use rustix::process::{Resource, Rlimit, Signal, getpid, kill_process, setrlimit};
use tokio::sync::Semaphore;

/// Longer than anything here should take, shorter than anyone's patience.
const DEADLINE: Duration = Duration::from_secs(10);

// What stands above and below the server: a slot, a worker and a router.

#[derive(Default, Clone)]
struct StubSlot(Arc<OnceLock<bool>>);

impl Slot for StubSlot {
    fn is_filled(&self) -> bool {
        self.0.get().is_some()
    }

    fn swallows_head(&self) -> bool {
        self.0.get() == Some(&true)
    }

    fn add_fields(&self, _: &http::HeaderMap) {}
}

/// Writes `adopted:` and the bytes read ahead, keeps the socket until the drain, then writes `bye`.
#[derive(Default)]
struct StubWorker {
    sockets: RefCell<Vec<(TcpStream, ConnectionPermit)>>,
    told: Arc<AtomicUsize>,
    gate: Option<Arc<Semaphore>>,
    dies: bool,
}

impl Worker for StubWorker {
    type Slot = StubSlot;

    fn is_vital(&self, head: &RequestHead<'_>) -> bool {
        head.target.starts_with("/vital")
    }

    fn reply(&self, head: &RequestHead<'_>, body: &[u8]) -> Option<server::Reply> {
        let kind = head.target.strip_prefix("/reply/")?;
        replies::reply(kind, body, self.gate.clone()?)
    }

    fn adopt(&self, carrier: Carrier, read: Bytes, slot: StubSlot, permit: ConnectionPermit) {
        assert!(slot.is_filled());
        let mut socket = carrier.socket;
        let greeting = [b"adopted:", &read[..]].concat();
        socket.write_all(&greeting).expect("room in the socket");
        self.sockets.borrow_mut().push((socket, permit));
    }

    async fn run(self: Rc<Self>, mut drain: DrainSignal) {
        assert!(!self.dies, "as asked");
        drain.draining().await;
        self.told.fetch_add(1, SeqCst);
        for (mut socket, permit) in self.sockets.take() {
            // The peer of some test may be gone.
            let _ = socket.write_all(b"bye");
            drop(permit);
        }
    }
}

async fn upgrade(Extension(slot): Extension<StubSlot>, request: Request) -> StatusCode {
    let swallow = request.uri().path() == "/sse";
    slot.0.set(swallow).expect("a fresh slot");
    StatusCode::SWITCHING_PROTOCOLS
}

async fn upgrade_for_nothing() -> StatusCode {
    StatusCode::SWITCHING_PROTOCOLS
}

async fn fill_but_refuse(Extension(slot): Extension<StubSlot>) -> StatusCode {
    slot.0.set(true).expect("a fresh slot");
    StatusCode::FORBIDDEN
}

async fn echo(body: Body) -> Response {
    let error = match body.collect().await {
        Ok(body) => return body.to_bytes().into_response(),
        Err(error) => error,
    };
    match BodyError::find(&error) {
        Some(BodyError::TooLarge) => StatusCode::PAYLOAD_TOO_LARGE.into_response(),
        Some(BodyError::TimedOut) => StatusCode::REQUEST_TIMEOUT.into_response(),
        _ => StatusCode::BAD_REQUEST.into_response(),
    }
}

async fn who(
    Extension(WorkerIndex(worker)): Extension<WorkerIndex>,
    Extension(PeerAddr(peer)): Extension<PeerAddr>,
) -> String {
    format!("{worker} {}", peer.ip())
}

async fn panic() -> &'static str {
    panic!("a handler's bug")
}

async fn panic_in_stream() -> Body {
    Body::from_stream(stream::iter(0..2).map(|index| {
        assert!(index == 0, "the stream's bug");
        Ok::<_, Infallible>(Bytes::from_static(b"part"))
    }))
}

async fn never() -> StatusCode {
    std::future::pending().await
}

fn router() -> Router {
    Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/vital", get(|| async { "alive" }))
        .route("/vital/never", get(std::future::pending::<&str>))
        .route(
            "/n/{n}",
            get(|Path(n): Path<String>| async move { format!("<{n}>") }),
        )
        .route("/echo", post(echo))
        .route("/who", get(who))
        .route("/ws", get(upgrade))
        .route("/sse", get(upgrade).post(upgrade_for_nothing))
        .route("/nothing", get(upgrade_for_nothing))
        .route("/refuse", get(fill_but_refuse))
        .route("/panic", get(panic))
        .route("/panic-in-stream", get(panic_in_stream))
        .route("/never", get(never))
        .route("/big", get(|| async { "x".repeat(4 << 20) }))
}

// One server for each test, and its clients.

struct Server {
    address: SocketAddr,
    drain: Drain,
    counts: Arc<ServerCounts>,
    told: Arc<AtomicUsize>,
    /// What replies of the kind `gate` wait for.
    gate: Arc<Semaphore>,
    thread: Option<JoinHandle<Result<Outcome, ServerError>>>,
}

fn config() -> Config {
    Config {
        host: [127, 0, 0, 1].into(),
        tls: None,
        port: 0,
        workers: 1,
        connections_max: 100,
        address_connections_max: 0,
        trusted: Vec::new(),
        handshakes_max: 100,
        header_timeout: DEADLINE,
        http2_streams_max: 128,
        body_timeout: DEADLINE,
        body_bytes_max: 1000,
        browsers: server::Browsers::default(),
        drain_delay: Duration::ZERO,
        drain_window: Duration::from_secs(1),
    }
}

impl Server {
    fn start(config: Config) -> Self {
        Self::start_with(config, false)
    }

    fn start_with(config: Config, dies: bool) -> Self {
        let (tell, address) = mpsc::channel();
        let (drain, counts, told) = (Drain::new(), Arc::default(), Arc::default());
        let hooks = Hooks {
            drain: drain.clone(),
            counts: Arc::clone(&counts),
            on_bound: Box::new(move |address| tell.send(address).expect("the test waits")),
            signals: false,
        };
        let workers_told = Arc::clone(&told);
        let gate = Arc::new(Semaphore::new(0));
        let workers_gate = Arc::clone(&gate);
        let make = move |_| StubWorker {
            told: Arc::clone(&workers_told),
            gate: Some(Arc::clone(&workers_gate)),
            dies,
            ..StubWorker::default()
        };
        let thread = std::thread::spawn(move || server::run(&config, router(), make, hooks));
        Self {
            address: address.recv_timeout(DEADLINE).expect("a bound server"),
            drain,
            counts,
            told,
            gate,
            thread: Some(thread),
        }
    }

    fn connect(&self) -> Client {
        let socket = TcpStream::connect(self.address).expect("a listening server");
        socket.set_read_timeout(Some(DEADLINE)).expect("a time-out");
        Client(socket)
    }

    fn ask(&self, request: &str) -> String {
        let mut client = self.connect();
        client.send(request);
        client.rest()
    }

    fn join(&mut self) -> Result<Outcome, ServerError> {
        let thread = self.thread.take().expect("joined once");
        eventually("the server's end", || thread.is_finished());
        thread.join().expect("no panic in the server's thread")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.drain.begin();
    }
}

struct Client(TcpStream);

impl Client {
    fn send(&mut self, bytes: &str) {
        self.0
            .write_all(bytes.as_bytes())
            .expect("an open connection");
    }

    /// Everything up to the end of the connection.
    fn rest(&mut self) -> String {
        let mut bytes = Vec::new();
        self.0.read_to_end(&mut bytes).expect("an orderly end");
        String::from_utf8(bytes).expect("text")
    }

    /// Everything up to and with `mark`.
    fn until(&mut self, mark: &str) -> String {
        let mut bytes = Vec::new();
        let mut byte = [0];
        while !bytes.ends_with(mark.as_bytes()) {
            let read = self.0.read(&mut byte).expect("bytes in time");
            let so_far = String::from_utf8_lossy(&bytes);
            assert!(read == 1, "ended before {mark:?}: {so_far:?}");
            bytes.push(byte[0]);
        }
        String::from_utf8(bytes).expect("text")
    }
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A fresh server answers `request` with `status` and ends the connection.
#[track_caller]
fn check(request: &str, status: &str) {
    let answer = Server::start(config()).ask(request);
    assert!(
        answer.starts_with(&format!("HTTP/1.1 {status}")),
        "{request:?}: {answer:?}"
    );
}

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const GET_AND_CLOSE: &str = "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
const GET_SSE: &str = "GET /sse HTTP/1.1\r\nhost: a\r\n\r\n";
const UPGRADE: &str = "host: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";

// Upgrades.

#[test]
fn an_upgraded_socket_goes_to_the_worker_after_its_101() {
    let server = Server::start(config());
    let mut client = server.connect();
    client.send(&format!("GET /ws HTTP/1.1\r\n{UPGRADE}"));
    let head = client.until("\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    client.until("adopted:");
    assert_eq!(server.counts.open(), 1);
}

/// hyper's `pipeline_flush` lost the 101 here: it does not flush while bytes that were read ahead wait.
#[test]
fn bytes_read_ahead_reach_the_worker_and_the_101_is_not_lost() {
    let server = Server::start(config());
    let mut client = server.connect();
    client.send(&format!("GET /ws HTTP/1.1\r\n{UPGRADE}first frame"));
    let head = client.until("\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    client.until("adopted:first frame");
}

#[test]
fn a_swallowed_head_is_not_written() {
    let server = Server::start(config());
    let mut client = server.connect();
    client.send(GET_SSE);
    assert_eq!(client.until("adopted:"), "adopted:");
}

#[test]
fn a_swallowed_head_of_http_1_0_is_not_written() {
    let server = Server::start(config());
    let mut client = server.connect();
    client.send("GET /sse HTTP/1.0\r\n\r\n");
    assert_eq!(client.until("adopted:"), "adopted:");
}

#[test]
fn answers_before_a_swallowed_head_are_written() {
    let server = Server::start(config());
    let mut client = server.connect();
    client.send(&format!("{GET}{GET_SSE}read ahead"));
    let all = client.until("adopted:read ahead");
    assert!(
        all.starts_with("HTTP/1.1 200 ") && all.contains("\r\n\r\nhelloadopted:"),
        "{all}"
    );
    assert!(!all.contains("101"), "{all}");
}

#[test]
fn an_upgrade_with_a_body_is_refused() {
    check(
        &format!("GET /ws HTTP/1.1\r\ncontent-length: 3\r\n{UPGRADE}abc"),
        "400",
    );
}

#[test]
fn a_101_that_leads_nowhere_is_our_fault() {
    check(&format!("GET /nothing HTTP/1.1\r\n{UPGRADE}"), "500");
    check("POST /sse HTTP/1.1\r\nhost: a\r\n\r\n", "500");
}

#[test]
fn a_slot_filled_by_a_refused_request_is_not_found_by_the_next() {
    let server = Server::start(config());
    let mut client = server.connect();
    client.send("GET /refuse HTTP/1.1\r\nhost: a\r\n\r\n");
    client.send(&format!("GET /ws HTTP/1.1\r\n{UPGRADE}"));
    let all = client.until("adopted:");
    assert!(
        all.starts_with("HTTP/1.1 403 ") && all.contains("HTTP/1.1 101 "),
        "{all}"
    );
}

#[test]
fn an_upgraded_socket_keeps_its_place_until_the_worker_drops_it() {
    let server = Server::start(Config {
        connections_max: 1,
        ..config()
    });
    let mut client = server.connect();
    client.send(GET_SSE);
    client.until("adopted:");
    assert!(server.ask(GET).starts_with("HTTP/1.1 503 "));
    assert_eq!((server.counts.open(), server.counts.handshakes()), (1, 0));
}

// HTTP.

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = Server::start(config());
    let mut client = server.connect();
    let requests: String = (0..40)
        .map(|n| format!("GET /n/{n} HTTP/1.1\r\nhost: a\r\n\r\n"))
        .collect();
    client.send(&requests);
    for n in 0..40 {
        let answer = client.until(&format!("<{n}>"));
        assert_eq!(answer.matches("HTTP/1.1 200 ").count(), 1, "{answer}");
    }
    assert_eq!(server.counts.accepted.load(SeqCst), 1);
}

/// hyper's `pipeline_flush` lost this answer too.
#[test]
fn a_last_answer_is_written_although_more_requests_wait_behind_it() {
    let answer = Server::start(config()).ask(&format!("{GET_AND_CLOSE}{GET}"));
    assert!(answer.ends_with("hello"), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
}

#[test]
fn a_large_answer_arrives_whole() {
    let server = Server::start(config());
    let answer = server.ask("GET /big HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(body.len() == 4 << 20 && body.bytes().all(|byte| byte == b'x'));
}

#[test]
fn handlers_learn_worker_and_peer() {
    let server = Server::start(config());
    let answer = server.ask("GET /who HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    assert!(answer.ends_with("\r\n\r\n0 127.0.0.1"), "{answer}");
}

#[test]
fn heads_that_another_could_read_differently_are_refused() {
    check("GET / HTTP/1.1\r\n\r\n", "400");
    check("GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n", "400");
    check("GET / HTTP/1.1\r\nhost: a b\r\n\r\n", "400");
    check("GET http://b/ HTTP/1.1\r\nhost: a\r\n\r\n", "400");
    check("CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n\r\n", "405");
    check("TRACE / HTTP/1.1\r\nhost: a\r\n\r\n", "501");
}

/// hyper would repair each of these and go on.
#[test]
fn requests_that_hyper_would_repair_are_refused_and_nothing_behind_them_is_read() {
    let post = "POST /echo HTTP/1.1\r\nhost: a\r\n";
    for bad in [
        format!("{post}content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        format!("{post}transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n"),
        format!("{post}content-length: 0\r\ncontent-length: 0\r\n\r\n"),
        "GET / HTTP/1.1\nhost: a\n\n".to_owned(),
        "GET / HTTP/1.1\r\nhost: a\nx: b\r\n\r\n".to_owned(),
    ] {
        let answer = Server::start(config()).ask(&format!("{bad}{GET}"));
        assert!(answer.starts_with("HTTP/1.1 400 "), "{bad:?}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{bad:?}: {answer}");
    }
}

#[test]
fn a_body_whose_chunks_are_broken_is_refused_and_nothing_behind_it_is_read() {
    let post = "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    for bad in [
        "+1\r\nx\r\n0\r\n\r\n",
        "1\nx\r\n0\r\n\r\n",
        "1\r\nxy\r\n0\r\n\r\n",
    ] {
        let answer = Server::start(config()).ask(&format!("{post}{bad}{GET}"));
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{bad:?}: {answer}");
        assert!(answer.starts_with("HTTP/1.1 400 "), "{bad:?}: {answer}");
    }
}

#[test]
fn requests_behind_a_body_are_read_as_such() {
    let server = Server::start(config());
    let mut client = server.connect();
    let post = "POST /echo HTTP/1.1\r\nhost: a\r\n";
    client.send(&format!(
        "{post}content-length: 3\r\n\r\nabc{post}transfer-encoding: chunked\r\n\r\n3\r\ndef\r\n0\r\n\r\n\r\n{GET}"
    ));
    for body in ["abc", "def", "hello"] {
        let answer = client.until(body);
        assert_eq!(answer.matches("HTTP/1.1 200 ").count(), 1, "{answer}");
    }
}

#[test]
fn heads_that_are_too_large_are_refused() {
    let (target, value) = ("x".repeat(9000), "x".repeat(70_000));
    check(&format!("GET /{target} HTTP/1.1\r\nhost: a\r\n\r\n"), "414");
    check(
        &format!("GET / HTTP/1.1\r\nhost: a\r\nx: {value}\r\n\r\n"),
        "431",
    );
    let many: String = (0..101).map(|n| format!("x-{n}: 1\r\n")).collect();
    check(&format!("GET / HTTP/1.1\r\nhost: a\r\n{many}\r\n"), "431");
}

#[test]
fn a_panic_in_a_handler_is_answered_and_hits_nobody_else() {
    let server = Server::start(config());
    let mut other = server.connect();
    other.send(GET);
    other.until("hello");
    let answer = server.ask("GET /panic HTTP/1.1\r\nhost: a\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    let answer = server.ask("GET /panic-in-stream HTTP/1.1\r\nhost: a\r\n\r\n");
    // Cut, not ended: the peer sees that something is missing.
    assert!(!answer.ends_with("0\r\n\r\n"), "{answer}");
    other.send(GET);
    other.until("hello");
    assert_eq!(server.counts.panics.load(SeqCst), 1);
}

// Time and size.

#[test]
fn a_slow_head_is_answered_408_and_a_silent_connection_closed() {
    let header_timeout = Duration::from_millis(100);
    let server = Server::start(Config {
        header_timeout,
        ..config()
    });
    assert_eq!(server.ask(""), "");
    assert!(server.ask("GET / HT").starts_with("HTTP/1.1 408 "));
    let mut second = server.connect();
    second.send(GET);
    second.until("hello");
    second.send("GET / HTTP/1.1\r\n");
    assert!(second.rest().starts_with("HTTP/1.1 408 "));
    assert_eq!(server.counts.header_timeouts.load(SeqCst), 2);
}

#[test]
fn a_connection_between_two_requests_may_be_silent_for_longer_than_a_head() {
    let header_timeout = Duration::from_millis(50);
    let server = Server::start(Config {
        header_timeout,
        ..config()
    });
    let mut client = server.connect();
    client.send(GET);
    client.until("hello");
    let silence = Some(4 * header_timeout);
    client.0.set_read_timeout(silence).expect("a time-out");
    assert!(client.0.read(&mut [0]).is_err(), "closed or answered");
    client
        .0
        .set_read_timeout(Some(DEADLINE))
        .expect("a time-out");
    client.send(GET);
    client.until("hello");
}

#[test]
fn a_body_over_the_limit_is_refused_by_its_length_and_by_its_bytes() {
    let post = "POST /echo HTTP/1.1\r\nhost: a\r\nconnection: close\r\n";
    let chunked = "transfer-encoding: chunked\r\n\r\n";
    let body = "x".repeat(1001);
    let exact = &body[..1000];
    check(&format!("{post}content-length: 1001\r\n\r\n{body}"), "413");
    check(&format!("{post}{chunked}3e9\r\n{body}\r\n0\r\n\r\n"), "413");
    check(&format!("{post}content-length: 1000\r\n\r\n{exact}"), "200");
    check(
        &format!("{post}{chunked}3e8\r\n{exact}\r\n0\r\n\r\n"),
        "200",
    );
}

#[test]
fn a_refusal_arrives_although_the_body_keeps_coming() {
    let server = Server::start(config());
    let mut client = server.connect();
    client.send("POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n");
    client.send(&"x".repeat(100_000));
    assert!(client.rest().starts_with("HTTP/1.1 413 "));
}

#[test]
fn a_body_that_never_ends_times_out() {
    let body_timeout = Duration::from_millis(100);
    let server = Server::start(Config {
        body_timeout,
        ..config()
    });
    let answer = server.ask("POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nx");
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[test]
fn a_peer_that_takes_none_of_its_answers_is_given_up() {
    let body_timeout = Duration::from_millis(100);
    let server = Server::start(Config {
        body_timeout,
        ..config()
    });
    let mut client = server.connect();
    client.send(&"GET /big HTTP/1.1\r\nhost: a\r\n\r\n".repeat(5));
    eventually("the request", || server.counts.requests.load(SeqCst) > 0);
    eventually("the connection's end", || server.counts.open() == 0);
}

// Admission.

#[test]
fn over_the_most_connections_a_socket_is_refused_politely() {
    let server = Server::start(Config {
        connections_max: 1,
        ..config()
    });
    let first = server.connect();
    eventually("the first", || server.counts.open() == 1);
    let answer = server.ask(GET);
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("\r\nretry-after: 1\r\n"), "{answer}");
    assert!(
        answer.contains(r#"{"error":"unavailable","message":""#),
        "{answer}"
    );
    drop(first);
    eventually("room", || server.counts.open() == 0);
    assert!(server.ask(GET_AND_CLOSE).starts_with("HTTP/1.1 200 "));
    assert_eq!(server.counts.refused_connections.load(SeqCst), 1);
}

#[test]
fn behind_the_most_connections_a_few_may_ask_how_the_node_is() {
    let server = Server::start(Config {
        connections_max: 1,
        ..config()
    });
    let _first = server.connect();
    eventually("the first", || server.counts.open() == 1);
    let vital = "GET /vital HTTP/1.1\r\nhost: a\r\n\r\n";
    let mut more: Vec<_> = (0..16).map(|_| server.connect()).collect();
    eventually("all", || server.counts.accepted.load(SeqCst) == 17);
    // Who says nothing loses its place to the next one.
    more.push(server.connect());
    let told = more.remove(0).rest();
    assert!(told.starts_with("HTTP/1.1 503 "), "{told}");
    for client in &mut more {
        client.send(vital);
        let answer = client.until("alive");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    }
    // What they had is free again, for whoever asks nothing else.
    eventually("a place", || server.ask(vital).contains("alive"));
    assert!(server.ask(GET).starts_with("HTTP/1.1 503 "));
    // Who has asked keeps it for as long as the answer takes.
    let before = server.counts.requests.load(SeqCst);
    let mut asking: Vec<_> = (0..16).map(|_| server.connect()).collect();
    for client in &mut asking {
        client.send("GET /vital/never HTTP/1.1\r\nhost: a\r\n\r\n");
    }
    eventually("all", || server.counts.requests.load(SeqCst) == before + 16);
    assert!(
        server.ask(vital).starts_with("HTTP/1.1 503 "),
        "no place is left"
    );
    assert_eq!(server.counts.open(), 1);
}

#[test]
fn an_address_has_a_bound_of_its_own_unless_it_is_a_proxy() {
    let bounded = |trusted| {
        Server::start(Config {
            address_connections_max: 2,
            trusted,
            ..config()
        })
    };
    let server = bounded(Vec::new());
    let first = server.connect();
    let _second = server.connect();
    eventually("both", || server.counts.open() == 2);
    let answer = server.ask(GET);
    assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
    assert!(answer.contains("\r\nretry-after: 1\r\n"), "{answer}");
    assert!(answer.contains(r#""error":"rate_limited""#), "{answer}");
    drop(first);
    eventually("room", || server.counts.open() == 1);
    assert!(server.ask(GET_AND_CLOSE).starts_with("HTTP/1.1 200 "));
    let server = bounded(vec![([127, 0, 0, 0].into(), 8)]);
    let _many: Vec<_> = (0..5).map(|_| server.connect()).collect();
    eventually("all", || server.counts.open() == 5);
    assert!(server.ask(GET_AND_CLOSE).starts_with("HTTP/1.1 200 "));
}

#[test]
fn only_connections_in_their_first_head_count_as_handshakes() {
    let server = Server::start(Config {
        handshakes_max: 1,
        ..config()
    });
    let mut first = server.connect();
    eventually("the first", || server.counts.handshakes() == 1);
    assert!(server.ask(GET).starts_with("HTTP/1.1 503 "));
    first.send(GET);
    first.until("hello");
    assert_eq!((server.counts.handshakes(), server.counts.open()), (0, 1));
    assert!(server.ask(GET_AND_CLOSE).starts_with("HTTP/1.1 200 "));
}

/// The limit is the process's, so this runs in one of its own.
#[test]
fn without_file_descriptors_accepting_pauses_until_one_closes() {
    const CHILD: &str = "FANFARE_TEST_FEW_FILES";
    if std::env::var_os(CHILD).is_some() {
        return run_out_of_files();
    }
    let name = "without_file_descriptors_accepting_pauses_until_one_closes";
    let child = std::process::Command::new(std::env::current_exe().expect("this test's path"))
        .args(["--exact", name, "--nocapture"])
        .env(CHILD, "1")
        .output()
        .expect("a process");
    assert!(
        child.status.success(),
        "{}",
        String::from_utf8_lossy(&child.stderr)
    );
}

/// Whoever sees the node listen may also end it: a signal that comes with the address begins the drain. It is the
/// process's, so this runs in one of its own.
#[test]
fn a_signal_that_comes_with_the_address_begins_the_drain() {
    const CHILD: &str = "FANFARE_TEST_SIGNALLED";
    if std::env::var_os(CHILD).is_some() {
        return end_when_bound();
    }
    let name = "a_signal_that_comes_with_the_address_begins_the_drain";
    let child = std::process::Command::new(std::env::current_exe().expect("this test's path"))
        .args(["--exact", name, "--nocapture"])
        .env(CHILD, "1")
        .output()
        .expect("a process");
    let said = String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success(), "{}: {said}", child.status);
}

fn end_when_bound() {
    let hooks = Hooks {
        on_bound: Box::new(|_| {
            kill_process(getpid(), Signal::TERM).expect("a signal to oneself");
        }),
        ..Hooks::default()
    };
    let ended = server::run(&config(), router(), |_| StubWorker::default(), hooks);
    assert_eq!(ended.expect("no fault"), Outcome::Drained);
}

fn run_out_of_files() {
    let few = Some(64);
    let limit = Rlimit {
        current: few,
        maximum: few,
    };
    setrlimit(Resource::Nofile, limit).expect("a lower limit");
    let server = Server::start(config());
    let mut waiting = server.connect();
    waiting.send(GET);
    waiting.until("hello");
    let mut files = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        files.push(file);
    }
    // One descriptor is left for the client, none for the server.
    files.pop();
    let mut late = server.connect();
    late.send(GET_AND_CLOSE);
    eventually("a pause", || server.counts.accept_pauses.load(SeqCst) > 0);
    assert_eq!(server.counts.accepted.load(SeqCst), 1);
    files.clear();
    assert!(late.rest().starts_with("HTTP/1.1 200 "));
}

#[test]
fn a_port_that_is_taken_is_named() {
    let server = Server::start(config());
    let port = server.address.port();
    let error = server::run(
        &Config { port, ..config() },
        router(),
        |_| StubWorker::default(),
        Hooks {
            signals: false,
            ..Hooks::default()
        },
    );
    let error = error.expect_err("taken").to_string();
    assert!(error.contains(&server.address.to_string()), "{error}");
}

// The end.

#[test]
fn a_drain_goes_through_its_steps() {
    let drain_delay = Duration::from_millis(300);
    let mut server = Server::start(Config {
        workers: 2,
        drain_delay,
        ..config()
    });
    let (mut socket, mut idle) = (server.connect(), server.connect());
    socket.send(GET_SSE);
    socket.until("adopted:");
    idle.send(GET);
    idle.until("hello");
    let signal = server.drain.signal();
    server.drain.begin();
    // Not ready, yet still serving.
    assert!(signal.is_draining() && signal.now().is_none());
    assert!(server.ask(GET_AND_CLOSE).starts_with("HTTP/1.1 200 "));
    assert_eq!(server.told.load(SeqCst), 0);
    // Closing.
    assert_eq!(socket.rest(), "bye");
    assert_eq!(idle.rest(), "");
    assert_eq!(signal.now(), Some(Duration::from_secs(1)));
    assert_eq!(server.join().expect("no fault"), Outcome::Drained);
    assert_eq!(server.told.load(SeqCst), 2);
    assert!(TcpStream::connect(server.address).is_err());
    assert_eq!(server.counts.open(), 0);
}

#[test]
fn a_request_in_flight_at_the_drain_is_answered_with_close() {
    let mut server = Server::start(config());
    let mut client = server.connect();
    client.send("POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nab");
    eventually("the request", || server.counts.requests.load(SeqCst) == 1);
    server.drain.begin();
    eventually("the workers to know", || server.told.load(SeqCst) == 1);
    eventually("the listener's end", || {
        TcpStream::connect(server.address).is_err()
    });
    client.send("cd");
    let answer = client.rest();
    assert!(
        answer.contains("connection: close") && answer.ends_with("abcd"),
        "{answer}"
    );
    assert_eq!(server.join().expect("no fault"), Outcome::Drained);
}

#[test]
fn asked_twice_it_ends_at_once() {
    let drain_delay = 9 * DEADLINE;
    let mut server = Server::start(Config {
        drain_delay,
        ..config()
    });
    let mut client = server.connect();
    client.send("GET /never HTTP/1.1\r\nhost: a\r\n\r\n");
    server.drain.begin();
    server.drain.begin();
    assert_eq!(server.join().expect("no fault"), Outcome::Forced);
}

#[test]
fn a_worker_that_panics_ends_the_server_with_an_error() {
    let mut server = Server::start_with(config(), true);
    let error = server.join().expect_err("a dead worker");
    assert!(
        matches!(error, ServerError::WorkerPanicked { index: 0 }),
        "{error}"
    );
}

#[test]
fn a_peer_that_goes_away_gives_its_place_back() {
    let server = Server::start(config());
    let mut client = server.connect();
    client.send("GET /never HTTP/1.1\r\nhost: a\r\n\r\n");
    eventually("the request", || server.counts.requests.load(SeqCst) == 1);
    drop(client);
    eventually("the end", || server.counts.open() == 0);
}

/// How much one idle keep-alive connection and one request cost; printed, for eyes.
#[test]
#[ignore = "a measurement: run it alone, in release"]
fn measure() {
    fn resident() -> usize {
        let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .expect("a line");
        line.split_whitespace()
            .nth(1)
            .and_then(|kb| kb.parse().ok())
            .expect("a number")
    }
    let server = Server::start(Config {
        connections_max: 9000,
        handshakes_max: 9000,
        ..config()
    });
    let before = resident();
    let mut clients: Vec<Client> = (0..4000).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send(GET);
        client.until("hello");
    }
    eprintln!(
        "{} bytes an idle HTTP connection",
        (resident() - before) * 1024 / clients.len()
    );
    for batch in [1, 100] {
        let requests = GET.repeat(batch);
        let begin = Instant::now();
        for _ in 0..20_000 / batch {
            clients[0].send(&requests);
            let mut left = batch * 121;
            let mut buffer = [0; 65536];
            while left > 0 {
                left -= clients[0].0.read(&mut buffer).expect("answers");
            }
        }
        eprintln!(
            "{:?} a request, {batch} in one write",
            begin.elapsed() / 20_000
        );
    }
}
