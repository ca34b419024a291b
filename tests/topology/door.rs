//! What nginx does with those who come: balances, passes streams through, tells the gateways who a client is.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket};

use crate::fleet::Fleet;
use crate::support::http::Answer;
use crate::support::raw::read_head;
use crate::support::sse::EventStream;
use crate::support::ws::{Socket, handshake};
use crate::support::{Hub, eventually, within};

#[tokio::test]
async fn what_is_published_through_nginx_reaches_every_gateway_over_both_protocols() {
    let fleet = Fleet::start(3, &[]).await;
    fleet
        .expect_nodes(&["gateway-1", "gateway-2", "gateway-3"])
        .await;
    let nginx = fleet.nginx();
    let mut sockets = vec![Socket::open(&nginx).await];
    let mut streams = vec![EventStream::open(&nginx, "channel=news", &[]).await];
    for index in 1..=3 {
        let gateway = fleet.gateway(index);
        sockets.push(Socket::open(&gateway).await);
        streams.push(EventStream::open(&gateway, "channel=news", &[]).await);
    }
    for socket in &mut sockets {
        socket.subscribe("news").await;
    }
    for (offset, door) in [nginx, fleet.nginx_8000(), fleet.gateway(2)]
        .iter()
        .enumerate()
    {
        assert_eq!(
            door.publish("news", &json!({ "n": offset })).await,
            offset as u64 + 1
        );
        for socket in &mut sockets {
            let message = socket.next_of("publication").await;
            assert_eq!(message["data"]["n"], offset, "{message}");
        }
        for stream in &mut streams {
            assert_eq!(stream.event().await.json()["data"]["n"], offset);
        }
    }
}

/// Opens so many more through nginx, and counts all by gateway.
async fn fill(nginx: &Hub, sockets: &mut Vec<Socket>, more: usize) -> Vec<(String, usize)> {
    for _ in 0..more {
        sockets.push(Socket::open(nginx).await);
    }
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for socket in sockets {
        *counts.entry(gateway_of(socket)).or_default() += 1;
    }
    counts.into_iter().collect()
}

fn gateway_of(socket: &Socket) -> String {
    let gateway = socket.connected["gateway_id"].as_str();
    gateway.expect("a name").to_owned()
}

#[tokio::test]
async fn clients_go_where_the_fewest_are() {
    let fleet = Fleet::start(3, &[]).await;
    let nginx = fleet.nginx();
    let even = ["gateway-1", "gateway-2", "gateway-3"].map(|name| (name.to_owned(), 4));
    let mut sockets = Vec::new();
    assert_eq!(fill(&nginx, &mut sockets, 12).await, even);
    // One gateway loses its clients: the next ones all go there, which taking turns would not do.
    let (left, stay): (Vec<Socket>, Vec<Socket>) = sockets
        .into_iter()
        .partition(|socket| gateway_of(socket) == "gateway-2");
    for socket in left {
        socket.close().await;
    }
    let mut sockets = stay;
    assert_eq!(fill(&nginx, &mut sockets, 4).await, even);
}

#[tokio::test]
async fn health_is_of_nginx_on_one_port_and_of_a_gateway_on_the_others() {
    let fleet = Fleet::start(1, &[]).await;
    let answer = fleet.nginx_8000().get("/health").await;
    assert_eq!((answer.status, answer.text.as_str()), (200, "healthy\n"));
    assert_eq!(answer.header("content-type"), Some("text/plain"));
    let answer = fleet.nginx().get("/health").await;
    assert_eq!(answer.json()["redis_connected"], true, "{answer:?}");
    for door in [fleet.nginx(), fleet.nginx_8000()] {
        for path in [
            "/healthz",
            "/readyz",
            "/ready",
            "/ws/health",
            "/metrics",
            "/_pressure",
        ] {
            assert_eq!(door.get(path).await.status, 200, "{path}");
        }
    }
}

