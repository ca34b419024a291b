//! What a client of HTTP/2 cannot do to a node, and how its connection ends.

use h2::Reason;
use h2::client::Builder;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::http2::{Session, finish, next, read_until};
use crate::node;
use crate::support::{Hub, eventually, hub, within};
use crate::upstream::Upstream;

/// How the connection ended, as its client sees it.
async fn end(session: Session) -> Result<(), h2::Error> {
    drop(session.send);
    within("the connection's end", session.end)
        .await
        .expect("a task")
}

#[tokio::test]
async fn a_connection_has_so_many_streams_at_once() {
    let upstream = Upstream::start().await;
    let node = node(&[&upstream], &[("HTTP2_MAX_STREAMS", "3")]).await;
    let session = Session::open(&node).await;
    assert_eq!(session.get("/healthz").await.status, 200);
    assert_eq!(session.send.current_max_send_streams(), 3);
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(session.begin("GET", "/api/example/never", &[], false).await);
    }
    eventually("three have arrived", async || {
        (upstream.requests() == 3).then_some(())
    })
    .await;
    // The client's library keeps the fourth until there is a place.
    let (fourth, _) = session
        .begin("GET", "/api/example/fourth", &[], false)
        .await;
    drop(open);
    assert_eq!(finish(fourth).await.expect("an answer").status, 200);
}

#[tokio::test]
async fn a_stream_has_a_place_among_the_connections() {
    let upstream = Upstream::start().await;
    let limits = [
        ("MAX_CONNECTIONS", "4"),
        ("MAX_HANDSHAKES", "4"),
        ("WORKERS", "1"),
    ];
    let node = node(&[&upstream], &limits).await;
    let session = Session::open(&node).await;
    let mut open = Vec::new();
    for n in 0..3 {
        open.push(session.begin("GET", "/api/example/never", &[], false).await);
        eventually("it has arrived", async || {
            (upstream.requests() == n + 1).then_some(())
        })
        .await;
    }
    let refused = session.get("/api/example/item").await;
    assert_eq!(
        (refused.status, refused.field("retry-after")),
        (503, Some("1"))
    );
    assert_eq!(session.get("/healthz").await.status, 200);
    open.pop();
    eventually("there is room again", async || {
        (session.get("/api/example/item").await.status == 200).then_some(())
    })
    .await;
}

/// How much a client may send on a stream that nobody has seen anything of, and on one that has brought much.
#[tokio::test]
async fn only_who_brings_much_may_send_much_unasked() {
    const MIB: usize = 1024 * 1024;
    let upstream = Upstream::start().await;
    let node = node(&[&upstream], &[("MAX_BODY_BYTES", "0")]).await;
    let mut builder = Builder::new();
    builder.max_send_buffer_size(16 * MIB);
    let session = Session::open_with(&node, &builder).await;
    assert_eq!(session.get("/healthz").await.status, 200);
    let length = (8 * MIB).to_string();
    let fields = [("content-length", &*length)];
    let (answer, mut stream) = session
        .begin("PUT", "/api/example/long", &fields, true)
        .await;
    stream.reserve_capacity(8 * MIB);
    has_room(&stream, 256 * 1024).await;
    let mut left = 8 * MIB;
    while left > 0 {
        let capacity = std::future::poll_fn(|cx| {
            if stream.capacity() > 0 {
                return std::task::Poll::Ready(stream.capacity());
            }
            stream.poll_capacity(cx).map(|_| stream.capacity())
        });
        let capacity = within("room to send", capacity).await.min(left);
        left -= capacity;
        let piece = vec![b'x'; capacity];
        stream.send_data(piece.into(), left == 0).expect("a stream");
        stream.reserve_capacity(left);
    }
    let answer = finish(answer).await.expect("an answer");
    // What came back is the head and the body.
    assert!(answer.body.len() > 8 * MIB);
    let (_answer, mut next) = session
        .begin("PUT", "/api/example/long", &fields, true)
        .await;
    next.reserve_capacity(8 * MIB);
    has_room(&next, 2 * MIB).await;
    let other = Session::open_with(&node, &builder).await;
    assert_eq!(other.get("/healthz").await.status, 200);
    let (_answer, mut first) = other.begin("PUT", "/api/example/long", &fields, true).await;
    first.reserve_capacity(8 * MIB);
    // Another connection has brought nothing.
    has_room(&first, 256 * 1024).await;
}

