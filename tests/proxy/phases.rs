//! Clients that go away in each phase of a request, clients and upstreams that are slow or too many: nothing is left
//! behind, and nothing grows.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::node;
use crate::support::{Hub, eventually, hub, hub_with, within};
use crate::upstream::Upstream;

/// Requests and streams that are under way, as the node counts them.
async fn inflight(node: &Hub) -> u64 {
    let stats = node.get("/admin/stats").await.json();
    let upstream = &stats["services"]["example"]["upstreamDetails"][0]["inflight"];
    let count = |carried: &str| upstream[carried].as_u64().expect("a number");
    count("http") + count("sse") + count("ws")
}

async fn under_way(node: &Hub, count: u64) {
    eventually(&format!("{count} under way"), async || {
        (inflight(node).await == count).then_some(())
    })
    .await;
}

async fn client(node: &Hub, text: &str) -> TcpStream {
    let mut client = TcpStream::connect(node.address()).await.expect("the node");
    client.write_all(text.as_bytes()).await.expect("sent");
    client
}

/// An upstream whose kernel takes no connection: the first ones fill what may wait, nobody accepts them.
fn silent_listener() -> (Socket, SocketAddr, Vec<std::net::TcpStream>) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    socket.bind(&any.into()).expect("a port");
    socket.listen(0).expect("listening");
    let address = socket.local_addr().ok().and_then(|one| one.as_socket());
    let address = address.expect("an address");
    let connect = || std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200));
    let waiting = std::iter::from_fn(|| connect().ok()).collect();
    (socket, address, waiting)
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_nothing_in_any_phase() {
    let upstream = Upstream::start().await;
    let node = node(&[&upstream], &[]).await;
    for request in [
        // In the middle of its body, by length and by chunks; then waiting for the head; then in the answer.
        "POST /api/example/ HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nabc",
        "POST /api/example/ HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab",
        "GET /api/example/never HTTP/1.1\r\nhost: x\r\n\r\n",
        "GET /api/example/endless HTTP/1.1\r\nhost: x\r\n\r\n",
        "GET /sse/example/events HTTP/1.1\r\nhost: x\r\n\r\n",
        // With something behind it: an empty line too many, a request that is ahead of its time.
        "GET /sse/example/events HTTP/1.1\r\nhost: x\r\n\r\n\r\n",
        "GET /sse/example/never HTTP/1.1\r\nhost: x\r\n\r\n\r\n",
        "GET /api/example/never HTTP/1.1\r\nhost: x\r\n\r\nGET / HTTP/1.1\r\n",
    ] {
        let client = client(&node, request).await;
        under_way(&node, 1).await;
        drop(client);
        under_way(&node, 0).await;
    }
    // In the middle of its head nothing was asked of anybody.
    drop(client(&node, "GET /api/example/never HTTP/1.1\r\nhos").await);
    assert_eq!(node.get("/api/example/").await.status, 200);
}

#[tokio::test]
async fn a_client_that_floods_its_stream_is_cut_off() {
    let upstream = Upstream::start().await;
    let node = node(&[&upstream], &[]).await;
    let mut client = client(&node, "GET /sse/example/events HTTP/1.1\r\nhost: x\r\n\r\n").await;
    under_way(&node, 1).await;
    // It may be cut in the middle of that.
    let _ = client.write_all(&vec![b'x'; 1 << 20]).await;
    under_way(&node, 0).await;
}

#[tokio::test]
async fn an_upstream_that_takes_no_connection_is_given_up_and_so_is_its_client() {
    let (_socket, address, _waiting) = silent_listener();
    let file =
        format!("[services.example]\nupstreams = [\"http://{address}\"]\nconnect_timeout = ");
    let impatient = hub_with(&format!("{file}\"200ms\""), &[]).await;
    let answer = impatient.get("/api/example/").await;
    assert_eq!(answer.status, 504, "{answer:?}");
    let patient = hub_with(&format!("{file}\"1h\""), &[]).await;
    let client = client(&patient, "GET /api/example/ HTTP/1.1\r\nhost: x\r\n\r\n").await;
    under_way(&patient, 1).await;
    drop(client);
    under_way(&patient, 0).await;
}

#[tokio::test]
async fn a_fast_client_before_a_slow_upstream_costs_little() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.expect("a port");
    let address = listener.local_addr().expect("an address");
    let services = format!("{{\"example\":[\"http://{address}\"]}}");
    let node = hub(&[("UPSTREAMS", &services), ("MAX_BODY_BYTES", "0")]).await;
    let before = node.resident_bytes();
    let head = "PUT /api/example/ HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000000\r\n\r\n";
    let mut uploads = Vec::new();
    let mut upstreams = Vec::new();
    for _ in 0..10 {
        let mut client = client(&node, head).await;
        let (mut upstream, _) = listener.accept().await.expect("a connection");
        uploads.push(tokio::spawn(async move {
            let chunk = vec![b'x'; 1 << 16];
            while client.write_all(&chunk).await.is_ok() {}
        }));
        within("a head", upstream.read_u8()).await.expect("a head");
        upstreams.push(upstream);
    }
    // Each takes three megabytes, bit by bit, and its client as much as it gets rid of.
    let mut read = vec![0; 1 << 16];
    for _ in 0..50 {
        for upstream in &mut upstreams {
            within("more", upstream.read_exact(&mut read))
                .await
                .expect("more");
        }
    }
    let grown = node.resident_bytes().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes for ten slow upstreams");
    uploads.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn ten_thousand_idle_connections_cost_little_and_nobody_waits_for_them() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).expect("up to the hard limit");
    let files = limit.maximum.unwrap_or(u64::MAX);
    // Where the machine gives fewer files, fewer.
    let count =
        usize::try_from(files.saturating_sub(1000)).map_or(10_000, |files| files.min(10_000));
    let upstream = Upstream::start().await;
    let node = node(&[&upstream], &[("MAX_CONNECTIONS", "12000")]).await;
    let request = "GET /api/example/ HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut idle = Vec::with_capacity(count);
    let before = node.resident_bytes();
    for _ in 0..count {
        let mut client = client(&node, request).await;
        // The whole of it, so that the next request finds the upstream's connection free: the body is a head, too.
        let mut answer = Vec::with_capacity(1024);
        within("an answer", async {
            while answer.windows(4).filter(|end| end == b"\r\n\r\n").count() < 2 {
                let read = client.read_buf(&mut answer).await.expect("an answer");
                let text = String::from_utf8_lossy(&answer);
                assert!(read > 0 && text.starts_with("HTTP/1.1 200"), "{text}");
            }
        })
        .await;
        idle.push(client);
    }
    let each = node.resident_bytes().saturating_sub(before) / count as u64;
    assert!(each < 4096, "{each} bytes for an idle connection");
    assert!(upstream.connections() < 100, "{}", upstream.connections());
    assert_eq!(node.get("/api/example/").await.status, 200);
}