/// A gateway that takes no streams now takes publications all the same: nginx must not take it for one that has failed.
#[tokio::test]
async fn publishing_goes_on_while_all_gateways_refuse_streams() {
    let services = json!({"gone": ["http://127.0.0.1:1"]}).to_string();
    let variables = [
        ("UNDER_PRESSURE_MAX_RSS_BYTES", "1000"),
        ("UPSTREAMS", services.as_str()),
    ];
    let fleet = Fleet::start(2, &variables).await;
    for index in 1..=2 {
        eventually("it is under pressure", async || {
            (fleet.gateway(index).get("/_pressure").await.status == 503).then_some(())
        })
        .await;
    }
    let nginx = fleet.nginx();
    for n in 0..10 {
        for path in ["/ws/connect", "/ws/gone?path=/"] {
            let refused = handshake(&nginx, path, &[]).await.expect_err("no place");
            assert!((502..=503).contains(&refused.status), "{path} {refused:?}");
        }
        for path in ["/sse/connect?channel=news", "/sse/gone/x"] {
            let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
            // Nothing at all where nginx has nobody to ask.
            let answer = nginx.exchange(request.as_bytes()).await;
            let is_refused = answer.is_empty() || answer.starts_with(b"HTTP/1.1 503 ");
            assert!(is_refused, "{path} {}", String::from_utf8_lossy(&answer));
        }
        assert_eq!(nginx.publish("news", &json!(n)).await, n + 1);
    }
}

#[tokio::test]
async fn nginx_lives_without_gateways_and_finds_them_again() {
    let mut fleet = Fleet::start(2, &[]).await;
    for index in 1..=2 {
        fleet.tell(&format!("kill {index}"));
        fleet.hear(&format!("gateway-{index} ended")).await;
    }
    assert_eq!(fleet.nginx_8000().get("/health").await.status, 200);
    fleet
        .nginx()
        .get("/healthz")
        .await
        .expect_error(502, "unavailable");
    // A browser's EventSource comes back from a connection that breaks off, and never again after a 502.
    let request = b"GET /sse/connect?channel=news HTTP/1.1\r\nhost: a\r\n\r\n";
    assert_eq!(fleet.nginx().exchange(request).await, b"");
    fleet.tell("start 2");
    fleet.hear("gateway-2 ").await;
    let nginx = fleet.nginx();
    eventually("a gateway", async || {
        (nginx.get("/healthz").await.status == 200).then_some(())
    })
    .await;
}

/// Gateways that have gone have the fewest connections, so nginx asks every one of them before the one that lives. It gave
/// up after three: a 502 now and then while gateways were scaled, after which a browser's EventSource never came back.
#[tokio::test]
async fn who_comes_finds_the_one_gateway_of_five_that_lives() {
    let mut fleet = Fleet::start(5, &[]).await;
    let nginx = fleet.nginx();
    let mut sockets = Vec::new();
    assert_eq!(fill(&nginx, &mut sockets, 5).await.len(), 5);
    for index in 2..=5 {
        fleet.tell(&format!("kill {index}"));
        fleet.hear(&format!("gateway-{index} ended")).await;
    }
    for _ in 0..4 {
        let stream = EventStream::open(&nginx, "channel=news", &[]).await;
        assert_eq!(stream.connected.json()["gateway_id"], "gateway-1");
    }
}

/// What a client claims about itself ends at nginx; what nginx says of it, a gateway believes and passes on.
#[tokio::test]
async fn services_see_the_address_of_the_client() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let service = listener.local_addr().expect("its address");
    let upstreams = format!(r#"{{"service":["http://{service}"]}}"#);
    let fleet = Fleet::start(1, &[("UPSTREAMS", &upstreams)]).await;
    let seen = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("the gateway");
        let head = read_head(&mut stream).await;
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        stream.write_all(answer).await.expect("sent");
        head.to_ascii_lowercase()
    });
    let socket = TcpSocket::new_v4().expect("a socket");
    socket
        .bind("127.0.0.77:0".parse().expect("an address"))
        .expect("bound");
    let mut stream = socket
        .connect(fleet.nginx().address())
        .await
        .expect("nginx");
    let request = "GET /api/service/ HTTP/1.1\r\nhost: example.com\r\nx-forwarded-for: 6.6.6.6\r\n\
                   x-real-ip: 6.6.6.6\r\nforwarded: for=6.6.6.6\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut bytes = Vec::new();
    within("an answer", stream.read_to_end(&mut bytes))
        .await
        .expect("an answer");
    assert_eq!(Answer::parse(&bytes).status, 200);
    let head = seen.await.expect("a request");
    assert!(!head.contains("6.6.6.6"), "{head}");
    assert!(head.contains("\r\nx-real-ip: 127.0.0.77\r\n"), "{head}");
    assert!(head.contains("\r\nx-forwarded-for: 127.0.0.77"), "{head}");
    assert!(
        head.contains("\r\nx-forwarded-host: example.com\r\n"),
        "{head}"
    );
}

fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// The examples of `nginx/examples`, in a fleet that has both.
#[tokio::test]
async fn encryption_and_limits_work_as_the_examples_say() {
    let repository = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let site = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("site-of-examples");
    std::fs::create_dir_all(&site).expect("a folder");
    for example in ["limits", "tls"] {
        let folder = repository.join("nginx/examples").join(example);
        for entry in std::fs::read_dir(folder).expect("an example") {
            let path = entry.expect("a file").path();
            std::fs::copy(&path, site.join(path.file_name().expect("a name"))).expect("copied");
        }
    }
    run(Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
        ])
        .arg("-keyout")
        .arg(site.join("fanfare.key"))
        .arg("-out")
        .arg(site.join("fanfare.crt")));
    let fleet = Fleet::start(1, &[("SITE", site.to_str().expect("a path"))]).await;

    let port = fleet.nginx_tls().address().port();
    let answer = run(Command::new("curl")
        .args(["--silent", "--include", "--http2", "--cacert"])
        .arg(site.join("fanfare.crt"))
        .arg(format!("https://localhost:{port}/readyz")));
    assert!(answer.starts_with("HTTP/2 200"), "{answer}");
    assert!(
        answer.contains("strict-transport-security: max-age="),
        "{answer}"
    );

    let nginx = fleet.nginx();
    expect_limits(&nginx).await;
}

/// The example lets an address ask 200 times at once and 50 times a second: of many in a moment some are refused, and say
/// so. Publications of back ends are not, whatever else comes from their address.
async fn expect_limits(nginx: &Hub) {
    let publication = json!({"channel": "news", "data": 1});
    let refused = eventually("somebody is refused", async || {
        let (asked, published) = tokio::join!(
            futures_util::future::join_all((0..400).map(|_| nginx.get("/healthz"))),
            futures_util::future::join_all(
                (0..300).map(|_| nginx.post("/hub/publish", &publication))
            ),
        );
        for answer in published {
            assert_eq!(answer.status, 200, "{answer:?}");
        }
        asked.into_iter().find(|answer| answer.status != 200)
    })
    .await;
    refused.expect_error(429, "rate_limited");
    // After an answer that is not 200 a browser's EventSource would never come back.
    let stream = eventually("a stream is refused", async || {
        let streams = (0..400).map(|_| EventStream::open_at(nginx, "/sse/connect?channel=a", &[]));
        let streams = futures_util::future::join_all(streams).await;
        let is_refused = |stream: &EventStream| stream.connected.event.is_none();
        streams.into_iter().find(is_refused)
    })
    .await;
    assert_eq!(
        stream.head.header("content-type"),
        Some("text/event-stream")
    );
    let retry = stream.connected.retry.expect("when to come back");
    assert!(retry >= 5000, "{retry}");
    // And nothing behind it: for a browser the stream ends there, and it comes back.
    let length = format!("retry: {retry}\n\n").len().to_string();
    assert_eq!(stream.head.header("content-length"), Some(length.as_str()));
}

#[tokio::test]
async fn nothing_lives_on_when_the_script_ends() {
    let mut fleet = Fleet::start(2, &[("DRAIN_SECONDS", "60")]).await;
    // Somebody for whom a drain would wait.
    let _socket = Socket::open(&fleet.gateway(1)).await;
    assert_eq!(fleet.end(), Vec::<u32>::new());
}