/// Once the client has heard of all windows it may send so much.
async fn has_room(stream: &h2::SendStream<bytes::Bytes>, expected: usize) {
    eventually(&format!("room for {expected} bytes"), async || {
        (stream.capacity() == expected).then_some(())
    })
    .await;
}

/// CVE-2023-44487: opening and resetting streams costs a client nothing, and a server a request each.
#[tokio::test]
async fn a_client_that_only_opens_and_resets_is_sent_away() {
    let upstream = Upstream::start().await;
    let node = node(&[&upstream], &[]).await;
    let session = Session::open(&node).await;
    // Each is on its way to the upstream when it is reset, so none is one that the node has not looked at.
    let mut ended = None;
    for _ in 0..40 {
        let (arrived, mut open) = (upstream.requests(), Vec::new());
        for _ in 0..50 {
            let Ok(mut send) = session.send.clone().ready().await else {
                break;
            };
            let request = http::Request::get("http://node.test/api/example/never").body(());
            open.extend(send.send_request(request.expect("a request"), true));
        }
        eventually("they have arrived", async || {
            let is_over = session.end.is_finished();
            (is_over || upstream.requests() == arrived + open.len()).then_some(())
        })
        .await;
        for (_, stream) in &mut open {
            stream.send_reset(Reason::CANCEL);
        }
        drop(open);
        ended = session.send.clone().ready().await.err();
        if ended.is_some() {
            break;
        }
    }
    let error = ended.expect("an end");
    assert_eq!(error.reason(), Some(Reason::ENHANCE_YOUR_CALM), "{error}");
    assert!(upstream.requests() < 500, "{}", upstream.requests());
    assert_eq!(node.get("/healthz").await.status, 200);
}

/// The same before the node has looked at any of them.
#[tokio::test]
async fn a_flood_of_resets_is_not_worked_off() {
    let upstream = Upstream::start().await;
    let node = node(&[&upstream], &[]).await;
    let session = Session::open(&node).await;
    for _ in 0..20_000 {
        let Ok(mut send) = session.send.clone().ready().await else {
            break;
        };
        let request = http::Request::get("http://node.test/api/example/never").body(());
        let Ok((_, mut stream)) = send.send_request(request.expect("a request"), true) else {
            break;
        };
        stream.send_reset(Reason::CANCEL);
    }
    let error = eventually("it is sent away", async || {
        session.send.clone().ready().await.err()
    })
    .await;
    // A client that goes on writing may see no more than that it cannot.
    let is_told = error.reason() == Some(Reason::ENHANCE_YOUR_CALM);
    assert!(is_told || error.is_io(), "{error}");
    assert!(upstream.requests() < 1000, "{}", upstream.requests());
}

#[tokio::test]
async fn who_gives_up_now_and_then_stays() {
    let upstream = Upstream::start().await;
    let node = node(&[&upstream], &[]).await;
    let session = Session::open(&node).await;
    for n in 0..300 {
        let (response, mut stream) = session.begin("GET", "/api/example/never", &[], false).await;
        eventually("it has arrived", async || {
            (upstream.gone() + 1 + n >= upstream.requests()).then_some(())
        })
        .await;
        stream.send_reset(Reason::CANCEL);
        drop(response);
        assert_eq!(session.get("/healthz").await.status, 200);
    }
}

#[tokio::test]
async fn what_begins_and_does_not_go_on_is_closed() {
    let node = hub(&[("HEADER_TIMEOUT_MS", "200")]).await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let settings = b"\0\0\0\x04\0\0\0\0\0";
    // HEADERS of stream 1 without END_HEADERS, whose CONTINUATION never comes.
    let half = b"\0\0\x01\x01\x01\0\0\0\x01\x82";
    for parts in [
        &[&preface[..20]][..],
        &[preface],
        &[preface, settings],
        &[preface, settings, half],
    ] {
        let mut socket = TcpStream::connect(node.address()).await.expect("the node");
        socket.write_all(&parts.concat()).await.expect("sent");
        let mut rest = Vec::new();
        // However it ends.
        let _ = within("the end", socket.read_to_end(&mut rest)).await;
    }
    let text = node.get("/metrics").await.text;
    let counted = text.lines().find(|line| {
        line.starts_with("fanfare_handshake_refusals_total{") && line.contains("header_timeout")
    });
    assert!(
        counted.is_some_and(|line| line.ends_with(" 4")),
        "{counted:?}"
    );
}

/// An answer of which the client takes nothing waits for it for so long, and holds no more than it had.
#[tokio::test]
async fn a_client_that_opens_no_window_is_given_up() {
    let upstream = Upstream::start().await;
    let node = node(&[&upstream], &[("BODY_TIMEOUT_MS", "300")]).await;
    let mut builder = Builder::new();
    builder.initial_window_size(1000);
    let session = Session::open_with(&node, &builder).await;
    let (response, _) = session
        .begin("GET", "/api/example/endless", &[], false)
        .await;
    let mut body = within("an answer", response)
        .await
        .expect("an answer")
        .into_body();
    eventually("the upstream is given up", async || {
        (upstream.gone() == 1).then_some(())
    })
    .await;
    let mut ended = Ok(Some(bytes::Bytes::new()));
    while let Ok(Some(_)) = ended {
        ended = next(&mut body).await;
    }
    assert!(ended.is_err(), "a clean end of half an answer");
    // Of a small answer all is here, and waits for the window alone.
    let text = "x".repeat(20_000);
    let (response, mut up) = session.begin("POST", "/api/example/echo", &[], true).await;
    up.send_data(text.into(), true).expect("sent");
    let response = within("an answer", response).await.expect("an answer");
    let mut body = response.into_body();
    let mut come = 0;
    let error = loop {
        // Nothing is given back, so the window closes.
        match within("more, or a reset", body.data()).await {
            Some(Ok(bytes)) => come += bytes.len(),
            Some(Err(error)) => break error,
            None => panic!("all of it came"),
        }
    };
    assert_eq!((error.reason(), come), (Some(Reason::CANCEL), 1000));
    assert_eq!(session.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn a_socket_that_takes_nothing_is_cut() {
    let upstream = Upstream::start().await;
    // One worker: another could open its files later than they are counted.
    let node = node(
        &[&upstream],
        &[("BODY_TIMEOUT_MS", "300"), ("WORKERS", "1")],
    )
    .await;
    let files = node.open_files();
    let mut socket = TcpStream::connect(node.address()).await.expect("the node");
    let window = b"\0\0\x06\x04\0\0\0\0\0\0\x04\x7f\xff\xff\xff";
    let more = b"\0\0\x04\x08\0\0\0\0\0\x7f\0\0\0";
    // HEADERS: GET, http, a path and an authority that are not indexed.
    let path = b"/api/example/endless";
    let block = [
        &[0x82, 0x86, 0x04, u8::try_from(path.len()).expect("short")],
        &path[..],
        &[0x01, 1, b'a'],
    ]
    .concat();
    let head = [
        &[
            0,
            0,
            u8::try_from(block.len()).expect("short"),
            1,
            5,
            0,
            0,
            0,
            1,
        ],
        &block[..],
    ]
    .concat();
    let bytes = [
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
        window,
        more,
        &head,
    ]
    .concat();
    socket.write_all(&bytes).await.expect("sent");
    // Nothing is read: the socket fills, and the windows would let gigabytes pass.
    eventually("the upstream is given up", async || {
        (upstream.gone() == 1).then_some(())
    })
    .await;
    eventually("its own socket is closed, unread as it is", async || {
        (node.open_files() <= files).then_some(())
    })
    .await;
}

#[tokio::test]
async fn heads_have_the_same_bounds_as_in_http1() {
    let node = hub(&[]).await;
    let session = Session::open(&node).await;
    let names: Vec<String> = (0..101).map(|n| format!("x-{n}")).collect();
    let many: Vec<(&str, &str)> = names.iter().map(|name| (&**name, "1")).collect();
    assert_eq!(session.ask("GET", "/healthz", &many, "").await.status, 431);
    let long = format!("/{}", "x".repeat(9000));
    assert_eq!(session.get(&long).await.status, 414);
    let session = Session::open(&node).await;
    let large = "x".repeat(70_000);
    let (response, _) = session
        .begin("GET", "/healthz", &[("x", &large)], false)
        .await;
    match finish(response).await {
        Ok(answer) => assert_eq!(answer.status, 431),
        Err(error) => assert!(error.is_remote(), "{error}"),
    }
    assert_eq!(node.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn an_early_answer_leaves_the_other_streams_alone() {
    let node = hub(&[("MAX_BODY_BYTES", "1000")]).await;
    let session = Session::open(&node).await;
    let length = [
        ("content-length", "5000"),
        ("content-type", "application/json"),
    ];
    let (response, mut stream) = session.begin("POST", "/hub/publish", &length, true).await;
    let answer = finish(response).await.expect("an answer");
    assert_eq!(answer.status, 413);
    // It goes on regardless, and hears that nobody wants it, or is just read.
    let _ = stream.send_data(vec![b'x'; 5000].into(), true);
    assert_eq!(session.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn a_drain_lets_what_is_under_way_come_to_its_end() {
    let upstream = Upstream::start().await;
    let limits = [("DRAIN_SECONDS", "1"), ("DRAIN_DELAY_MS", "500")];
    let mut node = node(&[&upstream], &limits).await;
    let session = Session::open(&node).await;
    let idle = Session::open(&node).await;
    assert_eq!(idle.get("/healthz").await.status, 200);
    let (response, _) = session
        .begin("GET", "/sse/connect?channel=news", &[], false)
        .await;
    let mut body = within("an answer", response)
        .await
        .expect("an answer")
        .into_body();
    read_until(&mut body, "event: connected").await;
    let (upload, mut stream) = session.begin("POST", "/api/example/late", &[], true).await;
    stream.send_data("begun, ".into(), false).expect("sent");
    eventually("it has arrived", async || {
        (upstream.connections() == 1).then_some(())
    })
    .await;
    node.terminate();
    eventually("it is not ready", async || is_turning_away(&node).await).await;
    stream.send_data("and ended".into(), true).expect("sent");
    let answer = finish(upload).await.expect("an answer");
    assert!(answer.text().contains("and ended"), "{}", answer.text());
    // The stream of events hears when to come back, and ends in good order.
    let text = read_until(&mut body, "retry:").await;
    assert!(text.contains("retry:"), "{text}");
    while let Some(_bytes) = next(&mut body).await.expect("a clean end") {}
    for one in [&session, &idle] {
        let refused = one.send.clone().ready().await;
        assert!(refused.is_err_and(|error| error.is_go_away()), "GOAWAY");
    }
    assert!(end(session).await.is_ok(), "GOAWAY without an error");
    assert!(end(idle).await.is_ok(), "GOAWAY without an error");
    assert_eq!(node.exit_code().await, Some(0));
}

async fn is_turning_away(node: &Hub) -> Option<()> {
    (node.get("/readyz").await.status == 503).then_some(())
}
